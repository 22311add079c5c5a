"""The findings of `nbg doctor` on this machine and on one with missing parts."""

import json
import subprocess
import sys

import pytest

from nbg_lightning.commands import doctor
from nbg_lightning.commands import doctor_checks as checks


def test_this_machine_is_ready(tmp_path, capsys):
    assert doctor.main([str(tmp_path / "runs" / "new"), "--json"]) == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["torch"]["state"] == found["python"]["state"] == "OK"
    assert found["sandbox"]["said"].startswith("a program ran in it")
    assert found["disk speed"]["said"].endswith("MB/s written and synced")
    assert found["clock"]["state"] == "OK"
    assert "GPU" in found or "GPU 0" in found
    assert not any(tmp_path.iterdir())  # the probes leave no files


def test_packages_that_do_not_fit_name_the_line_to_install(capsys):
    wanted = [
        "torch==1.0.*",
        "no-such-package>=3",
        "rich>=1",
        "vllm==9.9; extra == 'vllm'",
        "x; sys_platform == 'none'",
    ]
    found = {each.name: each for each in checks._packages(wanted)}
    assert set(found) == {"torch", "no-such-package", "rich", "vllm"}
    assert (found["torch"].state, found["torch"].fix) == ("MISSING", "pip install 'torch==1.0.*'")
    assert found["no-such-package"].said == "not installed (needs >=3)"
    assert found["rich"].state == "OK"
    assert found["vllm"].state == "note" and "pip install" in found["vllm"].fix
    assert doctor.summary(list(found.values())) == "2 missing: torch, no-such-package"
    doctor.show(found["torch"])
    shown = capsys.readouterr().out
    assert "MISSING" in shown and "-> pip install 'torch==1.0.*'" in shown


@pytest.mark.parametrize("folder", ["a file", "/proc/nowhere"])
def test_a_folder_that_cannot_be_written(tmp_path, folder):
    (tmp_path / "a file").write_text("")
    found = {each.name: each for each in checks.run_folder(tmp_path / folder)}
    assert found["run folder"].state == "MISSING" and found["run folder"].fix
    assert [each.state for each in checks.clock(tmp_path / folder)] == ["OK"]


def test_a_clock_that_is_not_set(monkeypatch, tmp_path):
    monkeypatch.setattr(checks.time, "time", lambda: 0.0)
    (found,) = checks.clock(tmp_path)
    assert (found.state, found.said) == ("MISSING", "it says 1970-01-01")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("raise SystemExit('CUDA error: no kernel')", "torch cannot compute: CUDA error: no kernel"),
        ("import time; time.sleep(60)", "torch had no answer in 90 s"),
    ],
)
def test_a_driver_that_fails_or_hangs(monkeypatch, script, said):
    monkeypatch.setattr(checks, "_DEVICES", script)
    run = subprocess.run
    monkeypatch.setattr(checks.subprocess, "run", lambda *words, **given: run(*words, **{**given, "timeout": 2}))
    (found,) = checks.devices()
    assert found.state == "MISSING" and found.said == said and found.fix


def test_gpus_are_told_with_what_others_use(monkeypatch):
    answer = {"cuda": "12.8", "there": True, "nccl": "2.27.3"}
    answer["devices"] = [["H100", 80 * 2**30, 79 * 2**30, [9, 0]], ["H100", 80 * 2**30, 20 * 2**30, [9, 0]]]
    monkeypatch.setattr(checks, "_DEVICES", f"print({json.dumps(answer)!r})")
    first, second, nccl = checks.devices()
    assert (first.state, first.said) == ("OK", "H100, 80 GiB, capability 9.0")
    assert second.state == "note" and "60 GiB are used by others" in second.said
    assert nccl.said == "2.27.3"


def test_a_check_that_fails_does_not_hide_the_next(monkeypatch, tmp_path):
    def fail():
        raise OSError("no such device")

    for name in ("versions", "devices", "sandbox", "hub"):
        monkeypatch.setattr(checks, name, fail)
    found = list(checks.findings(tmp_path))
    assert [each.state for each in found].count("MISSING") == 4
    assert "the check failed: OSError: no such device" in {each.said for each in found}
    assert found[-1].name == "open files"


def test_as_it_is_typed(tmp_path):
    words = [sys.executable, "-m", "nbg_lightning.cli", "doctor", "--jsn"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2 and "--json" in done.stderr
