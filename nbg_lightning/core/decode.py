"""Generation with the live weights: packed prefill, then one token per row from a key-value cache.

It works on the parameters directly instead of calling the modules: no hooks, no DTensor dispatch and no autograd in a decode
step. Prompts use the same packed attention as training.

Compared with transformers' `generate` and with vLLM, reinforcement learning needs no second copy of the weights, no export and no
server between two steps. In fp32 on one CPU thread it generates 2.3 and 2.0 times the tokens per second of these two
(benchmarks/performance/generation.py, the source of docs/measured.md). For large models on GPUs, vLLM is the engine.

Shape suffixes: B rows being decoded, R rows of the cache, T prompt tokens, P prompts, N query heads, K key/value heads,
G = N / K, H head dimension, D hidden size, V vocabulary, L cached positions that are read.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nbg_lightning.core.attention import document_attention
from nbg_lightning.core.config import LanguageModelConfig
from nbg_lightning.core.documents import ModelInput
from nbg_lightning.core.head import linear_token_statistics
from nbg_lightning.core.lora import adapted_layers, merge
from nbg_lightning.core.model import LanguageModel
from nbg_lightning.core.names import clean_name
from nbg_lightning.core.prefixes import pack_sequences
from nbg_lightning.core.products import add_product_, multiply, multiply_into
from nbg_lightning.core.rope import inverse_frequencies, rotary_table, rotate
from nbg_lightning.core.sharding import reshard, sharded_modules

# During generation, a small model's matrices are copied into the memory layout that is fastest for thin products, with q, k, v
# fused into one matrix and w1, w3 into another: this saves a sixth of the products' time. Larger models are not copied, since
# their products are bound by reading the weights.
_COPY_BELOW_BYTES = 64 * 2**20
# Rows are split for attention if reading them all up to the longest row's end would read this much more than needed.
_WASTE = 1.25


class _Layer(NamedTuple):
    """The matrices of a block, ``[in, out]``; ``qkv`` and ``gate_up`` are one fused matrix, or several applied separately."""

    attention_norm: Tensor
    qkv: tuple[Tensor, ...]
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    output: Tensor
    ffn_norm: Tensor
    gate_up: tuple[Tensor, ...]
    down: Tensor


class Prefilled(NamedTuple):
    """Prompts after prefill, flattened one after the other.

    Attributes:
        keys_values: keys and values ``[2, K, T, H]`` for each layer of each loop.
        starts: start of each prompt in T, followed by T.
        logits: logits at the last token of each prompt, ``[P, V]``, float32.
    """

    keys_values: list[Tensor]
    starts: list[int]
    logits: Tensor


@contextmanager
def gathered(model: LanguageModel) -> Iterator[None]:
    """Hold the full weights of a sharded model, gathered once, while the block runs.

    All ranks must enter it together; inside they are independent of each other. Weights are in FSDP's compute dtype.
    """
    units = sharded_modules(model)
    try:
        # Not in inference mode: buffers created in it could not be used in training afterwards.
        for unit in units:
            unit.unshard()
        yield
    finally:
        if units:
            reshard(model)


class KeyValueCache:
    """Keys (after rotation) and values of R rows of up to ``length`` positions, allocated at once.

    Args:
        shape: the model's shape.
        rows: R.
        length: positions per row.
        dtype: dtype of the cache. On a CPU it is float32 for bfloat16 models too, since batched products are faster there.
        device: device of the cache.
    """

    def __init__(self, shape: LanguageModelConfig, rows: int, length: int, dtype: torch.dtype, device: torch.device):
        heads = shape.num_key_value_heads
        self.rows, self.length, self.heads = rows, length, heads
        size = (2, rows, heads, length, shape.head_dim)
        # Zeros: unwritten positions are multiplied by a probability of 0, which would give NaN for a NaN.
        self.layers = [torch.zeros(size, dtype=dtype, device=device) for _ in range(shape.layer_passes)]
        # Views of the same memory: a list of head vectors (to write one token per row), and two batches of matrices (to read).
        self.vectors = [layer.view(-1, shape.head_dim) for layer in self.layers]
        self.keys, self.values = (
            [layer[side].view(rows * heads, length, shape.head_dim) for layer in self.layers] for side in (0, 1)
        )

    def write(self, row: int, prefilled: Prefilled, prompt: int) -> None:
        """Write a prompt's keys and values to the beginning of a row."""
        begin, end = prefilled.starts[prompt : prompt + 2]
        for layer, source in zip(self.layers, prefilled.keys_values, strict=True):
            layer[:, row, :, : end - begin].copy_(source[:, :, begin:end])

    def clear(self, row: int) -> None:
        """Zero a row that contains non-finite values."""
        for layer in self.layers:
            layer[:, row].zero_()

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Copy the first ``length`` positions of some rows to others."""
        device = self.layers[0].device
        source, target = (torch.tensor(rows, device=device) for rows in (sources, targets))
        for layer in self.layers:
            used = layer[:, :, :, :length]
            used.index_copy_(1, target, used.index_select(1, source))


class _Group(NamedTuple):
    """Neighbouring rows that are read up to a common length."""

    rows: slice
    heads: slice
    shortest: int
    longest: int
    hidden: Tensor | None  # [rows, 1, longest - shortest]: positions beyond each row's end; None if there are none


class Decoder:
    """The forward pass for generation. Create it inside `gathered` and drop it there: it holds views of the weights.

    Args:
        model: a `LanguageModel` with full weights on this device.

    Attributes:
        shape: the model's shape.
        dtype: dtype of weights and activations.
        device: device of the weights.
    """

    def __init__(self, model: LanguageModel):
        weights = {clean_name(name): parameter.detach() for name, parameter in model.named_parameters()}
        weights |= {
            name: merge(layer.weight, layer.lora_a, layer.lora_b, layer.scale).detach().to(layer.weight.dtype)
            for name, layer in adapted_layers(model).items()
            if layer.enabled
        }
        self.shape = shape = model.shape
        self.embedding = weights["tok_embeddings.weight"]
        self.norm = weights["norm.weight"]
        self.dtype, self.device = self.norm.dtype, self.norm.device
        self._copied = shape.num_parameters * self.norm.element_size() <= _COPY_BELOW_BYTES
        self.head_weight = self.embedding if shape.tie_word_embeddings else weights["lm_head.weight"]
        (self.head,) = self._products([self.head_weight])
        self.frequencies = inverse_frequencies(shape.head_dim, model.rope_theta, shape.rope_scaling, self.device)
        # Both halves of a head are rotated by the same angles; the signs are those of (-second, first).
        self._both = torch.cat((self.frequencies, self.frequencies))
        self._signs = torch.ones(shape.head_dim, device=self.device)
        self._signs[: shape.head_dim // 2] = -1.0
        self.scale = shape.head_dim**-0.5
        self.layers = [self._layer(weights, f"layers.{index}.") for index in range(shape.num_hidden_layers)]
        self.passes = self.layers * shape.num_loops  # the blocks in execution order
        self._batched = self.device.type == "cpu"

    @property
    def cache_dtype(self) -> torch.dtype:
        """The dtype for the cache."""
        return torch.promote_types(self.dtype, torch.float32) if self._batched else self.dtype

    def _products(self, matrices: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """``[out, in]`` matrices as right-hand sides of products: one fused ``[in, sum of out]``, or views."""
        if self._copied:
            return (torch.cat([matrix.t() for matrix in matrices], dim=1),)
        return tuple(matrix.t() for matrix in matrices)

    def _layer(self, weights: dict[str, Tensor], prefix: str) -> _Layer:
        def products(*names: str) -> tuple[Tensor, ...]:
            return self._products([weights[f"{prefix}{name}.weight"] for name in names])

        return _Layer(
            attention_norm=weights[f"{prefix}attention_norm.weight"],
            qkv=products(*(f"attention.qkv_linear.w{x}" for x in "qkv")),
            qkv_bias=self._qkv_bias(weights, prefix),
            q_norm=weights.get(f"{prefix}attention.q_norm.weight"),
            k_norm=weights.get(f"{prefix}attention.k_norm.weight"),
            output=products("attention.wo")[0],
            ffn_norm=weights[f"{prefix}ffn_norm.weight"],
            gate_up=products("feed_forward.w1", "feed_forward.w3"),
            down=products("feed_forward.w2")[0],
        )

    def _qkv_bias(self, weights: dict[str, Tensor], prefix: str) -> Tensor | None:
        if not self.shape.qkv_bias:
            return None
        return torch.cat([weights[f"{prefix}attention.qkv_linear.w{x}.bias"] for x in "qkv"])

    # -- parts that prefill and decode share ---------------------------------------------------------------------------

    def rms_norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """RMSNorm in float32 with one rounding, as `torch.nn.functional.rms_norm`, which makes more passes on a CPU."""
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        inverse = norm.square_().div_(x.shape[-1]).add_(self.shape.rms_norm_eps).rsqrt_()
        return (x * inverse).mul_(weight).to(x.dtype)

    def _queries_keys_values(self, x: Tensor, layer: _Layer) -> Tensor:
        """``[..., N + 2 K, H]``, with QK-norm if the model has it, before rotation."""
        shape = self.shape
        heads, kv_heads = shape.num_attention_heads, shape.num_key_value_heads
        qkv = _side_by_side(self.rms_norm(x, layer.attention_norm), layer.qkv)
        if layer.qkv_bias is not None:
            qkv += layer.qkv_bias
        qkv = qkv.unflatten(-1, (-1, shape.head_dim))
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = qkv[:, :heads], qkv[:, heads : heads + kv_heads]
            q.copy_(self.rms_norm(q, layer.q_norm))
            k.copy_(self.rms_norm(k, layer.k_norm))
        return qkv

    def _feed_forward(self, x: Tensor, layer: _Layer) -> Tensor:
        """Add the feed-forward output to x, in place."""
        gate, up = _side_by_side(self.rms_norm(x, layer.ffn_norm), layer.gate_up).chunk(2, dim=-1)
        return add_product_(x, F.silu(gate, inplace=True).mul_(up), layer.down)

    def begin_pass(self, index: int, x: Tensor) -> Tensor:
        """The input of the block at ``index`` of `passes`; after the last block of a loop, the normed residual stream."""
        return self.rms_norm(x, self.norm) if index and index % len(self.layers) == 0 else x

    def logits(self, x: Tensor) -> Tensor:
        """Logits ``[..., V]`` in float32, from the residual stream."""
        return multiply(self.rms_norm(x, self.norm), self.head).float()

    # -- prompts ---------------------------------------------------------------------------------------------------

    def hidden(self, prompts: Sequence[Sequence[int]], keep: bool) -> tuple[Tensor, list[int], list[Tensor]]:
        """Final residual stream ``[T, D]`` of packed prompts, their starts, and keys and values if ``keep``."""
        packed = pack_sequences(prompts, None).input
        assert packed.documents is not None
        x, kept = self.residual(packed, keep)
        return x, packed.documents.offsets.tolist(), kept

    def residual(self, packed: ModelInput, keep: bool = False) -> tuple[Tensor, list[Tensor]]:
        """Final residual stream ``[T, D]`` of a packed row, and keys and values per layer if ``keep``."""
        shape = self.shape
        heads, kv_heads = shape.num_attention_heads, shape.num_key_value_heads
        tokens, positions, documents = packed.to(self.device)
        assert documents is not None
        table = rotary_table(positions, self.frequencies)[0]
        kept = []
        x = F.embedding(tokens[0], self.embedding)
        for index, layer in enumerate(self.passes):
            x = self.begin_pass(index, x)
            q, k, v = self._queries_keys_values(x, layer).split((heads, kv_heads, kv_heads), dim=1)
            q, k = rotate(q, table), rotate(k, table)
            if keep:
                kept.append(torch.stack((k, v)).transpose(1, 2))
            attended = document_attention(q, k, v.contiguous(), documents, len(x), self.scale)
            x = add_product_(x, attended.flatten(1), layer.output)
            x = self._feed_forward(x, layer)
        return x, kept

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Prefilled:
        """Run the forward pass over prompts packed into one row, and keep their keys and values."""
        x, starts, kept = self.hidden(prompts, keep=True)
        last = torch.tensor(starts[1:], device=self.device) - 1
        return Prefilled(kept, starts, self.logits(x[last]))

    def score(self, sequences: Sequence[Sequence[int]], temperature: float = 1.0) -> list[Tensor]:
        """Log-probability of every token of each sequence after its first, given those before it (float32, nats)."""
        x, starts, _ = self.hidden(sequences, keep=False)
        labels = torch.tensor([t for ids in sequences for t in (*ids[1:], ids[0])], device=self.device)
        log_probs = linear_token_statistics(
            self.rms_norm(x, self.norm), self.head_weight, labels, temperature
        ).log_probs
        return [log_probs[begin : end - 1] for begin, end in itertools.pairwise(starts)]

    # -- one token a row ---------------------------------------------------------------------------------------------

    def rows(self, cache: KeyValueCache, lengths: Sequence[int]) -> Rows:
        """The first ``len(lengths)`` rows of a cache, which hold that many positions each, ready for decoding."""
        return Rows(self, cache, lengths)


class Rows:
    """Rows that are decoded together, until one of them finishes or a new one joins: then create a new object.

    Args:
        decoder: runs the forward pass.
        cache: the cache whose first B rows are used.
        lengths: number of positions that each row holds.
    """

    def __init__(self, decoder: Decoder, cache: KeyValueCache, lengths: Sequence[int]):
        self.decoder, self.cache = decoder, cache
        self.count = len(lengths)
        device, heads = decoder.device, cache.heads
        self.positions = torch.tensor(lengths, device=device)
        row = torch.arange(self.count, device=device)[:, None, None]
        side = torch.arange(2, device=device)[None, :, None]
        head = torch.arange(heads, device=device)[None, None]
        first = ((side * cache.rows + row) * heads + head) * cache.length
        self._slots = (first + self.positions[:, None, None]).flatten()  # where the next keys and values are written
        self._groups = [self._group(group, lengths) for group in split_by_length(lengths)]
        self._steps = 0

    def _group(self, rows: slice, lengths: Sequence[int]) -> _Group:
        heads = self.cache.heads
        own = lengths[rows]
        shortest, longest = min(own), max(own)
        hidden = None
        if shortest < longest:
            columns = torch.arange(shortest, longest, device=self.decoder.device)
            # Column c of the longest row is beyond the end of a row whose newest token is at l if c >= l.
            hidden = columns[None, None] >= torch.tensor(own, device=self.decoder.device)[:, None, None]
        return _Group(rows, slice(rows.start * heads, rows.stop * heads), shortest, longest, hidden)

    def step(self, tokens_B: Tensor) -> Tensor:
        """Append a token to each row. Returns the logits of the next token, ``[B, V]`` in float32."""
        decoder, shape = self.decoder, self.decoder.shape
        heads, kv_heads = shape.num_attention_heads, shape.num_key_value_heads
        half = shape.head_dim // 2
        angles = self.positions[:, None, None] * decoder._both
        cos, sin = angles.cos(), angles.sin().mul_(decoder._signs)
        x = F.embedding(tokens_B, decoder.embedding)
        for index, layer in enumerate(decoder.passes):
            x = decoder.begin_pass(index, x)
            qkv = decoder._queries_keys_values(x, layer)
            turning = qkv[:, : heads + kv_heads]
            turned = (turning * cos).add_(torch.roll(turning, half, -1) * sin).to(qkv.dtype)
            new = torch.cat((turned[:, heads:], qkv[:, heads + kv_heads :]), dim=1)
            vectors = self.cache.vectors[index]
            vectors.index_copy_(0, self._slots, new.view(-1, shape.head_dim).to(vectors.dtype))
            attended = self._attend(index, turned[:, :heads])
            add_product_(x, attended.to(x.dtype), layer.output)
            decoder._feed_forward(x, layer)
        self.positions += 1
        self._slots += 1
        self._steps += 1
        return decoder.logits(x)

    def _attend(self, index: int, q_BNH: Tensor) -> Tensor:
        """Attention of one query per row over its cached positions. The query heads of one key head form a small matrix."""
        cache, decoder = self.cache, self.decoder
        keys, values = cache.keys[index], cache.values[index]
        q = (q_BNH.to(keys.dtype) * decoder.scale).view(self.count * cache.heads, -1, q_BNH.shape[-1])
        out = torch.empty_like(q)
        for group in self._groups:
            longest = group.longest + self._steps + 1
            scores = torch.bmm(q[group.heads], keys[group.heads, :longest].transpose(1, 2))
            if group.hidden is not None:
                beyond = scores.view(len(group.hidden), -1, longest)[..., group.shortest + self._steps + 1 :]
                beyond.masked_fill_(group.hidden, -torch.inf)
            torch.bmm(scores.softmax(dim=-1), values[group.heads, :longest], out=out[group.heads])
        return out.view(self.count, -1)


def split_by_length(lengths: Sequence[int]) -> list[slice]:
    """Split rows into neighbouring groups that are read together, by halving until little is read in vain.

    Example:
        >>> split_by_length([9, 9, 8, 8])
        [slice(0, 4, None)]
        >>> split_by_length([90, 90, 8, 8])
        [slice(0, 2, None), slice(2, 4, None)]
    """

    def split(begin: int, end: int) -> list[slice]:
        own = lengths[begin:end]
        # A group costs three small operators per layer; below four rows that is more than it saves.
        if len(own) < 4 or max(own) * len(own) <= _WASTE * sum(own) + 16 * len(own):
            return [slice(begin, end)]
        middle = (begin + end) // 2
        return split(begin, middle) + split(middle, end)

    return split(0, len(lengths))


def _side_by_side(x: Tensor, matrices: tuple[Tensor, ...]) -> Tensor:
    """``x @ cat(matrices)``, whether the matrices are fused or not."""
    if len(matrices) == 1:
        return multiply(x, matrices[0])
    widths = [matrix.shape[1] for matrix in matrices]
    out = x.new_empty(x.shape[0], sum(widths))
    for part, matrix in zip(out.split(widths, dim=1), matrices, strict=True):
        multiply_into(part, x, matrix)
    return out
