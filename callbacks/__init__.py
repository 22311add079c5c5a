"""Callbacks: the curriculum's driver, checkpoints, and what a run shows. Import them as ``nbg_lightning.callbacks``."""

if __name__ != "nbg_lightning.callbacks":
    raise ImportError("import nbg_lightning.callbacks (this folder is only its home in the source tree)")

from nbg_lightning.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "benchmark_suite": ["BenchmarkSuiteCallback"],
        "checkpoint": ["StepCheckpoint"],
        "fg_wsd": ["FGWSD"],
        "graceful_stop": ["GracefulStop"],
        "progress": ["TokenProgress"],
        "sample_table": ["SampleTable"],
        "sample_text": ["SampleText"],
        "sentinel": ["Sentinel"],
        "stage_table": ["StageTable"],
        "throughput": ["Throughput"],
        "warmup_decay": ["WarmupDecay"],
    },
)
