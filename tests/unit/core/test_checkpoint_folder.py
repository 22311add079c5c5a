"""Names of checkpoints after an interrupted replacement, and with several processes that look for them."""

import logging
import multiprocessing
import shutil

import pytest
import torch

from nbg_lightning.core.checkpoint import CheckpointFiles, write_checkpoint
from nbg_lightning.core.checkpoint_folder import (
    checkpoint_at,
    is_complete,
    partial_folder,
    prepare,
    remove_leftovers,
    replace,
    settle,
    settle_all,
)


def write(folder, step):
    write_checkpoint(folder, {"state_dict": {"weight": torch.full((4,), float(step))}}, {"global_step": step})


def step_in(folder):
    return CheckpointFiles(folder).meta()["global_step"]


@pytest.fixture
def path(tmp_path):
    """A checkpoint whose replacement was interrupted between its renames."""
    path = tmp_path / "step-00000002"
    write(tmp_path / "step-00000002.old", 1)
    write(partial_folder(path), 2)
    return path


def test_a_free_name_is_taken_and_a_taken_one_replaced(tmp_path):
    path = tmp_path / "last.ckpt"
    for step in (1, 2):
        prepare(path)
        write(partial_folder(path), step)
        replace(path)
        assert step_in(path) == step
        assert [each.name for each in tmp_path.glob("last*")] == ["last.ckpt"]


def cut(partial):
    (partial / "digests.json").unlink()


def flip(partial):
    file = partial / "__0_0.distcp"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def lose(partial):
    (partial / "__0_0.distcp").unlink()


def lose_state(partial):
    (partial / "meta.pt").unlink()


def empty(partial):
    (partial / "digests.json").write_text("")


@pytest.mark.parametrize("damage", [cut, flip, lose, lose_state, empty, shutil.rmtree])
def test_new_files_that_are_not_whole_leave_the_name_to_the_old_ones(path, damage):
    damage(partial_folder(path))
    settle(path)
    assert step_in(path) == 1


def test_settling_twice_is_settling_once(path):
    for _ in range(2):
        settle_all(path.parent)
        assert step_in(path) == 2
    remove_leftovers(path.parent, "step-")
    assert [each.name for each in path.parent.glob("step-*")] == ["step-00000002"]


def test_where_the_name_is_there_nothing_is_renamed(path):
    write(path, 3)
    settle(path)
    assert [step_in(each) for each in sorted(path.parent.glob("step-*"))] == [3, 1, 2]


def test_a_folder_that_is_no_checkpoint_is_not_restored(tmp_path):
    (tmp_path / "notes.old").mkdir()
    settle_all(tmp_path)
    assert not (tmp_path / "notes").exists()
    remove_leftovers(tmp_path, "notes")
    assert (tmp_path / "notes.old").exists()


def test_a_save_begins_with_the_name_there(path):
    """The whole new files of the interrupted one are not written over before their name is given."""
    prepare(path)
    assert step_in(path) == 2
    assert not partial_folder(path).exists()


def test_a_save_clears_what_cannot_be_settled(path):
    shutil.rmtree(partial_folder(path))
    (path.with_name("step-00000002.old") / "meta.pt").unlink()
    prepare(path)
    assert list(path.parent.glob("step-*")) == []


@pytest.mark.parametrize("name", ["", ".", "..", "/", "best", "org/name"])
def test_names_that_are_no_checkpoint(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settle(name)
    settle_all(name)
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_left_and_named(path, monkeypatch, caplog):
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    (path.parent / ".replacing").mkdir()  # stands for a folder of somebody else: tests may run as root
    with caplog.at_level(logging.WARNING):
        settle(path)
    assert not path.exists()
    assert "cannot be ended: Is a directory" in caplog.text


def settle_at_once(path, barrier):
    barrier.wait()
    settle(path)
    assert step_in(path) == 2


def test_many_processes_settle_at_once(path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(6)
    processes = [context.Process(target=settle_at_once, args=(path, barrier)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6


def looks_all_the_time(path, stop):
    while not stop.is_set():
        settle(path)


def test_readers_do_not_disturb_a_writer(tmp_path):
    """They look while it is between its renames."""
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    path = tmp_path / "step-00000001"
    readers = [context.Process(target=looks_all_the_time, args=(path, stop)) for _ in range(2)]
    for reader in readers:
        reader.start()
    for step in range(40):
        prepare(path)
        write(partial_folder(path), step)
        replace(path)
        assert step_in(path) == step
    stop.set()
    for reader in readers:
        reader.join(60)
    assert [reader.exitcode for reader in readers] == [0, 0]
    assert is_complete(path)


def test_a_run_stands_for_its_newest_checkpoint(tmp_path):
    for step in (9, 10):
        write(tmp_path / "run" / "checkpoints" / f"step-{step}", step)
    (tmp_path / "run" / "checkpoints" / "step-11.partial").mkdir()
    newest = str(tmp_path / "run" / "checkpoints" / "step-10")
    for place in ("run", "run/", "run/last", "run/checkpoints", "run/checkpoints/last", "run/checkpoints/step-10"):
        assert checkpoint_at(tmp_path / place) == newest
    older = tmp_path / "run" / "checkpoints" / "step-9"
    assert checkpoint_at(str(older)) == str(older)


def test_an_interrupted_newest_one_is_settled_first(path):
    assert checkpoint_at(path.parent) == str(path)
    assert step_in(path) == 2


def test_other_places_stay_as_they_are(tmp_path):
    write(tmp_path / "model" / "checkpoints" / "step-1", 1)
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for place in ("owner/name", "owner/last", str(tmp_path / "model"), str(tmp_path / "empty"), str(tmp_path / "none")):
        assert checkpoint_at(place) == place
    with pytest.raises(ValueError, match=r"empty/last is invalid: .*empty has no complete checkpoint; give a run"):
        checkpoint_at(tmp_path / "empty" / "last")
