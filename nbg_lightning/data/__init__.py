"""The data engine: text to tokens on disk, and the order in which training reads them.

Names load on first use; only `batch` needs torch.
"""

from nbg_lightning.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "chat_sources": [
            "ChatHuggingFace",
            "ChatJsonLines",
            "ChatList",
            "ChatParquet",
            "ChatSource",
            "ReasoningGymChat",
        ],
        "conversations": ["ConversationEncoder", "RenderedSource", "Windows", "plan_windows"],
        "order": ["SampleOrder", "Samples", "chain", "expected_chain", "sample_hash"],
        "pair_sources": ["PairHuggingFace", "PairJsonLines", "PairList", "PairParquet", "PairSource"],
        "pairs": ["PreferencePair", "RenderedPair", "sequence_key"],
        "prepare": ["PreparedData", "PreparedSource", "prepare_all", "prepare_source"],
        "question": ["Question"],
        "question_sources": [
            "QuestionHuggingFace",
            "QuestionJsonLines",
            "QuestionList",
            "QuestionParquet",
            "QuestionSource",
            "ReasoningGymQuestions",
        ],
        "shards": ["TokenizedSource"],
        "sources": [
            "HuggingFace",
            "InMemory",
            "JsonLines",
            "PackageSource",
            "Parquet",
            "Part",
            "ReasoningGym",
            "Source",
            "TextFolder",
        ],
        "tokenizer": ["Tokenizer", "TokenizerConfig", "train_bpe"],
    },
)
