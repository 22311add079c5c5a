"""Generation engines behind a common protocol; names are loaded on first use."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.engines.capabilities import AttachableEngine as AttachableEngine
    from nbg_lightning.engines.capabilities import ComparableEngine as ComparableEngine
    from nbg_lightning.engines.capabilities import FolderEngine as FolderEngine
    from nbg_lightning.engines.capabilities import IdentifiedEngine as IdentifiedEngine
    from nbg_lightning.engines.capabilities import Interface as Interface
    from nbg_lightning.engines.capabilities import InterfaceEngine as InterfaceEngine
    from nbg_lightning.engines.capabilities import Probe as Probe
    from nbg_lightning.engines.capabilities import RoundingEngine as RoundingEngine
    from nbg_lightning.engines.capabilities import ServedEngine as ServedEngine
    from nbg_lightning.engines.capabilities import SkeletonEngine as SkeletonEngine
    from nbg_lightning.engines.capabilities import StagingEngine as StagingEngine
    from nbg_lightning.engines.capabilities import StreamingEngine as StreamingEngine
    from nbg_lightning.engines.capabilities import TokenScoringEngine as TokenScoringEngine
    from nbg_lightning.engines.capabilities import VocabularyEngine as VocabularyEngine
    from nbg_lightning.engines.capabilities import Windowed as Windowed
    from nbg_lightning.engines.chat import Answer as Answer
    from nbg_lightning.engines.chat import ChatFormat as ChatFormat
    from nbg_lightning.engines.chat import ChatModel as ChatModel
    from nbg_lightning.engines.local import LocalEngine as LocalEngine
    from nbg_lightning.engines.native import NativeEngine as NativeEngine
    from nbg_lightning.engines.protocol import Completion as Completion
    from nbg_lightning.engines.protocol import Engine as Engine
    from nbg_lightning.engines.protocol import GeneratedPiece as GeneratedPiece
    from nbg_lightning.engines.protocol import Listener as Listener
    from nbg_lightning.engines.protocol import Prompt as Prompt
    from nbg_lightning.engines.protocol import Sampling as Sampling
    from nbg_lightning.engines.protocol import TokenScore as TokenScore
    from nbg_lightning.engines.protocol import sample_seed as sample_seed
    from nbg_lightning.engines.separate import SeparateEngine as SeparateEngine
    from nbg_lightning.engines.server import ServerEngine as ServerEngine
    from nbg_lightning.engines.server_pool import ServerPool as ServerPool
    from nbg_lightning.engines.supervised import EngineDied as EngineDied
    from nbg_lightning.engines.supervised import SupervisedEngine as SupervisedEngine
    from nbg_lightning.engines.vllm import VLLMEngine as VLLMEngine
    from nbg_lightning.engines.vllm_skeleton import write_skeleton as write_skeleton
    from nbg_lightning.engines.weights import weight_stream as weight_stream
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "capabilities": [
                "AttachableEngine",
                "ComparableEngine",
                "FolderEngine",
                "IdentifiedEngine",
                "Interface",
                "InterfaceEngine",
                "Probe",
                "ServedEngine",
                "SkeletonEngine",
                "RoundingEngine",
                "StagingEngine",
                "StreamingEngine",
                "TokenScoringEngine",
                "VocabularyEngine",
                "Windowed",
            ],
            "chat": ["Answer", "ChatFormat", "ChatModel"],
            "local": ["LocalEngine"],
            "native": ["NativeEngine"],
            "protocol": [
                "Completion",
                "Engine",
                "Listener",
                "GeneratedPiece",
                "Prompt",
                "Sampling",
                "TokenScore",
                "sample_seed",
            ],
            "separate": ["SeparateEngine"],
            "server": ["ServerEngine"],
            "server_pool": ["ServerPool"],
            "supervised": ["EngineDied", "SupervisedEngine"],
            "vllm": ["VLLMEngine"],
            "vllm_skeleton": ["write_skeleton"],
            "weights": ["weight_stream"],
        },
    )
