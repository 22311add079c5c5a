"""Generation in this process with weights loaded from a folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from nbg_lightning.engines.protocol import Completion, Listener, Prompt, Sampling

if TYPE_CHECKING:
    from torch import Tensor

    from nbg_lightning.data.tokenizer import Tokenizer
    from nbg_lightning.engines.native import NativeEngine


class LocalEngine:
    """A `NativeEngine` that loads its own weights, for commands and judges, where no module has loaded a model.

    The weights are loaded on entering and released on leaving. Uses one process and one device.

    Args:
        weights: a Hugging Face folder, a hub name, a checkpoint, or the folder of a run.
        ema: use the averaged weights of a checkpoint.
        device: device to run on; by default CUDA if available.
        dtype: dtype of the weights in memory and of matrix products.
        options: further arguments of `NativeEngine`.

    Raises:
        FileNotFoundError, ValueError: as `open_weights`; raised on construction rather than on entering.
    """

    def __init__(
        self,
        weights: str,
        ema: bool = False,
        device: str | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        options: dict[str, Any] | None = None,
    ):
        from nbg_lightning.core.checkpoint_folder import checkpoint_at
        from nbg_lightning.core.weights import read_shape

        self.weights, self.ema, self.device, self.dtype = checkpoint_at(weights), ema, device, dtype
        self.options = options or {}
        self.shape = read_shape(self.weights)
        self.vocab_size, self.window = self.shape.vocab_size, self.shape.max_position_embeddings
        self.weight_version = 0
        self._engine: NativeEngine | None = None

    def __enter__(self) -> LocalEngine:
        if self._engine is not None:
            raise RuntimeError("this LocalEngine is open; leave its with block before entering another")
        import torch

        from nbg_lightning.core.create import create_model
        from nbg_lightning.core.weights import load_base_weights
        from nbg_lightning.engines.native import NativeEngine

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        model = create_model(self.shape, device=device).eval().requires_grad_(False)
        load_base_weights(model, self.weights, self.ema)
        for parameter in model.parameters():  # not `model.to`: rotary tables stay float32
            parameter.data = parameter.data.to(getattr(torch, self.dtype))
        self._engine = NativeEngine(model, **{"decode": self._decode, **self.options})
        return self

    def _decode(self, ids: Sequence[int]) -> str:
        """Decode ids for stop strings, with the tokenizer of the weights."""
        return self._tokenizer.decode(ids)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from nbg_lightning.data.tokenizer import load_tokenizer

        return load_tokenizer(self.weights)

    def __exit__(self, *_: object) -> None:
        self._engine = None

    @property
    def native(self) -> NativeEngine:
        """The underlying engine, while open: for its model and log-probs of given text (`NativeEngine.score`)."""
        if self._engine is None:
            raise RuntimeError("this LocalEngine is not open; use it in a with block")
        return self._engine

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, deadline: float | None = None
    ) -> list[list[Completion]]:
        """See `Engine.generate`."""
        return self.native.generate(prompts, sampling, deadline)

    def stream(
        self, prompts: Sequence[Prompt], sampling: Sampling, listener: Listener, deadline: float | None = None
    ) -> list[list[Completion]]:
        """See `NativeEngine.stream`."""
        return self.native.stream(prompts, sampling, listener, deadline)

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Refuse: the engine has its own weights.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("LocalEngine keeps the weights it was given; use NativeEngine on a model that is trained")
