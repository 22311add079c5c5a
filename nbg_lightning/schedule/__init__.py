"""The schedule of a run: the table of stages, its plan in numbers, and its plot. Names load on first use."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.schedule.curriculum import Curriculum as Curriculum
    from nbg_lightning.schedule.curriculum import Decay as Decay
    from nbg_lightning.schedule.curriculum import Stage as Stage
    from nbg_lightning.schedule.curriculum import interpolate as interpolate
    from nbg_lightning.schedule.curriculum import warmup_decay as warmup_decay
    from nbg_lightning.schedule.curriculum import warmup_stable_decay as warmup_stable_decay
    from nbg_lightning.schedule.mixture import MixturePlan as MixturePlan
    from nbg_lightning.schedule.mixture import MixtureStage as MixtureStage
    from nbg_lightning.schedule.picture import draw_plan as draw_plan
    from nbg_lightning.schedule.plan import Plan as Plan
    from nbg_lightning.schedule.plan import make_plan as make_plan
    from nbg_lightning.schedule.plan import plan_to_json as plan_to_json
    from nbg_lightning.schedule.table import print_plan as print_plan
    from nbg_lightning.schedule.tokens import format_tokens as format_tokens
    from nbg_lightning.schedule.tokens import parse_tokens as parse_tokens
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "curriculum": [
                "Curriculum",
                "Decay",
                "Stage",
                "interpolate",
                "warmup_decay",
                "warmup_stable_decay",
            ],
            "mixture": ["MixturePlan", "MixtureStage"],
            "picture": ["draw_plan"],
            "plan": ["Plan", "make_plan", "plan_to_json"],
            "table": ["print_plan"],
            "tokens": ["format_tokens", "parse_tokens"],
        },
    )
