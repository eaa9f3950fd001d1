"""The data elements of one file: where each one is, and its value when it is asked for.

pydicom converts every element that it reads, which is most of the time of finding a series among
thousands of files. Here only the lengths are followed (PS3.5, section 7.1), in all transfer
syntaxes. Numbers and ASCII text are converted here; sequences, private elements and other character
sets by pydicom. A file that ends early, or whose lengths lead nowhere, gives the elements before
the damage, and ``damage`` says what is wrong.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import struct
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from ....core.errors import FormatError
from ... import archive
from ...disk import Inflated

IMPLICIT, EXPLICIT_LITTLE, EXPLICIT_BIG = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
)
DEFLATED, MOST_DEFLATED = "1.2.840.10008.1.2.1.99", 1 << 28  # transfer syntax; bytes of one file
CHUNK = 1 << 14  # bytes that are read at once; most headers have fewer
MOST_KEPT = 1 << 12  # bytes of a value that is kept while the lengths are followed
# Short values are converted once: the slices of a series share most of them.
MOST_SHARED, MOST_VALUES = 256, 1 << 12  # bytes of one; number of all
MOST_DEEP = 32  # sequences inside sequences
UNDEFINED, ESCAPE = 0xFFFFFFFF, b"\x1b"
# VR (empty if it is implicit), position and length of the value, the value if it is kept, and
# whether VR are explicit.
_Element = tuple[bytes, int, int, bytes | None, bool]
# Integer pixel data, and those of floating-point numbers.
PIXELS = (0x7FE00010, 0x7FE00008, 0x7FE00009)
# What an image has instead of pixels.
ELSEWHERE = {
    "PixelDataProviderURL": "its pixels are on a server (PixelDataProviderURL)",
    "SpectroscopyData": "it holds spectra (SpectroscopyData) and no image",
    "EncryptedAttributesSequence": "its pixels are encrypted (EncryptedAttributesSequence)",
}
ITEM, ITEM_END, SEQUENCE_END, END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, -1
ENDS = frozenset((*PIXELS, ITEM, ITEM_END, SEQUENCE_END, END))
OTHER_GROUPS = (0xFFFE, 0x7FE0)  # items, and pixels: what ends the elements
# All value representations of PS3.5 6.2; those of the second list have a length of 32 bits.
SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
VRS = SHORT | LONG
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_WORDS = ("AE", "AS", "CS", "DA", "DT", "LO", "SH", "TM", "UC", "UI")  # may hold several values
_TEXTS = ("LT", "PN", "ST", "UT", "UR")
_BYTES = ("OB", "OD", "OF", "OL", "OV", "OW")


@dataclass(frozen=True)
class Stored:
    """Where the pixels of a file are, as it stores them.

    ``nbytes`` is None if they are encapsulated (compressed) in fragments; ``held`` is what the file
    has from there on, None if that is not known before it is unpacked.
    """

    offset: int
    held: int | None
    nbytes: int | None
    syntax: str  # UID of the transfer syntax


@dataclass(frozen=True)
class Pixels:
    """What reading the pixels of a file needs of its header, so that it is read once; numbers are
    None if they are not stated.

    ``nbytes`` is that of the file when its header was read; None if it is not known.
    """

    stored: Stored | None
    is_inflated: bool
    nbytes: int | None
    rows: int
    columns: int
    frames: int
    samples: int
    signed: int | None  # PixelRepresentation
    allocated: int | None
    bits: int | None
    high: int | None


class _Value(NamedTuple):
    """An element that was asked for by its tag."""

    value: Any


# What may follow the pixels: digital signatures and padding (PS3.5 7.2, PS3.6), in both orders.
AFTER_PIXELS = tuple(
    struct.pack(order + "HH", *tag)
    for order in "<>"
    for tag in ((0xFFFA, 0xFFFA), (0xFFFC, 0xFFFC))
)


class _DamageError(Exception):
    """The elements cannot be followed any further."""


class Header:
    """The elements of one file in front of its pixels, by keyword or tag as in pydicom's
    ``Dataset``; those of group 2 are among them.

    Args:
        file: at any position.
        nbytes: of the file; None if it is not known before it is unpacked.
        path: where values that are too long to be kept are read later.

    >>> modality = bytes([8, 0, 0x60, 0]) + b"CS" + bytes([2, 0]) + b"MR"
    >>> Header(io.BytesIO(modality), len(modality)).get("Modality")
    'MR'
    """

    def __init__(self, file: IO[bytes], nbytes: int | None, path: Path | None = None):
        self._path, self._nbytes, self._inflated = path, nbytes, b""
        self._elements: dict[int, _Element] = {}
        self._values: dict[int, Any] = {}  # that were asked for
        self._order, self.damage, self.doubt = "<", "", ""
        self.repeated: set[int] = set()
        self.stored: Stored | None = None
        walk = _Walk(file, nbytes, self._elements)
        try:
            self._follow(walk)
        except _DamageError as error:
            self.damage = str(error)

    @classmethod
    def read(cls, path: Path) -> Header:
        """The elements of a file or of a member of an archive.

        Raises:
            FormatError: it unpacks to too much. OSError: it cannot be read.
        """
        with archive.opened(path) as file:
            return cls(file, archive.nbytes_of(file, path), path)

    def __contains__(self, name: str | int) -> bool:
        return _tag(name) in self._elements

    def has(self, name: str) -> bool:
        """Whether the element is there and has a value."""
        return name in self and self._raw(_tag(name)).strip(b"\0 ") != b""

    def __getitem__(self, name: str | int) -> Any:
        return _Value(self._value(_tag(name)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self:
            raise AttributeError(f"no element {name}")
        return self._value(_tag(name))

    def get(self, name: str | int, default: Any = None) -> Any:
        """The value by keyword, or the element by tag."""
        tag = _tag(name)
        if tag not in self._elements:
            return default
        value = self._values[tag] if tag in self._values else self._value(tag)
        return _Value(value) if isinstance(name, int) else value

    @property
    def is_inflated(self) -> bool:
        """Whether the file was deflated, so that its pixels have no place in it."""
        return bool(self._inflated)

    @property
    def file_meta(self) -> Header:
        """The elements of group 2."""
        return self

    def keys(self) -> Iterator[int]:
        """The tags."""
        return iter(self._elements)

    @functools.cached_property
    def creators(self) -> dict[int, str]:
        """See ``creators_of``."""
        return _creators_in(self)

    def pixels(self) -> Pixels:
        """What reading the pixels needs."""
        names = ("PixelRepresentation", "BitsAllocated", "BitsStored", "HighBit")
        signed, allocated, bits, high = (_whole(self.get(name)) for name in names)
        counts = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel")
        rows, columns, frames, samples = (_whole(self.get(name)) or 1 for name in counts)
        place = self.stored, self.is_inflated, self._nbytes
        return Pixels(*place, rows, columns, frames, samples, signed, allocated, bits, high)

    def as_dataset(self) -> Any:
        """All elements as pydicom's ``Dataset``."""
        return self._dataset({tag: self._raw(tag) for tag in self._elements})

    # ---- following the lengths ----

    def _follow(self, walk: _Walk) -> None:
        # The meta elements (group 2) are little-endian with explicit VR, whatever follows.
        at = walk.run(132 if walk.peek(128, 4) == b"DICM" else 0, True, meta=True)
        syntax = str(self.get("TransferSyntaxUID") or "")
        if syntax == DEFLATED:
            self._inflated = _inflated(walk.file, at)
            walk = _Walk(io.BytesIO(self._inflated), len(self._inflated), self._elements)
            at = 0
        self._order = ">" if syntax == EXPLICIT_BIG else "<"
        self.repeated = walk.repeated
        walk.set_order(self._order)
        # Some files have the other kind of VR than their syntax; the first element shows it.
        at = walk.run(at, walk.peek(at + 4, 2) in VRS)
        if walk.pixels is None:
            is_image = self.get("Rows") and self.get("Columns")
            if is_image and not any(name in self for name in ELSEWHERE):
                raise _DamageError("a DICOM image without pixel data")
            return
        nbytes, at = walk.pixels
        # Inflated pixels have no place in the file.
        if not self._inflated:
            held = None if walk.nbytes is None else walk.nbytes - at
            self.stored = Stored(at, held, None if nbytes == UNDEFINED else nbytes, syntax)
        if nbytes == UNDEFINED:
            walk.follow_fragments(at)
        else:
            self._compare(nbytes, None if walk.nbytes is None else walk.nbytes - at)
            rest = 0 if walk.nbytes is None else walk.nbytes - at - nbytes
            if rest > 0 and not self.doubt and walk.peek(at + nbytes, 4) not in AFTER_PIXELS:
                self.doubt = f"{rest} bytes follow the element with the pixels, which are not read"

    def _compare(self, stated: int, held: int | None) -> None:
        """Compare the bytes of pixels that are stated, those that are there (None if that is not
        known), and those that the size of the image needs; a byte of padding may be missing.
        """
        found = stated if held is None else min(stated, held)
        names = ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "BitsAllocated")
        rows, columns, samples, frames, bits = (_whole(self.get(name)) or 1 for name in names)
        # Two colours for each pair of pixels.
        samples = 2 if "422" in str(self.get("PhotometricInterpretation")) else samples
        frame = rows * columns * samples * bits
        needed = -(-frame * frames // 8)
        if held is not None and stated > held and 8 * found < frame * frames:
            raise _DamageError(f"it ends after {found} of {needed} bytes of pixels")
        if stated > found:
            self.doubt = (
                f"the pixels have a length of {stated} bytes, but the file ends after {found}; all "
                f"{needed} bytes that its size needs are there"
            )
        elif found > needed + needed % 2:
            self.doubt = f"{found - needed} bytes follow the last pixel, which are not read"

    # ---- values ----

    def _value(self, tag: int) -> Any:
        if tag not in self._values:
            self._values[tag] = self._converted(tag)
        return self._values[tag]

    def _converted(self, tag: int) -> Any:
        stated, raw = self._elements[tag][0], self._raw(tag)
        vr = _vr_of(tag, stated)
        if vr == "US or SS":
            vr = "SS" if self.get("PixelRepresentation") else "US"
        if vr in _BYTES:
            return raw
        convert = _shared if len(raw) <= MOST_SHARED else _values_of
        if (found := convert(vr, "<" if tag >> 16 == 2 else self._order, raw)) is None:
            return self._by_pydicom(tag, raw)
        return (found[0] if len(found) == 1 else list(found)) if found else None

    def _raw(self, tag: int) -> bytes:
        """The bytes of a value; those of a long one are in the inflated data or the file."""
        _, at, nbytes, kept, _ = self._elements[tag]
        if kept is not None:
            return kept
        if self._inflated:
            return self._inflated[at : at + nbytes]
        assert self._path is not None
        with archive.opened(self._path) as file:
            file.seek(at)
            return file.read(nbytes)

    def _by_pydicom(self, tag: int, raw: bytes) -> Any:
        values = {tag: raw}
        # The meaning of a private element depends on the creator of its block (PS3.5, 7.8.1).
        creator = (tag & 0xFFFF0000) | (tag & 0xFFFF) >> 8
        if tag >> 16 & 1 and creator in self._elements:
            values[creator] = self._raw(creator)
        dataset = self._dataset(values)
        # pydicom warns about values that violate the standard; what matters is checked later. The
        # filters of warnings belong to the process, not to a thread.
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dataset[tag].value

    def _dataset(self, values: Mapping[int, bytes]) -> Any:
        """Elements as pydicom's ``Dataset``, which converts each when it is asked for."""
        from pydicom.charset import convert_encodings
        from pydicom.dataelem import RawDataElement
        from pydicom.dataset import Dataset
        from pydicom.tag import Tag

        is_little, elements = self._order == "<", dict[Any, Any]()
        for tag, raw in values.items():
            vr, at, _, _, is_explicit = self._elements[tag]
            elements[Tag(tag)] = RawDataElement(
                Tag(tag), vr.decode() or None, len(raw), raw, at, not is_explicit, is_little
            )
        dataset = Dataset(elements)
        sets = self.get("SpecificCharacterSet") or "ISO_IR 6"
        encodings = convert_encodings([sets] if isinstance(sets, str) else list(sets))
        dataset.set_original_encoding(not is_explicit, is_little, encodings)
        return dataset


def _whole(value: Any) -> int | None:
    """A number; None of anything else."""
    return int(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


_WARNINGS = threading.Lock()


@functools.cache
def _tag(name: str | int) -> int:
    from pydicom.datadict import tag_for_keyword

    found = name if isinstance(name, int) else tag_for_keyword(name)
    return -1 if found is None else int(found)


def keyword_of(tag: int) -> str:
    """The keyword of an element, or its tag as (gggg,eeee)."""
    from pydicom.datadict import keyword_for_tag

    return keyword_for_tag(tag) or f"({tag >> 16:04x},{tag & 0xFFFF:04x})"


@functools.cache
def _vr_of(tag: int, stated: bytes) -> str:
    """The VR of an element: as stated, else by the standard; "" if only pydicom knows it."""
    from pydicom.datadict import dictionary_VR

    try:
        if stated not in (b"", b"UN"):
            return stated.decode()
        if tag >> 16 & 1:  # the creator of a private block (PS3.5, 7.8.1), or an element of it
            return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else ""
        return dictionary_VR(tag)
    except (KeyError, ValueError):
        return ""


def _values_of(vr: str, order: str, raw: bytes) -> tuple[Any, ...] | None:
    """The values of an element with numbers or ASCII text; None if only pydicom can read it."""
    try:
        if vr in _NUMBERS:
            form = _NUMBERS[vr]
            return struct.unpack(f"{order}{len(raw) // struct.calcsize(form)}{form}", raw)
        if vr in ("DS", "IS"):
            convert = float if vr == "DS" else int
            words = raw.decode("ascii").rstrip("\0 ").split("\\")
            return tuple(convert(word) for word in words if word.strip())
        # Sets of Japan, Korea and China escape from ASCII with bytes that are ASCII.
        if (vr in _WORDS or vr in _TEXTS) and raw.isascii() and ESCAPE not in raw:
            text = raw.decode("ascii").rstrip("\0 ")
            return tuple(map(str.strip, text.split("\\"))) if vr in _WORDS else (text,)
    except (ValueError, struct.error):
        pass
    return None


_shared = functools.lru_cache(MOST_VALUES)(_values_of)


def creators_of(dataset: Any) -> dict[int, str]:
    """Who reserved each block of private elements (PS3.5 7.8.1), by the tags that state it."""
    return dataset.creators if isinstance(dataset, Header) else _creators_in(dataset)


def _creators_in(dataset: Any) -> dict[int, str]:
    tags = [tag for tag in map(int, dataset.keys()) if tag & 0x10000 and 0x10 <= tag & 0xFFFF < 256]
    found = {}
    for tag in tags:
        # One that violates the standard must not cost the image.
        with contextlib.suppress(Exception):
            found[tag] = str(dataset[tag].value or "").strip()
    return found


def _inflated(file: IO[bytes], at: int) -> bytes:
    """The elements of a deflated file.

    Raises:
        FormatError: they have more than ``MOST_DEFLATED`` bytes.
    """
    file.seek(at)
    plain, found = Inflated(file, -15), io.BytesIO()
    try:
        while part := plain.read(1 << 20):
            found.write(part)
            if found.tell() > MOST_DEFLATED:
                raise FormatError(f"unpacks to more than {MOST_DEFLATED >> 20} MB")
    except EOFError:
        pass  # the lengths will show what is missing
    return found.getvalue()


class _Walk:
    """Follows the lengths of elements, from the position ``at`` of each to the next.

    ``pixels`` has the length and position of the pixel data when they are reached.
    """

    def __init__(self, file: IO[bytes], nbytes: int | None, elements: dict[int, _Element]):
        self.file, self.nbytes = file, nbytes
        self.pixels: tuple[int, int] | None = None
        self.repeated: set[int] = set()  # tags that were found with different values
        self._elements = elements
        self._chunk, self._begin = b"", 0
        self.set_order("<")

    def set_order(self, order: str) -> None:
        """The order of bytes, "<" or ">"."""
        self._head = struct.Struct(f"{order}HH2sHI").unpack_from
        self._length = struct.Struct(f"{order}I").unpack_from

    def peek(self, at: int, count: int) -> bytes:
        """Bytes of the file, fewer at its end."""
        if not self._begin <= at <= at + count <= self._begin + len(self._chunk):
            self.file.seek(at)
            self._chunk, self._begin = self.file.read(max(count, CHUNK)), at
        return self._chunk[at - self._begin : at - self._begin + count]

    def run(self, at: int, is_explicit: bool, meta: bool = False) -> int:
        """Record the elements up to the pixels or the end, or with ``meta`` those of group 2;
        returns where it ended.
        """
        most = math.inf if self.nbytes is None else self.nbytes
        while True:
            begin = at = self._run_of_short(at, meta) if is_explicit else at
            tag, vr, nbytes, at = self._element(at, is_explicit)
            if tag in ENDS or (meta and tag >> 16 != 2):
                break
            end = at + nbytes
            if nbytes == UNDEFINED:
                # Elements of unknown VR have sequences with implicit VR (PS3.5, 6.2.2).
                end = self._end_of_items(at, is_explicit and vr != b"UN", 1)
                nbytes = end - 8 - at
            kept = None
            if nbytes <= MOST_KEPT:
                offset = at - self._begin
                kept = self._chunk[offset : offset + nbytes]
                if len(kept) < nbytes:
                    kept = self.peek(at, nbytes)
            if end > most or (kept is not None and len(kept) < nbytes):
                raise _DamageError(f"it ends within the element at byte {begin}")
            if tag in self._elements and self._elements[tag][3] != kept:
                self.repeated.add(tag)
            self._elements[tag] = vr, at, nbytes, kept, is_explicit
            at = end
        if tag in PIXELS:
            self.pixels = nbytes, at
        elif tag >> 16 == 0xFFFE:
            raise _DamageError(f"an item outside of any sequence at byte {begin}")
        return begin

    def _run_of_short(self, at: int, meta: bool) -> int:
        """Record what most elements are, and in as little time as can be: those with an explicit VR
        and a length of 16 bits that lie in what was read; returns where the first other one begins.
        """
        chunk, head, elements = self._chunk, self._head, self._elements
        offset = at - self._begin
        while 0 <= offset <= len(chunk) - 12:
            group, number, vr, nbytes, _ = head(chunk, offset)
            tag, value, end = group << 16 | number, offset + 8, offset + 8 + nbytes
            if vr not in SHORT or group in OTHER_GROUPS or end > len(chunk) or nbytes > MOST_KEPT:
                break
            if meta and group != 2:
                break
            kept = chunk[value:end]
            if tag in elements and elements[tag][3] != kept:
                self.repeated.add(tag)
            elements[tag] = vr, self._begin + value, nbytes, kept, True
            offset = end
        return self._begin + offset

    def follow_fragments(self, at: int) -> None:
        """Follow the fragments of encapsulated pixels (PS3.5, A.4) to their end."""
        while True:
            tag, _, nbytes, value_at = self._element(at, True)
            # Some writers omit the delimiter at the end of the file.
            if tag == SEQUENCE_END or (tag == END and at == self.nbytes):
                return
            at = value_at + nbytes
            if tag != ITEM or (self.nbytes is not None and at > self.nbytes):
                raise _DamageError("it ends within its compressed pixels")

    def _element(self, at: int, is_explicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, VR, length and the position of the value of the element at ``at``; the tag ``END``
        if the file ends there.
        """
        offset = at - self._begin
        if 0 <= offset <= len(self._chunk) - 12:
            head = self._chunk
        else:
            # The last element may be shorter than the longest head.
            head, offset = self.peek(at, 12), 0
            if len(head) < 8:
                return END, b"", 0, at
            head = head.ljust(12, b"\0")
        group, number, vr, short, long = self._head(head, offset)
        tag = group << 16 | number
        if is_explicit and group != 0xFFFE:
            if vr in SHORT:
                return tag, vr, short, at + 8
            if vr in LONG:
                return tag, vr, long, at + 12
            if b"AA" <= vr <= b"ZZ":  # a VR of a later edition
                return tag, vr, short, at + 8
        return tag, b"", self._length(head, offset + 4)[0], at + 8

    def _end_of_items(self, at: int, is_explicit: bool, depth: int) -> int:
        """Where a sequence of undefined length ends, after its delimiter."""
        if depth > MOST_DEEP:
            raise _DamageError(f"more than {MOST_DEEP} sequences are nested")
        while True:
            tag, _, nbytes, at = self._element(at, is_explicit)
            if tag == SEQUENCE_END:
                return at
            if tag != ITEM:
                raise _DamageError(f"no item at byte {at - 8}")
            at = at + nbytes if nbytes != UNDEFINED else self._end_of_item(at, is_explicit, depth)

    def _end_of_item(self, at: int, is_explicit: bool, depth: int) -> int:
        while True:
            tag, vr, nbytes, at = self._element(at, is_explicit)
            if tag == ITEM_END:
                return at
            if tag == END:
                raise _DamageError(f"it ends at byte {at}")
            at = (
                at + nbytes
                if nbytes != UNDEFINED
                else self._end_of_items(at, is_explicit and vr != b"UN", depth + 1)
            )
