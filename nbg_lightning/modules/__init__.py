"""LightningModules, one algorithm a file."""

from nbg_lightning.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "base": ["LanguageModule"],
        "dpd": ["DPDModule"],
        "grpo": ["GRPOModule"],
        "optimizer": ["AdamWConfig"],
        "pretrain": ["PretrainModule"],
        "served": ["ServedModel"],
        "sft": ["SFTModule"],
    },
)
