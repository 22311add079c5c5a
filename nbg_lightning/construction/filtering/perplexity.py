"""Steps with a tokenizer or model: token counts, and how well a model predicts a document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from nbg_lightning.construction.step import DocumentRow, DocumentStep

if TYPE_CHECKING:
    import pyarrow


class TokenCount(DocumentStep):
    """Column ``tokens``: number of ids of the document, including the bos and eos that training adds.

    Args:
        tokenizer: a folder, a hub name, or a checkpoint.
    """

    def __init__(self, tokenizer: str):
        self.tokenizer = tokenizer
        _tokenizer(tokenizer)

    @property
    def columns(self) -> dict[str, pyarrow.DataType]:
        import pyarrow

        return {"tokens": pyarrow.int64()}

    def identity(self) -> dict[str, Any]:
        return {"step": "TokenCount", "tokenizer": _tokenizer(self.tokenizer).fingerprint}

    def values(self, texts: Sequence[str]) -> list[DocumentRow]:
        tokenizer = _tokenizer(self.tokenizer)
        added = (tokenizer.bos_id is not None) + (tokenizer.eos_id is not None)
        return [{"tokens": len(ids) + added} for ids in tokenizer.encode_batch(texts)]


@lru_cache(maxsize=2)
def _tokenizer(name: str) -> Any:
    from nbg_lightning.data.tokenizer import Tokenizer, checkpoint_tokenizer

    return Tokenizer(checkpoint_tokenizer(name))


class Perplexity(DocumentStep):
    """Column ``bits_per_byte``: ``-sum_t log2 p(token_t | tokens before) / bytes of these tokens`` of the document's beginning.

    Low for text that the model knows well and for repetitive text, high for noise; null for a document without a
    token to predict.

    Args:
        weights: a Hugging Face folder, a hub name, or a checkpoint.
        max_tokens: maximum tokens of a document; limited by the model's window.
        tokenizer: the model's tokenizer; by default that of the weights.
    """

    def __init__(self, weights: str, max_tokens: int = 1024, tokenizer: str | None = None):
        if max_tokens < 2:
            raise ValueError(f"max_tokens is invalid: {max_tokens}; give at least 2")
        self.weights, self.max_tokens, self.tokenizer = weights, max_tokens, tokenizer or weights

    @property
    def columns(self) -> dict[str, pyarrow.DataType]:
        import pyarrow

        return {"bits_per_byte": pyarrow.float32()}

    def identity(self) -> dict[str, Any]:
        from nbg_lightning.core.fingerprint import source_fingerprint
        from nbg_lightning.core.weights import open_weights

        own = {"weights": source_fingerprint(open_weights(self.weights)), "max_tokens": self.max_tokens}
        return {"step": "Perplexity", **own, "tokenizer": _tokenizer(self.tokenizer).fingerprint}

    def values(self, texts: Sequence[str]) -> list[DocumentRow]:
        tokenizer, engine = _tokenizer(self.tokenizer), _engine(self.weights)
        first = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        longest = min(self.max_tokens, engine.window)
        # 64 characters per token are more than enough: the rest of the text need not be encoded.
        sequences = [(first + ids)[:longest] for ids in tokenizer.encode_batch([t[: 64 * longest] for t in texts])]
        scored = [ids if len(ids) > 1 else None for ids in sequences]
        scores = iter(engine.score([ids for ids in scored if ids is not None]))
        rows: list[DocumentRow] = []
        for ids in scored:
            if ids is None:
                rows.append({"bits_per_byte": None})
                continue
            num_bytes = max(1, len(tokenizer.decode(ids[1:]).encode()))
            rows.append({"bits_per_byte": -math.fsum(next(scores)) / math.log(2) / num_bytes})
        return rows


@lru_cache(maxsize=1)
def _engine(weights: str) -> Any:
    from nbg_lightning.engines.local import LocalEngine

    return LocalEngine(weights).__enter__().native
