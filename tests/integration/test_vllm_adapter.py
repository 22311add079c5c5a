"""An adapter in real vLLM on a CPU: pushed merged into an engine, and served from the exported peft folder."""

import json
import urllib.request

import pytest
import torch

from nbg_lightning.core import create_model, preset
from nbg_lightning.core.adapter_weights import AdaptedWeights, Adapter
from nbg_lightning.core.fingerprint import source_fingerprint
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.core.lora import adapter_off, trained_parameters
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.core.peft_folder import save_peft
from nbg_lightning.core.weight_sources import AdapterRecord
from nbg_lightning.core.weights import open_weights
from nbg_lightning.data import Tokenizer, train_bpe
from nbg_lightning.engines import NativeEngine, Probe, Prompt, Sampling, VLLMEngine, weight_stream, write_skeleton

pytestmark = [
    pytest.mark.slow,
    pytest.mark.vllm,
]
SHAPE = preset("nano", max_position_embeddings=256)
LORA = LoRAConfig(rank=8, alpha=16)
IDS = torch.randint(0, 300, (40,), generator=torch.Generator().manual_seed(0)).tolist()


def adapted():
    """A model whose adapter changes its answers."""
    model = create_model(SHAPE, seed=1, lora=LORA)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_b"):
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
            elif parameter.ndim == 2 and not name.endswith("lora_a"):
                parameter.mul_(3)
    return model


def test_the_stream_of_a_model_with_an_adapter_is_merged(tmp_path):
    model = adapted()
    merged = NativeEngine(model).score([IDS])[0]
    with adapter_off(model):
        base = NativeEngine(model).score([IDS])[0]
    assert max(abs(a - b) for a, b in zip(merged, base, strict=True)) > 0.1
    with VLLMEngine(write_skeleton(SHAPE, tmp_path), dtype="float32") as engine:
        engine.sync(weight_stream(model), 1, Probe(tuple(IDS), tuple(merged)))  # compares log-probs
        greedy = Sampling(max_new_tokens=16, temperature=0)
        [[theirs]], [[ours]] = (each.generate([Prompt(IDS[:9])], greedy) for each in (engine, NativeEngine(model)))
        assert theirs.ids == ours.ids
        with adapter_off(model):
            engine.sync(weight_stream(model), 2, Probe(tuple(IDS), tuple(base)))


def test_vllm_serves_the_exported_peft_folder_with_our_log_probs(tmp_path, serve):
    train_bpe(["the quick brown fox jumps over the lazy dog " * 3] * 20, 300, tmp_path / "tokenizer")
    model = adapted()
    merged = NativeEngine(model).score([IDS])[0]
    with adapter_off(model):
        base = NativeEngine(model).score([IDS])[0]
        save_hugging_face(model, tmp_path / "base", Tokenizer(tmp_path / "tokenizer"), "float32", verify=False)
    weights = open_weights(tmp_path / "base")
    tensors = {name: parameter.detach() for name, parameter in trained_parameters(model).items()}
    record = AdapterRecord(LORA, str(tmp_path / "base"), source_fingerprint(weights))
    save_peft(AdaptedWeights(weights, Adapter(record, tensors, "the run")), tmp_path / "adapter")
    options = ("--max-model-len", "256", "--served-model-name", "base", "--dtype", "float32", "--enable-lora")
    with serve(tmp_path / "base", *options, "--lora-modules", f"mine={tmp_path / 'adapter'}") as url:
        assert prompt_log_probs(url, "mine") == pytest.approx(merged, abs=1e-3)
        assert prompt_log_probs(url, "base") == pytest.approx(base, abs=1e-3)


def prompt_log_probs(url, model):
    """What a server says of each id of the prompt but the first."""
    body = {"model": model, "prompt": IDS, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
    request = urllib.request.Request(
        f"{url}/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        [choice] = json.load(answer)["choices"]
    return [entry[str(id_)]["logprob"] for entry, id_ in zip(choice["prompt_logprobs"][1:], IDS[1:], strict=True)]
