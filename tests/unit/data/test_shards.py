import gc
import json
import os
import pickle
import random
import re
import shutil

import numpy as np
import pytest

from nbg_lightning.data import sources
from nbg_lightning.data.checked_array import CheckedArray
from nbg_lightning.data.open_parts import OpenParts
from nbg_lightning.data.prepare import prepare_source
from nbg_lightning.data.prepared_files import LocalFiles
from nbg_lightning.data.shards import TokenizedSource
from nbg_lightning.data.sources import InMemory
from nbg_lightning.data.tokenizer import Tokenizer, train_bpe
from nbg_lightning.digests import FileDigest, unseal
from nbg_lightning.testing.damage import damaged

TEXTS = ["", *[f"document number {i} " * (i % 9 + 1) for i in range(120)], "x"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(train_bpe(TEXTS, 280, tmp_path_factory.mktemp("tokenizer") / "bpe"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources.source, "MIN_PART_BYTES", 200)
        patch.setattr(sources.source, "MAX_PART_BYTES", 200)
        root = tmp_path_factory.mktemp("prepared")
        return prepare_source("text", InMemory(TEXTS), tokenizer.folder, root, 0.0, 0, 0, False).train


@pytest.fixture(scope="module")
def naive(tokenizer):
    """All tokens in a row, and whether each begins a document."""
    documents = [[1, *ids, 2] for ids in tokenizer.encode_batch(TEXTS) if ids]
    return np.concatenate(documents), np.concatenate([np.arange(len(d)) == 0 for d in documents])


def test_sizes(folder, naive):
    source = TokenizedSource(folder)
    assert (source.name, source.split, source.vocab_size) == ("text", "train", 280)
    assert source.num_tokens == len(naive[0])
    assert source.num_documents == naive[1].sum() == len(TEXTS) - 1
    assert source.num_bytes == sum(len(t.encode()) for t in TEXTS)
    assert source.longest_document == np.diff(np.flatnonzero([*naive[1], True])).max()
    assert len(source._parts) > 30
    assert "121 documents" in repr(source)


@pytest.mark.parametrize("length", [1, 2, 7, 64, 1000])
def test_windows_equal_naive_concatenation(folder, naive, length):
    tokens, begins = naive
    source = TokenizedSource(folder)
    assert source.num_windows(length) == (len(tokens) - 1) // length
    for index in range(source.num_windows(length)):
        window, starts = source.window(index, length)
        expected = slice(index * length, index * length + length + 1)
        assert window.dtype == starts.dtype == np.int64
        np.testing.assert_array_equal(window, tokens[expected])
        np.testing.assert_array_equal(starts, np.flatnonzero(begins[expected]))


def test_windows_out_of_range(folder, naive):
    source = TokenizedSource(folder)
    assert source.num_windows(len(naive[0])) == 0
    assert source.num_windows(len(naive[0]) - 1) == 1
    for index in (-1, source.num_windows(64)):
        with pytest.raises(IndexError, match=f"window {index} of source 'text'"):
            source.window(index, 64)


def test_span(folder, naive):
    tokens, begins = naive
    source = TokenizedSource(folder)
    for begin, end in ((0, 1), (5, 400), (0, len(tokens)), (len(tokens) - 1, len(tokens))):
        span, starts = source.span(begin, end)
        np.testing.assert_array_equal(span, tokens[begin:end])
        np.testing.assert_array_equal(starts, np.flatnonzero(begins[begin:end]))
    for begin, end in ((-1, 4), (4, 4), (0, len(tokens) + 1)):
        with pytest.raises(IndexError, match="of source 'text'"):
            source.span(begin, end)


def test_pickles_small_and_with_few_open_parts(folder, monkeypatch):
    monkeypatch.setattr(LocalFiles, "open_parts", OpenParts(2))
    source = TokenizedSource(folder)
    window = source.window(3, 500)
    assert len(LocalFiles.open_parts) == 2
    data = pickle.dumps(source)
    assert len(data) < 1000
    np.testing.assert_array_equal(pickle.loads(data).window(3, 500)[0], window[0])


def test_sources_share_the_open_parts_of_a_process(folder, monkeypatch):
    monkeypatch.setattr(LocalFiles, "open_parts", OpenParts(100))
    sources = [TokenizedSource(folder) for _ in range(2)]
    windows = [source.window(3, 500)[0] for source in sources]
    both = len(LocalFiles.open_parts)
    np.testing.assert_array_equal(windows[0], windows[1])
    del sources[1]
    gc.collect()
    assert len(LocalFiles.open_parts) == both // 2
    del sources
    gc.collect()
    assert len(LocalFiles.open_parts) == 0
    np.testing.assert_array_equal(windows[0], windows[1])


def test_only_the_first_process_of_a_node_compares_sizes(folder, monkeypatch):
    """And a part's as it is opened: with 198,000 parts, comparing all on every rank took an hour."""
    compared, check = [], LocalFiles.check_size
    monkeypatch.setattr(LocalFiles, "check_size", lambda *of: (compared.append(of[1]), check(*of)))
    first = TokenizedSource(folder)
    num_parts = len(first.manifest["parts"])
    assert len(compared) == 2 * num_parts > 2
    compared.clear()
    for source in (pickle.loads(pickle.dumps(first)), TokenizedSource(folder, check_sizes=False)):
        assert compared == []
        source.window(0, 16)
        assert sorted(compared) == ["part-000000.documents", "part-000000.tokens"]
        compared.clear()


def test_counting_long_documents_reads_no_offsets_where_none_is_longer(folder, monkeypatch):
    source = TokenizedSource(folder)
    assert source.num_longer_than(source.longest_document - 1) > 0
    monkeypatch.setattr(source, "_begins", None)  # reading offsets would fail
    assert source.num_longer_than(source.longest_document) == 0


def test_open_parts_keep_no_file_open(folder):
    before = len(os.listdir("/proc/self/fd"))
    source = TokenizedSource(folder)
    source.window(3, 500)
    assert len(source._kept) >= 2
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("kind", ["tokens", "documents"])
def test_truncated_shard(folder, tmp_path, kind):
    copy = tmp_path / "text-key" / "train"
    shutil.copytree(folder, copy)
    file = copy / f"part-000004.{kind}"
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(
        ValueError, match=rf"part-000004.{kind} has .*truncated or changed\); delete .*text-key and run again"
    ):
        TokenizedSource(copy)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=rf"part-000004.{kind} is missing; delete .*text-key and run again"):
        TokenizedSource(copy)
    file.write_bytes(data)
    TokenizedSource(copy).verify()
    file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    changed = TokenizedSource(copy)  # the size is right
    with pytest.raises(ValueError, match=rf"part-000004.{kind} is damaged in block 0"):
        changed.verify()


def test_unfinished_or_foreign_folder(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished prepared source"):
        TokenizedSource(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="format 'other'"):
        TokenizedSource(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        TokenizedSource(tmp_path)


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["manifest.json", "part-000004.tokens", "part-000004.documents", "part-000004.digests"]
)
def test_damage_is_found_by_reading_alone(folder, naive, tmp_path, name):
    """Whoever reads all windows gets the right tokens, or an error that names the file; never others."""
    copy = shutil.copytree(folder, tmp_path / "text-key" / "train")
    good = (copy / name).read_bytes()
    draw = random.Random(name)
    for _ in range(60):
        (copy / name).write_bytes(damaged(good, draw))
        with pytest.raises((ValueError, FileNotFoundError), match=re.escape(name)) as caught:
            TokenizedSource(copy).window(0, len(naive[0]) - 1)
        assert "\n" not in str(caught.value)


def test_swapped_parts_are_found(folder, naive, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "text-key" / "train")
    source = TokenizedSource(copy)
    sizes = [(part["tokens"], part["documents"]) for part in source._parts]
    first, second = next(
        (i, j) for i in range(len(sizes)) for j in range(i + 1, len(sizes)) if sizes[i] == sizes[j]
        and source._parts[i]["digest"] != source._parts[j]["digest"]
    )  # fmt: skip
    for kind in ("tokens", "documents", "digests"):
        one, other = (copy / f"{source._parts[index]['file']}.{kind}" for index in (first, second))
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)
    with pytest.raises(ValueError, match=r"\.digests is damaged"):
        TokenizedSource(copy).window(0, len(naive[0]) - 1)


def test_a_search_that_damage_leads_astray_says_so(tmp_path):
    """The middle is damaged, the block of the result is not."""
    numbers = np.arange(40_000, dtype="<u8") * 3
    file = tmp_path / "numbers"
    numbers.tofile(file)
    expected = FileDigest.of(file.read_bytes(), 1 << 16)
    array = CheckedArray(file, "<u8", expected, "delete it")
    assert array.search(30, 36) == (10, 12)
    changed = numbers.copy()
    changed[19_000:21_000] = 0
    changed.tofile(file)
    with pytest.raises(ValueError, match="numbers is damaged in block 2"):
        CheckedArray(file, "<u8", expected, "delete it").search(60, 66)


@pytest.fixture
def unsealed(folder, tmp_path):
    """As older versions have written it."""
    copy = shutil.copytree(folder, tmp_path / "text-key" / "train")
    manifest = unseal((copy / "manifest.json").read_bytes())
    del manifest["sealed"]
    for part in manifest["parts"]:
        del part["digests"]
        (copy / f"{part['file']}.digests").unlink()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_data_without_digests_is_read(unsealed, folder, naive):
    source = TokenizedSource(unsealed)
    assert not source.is_checked
    assert TokenizedSource(folder).is_checked
    np.testing.assert_array_equal(source.window(0, len(naive[0]) - 1)[0], naive[0])
    source.verify()


def test_an_id_beyond_the_vocabulary_is_named(unsealed):
    file = unsealed / "part-000004.tokens"
    tokens = np.fromfile(file, "<u2")
    tokens[3] = 60_000
    tokens.tofile(file)
    source = TokenizedSource(unsealed)
    with pytest.raises(
        ValueError, match=r"part-000004\.tokens is invalid: token 3 \(in document \d+\) is 60000, beyond the "
    ):
        source.window(0, source.num_tokens - 1)
