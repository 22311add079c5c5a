"""Embedding of texts as unit vectors: hashed words with a truncated SVD, or an embedding model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nbg_lightning.construction.filtering.hashing import hash_words
from nbg_lightning.data.durable import atomic
from nbg_lightning.extra import require

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_BITS = 20  # of hashed words: few of them collide


class Embedding(ABC):
    """Base class of embeddings. Pickles must be small, since they are sent to workers.

    Attributes:
        sample: number of documents that `fit` learns from; 0 for a pretrained embedding.
        seed: seed of the sample.
    """

    sample: int = 0
    seed: int = 0

    def fit(self, texts: Iterable[str], folder: Path) -> None:  # noqa: B027 - most are trained already
        """Fit to a sample of the corpus and save to the folder, unless that has been done."""

    @abstractmethod
    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """float32[texts, dim] of length 1, or 0 for texts without any known feature."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything that determines the vectors, as JSON."""


class HashedEmbedding(Embedding):
    """Latent semantic analysis (Deerwester et al. 1990): TF-IDF of words, projected on the leading singular vectors of a sample
    of the corpus. Needs no model download, and processes some megabytes per second on a core.

    Args:
        dim: dimension of the vectors; less if the sample has fewer documents.
        vocabulary: number of known hashed words: those in most documents of the sample, but at least in two.
        sample: number of documents to fit to.
        seed: seed of the randomized SVD.

    Raises:
        ValueError: a size is invalid.
    """

    def __init__(self, dim: int = 128, vocabulary: int = 50_000, sample: int = 20_000, seed: int = 0):
        if min(dim, vocabulary, sample) < 1:
            raise ValueError(
                f"HashedEmbedding is invalid: dim={dim}, vocabulary={vocabulary}, sample={sample}; give at least 1 of each"
            )
        self.dim, self.vocabulary, self.sample, self.seed = dim, vocabulary, sample, seed
        self.folder: Path | None = None

    def identity(self) -> dict[str, Any]:
        own = {"dim": self.dim, "vocabulary": self.vocabulary, "sample": self.sample, "seed": self.seed}
        return {"embedding": "HashedEmbedding", **own}

    def fit(self, texts: Iterable[str], folder: Path) -> None:
        randomized_svd = require("sklearn.utils.extmath", "HashedEmbedding").randomized_svd
        self.folder = folder
        file = folder / "projection.npz"
        if file.is_file():
            return
        counts = count_matrix(list(texts), _BITS)
        present = np.bincount(counts.indices, minlength=counts.shape[1])
        most = np.lexsort((np.arange(len(present)), -present))[: self.vocabulary]
        columns = np.sort(most[present[most] >= min(2, counts.shape[0])])
        if not len(columns):
            raise ValueError(
                "sample is invalid: no word stands in two of its documents; give a larger corpus or sample"
            )
        idf = np.log((1 + counts.shape[0]) / (1 + present[columns])).astype(np.float32) + 1
        matrix = _tf_idf(_known(counts, columns), idf)
        dim = min(self.dim, max(1, min(matrix.shape) - 1))
        _, _, components = randomized_svd(matrix, dim, random_state=self.seed)
        with atomic(file) as stream:
            components = np.ascontiguousarray(components.T, np.float32)
            np.savez(stream, components=components, columns=columns, idf=idf)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        assert self.folder is not None
        components, columns, idf = _projection(self.folder)
        return _unit(np.asarray(_tf_idf(_known(count_matrix(texts, _BITS), columns), idf) @ components))


@lru_cache(maxsize=2)
def _projection(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.load(folder / "projection.npz") as arrays:
        return arrays["components"], arrays["columns"], arrays["idf"]


def _known(counts: csr_matrix, columns: np.ndarray) -> csr_matrix:
    """The matrix restricted to these columns."""
    from scipy.sparse import csr_matrix

    place = np.minimum(np.searchsorted(columns, counts.indices), len(columns) - 1)
    found = columns[place] == counts.indices
    pointers = np.concatenate([[0], np.cumsum(found)])[counts.indptr]
    return csr_matrix((counts.data[found], place[found], pointers), (counts.shape[0], len(columns)))


def count_matrix(texts: Sequence[str], bits: int) -> csr_matrix:
    """float32[texts, 2^bits]: counts of each hashed word in each text."""
    from scipy.sparse import csr_matrix

    words = hash_words([text.encode("utf-8", "replace") for text in texts], marks=False)
    columns = (words.hashes & np.uint64((1 << bits) - 1)).astype(np.int32)
    matrix = csr_matrix((np.ones(len(columns), np.float32), columns, words.offsets), (len(texts), 1 << bits))
    matrix.sum_duplicates()
    return matrix


def _tf_idf(counts: csr_matrix, idf: np.ndarray) -> csr_matrix:
    """``(1 + log count) idf``, with rows normalized to length 1."""
    matrix = counts.copy()
    matrix.data = (1 + np.log(matrix.data)) * idf[matrix.indices]
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    matrix.data /= np.repeat(np.maximum(lengths, 1e-12), np.diff(matrix.indptr)).astype(np.float32)
    return matrix


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-12).astype(np.float32)


class ModelEmbedding(Embedding):
    """An encoder from Hugging Face transformers, such as a sentence embedding model.

    Args:
        name_or_path: the model with its tokenizer.
        pooling: ``mean`` of the last hidden states, or those of the ``first`` or ``last`` token.
        max_tokens: maximum tokens of a text; the rest is truncated.
        prefix: prepended to each text, if the model expects one ("passage: ").
        batch: texts per forward.
        device: device of the model.
    """

    def __init__(
        self,
        name_or_path: str,
        pooling: Literal["mean", "first", "last"] = "mean",
        max_tokens: int = 512,
        prefix: str = "",
        batch: int = 32,
        device: str = "cpu",
    ):
        if pooling not in ("mean", "first", "last"):
            raise ValueError(f"pooling is invalid: {pooling!r}; choose mean, first or last")
        self.name_or_path, self.pooling, self.max_tokens = name_or_path, pooling, max_tokens
        self.prefix, self.batch, self.device = prefix, batch, device

    def identity(self) -> dict[str, Any]:
        own = {name: value for name, value in self.__dict__.items() if name not in ("batch", "device")}
        return {"embedding": "ModelEmbedding", **own}

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        import torch

        tokenizer, model = _encoder(self.name_or_path, self.device)
        found = []
        for begin in range(0, len(texts), self.batch):
            batch = [self.prefix + text for text in texts[begin : begin + self.batch]]
            inputs = tokenizer(batch, truncation=True, max_length=self.max_tokens, padding=True, return_tensors="pt")
            inputs = inputs.to(self.device)
            with torch.inference_mode():
                hidden = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            if self.pooling == "mean":
                pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
            else:
                place = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0) * mask[..., 0]
                places = place.argmax(1) if self.pooling == "last" else mask[..., 0].argmax(1)
                pooled = hidden[torch.arange(len(batch)), places]
            found.append(pooled.float().cpu().numpy())
        return _unit(np.concatenate(found)) if found else np.zeros((0, 1), np.float32)


@lru_cache(maxsize=1)
def _encoder(name_or_path: str, device: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        model = AutoModel.from_pretrained(name_or_path)
    except Exception as error:  # transformers raises many types; each means that the model is not available
        line = " ".join(str(error).split())[:300]
        raise ValueError(
            f"embedding model is invalid: {name_or_path!r} ({line}); give one that transformers loads"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, model.to(device).eval()
