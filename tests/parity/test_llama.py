"""The decoder against transformers' LlamaForCausalLM with the same random weights: logits and gradients in float32."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from nbg_lightning.core.config import LanguageModelConfig, Llama3RopeScaling
from nbg_lightning.core.create import create_model

# Written out here, and not taken from the library: this file says what the names ought to mean.
NAMES = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}
LAYER_NAMES = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.qkv_linear.wq.weight": "self_attn.q_proj.weight",
    "attention.qkv_linear.wk.weight": "self_attn.k_proj.weight",
    "attention.qkv_linear.wv.weight": "self_attn.v_proj.weight",
    "attention.wo.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "feed_forward.w1.weight": "mlp.gate_proj.weight",
    "feed_forward.w3.weight": "mlp.up_proj.weight",
    "feed_forward.w2.weight": "mlp.down_proj.weight",
}
SCALING = Llama3RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)


def hugging_face_name(name):
    if name in NAMES:
        return NAMES[name]
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{LAYER_NAMES[rest]}"


def pair(kv_heads, tied, scaling, theta=10_000.0):
    """Our model with weights large enough to matter, and transformers' with the same ones."""
    shape = LanguageModelConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=112,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        head_dim=24,  # not hidden_size / heads
        rope_theta=theta,
        rope_scaling=scaling,
        rms_norm_eps=1e-6,
        tie_word_embeddings=tied,
        initializer_range=0.1,
    )
    ours = create_model(shape, seed=4)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for name, parameter in ours.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    rope = {"rope_type": "default", "rope_theta": theta}
    if scaling is not None:
        rope = {
            "rope_type": "llama3",
            "rope_theta": theta,
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_position_embeddings,
        }
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=97,
            hidden_size=64,
            intermediate_size=112,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            head_dim=24,
            rope_parameters=rope,
            rms_norm_eps=1e-6,
            tie_word_embeddings=tied,
            max_position_embeddings=256,
            attn_implementation="eager",
        )
    )
    state = {hugging_face_name(name): value for name, value in ours.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert missing == []
    return ours, theirs


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("scaling", [None, SCALING], ids=["plain", "llama3"])
def test_logits_and_gradients(kv_heads, tied, scaling):
    ours, theirs = pair(kv_heads, tied, scaling)
    tokens = torch.randint(0, 97, (2, 80), generator=torch.Generator().manual_seed(0))
    found, expected = ours(tokens), theirs(tokens).logits
    assert expected.std() > 0.5  # the comparison means something
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2)) / found.numel() ** 0.5
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    their_gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    if tied:  # transformers names a tied matrix after the embedding
        their_gradients |= {"lm_head.weight": their_gradients["model.embed_tokens.weight"]}
    for name, parameter in ours.named_parameters():
        truth = their_gradients[hugging_face_name(name)]
        torch.testing.assert_close(parameter.grad, truth, rtol=1e-4, atol=1e-5 * truth.abs().max().item(), msg=name)


def test_packed_documents_equal_transformers_on_each():
    ours, theirs = pair(2, False, None, theta=5e5)
    lengths = [7, 30, 1, 12]
    tokens = torch.randint(0, 97, (1, sum(lengths)), generator=torch.Generator().manual_seed(3))
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    expected = torch.cat([theirs(part).logits for part in tokens.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(ours(tokens, positions), expected, rtol=0, atol=1e-5)


def test_loss_equals_transformers():
    from nbg_lightning.core.head import linear_cross_entropy

    ours, theirs = pair(2, True, None)
    tokens = torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(3))
    labels = torch.cat((tokens[:, 1:], torch.full((2, 1), -100)), dim=1)
    found = ours(tokens, head=lambda hidden, weight: linear_cross_entropy(hidden, weight, labels)).loss / (2 * 39)
    torch.testing.assert_close(found, theirs(tokens, labels=tokens).loss, rtol=1e-5, atol=1e-6)
