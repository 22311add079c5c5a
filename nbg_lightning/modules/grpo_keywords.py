"""Settings of `GRPOModule` that its subclasses pass on."""

from __future__ import annotations

from nbg_lightning.core.prefixes import SharePrefixes
from nbg_lightning.engines.protocol import Engine
from nbg_lightning.environments.environment import Environment
from nbg_lightning.losses.policy_gradient import LossName
from nbg_lightning.modules.base import LanguageModuleKeywords
from nbg_lightning.rl.advantages import AdvantageEstimator
from nbg_lightning.rl.policy_loss import PolicyLossConfig
from nbg_lightning.rl.rollout_settings import RolloutSettings


class GRPOModuleKeywords(LanguageModuleKeywords, total=False):
    """Settings of `GRPOModule` besides ``reward`` and ``core``, which the constructors of its subclasses pass on."""

    environment: Environment | None
    engine: Engine | None
    group_size: int
    max_new_tokens: int
    temperature: float
    rollouts: RolloutSettings
    loss: LossName | PolicyLossConfig
    advantages: AdvantageEstimator | None
    inner_updates: int
    share_prefixes: SharePrefixes
