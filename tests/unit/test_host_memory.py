"""Memory of the machine, and of the control groups around a process."""

from __future__ import annotations

import os

import pytest

from nbg_lightning.host_memory import host_memory

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def group(folder, name, limit):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{limit}\n")


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/", {"": 4096}, 4096),  # a container with its own namespace
        ("0::/job/step", {"": "max", "job": 8192, "job/step": "max"}, 8192),  # a job of a scheduler, limited as a whole
        ("0::/job/step", {"job": 8192, "job/step": 4096}, 4096),
        ("0::/docker/of-the-host", {"": 4096}, 4096),  # the host's path, which a container does not see
        ("0::/job", {"job": "max"}, MACHINE),
        ("0::/job", {"job": "not a number"}, MACHINE),
        ("0::/job", {"job": MACHINE * 2}, MACHINE),
        ("", {"": 4096}, MACHINE),  # in no group
    ],
)
def test_limits_of_version_2(tmp_path, groups, limits, expected):
    (tmp_path / "groups").write_text(f"{groups}\n" if groups else "")
    for path, limit in limits.items():
        group(tmp_path / "mounted" / path, "memory.max", limit)
    assert host_memory(tmp_path / "groups", tmp_path / "mounted") == expected


def test_limits_of_version_1(tmp_path):
    (tmp_path / "groups").write_text("11:cpu,cpuacct:/job\n4:memory:/job\n1:name=systemd:/job\n")
    group(tmp_path / "mounted" / "cpu,cpuacct" / "job", "memory.limit_in_bytes", 1)
    group(tmp_path / "mounted" / "memory", "memory.limit_in_bytes", 2**63 - 4096)  # the kernel's "none"
    group(tmp_path / "mounted" / "memory" / "job", "memory.limit_in_bytes", 4096)
    assert host_memory(tmp_path / "groups", tmp_path / "mounted") == 4096


def test_no_groups(tmp_path):
    assert host_memory(tmp_path / "none", tmp_path) == MACHINE


def test_this_process():
    assert 0 < host_memory() <= MACHINE


@pytest.mark.parametrize("name", [b"j\xe4", "jä".encode(), b"a\x0cb", b"a\rb", "a\u2028b".encode(), b"a:b c"])
def test_names_of_groups_may_have_any_bytes(tmp_path, name):
    (tmp_path / "groups").write_bytes(b"\n0::/" + name + b"/step\n")
    folder = tmp_path / "mounted" / os.fsdecode(name)
    group(folder, "memory.max", 4096)
    assert host_memory(tmp_path / "groups", tmp_path / "mounted") == 4096
