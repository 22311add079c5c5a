"""Checkpoints behind a URL: saved and resumed there, and atomic in all cases."""

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from nbg_lightning.callbacks.checkpoint import StepCheckpoint, checkpoints
from nbg_lightning.core.checkpoint_folder import checkpoint_at, is_complete
from nbg_lightning.core.checkpoint_names import DIGESTS
from nbg_lightning.core.weights import open_weights
from nbg_lightning.testing import train_small
from nbg_lightning.url_path import UrlPath, place_of

URL = "memory://bucket/run"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("straight")


@pytest.fixture(scope="module")
def straight(folder):
    """A run that keeps its checkpoints on a disk."""
    return train_small(folder, checkpoint_every=4)


@pytest.fixture(autouse=True)
def store():
    yield fsspec.filesystem("memory")
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def names(url=URL):
    return [path.name for path in place_of(url).iterdir()]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_run_resumes_from_its_url(straight, tmp_path, asynchronous):
    train_small(tmp_path / "a", checkpoint_every=4, keep=2, dirpath=URL, asynchronous=asynchronous, max_steps=8)
    assert names() == ["step-00000004", "step-00000008"]
    assert all(is_complete(path) for path in checkpoints(URL))
    resumed = train_small(
        tmp_path / "b", checkpoint_every=4, keep=2, dirpath=URL, asynchronous=asynchronous, resume="last"
    )
    assert resumed.losses == straight.losses[8:]
    assert names() == ["step-00000008", "step-00000012"]
    assert not list(tmp_path.rglob("step-*"))


def test_what_was_being_written_is_no_checkpoint(straight, tmp_path, monkeypatch):
    """The connection is lost for good before the digests of the second checkpoint."""
    write = UrlPath.write_bytes

    def lost(self, data):
        if "step-00000008" in self.url:
            raise OSError("the connection was lost")
        write(self, data)

    monkeypatch.setattr(UrlPath, "write_bytes", lost)
    monkeypatch.setattr("nbg_lightning.core.checkpoint_save.remove", lambda path: None)  # as for a killed process
    with pytest.raises(
        OSError, match=r"saving memory://bucket/run/step-00000008 failed \(.*; older checkpoints are intact"
    ):
        train_small(tmp_path / "a", checkpoint_every=4, dirpath=URL)
    monkeypatch.undo()
    assert names() == ["step-00000004", "step-00000008"]
    assert [path.name for path in checkpoints(URL)] == ["step-00000004"]
    resumed = train_small(tmp_path / "b", checkpoint_every=4, dirpath=URL, resume="last")
    assert resumed.losses == straight.losses[4:]
    assert [path.name for path in checkpoints(URL)] == ["step-00000004", "step-00000008", "step-00000012"]


def test_weights_are_read_from_it(straight, folder, tmp_path):
    train_small(tmp_path, dirpath=f"{URL}/checkpoints")
    newest = f"{URL}/checkpoints/step-00000012"
    assert [checkpoint_at(place) for place in (URL, f"{URL}/last", newest)] == [newest] * 3
    found, expected = open_weights(URL), open_weights(folder)
    for name in expected.shapes:
        assert torch.equal(found.read([name])[name], expected.read([name])[name])
    started = train_small(
        tmp_path / "b", dirpath=f"{URL}/b", module_options={"core": None, "base_weights": URL}, max_steps=1
    )
    assert len(started.losses) == 1


def test_later_ones_are_set_aside(tmp_path):
    train_small(tmp_path / "a", checkpoint_every=4, dirpath=URL)
    train_small(tmp_path / "b", checkpoint_every=4, dirpath=URL, max_steps=4)
    assert [path.name for path in checkpoints(f"{URL}-1")] == ["step-00000004", "step-00000008", "step-00000012"]
    assert [path.name for path in checkpoints(URL)] == ["step-00000004"]


def test_damage_is_named(tmp_path, store):
    train_small(tmp_path / "a", dirpath=URL)
    name = "/bucket/run/step-00000012/__0_0.distcp"
    data = bytearray(store.cat_file(name))
    data[len(data) // 2] ^= 1
    store.pipe_file(name, bytes(data))
    with pytest.raises(ValueError, match=r"__0_0\.distcp is damaged between bytes"):
        train_small(tmp_path / "b", dirpath=URL, resume="last")


def test_half_a_checkpoint_is_refused(tmp_path):
    train_small(tmp_path / "a", dirpath=URL)
    (UrlPath(URL) / "step-00000012" / DIGESTS).remove()
    with pytest.raises(ValueError, match="not a complete checkpoint"):
        train_small(tmp_path / "b", dirpath=URL, resume=f"{URL}/step-00000012")


def test_a_package_that_is_missing_is_named(monkeypatch):
    def missing(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(ValueError, match=r"type: pip install 'nbg-lightning\[s3\]'"):
        StepCheckpoint(dirpath="s3://bucket/run")
