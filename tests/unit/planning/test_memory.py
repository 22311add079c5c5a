"""Memory of the real model under fake tensors, each in its own process because of the fake process group."""

import dataclasses
import json
import subprocess
import sys

import pytest

SCRIPT = """
import dataclasses, json, sys
from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.planning import Cluster, TrainingPhase, Workload, memory, peak_memory
from nbg_lightning.planning.workload import Trained

shape = LanguageModelConfig(
    vocab_size=8192, hidden_size=256, intermediate_size=1024, num_hidden_layers=12, num_attention_heads=4,
    num_key_value_heads=2, head_dim=64)
phase = TrainingPhase("all", 2048, 2**17, 10, 2048)

def plan(ranks=8, micro=8192, copies=1, task="pretraining", beside={}, **parallel):
    work = Workload(task, shape, ParallelConfig(replicate=copies, **parallel), micro, (phase,), **beside)
    return dataclasses.asdict(peak_memory(work, phase, Cluster(ranks, 8)))

found = {
    "full": plan(activation_checkpointing="full"),
    "none": plan(),
    "half the rows": plan(micro=4096),
    "copies": plan(copies=2, activation_checkpointing="full"),
    "reduced": plan(micro=2048, sync_every_micro_batch=True, activation_checkpointing="full"),
    "kept": plan(micro=2048, activation_checkpointing="full"),
    "averaged": plan(beside={"trained": Trained(averaged=True)}),
    "pairs": plan(task="DPD", beside={"cached_ids": 64}),
    "teacher": plan(task="DPD", beside={"teacher": shape, "reference": True}),
    "reference": plan(task="DPD", beside={"cached_ids": 64, "reference": True}),
    "chats": plan(task="SFT"),
    "drawn here": plan(
        task="GRPO", activation_checkpointing="full",
        beside={"cache_positions": 2**20, "answers_per_step": 2**12, "cache_rows": 128}),
    "answers": plan(task="GRPO", activation_checkpointing="full"),
}
found["adapter"] = plan(task="DPD", beside={"reference": "own", "trained": Trained(LoRAConfig(rank=8))})
found["muon"] = plan(beside={"trained": Trained(algorithm="muon")})
found["matrices"] = Workload(
    "pretraining", shape, ParallelConfig(), 8192, (phase,), trained=Trained(algorithm="muon")).num_matrix_parameters
found["a window of four ranks"] = plan(micro=2048, context=4)
if sys.argv[1] == "few":
    print(json.dumps({"parameters": shape.num_parameters, **found}))
    sys.exit()
memory._LAYERS = (12,)
memory._simulated.clear()
found["simulated whole"] = plan()
from nbg_lightning.core import head, head_distillation
head.parts_to_run = head_distillation.parts_to_run = lambda parts: parts
memory._LAYERS = (4,)
for name, task in (("pretraining", "pretraining"), ("DPD", "DPD"), ("GRPO", "GRPO")):
    memory._simulated.clear()
    found["all chunks of " + name] = plan(task=task)
head.parts_to_run = head_distillation.parts_to_run = lambda parts: parts[:2]
for name, task in (("pretraining", "pretraining"), ("DPD", "DPD"), ("GRPO", "GRPO")):
    memory._simulated.clear()
    found["two chunks of " + name] = plan(task=task)
print(json.dumps({"parameters": shape.num_parameters, **found}))
"""


def simulated(how_many):
    return json.loads(subprocess.check_output([sys.executable, "-c", SCRIPT, how_many], text=True).splitlines()[-1])


@pytest.fixture(scope="module")
def found():
    return simulated("few")


@pytest.fixture(scope="module")
def all_found():
    return simulated("all")


def total(plan):
    return sum(plan.values())


@pytest.mark.slow
def test_a_line_through_two_numbers_of_layers_is_exact(all_found):
    assert total(all_found["none"]) == pytest.approx(total(all_found["simulated whole"]), rel=0.01)


def test_activations_follow_rows_and_checkpointing(found):
    assert found["half the rows"]["activations"] == pytest.approx(found["none"]["activations"] / 2, rel=0.15)
    assert found["full"]["activations"] < found["none"]["activations"] / 2
    assert total(found["answers"]) > 0


def test_states_are_sharded(found):
    """Sixteen bytes a parameter over the ranks of a shard, less the gradients that are not there at the peak."""
    gib = found["parameters"] / 2**30
    assert 12 * gib / 8 <= found["full"]["states"] <= 16.1 * gib / 8
    assert found["copies"]["states"] == pytest.approx(2 * found["full"]["states"], rel=0.1)


def test_ranks_that_share_windows_hold_their_part_of_the_tokens(found):
    """Four rows by their quarters are a quarter of four rows, but for what is exchanged around attention."""
    shared, rows = found["a window of four ranks"], found["none"]
    assert shared["states"] == pytest.approx(rows["states"], rel=0.1)
    assert rows["activations"] / 4 <= shared["activations"] < 1.5 * rows["activations"] / 4


def test_gradients_that_wait_are_whole(found):
    """Micro-batches without reduction keep float32 gradients of all weights until the last."""
    more = total(found["kept"]) - total(found["reduced"])
    assert more == pytest.approx(4 * found["parameters"] / 2**30, rel=0.5)


def test_memory_has_no_kinds_but_those_that_are_told():
    from nbg_lightning.planning import Memory

    assert [field.name for field in dataclasses.fields(Memory)] == [
        "states", "gathered", "gradients", "activations", "other",
    ]  # fmt: skip


def test_what_stands_beside_the_model_is_counted(found):
    gib = found["parameters"] / 2**30
    assert total(found["averaged"]) - total(found["none"]) == pytest.approx(4 * gib / 8, rel=0.02)
    assert found["teacher"]["other"] == pytest.approx(2 * 2 * gib / 8, rel=0.02)  # both in bfloat16, sharded
    assert total(found["teacher"]) > total(found["pairs"])
    # A reference is gathered and freed before the student runs, so that its shards are all that it adds, once.
    assert total(found["reference"]) - total(found["pairs"]) == pytest.approx(2 * gib / 8, rel=0.02)
    assert total(found["chats"]) >= total(found["none"])


def test_an_adapter_has_frozen_weights_beside_it(found):
    """Of these a shard in bfloat16, without gradients, states or a second model for the reference."""
    gib = found["parameters"] / 2**30
    small = found["adapter"]
    assert 2 * gib / 8 < small["states"] < 2.5 * gib / 8
    assert small["other"] < 0.01
    assert total(small) < total(found["pairs"]) - 12 * gib / 8


def test_muon_has_one_moment_of_the_matrices(found):
    less = total(found["none"]) - total(found["muon"])
    assert less == pytest.approx(4 * found["matrices"] / 8 / 2**30, rel=0.02)


def test_an_engine_on_the_live_weights_may_be_the_peak(found):
    """128 answers of 2,048 positions of float32 keys and values of two heads in 12 layers are 3 GiB."""
    cache = 128 * 2048 * 2 * 12 * 2 * 64 * 4 / 2**30
    assert cache < found["drawn here"]["activations"] < cache + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("task", ["pretraining", "DPD", "GRPO"])
def test_two_chunks_stand_for_all(all_found, task):
    assert total(all_found[f"two chunks of {task}"]) == total(all_found[f"all chunks of {task}"])
