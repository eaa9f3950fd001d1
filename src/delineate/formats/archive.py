"""Files inside archives: .zip, .tar and .tar.gz, and .gz of one file, read in place.

A member has a path as if the archive were a folder, ``scans.zip/ct/1.dcm``, and ``opened`` reads it
as any other file. Names of members only name: nothing is written under them, so absolute paths and
".." mean nothing. A .tar.gz cannot be read from its middle; it is unpacked into one unnamed
temporary file. Links are not followed, and archives inside an archive are not opened.

Limits are checked before memory or disk is used: ``MOST_MEMBERS``, ``MOST_BYTES`` and, for what is
compressed, the ratio of ``core.inputs``. This module knows no DICOM.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import shutil
import struct
import tarfile
import tempfile
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..core.errors import FormatError
from ..core.inputs import ANY_RATIO_BYTES, MOST_RATIO, refuse_special
from . import disk
from .disk import GZIP_MAGIC, told

MOST_MEMBERS = 200_000
MOST_BYTES = 1 << 36  # of all members, unpacked
MOST_HEADER = 1 << 20  # bytes of one header of a tar
UNPACKED_AT_ONCE = 1 << 22  # bytes
MOST_TRIED = 1000  # members of a tar that are opened to find out what it holds
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")  # the second of an archive without members
# Kinds of packed files that are not opened, by their first bytes.
UNOPENED = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}
_OTHERS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 99: "AES encryption"}
_READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def kind_of(head: bytes) -> str:
    """The kind of an archive, "zip" or "tar", by the first 512 bytes of the file, unpacked if it is
    gzip; "" of any other file.

    >>> kind_of(b"PK" + bytes([3, 4]))
    'zip'
    """
    if head[:4] in ZIP_MAGIC:
        return "zip"
    try:
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return ""
    return "tar"


def unopened_kind(path: Path) -> str:
    """The kind of an archive or packed file that is not opened, by its first bytes; "" of others,
    and if it cannot be read.
    """
    with contextlib.suppress(FormatError), told(path):
        head = head_of(path)
        return next((kind for magic, kind in UNOPENED.items() if head.startswith(magic)), "")
    return ""


def is_archive(path: Path) -> bool:
    """Whether a file or a member is an archive; False if it cannot be read."""
    with contextlib.suppress(FormatError), told(path):
        return bool(kind_of(head_of(path)))
    return False


def members(path: Path) -> list[Path]:
    """The paths of the files in an archive, in its order; links and folders are left out.

    Raises:
        FormatError: it is damaged, truncated or encrypted, or exceeds a limit.
    """
    return list(_index(path).places)


def holds(path: Path, wanted: Callable[[bytes], bool]) -> bool:
    """Whether the beginning of any member is ``wanted``; False if the archive cannot be read. Only
    the first ``MOST_TRIED`` members are opened.
    """
    with contextlib.suppress(FormatError), told(path):
        if _magic(path) in ZIP_MAGIC:
            return any(wanted(head_of(one)) for one in members(path)[:MOST_TRIED])
        # A packed tar is read from its beginning, not unpacked.
        with disk.opened(path) as file, _reading_tar(file, "r|") as tar:
            for _, one in zip(range(MOST_TRIED), tar, strict=False):
                content = tar.extractfile(one) if one.isreg() else None
                if content is not None and wanted(content.read(disk.HEAD_BYTES)):
                    return True
    return False


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file or a member of an archive for reading, unpacked if it is gzip; it can seek.

    Raises:
        FormatError, OSError: it cannot be read.
    """
    place = path if isinstance(path, Path) else Path(path)
    if (archive := around(place)) is None:
        with disk.opened(place) as file:
            yield file
        return
    with _index(archive).open(place) as file:
        yield file


def head_of(path: str | Path) -> bytes:
    """The first ``disk.HEAD_BYTES`` bytes of a file or member, unpacked if it is gzip."""
    if around(Path(path)) is None:
        return disk.head_of(path)
    with opened(path) as file:
        return file.read(disk.HEAD_BYTES)


def is_file(path: Path) -> bool:
    """Whether there is a file of this path, on the disk or in an archive."""
    archive = around(path)
    return path.is_file() if archive is None else path in _index(archive).places


def nbytes_of(file: IO[bytes], path: Path) -> int | None:
    """The number of bytes of what ``opened`` gave for a path; None before it is unpacked."""
    if isinstance(getattr(file, "raw", None), io.FileIO):
        return os.fstat(file.fileno()).st_size
    archive = around(path)
    return None if archive is None else _index(archive).places[path].nbytes


def size_of(path: Path) -> int:
    """The bytes of a file or of a member of an archive, unpacked; of a folder, those of the files
    directly inside.
    """
    if path.is_dir():
        return sum(one.stat().st_size for one in path.iterdir() if one.is_file())
    archive = around(path)
    return path.stat().st_size if archive is None else _index(archive).places[path].nbytes


def around(path: Path) -> Path | None:
    """The archive that holds ``path``; None of a file on the disk, and of none."""
    if path.exists():
        return None
    return next((one for one in path.parents if one.is_file()), None)


def _magic(path: Path) -> bytes:
    refuse_special(path)
    with path.open("rb") as file:
        return file.read(4)


# ---- the list of members ----


@dataclass(frozen=True)
class _Member:
    """Where the bytes of a member are: an entry of a zip, or the offset in a tar."""

    entry: Any
    nbytes: int


@dataclass(frozen=True, eq=False)
class _Index:
    """An open archive; ``places`` has its files by their paths."""

    file: Any  # ZipFile, or the file of a tar that is not packed
    places: dict[Path, _Member]
    lock: Any

    def open(self, place: Path) -> Any:
        """A context manager of the bytes of one file."""
        member = self.places.get(place)
        if member is None:
            raise FileNotFoundError(place)
        if isinstance(self.file, zipfile.ZipFile):
            return self.file.open(member.entry)
        return io.BufferedReader(_Window(place, self.file, self.lock, member.entry, member.nbytes))


def _index(path: Path) -> _Index:
    """The index of an archive; kept for the next call, until the file changes."""
    with told(path):
        found = path.stat()
        return _indexed(path, found.st_size, found.st_mtime_ns, os.getpid())


# A forked process must not share positions in open files, so the process is part of the key.
@functools.lru_cache(maxsize=4)
def _indexed(path: Path, size: int, mtime_ns: int, process: int) -> _Index:
    del mtime_ns, process
    if _magic(path) in ZIP_MAGIC:
        return _of_zip(path, size)
    return _of_tar(path)


def _of_zip(path: Path, size: int) -> _Index:
    with path.open("rb") as file:
        count, nbytes = _end_of_zip(file, size)
    _refuse_long_list(count, nbytes)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise FormatError(f"the archive is damaged or truncated ({error})", path=path) from error
    # Writers without the larger record store the lower 16 bits.
    if (len(archive.infolist()) - count) % (1 << 16):
        raise FormatError(
            f"the archive is damaged: it states {count} members and lists "
            f"{len(archive.infolist())}",
            path=path,
        )
    entries = [one for one in archive.infolist() if not one.is_dir() and not _is_link(one)]
    _refuse_sizes(sum(one.file_size for one in entries), size)
    if locked := sum(one.flag_bits & 1 for one in entries):
        raise FormatError(
            f"the archive is encrypted ({locked} of {len(entries)} members); unpack it with its "
            "password first"
        )
    if other := sorted({one.compress_type for one in entries} - set(_READ)):
        name = _OTHERS.get(other[0], f"number {other[0]}")
        raise FormatError(f"the archive uses a compression that is not read ({name})")
    found = ((one.filename, _Member(one, one.file_size)) for one in entries)
    return _Index(archive, _by_place(path, found), threading.Lock())


def _is_link(entry: zipfile.ZipInfo) -> bool:
    """Whether a member is a symbolic link: its Unix mode is in the upper half of the attributes."""
    return (entry.external_attr >> 16) & 0o170000 == 0o120000


def _end_of_zip(file: IO[bytes], size: int) -> tuple[int, int]:
    """The number of members and the bytes of their list, by the record at the end of a zip
    (APPNOTE 4.3.16, and 4.3.14 for more than 65,535 members).
    """
    tail_at = max(0, size - (1 << 16) - 42)
    file.seek(tail_at)
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + 22 > len(tail):
        raise FormatError("the archive is truncated: the list of its members is missing")
    count, nbytes = struct.unpack_from("<HI", tail, at + 10)
    if at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":
        file.seek(struct.unpack_from("<Q", tail, at - 12)[0])
        record = file.read(56)
        if len(record) == 56 and record[:4] == b"PK\x06\x06":
            count, nbytes = struct.unpack_from("<QQ", record, 32)
    return count, nbytes


def _refuse_long_list(count: int, nbytes: int = 0) -> None:
    # An entry has 46 bytes and its name.
    count = max(count, nbytes // 400)
    if count > MOST_MEMBERS:
        raise FormatError(
            f"the archive has {count:,} members or more; at most {MOST_MEMBERS:,} are read"
        )


def _refuse_sizes(nbytes: int, packed: int | None) -> None:
    """Refuse what unpacks to too much, or to too much of its size if it is ``packed``."""
    if nbytes > MOST_BYTES:
        raise FormatError(
            f"the archive unpacks to more than {MOST_BYTES >> 30} GiB, which is the limit"
        )
    if packed and nbytes > max(ANY_RATIO_BYTES, MOST_RATIO * packed):
        raise FormatError(
            f"the archive of {packed / 1e6:.3g} MB unpacks to {nbytes / 2**30:.3g} GiB or more; "
            f"above {ANY_RATIO_BYTES / 2**30:g} GiB, {MOST_RATIO} times its size is the limit"
        )


def _of_tar(path: Path) -> _Index:
    file: Any = path.open("rb", buffering=0)
    if _magic(path)[:2] == GZIP_MAGIC:
        with file:
            file = _unpacked(path)
    found: list[tuple[str, _Member]] = []
    nbytes = 0
    with _reading_tar(file, "r:") as tar:
        count = 0
        while (one := tar.next()) is not None:
            count += 1
            tar.members = []  # type: ignore[attr-defined]  # they would fill the memory
            _refuse_long_list(count)
            # A sparse file states holes of any size; scans have none.
            if one.isreg() and one.sparse is None:
                nbytes += one.size
                _refuse_sizes(nbytes, None)
                found.append((one.name, _Member(one.offset_data, one.size)))
        # tarfile ends without a word at a damaged header, at zeros in the middle, and at the end of
        # a file that was cut.
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no header and no end at byte {tar.offset}")
        while rest := file.read(1 << 20):
            if rest.count(0) < len(rest):
                raise tarfile.ReadError(f"more data behind its end at byte {tar.offset}")
    return _Index(file, _by_place(path, found), threading.Lock())


def _unpacked(path: Path) -> IO[bytes]:
    """The content of a gzip file in a temporary file without a name, which vanishes with this
    process.
    """
    free, packed, done = shutil.disk_usage(tempfile.gettempdir()).free, path.stat().st_size, 0
    zeros = bytes(UNPACKED_AT_ONCE)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
        with disk.opened(path) as content:
            while part := content.read(UNPACKED_AT_ONCE):
                done += len(part)
                _refuse_sizes(done, packed)
                if done > free // 2:
                    raise FormatError(
                        f"the archive unpacks to more than half of the {free / 2**30:.3g} GiB "
                        f"that are free in {tempfile.gettempdir()}"
                    )
                # Zeros become a hole, so that a small file which unpacks to gigabytes writes none.
                if part == zeros[: len(part)]:
                    file.seek(done)
                else:
                    file.write(part)
        file.truncate(done)
        stack.pop_all()
    file.seek(0)
    return file


@contextlib.contextmanager
def _reading_tar(file: Any, mode: str) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(fileobj=_Bounded(file), mode=mode) as tar:  # type: ignore[call-overload]
            yield tar
    except tarfile.TarError as error:
        raise FormatError(f"the archive is damaged or truncated ({error})") from error


def _by_place(path: Path, found: Iterable[tuple[str, _Member]]) -> dict[Path, _Member]:
    """The members by their paths; of equal names all but the first get a number."""
    places: dict[Path, _Member] = {}
    seen: Counter[str] = Counter()
    for given, member in found:
        # Archives made by Windows may have backslashes. What leads out of the archive is dropped.
        parts = [p for p in re.split(r"[\\/]+", given) if p not in ("", ".", "..")]
        name = "/".join(parts) or "member"
        seen[name] += 1
        places[path / (name if seen[name] == 1 else f"{name} ({seen[name]})")] = member
    return places


class _Window(io.RawIOBase):
    """A part of a file that other windows read too."""

    def __init__(self, place: Path, file: Any, lock: Any, begin: int, nbytes: int):
        self.name = str(place)
        self._file, self._lock, self._begin, self._nbytes = file, lock, begin, nbytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._nbytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self._nbytes - self._at)]
        with self._lock:
            self._file.seek(self._begin + self._at)
            got = self._file.readinto(view)
        self._at += got
        return int(got)


class _Bounded:
    """A file for ``tarfile``, which reads a header of any size that the archive states at once."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, nbytes: int = -1) -> bytes:
        if nbytes > MOST_HEADER:
            raise tarfile.ReadError(f"a header of more than {MOST_HEADER >> 20} MB")
        return self._file.read(nbytes)
