"""Store: preprocessed arrays on disk, in chunks, so that a patch is read without its whole volume.

Each case has a folder: ``image.b2nd`` (C, I, J, K) with quantised intensities (int16, in steps per
channel), ``label.b2nd`` (I, J, K) with class indices, both in blosc2 format, and ``case.npz`` with
the step sizes, with voxels of each class, on which patches are centred, and with checksums: of
every chunk, compared whenever it is read, of the rest of each file, and of ``case.npz`` itself. A
case gets its final name only when it is complete, so preprocessing that was killed continues where
it stopped. This module knows no plans.
"""

from __future__ import annotations

import io
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import atomic
from .errors import StoreError
from .inputs import json_text, parse_json
from .schema import SCHEMAS, migrate

# The largest step: that of float16 between 1 and 2. An image that would need larger steps in int16
# is stored as float32.
FINEST = 2.0**-10
# Largest size along each axis, for 3-D patches, of a chunk (located in one read) and of a block
# (decompressed by itself); measured.
CHUNK, BLOCK = 96, 32
POINTS = 512  # voxels kept per class and case, enough to centre patches on


@dataclass(frozen=True)
class StoredCase:
    """One preprocessed case; ``image`` (C, I, J, K) and ``label`` (I, J, K) uint8/uint16 can be
    sliced like numpy arrays.

    The value of a voxel is ``image`` times the ``step`` of its channel: either int16 values and a
    float32 step, or unchanged values and a step of 1. ``points`` maps class index -> (n, 3) voxels
    of that class, n at most ``POINTS``; classes without a voxel are absent. The index after the
    last class marks ignored voxels, which have no points. ``spacing_mm`` is along I, J, K.
    """

    id: str
    image: Any
    label: Any
    points: dict[int, NDArray[np.int32]]
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    step: tuple[float, ...] = ()

    @property
    def steps(self) -> NDArray[np.float32]:
        """(C,) step size of each channel."""
        return np.array(self.step or [1.0] * int(self.image.shape[0]), dtype=np.float32)

    def values(self, *box: slice) -> NDArray[np.float32]:
        """(C, i, j, k) float32 values of a box, or of the whole case if none is given; a copy."""
        found: NDArray[np.float32] = np.asarray(self.image[(slice(None), *box)]).astype(np.float32)
        # Multiply after the conversion: a product of mixed types is three times as slow.
        found *= self.steps[:, None, None, None]
        return found

    @property
    def shape(self) -> tuple[int, int, int]:
        i, j, k = self.label.shape
        return i, j, k

    def loaded(self) -> StoredCase:
        """The same case with its arrays in memory."""
        return replace(self, image=np.asarray(self.image[:]), label=np.asarray(self.label[:]))

    def seen(self, order: Sequence[int], table: NDArray[np.intp]) -> StoredCase:
        """The case with its axes in ``order`` and its class indices mapped by ``table``.

        Arrays on disk stay there, and each slice is reordered when it is read. Of arrays in memory,
        only a label whose classes change is copied.
        """
        a, b, c = (self.spacing_mm[axis] for axis in order)
        # Classes that are merged share their points.
        points: dict[int, NDArray[np.int32]] = {}
        for index, voxels in self.points.items():
            mine = voxels[:, list(order)]
            to = int(table[index])
            points[to] = np.concatenate([points[to], mine]) if to in points else mine
        channels_first = (0, *(1 + axis for axis in order))
        image: Any = _ReorientedCase(self.image, channels_first)
        # Ignored voxels keep the index after the last class.
        indices = np.append(table, table.max() + 1).astype(self.label.dtype)
        label: Any = _ReorientedCase(self.label, tuple(order), indices)
        if isinstance(self.image, np.ndarray) and isinstance(self.label, np.ndarray):
            image, label = image[:], label[:]
        return StoredCase(self.id, image, label, points, (a, b, c), self.step)


@dataclass(frozen=True)
class _ReorientedCase:
    """A stored array with its axes in another order and its values mapped by ``table``; can be
    sliced like the array itself.
    """

    array: Any
    order: tuple[int, ...]
    table: NDArray[Any] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(self.array.shape[axis]) for axis in self.order)

    @property
    def dtype(self) -> np.dtype[Any]:
        found: np.dtype[Any] = np.dtype(self.array.dtype)
        return found

    def __getitem__(self, slices: slice | tuple[slice, ...]) -> NDArray[Any]:
        requested = slices if isinstance(slices, tuple) else (slices,)
        # Slice in the order of the stored axes first, so that only this part is read.
        stored = [slice(None)] * len(self.order)
        for axis, part in zip(self.order, requested, strict=False):
            stored[axis] = part
        found = np.asarray(self.array[tuple(stored)]).transpose(self.order)
        same = self.table is None or np.array_equal(self.table, np.arange(len(self.table)))
        return found if same else self.table[found]  # type: ignore[index]


@dataclass(frozen=True)
class _Checksums:
    """CRC-32 of the parts of a file in blosc2's frame format: header, chunks, index and trailer.

    Args:
        ends: (n + 1) int64, where the header and each of the n chunks end. A chunk of one repeated
            value has no bytes.
        crc: (n + 1) uint32, of each chunk, then of all other bytes.
    """

    ends: NDArray[np.int64]
    crc: NDArray[np.uint32]

    @classmethod
    def of(cls, path: Path, chunks: Any) -> _Checksums:
        """Those of the file at ``path`` with the ``chunks``, a blosc2 super-chunk."""
        raw = memoryview(path.read_bytes())
        # The frame's header begins with its own length; chunks follow without gaps.
        ends, crc = [int.from_bytes(raw[11:15], "big")], []
        for n in range(chunks.nchunks):
            chunk = chunks.get_chunk(n)
            stored = raw[ends[-1] : ends[-1] + len(chunk)] == chunk
            ends.append(ends[-1] + len(chunk) * stored)
            crc.append(zlib.crc32(raw[ends[-2] : ends[-1]]))
        crc.append(zlib.crc32(raw[ends[-1] :], zlib.crc32(raw[: ends[0]])))
        return cls(np.array(ends, np.int64), np.array(crc, np.uint32))

    def frame_fits(self, path: Path) -> bool:
        """Whether all bytes of the file but those of its chunks are unchanged."""
        with path.open("rb") as file:
            found = zlib.crc32(file.read(int(self.ends[0])))
            file.seek(int(self.ends[-1]))
            return zlib.crc32(file.read(), found) == int(self.crc[-1])

    def chunks_fit(self, path: Path, numbers: Iterable[int]) -> bool:
        """Whether the chunks with these numbers are unchanged."""
        with path.open("rb") as file:
            for n in numbers:
                file.seek(int(self.ends[n]))
                found = zlib.crc32(file.read(int(self.ends[n + 1] - self.ends[n])))
                if found != int(self.crc[n]):
                    return False
        return True


@dataclass(frozen=True)
class _CheckedArray:
    """An array on disk that compares each chunk with its checksum whenever it is read; can be
    sliced like the array itself.
    """

    array: Any
    path: Path
    checksums: _Checksums

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        found: np.dtype[Any] = np.dtype(self.array.dtype)
        return found

    def __getitem__(self, slices: slice | tuple[slice, ...]) -> NDArray[Any]:
        requested = slices if isinstance(slices, tuple) else (slices,)
        numbers = _chunks_in(self.shape, self.array.chunks, requested)
        if not self.checksums.chunks_fit(self.path, numbers):
            raise _damaged(self.path.parent)
        return np.asarray(self.array[slices])


def _chunks_in(
    shape: Sequence[int], chunk: Sequence[int], slices: Sequence[slice]
) -> NDArray[np.intp]:
    """The numbers of the chunks that a box touches.

    >>> _chunks_in((1, 8, 8), (1, 4, 4), (slice(0, 1), slice(0, 5), slice(0, 4)))
    array([0, 2])
    """
    ranges = []
    whole = [slice(None)] * (len(shape) - len(slices))
    for n, size, part in zip(shape, chunk, (*slices, *whole), strict=True):
        inside = range(*part.indices(n))
        ranges.append(range(min(inside) // size, max(inside) // size + 1) if inside else range(0))
    counts = [-(-n // size) for n, size in zip(shape, chunk, strict=True)]
    return np.ravel_multi_index(np.ix_(*ranges), counts).ravel()


def _damaged(folder: Path) -> StoreError:
    return StoreError(
        "the prepared case is missing or damaged; remove its folder to prepare it again",
        case=folder.name,
        path=folder,
    )


class Store:
    """A folder of preprocessed cases."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def has(self, case: str) -> bool:
        """Whether ``case`` is stored completely."""
        return (self.folder / case / "case.npz").is_file()

    def add(
        self,
        case: str,
        image: NDArray[Any],
        label: NDArray[Any],
        classes: int,
        chunk: Sequence[int],
        seed: int = 0,
        spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
        ignored: bool = False,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        """Write one case; an existing one is replaced.

        Args:
            case: its id.
            image: (C, I, J, K) real.
            label: (I, J, K) class indices 0..classes-1.
            classes: number of classes, background included.
            chunk: shape of a patch (I, J, K), which is the unit of reading; for 3-D patches the
                chunks are at most ``CHUNK`` along each axis.
            seed: random seed of the choice of points.
            spacing_mm: along I, J, K.
            ignored: whether the last class marks ignored voxels, on which no patch is centred.
            notes: plain data to keep with the case.

        Raises:
            OutputError: the disk is full or cannot be written.
        """
        # blosc2 raises RuntimeError where it cannot write.
        with atomic.replacing_folder(self.folder / case, RuntimeError) as building:
            kept = _write_arrays(building, image, label, classes, chunk)
            points = class_points(label, classes - ignored, np.random.default_rng(seed))
            kept |= {str(c): p for c, p in points.items()}
            kept["spacing_mm"] = np.array(spacing_mm, dtype=np.float64)
            kept["notes"] = np.array(json_text(notes or {}))
            kept["delineate_store"] = np.array(SCHEMAS["delineate_store"])
            kept["crc32"] = np.array(_crc32(kept), np.uint32)
            np.savez(building / "case.npz", **kept)  # type: ignore[arg-type]

    def remove(self, case: str) -> None:
        """Remove a case, whose files may be damaged."""
        shutil.rmtree(self.folder / case, ignore_errors=True)

    def notes(self, case: str) -> dict[str, Any]:
        """What ``add`` kept with a case; {} for a case of an earlier version.

        Raises:
            StoreError: it is missing or damaged.
        """
        kept = self._kept(case)
        return dict(parse_json(str(kept["notes"]))) if "notes" in kept else {}

    def open(self, case: str) -> StoredCase:
        """One case whose arrays are still on disk.

        Raises:
            StoreError: it is missing or damaged; also from a slice of its arrays, if a chunk that
                it reads is damaged.
        """
        kept = self._kept(case)
        a, b, c = (float(v) for v in kept["spacing_mm"])
        return StoredCase(
            case,
            self._array(case, "image", kept),
            self._array(case, "label", kept),
            {int(n): points for n, points in kept.items() if n.isdigit()},
            (a, b, c),
            tuple(float(v) for v in kept.get("step", ())),
        )

    def _array(self, case: str, name: str, kept: Mapping[str, NDArray[Any]]) -> Any:
        """The image or the label of a case, on disk.

        Raises:
            StoreError: it is missing or damaged.
        """
        import blosc2

        path = self.folder / case / f"{name}.b2nd"
        # Cases of schema 1 have no checksums.
        has = f"{name}_crc" in kept
        checksums = _Checksums(kept[f"{name}_ends"], kept[f"{name}_crc"]) if has else None
        # Memory mapping, except on Windows.
        how: dict[str, Any] = {"mode": "r", "dparams": {"nthreads": 1}} | (
            {} if os.name == "nt" else {"mmap_mode": "r"}
        )
        try:
            if checksums is not None and not checksums.frame_fits(path):
                raise _damaged(path.parent)
            array = blosc2.open(str(path), **how)
        except (OSError, ValueError, RuntimeError) as error:
            raise _damaged(path.parent) from error
        return array if checksums is None else _CheckedArray(array, path, checksums)

    def _kept(self, case: str) -> dict[str, NDArray[Any]]:
        """The arrays of ``case.npz``.

        Raises:
            StoreError: it is missing or damaged.
        """
        folder = self.folder / case
        try:
            raw = (folder / "case.npz").read_bytes()
            with np.load(io.BytesIO(raw), allow_pickle=False) as file:
                kept = {name: file[name] for name in file.files}
        # Damaged zip files raise many kinds.
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            NotImplementedError,
            RuntimeError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise _damaged(folder) from error
        checksum, number = kept.pop("crc32", None), int(kept.get("delineate_store", 1))
        if "spacing_mm" not in kept or (
            number > 1 if checksum is None else int(checksum) != _crc32(kept)
        ):
            raise _damaged(folder)
        migrate("delineate_store", {"delineate_store": number}, path=str(folder))
        return kept

    def nbytes(self, cases: Sequence[str]) -> int:
        """Bytes that the arrays of these cases need in memory."""
        stored = [self.open(case) for case in cases]
        return sum(
            int(np.prod(c.image.shape)) * c.image.dtype.itemsize
            + int(np.prod(c.shape)) * c.label.dtype.itemsize
            for c in stored
        )


def _write_arrays(
    folder: Path, image: NDArray[Any], label: NDArray[Any], classes: int, chunk: Sequence[int]
) -> dict[str, NDArray[Any]]:
    """Write ``image.b2nd`` and ``label.b2nd`` to ``folder``; returns the (C,) step sizes and the
    checksums of both.
    """
    # Whatever "nthreads" states, blosc2 starts threads for each chunk, to pack the file's index:
    # five times the work, and on a busy machine thirty times the time. Only this prevents it.
    os.environ.setdefault("BLOSC_NTHREADS", "1")
    import blosc2

    chunks, blocks = _chunks_and_blocks(label.shape, chunk)
    params: dict[str, Any] = {"codec": blosc2.Codec.LZ4, "clevel": 3, "nthreads": 1}
    # With blosc2's shuffle filter, one-byte labels take four times as long to decompress.
    plain = params | {
        "filters": [blosc2.Filter.NOFILTER],
        "filters_meta": [0],
    }
    stored, step = _in_steps(np.asarray(image))
    image_file, label_file = folder / "image.b2nd", folder / "label.b2nd"
    images = blosc2.asarray(
        stored,
        urlpath=str(image_file),
        mode="w",
        chunks=(1, *chunks),
        blocks=(1, *blocks),
        cparams=params,
    )
    dtype = np.uint8 if classes <= 256 else np.uint16
    indices = np.ascontiguousarray(label, dtype=dtype)
    labels = blosc2.asarray(
        indices,
        urlpath=str(label_file),
        mode="w",
        chunks=chunks,
        blocks=blocks,
        cparams=plain,
    )
    found: dict[str, NDArray[Any]] = {"step": step}
    for name, path, array in (("image", image_file, images), ("label", label_file, labels)):
        checksums = _Checksums.of(path, array.schunk)
        found |= {f"{name}_ends": checksums.ends, f"{name}_crc": checksums.crc}
    return found


def _crc32(arrays: Mapping[str, NDArray[Any]]) -> int:
    """CRC-32 of names, types, shapes and bytes of arrays."""
    found = 0
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), found)
        found = zlib.crc32(array.tobytes(), found)
    return found


def _chunks_and_blocks(
    shape: Sequence[int], patch: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of chunks and of blocks for an array (I, J, K) that is read in patches.

    Chunks of a 3-D patch are limited in size and divided into blocks. A thin patch (a slice) is one
    chunk and one block.
    """
    solid = min(patch) >= BLOCK
    chunks = tuple(
        min(int(n), int(c), CHUNK if solid else int(c)) for n, c in zip(shape, patch, strict=True)
    )
    return chunks, tuple(min(n, BLOCK) for n in chunks) if solid else chunks


def _in_steps(image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """(C, I, J, K) quantised to int16 and the (C,) step sizes, such that 0 stays 0.

    As float32 and steps of 1 if quantisation would lose more than float16 does.
    """
    # The largest magnitude of each channel becomes the largest int16.
    reach = np.array(
        [max(abs(float(channel.max())), abs(float(channel.min()))) for channel in image]
    )
    step = np.where(reach > 0, reach / np.iinfo(np.int16).max, 1.0).astype(np.float32)
    if not np.isfinite(reach).all() or (step > np.where(reach > 0, FINEST, 1.0)).any():
        return np.ascontiguousarray(image, dtype=np.float32), np.ones(len(image), np.float32)
    # Round to the nearest step.
    out = np.empty(image.shape, np.int16)
    for channel, target, one in zip(image, out, step, strict=True):
        np.rint(channel * (1 / one), out=target, casting="unsafe")
    return out, step


def class_points(
    label: NDArray[Any], classes: int, rng: np.random.Generator
) -> dict[int, NDArray[np.int32]]:
    """Up to ``POINTS`` random voxels (n, 3) of each class except background; classes without a
    voxel are absent.
    """
    # Sort the foreground voxels by class, so that each class is one range.
    flat = np.ascontiguousarray(label).ravel()
    where = np.flatnonzero(flat)
    values = flat[where]
    order = np.argsort(values, kind="stable")
    where, values = where[order], values[order]
    bounds = np.searchsorted(values, np.arange(1, classes + 1))
    out = {}
    for c in range(1, classes):
        mine = where[bounds[c - 1] : bounds[c]]
        if len(mine):
            chosen = rng.choice(mine, size=min(POINTS, len(mine)), replace=False)
            out[c] = np.stack(np.unravel_index(chosen, label.shape), axis=1).astype(np.int32)
    return out
