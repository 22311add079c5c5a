"""Names of parameters."""

from __future__ import annotations

LORA_A, LORA_B = "lora_a", "lora_b"  # the two matrices of an adapter, beside the weight that they adapt
HEAD, _SCORE = "lm_head.weight", "score.weight"  # ours, and the one of ...ForSequenceClassification
PARTS = ("embedding", "head", "matrices", "vectors")  # of a model: matrices of the blocks, all norms and biases
_HF_NAMES = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}
_HF_LAYER_NAMES = {
    "attention.qkv_linear.wq.weight": "self_attn.q_proj.weight",
    "attention.qkv_linear.wk.weight": "self_attn.k_proj.weight",
    "attention.qkv_linear.wv.weight": "self_attn.v_proj.weight",
    "attention.qkv_linear.wq.bias": "self_attn.q_proj.bias",
    "attention.qkv_linear.wk.bias": "self_attn.k_proj.bias",
    "attention.qkv_linear.wv.bias": "self_attn.v_proj.bias",
    "attention.wo.weight": "self_attn.o_proj.weight",
    "attention.q_norm.weight": "self_attn.q_norm.weight",
    "attention.k_norm.weight": "self_attn.k_norm.weight",
    "feed_forward.w1.weight": "mlp.gate_proj.weight",
    "feed_forward.w2.weight": "mlp.down_proj.weight",
    "feed_forward.w3.weight": "mlp.up_proj.weight",
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}
_WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")


def clean_name(name: str) -> str:
    """A parameter's name without the prefixes of activation checkpointing and compilation."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def part_of(name: str, dimensions: int) -> str:
    """The part of the model, of `PARTS`, that a parameter belongs to."""
    if dimensions < 2:
        return "vectors"
    if "layers." in name:
        return "matrices"
    return "head" if "lm_head" in name else "embedding"


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter."""
    return name.endswith((f".{LORA_A}", f".{LORA_B}"))


def hf_name(name: str, score_head: bool = False) -> str:
    """Hugging Face's name of one of our parameters; the head of a model with a score head has another name.

    Example:
        >>> hf_name("layers.3.feed_forward.w2.weight")
        'model.layers.3.mlp.down_proj.weight'
    """
    if score_head and name == HEAD:
        return _SCORE
    if name in _HF_NAMES:
        return _HF_NAMES[name]
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{_HF_LAYER_NAMES[rest]}"
