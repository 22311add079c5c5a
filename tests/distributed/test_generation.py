"""The native engine on a model sharded over two ranks."""

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from nbg_lightning.core import ParallelConfig, create_model, preset
from nbg_lightning.engines import NativeEngine, Prompt, Sampling
from nbg_lightning.testing import run_ranks

SHAPE = preset("nano", num_hidden_layers=3)
PROMPTS = [Prompt(range(3 + index, 8 + 4 * index)) for index in range(6)]
SAMPLING = Sampling(max_new_tokens=8, n=2, temperature=1.0)


def build(num_ranks, dtype="float32", **settings):
    mesh = init_device_mesh("cpu", (num_ranks,))
    return create_model(SHAPE, ParallelConfig(compute_dtype=dtype, **settings), mesh, seed=3)


def sharded(num_ranks):
    """All checks of one launch; every rank has its own prompts, one of them none at all."""
    rank = dist.get_rank()
    model = build(num_ranks)
    engine = NativeEngine(model)
    results = {"before_any_forward": engine.generate(PROMPTS[rank::num_ranks], SAMPLING)}
    results["none_on_rank_1"] = engine.generate(PROMPTS if rank == 0 else [], SAMPLING)
    results["error_on_rank_1"] = engine.generate(PROMPTS[:1] if rank == 0 else [Prompt(())], SAMPLING)
    results["score"] = engine.score([prompt.ids for prompt in PROMPTS[rank::num_ranks]])
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())

    tokens = torch.tensor([PROMPTS[rank].ids[:5]])
    model.train()

    def losses():
        found = []
        for _ in range(2):
            loss = model(tokens).logsumexp(-1).mean()
            loss.backward()
            for parameter in model.parameters():
                parameter.data -= 0.5 * parameter.grad
                parameter.grad = None
            found.append(loss.item())
        return found

    straight = losses()
    again = build(num_ranks)
    model = again
    first = losses()[:1]
    NativeEngine(again).generate(PROMPTS[rank : rank + 1], SAMPLING)
    results["training_goes_on"] = (straight, first)
    results["after_training"] = NativeEngine(again).generate(PROMPTS[rank::num_ranks], SAMPLING)
    for name, settings in {
        "bfloat16": dict(dtype="bfloat16"),
        "kept": dict(reshard_after_forward=False, activation_checkpointing="full"),
    }.items():
        other = build(num_ranks, **settings)
        other(tokens)  # leaves units gathered
        results[name] = NativeEngine(other).generate(PROMPTS[rank::num_ranks], SAMPLING)
        assert all(isinstance(parameter, DTensor) for parameter in other.parameters())
    return results


def ids(results):
    return [[completion.ids for completion in group] for group in results]


def log_probs(results):
    return torch.tensor([value for group in results for completion in group for value in completion.log_probs])


def test_two_ranks_generate_as_one(tmp_path):
    ranks = run_ranks(sharded, 2, 2, folder=tmp_path)
    model = create_model(SHAPE, seed=3)
    engine = NativeEngine(model)
    expected = engine.generate(PROMPTS, SAMPLING)
    for rank, results in enumerate(ranks):
        for name in ("before_any_forward", "kept"):
            assert ids(results[name]) == ids(expected)[rank::2]
            torch.testing.assert_close(log_probs(results[name]), log_probs(expected[rank::2]))
        assert results["score"] == engine.score([prompt.ids for prompt in PROMPTS[rank::2]])
        straight, first = results["training_goes_on"]
        assert straight[:1] == first
        assert ids(results["after_training"]) != ids(expected)[rank::2]
        assert all(c.finish_reason == "length" for group in results["bfloat16"] for c in group)
    assert ids(ranks[0]["none_on_rank_1"]) == ids(expected)
    assert ranks[1]["none_on_rank_1"] == []
    assert [c.finish_reason for c in ranks[1]["error_on_rank_1"][0]] == ["error", "error"]
    assert ids(ranks[0]["error_on_rank_1"]) == ids(expected)[:1]
