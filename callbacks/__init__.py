"""Callbacks: curriculum, checkpoints, monitoring and reports of a run. Import them as ``nbg_lightning.callbacks``."""

if __name__ != "nbg_lightning.callbacks":
    raise ImportError(
        "callbacks is invalid as a package: this folder is its home in the source tree; import nbg_lightning.callbacks"
    )

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.callbacks.benchmark_suite import BenchmarkSuiteCallback as BenchmarkSuiteCallback
    from nbg_lightning.callbacks.checkpoint import StepCheckpoint as StepCheckpoint
    from nbg_lightning.callbacks.fg_wsd import FGWSD as FGWSD
    from nbg_lightning.callbacks.graceful_stop import GracefulStop as GracefulStop
    from nbg_lightning.callbacks.merge import MergeCheckpoints as MergeCheckpoints
    from nbg_lightning.callbacks.progress import TokenProgress as TokenProgress
    from nbg_lightning.callbacks.run_summary import RunSummary as RunSummary
    from nbg_lightning.callbacks.sample_table import SampleTable as SampleTable
    from nbg_lightning.callbacks.sample_text import SampleText as SampleText
    from nbg_lightning.callbacks.sentinel import Sentinel as Sentinel
    from nbg_lightning.callbacks.stage_table import StageTable as StageTable
    from nbg_lightning.callbacks.throughput import Throughput as Throughput
    from nbg_lightning.callbacks.warmup_decay import WarmupDecay as WarmupDecay
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "benchmark_suite": ["BenchmarkSuiteCallback"],
            "checkpoint": ["StepCheckpoint"],
            "fg_wsd": ["FGWSD"],
            "graceful_stop": ["GracefulStop"],
            "merge": ["MergeCheckpoints"],
            "progress": ["TokenProgress"],
            "run_summary": ["RunSummary"],
            "sample_table": ["SampleTable"],
            "sample_text": ["SampleText"],
            "sentinel": ["Sentinel"],
            "stage_table": ["StageTable"],
            "throughput": ["Throughput"],
            "warmup_decay": ["WarmupDecay"],
        },
    )
