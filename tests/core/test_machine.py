"""Cores and memory are those that a container or batch system leaves to the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from delineate.core import machine

GB = 2**30
NAMES = {"2": ("cgroup2", "rw"), "memory": ("cgroup", "rw,memory"), "cpu": ("cgroup", "rw,cpu")}


def limits(folder: Path, kind: str, path: str, root: str, files: dict[str, str]):
    """The limits of a process whose group of ``kind`` is ``path``, where the part ``root`` is not
    visible; ``files`` are those of the folder of groups, by their path below it.
    """
    top = folder / "groups"
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text + "\n")
    own = f"0::{path}" if kind == "2" else f"4:{kind}:{path}"
    (folder / "cgroup").write_text(f"9:pids:/other\n{own}\n")
    system, options = NAMES[kind]
    lines = (
        "23 1 0:1 / / rw - ext4 /dev/sda rw",
        f"31 23 0:28 {root} {top} rw,relatime shared:9 - {system} {system} {options}",
    )
    (folder / "mountinfo").write_text("\n".join(lines) + "\n")
    return machine._read(folder)


@pytest.mark.parametrize(
    ("path", "root"), [("/box", "/"), ("/outer/box", "/outer/box"), ("/", "/")]
)
def test_limits_of_version_2_hold(tmp_path, path, root):
    inner = "box/" if path == "/box" else ""
    found = limits(
        tmp_path,
        "2",
        path,
        root,
        {
            f"{inner}cpu.max": "250000 100000",
            f"{inner}memory.max": str(4 * GB),
            f"{inner}memory.current": str(3 * GB),
            f"{inner}memory.stat": f"anon {GB}\ninactive_file {GB // 2}",
        },
    )
    assert found.cores == 2.5 and found.memory_bytes == 4 * GB
    assert [group.left_bytes() for group in found.groups] == [1.5 * GB]


def test_the_least_limit_of_the_groups_above_holds(tmp_path):
    files = {
        "memory.limit_in_bytes": "9223372036854771712",
        "a/memory.limit_in_bytes": str(2 * GB),
        "a/memory.usage_in_bytes": str(GB),
        "a/b/memory.limit_in_bytes": str(8 * GB),
        "a/b/memory.usage_in_bytes": "0",
        "a/b/memory.stat": "total_inactive_file 0",
    }
    found = limits(tmp_path, "memory", "/a/b", "/", files)
    assert found.memory_bytes == 2 * GB and found.cores == machine.NO_LIMIT
    assert [group.left_bytes() for group in found.groups] == [8 * GB, GB]


def test_a_quota_of_version_1(tmp_path):
    files = {"job/cpu.cfs_quota_us": "150000", "job/cpu.cfs_period_us": "100000"}
    assert limits(tmp_path, "cpu", "/job", "/", files).cores == 1.5


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"cpu.max": "max 100000", "memory.max": "max", "memory.current": "1"},
        {"cpu.max": "strange", "memory.max": ""},
    ],
)
def test_no_limit_is_none(tmp_path, files):
    found = limits(tmp_path, "2", "/", "/", files)
    assert (found.cores, found.memory_bytes, found.groups) == (float("inf"), float("inf"), ())


def test_a_system_without_groups_has_no_limit(tmp_path):
    assert machine._read(tmp_path).groups == ()


def test_a_fraction_of_a_core_is_none(monkeypatch):
    for share, expected in ((0.5, 1), (1.9, 1), (float("inf"), machine.cores())):
        monkeypatch.setattr(machine, "_limits", lambda s=share: machine._Limits(s, 1e9, ()))
        assert machine.cores() == expected


GROUPS = Path("/sys/fs/cgroup/memory")
UNIFIED = Path("/sys/fs/cgroup")


def test_a_real_group_is_obeyed():
    """In a group of this machine, if this user may make one."""
    top, name = (GROUPS, "memory.limit_in_bytes") if GROUPS.is_dir() else (UNIFIED, "memory.max")
    group = top / f"delineate-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        if not (group / name).exists():
            pytest.skip("the memory controller is not available")
        (group / name).write_text(str(GB))
        code = (
            f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid())); "
            "from delineate.core import machine as m; print(m.memory_bytes(), m.available_bytes())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        total, left = map(int, done.stdout.split())
        assert total == GB and 0 < left < GB < psutil.virtual_memory().total
    finally:
        group.rmdir()
