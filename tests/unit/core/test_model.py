"""The decoder: packing changes nothing, head functions run in place, stages may change the RoPE base."""

from functools import partial

import pytest
import torch

from nbg_lightning.core.config import preset
from nbg_lightning.core.create import create_model
from nbg_lightning.core.head import linear_cross_entropy
from nbg_lightning.core.rope import inverse_frequencies

SHAPE = preset("nano", vocab_size=64)


@pytest.fixture(scope="module")
def model():
    return create_model(SHAPE, seed=1)


def tokens_of(rows, length, seed=0):
    return torch.randint(0, 64, (rows, length), generator=torch.Generator().manual_seed(seed))


def test_packed_documents_equal_separate_ones(model):
    """Values and the gradient of every parameter, for three documents in one row and alone."""
    lengths = [5, 1, 9]
    tokens = tokens_of(1, sum(lengths))
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    packed = model(tokens, positions)
    alone = torch.cat([model(part) for part in tokens.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-5)
    parameters = list(model.parameters())
    weights = torch.randn(packed.shape, generator=torch.Generator().manual_seed(2))
    gradients = [torch.autograd.grad((out * weights).sum(), parameters) for out in (packed, alone)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * one.abs().max().item())


def test_without_positions_a_row_is_one_document(model):
    tokens = tokens_of(2, 7)
    positions = torch.arange(7).expand(2, 7)
    assert torch.equal(model(tokens), model(tokens, positions))


def test_future_tokens_are_not_seen(model):
    tokens = tokens_of(1, 8)
    changed = tokens.clone()
    changed[0, 5:] = (changed[0, 5:] + 1) % 64
    torch.testing.assert_close(model(tokens)[:, :5], model(changed)[:, :5], rtol=0, atol=0)


def test_head_function_gets_hidden_states_and_weight(model):
    tokens = tokens_of(2, 6)
    labels = tokens_of(2, 6, seed=1)
    logits = model(tokens)
    assert torch.equal(model(tokens, head=lambda hidden, weight: hidden @ weight.t()), logits)
    found = model(tokens, head=partial(linear_cross_entropy, labels_T=labels, chunk_tokens=5))
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    torch.testing.assert_close(found.loss, expected)


def test_rope_theta_can_change(model):
    """From the next forward on, as if the model had been built with it; and back."""
    tokens = tokens_of(1, 32)
    before = model(tokens)
    other = create_model(preset("nano", vocab_size=64, rope_theta=1e6), seed=1)
    try:
        model.rope_theta = 1e6
        assert torch.equal(model(tokens), other(tokens))
        assert not torch.allclose(model(tokens), before)
    finally:
        model.rope_theta = SHAPE.rope_theta
    assert torch.equal(model(tokens), before)


def test_positions_beyond_the_stated_maximum_work():
    """The table is made from the positions: no length is reserved."""
    short = create_model(preset("nano", vocab_size=64, max_position_embeddings=4), seed=1)
    assert short(tokens_of(1, 16)).isfinite().all()
    assert inverse_frequencies(64, 1e4).shape == (32,)


def test_queries_and_keys_can_be_normalised():
    plain = create_model(preset("nano", vocab_size=64), seed=1)
    normed = create_model(preset("nano", vocab_size=64, qk_norm=True), seed=1)
    assert not torch.allclose(plain(tokens_of(1, 8)), normed(tokens_of(1, 8)))
    names = [name for name, _ in normed.named_parameters() if "norm" in name and "attention." in name]
    assert len(names) == 2 * SHAPE.num_hidden_layers
