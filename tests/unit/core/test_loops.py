"""A core whose blocks run several times, against a twin in plain torch."""

import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F

from nbg_lightning.core.create import create_model
from nbg_lightning.core.decode import Decoder, KeyValueCache, gathered
from nbg_lightning.core.hf_config import make_hf_config, parse_hf_config
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.core.weights import load_base_weights
from nbg_lightning.engines import write_skeleton
from nbg_lightning.testing import SMALL_SHAPE, run_ranks, train_small

SHAPE = dataclasses.replace(SMALL_SHAPE, num_loops=3, initializer_range=0.2, tie_word_embeddings=False)
TOKENS = [5, 3, 60, 7, 7, 1, 33, 12, 9]


@pytest.fixture(scope="module")
def model():
    return create_model(SHAPE, seed=3)


def norm(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + SHAPE.rms_norm_eps) * weight


def attention(x, w, prefix):
    length, dim = len(x), SHAPE.head_dim
    angles = torch.arange(length)[:, None] * SHAPE.rope_theta ** -(torch.arange(0, dim, 2) / dim)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]

    def turned(name):
        first, second = (x @ w[f"{prefix}attention.qkv_linear.{name}.weight"].T).unflatten(-1, (-1, dim)).chunk(2, -1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)

    q, k = turned("wq"), turned("wk")
    v = (x @ w[f"{prefix}attention.qkv_linear.wv.weight"].T).unflatten(-1, (-1, dim))
    k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], dim=1) for each in (k, v))
    scores = torch.einsum("inh,jnh->nij", q, k) / math.sqrt(dim)
    scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf)
    out = torch.einsum("nij,jnh->inh", scores.softmax(-1), v)
    return out.flatten(1) @ w[f"{prefix}attention.wo.weight"].T


def twin(w, tokens):
    x = w["tok_embeddings.weight"][torch.tensor(tokens)]
    for _ in range(SHAPE.num_loops):
        for index in range(SHAPE.num_hidden_layers):
            prefix = f"layers.{index}."
            x = x + attention(norm(x, w[f"{prefix}attention_norm.weight"]), w, prefix)
            h = norm(x, w[f"{prefix}ffn_norm.weight"])
            gate, up = (h @ w[f"{prefix}feed_forward.{name}.weight"].T for name in ("w1", "w3"))
            x = x + (F.silu(gate) * up) @ w[f"{prefix}feed_forward.w2.weight"].T
        x = norm(x, w["norm.weight"])
    return x @ w["lm_head.weight"].T


def test_logits_and_gradients_are_the_twins(model):
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    expected, found = twin(weights, TOKENS), model(torch.tensor([TOKENS]))[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    expected.log_softmax(-1)[:, 4].sum().backward()
    found.log_softmax(-1)[:, 4].sum().backward()
    for name, p in model.named_parameters():
        scale = weights[name].grad.abs().max()
        torch.testing.assert_close(p.grad / scale, weights[name].grad / scale, rtol=1e-3, atol=1e-4)
    model.zero_grad()


def test_decoding_is_the_forward(model):
    """Each loop's layer has its own keys and values: prompts, then one token at a time."""
    with torch.inference_mode(), gathered(model):
        expected = model(torch.tensor([TOKENS]))[0]
        decoder = Decoder(model)
        cache = KeyValueCache(SHAPE, 1, 16, decoder.cache_dtype, decoder.device)
        assert len(cache.layers) == 3 * SHAPE.num_hidden_layers
        prefilled = decoder.prefill([TOKENS[:4]])
        torch.testing.assert_close(prefilled.logits[0], expected[3], rtol=1e-4, atol=1e-4)
        cache.write(0, prefilled, 0)
        rows = decoder.rows(cache, [4])
        for index in range(4, len(TOKENS)):
            logits = rows.step(torch.tensor([TOKENS[index]]))[0]
            torch.testing.assert_close(logits, expected[index], rtol=1e-4, atol=1e-4)


def test_config_there_and_back():
    config = make_hf_config(SHAPE)
    assert (config["model_type"], config["num_loops"]) == ("nanbeige", 3)
    assert parse_hf_config(config) == SHAPE
    assert parse_hf_config({**config, "num_loops": 1}).num_loops == 1


@pytest.mark.parametrize(("kind", "loops"), [("llama", 2), ("qwen3", 2), ("nanbeige", -1)])
def test_loops_of_a_family_without_them(kind, loops):
    with pytest.raises(ValueError, match=f"num_loops {loops} is not supported for {kind}"):
        parse_hf_config({**make_hf_config(SMALL_SHAPE), "model_type": kind, "num_loops": loops})


def test_vllm_is_refused(tmp_path):
    with pytest.raises(ValueError, match="num_loops=3 is not supported by vLLM; use NativeEngine"):
        write_skeleton(SHAPE, tmp_path)


def test_export_and_import_keep_the_logits(model, tmp_path):
    """A Hugging Face folder of a looped core is loaded as one, and two sequences packed are two sequences alone."""
    compared = save_hugging_face(model, tmp_path / "out", dtype="float32")
    assert compared.difference < 1e-5
    again = create_model(parse_hf_config(json.loads((tmp_path / "out" / "config.json").read_text())), seed=9)
    load_base_weights(again, tmp_path / "out")
    packed = torch.tensor([[*TOKENS, *TOKENS[2:]]])
    positions = torch.tensor([[*range(len(TOKENS)), *range(len(TOKENS) - 2)]])
    with torch.no_grad():
        found = again(packed, positions)[0]
        torch.testing.assert_close(found[: len(TOKENS)], model(torch.tensor([TOKENS]))[0])
        torch.testing.assert_close(found[len(TOKENS) :], model(torch.tensor([TOKENS[2:]]))[0])


def test_blocks_count_once_a_loop():
    once, thrice = (dataclasses.replace(SHAPE, num_loops=loops) for loops in (1, 3))
    head = 6.0 * SHAPE.vocab_size * SHAPE.hidden_size
    assert thrice.num_parameters == once.num_parameters
    assert thrice.flops_per_token(64) - head == 3 * (once.flops_per_token(64) - head)


def test_bad_loops():
    with pytest.raises(ValueError, match="num_loops is invalid"):
        dataclasses.replace(SHAPE, num_loops=0)
    with pytest.raises(ValueError, match="num_loops=3 is invalid with qk_norm or qkv_bias"):
        dataclasses.replace(SHAPE, qk_norm=True)


def on_a_rank(folder):
    return train_small(f"{folder}/two", devices=2, module_options={"core": SHAPE}, max_steps=4)


def test_two_ranks_are_one_rank(tmp_path):
    """A block that is gathered several times in a forward has the gradient of all its passes."""
    one = train_small(tmp_path / "one", module_options={"core": SHAPE}, max_steps=4)
    for two in run_ranks(on_a_rank, 2, str(tmp_path), folder=tmp_path / "ranks"):
        assert two.losses == pytest.approx(one.losses, rel=1e-5)
        for name, weight in one.weights.items():
            torch.testing.assert_close(two.weights[name], weight, rtol=0, atol=1e-5)
