"""Shapes, presets, and counts of parameters and operations."""

import pytest

from nbg_lightning.core.config import PRESETS, LanguageModelConfig, preset
from nbg_lightning.core.create import create_model
from nbg_lightning.core.hf_config import parse_hf_config


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("changes", [{}, {"qk_norm": True}, {"qkv_bias": True}])
def test_number_of_parameters_is_the_real_models(tied, changes):
    shape = preset("nano", tie_word_embeddings=tied, **changes)
    model = create_model(shape)
    assert sum(parameter.numel() for parameter in model.parameters()) == shape.num_parameters


@pytest.mark.parametrize(
    ("name", "billions"), [("nanbeige4-3b", 3.934), ("nanbeige4-1b", 1.09), ("smollm2-135m", 0.1345)]
)
def test_presets_have_the_stated_size(name, billions):
    assert preset(name).num_parameters / 1e9 == pytest.approx(billions, abs=0.005)


@pytest.mark.parametrize(
    ("name", "parameters"),  # as the model cards and transformers count them, each tied matrix once
    [
        ("smollm2-360m", 361_821_120),
        ("smollm2-1.7b", 1_711_376_384),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("qwen2.5-3b", 3_085_938_688),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen2.5-14b", 14_770_033_664),
        ("qwen3-0.6b", 596_049_920),
        ("qwen3-1.7b", 1_720_574_976),
        ("qwen3-4b", 4_022_468_096),
        ("llama3.2-1b", 1_235_814_400),
        ("llama3.2-3b", 3_212_749_824),
    ],
)
def test_presets_of_other_models_have_their_parameters(name, parameters):
    assert preset(name).num_parameters == parameters


# What the base models' config.json say of positions and norms, which no count of parameters sees.
_SMOLLM2 = {"model_type": "llama", "rms_norm_eps": 1e-5, "max_position_embeddings": 8192}
_QWEN3 = {"model_type": "qwen3", "rms_norm_eps": 1e-6, "max_position_embeddings": 32_768, "rope_theta": 1_000_000}
_LLAMA3 = {
    "model_type": "llama",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131_072,
    "rope_theta": 500_000.0,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("smollm2-135m", {**_SMOLLM2, "rope_theta": 100_000}),
        ("smollm2-360m", {**_SMOLLM2, "rope_theta": 100_000}),
        ("smollm2-1.7b", {**_SMOLLM2, "rope_theta": 130_000}),
        *[(name, _QWEN3) for name in ("qwen3-0.6b", "qwen3-1.7b", "qwen3-4b")],
        *[(name, _LLAMA3) for name in ("llama3.2-1b", "llama3.2-3b")],
    ],
)
def test_presets_have_the_positions_and_norms_of_their_models(name, published):
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    given = {key: getattr(preset(name), key) for key in (*sizes, "num_key_value_heads", "head_dim")}
    read = parse_hf_config({**given, **published, "hidden_act": "silu", "tie_word_embeddings": True})
    assert read == preset(name)


def test_every_preset_builds():
    for name in PRESETS:
        assert preset(name).head_dim % 2 == 0


def test_flops_by_hand():
    """One layer, written out: 2 operations a multiplication, and the backward is twice the forward."""
    shape = LanguageModelConfig(
        vocab_size=10,
        hidden_size=4,
        intermediate_size=6,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=2,
    )
    queries, keys_and_values, output = 4 * 4, 2 * 4 * 2, 4 * 4
    feed_forward, head = 3 * 4 * 6, 4 * 10
    weights = queries + keys_and_values + output + feed_forward + head
    length = 8
    # A token reads half of the keys on average: scores and mix, 2 operations a product, 4 wide (2 heads of 2).
    attention = 2 * 2 * (length / 2) * 4
    assert shape.flops_per_token(length) == 3 * (2 * weights + attention)


def test_tied_embeddings_still_multiply_in_the_head():
    tied, untied = (preset("nano", tie_word_embeddings=each).flops_per_token(64) for each in (True, False))
    assert tied == untied


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_key_value_heads": 3, "num_attention_heads": 4}, "must divide num_attention_heads=4"),
        ({"qk_norm": True, "qkv_bias": True}, "qkv_bias=True is invalid with qk_norm=True"),
        ({"head_dim": 7}, "head_dim is invalid: 7; give an even number"),
        ({"hidden_size": 0}, "hidden_size is invalid: 0; give a number above 0"),
        ({"rope_theta": -1.0}, "rope_theta is invalid: -1.0"),
    ],
)
def test_impossible_shapes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        preset("nano", **changes)


def test_unknown_preset_names_the_known():
    with pytest.raises(ValueError, match="there is no preset 'nanno'; choose one of nanbeige4-3b"):
        preset("nanno")
