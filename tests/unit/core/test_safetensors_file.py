"""Files written tensor by tensor are those that safetensors reads."""

import errno
import resource
import signal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from nbg_lightning.core.safetensors_file import write_safetensors

SHAPES = {"b": (3, 5), "a": (7,), "scalar": (), "none": (0, 4), "\u00e9": (1, 2, 3)}


def tensors():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_read_is_what_was_written(tmp_path, dtype):
    given = tensors()
    given["b"] = given["b"].t().contiguous().t()  # not contiguous
    file = tmp_path / "model.safetensors"
    written = write_safetensors(file, SHAPES, dtype, iter(given.items()))
    assert written == sum(tensor.numel() for tensor in given.values()) * dtype.itemsize
    read = load_file(file)
    assert read.keys() == given.keys()
    for name, tensor in given.items():
        assert torch.equal(read[name], tensor.to(dtype)), name
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    assert int.from_bytes(file.read_bytes()[:8], "little") % 8 == 0


def test_one_tensor_is_held_at_a_time(tmp_path):
    alive = []

    def come():
        for number in range(3):
            assert sum(alive) <= 1
            alive.append(1)
            yield str(number), torch.zeros(4)
            alive.pop()

    write_safetensors(tmp_path / "file", {str(number): (4,) for number in range(3)}, torch.float32, come())
    assert alive == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda given: given[:2], "scalar"),
        (lambda given: [given[1], given[0], *given[2:]], "a"),
        (lambda given: [(given[0][0], torch.zeros(5, 3)), *given[1:]], r"\[5, 3\]"),
        (lambda given: [*given, ("more", torch.zeros(1))], "more"),
    ],
)
def test_other_tensors_than_announced_are_refused(tmp_path, change, named):
    with pytest.raises(ValueError, match=named):
        write_safetensors(tmp_path / "file", SHAPES, torch.float32, change(list(tensors().items())))


@pytest.fixture
def little_room():
    """Files of this process may have 10,000 bytes."""
    limits, action = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, action)


def test_no_room_within_a_tensor_says_the_cause(tmp_path, little_room):
    with pytest.raises(OSError, match="too large") as caught:
        write_safetensors(tmp_path / "file", {"a": (5000,)}, torch.float32, [("a", torch.zeros(5000))])
    assert caught.value.errno == errno.EFBIG
