"""Device files, handwritten or measured, and invalid ones."""

import dataclasses
import re

import pytest
import yaml

from nbg_lightning.planning.device_file import device_of, read_device, write_device
from nbg_lightning.planning.devices import DEVICES, Device, Rates

HAND = {"name": "L40S", "memory": 47.5, "products": 362, "bandwidth": 864}


def written(folder, **values):
    file = folder / "device.yaml"
    file.write_text(yaml.safe_dump({**HAND, **values}))
    return file


def test_what_is_written_is_read(tmp_path):
    rates = {"float32": Rates(0.0625, {"SFT": 0.125})}
    device = dataclasses.replace(DEVICES["h100"], rates=rates, kind="cpu", measured=True, decode_bandwidth=4.25)
    write_device(device, tmp_path / "new" / "device.yaml", "a comment")
    assert read_device(tmp_path / "new" / "device.yaml") == device


def test_four_lines_are_enough(tmp_path):
    device = device_of(str(written(tmp_path)))
    assert device == Device("L40S", 47.5, 362, None, 864, link=864, network=864)
    (tmp_path / "device.json").write_text('{"name": "x", "memory": 1, "products": 2, "bandwidth": 3, "in_node": 4}')
    assert device_of(str(tmp_path / "device.json")).in_node == 4


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"memmory": 1}, "unknown key 'memmory' (did you mean memory"),
        ({"memory": 0}, "memory of .* is 0; give a finite number above 0"),
        ({"memory": float("nan")}, "memory of .* is nan"),
        ({"products": True}, "products of .* is True; give a number"),
        ({"products": {"bfloat16": 1}}, "products of"),
        ({"bandwidth": -1}, "bandwidth of .* is -1"),
        ({"link": "fast"}, "link of .* is 'fast'; give a number"),
        ({"efficiency": 45}, "efficiency of .* is 45; give a share"),
        ({"in_node": 2.5}, "in_node of .* is 2.5; give a whole number"),
        ({"kind": "tpu"}, "kind of .* is 'tpu'; give cuda or cpu"),
        ({"measured": "yes!"}, "measured of"),
        ({"rates": {"int8": {}}}, "rates of .*; give the keys bfloat16 and float32"),
        ({"rates": {"float32": {"heads": {}}}}, "rates.float32 of .* give the keys blocks and heads"),
        ({"rates": {"float32": {"blocks": 1, "heads": {"SFT": 0}}}}, "rates.float32.heads.SFT of .* is 0"),
        ({"rates": {"float32": {"blocks": 1, "heads": [1]}}}, "give a rate for each task"),
    ],
)
def test_a_file_that_is_no_device_is_refused_in_one_line(tmp_path, values, said):
    with pytest.raises(ValueError, match=r"^device is invalid: ") as refused:
        read_device(written(tmp_path, **values))
    assert re.search(said.replace("(", r"\("), str(refused.value)) and "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "- 1", "name: x", "{", "name: !!python/object:os.system {}", "\x00", "[" * 5000])
def test_other_texts_are_refused(tmp_path, text):
    file = tmp_path / "device.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"^device is invalid: ") as refused:
        read_device(file)
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "nowhere.yaml", tmp_path):
        with pytest.raises(ValueError, match="cannot be read"):
            read_device(path)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(ValueError, match="more than 1,048,576 bytes"):
        read_device(large)


def test_this_machine_without_measuring():
    device = device_of("cpu")
    assert device.kind == "cpu" and device.memory > 0.5 and not device.measured
