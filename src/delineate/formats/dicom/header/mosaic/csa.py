"""What Siemens scanners write in private elements: CSA headers, and the protocol as text.

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

SIGNATURE = b"SV10"
MOST_TAGS = 512  # real headers have about 100
MOST_DEPTH = 4  # sequences within sequences that are searched for a protocol
IMAGE, SERIES = 0x10, 0x20  # element of the header of the image and of the series in its block
_CREATOR = "SIEMENS CSA HEADER"
_PROTOCOL = re.compile(rb"### ASCCONV BEGIN[^\n]*\n(.*?)### ASCCONV END", re.DOTALL)
_ASSIGNED = re.compile(rb"^\s*([\w.\[\]]+)\s*=\s*(\S+)", re.MULTILINE)


def fields_of(dataset: Any, element: int = IMAGE) -> dict[str, tuple[str, ...]]:
    """Name -> items of a CSA header of a dataset; {} if it has none.

    Raises:
        FormatError: the header is damaged.
    """
    # The creator may be at any block; files that were anonymised may have lost it.
    blocks = [
        one.tag.element << 8
        for one in dataset.group_dataset(0x0029)
        if one.tag.element < 0x100 and str(one.value).strip() == _CREATOR
    ]
    for block in blocks or [0x1000]:
        found = dataset.get((0x0029, block | element))
        if found is not None and isinstance(found.value, bytes) and found.value.strip(b"\0 "):
            return read_csa(found.value)
    return {}


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
