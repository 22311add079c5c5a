"""Does every stage of the quickstart gain, whatever the seed?

    python benchmarks/science/quickstart_seeds.py run --arms pretrain sft    # a minute and a half a seed
    python benchmarks/science/quickstart_seeds.py run                        # seven
    python benchmarks/science/quickstart_seeds.py summary

A job is the recipe up to one stage's benchmark, as ``nbg recipe`` runs it, with another seed of every step: initial weights,
order of data, sampled answers. The sums and their split stay, as they do on another processor, whose digits differ as those
of a seed do. All stages of a seed share a folder, where what is done is not run again; ``harness/`` has the commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import Budget, Contrast, Experiment, Job, Metric, main

RECIPE = Path(__file__).parents[2] / "configs" / "recipe" / "quickstart.yaml"
STAGES = {name: {"benchmark": f"test-{name}"} for name in ("pretrain", "sft", "dpd", "grpo", "teacher")}


def run(job: Job) -> Mapping[str, Any]:
    """The recipe up to a benchmark, and what it says."""
    from nbg_lightning.data.folder_lock import folder_lock
    from nbg_lightning.recipe.gather import read_suite
    from nbg_lightning.recipe.plan import Recipe
    from nbg_lightning.recipe.run import run_recipe

    recipe = Recipe.from_yaml(RECIPE)
    seeded = {name: replace(step, changes={**step.changes, "seed": job.seed}) for name, step in recipe.steps.items()}
    recipe = replace(recipe, steps=seeded, folder=str(job.folder.parent / f"recipe-{job.seed}"))
    benchmark = job.settings["benchmark"]
    with folder_lock(Path(recipe.folder), "runs a recipe"):
        run_recipe(recipe, needed(recipe, benchmark))
    found = read_suite(recipe.step_folder(benchmark))
    assert found is not None, f"{benchmark} of seed {job.seed} left no result"
    (records,) = found.records.values()
    scores = [record["score"] for record in records]
    return {"metrics": {"accuracy": sum(scores) / len(scores)}, "items": {"accuracy": scores}}


def needed(recipe: Any, last: str) -> list[str]:
    """A step and those that it takes something from, in the recipe's order."""
    wanted = {last}
    for name in reversed(recipe.steps):
        if name in wanted:
            wanted |= {other for other, _ in recipe.steps[name].references}
    return [name for name in recipe.steps if name in wanted]


EXPERIMENT = Experiment(
    name="quickstart_seeds",
    question="Does every stage of configs/recipe/quickstart.yaml raise the accuracy, in nine of ten seeds?",
    metrics={"accuracy": Metric("right, % of 400 sums x 4 answers", scale=100, digits=1)},
    arms=STAGES,
    budgets={"quickstart": Budget({}, seeds=tuple(range(1, 11)))},
    primary=Contrast("pretrain", "sft", "accuracy", "quickstart"),
    secondary=(
        Contrast("sft", "dpd", "accuracy", "quickstart"),
        Contrast("dpd", "grpo", "accuracy", "quickstart"),
    ),
    tuning_seeds=(101, 102, 103, 104),
    run=run,
)

if __name__ == "__main__":
    main(EXPERIMENT)
