"""Building data: quality tags, retrieval, selection, refinement, CoT reconstruction, problems with tests, preference pairs.

Four rooms (``filtering``, ``solutions``, ``problems``, ``pairs``) stand on the files of this folder. Names load on first use.
"""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.construction.filtering.columns import build_columns as build_columns
    from nbg_lightning.construction.filtering.contamination import Contamination as Contamination
    from nbg_lightning.construction.filtering.deduplicate import Signature as Signature
    from nbg_lightning.construction.filtering.embedding import HashedEmbedding as HashedEmbedding
    from nbg_lightning.construction.filtering.embedding import ModelEmbedding as ModelEmbedding
    from nbg_lightning.construction.filtering.perplexity import Perplexity as Perplexity
    from nbg_lightning.construction.filtering.perplexity import TokenCount as TokenCount
    from nbg_lightning.construction.filtering.signals import Signals as Signals
    from nbg_lightning.construction.filtering.table import Table as Table
    from nbg_lightning.construction.filtering.tagger import Tagger as Tagger
    from nbg_lightning.construction.problems.builder import Problems as Problems
    from nbg_lightning.construction.problems.given_code import CodeJsonLines as CodeJsonLines
    from nbg_lightning.construction.problems.given_code import CodeSource as CodeSource
    from nbg_lightning.construction.problems.given_code import ModuleFunctions as ModuleFunctions
    from nbg_lightning.construction.solutions.chains import Chains as Chains
    from nbg_lightning.construction.solutions.reconstruction import Reconstruction as Reconstruction
    from nbg_lightning.construction.solutions.refinement import Refinement as Refinement
    from nbg_lightning.construction.step import Chain as Chain
    from nbg_lightning.construction.step import Step as Step
    from nbg_lightning.construction.store import Counts as Counts
    from nbg_lightning.construction.store import KeyedLines as KeyedLines
    from nbg_lightning.construction.store import Store as Store
    from nbg_lightning.construction.writers import Interview as Interview
    from nbg_lightning.construction.writers import WriterConfig as WriterConfig
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "filtering.columns": ["build_columns"],
            "filtering.contamination": ["Contamination"],
            "filtering.deduplicate": ["Signature"],
            "filtering.embedding": ["HashedEmbedding", "ModelEmbedding"],
            "filtering.perplexity": ["Perplexity", "TokenCount"],
            "filtering.signals": ["Signals"],
            "filtering.table": ["Table"],
            "filtering.tagger": ["Tagger"],
            "problems.builder": ["Problems"],
            "problems.given_code": ["CodeJsonLines", "CodeSource", "ModuleFunctions"],
            "solutions.chains": ["Chains"],
            "solutions.reconstruction": ["Reconstruction"],
            "solutions.refinement": ["Refinement"],
            "step": ["Chain", "Step"],
            "store": ["Counts", "KeyedLines", "Store"],
            "writers": ["Interview", "WriterConfig"],
        },
    )
