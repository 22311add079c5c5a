"""When should the good data be seen? One domain, the same windows in every arm, another order of quality.

    python benchmarks/science/quality_order.py run        # see harness/ for the commands

Every arm has 60 % clean worked problems and 40 % damaged ones (`worked_problems`), one learning-rate curve (warm-up to 5 %,
constant to 80 %, then 1-sqrt to a hundredth) and, by seed, one initialization. They differ in which share of a step is clean:

* ``uniform``: a constant share throughout.
* ``HQ decay``: the decay is all clean, and the rest of the clean data is spread evenly before it: the usual practice.
* ``FG``: all clean from the middle of the constant phase on, including the decay: FG-WSD.
* ``mid plateau``: all clean in the last quarter of the constant phase, but not in the decay.
* ``reversed``: all clean first: a placebo, with as much order as ``FG``.
* ``FG merged``: the data of ``FG``, but with a constant learning rate, and the last eight checkpoints averaged.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core_loop import RunCheckpoint, pretrain
from harness import Budget, Contrast, Experiment, Job, Metric, Trend, main
from worked_problems import STEPS, VOCAB_SIZE, document_tokens, draw_pools, measure, tokenizer

DOCUMENTS, WINDOWS = 16, 2  # of a window, of a step
LENGTH = DOCUMENTS * document_tokens()
STEP, TESTS = WINDOWS * LENGTH, 400
BORDERS = (0.4, 0.6, 0.8, 1.0)  # of the shares of clean data below, as shares of the run; the last begins the decay
WARMUP, LAST_RATE, MERGED = 0.05, 0.01, 8
CLEAN = 0.6
ARMS: dict[str, dict[str, Any]] = {
    "uniform": {"clean": [CLEAN] * 4},
    "HQ decay": {"clean": [0.5, 0.5, 0.5, 1.0]},
    "FG": {"clean": [1 / 3, 1 / 3, 1.0, 1.0]},
    "mid plateau": {"clean": [0.5, 0.5, 1.0, 0.5]},
    "reversed": {"clean": [1.0, 1 / 3, 1 / 3, 1 / 3]},
    "FG merged": {"clean": [1 / 3, 1 / 3, 1.0, 1.0], "merge": True},
}


def length(settings: Mapping[str, Any]) -> int:
    """Tokens of a window."""
    return DOCUMENTS * document_tokens(settings.get("moves", STEPS))


def step_tokens(settings: Mapping[str, Any]) -> int:
    """Tokens of a step."""
    return settings.get("windows", WINDOWS) * length(settings)


def shape(size: Mapping[str, int], longest: int = LENGTH) -> Any:
    """Of the model."""
    from nbg_lightning import LanguageModelConfig

    heads = size["width"] // 32
    return LanguageModelConfig(
        VOCAB_SIZE,
        size["width"],
        3 * size["width"],
        size["layers"],
        heads,
        heads,
        32,
        max_position_embeddings=longest,
        tie_word_embeddings=True,
        initializer_range=0.06,
        qk_norm=True,
    )


def stages(settings: Mapping[str, Any]) -> list[Any]:
    """The table of an arm: the learning rate the same in all but those that merge."""
    step, merge = step_tokens(settings), settings.get("merge", False)
    return table(settings["clean"], settings["tokens"] // step, step, settings["rate"], clean_and_damaged, not merge)


def clean_and_damaged(share: float) -> dict[str, float]:
    """The mixture of a share of clean text."""
    return {"clean": share, "damaged": 1 - share}


def table(
    clean: Sequence[float],
    steps: int,
    step: int,
    peak: float,
    mixture: Callable[[float], dict[str, float]],
    decays: bool = True,
) -> list[Any]:
    """Warm-up, constant learning rate and decay, in whole steps; the share of clean text changes at the borders.

    Args:
        clean: shares, one for each part of the run.
        steps: of the run.
        step: tokens of one.
        peak: learning rate.
        mixture: of a share.
        decays: else the learning rate stays constant to the end.
    """
    from nbg_lightning import Stage

    warm = round(WARMUP * steps)
    ends = [warm, *(round(border * steps) for border in BORDERS)]
    rows = [Stage("warmup", warm * step, [0.0, peak], mixture(clean[0]))]
    for number, share in enumerate(clean):
        last = number == len(clean) - 1
        rows.append(
            Stage(
                "decay" if last else f"stable-{number + 1}",
                (ends[number + 1] - ends[number]) * step,
                [peak, peak * LAST_RATE] if last and decays else peak,
                mixture(share),
                "sqrt" if last else "linear",
            )
        )
    return rows


def datamodule(job: Job) -> tuple[Any, Path, Any]:
    """Data of a seed, its tokenizer and its test problems: the same in all arms."""
    settings, place = job.settings, job.folder.parent / "data"
    clean = CLEAN * settings["tokens"] / settings["repeats"]
    margin = 4 * length(settings)  # shares are met to within a few windows
    damaged = (1 - CLEAN) * settings["tokens"]
    moves = settings.get("moves", STEPS)
    pools = draw_pools(round(clean) + margin, round(damaged) + margin, TESTS, job.seed, moves)
    name = tokenizer(place / "tokenizer")
    return data_of({"clean": pools.clean, "damaged": pools.damaged}, name, place, job.seed), name, pools.test


def data_of(texts: Mapping[str, Sequence[str]], tokenizer: Path, folder: Path, seed: int) -> Any:
    """A datamodule of texts in memory, all of them trained on."""
    from nbg_lightning import CurriculumDataModule
    from nbg_lightning.data import InMemory, TokenizerConfig

    return CurriculumDataModule(
        {name: InMemory(list(of_source)) for name, of_source in texts.items()},
        TokenizerConfig(str(tokenizer)),
        data_dir=str(folder),
        validation_fraction=0.0,
        num_workers=0,
        prepare_workers=0,
        seed=seed,
    )


def run(job: Job) -> dict[str, Any]:
    """Train and measure one arm with one seed."""
    from nbg_lightning import AdamWConfig
    from nbg_lightning.schedule.curriculum import Curriculum

    settings, longest = job.settings, length(job.settings)
    core = shape(settings["size"], longest)
    data, name, problems = datamodule(job)
    curriculum = Curriculum(stages(settings), step_tokens(settings), longest)
    optimizer = AdamWConfig(weight_decay=0.1, betas=(0.9, 0.95))
    merged = MERGED if settings.get("merge") else 0
    model = pretrain(core, optimizer, curriculum, data, job.seed, merged, RunCheckpoint(job.checkpoint))
    job.charges.train("model", core, curriculum.num_steps * curriculum.tokens_per_step, longest)
    items = measure(model, name, problems)
    metrics = {key: statistics.mean(values) for key, values in items.items()}
    return {"metrics": metrics, "items": items, "parameters": core.num_parameters}


def budget(seeds: int, arms: tuple[str, ...] | None = None, **changes: Any) -> Budget:
    """The primary one, with changes."""
    primary = {"tokens": 220 * STEP, "size": {"width": 96, "layers": 2}, "rate": 4e-3, "repeats": 1}
    return Budget({**primary, **changes}, tuple(range(1, seeds + 1)), arms)


def sized(width: int, seeds: int) -> Budget:
    """Another width at the primary number of tokens; the learning rate goes with the root of its reciprocal."""
    return budget(seeds, ("HQ decay", "FG"), size={"width": width, "layers": 2}, rate=4e-3 * (96 / width) ** 0.5)


PRIMARY = "0.13 M tokens"
SIZES = {"0.04 M parameters": 32, "0.12 M parameters": 64, PRIMARY: 96, "0.46 M parameters": 128}
PARAMETERS = {name: float(shape({"width": width, "layers": 2}).num_parameters) for name, width in SIZES.items()}
experiment = Experiment(
    name="quality_order",
    question="Is clean data alone from the middle of the constant phase on better than clean data in the decay only?",
    metrics={
        "bits": Metric("held-out clean solution, bits", higher_is_better=False),
        "accuracy": Metric("held-out solution right, %", scale=100, digits=1),
    },
    arms=ARMS,
    budgets={
        PRIMARY: budget(seeds=12),
        "clean data seen four times": budget(6, ("uniform", "HQ decay", "FG"), repeats=4),
        **{name: sized(width, 6) for name, width in SIZES.items() if name != PRIMARY},
        "0.40 M tokens": budget(4, ("HQ decay", "FG"), tokens=660 * STEP),
    },
    primary=Contrast("HQ decay", "FG", "bits", PRIMARY),
    secondary=(
        *(Contrast("uniform", arm, "bits", PRIMARY) for arm in ("HQ decay", "FG", "mid plateau", "reversed")),
        Contrast("mid plateau", "FG", "bits", PRIMARY),
        Contrast("FG", "FG merged", "bits", PRIMARY),
        Contrast("uniform", "FG", "accuracy", PRIMARY),
        Contrast("HQ decay", "FG", "accuracy", PRIMARY),
        *(
            Contrast("HQ decay", "FG", "bits", name)
            for name in ("clean data seen four times", "0.40 M tokens", *(each for each in SIZES if each != PRIMARY))
        ),
    ),
    tuning_seeds=(101, 102, 103),
    run=run,
    trends=(Trend("HQ decay", "FG", "bits", PARAMETERS),),
)


if __name__ == "__main__":
    main(experiment)
