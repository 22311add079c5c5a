"""When compiling pays off, and that a compiled block is not recompiled for other documents."""

from functools import partial

import pytest
import torch
from torch import nn
from torch._dynamo.backends.debugging import aot_eager

from nbg_lightning.core.compilation import COMPILED_FROM, compiling_pays, host_compiler
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


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_long_runs_pay(kind):
    assert compiling_pays(COMPILED_FROM[kind], kind)
    assert not compiling_pays(COMPILED_FROM[kind] * 0.99, kind)


@pytest.mark.parametrize("kind", ["mps", "meta", "xpu"])
def test_unmeasured_devices_do_not(kind):
    assert not compiling_pays(1e30, kind)


def test_an_unknown_length_does_not():
    assert not compiling_pays(None, "cuda")


def test_the_compiler_named_by_a_variable_comes_first(tmp_path, monkeypatch):
    mine = tmp_path / "my-compiler"
    mine.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(mine))
    assert host_compiler("cpu") == str(mine)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host_compiler("cpu") is None
    assert host_compiler("cuda") is None


def test_fifty_varied_batches_are_one_compilation(monkeypatch):
    """After two batches, in which sizes have become symbols, other documents run in the graphs that are there."""
    torch._dynamo.reset()
    graphs, compile_module = [], nn.Module.compile

    def counted(graph, inputs):
        graphs.append(graph)
        return aot_eager(graph, inputs)

    monkeypatch.setattr(
        nn.Module, "compile", lambda module, **options: compile_module(module, backend=counted, **options)
    )
    model, generator = create_model(SHAPE, ParallelConfig(compile=True)), torch.Generator().manual_seed(0)
    plain, counts = create_model(SHAPE), []
    for _ in range(50):
        tokens, labels = torch.randint(0, 48, (2, 2, 24), generator=generator)
        cuts = (
            torch.randint(0, int(torch.randint(1, 12, (), generator=generator)) + 1, (2, 24), generator=generator) == 0
        )
        positions = _positions(cuts)
        losses = [
            each(tokens, positions, head=partial(linear_cross_entropy, labels_T=labels)).loss for each in (model, plain)
        ]
        losses[0].backward()
        torch.testing.assert_close(*losses)
        counts.append(len(graphs))
    assert counts[0] > 0
    assert counts[2:] == [counts[2]] * 48
    torch._dynamo.reset()


def _positions(cuts):
    """Positions that restart at every cut, and at the beginning of every row."""
    places = torch.arange(cuts.shape[1]).expand(cuts.shape)
    return places - torch.where(cuts, places, 0).cummax(dim=1).values
