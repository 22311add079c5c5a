"""Records by key: torn lines, duplicate keys, other settings, two concurrent builds."""

import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction

import pytest

from nbg_lightning.construction.outcomes import OutcomeCounts
from nbg_lightning.construction.store import Store


def test_records_are_there_when_the_file_is_opened_again(tmp_path, keyed):
    lines = keyed(tmp_path / "records.jsonl")
    assert len(lines) == 0
    assert lines.get("a") is None
    lines.add([{"key": "a", "text": "line\u2028separator\nand ü"}, {"key": "b", "half": "\ud800"}])
    lines.add([{"key": "c", "fraction": Fraction(1, 3)}])
    lines.close()
    again = keyed(tmp_path / "records.jsonl")
    assert list(again) == ["a", "b", "c"]
    assert again["a"]["text"] == "line\u2028separator\nand ü"
    assert again["b"]["half"] == "\ud800"
    assert again["c"]["fraction"] == "1/3"
    assert "d" not in again


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_made_again(tmp_path, cut, keyed):
    file = tmp_path / "records.jsonl"
    lines = keyed(file)
    lines.add([{"key": "a", "n": 1}])
    whole = file.read_bytes()
    lines.add([{"key": "b", "n": 2, "text": "some text"}])
    lines.close()
    file.write_bytes(file.read_bytes()[:-cut])
    lines = keyed(file)
    assert list(lines) == ["a"]
    assert file.read_bytes() == whole
    lines.add([{"key": "b", "n": 3}])
    assert lines["b"]["n"] == 3
    assert [json.loads(line)["key"] for line in file.read_text().splitlines()] == ["a", "b"]


def test_a_damaged_line_in_the_middle_is_named(tmp_path, keyed):
    file = tmp_path / "records.jsonl"
    file.write_text('{"key": "a"}\nnonsense\n{"key": "b"}\n')
    with pytest.raises(ValueError, match=r"records\.jsonl, line 2 is invalid: no record"):
        keyed(file)


def test_keys_differ_unless_they_are_to_be_replaced(tmp_path, keyed):
    lines = keyed(tmp_path / "records.jsonl")
    lines.add([{"key": "a", "n": 1}])
    with pytest.raises(ValueError, match="key is invalid: 'a'"):
        lines.add([{"key": "b"}, {"key": "a"}])
    assert "b" not in lines  # all of a call, or nothing
    lines.add([{"key": "a", "n": 2}], replace=True)
    lines.close()
    assert keyed(tmp_path / "records.jsonl")["a"]["n"] == 2


def test_a_folder_is_not_continued_with_other_settings(tmp_path):
    about = {"settings": {"threshold": 7, "names": ["a"]}}
    with Store(tmp_path / "build", about) as store:
        store.lines("records").add([{"key": "a"}])
    with Store(tmp_path / "build", about) as store:
        assert "a" in store.lines("records")
    with (
        pytest.raises(ValueError, match=r"other settings \(settings\.threshold: 7 there, 8 here\)"),
        Store(tmp_path / "build", {"settings": {"threshold": 8, "names": ["a"]}}),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"settings\.new: nothing there, true here"),
        Store(tmp_path / "build", {"settings": {"threshold": 7, "names": ["a"], "new": True}}),
    ):
        pass


def test_one_build_at_a_time(tmp_path):
    with (
        Store(tmp_path, {}),
        pytest.raises(
            RuntimeError, match=r"process \d+ on \S+ builds in .*: wait for it, end it, or give another folder"
        ),
        Store(tmp_path, {}),
    ):
        pass
    with Store(tmp_path, {}):
        pass
    with pytest.raises(RuntimeError, match="not open"):
        Store(tmp_path, {}).lines("records")


def test_an_output_is_whole_or_not_there(tmp_path):
    def rows():
        yield {"n": 1}
        raise KeyError("stop")

    with Store(tmp_path, {}) as store:
        with pytest.raises(KeyError):
            store.write_lines("output", rows())
        assert not (tmp_path / "output.jsonl").exists()
        store.write_lines("output", [{"n": 1}, {"n": 2}])
    assert (tmp_path / "output.jsonl").read_text() == '{"n": 1}\n{"n": 2}\n'


WRITING = """
import sys
from nbg_lightning.construction.store import Store
with Store(sys.argv[1], {"writes": "for ever"}) as store:
    lines = store.lines("records")
    number = len(lines)
    while True:
        lines.add([{"key": f"{number}-{part}", "text": "x" * 500} for part in range(20)])
        number += 1
        print(number, flush=True)
"""


def test_nothing_that_was_added_is_lost_to_a_kill(tmp_path):
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", WRITING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(5):
            said = int(child.stdout.readline())
        time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        said = int((child.stdout.read().split() or [said])[-1])
        child.wait()
        child.stdout.close()
        with Store(tmp_path, {"writes": "for ever"}) as store:
            lines = store.lines("records")
            assert len(lines) >= said
            assert all(lines[key]["text"] == "x" * 500 for key in lines)


def test_counts_keep_the_first_example():
    counts = OutcomeCounts()
    counts.add("refused", "first")
    counts.add("refused", "second", number=2)
    counts.add("none", number=0)
    assert counts["refused"] == 3
    assert counts["other"] == 0
    assert counts.to_dict() == {"refused": {"count": 3, "first": "first"}}
    assert counts.summary() == "3 refused"
