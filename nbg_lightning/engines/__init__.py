"""Generation engines behind one protocol; names load on first use."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.engines.chat import Answer as Answer
    from nbg_lightning.engines.chat import ChatFormat as ChatFormat
    from nbg_lightning.engines.chat import Writer as Writer
    from nbg_lightning.engines.local import LocalEngine as LocalEngine
    from nbg_lightning.engines.native import NativeEngine as NativeEngine
    from nbg_lightning.engines.protocol import Completion as Completion
    from nbg_lightning.engines.protocol import Engine as Engine
    from nbg_lightning.engines.protocol import Prompt as Prompt
    from nbg_lightning.engines.protocol import Sampling as Sampling
    from nbg_lightning.engines.protocol import TokenScore as TokenScore
    from nbg_lightning.engines.protocol import sample_seed as sample_seed
    from nbg_lightning.engines.server import ServerEngine as ServerEngine
    from nbg_lightning.engines.supervised import EngineDied as EngineDied
    from nbg_lightning.engines.supervised import SupervisedEngine as SupervisedEngine
    from nbg_lightning.engines.vllm import Probe as Probe
    from nbg_lightning.engines.vllm import VLLMEngine as VLLMEngine
    from nbg_lightning.engines.vllm import write_skeleton as write_skeleton
    from nbg_lightning.engines.weights import weight_stream as weight_stream
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "chat": ["Answer", "ChatFormat", "Writer"],
            "local": ["LocalEngine"],
            "native": ["NativeEngine"],
            "protocol": ["Completion", "Engine", "Prompt", "Sampling", "TokenScore", "sample_seed"],
            "server": ["ServerEngine"],
            "supervised": ["EngineDied", "SupervisedEngine"],
            "vllm": ["Probe", "VLLMEngine", "write_skeleton"],
            "weights": ["weight_stream"],
        },
    )
