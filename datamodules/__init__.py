"""LightningDataModules over one data engine. Import them as ``nbg_lightning.datamodules``."""

if __name__ != "nbg_lightning.datamodules":
    raise ImportError("import nbg_lightning.datamodules (this folder is only its home in the source tree)")

from nbg_lightning.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "benchmark": ["BenchmarkDataModule"],
        "chat": ["ChatDataModule"],
        "curriculum": ["CurriculumDataModule"],
        "ordered": ["OrderedDataModule"],
        "preference": ["PreferenceDataModule"],
        "steps": ["StepDataModule"],
        "prompts": ["PromptDataModule", "PromptStage", "QuestionBatch"],
    },
)
