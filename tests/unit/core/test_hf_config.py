"""Conversion of config.json to a shape and back."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from transformers import AutoConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from nbg_lightning.core.config import PRESETS, LanguageModelConfig, Llama3RopeScaling, preset
from nbg_lightning.core.hf_config import make_hf_config, parse_hf_config

SIZES = dict(vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4)
LLAMA3 = dict(
    rope_type="llama3",
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=2.0,
    original_max_position_embeddings=64,
)
# The file as published with SmolLM2-135M, without what has no effect on the model.
SMOLLM2 = json.loads("""{
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 0,
  "eos_token_id": 0, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
  "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192, "mlp_bias": false,
  "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
  "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null,
  "rope_theta": 100000, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true,
  "vocab_size": 49152}""")


def llama(**keys: object) -> dict[str, object]:
    return {"model_type": "llama", **SIZES, **keys}


def test_smollm2_is_our_preset() -> None:
    shape = parse_hf_config(SMOLLM2)
    assert dataclasses.replace(shape, initializer_range=0.02) == preset("smollm2-135m")
    assert shape.num_parameters == 134_515_008


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("changes", [{}, {"qk_norm": True}, {"rope_scaling": Llama3RopeScaling(4.0, 1.0, 2.0, 64)}])
def test_there_and_back(name: str, changes: dict) -> None:
    shape = preset(name, **changes, **({"qkv_bias": False} if changes.get("qk_norm") else {}))
    assert parse_hf_config(json.loads(json.dumps(make_hf_config(shape)))) == shape


FAMILIES = [({}, "Llama"), ({"qk_norm": True}, "Qwen3"), ({"qkv_bias": True}, "Qwen2")]


@pytest.mark.parametrize(("changes", "family"), FAMILIES)
@pytest.mark.parametrize("scaling", [None, Llama3RopeScaling(4.0, 1.0, 2.0, 64)])
def test_transformers_reads_what_we_write(tmp_path, changes, family, scaling: Llama3RopeScaling | None) -> None:
    shape = preset("nano", **changes, rope_scaling=scaling, rope_theta=5e5)
    written = make_hf_config(shape, "bfloat16", bos_token_id=1, eos_token_id=[2, 7], pad_token_id=0)
    (tmp_path / "config.json").write_text(json.dumps(written))
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.architectures == [f"{family}ForCausalLM"]
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, [2, 7], 0)
    assert str(config.dtype) == "torch.bfloat16"
    assert config.rope_parameters["rope_theta"] == 5e5
    assert config.rope_parameters["rope_type"] == ("default" if scaling is None else "llama3")
    assert parse_hf_config(config.to_dict()) == shape


@pytest.mark.parametrize("kind", [LlamaConfig, Qwen2Config, Qwen3Config])
def test_defaults_are_those_of_transformers(kind: type) -> None:
    sizes = {**SIZES, "num_attention_heads": 32}
    assert parse_hf_config({"model_type": kind.model_type, **sizes}) == parse_hf_config(kind(**sizes).to_dict())


def test_old_and_new_rope_keys_agree() -> None:
    old = parse_hf_config(llama(rope_theta=7e4, rope_scaling=LLAMA3))
    new = parse_hf_config(llama(rope_parameters={**LLAMA3, "rope_theta": 7e4}))
    older = parse_hf_config(llama(rope_theta=7e4, rope_scaling={**LLAMA3, "type": "llama3", "rope_type": "llama3"}))
    assert old == new == older
    assert old.rope_theta == 7e4
    assert old.rope_scaling == Llama3RopeScaling(4.0, 1.0, 2.0, 64)


def test_head_dim_and_key_value_heads_have_defaults() -> None:
    shape = parse_hf_config(llama(head_dim=None, num_key_value_heads=None))
    assert (shape.head_dim, shape.num_key_value_heads) == (32, 4)
    assert parse_hf_config(llama(head_dim=64)).head_dim == 64
    assert parse_hf_config({"model_type": "qwen3", **SIZES, "num_key_value_heads": 2}).head_dim == 128


def test_qwen3_has_qk_norm_and_nanbeige_is_a_llama() -> None:
    assert parse_hf_config({"model_type": "qwen3", **SIZES, "num_key_value_heads": 2}).qk_norm
    assert parse_hf_config({"model_type": "nanbeige", **SIZES}) == parse_hf_config(llama())


def test_mistral_without_a_window_is_a_llama() -> None:
    config = MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=None)
    assert isinstance(parse_hf_config(config.to_dict()), LanguageModelConfig)
    # A window as long as the context hides nothing.
    parse_hf_config({"model_type": "mistral", **SIZES, "num_key_value_heads": 2, "max_position_embeddings": 4096})


def test_null_is_the_default() -> None:
    nothing = dict.fromkeys(("rms_norm_eps", "tie_word_embeddings", "initializer_range", "max_position_embeddings"))
    assert parse_hf_config(llama(**nothing)) == parse_hf_config(llama())


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({**SIZES, "model_type": "gpt2"}, "model_type 'gpt2'"),
        (SIZES, "model_type None"),
        ({"model_type": "llama", **SIZES, "vocab_size": None}, "vocab_size missing"),
        (llama(attention_bias=True), "attention_bias"),
        (llama(mlp_bias=True), "mlp_bias"),
        (llama(hidden_act="gelu"), "hidden_act"),
        (llama(quantization_config={"bits": 4}), "quantization_config"),
        (llama(partial_rotary_factor=0.5), "partial_rotary_factor"),
        (llama(rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (llama(rope_scaling={"type": "linear", "factor": 2.0}), "rope_scaling has rope_type 'linear'"),
        (llama(rope_parameters={"rope_type": "yarn", "factor": 2.0}), "rope_parameters has rope_type 'yarn'"),
        (llama(rope_scaling={"rope_type": "llama3", "factor": 2.0}), "lacks low_freq_factor"),
        (llama(rope_parameters={"full_attention": {"rope_theta": 1e4}}), "differs between layers"),
        (llama(layer_types=["full_attention", "sliding_attention"]), "layer_types has sliding_attention"),
        ({**SIZES, "model_type": "mistral"}, "sliding_window 4096"),
        (
            {**SIZES, "model_type": "qwen3", "use_sliding_window": True, "sliding_window": 128},
            "sliding_window 128",
        ),
        (
            {
                **SIZES,
                "model_type": "qwen2",
                "use_sliding_window": True,
                "sliding_window": 64,
                "num_key_value_heads": 2,
            },
            "sliding_window 64",
        ),
        ({**SIZES, "model_type": "qwen2", "num_key_value_heads": 2, "attention_bias": True}, "attention_bias"),
        (llama(num_key_value_heads=3), "num_key_value_heads is invalid: 3"),
        (llama(num_hidden_layers=10**9), "num_hidden_layers is invalid: 1,000,000,000; give at most 10,000"),
        (llama(num_hidden_layers=True), "num_hidden_layers missing"),
        (llama(num_attention_heads=0), "num_attention_heads is invalid: 0"),
        (llama(vocab_size=10**18), "vocab_size is invalid: 1000000000000000000; it must be below"),
        (llama(head_dim="64"), "head_dim is invalid: '64'"),
        (llama(head_dim=64.5), "head_dim is invalid"),
        (llama(num_key_value_heads="2"), "num_key_value_heads is invalid"),
        (llama(max_position_embeddings="4096"), "max_position_embeddings is invalid"),
        (llama(rms_norm_eps="1e-5"), "rms_norm_eps is invalid"),
        (llama(rms_norm_eps=math.nan), "rms_norm_eps is invalid: nan; give a number above 0"),
        (llama(rope_theta=[1]), "rope_theta is invalid"),
        (llama(rope_theta=-1), "rope_theta is invalid: -1"),
        (llama(rope_parameters="x"), "rope_parameters is invalid"),
        (llama(rope_parameters={"rope_theta": "1e4"}), "rope_theta of rope_parameters is invalid"),
        (llama(rope_parameters={"rope_theta": math.inf}), "rope_theta is invalid: inf; it must be finite"),
        (llama(rope_scaling={**LLAMA3, "factor": "8"}), "factor is invalid: '8'"),
        (llama(rope_scaling={**LLAMA3, "factor": 0}), "factor is invalid: 0"),
        (llama(rope_scaling={"factor": 2.0}), "factor=2.0 of rope_scaling has no effect with rope_type default"),
        (llama(rope_scaling={"type": "default", "mrope_section": [1, 2]}), "mrope_section=.* has no effect"),
        (llama(rope_scaling={**LLAMA3, "attention_factor": 1.2}), "attention_factor=1.2 .* with rope_type llama3"),
        (llama(original_max_position_embeddings=4096), "original_max_position_embeddings=4096 .* has no effect"),
        (llama(rope_theta=0), "rope_theta is invalid: 0"),
        (llama(partial_rotary_factor=0), "partial_rotary_factor 0"),
        (llama(num_key_value_heads=0), "num_key_value_heads is invalid: 0"),
        (llama(head_dim=0), "head_dim is invalid: 0"),
        (llama(tie_word_embeddings="false"), "tie_word_embeddings is invalid: 'false'"),
        (llama(tie_word_embeddings=1), "tie_word_embeddings is invalid: 1"),
        (llama(attention_bias="false"), "attention_bias is invalid"),
        (llama(initializer_range="x"), "initializer_range is invalid"),
        (llama(hidden_act=["silu"]), "hidden_act is invalid"),
        (llama(layer_types=5), "layer_types is invalid"),
        (llama(layer_types=[["a"]]), "layer_types has"),
        ({**SIZES, "model_type": ["llama"]}, "model_type"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_its_key(config: dict, key: str) -> None:
    with pytest.raises(ValueError, match=key) as error:
        parse_hf_config(config)
    assert "\n" not in str(error.value)


LLAMA = dict(
    model_type="llama",
    vocab_size=512,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("logits_scaling", 8.0),
        ("residual_multiplier", 0.22),
        ("embedding_multiplier", 12),
        ("attention_multiplier", 0.0078125),
        ("final_logit_softcapping", 30.0),
        ("num_experts", 8),
        ("rope_interleaved", True),
        ("no_rope_layers", [3]),
        ("query_pre_attn_scalar", 256),
        ("attn_output_gate", True),
        ("num_nextn_predict_layers", 1),
    ],
)
def test_a_key_that_may_change_the_network_and_is_not_read_is_refused(key, value):
    with pytest.raises(ValueError, match=f"{key}=.* may change the network"):
        parse_hf_config({**LLAMA, key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_loops", 1),
        ("logits_scaling", 1.0),
        ("rope_interleaved", False),
        ("anything", None),
        ("lists", []),
        ("_attn_implementation", "sdpa"),
        ("torch_dtype", "bfloat16"),
        ("is_llama_config", True),
        ("transformers.js_config", {"dtype": "q4"}),
        ("top_k", 50),
    ],
)
def test_keys_without_effect_are_let_pass(key, value):
    assert parse_hf_config({**LLAMA, key: value}) == parse_hf_config(LLAMA)


@pytest.mark.parametrize("kind", ["LlamaConfig", "MistralConfig", "Qwen2Config", "Qwen3Config"])
def test_all_that_transformers_writes_by_itself_is_known(kind):
    import transformers

    sizes = {key: value for key, value in LLAMA.items() if key != "model_type"}
    given = getattr(transformers, kind)(**sizes, num_key_value_heads=4, sliding_window=None)
    assert parse_hf_config(given.to_dict()).hidden_size == 128
