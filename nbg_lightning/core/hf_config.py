"""Conversion between Hugging Face's ``config.json`` of Llama-family models and `LanguageModelConfig`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nbg_lightning.core.config import LanguageModelConfig, Llama3RopeScaling

# transformers' defaults for missing keys (its configuration classes, version 5.19). Old files rely on them.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"max_position_embeddings": 131_072, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"max_position_embeddings": 32_768, "num_key_value_heads": 32},
    "qwen3": {"max_position_embeddings": 32_768, "num_key_value_heads": 32, "head_dim": 128},
}
_DEFAULTS["nanbeige"] = _DEFAULTS["llama"]  # Llama under another name
_DEFAULT_THETA = 10_000.0
_DEFAULT_EPS = 1e-6
_REQUIRED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_READ = {  # keys read by this file; a value that the core does not support is refused
    *_REQUIRED, "model_type", "num_key_value_heads", "head_dim", "max_position_embeddings", "rope_theta", "rope_scaling",
    "rope_parameters", "partial_rotary_factor", "rms_norm_eps", "tie_word_embeddings", "initializer_range", "attention_bias",
    "mlp_bias", "hidden_act", "quantization_config", "sliding_window", "use_sliding_window", "layer_types", "factor",
    "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "num_loops",
}  # fmt: skip
_TYPES: dict[str, type] = {  # types of these keys, if present
    **dict.fromkeys(
        (*_REQUIRED, "num_key_value_heads", "head_dim", "max_position_embeddings", "sliding_window", "num_loops"), int
    ),
    **dict.fromkeys(("rope_theta", "partial_rotary_factor", "rms_norm_eps", "initializer_range"), float),
    **dict.fromkeys(("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window"), bool),
    **dict.fromkeys(("rope_scaling", "rope_parameters", "quantization_config"), dict),
    **dict.fromkeys(("model_type", "hidden_act"), str),
    "layer_types": list,
}
# Null has a meaning of its own for a window (none) and for numbers derived from others.
_NULL_IS_DEFAULT = ("max_position_embeddings", "rms_norm_eps", "initializer_range", "tie_word_embeddings")
_WITHOUT_EFFECT = {  # on the network's output: names, ids, and settings of storage, generation or parallelism
    "architectures", "auto_map", "transformers_version", "transformers.js_config", "dtype", "torch_dtype", "use_cache",
    "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id", "tokenizer_class", "name_or_path",
    "attention_dropout", "hidden_dropout", "embd_pdrop", "resid_pdrop", "dropout", "classifier_dropout", "pretraining_tp",
    "max_window_layers", "is_llama_config", "unsloth_fixed", "unsloth_version", "model_name", "use_flash_attn",
    "chunk_size_feed_forward", "id2label", "label2id", "num_labels", "problem_type", "task_specific_params", "return_dict",
    "output_attentions", "output_hidden_states", "output_scores", "torchscript", "is_decoder", "is_encoder_decoder",
    "temperature", "top_k", "top_p", "typical_p", "do_sample", "num_beams", "num_beam_groups", "num_return_sequences",
    "max_length", "min_length", "max_new_tokens", "length_penalty", "repetition_penalty", "diversity_penalty",
    "encoder_no_repeat_ngram_size", "no_repeat_ngram_size", "early_stopping", "remove_invalid_values", "license", "language",
}  # fmt: skip
_ROPE_READ = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}  # besides llama3's settings
_ONE_IS_NEUTRAL = ("_multiplier", "_scaling", "_scale", "_factor")  # endings of keys for which 1 is neutral
_SCORES = "ForSequenceClassification"  # ending of the architectures whose head scores a text
_LOOPED = "nanbeige"  # the model_type whose blocks may run several times
_SUPPORTED = "llama, mistral without sliding window, qwen2, qwen3, nanbeige"


def parse_hf_config(config: Mapping[str, Any]) -> LanguageModelConfig:
    """The model shape described by a ``config.json``.

    Reads RoPE settings in both forms: ``rope_parameters`` (transformers 5), and ``rope_theta`` with ``rope_scaling`` (before).

    Args:
        config: the file's content.

    Raises:
        ValueError: a setting that the core does not support exactly, named by its key: another architecture, biases, an active
            sliding window, another rope type, partial rotary embeddings, another activation, quantized weights, or any unknown
            key that may change the network (``logits_scaling: 8``).

    Example:
        >>> sizes = dict(vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=2)
        >>> parse_hf_config(dict(model_type="llama", num_attention_heads=4, **sizes)).head_dim
        32
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _DEFAULTS:
        raise ValueError(f"config.json: model_type {kind!r} is not supported; supported: {_SUPPORTED}")
    missing = [key for key in _REQUIRED if not _is(config.get(key), int)]
    if missing:
        raise ValueError(
            f"config.json: {', '.join(missing)} missing, so that it describes no language model; give the folder of one"
        )
    _refuse_other_types(config)
    _refuse_unread(config)
    config = {
        **_DEFAULTS[kind],
        **{key: value for key, value in config.items() if key not in _NULL_IS_DEFAULT or value is not None},
    }
    _refuse_unsupported(config, kind)
    heads, hidden_size = config["num_attention_heads"], config["hidden_size"]
    theta, scaling = _rope(config)
    score_head = _has_score_head(config)
    return LanguageModelConfig(
        vocab_size=config["vocab_size"],
        hidden_size=hidden_size,
        intermediate_size=config["intermediate_size"],
        num_hidden_layers=config["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=_first(config.get("num_key_value_heads"), heads),
        head_dim=_first(config.get("head_dim"), hidden_size // heads),
        max_position_embeddings=config["max_position_embeddings"],
        rope_theta=theta,
        rope_scaling=scaling,
        rms_norm_eps=config.get("rms_norm_eps", _DEFAULT_EPS),
        tie_word_embeddings=config.get("tie_word_embeddings", False) and not score_head,
        qk_norm=kind == "qwen3",
        qkv_bias=kind == "qwen2",
        num_loops=config.get("num_loops") or 1,
        initializer_range=config.get("initializer_range", 0.02),
        score_head=score_head,
    )


def _first(*values: Any) -> Any:
    """The first value that is not null; 0 is kept, so that later checks refuse it where it is invalid."""
    return next(value for value in values if value is not None)


def _has_score_head(config: Mapping[str, Any]) -> bool:
    """Whether the network has a score head; a classifier with several labels is refused."""
    architectures = config.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    if not any(isinstance(name, str) and name.endswith(_SCORES) for name in names):
        return False
    labels = config.get("num_labels", len(config.get("id2label") or (0, 1)))  # transformers' default is two
    if labels != 1:
        raise ValueError(
            f"config.json: num_labels {labels!r:.40} is not supported; supported: one, in reward models (id2label of one entry)"
        )
    return True


def _is(value: Any, kind: type) -> bool:
    """Whether a JSON value has a type; `float` accepts all numbers, and a bool is not a number."""
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _refuse_other_types(config: Mapping[str, Any]) -> None:
    """Refuse values of the wrong type: they would fail later, or be misread (``"false"`` as true)."""
    for key, kind in _TYPES.items():
        value = config.get(key)
        if value is not None and not _is(value, kind):
            raise ValueError(f"config.json: {key} is invalid: {value!r:.40}; it must be of type {kind.__name__}")


def _refuse_unread(config: Mapping[str, Any]) -> None:
    """Refuse unknown keys that may change the network: ignoring them would silently train a different one."""
    unread = []
    for key, value in config.items():
        inert = value is None or (isinstance(value, (bool, int, float, str, list, dict)) and not value)
        neutral = not isinstance(value, bool) and value == 1 and key.endswith(_ONE_IS_NEUTRAL)
        if not (key in _READ or key in _WITHOUT_EFFECT or key.startswith("_") or inert or neutral):
            unread.append(f"{key}={value!r:.40}")
    if unread:
        raise ValueError(
            f"config.json: {', '.join(unread[:5])} may change the network, and this core does not compute it; supported: "
            f"{_SUPPORTED}. If it has no effect, take it out of config.json"
        )


def _refuse_unsupported(config: Mapping[str, Any], kind: str) -> None:
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise ValueError(
                f"config.json: {key} is true, which is not supported; supported: biases of qwen2, in q, k and v"
            )
    loops = config.get("num_loops")
    if loops is not None and (loops < 0 or (loops > 1 and kind != _LOOPED)):
        raise ValueError(
            f"config.json: num_loops {loops} is not supported for {kind}; supported: 1 (1 or more for {_LOOPED})"
        )
    if config["num_attention_heads"] < 1:
        raise ValueError(
            f"config.json: num_attention_heads is invalid: {config['num_attention_heads']}; it must be positive"
        )
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"config.json: hidden_act {config['hidden_act']!r} is not supported; supported: silu (SwiGLU)")
    if config.get("quantization_config"):
        raise ValueError(
            "config.json: quantization_config is set, but only unquantized weights are supported; take the model it was made from"
        )
    window = config.get("sliding_window")
    has_window = kind == "mistral" or (kind in ("qwen2", "qwen3") and config.get("use_sliding_window", False))
    if has_window and window is not None and window < config["max_position_embeddings"]:
        raise ValueError(f"config.json: sliding_window {window} is not supported; supported: full attention")
    other_layers = sorted({str(layer) for layer in config.get("layer_types") or []} - {"full_attention"})
    if other_layers:
        raise ValueError(f"config.json: layer_types has {', '.join(other_layers)}; supported: full_attention only")


def _rope(config: Mapping[str, Any]) -> tuple[float, Llama3RopeScaling | None]:
    """RoPE base and scaling."""
    # In transformers 5 an old-style rope_scaling takes precedence over rope_parameters; so it does here.
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    rope = config.get(key) or {}
    if any(isinstance(value, Mapping) for value in rope.values()):
        raise ValueError(f"config.json: {key} differs between layers; supported: one setting for all layers")
    for name in ("rope_theta", "partial_rotary_factor"):
        if rope.get(name) is not None and not _is(rope[name], float):
            raise ValueError(f"config.json: {name} of {key} is invalid: {rope[name]!r:.40}; it must be a number")
    partial = _first(rope.get("partial_rotary_factor"), config.get("partial_rotary_factor"), 1.0)
    if partial != 1.0:
        raise ValueError(f"config.json: partial_rotary_factor {partial} is not supported; supported: 1.0")
    theta = float(_first(rope.get("rope_theta"), config.get("rope_theta"), _DEFAULT_THETA))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise ValueError(f"config.json: {key} has rope_type {kind!r:.40}; supported: default, llama3")
    names = [field.name for field in dataclasses.fields(Llama3RopeScaling)]
    rope = {**rope, **{name: config[name] for name in names if name in config}}  # as in transformers, the outer wins
    read = _ROPE_READ | (set(names) if kind == "llama3" else set())
    if unread := [f"{name}={rope[name]!r:.40}" for name in rope if name not in read and rope[name] is not None]:
        raise ValueError(
            f"config.json: {', '.join(unread[:5])} of {key} has no effect with rope_type {kind}, and would be dropped; set the "
            "rope_type that it belongs to (supported: default, llama3), or take it out"
        )
    if kind == "default":
        return theta, None
    missing = [name for name in names if name not in rope]
    if missing:
        raise ValueError(
            f"config.json: {key} of rope_type llama3 lacks {', '.join(missing)}; add what it lacks, from the model's page"
        )
    return theta, Llama3RopeScaling(**{name: rope[name] for name in names})


def make_hf_config(
    shape: LanguageModelConfig,
    dtype: str = "float32",
    bos_token_id: int | None = None,
    eos_token_id: int | list[int] | None = None,
    pad_token_id: int | None = None,
) -> dict[str, Any]:
    """A ``config.json`` for transformers: `LlamaForCausalLM`; `Qwen3ForCausalLM` with QK-norm, `Qwen2ForCausalLM` with biases.

    With loops it is ``nanbeige``, whose modelling code is on the hub and not part of transformers.

    The RoPE settings are written in both forms, transformers 5's and the older one: a reader that knows only the old form would
    silently use a base of 10,000.

    Args:
        shape: the model.
        dtype: dtype of the weights in the folder.
        bos_token_id: the tokenizer's id, if it has one.
        eos_token_id: one id, or all that end a text.
        pad_token_id: as ``bos_token_id``.
    """
    rope: dict[str, Any] = {"rope_type": "default"}
    if shape.rope_scaling is not None:
        rope = {"rope_type": "llama3", **dataclasses.asdict(shape.rope_scaling)}
    kind, architecture = "llama", "LlamaForCausalLM"
    if shape.qk_norm or shape.qkv_bias:
        kind, architecture = ("qwen3", "Qwen3ForCausalLM") if shape.qk_norm else ("qwen2", "Qwen2ForCausalLM")
    if shape.num_loops > 1:
        kind, architecture = _LOOPED, "NanbeigeForCausalLM"
    if shape.score_head:
        architecture = architecture.removesuffix("ForCausalLM") + _SCORES
    config: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": kind,
        "dtype": dtype,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_position_embeddings,
        "initializer_range": shape.initializer_range,
        "rms_norm_eps": shape.rms_norm_eps,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rope_parameters": {**rope, "rope_theta": shape.rope_theta},
        "rope_theta": shape.rope_theta,
        "rope_scaling": None if shape.rope_scaling is None else rope,
        "use_cache": True,
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_id,
        "pad_token_id": pad_token_id,
    }
    if shape.score_head:
        config |= {"num_labels": 1, "id2label": {"0": "score"}, "label2id": {"score": 0}}
    if kind == _LOOPED:
        return config | {"mlp_bias": False, "num_loops": shape.num_loops}
    own = {"mlp_bias": False} if kind == "llama" else {"use_sliding_window": False, "sliding_window": None}
    return config | own
