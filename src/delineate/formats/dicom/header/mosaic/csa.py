"""What Siemens scanners write in private elements: CSA headers, newer elements with the same
content, and the protocol as text.

A CSA header (format 1 without a signature, format 2 with "SV10") is a list of named tags, each with
a few items of text. The protocol is text between the two ASCCONV lines, one assignment a line.
Neither is documented by the vendor; this follows the description in nibabel's documentation. Every
length is checked against the data before it is used.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

from .....core.errors import FormatError
from ..elements import creators_of

SIGNATURE = b"SV10"
MOST_TAGS = 512  # real headers have about 100
MOST_DEPTH = 4  # sequences within sequences that are searched for a protocol
IMAGE = 0x10  # element of the header of the image in its block
_CREATOR, _NEWER = "SIEMENS CSA HEADER", "SIEMENS MR SDI 02"
COUNT = "NumberOfImagesInMosaic"
# Elements of the newer block: name and form (text without one).
_ELEMENTS = {0x01: (COUNT, "H"), 0x02: ("SliceNormalVector", "d"), 0x75: ("ImageTypeText", "")}
_PROTOCOL = re.compile(rb"### ASCCONV BEGIN[^\n]*\n(.*?)### ASCCONV END", re.DOTALL)
_ASSIGNED = re.compile(rb"^\s*([\w.\[\]]+)\s*=\s*(\S+)", re.MULTILINE)


def fields_of(dataset: Any) -> dict[str, tuple[str, ...]]:
    """Name -> items of the CSA header of an image, and of the elements of newer software; {} if it
    has neither.

    Raises:
        FormatError: the header is damaged.
    """
    data = _header(dataset)
    return (read_csa(data) if data else {}) | newer_fields_of(dataset)


def newer_fields_of(dataset: Any) -> dict[str, tuple[str, ...]]:
    """As ``fields_of``, of the elements of newer software alone."""
    found = {}
    for block in _blocks(dataset, 0x0021, _NEWER):
        for element, (name, form) in _ELEMENTS.items():
            one = dataset.get(0x00210000 | block | element)
            if one is not None and (items := _items(one.value, form)):
                found[name] = items
    return found


def states_mosaic(dataset: Any) -> bool:
    """Whether the private elements of an image say that it is a mosaic."""
    fields, data = newer_fields_of(dataset), _header(dataset)
    # The tag is in every header, but has items only in those of mosaics.
    at = data.find(COUNT.encode() + b"\0")
    if 0 < at <= len(data) - 80 and struct.unpack_from("<i", data, at + 76)[0]:
        fields |= read_csa(data)
    return "MOSAIC" in fields.get("ImageTypeText", ()) or any(
        float(count) > 1 for count in fields.get(COUNT, ())[:1]
    )


def _header(dataset: Any) -> bytes:
    """The CSA header of the image; empty if there is none."""
    # The creator may be at any block; files that were anonymised may have lost it.
    for block in _blocks(dataset, 0x0029, _CREATOR) or [0x1000]:
        found = dataset.get(0x00290000 | block | IMAGE)
        if found is not None and isinstance(found.value, bytes) and found.value.strip(b"\0 "):
            return found.value
    return b""


def _blocks(dataset: Any, group: int, creator: str) -> list[int]:
    """The private blocks of a creator, as the part of the tags of their elements."""
    return [
        (tag & 0xFF) << 8
        for tag, name in creators_of(dataset).items()
        if tag >> 16 == group and name == creator
    ]


def _items(value: Any, form: str) -> tuple[str, ...]:
    """The items of an element as text; bytes if its VR is not known."""
    if isinstance(value, bytes):
        if form:
            count = len(value) // struct.calcsize(form)
            return tuple(map(str, struct.unpack_from(f"<{count}{form}", value)))
        value = value.decode("latin-1").strip("\0 ").split("\\")
    several = [value] if isinstance(value, str | int | float) else value or ()
    return tuple(str(one).strip() for one in several)


def read_csa(data: bytes) -> dict[str, tuple[str, ...]]:
    """Name -> items of a CSA header of either format; tags without items have ().

    Raises:
        FormatError: a length or a count does not fit the data.
    """
    second = data.startswith(SIGNATURE)
    at, tags = (8 if second else 0), dict[str, tuple[str, ...]]()
    try:
        count, check = struct.unpack_from("<II", data, at)
        at += 8
        if not 1 <= count <= MOST_TAGS or check != 77:
            raise FormatError(f"the CSA header is damaged: it states {count} tags")
        base = 0  # format 1 adds the number of items of its first tag to every length
        for n in range(count):
            name, vm, items = struct.unpack_from("<64si8xi4x", data, at)
            at += 84
            base = items if n == 0 and not second else base
            values = []
            for _ in range(items):
                lengths = struct.unpack_from("<4i", data, at)
                length = lengths[1] if second else lengths[0] - base
                at += 16
                if not 0 <= length <= len(data) - at:
                    raise FormatError(f"the CSA header is damaged: an item of {length} bytes")
                values.append(_text(data[at : at + length]))
                at += -(-length // 4) * 4  # items are filled up to whole words
            tags[_text(name)] = tuple(values[: vm or None] if any(values) else ())
    except struct.error:
        raise FormatError("the CSA header is damaged: it ends early") from None
    return tags


def protocol_of(dataset: Any) -> dict[str, str]:
    """The assignments of the protocol of a dataset, "sSliceArray.lSize" -> "35"; {} if it has none.

    It is in the CSA header of the series, or in group 0021 of newer software, also inside the
    functional groups of enhanced objects.
    """
    found = [block for data in _private(dataset, 0) for block in _PROTOCOL.findall(data)]
    # The older copy of the protocol comes first.
    return {} if not found else {k.decode(): v.decode() for k, v in _ASSIGNED.findall(found[-1])}


def _private(dataset: Any, depth: int) -> Iterator[bytes]:
    """The bytes and texts of groups 0021 and 0029, also those in functional groups."""
    for tag in list(dataset.keys()):
        if tag.group not in (0x0021, 0x0029, 0x5200):
            continue
        one = dataset[tag]
        if one.VR == "SQ":
            if depth < MOST_DEPTH:
                for item in list(one.value)[:1]:
                    yield from _private(item, depth + 1)
        elif tag.group != 0x5200:
            if isinstance(one.value, bytes):
                yield one.value
            elif isinstance(one.value, str):
                yield one.value.encode("latin-1", "replace")


def _text(data: bytes) -> str:
    """Text up to the first zero byte."""
    return data.split(b"\0", 1)[0].decode("latin-1").strip()
