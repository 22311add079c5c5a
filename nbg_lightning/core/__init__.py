"""The model core: the only package that imports torchtitan. Names are loaded on first use."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.core.batch import IGNORE as IGNORE
    from nbg_lightning.core.batch import PackedBatch as PackedBatch
    from nbg_lightning.core.config import PRESETS as PRESETS
    from nbg_lightning.core.config import LanguageModelConfig as LanguageModelConfig
    from nbg_lightning.core.config import Llama3RopeScaling as Llama3RopeScaling
    from nbg_lightning.core.config import ParallelConfig as ParallelConfig
    from nbg_lightning.core.config import PresetName as PresetName
    from nbg_lightning.core.config import preset as preset
    from nbg_lightning.core.create import create_model as create_model
    from nbg_lightning.core.fingerprint import weights_fingerprint as weights_fingerprint
    from nbg_lightning.core.head import CrossEntropy as CrossEntropy
    from nbg_lightning.core.head import TokenStatistics as TokenStatistics
    from nbg_lightning.core.head import linear_cross_entropy as linear_cross_entropy
    from nbg_lightning.core.head import linear_token_statistics as linear_token_statistics
    from nbg_lightning.core.model import LanguageModel as LanguageModel
    from nbg_lightning.core.model import TokenHead as TokenHead
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "batch": ["IGNORE", "PackedBatch"],
            "config": ["PRESETS", "LanguageModelConfig", "Llama3RopeScaling", "ParallelConfig", "PresetName", "preset"],
            "create": ["create_model"],
            "fingerprint": ["weights_fingerprint"],
            "head": [
                "CrossEntropy",
                "TokenStatistics",
                "linear_cross_entropy",
                "linear_token_statistics",
            ],
            "model": ["LanguageModel", "TokenHead"],
        },
    )
