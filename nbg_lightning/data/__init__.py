"""Data preparation: text to token ids on disk, and the order in which training reads them.

Names are loaded on first use; only `batch` needs torch.
"""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.data.chat_sources import ChatHuggingFace as ChatHuggingFace
    from nbg_lightning.data.chat_sources import ChatJsonLines as ChatJsonLines
    from nbg_lightning.data.chat_sources import ChatList as ChatList
    from nbg_lightning.data.chat_sources import ChatParquet as ChatParquet
    from nbg_lightning.data.chat_sources import ChatSource as ChatSource
    from nbg_lightning.data.chat_sources import ReasoningGymChat as ReasoningGymChat
    from nbg_lightning.data.conversations import ConversationEncoder as ConversationEncoder
    from nbg_lightning.data.conversations import RenderedSource as RenderedSource
    from nbg_lightning.data.conversations import Windows as Windows
    from nbg_lightning.data.conversations import plan_windows as plan_windows
    from nbg_lightning.data.order import SampleOrder as SampleOrder
    from nbg_lightning.data.order import Samples as Samples
    from nbg_lightning.data.order import chain as chain
    from nbg_lightning.data.order import expected_chain as expected_chain
    from nbg_lightning.data.order import sample_hash as sample_hash
    from nbg_lightning.data.pair_sources import PairHuggingFace as PairHuggingFace
    from nbg_lightning.data.pair_sources import PairJsonLines as PairJsonLines
    from nbg_lightning.data.pair_sources import PairList as PairList
    from nbg_lightning.data.pair_sources import PairParquet as PairParquet
    from nbg_lightning.data.pair_sources import PairSource as PairSource
    from nbg_lightning.data.pairs import PreferencePair as PreferencePair
    from nbg_lightning.data.pairs import RenderedPair as RenderedPair
    from nbg_lightning.data.pairs import sequence_key as sequence_key
    from nbg_lightning.data.prepare import PreparedData as PreparedData
    from nbg_lightning.data.prepare import PreparedSource as PreparedSource
    from nbg_lightning.data.prepare import prepare_all as prepare_all
    from nbg_lightning.data.prepare import prepare_source as prepare_source
    from nbg_lightning.data.question import Question as Question
    from nbg_lightning.data.question_sources import QuestionHuggingFace as QuestionHuggingFace
    from nbg_lightning.data.question_sources import QuestionJsonLines as QuestionJsonLines
    from nbg_lightning.data.question_sources import QuestionList as QuestionList
    from nbg_lightning.data.question_sources import QuestionParquet as QuestionParquet
    from nbg_lightning.data.question_sources import QuestionSource as QuestionSource
    from nbg_lightning.data.question_sources import ReasoningGymQuestions as ReasoningGymQuestions
    from nbg_lightning.data.shards import TokenizedSource as TokenizedSource
    from nbg_lightning.data.sources import HuggingFace as HuggingFace
    from nbg_lightning.data.sources import InMemory as InMemory
    from nbg_lightning.data.sources import JsonLines as JsonLines
    from nbg_lightning.data.sources import PackageSource as PackageSource
    from nbg_lightning.data.sources import Parquet as Parquet
    from nbg_lightning.data.sources import Part as Part
    from nbg_lightning.data.sources import ReasoningGym as ReasoningGym
    from nbg_lightning.data.sources import Source as Source
    from nbg_lightning.data.sources import TextFolder as TextFolder
    from nbg_lightning.data.stored_files import DataStore as DataStore
    from nbg_lightning.data.tokenizer import Tokenizer as Tokenizer
    from nbg_lightning.data.tokenizer import TokenizerConfig as TokenizerConfig
    from nbg_lightning.data.tokenizer import train_bpe as train_bpe
else:
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
            "stored_files": ["DataStore"],
            "tokenizer": ["Tokenizer", "TokenizerConfig", "train_bpe"],
        },
    )
