"""What this process may use of its machine: cores and memory; and whether it is the program itself.

A container, a batch system or a service manager may allow less than the machine has, by control
groups (versions 1 and 2 of Linux). The limits of the process's own group and of every group above
it hold. A fraction of a core is no core: threads that wait for each other lose more time in a pause
than a further thread gains. Sizes are in bytes.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import math
import os
import platform
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROC = Path("/proc/self")
# Version 1 states "no limit" by a number that no machine has.
UNLIMITED_BYTES = 2**60
NO_LIMIT = math.inf
# Whether this is a process of the command line: no other code relies on the modules loaded in it.
_IS_PROGRAM = False


def become_program() -> None:
    """Note that this process is one of the command line."""
    global _IS_PROGRAM
    _IS_PROGRAM = True


def is_program() -> bool:
    """Whether this is a process of the command line, whose modules no other code uses."""
    return _IS_PROGRAM


class _Hiding:
    """A finder of modules that hides one from the thread that made it, and from no other."""

    def __init__(self, hidden: str) -> None:
        self._hidden, self._thread = hidden, threading.get_ident()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == self._hidden and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{name} is not needed here", name=name)


def import_without(name: str, hidden: str) -> Any:
    """Import a module of another project without a part that it imports if it finds it, and that
    takes long. The part is hidden in the program only: other code may use the module with it.

    Args:
        name: of the module.
        hidden: name of the part; it can be imported afterwards.

    >>> import_without("math", "pydicom").floor(1.5)
    1
    """
    if not is_program() or name in sys.modules:
        return importlib.import_module(name)
    finder: Any = _Hiding(hidden)
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(name)
    finally:
        sys.meta_path.remove(finder)


def cores() -> int:
    """The number of cores that this process may keep busy; at least 1.

    >>> cores() >= 1
    True
    """
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(own, _limits().cores)))


def memory_bytes() -> int:
    """The memory that this process and those of its group may use together.

    >>> memory_bytes() > 2**20
    True
    """
    import psutil

    return int(min(psutil.virtual_memory().total, _limits().memory_bytes))


def available_bytes() -> int:
    """What is left of ``memory_bytes``; at least 0. Cached files count as free.

    >>> 0 <= available_bytes() <= memory_bytes()
    True
    """
    import psutil

    left = (group.left_bytes() for group in _limits().groups)
    return int(max(0, min(psutil.virtual_memory().available, *left, NO_LIMIT)))


@functools.cache
def name_of_machine() -> str:
    """Processor and a hash of the name of this machine, which tell machines of a batch apart and
    name none.

    >>> name_of_machine() == name_of_machine()
    True
    """
    found = platform.processor() or platform.machine()
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            found = line.partition(":")[2].strip()
            break
    return f"{found} {hashlib.sha256(platform.node().encode()).hexdigest()[:8]}"


def limits_of(process: int) -> tuple[float, float]:
    """The cores and the memory that control groups allow a process; ``NO_LIMIT`` without a limit.

    >>> limits_of(os.getpid()) == limits_of(os.getpid())
    True
    """
    found = _read(PROC.with_name(str(process)))
    return found.cores, found.memory_bytes


@dataclass(frozen=True)
class _Group:
    """A control group that limits memory."""

    folder: Path
    limit_bytes: float
    used: str  # the file that states the memory in use
    cached: str  # the line of memory.stat with files that can be dropped

    def left_bytes(self) -> float:
        used = _number(self.folder / self.used)
        if used is None:
            return NO_LIMIT
        lines = dict(line.split(" ", 1) for line in _text(self.folder / "memory.stat").splitlines())
        return self.limit_bytes - used + float(lines.get(self.cached, 0))


@dataclass(frozen=True)
class _Limits:
    """Of all groups of a process."""

    cores: float
    memory_bytes: float
    groups: tuple[_Group, ...]


@functools.cache
def _limits() -> _Limits:
    return _read(PROC)


def _read(proc: Path) -> _Limits:
    """The limits of the process whose folder below /proc is ``proc``."""
    cpus, groups = NO_LIMIT, []
    for kind, folder in _folders(proc):
        if kind == "2":
            quota, _, period = _text(folder / "cpu.max").partition(" ")
            cpus = min(cpus, _share(quota, period))
            limit, files = _number(folder / "memory.max"), ("memory.current", "inactive_file")
        elif kind == "memory":
            limit = _number(folder / "memory.limit_in_bytes")
            files = ("memory.usage_in_bytes", "total_inactive_file")
        else:
            quota, period = (_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
            cpus, limit = min(cpus, _share(quota, period)), None
        if limit is not None and limit < UNLIMITED_BYTES:
            groups.append(_Group(folder, limit, *files))
    least = min((group.limit_bytes for group in groups), default=NO_LIMIT)
    return _Limits(cpus, least, tuple(groups))


def _folders(proc: Path) -> Iterator[tuple[str, Path]]:
    """(kind, folder) of the process's groups that may limit it, and of those above them: kind is
    "2", or "memory" or "cpu" of version 1.
    """
    # Kind -> the path of the process's group.
    paths: dict[str, str] = {}
    for line in _text(proc / "cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        kinds = {"memory", "cpu"} & set(controllers.split(",")) if number != "0" else {"2"}
        paths |= dict.fromkeys(kinds, path)
    for line in _text(proc / "mountinfo").splitlines():
        own, _, other = line.partition(" - ")
        kind, _, options = (*other.split(" "), "", "")[:3]
        root, mount = own.split(" ")[3:5]
        shown = {"cgroup2": {"2"}, "cgroup": {"memory", "cpu"} & set(options.split(","))}
        for name in shown.get(kind, set()) & set(paths):
            # In a container the mount shows the container's group as its root.
            path = paths[name]
            inner = path[len(root) :] if root != "/" and path.startswith(root) else path
            top = Path(mount)
            folder = top / inner.lstrip("/")
            while not folder.is_dir() and folder != top:
                folder = folder.parent
            yield from ((name, one) for one in (folder, *folder.parents) if one.is_relative_to(top))


def _share(quota: str, period: str) -> float:
    """Cores of a quota in each period; infinite for "max", -1 and unreadable values."""
    try:
        return float(quota) / float(period) if float(quota) > 0 else NO_LIMIT
    except ValueError:
        return NO_LIMIT


def _number(path: Path) -> float | None:
    """The number in a file; None for "max" and where there is none."""
    try:
        return float(_text(path))
    except ValueError:
        return None


def _text(path: Path) -> str:
    """The text of a small file of the kernel; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
