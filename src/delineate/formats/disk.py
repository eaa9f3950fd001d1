"""File access shared by all formats: opening (gzip or not), names, and library failures as errors
of this package.

Gzip is recognised by its first bytes and read by ISA-L, directly into the array that keeps the
voxels. This module knows no format.
"""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import io
import json
import logging
import math
import os
import re
import struct
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import numpy as np
from isal import igzip, isal_zlib
from numpy.typing import NDArray

from ..core.errors import DelineateError, FormatError, LabelError, OutputError
from ..core.inputs import parse_json, refuse_large, refuse_special, special_kind
from ..core.labels import LabelSet, as_whole_numbers
from ..core.volume import Volume
from ..extend.registers import FORMATS

log = logging.getLogger(__name__)
# Errors of libraries whose texts are about code.
UNCLEAR = (LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, struct.error)
LABELS_KEY = "delineate_labels"  # of the JSON in a field for text

_UNFIT = re.compile(r"[^\w .+()-]")  # characters that a file name may not have on some system
GZIP_MAGIC = b"\x1f\x8b"
STILL_NS = 50_000_000  # longer than the steps of the clocks of file systems
MOST_HEADS = 1 << 24  # bytes of the beginnings of files that are kept
HEAD_BYTES = 4096  # enough to recognise the format and to hold a fixed-size header
# Bytes that may follow the last voxel: padding, but not more slices.
MOST_REST = 4096
STEP_BYTES = 1 << 24  # that are read at once
MOST_SKIPPED = 1 << 26  # bytes before the first voxel: a header with its extensions
DEFLATE_RATIO = 1032  # no compressed data grows more
GZIP_LEVEL = 1  # of ISA-L's 0..3: close to its best speed, and label volumes already shrink well
# Compound endings come before their last part, so that "scan.nii.gz" is the case "scan"; "a.b.png"
# is the case "a.b".
ENDINGS = (
    ".nii.gz",
    ".img.gz",
    ".hdr.gz",
    ".mgh.gz",
    ".ppm.gz",
    ".pgm.gz",
    ".pbm.gz",
    ".seg.nrrd",
    ".seg.dcm",
    ".rtstruct.dcm",
    ".sr.dcm",
    ".pm.dcm",
    ".kos.dcm",
    ".sc.dcm",
    ".nii",
    ".img",
    ".hdr",
    ".mgz",
    ".mgh",
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
    ".png",
    ".ome.tiff",
    ".ome.tif",
    ".tiff",
    ".tif",
    ".jpeg",
    ".jpg",
    ".gif",
    ".bmp",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".dcm.gz",
    ".dcm",
    ".ima",
    ".tar.gz",
    ".tgz",
    ".tar",
    ".zip",
    ".npy",
    ".npz",
    ".gz",
)


_gzip: Any = igzip.IGzipFile  # no library types it as a stream
IsalError: type[Exception] = isal_zlib.error  # type: ignore[assignment,unused-ignore]


# Names of units of length, without a plural's s -> millimetres.
LENGTHS = {
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 10.0),
    **dict.fromkeys(("m", "meter", "metre"), 1000.0),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "micrometer", "micrometre"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-6),
    **dict.fromkeys(("in", "inch", "inche"), 25.4),
}


def mm_of(unit: str) -> float | None:
    """Millimetres in a unit of length; None for other words, such as "pixel".

    >>> mm_of("Microns"), mm_of("cm"), mm_of("pixel")
    (0.001, 10.0, None)
    """
    name = unit.strip().lower()
    return LENGTHS.get(name, LENGTHS.get(name.removesuffix("s")))


def stated_mm(unit: str) -> float:
    """Millimetres in the unit that a header states; 1 if it states none.

    Raises:
        FormatError: it is no unit of length that is known.
    """
    if unit.strip(" ?").lower() in ("", "none", "unknown"):
        return 1.0
    if (found := mm_of(unit)) is None:
        raise FormatError(f"lengths in {unit[:40]!r}; allowed: mm, cm, m, um, nm, inch")
    return found


def other_range(low: float, high: float, array: NDArray[Any], names: str) -> str:
    """A note on values beyond the ``low`` and ``high`` that a header states (NaN: it states none)
    in the fields ``names``; "" if there are none.
    """
    if math.isnan(low) and math.isnan(high):
        return ""
    # Of numbers that a header rounds, the sixth digit may differ.
    least, most = (float(pick.reduce(array, axis=None)) for pick in (np.fmin, np.fmax))
    slack = 1e-5 * max(abs(least), abs(most))
    if not (least < low - slack or most > high + slack):
        return ""
    stated = (
        f"{'?' if math.isnan(low) else f'{low:g}'} to {'?' if math.isnan(high) else f'{high:g}'}"
    )
    return (
        f"its header states values from {stated} ({names}); they are {least:g} to {most:g}, so the "
        "header is that of other values, or the values are damaged"
    )


def stem(path: str | Path) -> str:
    """Return the file name without its image ending (``scan.nii.gz`` -> ``scan``); unknown endings
    stay.
    """
    name = Path(path).name
    # A name that consists of nothing but the ending is kept.
    for ending in (*ENDINGS, *added_endings()):
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def added_endings() -> tuple[str, ...]:
    """Endings of the files of registered formats that are not the package's own."""
    return _endings_of(FORMATS.names())


@functools.cache
def _endings_of(names: tuple[str, ...]) -> tuple[str, ...]:
    added = [(name, part) for name, part in FORMATS.items() if not FORMATS.is_own(name)]
    return tuple(ending for _, part in added for ending in part.endings)


def natural_key(name: str | Path) -> tuple[Any, ...]:
    """Make a sorting key in which numbers are compared as numbers (``s2.png`` before ``s10.png``);
    letter case is compared last.
    """
    text = str(name)
    # Digits sort before letters, as numbers; the text itself breaks ties.
    parts = tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part.lower())
        for part in re.split(r"([0-9]+)", text)
        if part
    )
    return (parts, text)


@contextlib.contextmanager
def told(path: str | Path, what: str = "file") -> Iterator[None]:
    """Turn failures of libraries and of the disk into a ``FormatError`` that names ``path``; errors
    of this package get the path if they have none.
    """
    try:
        yield
    except DelineateError as error:
        if error.path is None:
            error.path = str(path)
        raise
    # The order matters: subclasses of OSError come before it.
    except FileNotFoundError as error:
        raise FormatError("no such file or folder", path=path) from error
    except IsADirectoryError as error:
        raise FormatError("is a folder, but a file is needed", path=path) from error
    except EOFError as error:
        raise FormatError("truncated: the compressed data ends early", path=path) from error
    except (zlib.error, IsalError, gzip.BadGzipFile) as error:
        raise FormatError(
            f"damaged: the compressed data cannot be unpacked ({error})", path=path
        ) from error
    except OSError as error:
        raise FormatError(f"cannot be read ({error.strerror or error})", path=path) from error
    except MemoryError as error:
        raise FormatError("does not fit into memory", path=path) from error
    # Any other exception of a library is an input it did not expect: for the user, a damaged file.
    except Exception as error:
        log.debug("%s: %s: %s", path, type(error).__name__, error)
        last = (str(error).strip().splitlines() or [""])[-1][:200]
        why = "its fields contradict each other" if isinstance(error, UNCLEAR) else last
        raise FormatError(f"damaged or not a real {what}: {why}", path=path) from error


Found = TypeVar("Found")


class Kept(Generic[Found]):
    """What was read of the last files, for others in the same process that read them: a file that
    is as it was is not opened again.

    Args:
        read: what is kept of the file at a path; its errors are not kept.
        weight: of what was read.
        most: the sum of the weights of all that is kept.
        around: the file on disk that holds what is at a path, if it is not the path.
    """

    def __init__(
        self,
        read: Callable[[Path], Found],
        weight: Callable[[Found], int],
        most: int,
        around: Callable[[Path], Path | None] = lambda path: None,
    ) -> None:
        self._read, self._weight, self._most, self._around = read, weight, most, around
        self._files: OrderedDict[Path, tuple[tuple[int, ...], Found]] = OrderedDict()
        self._sum, self._lock = 0, threading.Lock()

    def __call__(self, path: Path) -> Found:
        state = _state_of(self._around(path) or path)
        with self._lock:
            kept = self._files.get(path)
            if kept is not None and state == kept[0]:
                self._files.move_to_end(path)
                return kept[1]
        found = self._read(path)
        if state is not None:
            with self._lock:
                self._forget(path)
                self._files[path] = state, found
                self._sum += self._weight(found)
                while self._sum > self._most:
                    self._forget(next(iter(self._files)))
        return found

    def _forget(self, path: Path) -> None:
        if (known := self._files.pop(path, None)) is not None:
            self._sum -= self._weight(known[1])


def _state_of(path: Path) -> tuple[int, ...] | None:
    """What changes when a file does; None if that cannot be known, as within the time in which
    clocks of file systems stand still.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < STILL_NS:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


_WATCHERS: list[Callable[[Path], None]] = []


@contextlib.contextmanager
def watched(watcher: Callable[[Path], None]) -> Iterator[None]:
    """Inside the block, ``watcher`` is called with every file before its first bytes are read, by
    which every reader begins; what it raises refuses the file.
    """
    _WATCHERS.append(watcher)
    try:
        yield
    finally:
        _WATCHERS.remove(watcher)


def head_of(path: str | Path) -> bytes:
    """Read the first bytes of a file, unpacked if it is gzip: ``HEAD_BYTES``, or fewer if the file
    is shorter.
    """
    for watcher in _WATCHERS:
        watcher(Path(path))
    refuse_special(path)
    return _heads(Path(path))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        if head[:2] != GZIP_MAGIC:
            return head
        # Compressed data is rarely longer than what it unpacks to, so this is more than enough.
        raw = head + file.read(8 * HEAD_BYTES)
    return bytes(isal_zlib.decompressobj(wbits=31).decompress(raw, HEAD_BYTES))


_heads = Kept(_head, len, MOST_HEADS)


@contextlib.contextmanager
def opened_part(path: Path) -> Iterator[IO[bytes]]:
    """Open a file of voxels that a header names; errors leave it to ``told`` to name the header.

    Raises:
        FormatError: it is a named pipe, a socket or a device.
    """
    if kind := special_kind(path):
        raise FormatError(f"its voxels are in {path}, which is {kind}; only files are opened")
    with path.open("rb") as file:
        yield file


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacked if it is gzip."""
    refuse_special(path)
    place = path if isinstance(path, Path) else Path(path)
    with place.open("rb") as raw:
        magic = raw.read(2)
        raw.seek(0)
        with unpacked(raw, "gzip" if magic == GZIP_MAGIC else "raw") as file:
            yield file


def unpacked(file: IO[bytes], encoding: str) -> Any:
    """A context manager of the data of ``file`` from its current position on; ``encoding`` as NRRD
    names it: "raw", "gzip", "gz", "bzip2" or "bz2".
    """
    if encoding == "raw":
        return contextlib.nullcontext(file)
    return _gzip(fileobj=file, mode="rb") if encoding in ("gzip", "gz") else bz2.BZ2File(file)


@contextlib.contextmanager
def packing(path: Path, compressed: bool) -> Iterator[IO[bytes]]:
    """Open ``path`` for writing, compressed by ISA-L if ``compressed``. There is no time stamp, so
    equal volumes give equal files.
    """
    with path.open("wb") as raw:
        if not compressed:
            yield raw
            return
        with gzip_into(raw) as file:
            yield file


@contextlib.contextmanager
def gzip_into(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    """A file whose bytes are compressed by ISA-L and added to ``raw``, without a time stamp."""
    with _gzip(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=raw, mtime=0) as file:
        yield file


def read_array(
    file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], most_rest: int = MOST_REST
) -> NDArray[Any]:
    """Read an array of ``shape`` in Fortran order and native byte order from the current position
    of ``file``, without a second copy in memory.

    The size of the file is compared with what is needed before memory is taken.

    Args:
        file: open for reading, packed or not.
        shape: of the array, at least one voxel.
        dtype: as stored.
        most_rest: number of bytes that may follow the last voxel.

    Raises:
        FormatError: the file ends before the last voxel, or has more than ``most_rest`` bytes or
            whole slices behind it.
        InputError: too large, see ``core.inputs.refuse_large``.
    """
    count = math.prod(shape)
    if count < 1:
        raise FormatError(f"no voxels: its shape is {shape}")
    needed = count * dtype.itemsize
    size = os.fstat(file.fileno()).st_size
    is_packed = not isinstance(file, io.BufferedReader)
    held = size * DEFLATE_RATIO if is_packed else size - file.tell()
    if needed > max(held, 0):
        raise FormatError(
            f"truncated: {needed} bytes of voxels are needed, but the file has {size} bytes"
        )
    refuse_large(needed, size if is_packed else None)
    flat = np.empty(needed, np.uint8)
    if (done := read_into(file, flat)) < needed:
        raise FormatError(f"truncated: the file holds {done} of {needed} bytes of voxels")
    _refuse_rest(file, most_rest, needed // shape[-1] if len(shape) > 2 else needed)
    # A foreign byte order costs a copy; the usual case costs none.
    array = flat.view(dtype).reshape(shape, order="F")
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="), order="F")


def read_into(file: IO[bytes], array: NDArray[Any]) -> int:
    """Fill an array that is contiguous in C order from the current position of ``file``, packed or
    not; returns the number of bytes that were read: fewer than it has if the file ends early.
    """
    view, done = memoryview(array.reshape(-1).view(np.uint8).data), 0
    while done < len(view):
        try:
            got = file.readinto(view[done : done + STEP_BYTES])  # type: ignore[attr-defined]
        except EOFError:
            break
        if not got:
            break
        done += got
    return done


def read_numbers(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """As ``read_array``, of numbers that are written as text."""
    count = math.prod(shape)
    size = os.fstat(file.fileno()).st_size - file.tell()
    if 2 * count - 1 > size:
        raise FormatError(f"truncated: {count} numbers are needed, the file has {size} bytes")
    refuse_large(count * dtype.itemsize)
    words = file.read().split()
    if len(words) != count:
        raise FormatError(f"the header states {count} numbers, the file has {len(words)}")
    return np.array(words).astype(dtype.newbyteorder("=")).reshape(shape, order="F")


def _refuse_rest(file: IO[bytes], most: int, slice_bytes: int) -> None:
    """Read to the end, where gzip compares its checksum; refuse what cannot be padding."""
    rest = 0
    while rest <= most and (got := len(file.read(1 << 16))):
        rest += got
    if rest > most or (rest and most <= MOST_REST and rest % slice_bytes == 0):
        raise FormatError(
            f"{rest} or more bytes follow the last voxel: the header states a smaller image than "
            "the file holds"
        )


def skip(file: IO[bytes], nbytes: int) -> None:
    """Read ``nbytes`` of a file that may be unable to seek, and drop them.

    Raises:
        FormatError: more than ``MOST_SKIPPED``, or the file ends before.
    """
    if not 0 <= nbytes <= MOST_SKIPPED:
        raise FormatError(f"the voxels would begin at byte {nbytes}, beyond any header")
    while nbytes > 0:
        got = len(file.read(min(nbytes, 1 << 20)))
        if not got:
            raise FormatError(f"truncated: it ends {nbytes} bytes before the first voxel")
        nbytes -= got


class Inflated(io.RawIOBase):
    """The bytes of zlib data, unpacked as they are read.

    Args:
        file: at the beginning of the data.
        wbits: 15 for zlib, -15 for data without a header.
    """

    def __init__(self, file: IO[bytes], wbits: int = 15):
        self._file, self._unpacker = file, isal_zlib.decompressobj(wbits=wbits)

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def readinto(self, buffer: Any) -> int:
        data, wanted = b"", len(buffer)
        while wanted and not data and not self._unpacker.eof:
            packed = self._unpacker.unconsumed_tail or self._file.read(1 << 16)
            if not packed:
                raise EOFError
            data = self._unpacker.decompress(packed, wanted)
        buffer[: len(data)] = data
        return len(data)


def is_348(head: bytes) -> bool:
    """Return whether an Analyze or NIfTI-1 header begins here: its size, 348, in either byte
    order.
    """
    return len(head) >= 348 and 348 in (
        struct.unpack("<i", head[:4])[0],
        struct.unpack(">i", head[:4])[0],
    )


def stems_of(labels: LabelSet) -> list[str]:
    """Names of files for the structures, one each.

    >>> stems_of(LabelSet.from_names({1: "GTV/primary", 2: "GTV:primary", 3: "lung"}))
    ['GTV_primary (1)', 'GTV_primary (2)', 'lung (3)']
    """
    stems = [_UNFIT.sub("_", name) for name in labels.names]
    # Two names may differ only in a character that files cannot have, or in case.
    if len({stem.casefold() for stem in stems}) < len(stems):
        stems = [f"{stem} ({value})" for stem, value in zip(stems, labels.values, strict=True)]
    return stems


def refuse_others(folder: Path, names: Collection[str]) -> None:
    """Refuse to write slices into a folder that holds other files, which would be read as slices of
    the same volume.

    Raises:
        OutputError: it holds other files than ``names``.
    """
    others = sorted((p.name for p in folder.iterdir() if p.name not in names), key=natural_key)
    if others:
        shown = ", ".join(others[:3]) + (" ..." if len(others) > 3 else "")
        raise OutputError(
            f"the folder holds other files ({shown}); slices need an empty folder", path=folder
        )


def smallest_labels(volume: Volume) -> NDArray[Any]:
    """Convert a label volume's array to the smallest unsigned integer dtype that holds its values.

    Raises:
        LabelError: values that are negative, above 2**32 - 1 or not whole.
    """
    array = volume.array
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    # Float values are accepted if they are whole, as some tools store masks as float.
    array = as_whole_numbers(array, volume.source or None)
    low, high = array.min(), array.max()
    if not (low >= 0 and high < 2**32):
        raise LabelError(
            f"label values must be whole numbers from 0, found {low} to {high}",
            path=volume.source or None,
        )
    return array.astype(np.min_scalar_type(int(high)), copy=False)


def labels_as_text(labels: LabelSet) -> str:
    """The structures as JSON, for a format with a field for text."""
    return json.dumps({LABELS_KEY: labels.to_json()})


def names_in_text(text: str) -> dict[int, str]:
    """Value -> name from the text that ``labels_as_text`` made; {} for any other text."""
    try:
        found = parse_json(text.rstrip("\0 "))[LABELS_KEY]
        return {label.value: label.name for label in LabelSet.from_json(found)}
    except (ValueError, KeyError, TypeError, LabelError):
        return {}
