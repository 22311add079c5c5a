"""A resumed run equals an uninterrupted one in samples, losses and weights, also with other numbers of ranks and workers.

And what cannot be resumed says so in one line that names cause and fix.
"""

import dataclasses
import shutil

import pytest
import torch

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.modules import PretrainModule
from nbg_lightning.modules.optimizer import AdamWConfig
from nbg_lightning.schedule.curriculum import Stage
from nbg_lightning.testing import SMALL_SHAPE, SyntheticDataModule, forget_digests, run_ranks, small_stages, train_small

OPTIONS = {"module_options": {"ema_decay": 0.9}}
WINDOWS = {"a": 97, "b": 23}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("straight")


@pytest.fixture(scope="module")
def straight(folder):
    """An uninterrupted run on one rank, with a checkpoint after every step."""
    return train_small(folder, checkpoint_every=1, keep=20, **OPTIONS)


@pytest.fixture
def checkpoint(folder, straight):
    return folder / "checkpoints" / "step-00000005"


def two_ranks(folder, checkpoint):
    """Resume a checkpoint of one rank on two, from another step and with workers; and make one for one rank."""
    resumed = train_small(f"{folder}/resumed", devices=2, resume=checkpoint, num_workers=2, **OPTIONS)
    made = train_small(f"{folder}/made", devices=2, checkpoint_every=5, num_workers=2, **OPTIONS)
    return resumed, made


@pytest.fixture(scope="module")
def from_two_ranks(folder, straight):
    return run_ranks(two_ranks, 2, str(folder), str(folder / "checkpoints" / "step-00000007"), folder=folder)


def assert_continues(found, straight, done, exactly=False):
    steps = straight.steps[done:]
    assert [step["step"] for step in found.steps] == [step["step"] for step in steps]
    assert [step["chain"] for step in found.steps] == [step["chain"] for step in steps]
    assert [step["rope_theta"] for step in found.steps] == [step["rope_theta"] for step in steps]
    assert [step["lr"] for step in found.steps] == [step["lr"] for step in steps]
    tolerance = 0.0 if exactly else 1e-5
    assert found.losses == pytest.approx([step["loss"] for step in steps], rel=tolerance)
    assert found.grad_norms == pytest.approx([step["grad_norm"] for step in steps], rel=tolerance)
    for kind in ("weights", "averages"):
        for name, value in getattr(straight, kind).items():
            torch.testing.assert_close(getattr(found, kind)[name], value, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("step", "num_workers"), [(1, 0), (3, 2), (4, 0), (8, 2), (11, 0)])
def test_resumed_run_is_bitwise_the_straight_run(folder, straight, tmp_path, step, num_workers):
    """In a stage, at its border, after the windows have grown; with workers and without."""
    path = folder / "checkpoints" / f"step-{step:08d}"
    resumed = train_small(tmp_path, resume=path, num_workers=num_workers, **OPTIONS)
    assert resumed.column("sample_hash") == straight.column("sample_hash")[step:]
    assert_continues(resumed, straight, step, exactly=True)


def test_resume_of_a_resumed_run(folder, straight, tmp_path):
    first = train_small(
        tmp_path, resume=folder / "checkpoints" / "step-00000002", checkpoint_every=1, max_steps=6, **OPTIONS
    )
    assert first.column("step") == [3, 4, 5, 6]
    assert_continues(train_small(tmp_path, resume="last", **OPTIONS), straight, 6, exactly=True)


def test_one_rank_to_two(from_two_ranks, straight):
    first, second = (resumed for resumed, _ in from_two_ranks)
    for resumed in (first, second):
        assert_continues(resumed, straight, 7)
    both = [a + b for a, b in zip(first.column("sample_hash"), second.column("sample_hash"), strict=True)]
    assert both == straight.column("sample_hash")[7:]


@pytest.mark.parametrize("step", [5, 10])
def test_two_ranks_to_one(from_two_ranks, folder, straight, tmp_path, step):
    path = folder / "made" / "checkpoints" / f"step-{step:08d}"
    resumed = train_small(tmp_path, resume=path, **OPTIONS)
    assert resumed.column("sample_hash") == straight.column("sample_hash")[step:]
    assert_continues(resumed, straight, step)


def test_stopped_by_max_steps_and_resumed(straight, tmp_path):
    """The checkpoint of a stop is like any other: the run is not taken for finished."""
    train_small(tmp_path, max_steps=6, **OPTIONS)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000006"]
    assert_continues(train_small(tmp_path, resume="last", **OPTIONS), straight, 6, exactly=True)


def test_finished_run_has_nothing_to_do(folder, straight):
    """A run's folder and its ``last`` are its newest checkpoint."""
    train_small(folder, resume=folder / "last", **OPTIONS)
    again = train_small(folder, resume=folder, **OPTIONS)
    assert again.steps == []
    assert all(torch.equal(again.weights[name], straight.weights[name]) for name in straight.weights)


def test_stages_can_be_added_to_a_finished_run(folder, straight, tmp_path):
    """As if the longer table had been there from the start."""
    stages = [*small_stages(), Stage("more", 1024, 3e-3, {"a": 1.0, "b": 1.0})]
    whole = train_small(tmp_path / "whole", stages=stages, **OPTIONS)
    assert len(whole.steps) == 16
    added = train_small(tmp_path / "added", stages=stages, resume=folder / "checkpoints" / "step-00000012", **OPTIONS)
    assert_continues(added, whole, 12, exactly=True)


def test_stages_to_come_can_be_changed(checkpoint, tmp_path):
    stages = small_stages()
    stages[2] = dataclasses.replace(stages[2], mixture={"a": 1.0}, tokens=512)
    resumed = train_small(tmp_path, stages=stages, resume=checkpoint, **OPTIONS)
    assert resumed.column("step") == [6, 7, 8, 9, 10]
    assert resumed.column("source")[-1] == [0] * 4


def test_stage_under_way_can_be_made_longer_or_shorter(checkpoint, tmp_path):
    stages = small_stages()
    stages[1] = dataclasses.replace(stages[1], tokens=512)
    assert train_small(tmp_path, stages=stages, resume=checkpoint, **OPTIONS).column("length") == [32] + [64] * 4


# -- what cannot be resumed --------------------------------------------------------------------------------------------


def refusal(kind, tmp_path, resume, **changes):
    """The one line with which a resume is refused."""
    with pytest.raises(kind) as caught:
        train_small(tmp_path, resume=resume, **{**OPTIONS, **changes})
    message = str(caught.value)
    assert "\n" not in message
    return message


def stages_with(index, **changes):
    stages = small_stages()
    stages[index] = dataclasses.replace(stages[index], **changes)
    return stages


@pytest.mark.parametrize(
    ("index", "changes"),
    [
        (0, {"tokens": 2048}),
        (0, {"mixture": {"a": 1.0, "b": 1.0}}),
        (1, {"mixture": {"a": 1.0, "b": 1.0}}),
        (1, {"sequence_length": 64}),
    ],
)
def test_stage_already_begun_cannot_be_changed(checkpoint, tmp_path, index, changes):
    message = refusal(ValueError, tmp_path, checkpoint, stages=stages_with(index, **changes))
    name = ("warmup", "stable")[index]
    assert f"stage {name!r} was already begun at the checkpoint (step 5)" in message
    assert "only stages to come can be changed" in message


def test_stages_already_begun_cannot_be_removed(checkpoint, tmp_path):
    message = refusal(ValueError, tmp_path, checkpoint, stages=small_stages()[:1])
    assert "stage 'stable' was already begun" in message


def test_sources_cannot_be_renamed_in_order(checkpoint, tmp_path):
    """The same mixtures, written in another order, would be another order of samples."""
    message = refusal(ValueError, tmp_path, checkpoint, stages=stages_with(0, mixture={"b": 0.0, "a": 1.0}))
    assert "in the order a, b, this run has b, a; write the mixtures in the old order" in message


def test_changed_source(checkpoint, tmp_path):
    changed = SyntheticDataModule({"a": 97, "b": 24}, SMALL_SHAPE.vocab_size)
    message = refusal(ValueError, tmp_path, checkpoint, datamodule=changed)
    assert message.startswith("source b has changed since the checkpoint; restore its data and tokenizer")


def test_unknown_source(checkpoint, tmp_path):
    message = refusal(ValueError, tmp_path, checkpoint, datamodule=SyntheticDataModule({"a": 97}, 61))
    assert message == "the curriculum mixes unknown sources b; there are a"


def test_other_seed(checkpoint, tmp_path):
    other = SyntheticDataModule(WINDOWS, SMALL_SHAPE.vocab_size, seed=1)
    message = refusal(ValueError, tmp_path, checkpoint, datamodule=other)
    assert message.startswith("the checkpoint's data order has seed 0, this run has 1")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_size": 64}, "hidden_size 32 there, 64 here"),
        ({"num_hidden_layers": 3}, "num_hidden_layers 2 there, 3 here"),
        ({"rope_theta": 5e5}, "rope_theta 10000.0 there, 500000.0 here"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings False there, True here"),
    ],
)
def test_other_model(checkpoint, tmp_path, changes, named):
    shape = dataclasses.replace(SMALL_SHAPE, **changes)
    message = refusal(ValueError, tmp_path, checkpoint, module_options={"core": shape})
    assert message == f"the checkpoint's model has another shape: {named}; use the config of that run"


def test_averages_cannot_be_added(tmp_path):
    train_small(tmp_path, max_steps=2)
    message = refusal(ValueError, tmp_path, "last", module_options={"ema_decay": 0.5})
    assert message.startswith("the checkpoint's run kept no averaged weights; resume without ema_decay")


def test_missing_checkpoint(folder, straight, tmp_path):
    message = refusal(FileNotFoundError, tmp_path, folder / "checkpoints" / "step-00000099")
    assert "no checkpoint at" in message
    assert "checkpoints there: step-00000001, step-00000002" in message


def test_no_last_checkpoint_begins_anew(straight, tmp_path, caplog):
    with caplog.at_level("INFO", logger="nbg_lightning"):
        assert_continues(train_small(tmp_path, resume="last", **OPTIONS), straight, 0, exactly=True)
    assert f"no checkpoint in {tmp_path / 'checkpoints'} yet: training begins at step 0" in caplog.text


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "shards cut": lambda folder: truncate(next(folder.glob("*.distcp"))),
    "shards missing": lambda folder: next(folder.glob("*.distcp")).unlink(),
    "index cut": lambda folder: truncate(folder / ".metadata"),
    "state cut": lambda folder: truncate(folder / "meta.pt"),
    "state overwritten": lambda folder: (folder / "meta.pt").write_bytes(b"not a checkpoint"),
    "state empty": lambda folder: (folder / "meta.pt").write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_checkpoint(folder, checkpoint, tmp_path, damage):
    """The line names others that may be whole, and not this one."""
    for name in ("step-00000004", "step-00000005"):
        shutil.copytree(folder / "checkpoints" / name, tmp_path / "checkpoints" / name)
    path = tmp_path / "checkpoints" / "step-00000005"
    damage(path)
    message = refusal(ValueError, tmp_path, path)
    assert f"checkpoint {path} cannot be read (" in message
    assert message.endswith("resume from another: step-00000004")


@pytest.mark.parametrize("missing", ["meta.pt", ".metadata"])
def test_unfinished_checkpoint(checkpoint, tmp_path, missing):
    path = tmp_path / "checkpoints" / "step-00000005"
    shutil.copytree(checkpoint, path)
    (path / missing).unlink()
    assert "is not a complete checkpoint of this library" in refusal(ValueError, tmp_path, path)
    assert f"checkpoint {path} is damaged: files are missing" in refusal(ValueError, tmp_path, "last")


def test_file_of_another_library(tmp_path, straight):
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {}}, path)
    assert "is not a complete checkpoint of this library" in refusal(ValueError, tmp_path, path)


def test_checkpoint_of_another_lightning_module(checkpoint, tmp_path):
    path = tmp_path / "step-00000005"
    shutil.copytree(checkpoint, path)
    forget_digests(path)
    state = torch.load(path / "meta.pt")
    del state["nbg_lightning"]
    torch.save(state, path / "meta.pt")
    assert "this checkpoint was not written by nbg_lightning" in refusal(ValueError, tmp_path, path)


class BeginsWithNothing(PretrainModule):
    """Trains no token of the first two steps, as GRPO does where all answers are alike."""

    def count(self, batch):
        return {name: count * (self.global_step >= 2) for name, count in super().count(batch).items()}


@pytest.mark.parametrize("algorithm", ["adamw", "muon"])
def test_a_save_before_anything_was_trained_changes_nothing(tmp_path, algorithm):
    """The optimizer has no states then, and neither saving nor loading may give it a step."""

    def train(name, **options):
        exact = ParallelConfig(compute_dtype="float32")
        optimizer = AdamWConfig(algorithm=algorithm)
        module = BeginsWithNothing(core=SMALL_SHAPE, parallel=exact, micro_batch_tokens=64, optimizer=optimizer)
        return train_small(tmp_path / name, module=module, max_steps=6, **options)

    straight = train("straight", enable_checkpointing=False)
    saved = train("saved", checkpoint_every=1)
    resumed = [train(f"from {step}", resume=tmp_path / f"saved/checkpoints/step-0000000{step}") for step in (1, 2, 3)]
    for found in (saved, *resumed):
        assert all(torch.equal(weight, straight.weights[name]) for name, weight in found.weights.items())
