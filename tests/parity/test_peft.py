"""Adapters to and from peft: the same bits, the same logits; folders that do not fit are refused by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from nbg_lightning.core.adapter_weights import AdaptedWeights, Adapter
from nbg_lightning.core.config import preset
from nbg_lightning.core.create import create_model
from nbg_lightning.core.fingerprint import source_fingerprint
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.core.parameter_shapes import adapter_shapes
from nbg_lightning.core.peft_folder import PEFT_WEIGHTS, read_peft, save_peft
from nbg_lightning.core.weight_sources import AdapterRecord
from nbg_lightning.core.weights import load_base_weights, open_weights, read_shape

KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"qkv_bias": True, "tie_word_embeddings": False},
    "qwen3": {"qk_norm": True},
}
TOKENS = torch.randint(512, (2, 40), generator=torch.Generator().manual_seed(0))


def base_of(folder: Path, kind: str = "llama") -> str:
    save_hugging_face(create_model(preset("nano", **KINDS[kind])), folder / kind, dtype="float32", verify=False)
    return str(folder / kind)


def adapter_of(base: str, lora: LoRAConfig, scores: bool = False) -> AdaptedWeights:
    weights = open_weights(base)
    generator = torch.Generator().manual_seed(1)
    shapes = adapter_shapes(weights.shape.scoring if scores else weights.shape, lora)
    tensors = {name: 0.1 * torch.randn(size, generator=generator) for name, size in shapes.items()}
    record = AdapterRecord(lora, base, source_fingerprint(weights), scores)
    return AdaptedWeights(weights, Adapter(record, tensors, "the run"))


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_through_peft_has_the_same_bits_and_logits(tmp_path: Path, kind: str) -> None:
    base = base_of(tmp_path, kind)
    lora = LoRAConfig(rank=3, alpha=7, targets=["q_proj", "v_proj", "down_proj"])
    weights = adapter_of(base, lora)
    comparison = save_peft(weights, tmp_path / "ours")
    assert comparison is not None
    assert comparison.difference <= 1e-4
    whole = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(whole, str(tmp_path / "ours")).eval()
    theirs.save_pretrained(str(tmp_path / "theirs"))
    for folder in ("ours", "theirs"):
        found = read_peft(tmp_path / folder)
        assert found.record.lora == lora
        assert found.tensors.keys() == weights.adapter.tensors.keys()
        for name, tensor in found.tensors.items():
            assert torch.equal(tensor, weights.adapter.tensors[name]), name
    assert read_peft(tmp_path / "ours").record.fingerprint == weights.adapter.record.fingerprint
    model = create_model(read_shape(tmp_path / "theirs"))
    load_base_weights(model, tmp_path / "theirs")
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS), theirs(TOKENS).logits, atol=1e-4, rtol=1e-4)
    (tmp_path / "ours" / PEFT_WEIGHTS).unlink()  # as on the hub, of which only the configs are fetched for a shape
    assert read_shape(tmp_path / "ours") == weights.shape


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_model_goes_through_peft_with_its_head(tmp_path: Path, kind: str) -> None:
    base = base_of(tmp_path, kind)
    weights = adapter_of(base, LoRAConfig(rank=3, targets=["q_proj", "up_proj"]), scores=True)
    comparison = save_peft(weights, tmp_path / "ours")
    assert comparison is not None
    assert 0 < comparison.difference <= 1e-4
    whole = AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float32, num_labels=1)
    theirs = PeftModel.from_pretrained(whole, str(tmp_path / "ours")).eval()
    theirs.save_pretrained(str(tmp_path / "theirs"))
    for folder in ("ours", "theirs"):
        found = read_peft(tmp_path / folder)
        assert found.record.scores
        assert found.tensors.keys() == weights.adapter.tensors.keys()
        assert all(torch.equal(tensor, weights.adapter.tensors[name]) for name, tensor in found.tensors.items())
    with pytest.raises(ValueError, match="is a reward model: it scores texts"):
        read_shape(tmp_path / "theirs")
    model = create_model(read_shape(tmp_path / "theirs", may_score=True), draw=False)
    load_base_weights(model, tmp_path / "theirs")
    with torch.no_grad():
        expected = torch.stack([theirs(row[None]).logits[0] for row in TOKENS])  # without padding, one at a time
        torch.testing.assert_close(model(TOKENS)[:, -1], expected, atol=1e-5, rtol=1e-5)
    language_model = create_model(weights.base.shape, lora=weights.adapter.record.lora)
    with pytest.raises(ValueError, match="is the adapter of a reward model; use it in RewardModule"):
        weights.adapter.load_into(language_model, weights.adapter.record.lora)


def test_an_adapter_of_peft_goes_on_in_a_model(tmp_path: Path) -> None:
    """With the root of the rank in its scale, too."""
    base = base_of(tmp_path)
    whole = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], use_rslora=True, task_type="CAUSAL_LM"
    )
    theirs = get_peft_model(whole, settings)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    theirs.eval().save_pretrained(str(tmp_path / "adapter"))
    adapter = read_peft(tmp_path / "adapter")
    assert adapter.record.lora.scale == pytest.approx(8 / 4**0.5)
    model = create_model(preset("nano"), lora=adapter.record.lora)
    load_base_weights(model, base)
    adapter.load_into(model, adapter.record.lora)
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS), theirs(TOKENS).logits, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=r"lora.weights is invalid: .* has another adapter: rank 4 there, 2 here"):
        adapter.load_into(model, dataclasses.replace(adapter.record.lora, rank=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3'; supported: LORA"),
        ({"use_dora": True}, "use_dora=True may change what the adapter computes"),
        ({"bias": "all"}, "bias='all' may change"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save="),
        ({"modules_to_save": ["score"]}, "modules_to_save="),
        ({"modules_to_save": ["score", "embed_tokens"], "task_type": "SEQ_CLS"}, "modules_to_save="),
        ({"modules_to_save": ["classifier", "score"], "task_type": "SEQ_CLS"}, "missing lm_head.weight"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern="),
        ({"layers_to_transform": [0]}, "layers_to_transform="),
        ({"a_key_of_tomorrow": 1}, "a_key_of_tomorrow=1 may change"),
        ({"r": 0}, "lora.rank is invalid: 0"),
        ({"r": "8"}, "lora.rank is invalid: '8'"),
        ({"target_modules": ["q_prj"]}, "did you mean q_proj"),
        ({"target_modules": "all-linear"}, "target_modules .a list. is missing"),
        ({"target_modules": ["q_proj"]}, "which its config does not name"),
        ({"r": 2}, "other shape"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path"),
        ({"base_model_name_or_path": "/not/there"}, "the base of the adapter .* cannot be had"),
    ],
)
def test_folders_that_do_not_fit_are_refused_in_one_line(tmp_path: Path, changes: dict, message: str) -> None:
    base = base_of(tmp_path)
    save_peft(adapter_of(base, LoRAConfig(rank=3)), tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        open_weights(tmp_path / "adapter")
    assert "\n" not in str(error.value)


def test_another_base_and_an_existing_folder_are_refused(tmp_path: Path) -> None:
    base, other = base_of(tmp_path), base_of(tmp_path, "qwen3")
    save_peft(adapter_of(base, LoRAConfig(rank=3)), tmp_path / "adapter")
    with pytest.raises(ValueError, match="was trained on other base weights"):
        open_weights(tmp_path / "adapter", base=other)
    with pytest.raises(ValueError, match=r"has no effect: .* has all its weights"):
        open_weights(base, base=other)
    with pytest.raises(FileExistsError, match="exists; give another name"):
        save_peft(adapter_of(base, LoRAConfig(rank=3)), tmp_path / "adapter")
