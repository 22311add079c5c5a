"""Building data: quality tags, retrieval, selection, refinement, CoT reconstruction, problems with tests, preference pairs.

Four rooms (``filtering``, ``solutions``, ``problems``, ``pairs``) stand on the files of this folder. Names load on first use.
"""

from nbg_lightning.lazy import lazy_names

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
