"""The model core. torchtitan is imported here and nowhere else; names load on first use."""

from nbg_lightning.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "batch": ["PackedBatch"],
        "config": ["PRESETS", "LanguageModelConfig", "Llama3RopeScaling", "ParallelConfig", "PresetName", "preset"],
        "create": ["create_model"],
        "fingerprint": ["weights_fingerprint"],
        "head": [
            "IGNORE",
            "CrossEntropy",
            "TokenStatistics",
            "linear_cross_entropy",
            "linear_token_statistics",
        ],
        "model": ["LanguageModel", "TokenHead"],
        "parallelize": ["parallelize"],
    },
)
