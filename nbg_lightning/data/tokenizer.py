"""Tokenizers: a thin wrapper around a Hugging Face tokenizer folder, and byte-level BPE training.

Encoding uses the folder's ``tokenizer.json`` through `tokenizers` only, so that worker processes start fast
and without torch; transformers is imported only when needed (hub names, old formats, chat
templates).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nbg_lightning.chat.encoder import LAYOUT_TOKENS
from nbg_lightning.chat.fast_encoder import ONE_THREAD, FastEncoder
from nbg_lightning.chat.nanbeige_template import nanbeige_template
from nbg_lightning.chat.template import ChatTemplate
from nbg_lightning.data.durable import atomic_folder
from nbg_lightning.data.tokenizer_file import check_ids, clean_copy, load_backend
from nbg_lightning.data.tokenizer_settings import (
    NAMED_TEMPLATES,
    TOKENIZER_FILES,
    check_folder,
    special_names,
    transformers_class,
    write_template,
)
from nbg_lightning.schedule.tokens import parse_tokens

UNKNOWN, BEGIN, END, PAD = "<unk>", "<s>", "</s>", "<|endoftext|>"
CONTROL_TOKENS = [
    UNKNOWN,
    BEGIN,
    END,
    "<|im_start|>",
    "<|im_end|>",
    PAD,
]  # ids 0, 1, 2, ...; cannot be written as plain text
# Part of the generated text: kept by decode(skip_special_tokens=True), and recognized in training text.
MARKUP_TOKENS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
NUM_BYTES = 256
PROBE = "Two  words, 1234 and Größe\n\tif x: \u4e2d\u6587 \U0001f642"


@dataclass
class TokenizerConfig:
    """Settings of a tokenizer: either an existing one, or one to train on the sources.

    Args:
        name_or_path: Folder of a Hugging Face tokenizer, or a name on the hub.
        train_vocab_size: Train a byte-level BPE with this vocabulary size (including special tokens).
        train_bytes: Amount of text to train on, sampled evenly from all sources (UTF-8 bytes; "32M" = 32,000,000).
    """

    name_or_path: str | None = None
    train_vocab_size: int | None = None
    train_bytes: int | str = "32M"

    def __post_init__(self) -> None:
        if (self.name_or_path is None) == (self.train_vocab_size is None):
            given = "neither" if self.name_or_path is None else "both"
            raise ValueError(f"tokenizer is invalid: {given}; give one of name_or_path and train_vocab_size")
        self.train_bytes = parse_tokens(self.train_bytes)
        if self.train_vocab_size is not None:
            _check_vocab_size(self.train_vocab_size)
            if self.train_bytes < 1:
                raise ValueError("tokenizer: train_bytes is invalid: 0; give it some text to train on, such as '32M'")


class Tokenizer:
    """Encodes and decodes with a Hugging Face tokenizer.

    Args:
        name_or_path: A folder with a tokenizer, or a name on the hub.

    Attributes:
        vocab_size: Vocabulary size including added tokens: the highest id + 1.
        bos_id, eos_id, pad_id: Ids, or None if the tokenizer has no such token.
        begin: Ids that the tokenizer adds before a text by itself, as in transformers and vLLM: bos, or nothing. In some
            tokenizers bos only marks chats, and the model has never seen it before a text.
        chat_template: The chat format of the tokenizer's model, if known: recorded in a checkpoint (`load_tokenizer`), or set by
            a run that trains on chats. None means the tokenizer's own template.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: No tokenizer can be loaded from there.
    """

    def __init__(self, name_or_path: str | Path) -> None:
        self.name_or_path = str(name_or_path)
        self.chat_template: ChatTemplate | None = None
        folder = Path(name_or_path).expanduser()
        if folder.is_file():
            raise ValueError(f"tokenizer {self.name_or_path!r} is a file; give the folder that holds it")
        if self.name_or_path.startswith(("/", ".", "~")) and not folder.exists():
            raise FileNotFoundError(f"tokenizer folder {self.name_or_path!r} does not exist; check the path")
        if folder.is_dir():
            check_folder(folder, self.name_or_path)
        self.folder = folder if (folder / "tokenizer.json").is_file() else None
        if self.folder:
            self._backend = load_backend(self.folder / "tokenizer.json")
            names, adds_bos = special_names(self.folder)
        else:
            self._backend = clean_copy(self.transformers.backend_tokenizer)
            names = {role: getattr(self.transformers, role) for role in ("bos_token", "eos_token", "pad_token")}
            adds_bos = None  # its post-processor decides
        self.vocab_size: int = max(check_ids(self._backend, self.name_or_path).values()) + 1
        self.bos_id, self.eos_id, self.pad_id = (
            None if name is None else self.token_id(name)
            for name in (names[role] for role in ("bos_token", "eos_token", "pad_token"))
        )
        if adds_bos is None:
            adds_bos = self.bos_id is not None and self._backend.encode("a").ids[:1] == [self.bos_id]
        self.begin: tuple[int, ...] = (self.bos_id,) if adds_bos and self.bos_id is not None else ()

    @cached_property
    def transformers(self) -> Any:
        """The same tokenizer as a transformers object, for chat templates and exports."""
        local = Path(self.name_or_path).expanduser()
        try:
            loaded = transformers_class(self.folder).from_pretrained(
                str(local) if local.is_dir() else self.name_or_path
            )
        except Exception as error:  # the hub client and old formats raise many types; each means: no tokenizer
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"no tokenizer can be loaded from {self.name_or_path!r}; check the folder or hub name ({reason})"
            ) from error
        if not getattr(loaded, "is_fast", False):
            raise ValueError(
                f"tokenizer {self.name_or_path!r} has no tokenizer.json form; convert it to a fast tokenizer"
            )
        # Some classes rebuild their rules and ignore tokenizer.json: chats and training text would differ.
        if self.folder and loaded.encode(PROBE, add_special_tokens=False) != self.encode(PROBE):
            raise ValueError(
                f"tokenizer {self.name_or_path!r}: transformers encodes texts differently from its tokenizer.json; "
                'set "tokenizer_class" to "PreTrainedTokenizerFast" in its tokenizer_config.json'
            )
        return loaded

    def token_id(self, token: str) -> int:
        """The id of one token.

        Raises:
            ValueError: The tokenizer does not have the token.
        """
        found = self._backend.token_to_id(token)
        if found is None:
            raise ValueError(f"tokenizer {self.name_or_path!r} has no token {token!r}; use another tokenizer or token")
        return found

    def vocabulary(self) -> dict[str, int]:
        """All tokens with their ids, including added ones."""
        return self._backend.get_vocab(with_added_tokens=True)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Encode a text, without adding special tokens.

        Args:
            text: The text.
            special: Whether names of control tokens (``</s>``) in the text are encoded as these tokens. False for
                training text: a web page that mentions an end token must not end the document.
        """
        return self.encode_batch([text], special)[0]

    def encode_batch(self, texts: Sequence[str], special: bool = False) -> list[list[int]]:
        """Encode many texts at once."""
        self._backend.encode_special_tokens = not special
        return [e.ids for e in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def fast_encoder(self) -> FastEncoder:
        """fastokens with the rules of this tokenizer, for `encode_batch` of many texts.

        Raises:
            EnginesDiffer: it is not installed, or does not support the rules.
        """
        self._backend.encode_special_tokens = True
        return FastEncoder(self._backend)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """Decode ids to text."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)

    def written(self, ids: Iterable[int]) -> str:
        """Decode generated ids: without control tokens, but with the tags of thinking and tool calls, special or not."""
        return self._reader.decode([int(i) for i in ids], skip_special_tokens=True)

    def writer(self) -> Callable[[int], str]:
        """Create a function that is called with one id after another, and returns the text that each adds to `written`.

        An id that ends within a character returns an empty text, and the one that completes it returns the whole character.
        """
        from tokenizers.decoders import DecodeStream

        stream, reader = DecodeStream(skip_special_tokens=True), self._reader
        return lambda token: stream.step(reader, token) or ""

    @cached_property
    def _reader(self) -> Any:
        """The tokenizer with layout tags as non-special tokens, for tokenizers that make them special."""
        rules = json.loads(self._backend.to_str())
        tags = [token for token in rules["added_tokens"] if token["special"] and token["content"] in LAYOUT_TOKENS]
        if not tags:
            return self._backend
        import tokenizers

        for token in tags:
            token["special"] = False
        return tokenizers.Tokenizer.from_str(json.dumps(rules, ensure_ascii=False))

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of everything that affects ids, and nothing else (not the chat template, path, or added special tokens)."""
        roles = json.dumps([self.bos_id, self.eos_id, self.pad_id])
        rules = json.dumps(json.loads(self._backend.to_str()) | {"post_processor": None}, sort_keys=True)
        return hashlib.blake2b(f"{roles}\n{rules}".encode(), digest_size=16).hexdigest()

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write a folder that `Tokenizer` and ``AutoTokenizer.from_pretrained`` can load, with `chat_template` if it is known."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.folder is None:
            self.transformers.save_pretrained(folder)
        elif folder.resolve() != self.folder.resolve():
            for name in TOKENIZER_FILES:
                if (self.folder / name).is_file():
                    shutil.copyfile(self.folder / name, folder / name)
            if (self.folder / NAMED_TEMPLATES).is_dir():
                shutil.copytree(self.folder / NAMED_TEMPLATES, folder / NAMED_TEMPLATES, dirs_exist_ok=True)
        if self.chat_template is not None:
            write_template(folder, self.chat_template.text)
        return folder


def load_tokenizer(name: str) -> Tokenizer:
    """Load the tokenizer of a folder, a hub name or a checkpoint; the latter with its chat format.

    Raises:
        ValueError, FileNotFoundError: as `Tokenizer` and `checkpoint_tokenizer`.
    """
    tokenizer = Tokenizer(checkpoint_tokenizer(name))
    tokenizer.chat_template = checkpoint_template(name)
    return tokenizer


def checkpoint_template(name: str) -> ChatTemplate | None:
    """The chat format recorded by a checkpoint, or by the newest one of a run's folder; None for anything else."""
    from nbg_lightning.core.checkpoint_folder import checkpoint_at, is_complete, local_or_url

    path = local_or_url(checkpoint_at(name))
    if not is_complete(path):
        return None
    from nbg_lightning.core.weight_sources import TrainingCheckpoint

    found = TrainingCheckpoint(path).chat_template
    return None if found is None else ChatTemplate.from_dict(found, where=name)


def trained_template(tokenizer: str, weights: str | None) -> ChatTemplate | None:
    """The chat format that a model was trained with: recorded in its checkpoint, or its folder's template.

    Args:
        tokenizer: a name as for `load_tokenizer`; a checkpoint's format is used if the weights record none.
        weights: a checkpoint, a folder or a hub name.
    """
    for name in (weights, tokenizer):
        if name is not None and (found := checkpoint_template(str(name))) is not None:
            return found
    if weights is None or weights == tokenizer or not (Path(weights).expanduser() / "tokenizer.json").is_file():
        return None
    return ChatTemplate.own(Tokenizer(weights).transformers, where=str(weights))


def checkpoint_tokenizer(name: str) -> str:
    """The tokenizer's folder, if ``name`` is a checkpoint or the folder of a run; otherwise the name itself.

    Raises:
        ValueError: the checkpoint does not record its tokenizer.
        FileNotFoundError: the recorded tokenizer does not exist any more.
    """
    from nbg_lightning.core.checkpoint_folder import checkpoint_at, is_complete, local_or_url

    path = local_or_url(checkpoint_at(name))
    if (path / "tokenizer.json").is_file() or not is_complete(path):
        if not path.exists() and name.count("/") > 1:  # hub names have at most one slash
            raise FileNotFoundError(f"tokenizer {name} does not exist; give a folder or checkpoint that does")
        return name
    from nbg_lightning.core.weight_sources import TrainingCheckpoint

    found = TrainingCheckpoint(path).tokenizer
    if found is None:
        raise ValueError(f"checkpoint {name} does not record the tokenizer of its run; give the tokenizer's folder")
    if not Path(found).exists():
        raise FileNotFoundError(f"the tokenizer of checkpoint {name} does not exist at {found}; give its folder")
    return found


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep `tokenizers` and fastokens from starting threads: we use processes, and forks after threads warn or hang."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _check_vocab_size(vocab_size: int) -> None:
    smallest = NUM_BYTES + len(CONTROL_TOKENS) + len(MARKUP_TOKENS)
    if vocab_size < smallest:
        raise ValueError(
            f"train_vocab_size is invalid: {vocab_size}; bytes and special tokens alone need {smallest} ids: give more"
        )


def train_bpe(texts: Iterable[str], vocab_size: int, out_folder: str | Path) -> Path:
    """Train a byte-level BPE and save it as a Hugging Face folder with a ChatML template.

    Text is split like GPT-2's, with each digit separate. ``<unk>``, ``<s>`` and ``</s>`` have ids 0, 1 and
    2, followed by the chat, reasoning and tool tokens; ``<|endoftext|>`` is the padding token. The same texts give the
    same files.

    Args:
        texts: Training texts, read once.
        vocab_size: Vocabulary size, including special tokens.
        out_folder: Appears when everything has been written.

    Raises:
        ValueError: `vocab_size` is below 268, or more than the texts can fill.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    _check_vocab_size(vocab_size)
    backend = tokenizers.Tokenizer(models.BPE(unk_token=None))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*CONTROL_TOKENS, *MARKUP_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    with one_thread():
        backend.train_from_iterator(texts, trainer)
    if backend.get_vocab_size() < vocab_size:
        raise ValueError(
            f"the texts fill only {backend.get_vocab_size()} of {vocab_size} ids; lower train_vocab_size or "
            "give more text"
        )
    # For transformers and vLLM: a text begins with <s>, like every document of the training data.
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B:1", special_tokens=[(BEGIN, CONTROL_TOKENS.index(BEGIN))]
    )
    rules = json.loads(backend.to_str())
    for token in rules["added_tokens"]:
        token["special"] = token["content"] in CONTROL_TOKENS
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "unk_token": UNKNOWN,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
        "chat_template": nanbeige_template(),
    }
    out_folder = Path(out_folder)
    with atomic_folder(out_folder) as written:
        (written / "tokenizer.json").write_text(json.dumps(rules, ensure_ascii=False, indent=1), "utf-8")
        (written / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1), "utf-8")
    return out_folder
