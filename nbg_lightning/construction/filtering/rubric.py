"""Rubric dimensions for judging documents, scored 0 to 9, with their weights in the overall quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

from nbg_lightning.config_files import read_yaml

LOWEST, HIGHEST = 0, 9


@dataclass(frozen=True)
class Dimension:
    """One dimension of quality.

    Attributes:
        name: name of the column.
        about: the question to answer.
        low: description of a document with score 0.
        high: description of a document with score 9.
        kind: whether it is about content or form.
        weight: weight in the overall quality.
    """

    name: str
    about: str
    low: str
    high: str
    kind: Literal["content", "format"] = "content"
    weight: float = 1.0


@dataclass(frozen=True)
class Rubric:
    """Ordered dimensions.

    Raises:
        ValueError: no dimension, a duplicate name, or weights that sum to zero.
    """

    dimensions: tuple[Dimension, ...]

    def __post_init__(self) -> None:
        names = [dimension.name for dimension in self.dimensions]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"rubric is invalid: dimensions {', '.join(names) or 'none'}; give each a name of its own")
        for dimension in self.dimensions:
            if not dimension.name.isidentifier() or dimension.name in ("id", "text", "quality"):
                raise ValueError(
                    f"dimension is invalid: {dimension.name!r}; use letters, digits and '_', and not id, text or quality"
                )
            if dimension.kind not in ("content", "format") or not dimension.weight >= 0:
                raise ValueError(
                    f"dimension {dimension.name} is invalid: kind={dimension.kind!r}, weight={dimension.weight!r}; give the "
                    "kind content or format, and a weight of at least 0"
                )
        if not any(dimension.weight for dimension in self.dimensions):
            raise ValueError("rubric is invalid: all weights are 0; give at least one dimension a weight")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the dimensions."""
        return tuple(dimension.name for dimension in self.dimensions)

    def quality(self, scores: Mapping[str, float]) -> float:
        """``sum_d weight_d score_d / sum_d weight_d`` over the dimensions with a score, 0 to 9.

        Raises:
            ValueError: none of them has a weight.
        """
        weights = {d.name: d.weight for d in self.dimensions if d.name in scores}
        total = sum(weights.values())
        if not total:
            raise ValueError(
                f"scores are invalid: none of {', '.join(scores) or 'no scores'} has a weight in the rubric; give one a weight"
            )
        return sum(weight * scores[name] for name, weight in weights.items()) / total

    def to_dict(self) -> dict[str, Any]:
        """The rubric in its YAML form."""
        dimensions = {dimension.name: asdict(dimension) for dimension in self.dimensions}
        for fields in dimensions.values():
            del fields["name"]
        return {"dimensions": dimensions}

    @classmethod
    def from_dict(cls, content: Any, where: str = "rubric") -> Rubric:
        """Parse the content of a YAML file.

        Raises:
            ValueError: it is not a valid rubric; the message says why.
        """
        dimensions = content.get("dimensions") if isinstance(content, Mapping) else None
        if not isinstance(dimensions, Mapping) or not all(isinstance(each, Mapping) for each in dimensions.values()):
            raise ValueError(f"{where} is invalid: no dimensions; give dimensions, each with about, low and high")
        try:
            return cls(tuple(Dimension(name, **fields) for name, fields in dimensions.items()))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {str(error).removeprefix('Dimension.__init__() ')}") from error


@lru_cache(maxsize=8)
def load_rubric(path: str | None = None) -> Rubric:
    """Load a rubric from YAML; by default the library's own.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: its content is not a valid rubric.
    """
    return Rubric.from_dict(read_yaml(path or "configs/construction/rubric.yaml"), path or "rubric")
