"""Muon against a plain reference, and its choice of parameters."""

import pytest
import torch
from torch import nn

from nbg_lightning.core.create import create_model
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.modules.muon import MuonAdamW, orthogonalize
from nbg_lightning.modules.optimizer import AdamWConfig, build_optimizer, check_optimizer, optimizer_record
from nbg_lightning.modules.pretrain import PretrainModule
from nbg_lightning.testing import SMALL_SHAPE


def plain_iterations(matrix):
    """The same polynomial on singular values: U p(S) V^T."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ v


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (1, 5), (7, 1)])
def test_orthogonalize_is_its_polynomial_of_singular_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(orthogonalize(matrix), plain_iterations(matrix))


def test_a_matrix_without_gradient_has_no_update():
    assert orthogonalize(torch.zeros(3, 4)).eq(0).all()


def test_two_steps_by_hand():
    """Momentum, Nesterov, decay and scale, with a factor on the learning rate; the vector is AdamW's."""
    weight = nn.Parameter(torch.tensor([[1.0, 2.0, -1.0], [0.5, -1.0, 3.0]], dtype=torch.float64))
    bias = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    config = AdamWConfig(lr=0.1, weight_decay=0.5, algorithm="muon", momentum=0.9, lr_factors={"matrices": 0.5})
    optimizer = build_optimizer([("layers.0.w", weight), ("layers.0.b", bias)], config)
    expected, mean = weight.detach().clone(), torch.zeros(2, 3, dtype=torch.float64)
    for step in (1.0, 2.0):
        gradient = torch.tensor([[1.0, 0.0, step], [-step, 2.0, 1.0]], dtype=torch.float64)
        weight.grad, bias.grad = gradient, torch.tensor([3.0], dtype=torch.float64)
        optimizer.step()
        mean = 0.9 * mean + 0.1 * gradient
        update = plain_iterations(0.9 * mean + 0.1 * gradient)
        expected = expected * (1 - 0.05 * 0.5) - 0.05 * 0.2 * 3**0.5 * update
        torch.testing.assert_close(weight.detach(), expected)
    torch.testing.assert_close(bias.detach(), torch.tensor([0.8], dtype=torch.float64))
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}


def test_muon_gets_the_matrices_of_the_blocks():
    model = create_model(SMALL_SHAPE)
    optimizer = build_optimizer(model.named_parameters(), AdamWConfig(algorithm="muon"))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(p)] for group in optimizer.param_groups if group["muon"] for p in group["params"]}
    assert found == {name for name, p in model.named_parameters() if name.startswith("layers.") and p.ndim == 2}
    assert len(found) == 7 * SMALL_SHAPE.num_hidden_layers
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)


def test_factors_without_muon_are_those_of_adamw():
    """A factor of 2 on the head moves it twice as far in the first step, and nothing else further."""
    moves = []
    for factors in ({}, {"head": 2.0}):
        model = create_model(SMALL_SHAPE)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        config = AdamWConfig(lr=1e-3, weight_decay=0.0, lr_factors=factors)
        optimizer = build_optimizer(model.named_parameters(), config)
        assert isinstance(optimizer, MuonAdamW) == bool(factors)
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        moves.append({name: (p.detach() - before[name]).abs().mean() for name, p in model.named_parameters()})
    for name, move in moves[0].items():
        factor = 2.0 if name.startswith("lm_head") else 1.0
        torch.testing.assert_close(moves[1][name], factor * move, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"lr_factors": {"heads": 2.0}},
            r"heads; there are embedding, head, matrices, vectors \(did you mean head\?\)",
        ),
        ({"lr_factors": {"head": -1.0}}, "head: -1.0; give a number above 0"),
        ({"lr_factors": {"head": float("nan")}}, "head: nan; give a number above 0"),
        ({"momentum": 1.0}, "momentum is invalid: 1.0"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        AdamWConfig(**options)


def test_an_adapter_is_not_trained_with_muon():
    with pytest.raises(ValueError, match=r"optimizer\.algorithm is invalid with lora: muon"):
        PretrainModule(SMALL_SHAPE, optimizer=AdamWConfig(algorithm="muon"), lora=LoRAConfig())


def test_checkpoint_of_another_optimizer():
    check_optimizer(None, AdamWConfig())
    check_optimizer(optimizer_record(AdamWConfig(algorithm="muon")), AdamWConfig(algorithm="muon", lr=1.0))
    with pytest.raises(ValueError, match=r"optimizer\.algorithm adamw, not muon; .* base_weights"):
        check_optimizer(None, AdamWConfig(algorithm="muon"))
    with pytest.raises(ValueError, match=r"optimizer\.lr_factors \{\}, not"):
        check_optimizer(None, AdamWConfig(lr_factors={"head": 2.0}))
