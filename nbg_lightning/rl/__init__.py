"""Reinforcement learning around a module: rollouts and their scores, their metrics, pass rates; names load on first use."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.rl.pass_rate import PassRateBand as PassRateBand
    from nbg_lightning.rl.pass_rate import PassRateFilter as PassRateFilter
    from nbg_lightning.rl.pass_rate import PassRateLedger as PassRateLedger
    from nbg_lightning.rl.rollout_batch import RolloutBatch as RolloutBatch
    from nbg_lightning.rl.rollouts import Rollout as Rollout
    from nbg_lightning.rl.rollouts import score_rollouts as score_rollouts
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "pass_rate": ["PassRateBand", "PassRateFilter", "PassRateLedger"],
            "rollout_batch": ["RolloutBatch"],
            "rollouts": ["Rollout", "score_rollouts"],
        },
    )
