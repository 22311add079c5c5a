"""Reinforcement learning around a module: rollouts and their scores, their metrics, pass rates; names load on first use."""

from nbg_lightning.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "pass_rate": ["PassRateBand", "PassRateFilter", "PassRateLedger"],
        "rollout_batch": ["RolloutBatch"],
        "rollouts": ["Rollout", "score_rollouts"],
    },
)
