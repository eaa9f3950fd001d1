"""Originals: the input files of a command, which its output must never overwrite.

A command lists its input files as ``Originals`` and checks its outputs against them before it
starts. While it runs (``kept``), every file that is moved into place (``core.atomic``) is checked
once more, so that an output which nobody listed is refused too. ``refuse_foreign`` protects files
that no command reads, but another program wrote. Two paths are the same file if they
resolve to the same place (through links) or share an inode (hard links, file systems that ignore
case).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path

from .errors import OutputError

MARK, MARKED_BYTES = b"delineate", 1 << 20  # in the beginning of what this program writes
Identity = tuple[int, int]  # device and inode
_ACTIVE: list[Originals] = []  # of the commands that run in this process now


class Originals:
    """The files that a command reads.

    Args:
        paths: files, and folders that are read as one scan; paths that do not exist are ignored.
        read_in_folder: called with a file and one of the folders that contains it; whether the
            command reads that file. By default it reads all files of the folders.
    """

    def __init__(
        self,
        paths: Iterable[str | Path],
        read_in_folder: Callable[[Path, Path], bool] = lambda path, folder: True,
    ):
        self._read_in_folder = read_in_folder
        self._files: set[Path] = set()
        self._folders: set[Path] = set()
        for path in {os.fspath(path) for path in paths}:
            resolved = _resolved(Path(path))
            (self._folders if resolved.is_dir() else self._files).add(resolved)

    def plus(self, paths: Iterable[str | Path]) -> Originals:
        """These originals and ``paths``."""
        return Originals([*self._files, *self._folders, *paths], self._read_in_folder)

    def refuse(self, outputs: Iterable[str | Path]) -> None:
        """Refuse outputs that are originals.

        Raises:
            OutputError: an output is an original; the output is named.
        """
        for output in outputs:
            if self._has(Path(output)):
                raise OutputError(
                    "is read by this command and would be overwritten; nothing was done: choose "
                    "another output",
                    path=output,
                )

    def refuse_removing(self, folder: str | Path) -> None:
        """Refuse to remove a folder that contains an original.

        Raises:
            OutputError: it contains one, which is named.
        """
        place = _resolved(Path(folder))
        for original in sorted((*self._files, *self._folders)):
            if original.is_relative_to(place) and original.exists():
                raise OutputError(
                    f"holds {original}, which this command reads; it is not removed: choose "
                    "another output",
                    path=folder,
                )

    @contextlib.contextmanager
    def kept(self, outputs: Iterable[str | Path] = ()) -> Iterator[None]:
        """Refuse ``outputs`` that are originals; inside the block, no original is overwritten.

        Raises:
            OutputError: as ``refuse``.
        """
        self.refuse(outputs)
        _ACTIVE.append(self)
        try:
            yield
        finally:
            _ACTIVE.remove(self)

    def _has(self, output: Path) -> bool:
        try:
            found = output.stat()
        except (OSError, ValueError):
            return False  # nothing exists there, so nothing can be lost
        place = _resolved(output)
        if output.is_dir():
            return False
        # A file that the command names itself, by path or by inode.
        identity = (found.st_dev, found.st_ino)
        # A deleted original may have left its inode to another file, so its identity is read again.
        if place in self._files or identity == _identity(self._identities.get(identity)):
            return True
        # A file inside a folder that the command reads.
        around = [folder for folder in self._folders if folder in place.parents]
        if around:
            return any(self._read_in_folder(place, folder) for folder in around)
        # A hard link to such a file from elsewhere.
        return found.st_nlink > 1 and identity == _identity(
            self._identities_in_folders.get(identity)
        )

    @cached_property
    def _identities(self) -> dict[Identity, Path]:
        return _by_identity(self._files)

    @cached_property
    def _identities_in_folders(self) -> dict[Identity, Path]:
        """Identities of all files in the folders.

        Computed only if an output has several names (hard links), because folders of slices are
        large.
        """
        return _by_identity(
            Path(place, name)
            for folder in self._folders
            for place, _, names in os.walk(folder)
            for name in names
        )


def refuse_foreign(output: str | Path) -> None:
    """Refuse to replace a file that this program did not write. What it writes under a name that
    the user chooses has its own name in it.

    Raises:
        OutputError: the file exists and has not.
    """
    path = Path(output)
    if not path.is_file():
        return
    with path.open("rb") as file:
        head = file.read(MARKED_BYTES)
    if head and MARK not in head.lower():
        raise OutputError(
            "exists and was not written by delineate; nothing was done: choose another output, or "
            "remove the file",
            path=output,
        )


def refuse_originals(output: str | Path) -> None:
    """Refuse a file that a running command of this process reads.

    Raises:
        OutputError: the file is an original of that command.
    """
    for originals in tuple(_ACTIVE):
        originals.refuse([output])


def _by_identity(paths: Iterable[Path]) -> dict[Identity, Path]:
    return {identity: path for path in paths if (identity := _identity(path)) is not None}


def _identity(path: Path | None) -> Identity | None:
    try:
        found = None if path is None else path.stat()
    except (OSError, ValueError):
        found = None
    if found is None:
        return None
    return found.st_dev, found.st_ino


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # such as a loop of links
        return Path(os.path.abspath(path))
