"""Rewards behind one protocol; names load on first use."""

from nbg_lightning.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "code": ["CodeReward"],
        "combined": ["CombinedReward"],
        "format": ["FormatReward"],
        "function": ["FunctionReward"],
        "math": ["MathReward"],
        "preference": ["PairwisePreferenceReward"],
        "protocol": ["Group", "Reward", "RewardResult"],
        "reasoning_gym": ["ReasoningGymReward"],
        "..scoring.sandbox.sandbox": ["Sandbox", "SandboxResult"],  # what CodeReward takes
    },
)
