"""Pickles are parsed as data: the same result as pickle, in bounded time and memory, also for hostile ones."""

import io
import os
import pickle
import resource
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.core.plain_archive import FilePart, check_archive
from nbg_lightning.core.plain_pickle import PickledName, PickledObject, PickleReader

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300)
)
KEYS = st.text(max_size=20) | st.integers(-(2**31), 2**31) | st.tuples(st.integers(0, 9), st.text(max_size=3))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(value=VALUES, protocol=st.sampled_from([3, 4, 5]))
def test_plain_values_are_what_was_written(value, protocol):
    assert PickleReader(pickle.dumps(value, protocol)).read() == value


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.binary(max_size=200), at=st.integers(0, 60))
def test_bytes_that_are_no_pickle_are_refused_or_read(data, at):
    """Anything but ValueError would be a traceback for the user."""
    good = pickle.dumps({"a": [1, 2.0, ("b", None)]})
    for text in (data, good[:at] + data + good[at:]):
        with suppress(ValueError):
            PickleReader(text).read()


def test_objects_are_records():
    found = PickleReader(pickle.dumps(OrderedDict(a=complex(1, 2)))).read()
    assert isinstance(found, PickledObject)
    assert found.name == PickledName("collections", "OrderedDict")
    assert found.items is not None
    assert found.items["a"].arguments == (1.0, 2.0)


DEEP = b")" + b"\x85" * 200_000
DOUBLED = b")\x94" + b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x94" for i in range(200))
HOSTILE = {
    "a memo of 4 GB": b"\x80\x02Nr\xff\xff\xff\x1f.",
    "a memo of a large number as text": b"\x80\x02Np999999999\n.",
    "a place of the memo that is not": b"\x80\x04j\xff\xff\xff\xff.",
    "bytes without their values": b"\x80\x04B\xff\xff\xff\x7f.",
    "bytes of 8 bytes of length": b"\x80\x04\x8e\xff\xff\xff\xff\x0f\0\0\0.",
    "a byte array": b"\x80\x05\x96\xff\xff\xff\xff\x0f\0\0\0.",
    "a text of 8 bytes of length": b"\x80\x04\x8d\xff\xff\xff\xff\x0f\0\0\0.",
    "a text without its letters": b"\x80\x04X\xff\xff\xff\xff.",
    "a frame without end": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
    "a number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a number as text": b"\x80\x02L" + b"9" * 100_000 + b"L\n.",
    "a key that is nested": b"\x80\x04}" + DEEP + b"Ns.",
    "a key that doubles": b"\x80\x04}" + DOUBLED + b"Ns.",
    "keys of one hash": b"\x80\x04}("
    + b"".join(b"\x8a\x0b" + (k * (2**61 - 1)).to_bytes(11, "little") + b"N" for k in range(1, 100_000))
    + b"u.",
    "copies of the top": b"\x80\x04]" + b"2" * 100 + b".",
    "an extension": b"\x80\x02\x82\x01.",
    "a buffer outside": b"\x80\x05\x97.",
    "a persistent id": b"\x80\x02NQ.",
    "a call of what is no tuple": b"\x80\x04\x8c\x01a\x8c\x01b\x93NR.",
    "nothing": b"",
    "no end": b"\x80\x04N",
    "two values": b"\x80\x04NN.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_take_memory_or_time_is_refused_at_once(name):
    begin, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"is not of plain data|is broken at byte|is no key"):
        PickleReader(HOSTILE[name]).read()
    assert time.process_time() - begin < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


# -- archives ----------------------------------------------------------------------------------------------------------


def saved(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    stream.seek(0)
    return stream


def with_pickle(data, extra=()):
    """An archive of torch with another pickle."""
    source, out = zipfile.ZipFile(saved({"w": torch.arange(16)})), io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for member in source.namelist():
            target.writestr(member, data if member.endswith("data.pkl") else source.read(member))
        for name, content in extra:
            target.writestr(name, content)
    out.seek(0)
    return out


ORDINARY = {
    "tensors": {"a": torch.randn(3, 4), "b": torch.ones((), dtype=torch.bfloat16), "c": torch.zeros(0)},
    "views": torch.arange(12).reshape(3, 4).t()[1:],
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "sparse": torch.eye(3).to_sparse(),
    "small floats": torch.zeros(4).to(torch.float8_e4m3fn),
    "unsigned": torch.zeros(4, dtype=torch.uint16),
    "expanded": torch.ones(1).expand(10),
    "state": OrderedDict(step=3, lr=1e-4, betas=(0.9, 0.95), names=["a"], none=None, flag=True),
    "words": {"bytes": b"\xff", "array": bytearray(b"abc"), "set": {1, 2}, "z": 1j, "s": torch.Size([1, 2])},
    "types": [torch.float32, torch.strided, torch.device("cpu")],
    "random state": torch.get_rng_state(),
    "keys": {("a", 1): 2, 3: 4, None: 5},
    "shared": [x := [1, 2, 3], x, {"x": x}],
}


@pytest.mark.parametrize("name", ORDINARY)
def test_what_states_hold_passes_and_is_left_at_its_begin(name):
    stream = saved(ORDINARY[name])
    check_archive(stream)
    assert stream.tell() == 0
    torch.load(stream, weights_only=True)


def pickled(body):
    return b"\x80\x02" + body + b"."


TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nLongStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x10tQK\0"
    b"%s%s\x89N tR"
)
BILLION = b"J\0\0\0\x40"
HOSTILE_ARCHIVES = {
    "a byte array of 2 GB": (pickled(b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R"), "a byte array of"),
    "the same by its old name": (pickled(b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R"), "a byte array of"),
    "a tensor by its size": (pickled(b"ctorch\nTensor\n" + BILLION + b"\x85\x81"), r"calls torch\.Tensor"),
    "a storage by its size": (
        pickled(b"ctorch.storage\nUntypedStorage\n" + BILLION + b"\x85R"),
        r"calls torch\.storage\.UntypedStorage",
    ),
    "a value repeated": (
        pickled((TENSOR % (BILLION + b"\x85", b"K\0\x85")).replace(b" ", b"")),
        "declares a tensor of 1,073,741,824 elements",
    ),
    "the same by its type": (
        pickled(
            b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\nctorch\nTensor\n(NK\0"
            + BILLION
            + b"\x85K\0\x85\x89NtNtR"
        ),
        "declares a tensor of",
    ),
    "a size below 0": (pickled((TENSOR % (b"J\xff\xff\xff\xff\x85", b"K\x01\x85")).replace(b" ", b"")), "counts"),
    "nested lists": (pickled(b"]" * 5000 + b"a" * 4999), "nested 101 deep"),
    "doubled lists": (
        pickled(b"]]q\0a" + b"".join(b"](h%ch%ceq%ca" % (i, i, i + 1) for i in range(60))),
        "with those that are repeated",
    ),
    "a list in itself": (pickled(b"]q\0h\0a"), "holds itself"),
    "a nested key": (pickled(b"}" + DEEP + b"Ns"), "is no key"),
}


@pytest.mark.parametrize("name", HOSTILE_ARCHIVES)
def test_an_archive_that_asks_for_more_than_it_has_is_refused(name):
    data, said = HOSTILE_ARCHIVES[name]
    begin = time.process_time()
    with pytest.raises(ValueError, match=said) as caught:
        check_archive(with_pickle(data))
    assert "\n" not in str(caught.value)
    assert time.process_time() - begin < 2


def test_archives_that_two_readers_read_otherwise_are_refused():
    with pytest.raises(ValueError, match="two of its members have one name"):
        check_archive(with_pickle(pickled(b"N"), [("archive/DATA.pkl", b"")]))
    with pytest.raises(ValueError, match=r"2 members called data\.pkl"):
        check_archive(with_pickle(pickled(b"N"), [("other/data.pkl", b"")]))
    for data in (b"", b"no archive", saved(1).getvalue()[:-30]):
        with pytest.raises(ValueError, match=r"no archive of torch\.save"):
            check_archive(io.BytesIO(data))


def test_a_part_of_a_file_is_a_file():
    part = FilePart(io.BytesIO(b"0123456789"), 2, 5)
    assert (part.read(), part.read(), part.seek(-2, os.SEEK_END), part.read(9)) == (b"23456", b"", 3, b"56")
    part.seek(1)
    assert (part.read(2), part.tell()) == (b"34", 3)
    part.seek(99)
    assert part.read() == b""


def test_reading_stays_in_the_memory_of_the_file():
    """Run in a separate process, so that the peak memory is that of reading."""
    program = (
        "import resource\n"
        "from nbg_lightning.core.plain_pickle import PickleReader\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    PickleReader(b'\\x80\\x04]r\\xff\\xff\\xff\\x1f.').read()\n"
        "except ValueError as error:\n    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.split("\n")[:2] == ["the pickle is broken at byte 8", "True"]
