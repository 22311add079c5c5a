"""Reinforcement learning around a module: rollouts, scores, metrics, pass rates. Names load on first use."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.rl.advantages import AdvantageEstimator as AdvantageEstimator
    from nbg_lightning.rl.advantages import GroupNormalized as GroupNormalized
    from nbg_lightning.rl.advantages import LeaveOneOut as LeaveOneOut
    from nbg_lightning.rl.advantages import TurnLevel as TurnLevel
    from nbg_lightning.rl.collector import RolloutCollector as RolloutCollector
    from nbg_lightning.rl.ledger import RolloutLedger as RolloutLedger
    from nbg_lightning.rl.length_budget import LengthBudgetReward as LengthBudgetReward
    from nbg_lightning.rl.pass_rate import PassRateBand as PassRateBand
    from nbg_lightning.rl.pass_rate import PassRateFilter as PassRateFilter
    from nbg_lightning.rl.pass_rate import PassRateLedger as PassRateLedger
    from nbg_lightning.rl.policy_loss import PolicyLossConfig as PolicyLossConfig
    from nbg_lightning.rl.policy_loss import completion_statistics as completion_statistics
    from nbg_lightning.rl.rollout_batch import RolloutBatch as RolloutBatch
    from nbg_lightning.rl.rollout_settings import RolloutSettings as RolloutSettings
    from nbg_lightning.rl.rollouts import Rollout as Rollout
    from nbg_lightning.rl.rollouts import score_rollouts as score_rollouts
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "advantages": ["AdvantageEstimator", "GroupNormalized", "LeaveOneOut", "TurnLevel"],
            "collector": ["RolloutCollector"],
            "ledger": ["RolloutLedger"],
            "length_budget": ["LengthBudgetReward"],
            "pass_rate": ["PassRateBand", "PassRateFilter", "PassRateLedger"],
            "policy_loss": ["PolicyLossConfig", "completion_statistics"],
            "rollout_batch": ["RolloutBatch"],
            "rollout_settings": ["RolloutSettings"],
            "rollouts": ["Rollout", "score_rollouts"],
        },
    )
