"""Weights to and from transformers: the same bits, the same logits; bad files are refused by name."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from nbg_lightning import log
from nbg_lightning.core import Llama3RopeScaling, create_model, preset
from nbg_lightning.core.hf_folder import compare, save_hugging_face
from nbg_lightning.core.parameter_shapes import groups_by_size, parameter_shapes
from nbg_lightning.core.weight_sources import HuggingFaceFolder, LiveWeights, hf_name
from nbg_lightning.core.weights import load_base_weights, open_weights, read_shape

SIZES = dict(
    vocab_size=256,
    hidden_size=96,
    intermediate_size=160,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
)
LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
    rope_theta=5e5,
)
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "llama-tied": LlamaConfig(**SIZES, tie_word_embeddings=True, head_dim=32, rms_norm_eps=1e-5),
    "llama3-scaling": LlamaConfig(**SIZES, rope_parameters=LLAMA3, max_position_embeddings=256),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "qwen3": Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SIZES),
    "qwen2-tied": Qwen2Config(**SIZES, tie_word_embeddings=True, rope_parameters={"rope_theta": 1e6}),
    "smollm2": LlamaConfig(
        vocab_size=256,
        hidden_size=144,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=9,
        num_key_value_heads=3,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    ),
}


def reference(config: PretrainedConfig) -> torch.nn.Module:
    """A transformers model whose every tensor, norms too, is random."""
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.1 * noise if parameter.ndim > 1 else 1 + 0.3 * noise)
    return model.eval()


def random_model(seed: int = 0, **changes):
    model = create_model(preset("nano", **changes), seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An untied Llama of transformers' own making."""
    reference(CONFIGS["llama"]).save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("max_shard_size", ["5GB", "150KB"])
def test_transformers_model_loads_with_equal_logits(tmp_path: Path, name: str, max_shard_size: str) -> None:
    theirs = reference(CONFIGS[name])
    theirs.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (max_shard_size == "150KB")
    model = create_model(read_shape(tmp_path))
    load_base_weights(model, tmp_path)
    tokens = torch.randint(256, (2, 200), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), theirs(tokens).logits)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False},
        {"qk_norm": True, "rope_theta": 1e6},
        {"qkv_bias": True, "tie_word_embeddings": False},
        {"rope_scaling": Llama3RopeScaling(8.0, 1.0, 4.0, 32)},
    ],
)
@pytest.mark.parametrize("max_shard_size", [10**9, 300_000])
def test_export_and_import_give_the_same_bits(tmp_path: Path, changes: dict, max_shard_size: int) -> None:
    model = random_model(**changes)
    comparison = save_hugging_face(model, tmp_path / "out", dtype="float32", max_shard_size=max_shard_size)
    assert comparison.difference <= 1e-5
    assert comparison.rounding == 0
    files = list((tmp_path / "out").glob("*.safetensors"))
    assert (len(files) == 1) == (max_shard_size == 10**9)
    back = create_model(read_shape(tmp_path / "out"), seed=5)
    load_base_weights(back, tmp_path / "out")
    assert back.shape == model.shape
    for (name, parameter), other in zip(back.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(parameter, other), name

    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    prompt = torch.tensor([[5, 17, 3]])
    continued = theirs.generate(prompt, max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0)
    ours = prompt
    for _ in range(20):
        with torch.no_grad():
            ours = torch.cat((ours, back(ours)[:, -1:].argmax(-1)), dim=1)
    assert continued.tolist() == ours.tolist()


def test_bfloat16_rounds_to_nearest_and_says_what_it_changed(tmp_path: Path) -> None:
    model = random_model()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    comparison = save_hugging_face(model, tmp_path / "out")
    assert comparison.difference <= 1e-5 < comparison.rounding < 0.1
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])  # the masters are untouched
        saved = tensors[hf_name("tok_embeddings.weight" if name == "lm_head.weight" else name)]
        assert torch.equal(saved, parameter.bfloat16())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert HuggingFaceFolder(tmp_path / "out").dtype == "bfloat16"


def test_rope_base_in_use_is_exported(tmp_path: Path) -> None:
    model = random_model()
    model.rope_theta = 3e5  # as a long-context stage does
    save_hugging_face(model, tmp_path / "out", dtype="float32")
    assert read_shape(tmp_path / "out").rope_theta == 3e5


def test_parameter_shapes_are_those_of_the_model() -> None:
    for changes in ({}, {"tie_word_embeddings": False}, {"qk_norm": True}):
        model = create_model(preset("nano", **changes))
        built = {n: tuple(p.shape) for n, p in model.named_parameters()}
        assert parameter_shapes(model.shape) == built


def test_groups_fit_and_keep_the_order() -> None:
    sizes = {"a": (3,), "b": (4,), "c": (20,), "d": (1,), "e": (1,)}
    assert list(groups_by_size(sizes, 4, 28)) == [["a", "b"], ["c"], ["d", "e"]]


# -- a folder that is not what it says --------------------------------------------------------------------------------


def edit(folder: Path, **keys: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **keys}))


def edit_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def refuses(folder: Path, words: str, kind: type[Exception] = ValueError) -> None:
    with pytest.raises(kind, match=words) as error:
        open_weights(folder)
    assert "\n" not in str(error.value)


def test_tied_config_accepts_an_equal_head_in_the_file(tmp_path: Path) -> None:
    reference(CONFIGS["llama-tied"]).save_pretrained(tmp_path)
    edit_tensors(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    weights = open_weights(tmp_path)
    assert compare(weights, tmp_path).difference <= 1e-5


def test_tied_config_refuses_another_head_in_the_file(tmp_path: Path) -> None:
    reference(CONFIGS["llama-tied"]).save_pretrained(tmp_path)
    edit_tensors(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1}))
    refuses(tmp_path, "lm_head.weight is not model.embed_tokens.weight")


def test_untied_config_without_a_head_is_refused(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.pop("lm_head.weight"))
    refuses(folder, "missing lm_head.weight")


def test_missing_unexpected_and_misshapen_tensors_are_named(folder: Path) -> None:
    def change(tensors: dict) -> None:
        tensors["model.layers.1.mlp.up_proj.bias"] = tensors.pop("model.layers.1.mlp.up_proj.weight")
        tensors["model.norm.weight"] = torch.ones(7)

    edit_tensors(folder, change)
    refuses(folder, r"missing model.layers.1.mlp.up_proj.weight, unexpected .*up_proj.bias, other shape: model.norm")


def test_rotary_tables_of_old_files_are_ignored(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(12)}))
    open_weights(folder)


def test_quantized_tensors_are_refused(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.update({"model.norm.weight": t["model.norm.weight"].to(torch.int8)}))
    refuses(folder, "model.norm.weight is I8")


def test_truncated_file_is_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    refuses(folder, "model.safetensors is cut short")
    file.write_bytes(b"")
    refuses(folder, "model.safetensors is cut short")


def test_index_without_its_files_or_against_them(tmp_path: Path) -> None:
    reference(CONFIGS["llama"]).save_pretrained(tmp_path, max_shard_size="150KB")
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    less = {k: v for k, v in content["weight_map"].items() if k != "model.norm.weight"}
    index.write_text(json.dumps({"weight_map": less}))
    refuses(tmp_path, "disagree on model.norm.weight")
    index.write_text(json.dumps(content))
    first = sorted(tmp_path.glob("*.safetensors"))[0]
    first.unlink()
    refuses(tmp_path, f"no {first.name}", FileNotFoundError)
    index.write_text("{")
    refuses(tmp_path, "is not JSON")


@pytest.mark.parametrize("name", ["/etc/passwd", "../other/model.safetensors", "sub/model.safetensors", 3, None])
def test_an_index_names_files_of_its_folder_only(tmp_path: Path, name: object) -> None:
    reference(CONFIGS["llama"]).save_pretrained(tmp_path, max_shard_size="150KB")
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.norm.weight"] = name
    index.write_text(json.dumps(content))
    refuses(tmp_path, "outside the folder; do not use files of this origin")


def test_an_index_says_where_each_tensor_is(tmp_path: Path) -> None:
    reference(CONFIGS["llama"]).save_pretrained(tmp_path, max_shard_size="150KB")
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    files = sorted(set(content["weight_map"].values()))
    other = next(file for file in files if file != content["weight_map"]["model.norm.weight"])
    swapped = {**content["weight_map"], "model.norm.weight": other}
    index.write_text(json.dumps({"weight_map": swapped}))
    refuses(tmp_path, "disagree on model.norm.weight")
    index.write_text(json.dumps(content))
    save_file(load_file(tmp_path / other) | {"model.norm.weight": torch.ones(96)}, tmp_path / other)
    refuses(tmp_path, "has model.norm.weight, which")


def test_other_files_and_places_are_refused(folder: Path, tmp_path: Path) -> None:
    refuses(folder / "config.json", "is a file")
    refuses(tmp_path / "none", "does not exist", FileNotFoundError)
    (tmp_path / "empty").mkdir()
    refuses(tmp_path / "empty", "neither a Hugging Face model nor a checkpoint")
    (tmp_path / "empty" / "meta.pt").touch()
    refuses(tmp_path / "empty", "not a complete checkpoint")
    shutil.move(folder / "model.safetensors", folder / "pytorch_model.bin")
    refuses(folder, "pytorch_model.bin is pickled by torch", FileNotFoundError)
    edit(folder, attention_bias=True)
    refuses(folder, "attention_bias")
    with pytest.raises(ValueError, match="averaged weights"):
        open_weights(folder, ema=True)


def test_hub_name_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(name: str, **_: object) -> str:
        raise OSError(f"no network for {name}\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        FileNotFoundError, match=r"neither a folder nor a model .*no network for some/model\); check the name"
    ):
        open_weights("some/model")


def test_hub_name_is_fetched_once_the_config_alone_for_its_shape(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []

    def fetch(name: str, allow_patterns: list[str], ignore_patterns: list[str], local_files_only: bool) -> str:
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert read_shape("some/model") == open_weights("some/model").shape
    assert asked[0] == ("some/model", ["config.json", "adapter_config.json"])
    assert "*.safetensors" in asked[1][1]


def test_weights_of_another_model_are_refused_by_its_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = read_shape(folder)
    with pytest.raises(ValueError, match="num_hidden_layers 3 there, 2 here, num_attention_heads 4 there, 2 here"):
        load_base_weights(random_model(), folder)
    # No tensor has another shape here, yet it would compute something else.
    heads = dataclasses.replace(shape, num_attention_heads=8, num_key_value_heads=4, head_dim=12)
    with pytest.raises(ValueError, match="head_dim 24 there, 12 here"):
        load_base_weights(create_model(heads), folder)
    said: list[str] = []
    monkeypatch.setattr(log, "warn", said.append)
    load_base_weights(create_model(dataclasses.replace(shape, max_position_embeddings=64)), folder)
    assert said == []
    load_base_weights(create_model(dataclasses.replace(shape, rope_theta=1e6)), folder)  # a new base is a choice
    assert "rope_theta 10000.0 there, 1000000.0 here" in said[0]


# -- a folder that transformers reads as something else ----------------------------------------------------------------


def test_comparison_finds_a_wrong_setting_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    import nbg_lightning.core.hf_folder as module

    right = module.make_hf_config
    monkeypatch.setattr(
        module, "make_hf_config", lambda *a, **k: right(*a, **k) | {"rope_theta": 1e4, "rope_parameters": None}
    )
    with pytest.raises(ValueError, match="logits of transformers differ from ours"):
        save_hugging_face(random_model(rope_theta=5e6), tmp_path / "out", dtype="float32")
    assert list(tmp_path.iterdir()) == []


def test_comparison_refuses_nan(folder: Path) -> None:
    edit_tensors(folder, lambda t: t["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(ValueError, match="nan"):
        compare(open_weights(folder), folder).check("here")


def test_out_must_not_exist_and_settings_must_be_sane(tmp_path: Path) -> None:
    model = random_model()
    with pytest.raises(FileExistsError, match="exists"):
        save_hugging_face(model, tmp_path)
    with pytest.raises(ValueError, match="dtype is invalid: int8"):
        save_hugging_face(model, tmp_path / "out", dtype="int8")
    with pytest.raises(ValueError, match="max_shard_size"):
        save_hugging_face(model, tmp_path / "out", max_shard_size=0)


def test_no_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5))
    with pytest.raises(OSError, match=r"needs .* GB and 0.0 GB are free"):
        save_hugging_face(random_model(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_live_weights_leave_out_a_tied_head() -> None:
    weights = LiveWeights(random_model())
    assert "lm_head.weight" not in weights.shapes
    assert set(weights.read(list(weights.shapes))) == set(weights.shapes)


# -- memory ------------------------------------------------------------------------------------------------------------

_MEMORY = """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
from nbg_lightning.core import create_model, preset
from nbg_lightning.core.hf_folder import _write_tensors, make_hf_config
from nbg_lightning.core.weight_sources import LiveWeights, write_json
from nbg_lightning.core.weights import load_base_weights

def status(key):
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(key)) * 1024

folder = Path(sys.argv[1])
model = create_model(preset("small", num_hidden_layers=32, vocab_size=4096))
weights = LiveWeights(model)
_write_tensors(weights, folder, "float32", 10**9)
write_json(folder / "config.json", make_hf_config(model.shape))
open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
before = status("VmRSS")
load_base_weights(model, folder)
print((folder / "model.safetensors").stat().st_size, status("VmHWM") - before)
"""


def test_a_model_is_loaded_one_tensor_at_a_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _MEMORY, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    size, extra = map(int, result.stdout.split())
    assert size > 300e6
    assert extra < 50e6  # the largest tensor has 8 MB


@pytest.mark.parametrize(
    ("name", "dtype", "value"),
    [
        ("model.embed_tokens.weight", torch.float32, float("nan")),
        ("model.layers.1.mlp.up_proj.weight", torch.bfloat16, float("inf")),
        ("model.layers.2.self_attn.k_proj.weight", torch.float16, -float("inf")),
        ("model.norm.weight", torch.float64, float("nan")),
    ],
)
def test_a_value_that_is_not_finite_is_refused_by_its_tensor(
    folder: Path, name: str, dtype: torch.dtype, value: float
) -> None:
    def change(tensors: dict) -> None:
        for each in tensors:
            tensors[each] = tensors[each].to(dtype)
        tensors[name].flatten()[-1] = value

    edit_tensors(folder, change)
    weights = open_weights(folder)
    ours = next(each for each in weights.shapes if hf_name(each) == name)
    for read in (lambda: load_base_weights(create_model(weights.shape), folder), lambda: weights.read([ours])):
        with pytest.raises(
            ValueError, match=rf"{name} has 1 of [\d,]+ values that are NaN or infinite, the first at"
        ) as error:
            read()
        assert "\n" not in str(error.value)


def test_a_float64_beyond_float32_is_refused(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.update({"model.norm.weight": torch.full((96,), 1e300, dtype=torch.float64)}))
    with pytest.raises(ValueError, match=r"model\.norm\.weight has 96 of 96 values that are NaN or infinite"):
        load_base_weights(create_model(read_shape(folder)), folder)
