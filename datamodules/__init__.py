"""LightningDataModules over one data engine. Import them as ``nbg_lightning.datamodules``."""

if __name__ != "nbg_lightning.datamodules":
    raise ImportError(
        "datamodules is invalid as a package: this folder is its home in the source tree; import nbg_lightning.datamodules"
    )

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.datamodules.benchmark import BenchmarkDataModule as BenchmarkDataModule
    from nbg_lightning.datamodules.chat import ChatDataModule as ChatDataModule
    from nbg_lightning.datamodules.curriculum import CurriculumDataModule as CurriculumDataModule
    from nbg_lightning.datamodules.ordered import OrderedDataModule as OrderedDataModule
    from nbg_lightning.datamodules.preference import PreferenceDataModule as PreferenceDataModule
    from nbg_lightning.datamodules.prepared import PreparedDataModule as PreparedDataModule
    from nbg_lightning.datamodules.prompts import PromptDataModule as PromptDataModule
    from nbg_lightning.datamodules.prompts import PromptStage as PromptStage
    from nbg_lightning.datamodules.questions import QuestionBatch as QuestionBatch
    from nbg_lightning.datamodules.questions import QuestionDataModule as QuestionDataModule
    from nbg_lightning.datamodules.rendered import RenderedDataModule as RenderedDataModule
    from nbg_lightning.datamodules.steps import StepDataModule as StepDataModule
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "benchmark": ["BenchmarkDataModule"],
            "chat": ["ChatDataModule"],
            "curriculum": ["CurriculumDataModule"],
            "ordered": ["OrderedDataModule"],
            "preference": ["PreferenceDataModule"],
            "prepared": ["PreparedDataModule"],
            "prompts": ["PromptDataModule", "PromptStage"],
            "questions": ["QuestionBatch", "QuestionDataModule"],
            "rendered": ["RenderedDataModule"],
            "steps": ["StepDataModule"],
        },
    )
