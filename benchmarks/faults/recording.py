"""Records what a command does to a folder, and rebuilds every state that a power cut could leave.

Names (create, rename, link, unlink, mkdir, rmdir) and syncs are recorded at the functions of
``os``, which all of the program's modules use. Data are recorded by content: before each of these
operations every file is compared with what it was, so writes are seen whoever made them, native
libraries too. Not seen: which of several writes between two operations came first (a power cut may
keep any of them), names that native code changes (only blosc2, which creates files), and child
processes (the commands work in one).

The model is that of POSIX without the promises of one file system: data are on the disk after a
sync of their file, names after a sync of their folder. Until then a name may be there or not, in
any combination, and data may be lost, zero or torn.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from delineate.core import atomic

FOLDER = -1  # the identity of folders, which have no data
# Of data that are not synced: what a power cut leaves of them.
DATA = ("whole", "lost", "zero", "torn", "mixed", "mixed")
Tree = dict[str, bytes | None]  # path below the folder -> content; None is a folder


@dataclass(frozen=True)
class Operation:
    """``what`` is create, mkdir, link, rename, unlink, rmdir, data, sync (of a file), names (the
    sync of a folder) or saved (the program says that ``path`` is on the disk).
    """

    what: str
    path: str = ""
    to: str = ""
    file: int = FOLDER
    data: bytes = b""


@dataclass
class Recording:
    """Everything that happened to ``root``; a context manager in which it is recorded."""

    root: Path
    operations: list[Operation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self.files: dict[str, int] = {}  # path -> identity
        self._data: dict[int, bytes] = {}
        self._inodes: dict[int, int] = {}
        self._numbers = itertools.count()
        self._stack = contextlib.ExitStack()
        self._is_over = False
        self.look()
        # What is there already is on the disk.
        self.start, self.start_data = dict(self.files), dict(self._data)
        self.operations.clear()

    def __enter__(self) -> Recording:
        for name in ("replace", "rename", "link"):
            self._patch(os, name, self._two)
        for name in ("unlink", "remove", "mkdir", "rmdir"):
            self._patch(os, name, self._one)
        self._patch(os, "fsync", self._sync)
        for name in ("replacing", "replacing_folder"):
            self._patch_writer(name)
        real = atomic.append_line

        def append_line(path: Any, line: str) -> None:
            real(path, line)
            self._saved(Path(path))

        self._stack.enter_context(mock.patch.object(atomic, "append_line", append_line))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self.look()
        # Modules that were imported meanwhile keep the functions that record.
        self._is_over = True

    def look(self) -> None:
        """Record the data that were written, and files that were made, since the last look."""
        with self._lock:
            seen = set()
            for place, folders, names in os.walk(self.root):
                for name in (*folders, *names):
                    path = os.path.join(place, name)
                    with contextlib.suppress(FileNotFoundError):
                        self._look_at(path)
                        seen.add(os.path.relpath(path, self.root))
            for path in [p for p in self.files if p not in seen]:
                self._note(Operation("unlink", path))
                del self.files[path]

    def _look_at(self, path: str) -> None:
        name, status = os.path.relpath(path, self.root), os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            if name not in self.files:
                self.files[name] = FOLDER
                self._note(Operation("mkdir", name))
            return
        if name not in self.files:
            file = self._inodes.get(status.st_ino, FOLDER)
            # The number of a removed file may come again.
            if file == FOLDER or file not in self.files.values():
                file = self._inodes[status.st_ino] = next(self._numbers)
            self.files[name] = file
            self._note(Operation("create", name, file=file))
        file, data = self.files[name], Path(path).read_bytes()
        if self._data.get(file) != data:
            self._data[file] = data
            self._note(Operation("data", name, file=file, data=data))

    def _note(self, operation: Operation) -> None:
        self.operations.append(operation)

    def _inside(self, path: Any, dir_fd: int | None = None) -> str:
        """The path below the root; "" for one outside."""
        whole = os.fspath(path)
        if dir_fd is not None:
            whole = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), whole)
        found = os.path.relpath(os.path.abspath(whole), self.root)
        return "" if found.startswith("..") else found

    def _patch(self, place: Any, name: str, record: Callable[..., None]) -> None:
        real = getattr(place, name)

        def call(*args: Any, **keywords: Any) -> Any:
            with self._lock:
                self.look()
                found = real(*args, **keywords)
                record(name, *args, **keywords)
                return found

        self._stack.enter_context(mock.patch.object(place, name, call))

    def _one(self, name: str, path: Any, *_: Any, dir_fd: int | None = None, **__: Any) -> None:
        if inside := self._inside(path, dir_fd):
            what = "unlink" if name == "remove" else name
            if what == "mkdir":
                self.files[inside] = FOLDER
            else:
                self.files.pop(inside, None)
            self._note(Operation(what, inside))

    def _two(self, name: str, old: Any, new: Any, **_: Any) -> None:
        source, target = self._inside(old), self._inside(new)
        if not source and not target:
            return
        what = "link" if name == "link" else "rename"
        moved = [p for p in self.files if p == source or p.startswith(source + "/")]
        for path in moved:
            self.files[target + path[len(source) :]] = self.files[path]
            if what == "rename":
                del self.files[path]
        self._note(Operation(what, source, target))

    def _sync(self, _: str, handle: Any) -> None:
        number = handle if isinstance(handle, int) else handle.fileno()
        inside = self._inside(os.readlink(f"/proc/self/fd/{number}"))
        if not inside:
            return
        if self.files.get(inside, FOLDER) == FOLDER:
            self._note(Operation("names", inside))
        else:
            self._note(Operation("sync", inside, file=self.files[inside]))

    def _patch_writer(self, name: str) -> None:
        real = getattr(atomic, name)

        @contextlib.contextmanager
        def writer(path: Any, *args: Any, **keywords: Any) -> Iterator[Path]:
            with real(path, *args, **keywords) as temporary:
                yield temporary
            self._saved(Path(path))

        # Some modules have imported the function itself.
        for module in list(sys.modules.values()):
            if getattr(module, name, None) is real:
                self._stack.enter_context(mock.patch.object(module, name, writer))

    def _saved(self, path: Path) -> None:
        """The program says that a file or a folder of files is on the disk."""
        if self._is_over:
            return
        with self._lock:
            self.look()
            top = self._inside(path)
            for name, file in self.files.items():
                if file != FOLDER and (name == top or name.startswith(top + "/")):
                    self._note(Operation("saved", name, file=file, data=self._data[file]))


NAMES = ("create", "mkdir", "link", "rename", "unlink", "rmdir")


def _apply(files: dict[str, int], op: Operation) -> None:
    """Change the names; an operation whose source or folder is missing does nothing."""
    parent = os.path.dirname(op.to or op.path)
    if parent and files.get(parent) != FOLDER:
        return
    if op.what in ("create", "mkdir"):
        files[op.path] = op.file
        return
    for path in [p for p in files if p == op.path or p.startswith(op.path + "/")]:
        if op.what in ("link", "rename"):
            files[op.to + path[len(op.path) :]] = files[path]
        if op.what != "link":
            del files[path]


def _left_of(data: bytes, synced: bytes, how: str, rng: random.Random) -> bytes:
    """What a power cut leaves of data of which only ``synced`` is on the disk."""
    if how == "mixed":  # another fate for each file
        how = rng.choice(DATA[:4])
    if how == "whole" or data is synced:
        return data
    if how == "lost":
        return synced
    pairs = zip(data, synced, strict=False)
    same = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(data), len(synced)))
    if how == "zero":
        return data[:same] + bytes(len(data) - same)
    return data[: rng.randint(same, len(data))]


def states(recording: Recording, rng: random.Random, rounds: int = 1) -> Iterator[tuple[int, Tree]]:
    """Every moment of a power cut, as the number of operations before it, with each different tree
    that it could leave: all names that are not synced, none, all but one, one alone, and random
    ones, each with every fate of data that are not synced. ``rounds`` draw other random ones.
    """
    operations = recording.operations
    durable = _durable(operations)
    files, reached = dict(recording.start), [dict(recording.start)]  # names before each operation
    for op in operations:
        if op.what in NAMES:
            _apply(files, op)
        reached.append(dict(files))
    synced, data = dict(recording.start_data), dict(recording.start_data)
    seen, saves = set(), 0
    for moment, op in enumerate(operations, start=1):
        saves += op.what == "saved"
        if op.what == "data":
            data[op.file] = op.data
        elif op.what == "sync":
            synced[op.file] = data[op.file]
        late = [n for n, done in durable.items() if n < moment <= done]
        kept = [set(late), set()]
        kept += [set(late) - {n} for n in late] + [{n} for n in late]
        kept += [{n for n in late if rng.random() < 0.5} for _ in range(3 * rounds)]
        for names in kept:
            first = min(late, default=moment)
            files = dict(reached[first])
            for n in range(first, moment):
                if operations[n].what in NAMES and (n not in late or n in names):
                    _apply(files, operations[n])
            for how in DATA * rounds:
                tree: Tree = {
                    path: None
                    if file == FOLDER
                    else _left_of(data.get(file, b""), synced.get(file, b""), how, rng)
                    for path, file in files.items()
                }
                # The same tree after another save may lack what was saved.
                key = (saves, frozenset(tree.items()))
                if hash(key) not in seen:
                    seen.add(hash(key))
                    yield moment, tree


def _durable(operations: list[Operation]) -> dict[int, int]:
    """Number of each operation on names -> number of the sync that makes it durable."""
    found = {}
    for n, op in enumerate(operations):
        if op.what not in NAMES:
            continue
        syncs = []
        for parent in {os.path.dirname(path) or "." for path in (op.path, op.to) if path}:
            later = (m for m in range(n, len(operations)) if operations[m].what == "names")
            syncs.append(next((m for m in later if operations[m].path == parent), len(operations)))
        found[n] = max(syncs)
    return found


def write(tree: Tree, root: Path) -> None:
    """Make the folder ``root`` what the tree says; files that are so already stay."""
    for place, folders, names in os.walk(root, topdown=False):
        for name in names:
            path = Path(place, name)
            wanted = tree.get(os.path.relpath(path, root))
            if wanted is None or path.read_bytes() != wanted:
                path.unlink()
        for name in folders:
            if tree.get(os.path.relpath(Path(place, name), root), b"") is not None:
                Path(place, name).rmdir()
    for name, content in sorted(tree.items()):
        path = root / name
        if content is None:
            path.mkdir(exist_ok=True)
        elif not path.exists():
            path.write_bytes(content)
