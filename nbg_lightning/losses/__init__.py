"""Pure functions on tensors, each with its formula, denominator and paper; names load on first use."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.losses.distillation import Divergence as Divergence
    from nbg_lightning.losses.distillation import divergence as divergence
    from nbg_lightning.losses.distillation import group_targets as group_targets
    from nbg_lightning.losses.distillation import top_k_divergence as top_k_divergence
    from nbg_lightning.losses.policy_gradient import Advantages as Advantages
    from nbg_lightning.losses.policy_gradient import Objective as Objective
    from nbg_lightning.losses.policy_gradient import PolicyLoss as PolicyLoss
    from nbg_lightning.losses.policy_gradient import denominator as denominator
    from nbg_lightning.losses.policy_gradient import engine_weights as engine_weights
    from nbg_lightning.losses.policy_gradient import group_advantages as group_advantages
    from nbg_lightning.losses.policy_gradient import kl_penalty as kl_penalty
    from nbg_lightning.losses.policy_gradient import kl_value as kl_value
    from nbg_lightning.losses.policy_gradient import objective as objective
    from nbg_lightning.losses.policy_gradient import policy_loss as policy_loss
    from nbg_lightning.losses.policy_gradient import token_weights as token_weights
    from nbg_lightning.losses.preference import Preference as Preference
    from nbg_lightning.losses.preference import preference_loss as preference_loss
    from nbg_lightning.losses.reward import RewardLoss as RewardLoss
    from nbg_lightning.losses.reward import good_or_bad as good_or_bad
    from nbg_lightning.losses.reward import reward_loss as reward_loss
    from nbg_lightning.losses.reward import win_probability as win_probability
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "distillation": ["Divergence", "divergence", "group_targets", "top_k_divergence"],
            "policy_gradient": [
                "Advantages",
                "Objective",
                "PolicyLoss",
                "denominator",
                "engine_weights",
                "group_advantages",
                "kl_penalty",
                "kl_value",
                "objective",
                "policy_loss",
                "token_weights",
            ],
            "preference": ["Preference", "preference_loss"],
            "reward": ["RewardLoss", "good_or_bad", "reward_loss", "win_probability"],
        },
    )
