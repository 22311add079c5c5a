"""The schedule of a run: one table of stages, what it will do, as a table and as a picture; names load on first use."""

from nbg_lightning.lazy import lazy_names

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
