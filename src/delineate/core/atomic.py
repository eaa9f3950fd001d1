"""Durable file writing: a file under its final name is complete, also after a power cut.

Each file is written under a temporary name in the same folder, flushed to the disk, renamed, and
the rename is flushed as well. A full disk or a missing permission raises an ``OutputError`` that
names the file, and the old file is unchanged. What a killed process leaves has a temporary name
(``TEMPORARY``) and is removed at the next start. This module knows nothing of file contents.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from .errors import OutputError
from .inputs import json_text, sha256_of
from .outputs import KIND, RECORD, name_in, own_files, refuse_foreign, refuse_originals
from .schema import SCHEMAS

log = logging.getLogger(__name__)

# The name of a file or folder that is not complete yet.
TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.tmp\..+", re.DOTALL)
# (temporary name, final name) of the files that wait for the end of ``together``.
_TOGETHER: ContextVar[list[tuple[Path, Path]] | None] = ContextVar("together", default=None)
# A name may have 255 bytes; the ending of the final name is kept.
_KEPT_CHARACTERS = 48
SYNCED_EVERY_S = 1.0  # the lines of an ``Appender``


@contextlib.contextmanager
def replacing(
    path: str | Path, *failures: type[Exception], before: Path | None = None
) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success, rename it to ``path``.

    The temporary name keeps the whole ending (".nii.gz"), because libraries choose their format by
    it. On any error the temporary file is removed and an existing file at ``path`` is unchanged.

    Args:
        path: the final name.
        failures: exceptions by which the library that writes says that it cannot.
        before: name in the same folder for the file that is replaced, which is kept.

    Raises:
        OutputError: the disk is full; the folder is missing or cannot be written; or a running
            command reads the file at ``path``.
    """
    target = Path(path)
    refuse_originals(target)
    temporary, waiting = _temporary(target), _TOGETHER.get()
    is_waiting = False
    try:
        with _as_output_error(target, failures):
            _make_durable_folder(target.parent)
            yield temporary
            if waiting is not None:
                waiting.append((temporary, target))
                is_waiting = True
                return
            _sync(temporary)
            if before is not None and target.exists():
                _keep(target, before)
            os.replace(temporary, target)
            _sync(target.parent)
        log.debug("wrote %s", target)
    finally:
        if not is_waiting:
            _remove(temporary)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Files that this thread writes in the block get their final names at its end, after all of
    them were flushed: of many small files this takes a fraction of the time. On an error in the
    block none of them is kept.

    Raises:
        OutputError: as ``replacing``.
    """
    waiting: list[tuple[Path, Path]] = []
    token = _TOGETHER.set(waiting)
    try:
        yield
        for temporary, target in waiting:
            with _as_output_error(target, ()):
                _sync(temporary)
        for temporary, target in waiting:
            with _as_output_error(target, ()):
                os.replace(temporary, target)
        for folder in {target.parent for _, target in waiting}:
            with _as_output_error(folder, ()):
                _sync(folder)
        log.debug("wrote %d files", len(waiting))
    finally:
        _TOGETHER.reset(token)
        for temporary, _ in waiting:
            _remove(temporary)


def _remove(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: str | Path, *failures: type[Exception]) -> Iterator[Path]:
    """Yield a temporary folder next to ``path``; on success, it becomes ``path`` in one step.

    A folder that exists at ``path`` is removed first, so after a power cut there is either the old
    folder, none, or the new one, each complete. Arguments and errors as for ``replacing``.
    """
    target = Path(path)
    temporary = _temporary(target)
    try:
        with _as_output_error(target, failures):
            _make_durable_folder(target.parent)
            temporary.mkdir()
            yield temporary
            for written in (*temporary.rglob("*"), temporary):
                _sync(written)
            if target.exists():
                # A folder cannot replace one that is not empty.
                os.replace(target, aside := _temporary(target))
                shutil.rmtree(aside, ignore_errors=True)
            os.replace(temporary, target)
            _sync(target.parent)
        log.debug("wrote %s", target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(
    path: str | Path,
    *parts: bytes | memoryview,
    before: Path | None = None,
    private: bool = False,
) -> None:
    """Write ``parts``, one after another, to ``path`` in one step.

    Args:
        path: the final name.
        parts: the content.
        before: as for ``replacing``.
        private: whether only this user may read the file.
    """
    with replacing(path, before=before) as temporary:
        temporary.touch(0o600 if private else 0o666)
        with temporary.open("wb") as file:
            file.writelines(parts)


def write_secret(path: str | Path, content: bytes) -> None:
    """Write a file that only this user may read, if there is none; of several processes that do
    this at the same time, the first one makes it.
    """
    target = Path(path)
    aside = _temporary(target)
    try:
        write_bytes(aside, content, private=True)
        with _as_output_error(target, ()), contextlib.suppress(FileExistsError):
            os.link(aside, target)
    finally:
        _remove(aside)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` in one step."""
    write_bytes(path, text.encode("utf-8"))


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Write ``lines`` (UTF-8, without their newlines) to ``path`` in one step, one after another,
    so that they are never all in memory.
    """
    write_parts(path, (line.encode("utf-8") + b"\n" for line in lines))


def write_parts(path: str | Path, parts: Iterable[bytes]) -> None:
    """Write ``parts`` to ``path`` in one step, each when it comes."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.writelines(parts)


def write_json(path: str | Path, data: Mapping[str, Any]) -> None:
    """Write plain data as JSON with a checksum (``inputs.json_text``) in one step."""
    write_text(path, json_text(data, indent=1))


def append_line(path: str | Path, line: str) -> None:
    """Add ``line`` (UTF-8, without its newline) to a text file, which is made if it is missing.

    When this returns, the line is on the disk. A power cut before that leaves at most an incomplete
    last line, which the next call ends, so that readers drop one line and no more.

    Raises:
        OutputError: as ``replacing``.
    """
    target = Path(path)
    refuse_originals(target)
    with _as_output_error(target, ()):
        is_new = not target.exists()
        _make_durable_folder(target.parent)
        with target.open("ab+") as file:
            torn = b""
            if file.tell():
                file.seek(-1, os.SEEK_END)
                torn = b"" if file.read(1) == b"\n" else b"\n"
            file.write(torn + line.encode("utf-8") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _sync(target.parent)


class Appender:
    """Adds many lines to a text file, which is made if it is missing; a context manager.

    A line is with the system when ``put`` returns, so that a kill of this process does not lose it,
    and on the disk ``SYNCED_EVERY_S`` later, at ``sync`` or at the end: a power cut may cost the
    lines since. It leaves at most an incomplete last line, as for ``append_line``.

    Raises:
        OutputError: as ``replacing``.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)
        refuse_originals(self._path)
        with _as_output_error(self._path, ()):
            _make_durable_folder(self._path.parent)
            self._file = self._path.open("ab+", buffering=0)
            if self._file.tell():
                self._file.seek(-1, os.SEEK_END)
                if self._file.read(1) != b"\n":
                    self._file.write(b"\n")
            _sync(self._path.parent)
        self._synced = time.monotonic()

    def put(self, line: str) -> None:
        """Add ``line`` (UTF-8, without its newline).

        Raises:
            OutputError: it cannot be written.
        """
        content = memoryview(line.encode("utf-8") + b"\n")
        with _as_output_error(self._path, ()):
            while content:
                content = content[self._file.write(content) :]
        if time.monotonic() - self._synced > SYNCED_EVERY_S:
            self.sync()

    def sync(self) -> None:
        """Put all lines on the disk.

        Raises:
            OutputError: the disk is full or broken.
        """
        with _as_output_error(self._path, ()):
            os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def __enter__(self) -> Appender:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.sync()
        finally:
            self._file.close()


class Note:
    """A file of one line that is replaced often, and that only a crash of this process must leave:
    it is neither synced nor whole after a power cut. A context manager, which removes it.

    Args:
        path: of the file, in an existing folder.

    Raises:
        OutputError: it cannot be made.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)
        refuse_originals(self._path)
        with _as_output_error(self._path, ()):
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)

    def put(self, line: str) -> None:
        """Replace the line. A full disk is no error here."""
        with contextlib.suppress(OSError):
            os.lseek(self._handle, 0, os.SEEK_SET)
            os.ftruncate(self._handle, os.write(self._handle, f"{line}\n".encode()))

    def __enter__(self) -> Note:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)
        with contextlib.suppress(OSError):
            self._path.unlink()


@contextlib.contextmanager
def recording(
    folder: str | Path, outputs: Iterable[str | Path], overwrite: bool = False
) -> Iterator[None]:
    """A block that writes ``outputs`` to ``folder``, which is made, and records that they are ours.

    They are recorded before the block, without their content, so that files of a killed command
    are known too.

    Args:
        folder: the folder that has the record.
        outputs: files in it or below it; not all of them need be written.
        overwrite: whether files that are not ours are replaced.

    Raises:
        OutputError: see ``outputs.refuse_foreign``; the record cannot be written.
    """
    names = {name_in(folder, path): path for path in outputs}
    refuse_foreign(folder, names.values(), overwrite)
    try:
        earlier = own_files(folder)
    except OutputError:  # damaged; only with ``overwrite``
        earlier = {}
    remove_temporaries_of(Path(folder) / RECORD)
    _record(folder, earlier | dict.fromkeys(names, ""))
    yield
    found = own_files(folder) | {name: sha256_of(path) for name, path in names.items()}
    _record(folder, {name: digest for name, digest in found.items() if digest})


def _record(folder: str | Path, files: Mapping[str, str]) -> None:
    write_json(Path(folder) / RECORD, {KIND: SCHEMAS[KIND], "files": dict(sorted(files.items()))})


def make_folder(path: str | Path) -> Path:
    """Create the folder ``path`` if it is missing, and return it.

    Raises:
        OutputError: the folder cannot be created, or a file has this name.
    """
    with _as_output_error(Path(path), ()):
        _make_durable_folder(Path(path))
    return Path(path)


def remove_temporaries(folder: str | Path) -> None:
    """Remove what killed processes left in ``folder`` and its subfolders; only the one process that
    writes there may call this.
    """
    for place, folders, names in os.walk(folder):
        for name in filter(TEMPORARY.fullmatch, names):
            with contextlib.suppress(OSError):
                Path(place, name).unlink()
        for name in filter(TEMPORARY.fullmatch, folders):
            shutil.rmtree(Path(place, name), ignore_errors=True)
        folders[:] = [name for name in folders if not TEMPORARY.fullmatch(name)]


def remove_temporaries_of(path: str | Path) -> None:
    """Remove what killed processes left of the file at ``path``; as for ``remove_temporaries``."""
    target = Path(path)
    ending = f".tmp.{target.name[-_KEPT_CHARACTERS:]}"
    with contextlib.suppress(OSError):
        for other in target.parent.iterdir():
            if other.name.endswith(ending) and TEMPORARY.fullmatch(other.name):
                other.unlink()


def _temporary(target: Path) -> Path:
    return target.with_name(f".{secrets.token_hex(4)}.tmp.{target.name[-_KEPT_CHARACTERS:]}")


def _keep(target: Path, before: Path) -> None:
    """Give a file a second name, without a moment in which it has none."""
    aside = _temporary(before)
    try:
        try:
            os.link(target, aside)
        except OSError:  # the disk has no hard links
            shutil.copyfile(target, aside)
            _sync(aside)
        os.replace(aside, before)
    finally:
        # Also after success: a rename leaves both names where ``before`` is this file already.
        _remove(aside)


def _make_durable_folder(folder: Path) -> None:
    """Create a folder and its parents, so that they survive a power cut."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        _sync(made.parent)


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk. Windows cannot flush folders, and some network drives
    refuse to.
    """
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if not is_folder or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def _as_output_error(target: Path, failures: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turn an ``OSError`` or one of ``failures`` from the block into an ``OutputError`` that states
    the reason.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(reason_of(error), path=target) from error
    except failures as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise OutputError(f"cannot be written ({said[-1]})", path=target) from error


def reason_of(error: OSError) -> str:
    """Why a file cannot be written, in words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; any existing file is unchanged"
    if error.errno == errno.EFBIG:
        return "would be larger than files may be here; any existing file is unchanged"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "no permission to write here"
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return "a file exists where a folder is needed, or a folder where a file is needed"
    return f"cannot be written ({error.strerror or error})"
