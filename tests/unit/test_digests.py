"""Digests of blocks and sealed JSON: written and verified in pieces of any size."""

import io
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.digests import CheckedFile, FileDigest, HashingStream, read_sealed, seal, unseal

SMALL = settings(derandomize=True, deadline=None, max_examples=60)


@SMALL
@given(pieces=st.lists(st.binary(max_size=40), max_size=12), block=st.integers(1, 33))
def test_a_stream_written_in_pieces_has_the_digest_of_the_whole(tmp_path_factory, pieces, block):
    file = tmp_path_factory.mktemp("stream") / "file"
    with HashingStream(file, block) as stream:
        for piece in pieces:
            stream.write(piece)
            assert stream.tell() >= len(piece)
    whole = b"".join(pieces)
    assert file.read_bytes() == whole
    assert stream.digest == FileDigest.of(whole, block)
    assert FileDigest.from_json(stream.digest.to_json()) == stream.digest


@SMALL
@given(data=st.binary(min_size=1, max_size=200), block=st.integers(1, 64), draw=st.randoms(use_true_random=False))
def test_reading_in_pieces_gives_the_file(tmp_path_factory, data, block, draw):
    file = tmp_path_factory.mktemp("checked") / "file"
    file.write_bytes(data)
    with CheckedFile(file, FileDigest.of(data, block), "write it again") as checked:
        for _ in range(8):
            begin, length = draw.randrange(len(data) + 5), draw.randrange(len(data) + 5)
            assert checked.seek(begin) == begin
            assert checked.read(length) == data[begin : begin + length]
        checked.seek(-1, os.SEEK_END)
        assert checked.read() == data[-1:]
        assert io.BufferedReader(checked).seek(0) == 0


@SMALL
@given(
    data=st.binary(min_size=1, max_size=200), block=st.integers(1, 64), place=st.integers(0, 199), bit=st.integers(0, 7)
)
def test_a_flipped_bit_is_found_by_who_reads_its_block(tmp_path_factory, data, block, place, bit):
    place %= len(data)
    file = tmp_path_factory.mktemp("flipped") / "file"
    file.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
    first = place // block * block
    with CheckedFile(file, FileDigest.of(data, block), "write it again") as checked:
        assert checked.read(first) == data[:first]
        with pytest.raises(ValueError, match=rf"is damaged between bytes {first} and .*; write it again$"):
            checked.read(1)
        with pytest.raises(ValueError, match="is damaged between"):
            checked.check()


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b""])
def test_another_size_is_found_on_opening(tmp_path, change):
    file = tmp_path / "file"
    file.write_bytes(change(b"12345"))
    with pytest.raises(ValueError, match="bytes instead of 5; get it again"):
        CheckedFile(file, FileDigest.of(b"12345"), "get it again")


def test_a_file_of_nothing(tmp_path):
    (tmp_path / "file").touch()
    with CheckedFile(tmp_path / "file", FileDigest.of(b""), "") as checked:
        checked.check()
        assert checked.read() == b""


@SMALL
@given(value=st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=5), st.none()), max_size=4))
@pytest.mark.parametrize("indent", [None, 1])
def test_sealed_objects_come_back(value, indent):
    value.pop("seal", None)
    assert unseal(seal(value, indent).encode()) == value


@pytest.mark.parametrize("indent", [None, 1])
def test_any_change_of_a_sealed_object_is_found(indent):
    data = seal({"tokens": 12, "name": "web", "parts": [{"file": "a b"}]}, indent).encode()
    for place in range(len(data)):
        for bit in range(8):
            with pytest.raises(ValueError, match="seal"):
                unseal(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        with pytest.raises(ValueError, match="seal"):
            unseal(data[:place])
    draw = random.Random(0)
    for _ in range(100):
        with pytest.raises(ValueError, match="seal"):
            unseal(data + draw.choice([b" ", b"\n", b"}", b"x", draw.randbytes(3)]))


def test_objects_without_a_seal_are_read_where_none_is_required(tmp_path):
    file = tmp_path / "file.json"
    file.write_text('{"format": 1}\n')
    assert read_sealed(file, "make it again", lambda value: value["format"] > 1) == ({"format": 1}, False)
    with pytest.raises(ValueError, match=r"file\.json is damaged: it does not end with its seal; make it again"):
        read_sealed(file, "make it again", lambda value: True)
    file.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is damaged"):
        read_sealed(file, "make it again", lambda value: True)
