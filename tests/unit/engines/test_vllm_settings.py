"""Tests without vLLM: settings validated or chosen before it is imported, and the order of sleep and wake-up."""

import pytest
import torch

from nbg_lightning.core.create import create_model
from nbg_lightning.engines import Prompt, Sampling, VLLMEngine, weight_stream, write_skeleton
from nbg_lightning.engines.supervised import SupervisedEngine
from nbg_lightning.engines.vllm_process import local_rank
from nbg_lightning.testing.grpo import GRPO_SHAPE


@pytest.mark.parametrize("name", ["tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"])
def test_an_engine_over_several_gpus_is_refused(name):
    with pytest.raises(ValueError, match=f"options.{name} is invalid: 2"):
        VLLMEngine(options={name: 2})
    VLLMEngine(options={name: 1})


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan")])
def test_a_share_of_memory(share):
    with pytest.raises(ValueError, match="gpu_memory is invalid"):
        VLLMEngine(gpu_memory=share)


def test_the_place_on_a_node_is_slurms(monkeypatch):
    """Rank 11 of two nodes with eight each is the fourth of its node: its GPU is number 3."""
    monkeypatch.setenv("SLURM_LOCALID", "3")
    assert local_rank(11) == 3
    monkeypatch.delenv("SLURM_LOCALID")
    assert local_rank(1) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sleep": "always"}, "sleep is invalid: 'always'; choose auto, true or false"),
        ({"tensor_parallel": 0}, "tensor_parallel is invalid: 0; give the number of ranks of an engine"),
    ],
)
def test_settings_that_mean_nothing(settings, message):
    with pytest.raises(ValueError, match=message):
        VLLMEngine(**settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_what_this_machine_cannot_is_refused_before_vllm_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    folder = write_skeleton(GRPO_SHAPE, tmp_path)
    with pytest.raises(ValueError, match="sleep is invalid: true; vLLM frees memory on GPUs only: leave it at auto"):
        VLLMEngine(folder, sleep=True).__enter__()
    with pytest.raises(ValueError, match="tensor_parallel is invalid: 2 with 1 rank; give a number that divides them"):
        VLLMEngine(folder, tensor_parallel=2).__enter__()


class RecordedLLM:
    """Has the methods of `vllm.LLM` that weights go through, and writes down how they are called."""

    def __init__(self):
        self.calls, self.weights = [], 0

    def sleep(self, level):
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags):
        self.calls.append(f"wake {tags}")

    def reset_prefix_cache(self):
        self.calls.append("reset")

    def collective_rpc(self, method, kwargs):
        self.calls.append(method)
        self.weights = len(dict(kwargs["weights_iterator"]))


@pytest.fixture
def asleep(tmp_path):
    engine = VLLMEngine(write_skeleton(GRPO_SHAPE, tmp_path), sleep=True)
    engine._llm = RecordedLLM()
    return engine


def test_a_sleeping_engine_wakes_its_weights_then_its_cache(asleep):
    model, llm = create_model(GRPO_SHAPE), asleep._llm
    asleep.sync(weight_stream(model), 0)
    assert llm.calls == ["reload_weights", "reset"]
    llm.calls.clear()
    assert asleep.rest() and asleep.rest()  # the second has nothing to do
    asleep.sync(weight_stream(model), 1)
    assert llm.calls == ["sleep 2", "wake ['weights']", "reload_weights", "wake ['kv_cache']", "reset"]
    assert llm.weights == len(dict(weight_stream(model))) and asleep.weight_version == 1


def test_a_sleeping_engine_neither_draws_nor_scores(asleep):
    asleep.rest()
    for ask in (lambda: asleep.generate([Prompt((1,))], Sampling()), lambda: asleep.score([(1, 2)])):
        with pytest.raises(RuntimeError, match="sleeps and has no weights; call sync"):
            ask()


def test_an_engine_that_rested_is_given_the_weights_again(asleep):
    """Also those of the same version: it keeps none."""
    model = create_model(GRPO_SHAPE)
    supervised = SupervisedEngine(asleep, model, lambda ids: None)
    supervised.version = 4
    supervised.rest()
    assert supervised.version is None and asleep._llm.calls == ["sleep 2"]
    asleep.sleep, asleep._asleep, supervised.version = False, False, 4
    supervised.rest()
    assert supervised.version == 4 and asleep._llm.calls == ["sleep 2"]
