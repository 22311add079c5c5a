"""Memory of the machine, and of the control groups around a process."""

from __future__ import annotations

import os

import pytest

from nbg_lightning.host_memory import host_memory

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
VERSION_2 = (("/", "", "cgroup2", "rw,nsdelegate"),)
VERSION_1 = (("/", "cpu", "cgroup", "rw,cpu,cpuacct"), ("/", "memory", "cgroup", "rw,memory"))
HYBRID = (*VERSION_1[:1], ("/", "unified", "cgroup2", "rw"))


def process(folder, groups, mounts, limits):
    """A process's folder: its groups, the mounts (group, place, file system, options), and files of the hierarchies."""
    own = folder / "process"
    own.mkdir()
    (own / "cgroup").write_bytes(
        groups if isinstance(groups, bytes) else "".join(f"{each}\n" for each in groups).encode()
    )
    lines = ["22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw", ""]
    for root, place, kind, options in mounts:
        point = str(folder / "mounted" / place).replace("\\", "\\134").replace(" ", "\\040")
        lines.append(f"31 22 0:28 {root} {point} rw,nosuid,relatime shared:9 master:2 - {kind} {kind} {options}")
    (own / "mountinfo").write_text("\n".join(lines))
    for path, limit in limits.items():
        file = folder / "mounted" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    return own


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        (["0::/"], {"": 4096}, 4096),  # a container with its own namespace
        (
            ["0::/job/step"],
            {"": "max", "job": 8192, "job/step": "max"},
            8192,
        ),  # a job of a scheduler, limited as a whole
        (["0::/job/step"], {"job": 8192, "job/step": 4096}, 4096),
        (["0::/docker/of-the-host"], {"": 4096}, 4096),  # the host's path, which a container does not see
        (["0::/job"], {"job": "max"}, MACHINE),
        (["0::/job"], {"job": "not a number"}, MACHINE),
        (["0::/job"], {"job": MACHINE * 2}, MACHINE),
        (["0::"], {"": 4096}, 4096),
        (["", "no group", "1:pids:/job", "0::/job"], {"job": 4096}, 4096),
        ([], {"": 4096}, MACHINE),  # in no group
    ],
)
def test_limits_of_version_2(tmp_path, groups, limits, expected):
    files = {f"{path}/memory.max".lstrip("/"): limit for path, limit in limits.items()}
    assert host_memory(process(tmp_path, groups, VERSION_2, files)) == expected


@pytest.mark.parametrize(
    ("groups", "mounts", "limits", "expected"),
    [
        (
            ["11:cpu,cpuacct:/job", "4:memory:/job"],
            VERSION_1,
            {"cpu/job": 1, "memory": 2**63 - 4096, "memory/job": 4096},
            4096,
        ),
        (["4:cpu,memory:/job"], [("/", "cpu,memory", "cgroup", "rw,cpu,memory")], {"cpu,memory/job": 4096}, 4096),
        (["4:memory:/docker/a/job"], [("/docker/a", "memory", "cgroup", "rw,memory")], {"memory/job": 4096}, 4096),
        (["4:memory:/docker/a"], [("/docker/a", "memory", "cgroup", "rw,memory")], {"memory": 4096}, 4096),
        (["4:memory:/docker/ab"], [("/docker/a", "memory", "cgroup", "rw,memory")], {"memory": 4096, "b": 1}, 4096),
        (["4:name=memory:/job"], VERSION_1, {"memory/job": 1}, MACHINE),
    ],
    ids=["alone", "with others", "a container's group", "a container", "another container", "a name"],
)
def test_limits_of_version_1(tmp_path, groups, mounts, limits, expected):
    files = {f"{path}/memory.limit_in_bytes": limit for path, limit in limits.items()}
    assert host_memory(process(tmp_path, groups, mounts, files)) == expected


def test_both_versions(tmp_path):
    """Memory may be limited by version 2 where other controllers are of version 1."""
    files = {"unified/job/memory.max": 4096, "cpu/job/memory.limit_in_bytes": 1}
    assert host_memory(process(tmp_path, ["4:cpu,cpuacct:/job", "0::/job"], HYBRID, files)) == 4096


def test_a_mount_point_with_spaces(tmp_path):
    mounts = [("/", "my\\ groups", "cgroup2", "rw")]
    assert host_memory(process(tmp_path, ["0::/job"], mounts, {"my\\ groups/job/memory.max": 4096})) == 4096


def test_no_groups(tmp_path):
    assert host_memory(tmp_path) == MACHINE


def test_this_process():
    assert 0 < host_memory() <= MACHINE


@pytest.mark.parametrize("name", [b"j\xe4", "jä".encode(), b"a\x0cb", b"a\rb", "a\u2028b".encode(), b"a:b c"])
def test_names_of_groups_may_have_any_bytes(tmp_path, name):
    files = {f"{os.fsdecode(name)}/memory.max": 4096}
    assert host_memory(process(tmp_path, b"\n0::/" + name + b"/step\n", VERSION_2, files)) == 4096
