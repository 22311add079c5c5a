"""nbg_lightning: Lightning components for the Nanbeige4-3B training recipe.

Names load on first use; importing the package imports no torch.
"""

from typing import TYPE_CHECKING

from nbg_lightning.deferred import install as _install_deferrals
from nbg_lightning.lazy import lazy_names
from nbg_lightning.moved import install as _install_moved_names

__version__ = "0.1.0"

_install_moved_names()
_install_deferrals()

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
    from nbg_lightning.core.config import LanguageModelConfig as LanguageModelConfig
    from nbg_lightning.core.config import ParallelConfig as ParallelConfig
    from nbg_lightning.core.config import preset as preset
    from nbg_lightning.datamodules.benchmark import BenchmarkDataModule as BenchmarkDataModule
    from nbg_lightning.datamodules.chat import ChatDataModule as ChatDataModule
    from nbg_lightning.datamodules.curriculum import CurriculumDataModule as CurriculumDataModule
    from nbg_lightning.datamodules.preference import PreferenceDataModule as PreferenceDataModule
    from nbg_lightning.datamodules.prompts import PromptDataModule as PromptDataModule
    from nbg_lightning.evaluation.suite import Suite as Suite
    from nbg_lightning.modules.dpd import DPDModule as DPDModule
    from nbg_lightning.modules.grpo import GRPOModule as GRPOModule
    from nbg_lightning.modules.opd import OPDModule as OPDModule
    from nbg_lightning.modules.optimizer import AdamWConfig as AdamWConfig
    from nbg_lightning.modules.pretrain import PretrainModule as PretrainModule
    from nbg_lightning.modules.reward import RewardModule as RewardModule
    from nbg_lightning.modules.served import ServedModel as ServedModel
    from nbg_lightning.modules.sft import SFTModule as SFTModule
    from nbg_lightning.schedule.curriculum import Curriculum as Curriculum
    from nbg_lightning.schedule.curriculum import Stage as Stage
    from nbg_lightning.strategy import FSDP2Strategy as FSDP2Strategy
    from nbg_lightning.trainer import Trainer as Trainer
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "callbacks.benchmark_suite": ["BenchmarkSuiteCallback"],
            "callbacks.checkpoint": ["StepCheckpoint"],
            "callbacks.fg_wsd": ["FGWSD"],
            "callbacks.graceful_stop": ["GracefulStop"],
            "callbacks.merge": ["MergeCheckpoints"],
            "callbacks.progress": ["TokenProgress"],
            "callbacks.run_summary": ["RunSummary"],
            "callbacks.sample_table": ["SampleTable"],
            "callbacks.sample_text": ["SampleText"],
            "callbacks.sentinel": ["Sentinel"],
            "callbacks.stage_table": ["StageTable"],
            "callbacks.throughput": ["Throughput"],
            "callbacks.warmup_decay": ["WarmupDecay"],
            "core.config": ["LanguageModelConfig", "ParallelConfig", "preset"],
            "datamodules.benchmark": ["BenchmarkDataModule"],
            "datamodules.chat": ["ChatDataModule"],
            "datamodules.curriculum": ["CurriculumDataModule"],
            "datamodules.preference": ["PreferenceDataModule"],
            "datamodules.prompts": ["PromptDataModule"],
            "evaluation.suite": ["Suite"],
            "modules.grpo": ["GRPOModule"],
            "modules.opd": ["OPDModule"],
            "modules.dpd": ["DPDModule"],
            "modules.optimizer": ["AdamWConfig"],
            "modules.pretrain": ["PretrainModule"],
            "modules.reward": ["RewardModule"],
            "modules.served": ["ServedModel"],
            "modules.sft": ["SFTModule"],
            "schedule.curriculum": ["Curriculum", "Stage"],
            "strategy": ["FSDP2Strategy"],
            "trainer": ["Trainer"],
        },
    )
