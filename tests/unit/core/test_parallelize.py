"""Checkpointing, compilation and float8 on one unsharded model. Sharding is tested in tests/distributed."""

from functools import partial

import pytest
import torch

from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.core.head import linear_cross_entropy

SHAPE = LanguageModelConfig(
    vocab_size=48,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
)


def loss_and_grad_norm(parallel):
    model = create_model(SHAPE, parallel, seed=0)
    generator = torch.Generator().manual_seed(0)
    tokens, labels = torch.randint(0, 48, (2, 2, 16), generator=generator)
    positions = torch.cat((torch.arange(6), torch.arange(10))).expand(2, 16)
    loss = model(tokens, positions, head=partial(linear_cross_entropy, labels_T=labels)).loss / 32
    loss.backward()
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])
    return loss.item(), norm.item()


@pytest.fixture(scope="module")
def plain():
    return loss_and_grad_norm(ParallelConfig())


@pytest.mark.parametrize("checkpointing", ["selective", "full"])
def test_activation_checkpointing_changes_no_result(checkpointing, plain):
    found = loss_and_grad_norm(ParallelConfig(activation_checkpointing=checkpointing))
    assert found == pytest.approx(plain, rel=1e-6)


def test_activation_checkpointing_recomputes(monkeypatch):
    """Attention runs once a layer without checkpointing and with ``selective``, which keeps it; twice with ``full``."""
    calls = []

    class Counted(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            if function is torch.ops.nbg.document_attention.default:
                calls.append(1)
            return function(*arguments, **(keywords or {}))

    counts = {}
    for mode in ("none", "selective", "full"):
        calls.clear()
        with Counted():
            loss_and_grad_norm(ParallelConfig(activation_checkpointing=mode))
        counts[mode] = len(calls)
    assert counts["none"] == 2
    assert counts["full"] == 4


@pytest.mark.parametrize("checkpointing", ["none", pytest.param("full", marks=pytest.mark.slow)])
def test_compilation_changes_no_result(checkpointing, plain):
    found = loss_and_grad_norm(ParallelConfig(compile=True, activation_checkpointing=checkpointing))
    assert found == pytest.approx(plain, rel=1e-5)


def test_all_graphs_of_a_run_are_allowed():
    """Pretraining makes 5 graphs of a block, GRPO 6, DPD 9; beyond torch's limit of 8, a block that must be whole fails."""
    with torch._dynamo.config.patch(recompile_limit=8):
        create_model(SHAPE, ParallelConfig(compile=True))
        assert torch._dynamo.config.recompile_limit >= 5 + 6 + 9


def test_float8_emulated(plain):
    """Near, but not equal: something was rounded. The head is left in full precision."""
    parallel = ParallelConfig(float8="emulate")
    model = create_model(SHAPE, parallel)
    kinds = {name: type(module).__name__ for name, module in model.named_modules() if hasattr(module, "weight")}
    assert kinds["lm_head"] == "TokenHead"
    linears = [kind for name, kind in kinds.items() if "feed_forward." in name or "attention." in name]
    assert len(linears) == 2 * 7
    assert all("Float8" in kind for kind in linears)
    loss, norm = loss_and_grad_norm(parallel)
    assert loss == pytest.approx(plain[0], rel=1e-2)
    assert norm == pytest.approx(plain[1], rel=0.1)
    assert norm != plain[1]
