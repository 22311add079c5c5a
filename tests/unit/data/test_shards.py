import pickle
import shutil

import numpy as np
import pytest

from nbg_lightning.data import shards, sources
from nbg_lightning.data.prepare import prepare_source
from nbg_lightning.data.shards import TokenizedSource, token_dtype
from nbg_lightning.data.sources import InMemory
from nbg_lightning.data.tokenizer import Tokenizer, train_bpe

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
    monkeypatch.setattr(shards, "MAX_OPEN_PARTS", 2)
    source = TokenizedSource(folder)
    window = source.window(3, 500)
    assert source._open.cache_info().currsize == 2
    data = pickle.dumps(source)
    assert len(data) < 1000
    np.testing.assert_array_equal(pickle.loads(data).window(3, 500)[0], window[0])


@pytest.mark.parametrize("kind", ["tokens", "documents"])
def test_truncated_shard(folder, tmp_path, kind):
    copy = tmp_path / "text-key" / "train"
    shutil.copytree(folder, copy)
    file = copy / f"part-000004.{kind}"
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(
        ValueError, match=rf"part-000004.{kind} has .*truncated or changed\): delete .*text-key and run again"
    ):
        TokenizedSource(copy)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=rf"part-000004.{kind} is missing: delete .*text-key and run again"):
        TokenizedSource(copy)
    file.write_bytes(data)
    TokenizedSource(copy).verify()
    file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    changed = TokenizedSource(copy)  # the size is right
    with pytest.raises(ValueError, match=r"part-000004.* has changed"):
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


def test_token_dtype():
    assert token_dtype(65_536) == np.uint16
    assert token_dtype(65_537) == np.uint32
