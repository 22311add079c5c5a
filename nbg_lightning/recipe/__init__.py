"""Recipes: all stages as steps with inputs and outputs, run by one command. Names load on first use."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.recipe.gather import StepReport as StepReport
    from nbg_lightning.recipe.plan import Recipe as Recipe
    from nbg_lightning.recipe.report import write_report as write_report
    from nbg_lightning.recipe.run import StepFailed as StepFailed
    from nbg_lightning.recipe.run import run_recipe as run_recipe
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "gather": ["StepReport"],
            "plan": ["Recipe"],
            "report": ["write_report"],
            "run": ["StepFailed", "run_recipe"],
        },
    )
