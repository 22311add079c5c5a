"""What an experiment is, as written down before it runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeds import stored

from nbg_lightning.data.durable import content_key

if TYPE_CHECKING:
    from harness.jobs import Job

REGISTERED = Path(__file__).parents[1] / "registered"


class PlanError(ValueError):
    """What was written down, or is there, is not what is asked for."""


@contextmanager
def told(file: Path, fix: str) -> Iterator[None]:
    """A block that reads a file, whose damage is told with its name.

    Raises:
        PlanError: the file is no JSON, or lacks something.
    """
    try:
        yield
    except OSError as error:
        raise PlanError(f"{file} cannot be read ({error.strerror}); {fix}") from error
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise PlanError(f"{file} is damaged ({type(error).__name__}: {error}); {fix}") from error


@dataclass(frozen=True)
class Metric:
    """A number of a run.

    Args:
        text: what it is and its unit, for tables.
        higher_is_better: the direction.
        scale: what it is multiplied by for tables; 100 makes shares percent.
        digits: after the point, in tables.
    """

    text: str
    higher_is_better: bool = True
    scale: float = 1.0
    digits: int = 3


@dataclass(frozen=True)
class Budget:
    """A size, a number of tokens, or whatever else is the same in all arms.

    Args:
        settings: handed to the run.
        seeds: of its runs, in the order in which they are run.
        arms: only these; all by default.
    """

    settings: Mapping[str, Any]
    seeds: tuple[int, ...]
    arms: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", tuple(self.seeds))  # of a range


def candidates(
    arms: Mapping[str, Mapping[str, Any]], grid: Mapping[str, Iterable[Mapping[str, Any]]]
) -> dict[str, dict[str, Any]]:
    """Arms with other settings, named after them, to choose among on tuning seeds.

    Args:
        arms: settings of each.
        grid: the settings to try, by arm; an empty one is the arm as it is.

    Example:
        >>> candidates({"DPO": {"beta": 0.1}}, {"DPO": [{}, {"lr": 1e-4}]})
        {'DPO': {'beta': 0.1}, 'DPO lr 0.0001': {'beta': 0.1, 'lr': 0.0001}}
    """
    return {
        " ".join([arm, *(f"{name} {value:g}" for name, value in own.items())]): {**arms[arm], **own}
        for arm, tried in grid.items()
        for own in tried
    }


def rates(*each: float, name: str = "lr") -> list[dict[str, Any]]:
    """Settings that differ in a learning rate, for `candidates`."""
    return [{name: rate} for rate in each]


@dataclass(frozen=True)
class Contrast:
    """An arm against another; the difference is the second one's value minus the first one's.

    Args:
        first: arm that is compared with, such as the usual practice.
        second: arm whose effect is asked for.
        metric: by name.
        budget: by name.
    """

    first: str
    second: str
    metric: str
    budget: str

    def __str__(self) -> str:
        return f"{self.second} - {self.first}"


@dataclass(frozen=True)
class Trend:
    """The slope of a difference, the second arm's value minus the first one's, over budgets.

    It *grows* where it rises, also from below 0 towards it, whether higher values of the metric are better or not.

    Args:
        first: arm.
        second: arm.
        metric: by name.
        places: of each budget, on the axis of the trend, such as parameters; the slope is for ten times as many.
    """

    first: str
    second: str
    metric: str
    places: Mapping[str, float]


@dataclass(frozen=True)
class Experiment:
    """A question with all that is needed to answer it.

    Args:
        name: of its files.
        question: in a sentence.
        metrics: by name.
        arms: settings of each, handed to the run.
        budgets: by name; the first is the primary one.
        primary: the contrast that decides. It is tested by itself at 5 %.
        secondary: the others, tested together at 5 % (Holm).
        tuning_seeds: for choosing settings; no seed of a budget.
        run: trains and measures one job: ``{"metrics": {name: number}, "items": {name: [score of each item]}}``, the latter
            where there are any, and whatever else is worth keeping. It charges ``job.charges``.
        trends: slopes of contrasts over budgets; each has an interval of its own, and none decides.

    Raises:
        ValueError: a contrast or trend of what is not there or not run, or a tuning seed that is a budget's.
    """

    name: str
    question: str
    metrics: Mapping[str, Metric]
    arms: Mapping[str, Mapping[str, Any]]
    budgets: Mapping[str, Budget]
    primary: Contrast
    secondary: tuple[Contrast, ...]
    tuning_seeds: tuple[int, ...]
    run: Callable[[Job], Mapping[str, Any]] = field(repr=False)
    trends: tuple[Trend, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "tuning_seeds", tuple(self.tuning_seeds))
        for name, budget in self.budgets.items():
            if len(set(budget.seeds)) < len(budget.seeds):
                raise ValueError(f"seeds of budget {name} are invalid: one is there twice; give each once")
            if both := sorted(set(budget.seeds) & set(self.tuning_seeds)):
                raise ValueError(f"tuning_seeds is invalid: {both[0]} is a seed of budget {name}; give others")
            if unknown := [arm for arm in budget.arms or () if arm not in self.arms]:
                raise ValueError(f"arm of budget {name} is invalid: {unknown[0]!r}; choose {', '.join(self.arms)}")
        self._check_settings()
        for contrast in self.contrasts:
            self._check("contrast", contrast, [contrast.budget])
        if len(self.budgets[self.primary.budget].seeds) == 1:  # none: for its tuning seeds
            raise ValueError(
                f"seeds of budget {self.primary.budget} are invalid: a contrast needs two or more; give more"
            )
        for trend in self.trends:
            self._check("trend", trend, trend.places)
            places = trend.places.values()
            if len(set(places)) < 2 or not all(0 < place < math.inf for place in places):
                raise ValueError(
                    f"places of a trend are invalid: {dict(trend.places)}; give two different ones or more, above 0"
                )
            seeds = [set(self.budgets[name].seeds) for name in trend.places]
            if any(seeds) and len(set.intersection(*seeds)) < 2:
                raise ValueError(
                    f"trend over {', '.join(trend.places)} is invalid: they share fewer than two seeds; give more"
                )
        asked = {(frozenset((each.first, each.second)), each.metric, each.budget) for each in self.contrasts}
        if len(asked) < len(self.contrasts):
            raise ValueError("secondary is invalid: a contrast is there twice; give each once")

    def _check_settings(self) -> None:
        """Refuse settings that cannot be written down."""
        for kind, each in (("budget", {name: own.settings for name, own in self.budgets.items()}), ("arm", self.arms)):
            for name, settings in each.items():
                try:
                    json.dumps(dict(settings), allow_nan=False)
                except (TypeError, ValueError) as error:
                    raise ValueError(
                        f"settings of {kind} {name} are invalid: {error}; give what JSON can hold"
                    ) from error

    def _check(self, kind: str, compared: Contrast | Trend, budgets: Iterable[str]) -> None:
        """Refuse what names no arm, metric or budget of this, or an arm that a budget does not run."""
        known = {"arm": self.arms, "metric": self.metrics, "budget": self.budgets}
        arms = (compared.first, compared.second)
        named = [*(("arm", arm) for arm in arms), ("metric", compared.metric), *(("budget", name) for name in budgets)]
        if compared.first == compared.second:
            raise ValueError(f"arm of a {kind} is invalid: {compared.first!r} is compared with itself; give two")
        for what, name in named:
            if name not in known[what]:
                raise ValueError(f"{what} of a {kind} is invalid: {name!r}; choose {', '.join(known[what])}")
        for budget in budgets:
            run = self.arms_of(budget)
            for arm in arms:
                if arm not in run:
                    raise ValueError(
                        f"arm of a {kind} is invalid: budget {budget} does not run {arm!r}; choose {', '.join(run)}"
                    )

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """The primary one first."""
        return (self.primary, *self.secondary)

    def arms_of(self, budget: str) -> tuple[str, ...]:
        """Arms that are run at a budget."""
        return self.budgets[budget].arms or tuple(self.arms)

    def jobs(self, tuning: bool = False) -> Iterator[tuple[str, int, str]]:
        """(budget, seed, arm), all arms of a seed before the next seed: what a stop leaves is whole seeds."""
        for name, budget in self.budgets.items():
            for seed in self.tuning_seeds if tuning else budget.seeds:
                for arm in self.arms_of(name):
                    yield name, seed, arm

    # -- registration --------------------------------------------------------------------------------------------------

    @property
    def plan(self) -> dict[str, Any]:
        """All that is decided beforehand, as JSON."""
        keys = ("name", "question", "metrics", "arms", "budgets", "primary", "secondary", "tuning_seeds", "trends")
        whole = asdict(self)
        return json.loads(json.dumps({key: whole[key] for key in keys}))

    @property
    def registration(self) -> Path:
        """The file of the plan."""
        return REGISTERED / f"{self.name}.json"

    def register(self, change: str | None = None) -> Path:
        """Write the plan down; a plan that differs from the one there needs a reason, which stays in the file.

        Raises:
            PlanError: another plan is there and no reason is given, or the file is damaged.
        """
        changes: list[str] = []
        if (there := self._registered()) is not None:
            if content_key(there["plan"]) == content_key(self.plan):
                if change:
                    raise PlanError(f"{self.registration} has this very plan; leave out --change")
                return self.registration
            if not (change or "").strip():
                raise PlanError(f"{self.registration} has another plan; register --change 'why', and commit it")
            changes = [*there["changes"], change]
        elif change:
            raise PlanError(f"{self.registration} is not there yet, so nothing is changed; leave out --change")
        stored(self.registration, {"plan": self.plan, "changes": changes})
        return self.registration

    def check_registered(self) -> None:
        """Refuse to run what was not written down.

        Raises:
            PlanError: there is no plan, another one, or a damaged file.
        """
        if (there := self._registered()) is None:
            raise PlanError(f"{self.name} is not registered; run the command register, and commit {self.registration}")
        if content_key(there["plan"]) != content_key(self.plan):  # as results are compared: 1 is not 1.0
            raise PlanError(f"{self.registration} has another plan; register --change 'why', and commit it")

    def _registered(self) -> dict[str, Any] | None:
        if not self.registration.is_file():
            return None
        with told(self.registration, "restore it from git"):
            there: dict[str, Any] = json.loads(self.registration.read_text())
            if not isinstance(there["plan"], dict) or not isinstance(there["changes"], list):
                raise ValueError("it is no plan")
            return there
