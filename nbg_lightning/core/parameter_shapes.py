"""Names and shapes of a model's parameters, without building it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from nbg_lightning.core.config import LanguageModelConfig
from nbg_lightning.core.lora_config import TARGETS, LoRAConfig
from nbg_lightning.core.names import HEAD, LORA_A, LORA_B

Shapes = dict[str, tuple[int, ...]]


def parameter_shapes(shape: LanguageModelConfig) -> Shapes:
    """Name and shape of every parameter, in the model's order, without a tied head."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    layer: Shapes = {
        "attention.qkv_linear.wq.weight": (queries, hidden),
        "attention.qkv_linear.wk.weight": (keys, hidden),
        "attention.qkv_linear.wv.weight": (keys, hidden),
        "attention.wo.weight": (hidden, queries),
        "feed_forward.w1.weight": (inner, hidden),
        "feed_forward.w2.weight": (hidden, inner),
        "feed_forward.w3.weight": (inner, hidden),
        "attention_norm.weight": (hidden,),
        "ffn_norm.weight": (hidden,),
    }
    if shape.qk_norm:
        layer |= {"attention.q_norm.weight": (shape.head_dim,), "attention.k_norm.weight": (shape.head_dim,)}
    if shape.qkv_bias:
        layer |= {f"attention.qkv_linear.w{x}.bias": (queries if x == "q" else keys,) for x in "qkv"}
    shapes: Shapes = {"tok_embeddings.weight": (shape.vocab_size, hidden)}
    for index in range(shape.num_hidden_layers):
        shapes |= {f"layers.{index}.{name}": size for name, size in layer.items()}
    shapes["norm.weight"] = (hidden,)
    if not shape.tie_word_embeddings:
        shapes["lm_head.weight"] = (shape.head_rows, hidden)
    return shapes


def adapter_shapes(shape: LanguageModelConfig, lora: LoRAConfig) -> Shapes:
    """Name and shape of every parameter of an adapter, including a score head, which is trained with it."""
    base = parameter_shapes(shape)
    shapes: Shapes = {}
    for index in range(shape.num_hidden_layers):
        for place in (TARGETS[target] for target in lora.targets):
            name = f"layers.{index}.{place}"
            rows, columns = base[f"{name}.weight"]
            shapes |= {f"{name}.{LORA_A}": (lora.rank, columns), f"{name}.{LORA_B}": (rows, lora.rank)}
    return shapes | ({HEAD: base[HEAD]} if shape.score_head else {})


def check_shapes(found: Shapes, expected: Shapes, where: str) -> None:
    """Check that exactly the expected tensors exist, with their shapes.

    Raises:
        ValueError: naming the tensors that are missing, unexpected or of another shape.
    """
    problems = []
    if missing := [name for name in expected if name not in found]:
        problems.append(f"missing {some(missing)}")
    if unexpected := [name for name in found if name not in expected]:
        problems.append(f"unexpected {some(unexpected)}")
    if wrong := [name for name in expected if name in found and found[name] != expected[name]]:
        problems.append("other shape: " + some([f"{n} {list(found[n])} instead of {list(expected[n])}" for n in wrong]))
    if problems:
        raise ValueError(
            f"{where}: its tensors are not those of its config ({', '.join(problems)}); give the config.json that was "
            "saved with them"
        )


def groups_by_size(shapes: Shapes, bytes_per_element: int, max_bytes: int) -> Iterator[list[str]]:
    """Groups of neighbouring tensors of at most ``max_bytes`` together (a larger tensor is a group of its own)."""
    group: list[str] = []
    total = 0
    for name, size in shapes.items():
        num_bytes = torch.Size(size).numel() * bytes_per_element
        if group and total + num_bytes > max_bytes:
            yield group
            group, total = [], 0
        group.append(name)
        total += num_bytes
    if group:
        yield group


def some(names: Iterable[str], most: int = 4) -> str:
    """The first few names, and the number of the others."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
