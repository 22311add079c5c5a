"""Data construction: quality tags, retrieval, selection, refinement, CoT reconstruction, problems with tests, preference pairs.

The packages ``filtering``, ``solutions``, ``problems`` and ``pairs`` build on the files of this folder. Names load on first use.
"""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.construction.builder import Builder as Builder
    from nbg_lightning.construction.builder import ReportTable as ReportTable
    from nbg_lightning.construction.chat_models import ChatModelConfig as ChatModelConfig
    from nbg_lightning.construction.filtering.builders import AnnotationBuilder as AnnotationBuilder
    from nbg_lightning.construction.filtering.builders import CorpusBuilder as CorpusBuilder
    from nbg_lightning.construction.filtering.builders import RecallBuilder as RecallBuilder
    from nbg_lightning.construction.filtering.builders import SelectionBuilder as SelectionBuilder
    from nbg_lightning.construction.filtering.builders import TagBuilder as TagBuilder
    from nbg_lightning.construction.filtering.builders import TaggerBuilder as TaggerBuilder
    from nbg_lightning.construction.filtering.columns import build_columns as build_columns
    from nbg_lightning.construction.filtering.contamination import Contamination as Contamination
    from nbg_lightning.construction.filtering.deduplicate import Signature as Signature
    from nbg_lightning.construction.filtering.embedding import Embedding as Embedding
    from nbg_lightning.construction.filtering.embedding import HashedEmbedding as HashedEmbedding
    from nbg_lightning.construction.filtering.embedding import ModelEmbedding as ModelEmbedding
    from nbg_lightning.construction.filtering.perplexity import Perplexity as Perplexity
    from nbg_lightning.construction.filtering.perplexity import TokenCount as TokenCount
    from nbg_lightning.construction.filtering.pools import PoolSize as PoolSize
    from nbg_lightning.construction.filtering.signals import Signals as Signals
    from nbg_lightning.construction.filtering.table import Table as Table
    from nbg_lightning.construction.filtering.tagger import Tagger as Tagger
    from nbg_lightning.construction.outcomes import OutcomeCounts as OutcomeCounts
    from nbg_lightning.construction.pairs.best_answers import AnswerBuilder as AnswerBuilder
    from nbg_lightning.construction.pairs.builder import PairBuilder as PairBuilder
    from nbg_lightning.construction.pairs.comparisons import ComparisonBuilder as ComparisonBuilder
    from nbg_lightning.construction.pairs.trajectories import TrajectoryBuilder as TrajectoryBuilder
    from nbg_lightning.construction.problems.builder import ProblemBuilder as ProblemBuilder
    from nbg_lightning.construction.problems.given_code import CodeJsonLines as CodeJsonLines
    from nbg_lightning.construction.problems.given_code import CodeSource as CodeSource
    from nbg_lightning.construction.problems.given_code import ModuleFunctions as ModuleFunctions
    from nbg_lightning.construction.scheduler import RequestScheduler as RequestScheduler
    from nbg_lightning.construction.solutions.chains import ChainCompletionBuilder as ChainCompletionBuilder
    from nbg_lightning.construction.solutions.reconstruction import ReconstructionBuilder as ReconstructionBuilder
    from nbg_lightning.construction.solutions.refinement import RefinementBuilder as RefinementBuilder
    from nbg_lightning.construction.step import DocumentStep as DocumentStep
    from nbg_lightning.construction.step import StepPipeline as StepPipeline
    from nbg_lightning.construction.store import KeyedLines as KeyedLines
    from nbg_lightning.construction.store import Store as Store
    from nbg_lightning.construction.workflow import ModelRequest as ModelRequest
    from nbg_lightning.construction.workflow import ModelResponse as ModelResponse
    from nbg_lightning.construction.workflow import UnusableError as UnusableError
    from nbg_lightning.construction.workflow import Workflow as Workflow
    from nbg_lightning.construction.workflow_builder import WorkflowBuilder as WorkflowBuilder
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "builder": ["Builder", "ReportTable"],
            "chat_models": ["ChatModelConfig"],
            "filtering.builders": [
                "AnnotationBuilder",
                "CorpusBuilder",
                "RecallBuilder",
                "SelectionBuilder",
                "TagBuilder",
                "TaggerBuilder",
            ],
            "filtering.columns": ["build_columns"],
            "filtering.contamination": ["Contamination"],
            "filtering.deduplicate": ["Signature"],
            "filtering.embedding": ["Embedding", "HashedEmbedding", "ModelEmbedding"],
            "filtering.perplexity": ["Perplexity", "TokenCount"],
            "filtering.pools": ["PoolSize"],
            "filtering.signals": ["Signals"],
            "filtering.table": ["Table"],
            "filtering.tagger": ["Tagger"],
            "outcomes": ["OutcomeCounts"],
            "pairs.best_answers": ["AnswerBuilder"],
            "pairs.comparisons": ["ComparisonBuilder"],
            "pairs.builder": ["PairBuilder"],
            "pairs.trajectories": ["TrajectoryBuilder"],
            "problems.builder": ["ProblemBuilder"],
            "problems.given_code": ["CodeJsonLines", "CodeSource", "ModuleFunctions"],
            "scheduler": ["RequestScheduler"],
            "solutions.chains": ["ChainCompletionBuilder"],
            "solutions.reconstruction": ["ReconstructionBuilder"],
            "solutions.refinement": ["RefinementBuilder"],
            "step": ["DocumentStep", "StepPipeline"],
            "store": ["KeyedLines", "Store"],
            "workflow": ["ModelRequest", "ModelResponse", "UnusableError", "Workflow"],
            "workflow_builder": ["WorkflowBuilder"],
        },
    )
