"""Models used by builders: an engine with its tokenizer and chat format."""

from __future__ import annotations

from dataclasses import dataclass

from nbg_lightning.data.tokenizer import load_tokenizer
from nbg_lightning.engines.capabilities import SkeletonEngine, interface_of, weights_of
from nbg_lightning.engines.chat import ChatModel, Template
from nbg_lightning.engines.protocol import Engine


@dataclass
class ChatModelConfig:
    """A chat model used by a builder.

    Args:
        engine: generates the answers; entered when the build begins and left when it ends. An engine that starts without weights
            (`VLLMEngine`) is given those of its folder.
        tokenizer: folder, hub name or checkpoint of the model's tokenizer; by default that of the engine's weights. Not needed
            by engines that take and return text (`ServerEngine` with ``interface: chat``).
        template: the chat format, see `engines.chat.Template`.
        deadline: time limit of a call in seconds; None for no limit.

    Raises:
        ValueError: a deadline that is not positive.
    """

    engine: Engine
    tokenizer: str | None = None
    template: Template = "auto"
    deadline: float | None = 3600.0

    def __post_init__(self) -> None:
        if self.deadline is not None and self.deadline <= 0:
            raise ValueError(
                f"deadline is invalid: {self.deadline}; give a positive number of seconds, or null for no limit"
            )

    def open_chat(self) -> ChatModel:
        """Combine the engine with its tokenizer, without starting it.

        Raises:
            ValueError, FileNotFoundError: there is no tokenizer, or it does not support the format.
        """
        if interface_of(self.engine) != "ids" and self.tokenizer is None:
            return ChatModel(self.engine, None, self.template)
        name = self.tokenizer or weights_of(self.engine)
        if name is None:
            raise ValueError(
                f"tokenizer is invalid: None with {type(self.engine).__name__}, which names no weights to take one from; "
                "give the model a tokenizer"
            )
        return ChatModel(self.engine, load_tokenizer(name), self.template)

    def load(self) -> None:
        """Give an open engine its weights, if it has none yet.

        Raises:
            ValueError: it names no folder with weights.
        """
        if self.engine.weight_version >= 0:
            return
        from nbg_lightning.core.names import hf_name
        from nbg_lightning.core.weights import open_weights

        folder = self.engine.folder if isinstance(self.engine, SkeletonEngine) else None
        if folder is None:
            raise ValueError(
                f"engine is invalid: {type(self.engine).__name__} without weights; give it the folder of a Hugging Face model"
            )
        weights = open_weights(folder)
        self.engine.sync(((hf_name(name), weights.read([name])[name]) for name in weights.shapes), 0)
