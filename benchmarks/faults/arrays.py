"""Damaged .npy, .npz and HDF5 files."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from .made import BASE, MB, add, crc_through_zeros, edited, inflating


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _head(shape: str, kind: str = "'<i2'") -> bytes:
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


class _Code:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("1/0",))


def _numpy_files() -> None:
    sound = _npy(BASE)

    def put(what: str, data: bytes, accepted: bool = False, name: str = "a.npy") -> None:
        add("NumPy", what, name, data, accepted, "array")

    objects = io.BytesIO()
    np.save(objects, np.array([[[_Code()]]], object), allow_pickle=True)
    put("sound", sound, True)
    put("the magic number alone", sound[:8])
    put("cut in the header", sound[:40])
    put("cut in the middle", sound[: len(sound) // 2])
    put("a pickle under its name", pickle.dumps(_Code()))
    put("an array of objects (a pickle)", objects.getvalue())
    put("a header that is code", _head("__import__('os')") + BASE.tobytes())
    put("a header of 60 000 brackets", b"\x93NUMPY\x01\x00\x60\xea" + b"[" * 60_000)
    put("version 9", b"\x93NUMPY\x09" + sound[7:])
    put("sizes of 10^6", _head("(1000000, 1000000, 1000000)") + BASE.tobytes())
    put("a negative size", _head("(-24, 20, 16)") + BASE.tobytes())
    put("a size of 0", _head("(24, 0, 16)"))
    put("text instead of numbers", _npy(np.full((24, 20, 16), "word")))
    put("dates instead of numbers", _npy(BASE.astype("datetime64[s]")))
    put("complex numbers", _npy(BASE.astype(np.complex64)))
    put("two axes where three are stated", _npy(BASE[0]))

    def zipped(name: str, data: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as file:
            file.writestr(name, data)
        return out.getvalue()

    put("archive: sound", zipped("a.npy", sound), True, "a.npz")
    put("archive: cut in the middle", zipped("a.npy", sound)[:3000], name="a.npz")
    put(
        "archive: a changed byte",
        zipped("a.npy", sound, zipfile.ZIP_STORED).replace(
            b"\x07\x00\x08\x00", b"\x07\x00\x09\x00", 1
        ),
        name="a.npz",
    )
    put("archive: no array", zipped("a.txt", b"words"), name="a.npz")
    put("archive: an array of objects", zipped("a.npy", objects.getvalue()), name="a.npz")

    add("NumPy", "archive: 2 MB that unpack to 2.1 GB", "a.npz", _bomb, False, "array")


def _bomb(path: Path) -> None:
    """An archive of one array of zeros (APPNOTE.TXT, sections 4.3.7 and 4.3.12)."""
    head = _head("(1024, 1024, 2000)", "'|u1'")
    packed = inflating(head, 2000, "deflate")
    check = crc_through_zeros(zlib.crc32(head), 2000)
    size = len(head) + 2000 * MB
    facts = struct.pack("<5H3I2H", 20, 0, 8, 0, 0x21, check, len(packed), size, 5, 0)
    local = b"PK\x03\x04" + facts + b"a.npy" + packed
    entry = b"PK\x01\x02" + struct.pack("<H", 20) + facts + bytes(14) + b"a.npy"
    end = b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 1, 1, len(entry), len(local), 0)
    path.write_bytes(local + entry + end)


def _hdf5_files() -> None:
    def put(what: str, fill, accepted: bool = False) -> None:  # type: ignore[no-untyped-def]
        def write(path: Path) -> None:
            import h5py

            with h5py.File(path, "w") as file:
                fill(file, h5py)

        add("HDF5", what, "a.h5", write, accepted, "array")

    def raw(what: str, change, content=BASE) -> None:  # type: ignore[no-untyped-def]
        def write(path: Path) -> None:
            import h5py

            with h5py.File(path, "w") as file:
                file["a"] = content
            path.write_bytes(change(path.read_bytes()))

        add("HDF5", what, "a.h5", write, False, "array")

    put("sound", lambda file, _: file.create_dataset("a", data=BASE), True)
    put(
        "sound, packed",
        lambda file, _: file.create_dataset("a", data=BASE, compression="gzip"),
        True,
    )
    put("no array", lambda file, _: file.create_group("a"))
    put("text instead of numbers", lambda file, _: file.create_dataset("a", data=["word"]))
    put(
        "an array in another file that is missing",
        lambda file, h5: file.__setitem__("a", h5.ExternalLink("none.h5", "/a")),
    )
    put("a link to itself", lambda file, h5: file.__setitem__("a", h5.SoftLink("/a")))
    put("no axes", lambda file, _: file.create_dataset("a", data=5))
    put("a size of 0", lambda file, _: file.create_dataset("a", shape=(24, 0, 16), dtype="i2"))
    put(
        "2.1 GB in a file of 2 kB",
        lambda file, _: file.create_dataset("a", shape=(1024, 1024, 2000), dtype="u1", chunks=True),
    )
    put(
        "sizes of 10^6 in a file of 2 kB",
        lambda file, _: file.create_dataset("a", shape=(10**6,) * 3, dtype="u1", chunks=True),
    )
    put(
        "its voxels outside, in a device",
        lambda file, h5: file.create_dataset(
            "a", shape=BASE.shape, dtype="i2", external=[("/dev/zero", 0, h5.h5f.UNLIMITED)]
        ),
    )
    raw("text in a heap without an end", lambda data: edited(data, (2112, "H", 0)), ["word"])
    raw("text of another size", lambda data: edited(data, (856, "I", 0x39393939)), ["word"])
    raw("the magic number alone", lambda data: data[:8])
    raw("cut in the middle", lambda data: data[: len(data) // 2])
    raw("the first 600 bytes as zeros", lambda data: data[:8] + bytes(592) + data[600:])


_numpy_files()
_hdf5_files()
