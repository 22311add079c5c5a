"""Generation engines behind one protocol; names load on first use."""

from nbg_lightning.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "chat": ["Answer", "ChatFormat", "Writer"],
        "local": ["LocalEngine"],
        "native": ["NativeEngine"],
        "protocol": ["Completion", "Engine", "Prompt", "Sampling", "TokenScore", "sample_seed"],
        "server": ["ServerEngine"],
        "supervised": ["EngineDied", "SupervisedEngine"],
        "vllm": ["Probe", "VLLMEngine", "write_skeleton"],
        "weights": ["weight_stream"],
    },
)
