"""Rewards behind one protocol; names load on first use."""

from nbg_lightning.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "protocol": ["Group", "Reward", "RewardResult"],
    },
)
