"""Encoding of text between control tokens, with exact splits at character positions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from nbg_lightning.chat.fast_encoder import FastEncoder

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerFast

# Tags of the message layout. They may come from anywhere in a conversation and are tokens if the vocabulary has
# them; control tokens (turn markers, bos, eos, …) come from the renderer only.
LAYOUT_TOKENS = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<tools>",
    "</tools>",
)


def control_tokens(tokenizer: PreTrainedTokenizerFast, *extra: str) -> dict[str, int]:
    """Control tokens of a tokenizer (text -> id): special tokens, bos/eos/pad, and those of `extra` that it has."""
    tokens = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    vocabulary = tokenizer.get_added_vocab()
    for text in (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, *extra):
        if text is not None and text in vocabulary:
            tokens[text] = vocabulary[text]
    return {text: index for text, index in tokens.items() if text not in LAYOUT_TOKENS}


def _without_prefix(node: Any) -> bool:
    """Disable "a space before the first word" everywhere in a tokenizer's JSON; returns whether it was enabled."""
    changed = False
    if isinstance(node, dict):
        if node.get("add_prefix_space") is True:
            node["add_prefix_space"] = False
            changed = True
        if node.get("prepend_scheme") in ("first", "always"):
            node["prepend_scheme"] = "never"
            changed = True
        if node.get("type") == "Prepend":
            node["prepend"] = ""
            changed = True
        children: Sequence[Any] = list(node.values())
    else:
        children = node if isinstance(node, list) else ()
    for child in children:
        changed = _without_prefix(child) or changed
    return changed


class SegmentEncoder:
    """A private copy of a fast tokenizer that encodes pieces of a conversation, without bos, eos, truncation or padding.

    Args:
        tokenizer: a fast transformers tokenizer.
        control: the control tokens (see `control_tokens`).
        parse_control: True encodes control tokens in the text as such (for rendered templates); False encodes them as
            plain text, so that a user who writes `<|im_end|>` or `</s>` cannot end a turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, control: dict[str, int], parse_control: bool) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                f"tokenizer is invalid: {type(tokenizer).__name__}; give a fast tokenizer, which chat rendering needs"
            )
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        state["truncation"] = state["padding"] = None
        state["post_processor"] = None  # adds bos/eos and trims offsets, which is not wanted here
        for token in state["added_tokens"]:
            token["special"] = token["content"] in control
        self._state = json.dumps(state, ensure_ascii=False)
        self._parse_control = parse_control
        self._build()

    def _build(self) -> None:
        self._tokenizer = self._load(self._state)
        self._continuation: Tokenizer | None = None
        self._fast: FastEncoder | None = None

    def _load(self, state: str) -> Tokenizer:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(state)
        tokenizer.encode_special_tokens = not self._parse_control
        return tokenizer

    def __getstate__(self) -> dict[str, Any]:
        # `encode_special_tokens` is lost in pickling, so worker processes set it again.
        return {"_state": self._state, "_parse_control": self._parse_control}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._build()

    def fast(self, probe: bool) -> SegmentEncoder:
        """The same encoder with fastokens.

        Args:
            probe: compare it with `tokenizers` first.

        Raises:
            EnginesDiffer: fastokens cannot be used here, or gives other ids.
        """
        encoder = copy(self)
        encoder._fast = FastEncoder(encoder._tokenizer)
        if probe:
            encoder._fast.probe()
        return encoder

    def ids(self, text: str) -> list[int]:
        """Ids of one text."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def batch_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts; the fast path, without offsets."""
        if self._fast is not None:
            return self._fast.encode(texts).tolist()
        return [item.ids for item in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def batch_encodings(self, texts: Sequence[str]) -> list[Encoding]:
        """Encodings of many texts with character offsets, for `cut`."""
        return self._tokenizer.encode_batch(texts, add_special_tokens=False)

    def continuation_ids(self, text: str) -> list[int]:
        """Ids of a text that continues another one: no space is put before its first word."""
        if self._continuation is None:
            state = json.loads(self._state)
            parts = [state["normalizer"], state["pre_tokenizer"]]
            changed = _without_prefix(parts)
            self._continuation = self._load(json.dumps(state, ensure_ascii=False)) if changed else self._tokenizer
        return self._continuation.encode(text, add_special_tokens=False).ids

    def batch_cut(self, texts: Sequence[str], positions: Sequence[Sequence[int]]) -> list[tuple[list[int], list[int]]]:
        """`cut` of many texts, each at its own positions."""
        if self._fast is None:
            encodings = self.batch_encodings(texts)
            return [self.cut(*each) for each in zip(texts, encodings, positions, strict=True)]
        encoded = self._fast.encode(texts)
        return [self._cut_fast(text, encoded[index], positions[index]) for index, text in enumerate(texts)]

    def _cut_fast(self, text: str, ids: np.ndarray, positions: Sequence[int]) -> tuple[list[int], list[int]]:
        """`cut` without offsets: by the bytes that the ids stand for, where these are the bytes of the text."""
        assert self._fast is not None
        lengths = self._fast.token_bytes
        begins = np.concatenate(([0], np.cumsum(lengths[ids]))) if lengths is not None else np.zeros(1, np.int64)
        if begins[-1] != len(text.encode()):
            return self.cut(text, self.batch_encodings([text])[0], positions)
        wanted = np.array([len(text[:position].encode()) for position in positions], np.int64)
        cuts = np.searchsorted(begins, wanted)
        if not np.array_equal(begins[cuts], wanted):  # a token straddles a position
            return self._cut_apart(text, positions)
        return ids.tolist(), cuts.tolist()

    def cut(self, text: str, encoding: Encoding, positions: Sequence[int]) -> tuple[list[int], list[int]]:
        """Ids of a text, and for ascending character positions the index of the token that begins there.

        The ids are those of the whole text. Only if a token straddles a position are the parts between the positions encoded
        separately, which matches what a model sees that continues from exactly there.

        Returns:
            (ids, token index for each position)
        """
        ids = encoding.ids
        cuts = []
        for position in positions:
            if position >= len(text):
                cuts.append(len(ids))
                continue
            token = encoding.char_to_token(position)
            span = None if token is None else encoding.token_to_chars(token)
            if token is None or span is None or span[0] != position:
                return self._cut_apart(text, positions)
            cuts.append(token)
        return ids, cuts

    def _cut_apart(self, text: str, positions: Sequence[int]) -> tuple[list[int], list[int]]:
        ids: list[int] = []
        cuts = []
        begin = 0
        for position in (*positions, len(text)):
            part = text[begin:position]
            if part:
                ids += self.ids(part) if begin == 0 else self.continuation_ids(part)
            cuts.append(len(ids))
            begin = position
        return ids, cuts[:-1]
