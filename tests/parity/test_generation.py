"""The native engine against transformers' ``generate`` on the same weights, float32."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from nbg_lightning.core import create_model, preset
from nbg_lightning.core.config import Llama3RopeScaling
from nbg_lightning.core.hf_config import make_hf_config
from nbg_lightning.engines import NativeEngine, Prompt, Sampling, weight_stream

NEW = 24


def both(**changes):
    """Our model, and transformers' with its weights: larger than at initialization, for choices that are clear."""
    model = create_model(preset("nano", **changes), seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
            elif model.shape.qkv_bias:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    config = make_hf_config(model.shape)
    kind = config.pop("model_type")
    hf = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config)).eval()
    missing, unexpected = hf.load_state_dict(dict(weight_stream(model)), strict=False)
    assert not unexpected
    assert set(missing) <= ({"lm_head.weight"} if model.shape.tie_word_embeddings else set())
    hf.tie_weights()
    return model, hf


@pytest.mark.parametrize(
    "changes",
    [
        dict(),
        dict(tie_word_embeddings=False, num_key_value_heads=2),
        dict(qk_norm=True),
        dict(qkv_bias=True),
        dict(rope_theta=5e5, rope_scaling=Llama3RopeScaling(original_max_position_embeddings=32)),
    ],
    ids=["plain", "untied", "qk_norm", "qkv_bias", "llama3_rope"],
)
def test_greedy_tokens_and_log_probs_are_those_of_transformers(changes):
    model, hf = both(**changes)
    generator = torch.Generator().manual_seed(0)
    lengths = [5, 33, 1, 12, 64, 20]
    prompts = [torch.randint(0, 512, (length,), generator=generator) for length in lengths]
    ours = NativeEngine(model, max_rows=4).generate(
        [Prompt(prompt.tolist()) for prompt in prompts], Sampling(max_new_tokens=NEW, temperature=0)
    )
    for prompt, [completion] in zip(prompts, ours, strict=True):
        theirs = hf.generate(
            prompt[None],
            attention_mask=torch.ones_like(prompt)[None],
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        new = theirs[0, len(prompt) :]
        assert completion.ids == tuple(new.tolist())
        with torch.no_grad():
            log_probs = hf(theirs).logits[0].log_softmax(-1)[len(prompt) - 1 : -1].gather(-1, new[:, None])[:, 0]
        assert (torch.tensor(completion.log_probs) - log_probs).abs().max() <= 1e-4


def test_sampled_log_probs_are_those_of_a_full_forward_at_the_temperature():
    model, hf = both()
    prompts = [Prompt(range(3, 9)), Prompt(range(100, 140))]
    results = NativeEngine(model).generate(prompts, Sampling(max_new_tokens=NEW, temperature=0.7, n=3))
    for prompt, group in zip(prompts, results, strict=True):
        for completion in group:
            text = torch.tensor([prompt.ids + completion.ids])
            with torch.no_grad():
                scaled = (hf(text).logits[0] / 0.7).log_softmax(-1)[len(prompt.ids) - 1 : -1]
            expected = scaled.gather(-1, text[0, len(prompt.ids) :, None])[:, 0]
            assert (torch.tensor(completion.log_probs) - expected).abs().max() <= 1e-4
