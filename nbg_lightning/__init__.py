"""nbg_lightning: Lightning components for the Nanbeige4-3B training recipe.

Names load on first use; importing the package imports no torch.
"""

from nbg_lightning.lazy import lazy_names
from nbg_lightning.moved import install as _install_moved_names

__version__ = "0.1.0"

_install_moved_names()

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "callbacks.benchmark_suite": ["BenchmarkSuiteCallback"],
        "callbacks.checkpoint": ["StepCheckpoint"],
        "callbacks.fg_wsd": ["FGWSD"],
        "callbacks.sample_table": ["SampleTable"],
        "callbacks.sentinel": ["Sentinel"],
        "callbacks.warmup_decay": ["WarmupDecay"],
        "core.config": ["LanguageModelConfig", "ParallelConfig", "preset"],
        "datamodules.benchmark": ["BenchmarkDataModule"],
        "datamodules.chat": ["ChatDataModule"],
        "datamodules.curriculum": ["CurriculumDataModule"],
        "datamodules.preference": ["PreferenceDataModule"],
        "datamodules.prompts": ["PromptDataModule"],
        "evaluation.suite": ["Suite"],
        "modules.grpo": ["GRPOModule"],
        "modules.dpd": ["DPDModule"],
        "modules.optimizer": ["AdamWConfig"],
        "modules.pretrain": ["PretrainModule"],
        "modules.served": ["ServedModel"],
        "modules.sft": ["SFTModule"],
        "schedule.curriculum": ["Curriculum", "Stage"],
        "strategy": ["FSDP2Strategy"],
        "trainer": ["Trainer"],
    },
)
