"""Model shapes, presets, and settings of parallelism, speed and memory."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

MAX_LAYERS = 10_000  # ten times the deepest published networks; each layer adds a dozen entries to a table
_LARGEST = 1 << 40  # upper bound of any size: no tensor has that many rows, and products of two are exact


def _check_numbers(config: Any) -> None:
    """Check that every number has its declared type and is finite, positive and not absurdly large.

    Raises:
        ValueError: a field is invalid; it is named.
    """
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{type(config).__name__}.{field.name}"
        if field.type == "bool":
            if not isinstance(value, bool):
                raise ValueError(f"{name} is invalid: {value!r:.40}; give true or false")
        elif field.type in ("int", "float"):
            kinds = (int,) if field.type == "int" else (int, float)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise ValueError(f"{name} is invalid: {value!r:.40}; give a number ({field.type})")
            if not value > 0:
                raise ValueError(f"{name} is invalid: {value!r:.40}; give a number above 0")
            if not value < (_LARGEST if field.type == "int" else math.inf):
                limit = f"below {_LARGEST:,}" if field.type == "int" else "finite"
                raise ValueError(f"{name} is invalid: {value!r:.40}; it must be {limit}")


@dataclass
class Llama3RopeScaling:
    """Frequency scaling of Llama 3.1 and later (``rope_type: llama3`` in a Hugging Face config).

    Wavelengths longer than ``original_max_position_embeddings / low_freq_factor`` are stretched by ``factor``, those
    shorter than ``original_max_position_embeddings / high_freq_factor`` are kept, those between are interpolated.
    """

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def __post_init__(self) -> None:
        _check_numbers(self)


@dataclass
class LanguageModelConfig:
    """A Llama-family decoder. Field names and the flat layout are those of Hugging Face's ``config.json``.

    Pre-RMSNorm, SwiGLU, rotary embeddings, grouped-query attention, no biases except with ``qkv_bias`` (Qwen2.5).
    Defaults are Nanbeige4-3B's as published in the paper (arXiv 2512.06266). `PRESETS` has named instances.
    With ``num_loops`` above 1 the blocks and the final norm run that often, on the same weights (Nanbeige4.2, arXiv 2607.22083).
    With ``score_head`` the head has a single row, which scores a text instead of predicting tokens: a reward model
    (``...ForSequenceClassification`` with one label).

    Raises:
        ValueError: the shape cannot be built; the message names the fix.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int = 4096
    rope_theta: float = 10_000.0
    rope_scaling: Llama3RopeScaling | None = None
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    qk_norm: bool = False
    qkv_bias: bool = False
    initializer_range: float = 0.02
    num_loops: int = 1
    score_head: bool = False

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.rope_scaling is not None and not isinstance(self.rope_scaling, Llama3RopeScaling):
            raise ValueError(
                f"LanguageModelConfig.rope_scaling is invalid: {self.rope_scaling!r:.40}; give a Llama3RopeScaling, or null"
            )
        if self.num_hidden_layers > MAX_LAYERS:
            raise ValueError(
                f"LanguageModelConfig.num_hidden_layers is invalid: {self.num_hidden_layers:,.0f}; give at most {MAX_LAYERS:,}"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads is invalid: {self.num_key_value_heads}; it must divide "
                f"num_attention_heads={self.num_attention_heads}"
            )
        if self.qk_norm and self.qkv_bias:
            raise ValueError("qkv_bias=True is invalid with qk_norm=True: no family has both; set one of them to false")
        if self.num_loops > 1 and (self.qk_norm or self.qkv_bias):
            raise ValueError(
                f"num_loops={self.num_loops} is invalid with qk_norm or qkv_bias: no family has both; set it to 1"
            )
        if self.num_loops * self.num_hidden_layers > MAX_LAYERS:
            raise ValueError(
                f"num_loops is invalid: {self.num_loops}; lower it: more than {MAX_LAYERS:,} layers would run in a forward"
            )
        if self.score_head and self.tie_word_embeddings:
            raise ValueError(
                "tie_word_embeddings=True is invalid with score_head=True: a score is no token; set it to false"
            )
        if self.head_dim % 2:
            raise ValueError(
                f"LanguageModelConfig.head_dim is invalid: {self.head_dim}; give an even number (rotary embeddings turn pairs)"
            )

    @property
    def num_parameters(self) -> int:
        """Number of parameters; tied matrices are counted once."""
        attention = self.hidden_size * self.head_dim * 2 * (self.num_attention_heads + self.num_key_value_heads)
        feed_forward = 3 * self.hidden_size * self.intermediate_size
        norms = 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0) + self._biases
        rows = self.vocab_size + (0 if self.tie_word_embeddings else self.head_rows)
        return self.num_hidden_layers * (attention + feed_forward + norms) + self.hidden_size * (1 + rows)

    @property
    def head_rows(self) -> int:
        """Outputs of the head per position: the vocabulary size, or 1 for a score head."""
        return 1 if self.score_head else self.vocab_size

    @property
    def scoring(self) -> LanguageModelConfig:
        """The same shape with a score head instead of a language-model head."""
        return dataclasses.replace(self, score_head=True, tie_word_embeddings=False)

    @property
    def layer_passes(self) -> int:
        """Blocks that a token passes through, each with its own keys and values: layers x loops."""
        return self.num_hidden_layers * self.num_loops

    @property
    def _biases(self) -> int:
        """Number of biases per layer."""
        return self.head_dim * (self.num_attention_heads + 2 * self.num_key_value_heads) if self.qkv_bias else 0

    def flops_per_token(self, sequence_length: int) -> float:
        """Floating-point operations to train on one token (forward and backward, without recomputation).

        ``6 N + 6 L d s``: N is the number of weights in matrix products (the input embedding, a look-up, does not count), and
        causal attention reads ``s / 2`` keys on average, in two products of width ``d = heads x head_dim``
        (PaLM, arXiv 2204.02311, appendix B, with the causal half). Blocks count once per loop.
        """
        norms = self.num_hidden_layers * (2 * self.hidden_size + self._biases) + self.hidden_size
        look_up = 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size
        multiplying = self.num_parameters - norms - look_up
        multiplying += (self.num_loops - 1) * (multiplying - self.head_rows * self.hidden_size)
        attention = self.layer_passes * self.num_attention_heads * self.head_dim * sequence_length
        return 6.0 * multiplying + 6.0 * attention


def _llama(
    hidden_size: int,
    layers: int,
    heads: int,
    kv_heads: int,
    ffn: int,
    vocab_size: int,
    *,
    head_dim: int = 64,
    **changes: Any,
) -> dict[str, Any]:
    return dict(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        tie_word_embeddings=True,
        **changes,
    )


def _nanbeige4(hidden_size: int, layers: int, heads: int, ffn: int) -> dict[str, Any]:
    reach: dict[str, Any] = dict(max_position_embeddings=32_768, rope_theta=5e6)
    return _llama(hidden_size, layers, heads, 4, ffn, 166_144, head_dim=128, **reach)


def _smollm2(hidden_size: int, layers: int, heads: int, kv_heads: int, ffn: int, rope_theta: float) -> dict[str, Any]:
    reach: dict[str, Any] = dict(max_position_embeddings=8192, rope_theta=rope_theta)
    return _llama(hidden_size, layers, heads, kv_heads, ffn, 49_152, **reach)


def _qwen3(hidden_size: int, layers: int, heads: int, ffn: int) -> dict[str, Any]:
    reach: dict[str, Any] = dict(max_position_embeddings=32_768, rope_theta=1e6)
    return _llama(hidden_size, layers, heads, 8, ffn, 151_936, head_dim=128, rms_norm_eps=1e-6, qk_norm=True, **reach)


def _qwen2(
    hidden_size: int, layers: int, heads: int, kv_heads: int, ffn: int, positions: int, **changes: Any
) -> dict[str, Any]:
    shape: dict[str, Any] = dict(
        head_dim=128, max_position_embeddings=positions, rope_theta=1e6, rms_norm_eps=1e-6, qkv_bias=True
    )
    return _llama(hidden_size, layers, heads, kv_heads, ffn, **{"vocab_size": 151_936, **shape, **changes})


def _llama3(hidden_size: int, layers: int, heads: int, head_dim: int) -> dict[str, Any]:
    # The other scaling parameters are Llama 3's, see `Llama3RopeScaling`.
    reach: dict[str, Any] = dict(max_position_embeddings=131_072, rope_theta=5e5, rope_scaling={"factor": 32.0})
    return _llama(hidden_size, layers, heads, 8, 8192, 128_256, head_dim=head_dim, **reach)


PRESETS: dict[str, dict[str, Any]] = {
    # The paper's released model: 3.934 B parameters.
    "nanbeige4-3b": {**_nanbeige4(2560, 32, 20, 10_496), "tie_word_embeddings": False},
    # The paper's 1B ablation model has no published shape: this one is ours (1.09 B parameters).
    "nanbeige4-1b": _nanbeige4(1536, 24, 12, 6144),
    # From config.json on the hub, of the base models.
    "smollm2-135m": _smollm2(576, 30, 9, 3, 1536, 1e5),
    "smollm2-360m": _smollm2(960, 32, 15, 5, 2560, 1e5),
    "smollm2-1.7b": _smollm2(2048, 24, 32, 32, 8192, 1.3e5),
    "qwen2.5-0.5b": _qwen2(896, 24, 14, 2, 4864, 32_768, head_dim=64),
    "qwen2.5-1.5b": _qwen2(1536, 28, 12, 2, 8960, 131_072),
    "qwen2.5-3b": _qwen2(2048, 36, 16, 2, 11_008, 32_768),
    "qwen2.5-7b": {**_qwen2(3584, 28, 28, 4, 18_944, 131_072, vocab_size=152_064), "tie_word_embeddings": False},
    "qwen2.5-14b": {
        **_qwen2(5120, 48, 40, 8, 13_824, 131_072, vocab_size=152_064, rms_norm_eps=1e-5),
        "tie_word_embeddings": False,
    },
    "qwen3-0.6b": _qwen3(1024, 28, 16, 3072),
    "qwen3-1.7b": _qwen3(2048, 28, 16, 6144),
    "qwen3-4b": _qwen3(2560, 36, 32, 9728),
    "llama3.2-1b": _llama3(2048, 16, 32, head_dim=64),
    "llama3.2-3b": _llama3(3072, 28, 24, head_dim=128),
    # Small enough for a CPU; head_dim 64 because vLLM's CPU kernels want it.
    "small": _llama(512, 8, 8, 4, 1536, 8192),
    "tiny": _llama(256, 4, 4, 2, 768, 4096),
    "nano": _llama(128, 2, 2, 1, 256, 512),
}

PresetName = Literal[
    "nanbeige4-3b",
    "nanbeige4-1b",
    "smollm2-135m",
    "smollm2-360m",
    "smollm2-1.7b",
    "qwen2.5-0.5b",
    "qwen2.5-1.5b",
    "qwen2.5-3b",
    "qwen2.5-7b",
    "qwen2.5-14b",
    "qwen3-0.6b",
    "qwen3-1.7b",
    "qwen3-4b",
    "llama3.2-1b",
    "llama3.2-3b",
    "small",
    "tiny",
    "nano",
]


def preset(name: str, **changes: Any) -> LanguageModelConfig:
    """The config of a preset, with fields overridden by keyword.

    Example:
        >>> preset("nanbeige4-3b").num_parameters
        3933637120
        >>> preset("tiny", vocab_size=1024).vocab_size
        1024
    """
    if name not in PRESETS:
        raise ValueError(f"core is invalid: there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    shape = {**PRESETS[name], **changes}
    if isinstance(scaling := shape.get("rope_scaling"), dict):
        shape["rope_scaling"] = Llama3RopeScaling(**scaling)
    return LanguageModelConfig(**shape)


@dataclass
class ParallelConfig:
    """Settings of speed and memory that do not change the mathematics.

    Parameters, gradients and optimizer states are always float32 and sharded by FSDP2; ``compute_dtype`` applies to
    activations and matrix products.

    Attributes:
        compute_dtype: dtype of the forward and backward pass.
        activation_checkpointing: keep all activations (``none``), keep those of every second matrix product
            (``selective``), or recompute each block (``full``).
        compile: compile each block with ``torch.compile``. ``auto`` compiles if the run is long enough for it to pay off
            (`nbg_lightning.core.compilation`), and logs the decision; without a trainer it does not compile.
        float8: torchao recipe for the linear layers of the blocks (SM89 or later), or ``emulate`` for tests.
        replicate: hybrid sharding (HSDP): number of replicas of the sharded model, or ``nodes`` for one replica per node, so that
            only gradients cross the network. 1 shards over all ranks.
        context: context parallelism, for windows too long for one rank: number of neighbouring ranks that share each micro-batch,
            each with a part of each row's tokens. It must divide the attention heads, the window length and the number of ranks.
        reshard_after_forward: free the gathered weights of a block between forward and backward.
        sync_every_micro_batch: reduce gradients after each micro-batch (gradients stay sharded: less memory) instead of after
            the last one (less communication).
        draw: how weights are initialized: in ``blocks`` of 2^20 elements, where a rank draws only those it holds a part of, or
            each parameter as a ``whole`` on every rank. The two give parameters of more than 2^20 elements different values.
    """

    compute_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    compile: bool | Literal["auto"] = "auto"
    float8: Literal["none", "rowwise", "rowwise_with_gw_hp", "emulate"] = "none"
    replicate: int | Literal["nodes"] = 1
    context: int = 1
    reshard_after_forward: bool = True
    sync_every_micro_batch: bool = False
    draw: Literal["blocks", "whole"] = "blocks"
