"""LightningModules, one algorithm per file."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.modules.answer_tokens import AnswerTokens as AnswerTokens
    from nbg_lightning.modules.base import LanguageModule as LanguageModule
    from nbg_lightning.modules.base import LanguageModuleKeywords as LanguageModuleKeywords
    from nbg_lightning.modules.dpd import DPDModule as DPDModule
    from nbg_lightning.modules.grpo import GRPOModule as GRPOModule
    from nbg_lightning.modules.opd import OPDModule as OPDModule
    from nbg_lightning.modules.optimizer import AdamWConfig as AdamWConfig
    from nbg_lightning.modules.pretrain import PretrainModule as PretrainModule
    from nbg_lightning.modules.reward import RewardModule as RewardModule
    from nbg_lightning.modules.served import ServedModel as ServedModel
    from nbg_lightning.modules.sft import SFTModule as SFTModule
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "answer_tokens": ["AnswerTokens"],
            "base": ["LanguageModule", "LanguageModuleKeywords"],
            "dpd": ["DPDModule"],
            "grpo": ["GRPOModule"],
            "opd": ["OPDModule"],
            "optimizer": ["AdamWConfig"],
            "pretrain": ["PretrainModule"],
            "reward": ["RewardModule"],
            "served": ["ServedModel"],
            "sft": ["SFTModule"],
        },
    )
