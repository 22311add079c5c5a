import numpy as np
import pytest
import torch

from nbg_lightning.core import create_model, preset
from nbg_lightning.engines import NativeEngine, Probe, Prompt, Sampling, VLLMEngine
from nbg_lightning.engines.supervised import EngineDied, SupervisedEngine

SAMPLING = Sampling(max_new_tokens=3)
PROMPTS = [Prompt((1, 2, 3)), Prompt((4, 5, 6, 7))]


@pytest.fixture(scope="module")
def model():
    return create_model(preset("nano"))


class Pushed(NativeEngine):
    """Takes weights as an engine in another place would, and can be compared."""

    def __init__(self, wrong=0):
        super().__init__()
        self.weights, self.probes, self.wrong = [], [], wrong

    def sync(self, weights, version):
        self.weights.append({name: weight.clone() for name, weight in weights})
        super().sync((), version)

    def check(self, probe):
        self.probes.append(probe)
        if len(self.probes) <= self.wrong:
            raise RuntimeError("its weights are not those that were pushed")


def supervised(engine, model):
    def probe(ids):
        return Probe(ids, tuple(NativeEngine(model).score([ids])[0]))

    found = SupervisedEngine(engine, model, probe)
    found.open()
    return found


def test_weights_are_pushed_once_a_version_and_compared(model):
    engine = Pushed()
    keeper = supervised(engine, model)
    first = keeper.generate(PROMPTS, SAMPLING, None, 3)
    assert [completion.weight_version for group in first for completion in group] == [3, 3]
    keeper.generate(PROMPTS, SAMPLING, None, 3)
    keeper.generate(PROMPTS, SAMPLING, None, 4)
    assert len(engine.weights) == len(engine.probes) == 2
    assert "model.embed_tokens.weight" in engine.weights[0]
    assert torch.equal(engine.weights[0]["model.norm.weight"], model.norm.weight)
    probe = engine.probes[0]
    assert probe.ids == PROMPTS[1].ids  # the longest
    np.testing.assert_allclose(probe.log_probs, NativeEngine(model).score([probe.ids])[0], atol=1e-6)


class Rounding(Pushed):
    weight_dtype = torch.bfloat16


def test_weights_are_pushed_in_the_dtype_of_the_engine(model):
    engine = Rounding()
    supervised(engine, model).generate(PROMPTS, SAMPLING, None, 3)
    assert {weight.dtype for weight in engine.weights[0].values()} == {torch.bfloat16}
    assert torch.equal(engine.weights[0]["model.norm.weight"], model.norm.weight.bfloat16())
    assert VLLMEngine().weight_dtype == torch.bfloat16
    assert VLLMEngine(dtype="auto").weight_dtype is None


def test_a_push_that_did_not_arrive_is_pushed_again(model, caplog):
    engine = Pushed(wrong=1)
    keeper = supervised(engine, model)
    assert len(keeper.generate(PROMPTS, SAMPLING, None, 0)) == 2
    assert len(engine.weights) == 2
    assert "the engine died at step 0 (its weights are not those that were pushed)" in caplog.text
    with pytest.raises(EngineDied, match="twice at step 0: its weights are not those that were pushed"):
        supervised(Pushed(wrong=2), model).generate(PROMPTS, SAMPLING, None, 0)


def test_a_probe_needs_two_tokens(model):
    engine = Pushed()
    supervised(engine, model).generate([Prompt((5,))], SAMPLING, None, 0)
    assert len(engine.probes[0].ids) == 2 and len(engine.probes[0].log_probs) == 1


class Half(NativeEngine):
    """Raises while the weights come: the rest of the stream is still gone through, as other ranks wait for it."""

    seen = 0

    def sync(self, weights, version):
        self.seen += 1
        next(weights)
        if self.seen == 1:
            self.stream = weights
            raise OSError("gone")
        super().sync(weights, version)


def test_a_push_that_breaks_off_leaves_nobody_waiting(model):
    engine = Half()
    supervised(engine, model).generate(PROMPTS, SAMPLING, None, 0)
    assert next(engine.stream, "the end") == "the end"


def test_closing_twice_is_closing_once(model):
    engine = Pushed()
    left = []
    engine.__class__.__exit__ = lambda self, *_: left.append(1)
    try:
        keeper = supervised(engine, model)
        keeper.close()
        keeper.close()
    finally:
        del engine.__class__.__exit__
    assert left == [1]


def test_an_engine_without_a_model_says_so():
    with pytest.raises(RuntimeError, match="this NativeEngine has no model; give it one, or call attach"):
        NativeEngine().generate(PROMPTS, SAMPLING)
