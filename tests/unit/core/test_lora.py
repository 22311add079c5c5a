"""An adapter: disabled it equals the base, enabled it equals the merged weights, and nothing else has gradients."""

import pytest
import torch

from nbg_lightning.core.config import ParallelConfig, preset
from nbg_lightning.core.create import create_model
from nbg_lightning.core.documents import Documents
from nbg_lightning.core.lora import _LowRankProduct, adapted_layers, adapter_off, trained_parameters
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.core.names import clean_name, is_adapter
from nbg_lightning.core.parameter_shapes import adapter_shapes
from nbg_lightning.core.weight_sources import LiveWeights
from nbg_lightning.engines import NativeEngine, Prompt, Sampling, weight_stream

SHAPE = preset("nano", vocab_size=96, qkv_bias=True)
LORA = LoRAConfig(rank=4, alpha=6, targets=["q_proj", "o_proj", "up_proj", "down_proj"])
TOKENS = torch.randint(96, (2, 24), generator=torch.Generator().manual_seed(0))


def adapted(parallel=None, lora=LORA):
    """A model whose adapter counts."""
    model = create_model(SHAPE, parallel, lora=lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if clean_name(name).endswith(("lora_b", "bias")):
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return model


@pytest.mark.parametrize(
    "parallel",
    [
        ParallelConfig(),
        ParallelConfig(activation_checkpointing="full"),
        ParallelConfig(activation_checkpointing="selective"),
        pytest.param(ParallelConfig(compile=True), marks=pytest.mark.slow),
        ParallelConfig(float8="emulate"),
    ],
    ids=["plain", "full checkpointing", "selective checkpointing", "compiled", "float8"],
)
def test_off_and_new_it_is_the_base_bit_for_bit(parallel):
    base = create_model(SHAPE, parallel)
    fresh = create_model(SHAPE, parallel, lora=LORA)
    assert torch.equal(fresh(TOKENS), base(TOKENS))
    model = adapted(parallel)
    for name, parameter in base.named_parameters():
        parameter.data.copy_(LiveWeights(model)._parameters[clean_name(name)].data)
    assert not torch.equal(model(TOKENS), base(TOKENS))
    with adapter_off(model):
        assert torch.equal(model(TOKENS), base(TOKENS))
    assert not torch.equal(model(TOKENS), base(TOKENS))


def test_only_the_adapter_is_trained():
    model = adapted()
    model(TOKENS).logsumexp(-1).sum().backward()
    with_gradients = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradients == set(trained_parameters(model)) == {name for name in with_gradients if is_adapter(name)}
    assert {name: tuple(p.shape) for name, p in trained_parameters(model).items()} == adapter_shapes(SHAPE, LORA)


def test_gradients_are_those_of_the_parts_in_float64():
    generator = torch.Generator().manual_seed(1)
    x, w, a, b = (
        torch.randn(size, dtype=torch.float64, generator=generator, requires_grad=True)
        for size in ((5, 6), (7, 6), (3, 6), (7, 3))
    )
    by_parts = x @ w.t() + 1.5 * (x @ a.t()) @ b.t()
    torch.testing.assert_close(_LowRankProduct.apply(x, w.detach(), a, b, 1.5), by_parts)
    expected = torch.autograd.grad(by_parts.sin().sum(), (x, a, b))
    found = torch.autograd.grad(_LowRankProduct.apply(x, w.detach(), a, b, 1.5).sin().sum(), (x, a, b))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_merged_weights_compute_the_same_everywhere():
    model = adapted()
    live = LiveWeights(model)
    merged = create_model(SHAPE)
    for name, parameter in LiveWeights(merged)._parameters.items():
        parameter.data.copy_(live.read([name])[name])
    torch.testing.assert_close(model(TOKENS), merged(TOKENS))
    for (name, weight), (other, expected) in zip(weight_stream(model), weight_stream(merged), strict=True):
        assert name == other
        assert torch.equal(weight, expected)
    ours, theirs = (
        NativeEngine(each).generate([Prompt((1, 2, 3)), Prompt((5,))], Sampling(max_new_tokens=12))
        for each in (model, merged)
    )
    assert [found.ids for [found] in ours] == [found.ids for [found] in theirs]
    with adapter_off(model):
        off = NativeEngine(model).score([[1, 2, 3, 4]])
    assert off != NativeEngine(model).score([[1, 2, 3, 4]])
    assert off == NativeEngine(_base_of(model)).score([[1, 2, 3, 4]])


def _base_of(model):
    base = create_model(SHAPE)
    for name, parameter in LiveWeights(base)._parameters.items():
        parameter.data.copy_(LiveWeights(model)._parameters[name].data)
    return base


def test_packed_documents_are_as_each_by_itself():
    model = adapted()
    row = TOKENS.view(1, -1)
    lengths = [5, 19, 24]
    offsets = torch.tensor([0, 5, 24, 48], dtype=torch.int32)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    packed = model(row, positions, Documents(offsets))
    for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        torch.testing.assert_close(packed[:, begin:end], model(row[:, begin:end]))


def test_dropout_acts_in_training_only():
    model = adapted(lora=LoRAConfig(rank=4, dropout=0.5))
    model.train()
    assert not torch.equal(model(TOKENS), model(TOKENS))
    model.eval()
    assert torch.equal(model(TOKENS), model(TOKENS))


def test_without_an_adapter_there_is_nothing_to_turn_off():
    with pytest.raises(ValueError, match="the model has no adapter"), adapter_off(create_model(SHAPE)):
        pass
    assert adapted_layers(create_model(SHAPE)) == {}
