"""An engine in a separate process gives the same results, dies alone, and leaves nothing behind."""

import os
import threading

import pytest
import torch

from nbg_lightning.core.create import create_model
from nbg_lightning.engines.capabilities import Probe, StagingEngine
from nbg_lightning.engines.local import LocalEngine
from nbg_lightning.engines.native import NativeEngine
from nbg_lightning.engines.protocol import Prompt, Sampling
from nbg_lightning.engines.separate import SeparateEngine
from nbg_lightning.engines.shared_weights import SharedWeights
from nbg_lightning.engines.weights import weight_stream
from nbg_lightning.testing.grpo import GRPO_SHAPE

PROMPTS = [Prompt((5, 6)), Prompt((7,))]
SAMPLING = Sampling(max_new_tokens=8, n=3, seed=2)


@pytest.fixture(scope="module")
def models():
    return [create_model(GRPO_SHAPE, seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def engine(models):
    engine = SeparateEngine(slots=2, num_threads=1)
    engine.attach(models[0])
    with engine:
        yield engine
    engine.close()


def drawn_here(model, version):
    native = NativeEngine(model)
    native.weight_version = version
    return native.generate(PROMPTS, SAMPLING)


def test_it_draws_what_the_native_engine_draws_with_each_of_the_staged_weights(engine, models):
    assert isinstance(engine, StagingEngine)
    engine.stage(weight_stream(models[0]), 4)
    engine.stage(weight_stream(models[1]), 5)
    for version, model in ((4, models[0]), (5, models[1]), (4, models[0])):
        engine.sync(iter(()), version)
        assert engine.generate(PROMPTS, SAMPLING, 60) == drawn_here(model, version)
    engine.sync(weight_stream(models[1]), 9)  # they were not staged
    assert engine.generate(PROMPTS, SAMPLING, 60) == drawn_here(models[1], 9)
    engine.sync(iter(()), 5)  # and what was staged is as it was
    assert engine.generate(PROMPTS, SAMPLING, 60) == drawn_here(models[1], 5)


def test_its_weights_are_compared_with_the_trainers(engine, models):
    engine.sync(weight_stream(models[0]), 0)
    ids = (5, 6, 7, 8)
    engine.check(Probe(ids, tuple(NativeEngine(models[0]).score([ids])[0])))
    for wrong in ((-1.0, -9.0, -3.0), (float("nan"),) * 3):
        with pytest.raises(RuntimeError, match="its weights are not those that were pushed"):
            engine.check(Probe(ids, wrong))


def test_a_call_that_fails_says_why_and_the_next_one_works(engine, models):
    engine.sync(weight_stream(models[0]), 0)
    with pytest.raises(RuntimeError, match="give decode=tokenizer"):
        engine.generate(PROMPTS, Sampling(stop_strings=("x",)), 60)
    assert engine.generate(PROMPTS, SAMPLING, 60) == drawn_here(models[0], 0)


def test_a_process_that_is_killed_is_named_with_what_it_did_and_can_be_started_again(engine, models):
    engine.stage(weight_stream(models[0]), 2)
    engine.sync(iter(()), 2)
    killer = threading.Timer(0.3, os.kill, (engine._process.pid, 9))
    killer.start()
    doing = "drawing 8 answers to each of 2000 questions with the weights of step 2"
    with pytest.raises(RuntimeError, match=f"the engine's process ended while it was {doing}"):
        engine.generate([Prompt((5, 6))] * 2000, Sampling(max_new_tokens=100, n=8), 600)
    killer.join()
    engine.__exit__()
    engine.__enter__()
    engine.sync(iter(()), 2)  # staged weights outlive the process
    assert engine.generate(PROMPTS, SAMPLING, 60) == drawn_here(models[0], 2)


class Unsendable(NativeEngine):
    """Holds what no process can be sent."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def test_engines_that_cannot_be_sent_or_have_their_own_weights_are_refused(models, tmp_path):
    engine = SeparateEngine(Unsendable())
    engine.attach(models[0])
    with pytest.raises(ValueError, match="Unsendable cannot be sent to a process of its own"):
        engine.__enter__()
    engine.close()
    with pytest.raises(ValueError, match="LocalEngine has weights of its own"):
        SeparateEngine(object.__new__(LocalEngine))
    for name in ("slots", "num_threads"):
        with pytest.raises(ValueError, match=f"{name} is invalid: -1"):
            SeparateEngine(**{name: -1})


def test_shared_weights_hold_versions_apart_and_refuse_others():
    descriptors = len(os.listdir("/proc/self/fd"))
    shared = SharedWeights({"a": (2, 3), "b": (4,)}, "bfloat16", 2)
    shared.write(0, [("a", torch.ones(2, 3)), ("b", torch.zeros(4))])
    shared.write(1, [("a", torch.full((2, 3), 2.0)), ("b", torch.ones(4))])
    assert [float(dict(shared.read(slot))["a"].sum()) for slot in (0, 1)] == [6.0, 12.0]
    assert [float(views["b"].sum()) for views in shared.layout.views()] == [0.0, 4.0]  # as another process maps them
    with pytest.raises(ValueError, match=r"weight a \(3, 2\) has no place"):
        shared.write(0, [("a", torch.ones(3, 2))])
    with pytest.raises(ValueError, match="weights are missing for the shared copy: b"):
        shared.write(0, [("a", torch.ones(2, 3))])
    shared.close()
    shared.close()
    assert len(os.listdir("/proc/self/fd")) == descriptors
