"""Does what FG gains over clean data in the decay only change with the size of the model?

    python benchmarks/science/scale.py run        # see harness/ for the commands

The arms and the data are those of `quality_order.py`, with eight moves a problem instead of four, so that there are enough
different problems, and with steps of eight windows. The logarithm of the bits is compared, since larger models come closer to
the floor that the wrong steps set: a difference of -0.1 says that FG needs a fifth fewer bits, at any size.

Each size has 20 tokens a parameter. The budgets named "2.5 M tokens" give every size the tokens of 0.1 M parameters, so that only
size and learning rate differ. At 0.3 and 1 M parameters, up to the tokens of the latter, there are slopes over the tokens too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import quality_order
from harness import Budget, Contrast, Job, Metric, Trend, main
from quality_order import ARMS, length, shape, step_tokens

KIND: dict[str, Any] = {"moves": 8, "windows": 8, "repeats": 1}
SIZES = {
    "0.07 M parameters": {"width": 48, "layers": 2},
    "0.1 M parameters": {"width": 64, "layers": 2},
    "0.3 M parameters": {"width": 96, "layers": 2},
    "1 M parameters": {"width": 160, "layers": 3},
    "3 M parameters": {"width": 256, "layers": 3},
}
TOKENS_PER_PARAMETER, RATE, PRIMARY = 20, 4e-3, "0.3 M parameters"
PLANNED, SMALL, RUN = (
    tuple(SIZES)[1:],
    tuple(SIZES)[:3],
    tuple(SIZES)[1:4],
)  # the last two were added: sixteen runs at 3 M take days of a core
PARAMETERS = {name: shape(size, length(KIND)).num_parameters for name, size in SIZES.items()}
SMALLEST_PLANNED = PLANNED[0]
EQUAL_TOKENS = {  # largest first, since its runs take longest
    f"{name}, 2.5 M tokens": name for name in reversed(PLANNED) if name != SMALLEST_PLANNED
}
MANY_TOKENS, MANY_TOKENS_OF = "0.3 M parameters, 21 M tokens", "1 M parameters"


def budget(name: str, tokens_of: str | None = None) -> Budget:
    """A size with its tokens, in whole steps; the learning rate goes with the root of the width's reciprocal.

    Args:
        name: of the size.
        tokens_of: the size whose number of tokens it gets; its own by default.
    """
    steps = round(TOKENS_PER_PARAMETER * PARAMETERS[tokens_of or name] / step_tokens(KIND))
    rate = RATE * (96 / SIZES[name]["width"]) ** 0.5
    return Budget({**KIND, "tokens": steps * step_tokens(KIND), "size": SIZES[name], "rate": rate}, tuple(range(1, 9)))


BUDGETS = {
    **{name: budget(name) for name in (PRIMARY, *(other for other in SIZES if other != PRIMARY))},
    **{name: budget(size, SMALLEST_PLANNED) for name, size in EQUAL_TOKENS.items()},
    MANY_TOKENS: budget(PRIMARY, MANY_TOKENS_OF),
}


def trend(names: Sequence[str]) -> Trend:
    """The slope over the parameters of some budgets."""
    return Trend(
        "HQ decay", "FG", "log_bits", {name: float(PARAMETERS[EQUAL_TOKENS.get(name, name)]) for name in names}
    )


def trend_of_tokens(names: Sequence[str]) -> Trend:
    """The slope over the tokens of some budgets."""
    return Trend("HQ decay", "FG", "log_bits", {name: float(BUDGETS[name].settings["tokens"]) for name in names})


def run(job: Job) -> Mapping[str, Any]:
    """Train and measure; the logarithm is that of the mean over the problems."""
    found = quality_order.run(job)
    return {**found, "metrics": {**found["metrics"], "log_bits": math.log10(found["metrics"]["bits"])}}


EXPERIMENT = replace(
    quality_order.experiment,
    name="scale",
    question="Does the gain of FG over clean data in the decay only change with size, at 20 tokens a parameter?",
    metrics={
        "log_bits": Metric("held-out clean solution, log10 of bits", higher_is_better=False),
        **quality_order.experiment.metrics,
    },
    arms={name: ARMS[name] for name in ("HQ decay", "FG")},
    budgets=BUDGETS,
    primary=Contrast("HQ decay", "FG", "log_bits", PRIMARY),
    secondary=tuple(
        Contrast("HQ decay", "FG", "log_bits", name) for name in (*SIZES, *EQUAL_TOKENS, MANY_TOKENS) if name != PRIMARY
    ),
    trends=(
        trend(PLANNED),
        trend(SMALL),
        trend(RUN),
        trend((SMALLEST_PLANNED, *reversed(EQUAL_TOKENS))),
        trend_of_tokens((f"{MANY_TOKENS_OF}, 2.5 M tokens", MANY_TOKENS_OF)),
        trend_of_tokens((f"{PRIMARY}, 2.5 M tokens", PRIMARY, MANY_TOKENS)),
    ),
    tuning_seeds=(101, 102),
    run=run,
)

if __name__ == "__main__":
    main(EXPERIMENT)
