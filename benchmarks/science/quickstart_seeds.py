"""Does every stage of the quickstart gain, whatever the seed?

        python benchmarks/science/quickstart_seeds.py run --arms pretrain sft    # a minute and a half per seed
        python benchmarks/science/quickstart_seeds.py run                        # six minutes per seed
    python benchmarks/science/quickstart_seeds.py summary

A job is the recipe up to one stage's benchmark, run by ``nbg recipe`` with another seed in every step of the student: initial
weights, data order, sampled answers. The sums and their split are fixed, so that seeds differ as much as runs on different
processors do. The teacher is fixed too, and trained once with the recipe's own seed. All stages of a seed share a
folder, and finished steps are not repeated; ``harness/`` has the commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import Budget, Contrast, Experiment, Job, Metric, main

RECIPE = Path(__file__).parents[2] / "configs" / "recipe" / "quickstart.yaml"
TEACHER = ("teacher-pretrain", "teacher-sft")
STAGES = {name: {"benchmark": f"test-{name}"} for name in ("pretrain", "sft", "dpd", "grpo", "teacher")}


def run(job: Job) -> Mapping[str, Any]:
    """The recipe up to a benchmark, and what it says."""
    from nbg_lightning.data.folder_lock import folder_lock
    from nbg_lightning.recipe.gather import read_suite
    from nbg_lightning.recipe.plan import Recipe
    from nbg_lightning.recipe.run import run_recipe

    recipe = seeded(Recipe.from_yaml(RECIPE), job.seed, job.folder.parent)
    benchmark = job.settings["benchmark"]
    steps = needed(recipe, benchmark)
    if TEACHER[-1] in steps:
        with folder_lock(job.folder.parent / "teacher", "trains the teacher"):
            run_recipe(replace(recipe, folder=str(job.folder.parent / "teacher")), TEACHER)
        link_teacher(recipe)
    with folder_lock(Path(recipe.folder), "runs a recipe"):
        run_recipe(recipe, steps)
    found = read_suite(recipe.step_folder(benchmark))
    assert found is not None, f"{benchmark} of seed {job.seed} left no result"
    (records,) = found.records.values()
    scores = [record["score"] for record in records]
    return {"metrics": {"accuracy": sum(scores) / len(scores)}, "items": {"accuracy": scores}}


def seeded(recipe: Any, seed: int, folder: Path) -> Any:
    """Run the recipe in its own folder, with another seed in every step except the teacher's."""
    steps = {
        name: step if name in TEACHER else replace(step, changes={**step.changes, "seed": seed})
        for name, step in recipe.steps.items()
    }
    return replace(recipe, steps=steps, folder=str(folder / f"recipe-{seed}"))


def link_teacher(recipe: Any) -> None:
    """Show the teacher's steps in a seed's folder: a step is known by its content, so they are done there too."""
    Path(recipe.folder).mkdir(parents=True, exist_ok=True)
    for name in TEACHER:
        if not recipe.step_folder(name).is_symlink():
            recipe.step_folder(name).symlink_to(Path("..") / "teacher" / name)


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
    budgets={"quickstart": Budget({"teacher": "of the recipe's seed"}, seeds=tuple(range(1, 11)))},
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
