"""``parallel.compile: auto``: long runs are compiled, short ones are not, and the results are the same."""

import logging

import pytest
from torch import nn

from nbg_lightning.core import compilation
from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.modules.pretrain import PretrainModule
from nbg_lightning.testing import SMALL_SHAPE, SMALL_STEP_TOKENS, train_small


@pytest.fixture
def compiled(monkeypatch):
    """The blocks that were asked to be compiled, which are compiled by tracing alone."""
    blocks, compile_module = [], nn.Module.compile

    def by_tracing(module, **options):
        blocks.append(module)
        compile_module(module, backend="eager", **options)

    monkeypatch.setattr(nn.Module, "compile", by_tracing)
    return blocks


def module(compile="auto"):
    return PretrainModule(SMALL_SHAPE, parallel=ParallelConfig("float32", compile=compile), micro_batch_tokens=64)


def operations(steps):
    return steps * SMALL_STEP_TOKENS * SMALL_SHAPE.flops_per_token(32)


def test_a_long_run_is_compiled_and_says_so_once(tmp_path, compiled, monkeypatch, caplog):
    monkeypatch.setitem(compilation.COMPILED_FROM, "cpu", operations(12))
    with caplog.at_level(logging.INFO, "nbg_lightning"):
        found = train_small(tmp_path / "compiled", module=module())
    assert len(compiled) == SMALL_SHAPE.num_hidden_layers
    assert sum("blocks are compiled" in line for line in caplog.messages) == 1
    plain = train_small(tmp_path / "plain", module=module(compile=False))
    assert len(compiled) == SMALL_SHAPE.num_hidden_layers
    assert found.losses == pytest.approx(plain.losses, rel=1e-5)


def test_max_steps_make_a_run_short(tmp_path, compiled, monkeypatch, caplog):
    monkeypatch.setitem(compilation.COMPILED_FROM, "cpu", operations(12))
    with caplog.at_level(logging.INFO, "nbg_lightning"):
        train_small(tmp_path, module=module(), max_steps=2)
    assert not compiled
    assert not any("compiled" in line for line in caplog.messages)


def test_without_a_compiler_a_long_run_is_not_compiled_and_says_why(tmp_path, compiled, monkeypatch, caplog):
    monkeypatch.setitem(compilation.COMPILED_FROM, "cpu", 1.0)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with caplog.at_level(logging.INFO, "nbg_lightning"):
        train_small(tmp_path / "run", module=module(), max_steps=2)
    assert not compiled
    assert any("no compiler on PATH; install g++" in line for line in caplog.messages)
