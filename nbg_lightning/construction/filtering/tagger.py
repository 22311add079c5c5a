"""The distilled tagger: linear models on hashed features, trained on annotations, that tag megabytes of documents per second."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nbg_lightning.construction.filtering.features import HashedFeatures
from nbg_lightning.construction.filtering.rubric import HIGHEST, LOWEST, Rubric
from nbg_lightning.construction.filtering.table import Table
from nbg_lightning.construction.step import DocumentRow, DocumentStep
from nbg_lightning.construction.store import KeyedLines, Store
from nbg_lightning.data.durable import atomic, write_atomic
from nbg_lightning.extra import require

if TYPE_CHECKING:
    import pyarrow
    from scipy.sparse import csr_matrix

TAGGER, WEIGHTS = "tagger.json", "weights.npz"
QUALITY = "quality"
_PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_LEAST_DOCUMENTS = 20


class Tagger(DocumentStep):
    """Columns: the score of every dimension, and ``quality``, their weighted mean by the rubric; all 0 to 9.

    It pickles as the name of its folder, which each worker reads once.

    Args:
        folder: folder of `nbg build-tagger`.

    Raises:
        FileNotFoundError: there is none.
    """

    def __init__(self, folder: str | Path):
        self.folder = str(Path(folder).expanduser().resolve())
        self.content, self._coefficients, self._intercepts = _load(self.folder)
        self.features = HashedFeatures(**self.content["features"])
        self.names: tuple[str, ...] = tuple(self.content["dimensions"])
        self._weights = np.array([self.content["dimensions"][name]["weight"] for name in self.names])

    def __reduce__(self) -> tuple[Any, ...]:
        return Tagger, (self.folder,)

    @property
    def columns(self) -> dict[str, pyarrow.DataType]:
        import pyarrow

        return dict.fromkeys((*self.names, QUALITY), pyarrow.float32())

    def identity(self) -> dict[str, Any]:
        return {"step": "Tagger", "fingerprint": self.content["fingerprint"]}

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """float64[texts, dimensions + 1]; the last column is the quality."""
        raw = self.features.matrix(texts) @ self._coefficients + self._intercepts
        clipped = np.clip(raw.astype(np.float64), LOWEST, HIGHEST)
        quality = clipped @ self._weights / self._weights.sum()
        return np.concatenate([clipped, quality[:, None]], 1)

    def values(self, texts: Sequence[str]) -> list[DocumentRow]:
        names = (*self.names, QUALITY)
        return [dict(zip(names, row, strict=True)) for row in self.scores(texts).tolist()]


@lru_cache(maxsize=4)
def _load(folder: str) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    require("scipy.sparse", "the tagger")
    file = Path(folder) / TAGGER
    if not file.is_file():
        raise FileNotFoundError(f"{folder} is invalid: no {TAGGER} in it; give a folder of `nbg build-tagger`")
    about = json.loads(file.read_text("utf-8"))
    with np.load(Path(folder) / WEIGHTS) as arrays:
        return about, arrays["coefficients"], arrays["intercepts"]


class Annotated(NamedTuple):
    """Annotated documents.

    Attributes:
        ids: ids of the documents.
        texts: their texts.
        scores: float64[documents, dimensions].
        names: names of the dimensions.
    """

    ids: list[str]
    texts: list[str]
    scores: np.ndarray
    names: tuple[str, ...]


def load_annotated(corpus: Table, annotations: str | Path) -> Annotated:
    """The annotated documents of a corpus; annotations of several folders may be given as one concatenated file.

    Raises:
        FileNotFoundError: there are no annotations.
        ValueError: too few of them are of this corpus.
    """
    file = Path(annotations).expanduser()
    file = file / "annotations.jsonl" if file.is_dir() else file
    if not file.is_file():
        raise FileNotFoundError(
            f"{annotations} is invalid: no annotations.jsonl in it; give a folder of `nbg build-annotations`"
        )
    lines = KeyedLines(file)
    scores = {key: found for key in lines if (found := lines[key]["scores"]) is not None}
    lines.close()
    names = tuple(dict.fromkeys(name for found in scores.values() for name in found))
    texts = {row["id"]: row["text"] for row in corpus.rows(["id", "text"]) if row["id"] in scores}
    ids = [key for key in scores if key in texts and len(scores[key]) == len(names)]
    if len(ids) < _LEAST_DOCUMENTS:
        raise ValueError(
            f"{file} is invalid: {len(ids)} of its {len(scores)} documents are in {corpus.folder}, and a tagger needs at "
            f"least {_LEAST_DOCUMENTS}; annotate this corpus, or more of it"
        )
    table = np.array([[scores[key][name] for name in names] for key in ids], np.float64)
    return Annotated(ids, [texts[key] for key in ids], table, names)


def held_out(ids: Sequence[str], share: float, seed: int) -> np.ndarray:
    """bool[ids]: whether each document is held out, by a hash of seed and id."""
    digests = (hashlib.blake2b(f"tagger {seed} {key}".encode(), digest_size=8).digest() for key in ids)
    return np.array([int.from_bytes(digest, "big") < share * 2**64 for digest in digests])


def train_tagger(
    data: Annotated,
    out: str | Path,
    rubric: Rubric,
    features: HashedFeatures | None = None,
    validation_share: float = 0.2,
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Fit a ridge regression per dimension, and evaluate on held-out documents.

    The penalty is chosen on a fifth of the training documents, and then all are used. A dimension with constant scores is
    predicted as that constant, and its correlation is undefined.

    Args:
        data: annotated documents.
        out: folder of the tagger, with ``report.json``.
        rubric: weights of the dimensions in the quality; dimensions that it lacks get weight 1.
        features: features of documents.
        validation_share: share of documents held out for the report.
        seed: seed of the choice of held-out documents.
        provenance: origin of the data, as JSON.

    Returns:
        The report: for each dimension Spearman's rank correlation, mean absolute error, and the AUC for binary labels.

    Raises:
        ValueError: too few documents on one side.
        ImportError: scikit-learn is not installed.
    """
    require("sklearn.linear_model", "the tagger")
    features = features or HashedFeatures()
    if not 0 < validation_share < 1:
        raise ValueError(
            f"validation_share is invalid: {validation_share}; give more than 0 and less than 1, such as 0.2"
        )
    test = held_out(data.ids, validation_share, seed)
    if test.sum() < 2 or (~test).sum() < _LEAST_DOCUMENTS // 2:
        raise ValueError(
            f"annotations are invalid: {(~test).sum()} documents to train on and {test.sum()} held out are too few; annotate more"
        )
    made_from = {
        "build": "tagger",
        "ids": hashlib.blake2b(" ".join(data.ids).encode(), digest_size=16).hexdigest(),
        "scores": hashlib.blake2b(data.scores.tobytes(), digest_size=16).hexdigest(),
        "features": features.to_dict(),
        "validation_share": validation_share,
        "seed": seed,
        **(provenance or {}),
    }
    with Store(out, made_from) as store:
        matrix = features.matrix(data.texts)
        coefficients, intercepts, penalties = _fitted(matrix, data, np.flatnonzero(~test), seed + 1)
        weights = {dimension.name: dimension.weight for dimension in rubric.dimensions}
        dimensions: dict[str, dict[str, Any]] = {}
        for column, name in enumerate(data.names):
            predicted = np.clip(matrix[test] @ coefficients[:, column] + intercepts[column], LOWEST, HIGHEST)
            penalty = {} if penalties[column] is None else {"penalty": penalties[column]}
            own = agreement(data.scores[test, column], predicted)
            dimensions[name] = {"weight": weights.get(name, 1.0), **penalty, **own}
        _save(store.folder, features, dimensions, coefficients, intercepts.astype(np.float32))
        total = np.array([dimensions[name]["weight"] for name in data.names])
        predicted = np.clip(matrix[test] @ coefficients + intercepts, LOWEST, HIGHEST) @ total / total.sum()
        report = {
            "documents": len(data.ids),
            "held_out": int(test.sum()),
            "dimensions": dimensions,
            QUALITY: agreement(data.scores[test] @ total / total.sum(), predicted),
        }
        store.write_report(report)
        return report


def _fitted(
    matrix: csr_matrix, data: Annotated, train: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, list[float | None]]:
    """Fit all dimensions on some rows: coefficients [width, dimensions], intercepts, and penalties (None for a constant)."""
    inner = held_out([data.ids[index] for index in train], 0.2, seed)
    inner_train, inner_test = (train[~inner], train[inner]) if 0 < inner.sum() < len(train) else (train, train)
    coefficients = np.zeros((matrix.shape[1], len(data.names)), np.float32)
    intercepts = np.zeros(len(data.names))
    penalties: list[float | None] = [None] * len(data.names)
    for column, labels in enumerate(data.scores.T):
        if np.ptp(labels[train]) == 0:
            intercepts[column] = labels[train[0]]
            continue
        penalty = penalties[column] = _best_penalty(matrix, labels, inner_train, inner_test)
        model = _fit(matrix, labels, train, penalty)
        coefficients[:, column], intercepts[column] = model.coef_, model.intercept_
    return coefficients, intercepts, penalties


def _fit(matrix: csr_matrix, labels: np.ndarray, rows: np.ndarray, penalty: float) -> Any:
    """Fit a ridge regression on some rows."""
    ridge = require("sklearn.linear_model", "the tagger").Ridge
    return ridge(penalty, solver="sparse_cg", tol=1e-4).fit(matrix[rows], labels[rows])


def _best_penalty(matrix: csr_matrix, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """The penalty with the least squared error on held-out rows."""

    def squared_error(penalty: float) -> float:
        predicted = _fit(matrix, labels, train, penalty).predict(matrix[test])
        return float(np.square(predicted - labels[test]).mean())

    return min(_PENALTIES, key=squared_error)


def _save(
    folder: Path, features: HashedFeatures, dimensions: dict[str, Any], coefficients: np.ndarray, intercepts: np.ndarray
) -> None:
    digest = hashlib.blake2b(coefficients.tobytes() + intercepts.tobytes(), digest_size=16).hexdigest()
    with atomic(folder / WEIGHTS) as stream:
        np.savez(stream, coefficients=coefficients, intercepts=intercepts)
    about = {
        "features": features.to_dict(),
        "dimensions": {name: {"weight": found["weight"]} for name, found in dimensions.items()},
        "fingerprint": digest,
    }
    write_atomic(folder / TAGGER, json.dumps(about, indent=1) + "\n")


def agreement(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Agreement of predictions with labels; undefined measures are omitted.

    Returns:
        ``rank_correlation`` (Spearman), ``mean_absolute_error``, and ``auc`` for binary labels.

    Example:
        >>> agreement(np.array([0.0, 9.0, 9.0]), np.array([1.0, 5.0, 6.0]))["auc"]
        1.0
    """
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    found = {"mean_absolute_error": float(np.abs(labels - predicted).mean())}
    if np.ptp(labels) > 0 and np.ptp(predicted) > 0:
        found["rank_correlation"] = float(spearmanr(labels, predicted).statistic)
    values = np.unique(labels)
    if len(values) == 2:
        found["auc"] = float(roc_auc_score(labels == values[1], predicted))
    return found
