"""Prepared data behind a URL: equal to the folder, verified, bounded on disk, and fetched again if necessary."""

import errno
import pickle
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nbg_lightning import remote
from nbg_lightning.data import sources
from nbg_lightning.data.encoder import TextEncoder
from nbg_lightning.data.prepare import PreparationSettings, prepare_encoded
from nbg_lightning.data.shards import TokenizedSource
from nbg_lightning.data.sources import InMemory
from nbg_lightning.data.stored_files import DataStore
from nbg_lightning.data.upload import upload
from nbg_lightning.testing.benchmarks import character_tokenizer
from nbg_lightning.testing.lagging_store import lagging_store

BLOCK = 1 << 16
LENGTH = 1000
CACHE = 8 * BLOCK


def texts(number):
    chance = random.Random(number)
    return ["".join(chance.choices("abcdefgh .", k=chance.randint(1, 9000))) for _ in range(400)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A prepared source of 3.6 MB in 15 parts."""
    root = tmp_path_factory.mktemp("prepared")
    character_tokenizer(root / "tokenizer")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MIN_PART_BYTES", "MAX_PART_BYTES"):
            patch.setattr(sources.source, name, 120_000)
        settings = PreparationSettings(root / "data", validation_fraction=0.05, num_workers=0, progress=False)
        found = prepare_encoded("web", InMemory(texts(0)), TextEncoder(root / "tokenizer"), settings)
    return Path(found.train).parent


@pytest.fixture
def lagging(monkeypatch):
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.001)
    with lagging_store() as store:
        yield store


@pytest.fixture
def store(lagging, folder, tmp_path):
    """A copy of the source behind a URL, with a cache of a seventh of it."""
    shutil.copytree(folder, tmp_path / "there" / folder.name)
    return DataStore(f"lagging://{tmp_path}/there", str(tmp_path / "here"), CACHE / 1e9, BLOCK / 2**20)


def bytes_kept(store):
    return sum(file.stat().st_size for file in store.cache_folder.glob("*/*"))


def test_windows_are_those_of_the_folder_with_a_cache_of_a_seventh(store, folder):
    here = TokenizedSource(folder / "train")
    there = TokenizedSource(store.files(folder.name, "train"))
    assert (there.fingerprint, there.num_tokens) == (here.fingerprint, here.num_tokens)
    assert here.num_tokens * 2 > 6 * CACHE
    windows = list(range(here.num_windows(LENGTH)))
    random.Random(1).shuffle(windows)
    for window in windows[:120]:
        for found, expected in zip(there.window(window, LENGTH), here.window(window, LENGTH), strict=True):
            np.testing.assert_array_equal(found, expected)
        assert bytes_kept(store) <= CACHE
    assert bytes_kept(store) > CACHE / 2
    there.verify()
    assert there.num_longer_than(5000) == here.num_longer_than(5000) > 0


def test_what_is_there_is_not_asked_for_again(store, folder, lagging):
    store = replace(store, cache_gb=1)
    for _ in range(2):  # the second as another process
        source = TokenizedSource(store.files(folder.name, "train"))
        for window in range(20):
            source.window(window, LENGTH)
        asked, lagging.requests[:] = list(lagging.requests), []
    assert [Path(path).name for path, *_ in asked] == ["manifest.json"]


def test_requests_are_blocks(store, folder, lagging):
    TokenizedSource(store.files(folder.name, "train")).window(0, LENGTH)
    sizes = {Path(path).suffix: end - start for path, start, end in lagging.requests}
    assert sizes[".tokens"] == BLOCK
    assert sizes[".digests"] < 2000


def test_it_pickles_as_its_place(store, folder):
    source = TokenizedSource(store.files(folder.name, "train"))
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.window(3, LENGTH)[0], source.window(3, LENGTH)[0])


def test_upload_goes_on_and_ends_with_the_manifest(store, folder, lagging, tmp_path):
    empty = replace(store, url=f"lagging://{tmp_path}/empty")
    upload(folder, empty, progress=False)
    written = [Path(path) for path, *_ in lagging.requests]
    assert [f"{path.parent.name}/{path.name}" for path in written[-2:]] == [
        "validation/manifest.json",
        "train/manifest.json",
    ]
    lagging.requests.clear()
    written[3].write_bytes(b"cut")
    upload(folder, empty, progress=False)
    assert [Path(path) for path, *_ in lagging.requests] == [written[3], *written[-2:]]
    np.testing.assert_array_equal(
        TokenizedSource(empty.files(folder.name, "train")).span(0, 100)[0],
        TokenizedSource(folder / "train").span(0, 100)[0],
    )


def test_lost_connections_are_asked_again(store, folder, lagging):
    lagging.failures = 3
    source = TokenizedSource(store.files(folder.name, "train"))
    np.testing.assert_array_equal(source.window(5, LENGTH)[0], TokenizedSource(folder / "train").window(5, LENGTH)[0])
    assert lagging.failures == 0


def test_a_connection_that_does_not_come_back_has_a_deadline(store, folder, lagging, monkeypatch):
    source = TokenizedSource(store.files(folder.name, "train"))
    monkeypatch.setattr(remote, "RETRY_SECONDS", 0.05)
    lagging.failures = 10**6
    with pytest.raises(
        OSError, match=r"part-000000\.digests could not be read for 0.05 s \(.*the connection was reset\); try again"
    ):
        source.window(0, LENGTH)


@pytest.mark.parametrize("kind", ["tokens", "documents", "digests"])
def test_an_object_that_has_changed_is_refused(store, folder, kind):
    file = Path(store.url.removeprefix("lagging://"), folder.name, "train", f"part-000000.{kind}")
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    source = TokenizedSource(store.files(folder.name, "train"))
    with pytest.raises(
        ValueError, match=rf"part-000000\.{kind} is damaged.*; remove lagging:.*{folder.name} and prepare"
    ):
        source.window(0, LENGTH)


def test_a_block_that_is_damaged_on_this_disk_is_fetched_anew(store, folder):
    source = TokenizedSource(store.files(folder.name, "train"))
    expected = source.window(0, LENGTH)[0]
    for file in store.cache_folder.glob("*/*"):
        file.write_bytes(bytes(file.stat().st_size))
    again = TokenizedSource(store.files(folder.name, "train"))
    with pytest.raises(ValueError, match=r"\.digests is damaged"):
        again.window(0, LENGTH)
    np.testing.assert_array_equal(again.window(0, LENGTH)[0], expected)


def test_a_cache_that_a_killed_process_left_is_used(store, folder):
    """Half a block under another name, and a count that is no number."""
    left = store.cache_folder / "ab" / "abcd.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(CACHE))
    (store.cache_folder / "bytes").write_text("9" * 30)
    source = TokenizedSource(store.files(folder.name, "train"))
    for window in range(0, source.num_windows(LENGTH), 7):
        source.window(window, LENGTH)
    assert not left.exists()
    assert 0 < bytes_kept(store) <= CACHE


def test_what_is_not_there(store):
    with pytest.raises(FileNotFoundError, match=r"lagging://.*/web-0/train holds no finished prepared source"):
        TokenizedSource(store.files("web-0", "train"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "some/folder"}, "data_dir.url is invalid: 'some/folder'; give a URL such as s3://bucket/data"),
        ({"local": "s3://a"}, "data_dir.local is invalid: 's3://a'; give a folder of this machine"),
        ({"block_mb": 0.1}, "data_dir.block_mb is invalid: 0.1; give a multiple of 0.0625"),
        ({"block_mb": 0}, "data_dir.block_mb is invalid: 0; give a multiple of 0.0625"),
        ({"cache_gb": 0.001}, "data_dir.cache_gb is invalid: 0.001; give at least 0.0041943, room for 4 blocks"),
    ],
)
def test_settings_that_cannot_work(settings, words):
    with pytest.raises(ValueError, match=words):
        DataStore(**{"url": "s3://bucket/data", **settings})


def test_a_full_disk_is_no_end(store, folder, monkeypatch, caplog):
    def full(self, *arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    source = TokenizedSource(store.files(folder.name, "train"))
    np.testing.assert_array_equal(source.window(2, LENGTH)[0], TokenizedSource(folder / "train").window(2, LENGTH)[0])
    assert bytes_kept(store) == 0
