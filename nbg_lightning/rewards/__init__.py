"""Rewards behind one protocol; names load on first use."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.rewards.bad_cases import BadCaseReward as BadCaseReward
    from nbg_lightning.rewards.code import CodeReward as CodeReward
    from nbg_lightning.rewards.combined import CombinedReward as CombinedReward
    from nbg_lightning.rewards.format import FormatReward as FormatReward
    from nbg_lightning.rewards.function import FunctionReward as FunctionReward
    from nbg_lightning.rewards.length import OverlongPenalty as OverlongPenalty
    from nbg_lightning.rewards.math import MathReward as MathReward
    from nbg_lightning.rewards.model import ModelReward as ModelReward
    from nbg_lightning.rewards.preference import PairwisePreferenceReward as PairwisePreferenceReward
    from nbg_lightning.rewards.protocol import Group as Group
    from nbg_lightning.rewards.protocol import Reward as Reward
    from nbg_lightning.rewards.protocol import RewardResult as RewardResult
    from nbg_lightning.rewards.reasoning_gym import ReasoningGymReward as ReasoningGymReward
    from nbg_lightning.rewards.rubric import RubricReward as RubricReward
    from nbg_lightning.scoring.sandbox.sandbox import Sandbox as Sandbox
    from nbg_lightning.scoring.sandbox.sandbox import SandboxResult as SandboxResult
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "bad_cases": ["BadCaseReward"],
            "code": ["CodeReward"],
            "combined": ["CombinedReward"],
            "format": ["FormatReward"],
            "function": ["FunctionReward"],
            "length": ["OverlongPenalty"],
            "math": ["MathReward"],
            "model": ["ModelReward"],
            "preference": ["PairwisePreferenceReward"],
            "protocol": ["Group", "Reward", "RewardResult"],
            "reasoning_gym": ["ReasoningGymReward"],
            "rubric": ["RubricReward"],
            "..scoring.sandbox.sandbox": ["Sandbox", "SandboxResult"],  # what CodeReward takes
        },
    )
