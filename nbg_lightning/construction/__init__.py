"""Building data: quality tags, retrieval, selection, refinement, CoT reconstruction, problems with tests, preference pairs.

Names load on first use.
"""

from nbg_lightning.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "chains": ["Chains"],
        "columns": ["build_columns"],
        "contamination": ["Contamination"],
        "deduplicate": ["Signature"],
        "embedding": ["HashedEmbedding", "ModelEmbedding"],
        "given_code": ["CodeJsonLines", "CodeSource", "ModuleFunctions"],
        "perplexity": ["Perplexity", "TokenCount"],
        "problems": ["Problems"],
        "reconstruction": ["Reconstruction"],
        "refinement": ["Refinement"],
        "signals": ["Signals"],
        "step": ["Chain", "Step"],
        "store": ["Counts", "KeyedLines", "Store"],
        "table": ["Table"],
        "tagger": ["Tagger"],
        "writers": ["Interview", "WriterConfig"],
    },
)
