"""What a command may write: never over its inputs, and over other files only if they are its own.

A command lists its input files as ``Originals`` and checks its outputs against them before it
starts. While it runs (``kept``), every file that is moved into place (``core.atomic``) is checked
once more, so that an output which nobody listed is refused too. Two paths are the same file if they
resolve to the same place (through links) or share an inode (hard links, file systems that ignore
case).

Own files are those with the SHA-256 that the record of their folder states (``RECORD``, which
``atomic.recording`` writes). So a file of another program is not replaced, nor one that somebody
has edited since (``refuse_foreign``). Models are recognised by their content
(``bundle.refuse_foreign``), and results of ``predict`` by its journal.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from .errors import OutputError
from .inputs import read_json_if_any, sha256_of
from .schema import SCHEMAS, migrate

RECORD = ".delineate.json"  # of the files that this program wrote into a folder
KIND = "delineate_outputs"
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


def refuse_foreign(
    folder: str | Path, outputs: Iterable[str | Path], overwrite: bool = False
) -> None:
    """Refuse to replace files in ``folder`` that are not as this program wrote them.

    Raises:
        OutputError: there is such a file, or the record of the folder is damaged; it is named.
    """
    if overwrite:
        return
    own = own_files(folder)
    for output in outputs:
        if os.path.lexists(output) and not _is_own(Path(output), Path(folder), own):
            refuse_replacing(output)


def _is_own(path: Path, folder: Path, own: Mapping[str, str]) -> bool:
    digest = own.get(name_in(folder, path))
    # Special files are not opened. A file whose writing was not recorded to the end may be any.
    return path.is_file() and digest is not None and digest in ("", sha256_of(path))


def refuse_replacing(output: str | Path) -> NoReturn:
    """Refuse an output that exists and is not our own.

    Raises:
        OutputError: always.
    """
    raise OutputError(
        "exists, and is not as delineate wrote it; nothing was done: choose another output, or "
        "replace it with --overwrite",
        path=output,
    )


def own_files(folder: str | Path) -> dict[str, str]:
    """The record of a folder: the name of each file, with its subfolder, that this program wrote
    there -> its SHA-256 (64 hex digits), or "" while it is being written; {} without a record.

    Raises:
        OutputError: the record is damaged.
    """
    path = Path(folder) / RECORD
    found = read_json_if_any(path, error=OutputError) or {KIND: SCHEMAS[KIND], "files": {}}
    try:
        files = migrate(KIND, found, path=str(path), error=OutputError)["files"]
        return {str(name): str(digest) for name, digest in files.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise OutputError(
            "is not a record of the files that delineate wrote here; remove it, or replace them "
            "with --overwrite",
            path=path,
        ) from error


def name_in(folder: str | Path, path: str | Path) -> str:
    """The name of a file in the record of ``folder``.

    >>> name_in("scores", "scores/pictures/c0.png")
    'pictures/c0.png'
    """
    return Path(path).relative_to(folder).as_posix()


def state_folder() -> Path:
    """The user's folder for what programs keep between calls."""
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "delineate"
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/delineate"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "delineate"


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
