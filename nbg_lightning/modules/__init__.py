"""LightningModules, one algorithm a file."""

from nbg_lightning.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "base": ["LanguageModule"],
        "optimizer": ["AdamWConfig"],
        "pretrain": ["PretrainModule"],
        "sft": ["SFTModule"],
    },
)
