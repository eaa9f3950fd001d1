"""Mutants of DICOM files, element by element: the fuzzer's ``--kind structure``.

A file with explicit VR, little-endian, is divided into its elements (PS3.5, section 7.1), down to
the items of its sequences and the fragments of its pixels. A few of them are changed: VR, length,
value, tag, order, nesting. All other lengths are made right again, so that the changes reach the
code behind the parser.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXELS, SPECIFIC_CHARACTER_SET = 0x7FE00010, 0x00080005
NUMBERS = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d", b"AT": "I"}
WORDS = (
    *(
        b"",
        b" ",
        b"\\",
        b"\\\\",
        b"0",
        b"-1",
        b"1",
        b"0\\0",
        b"1\\0\\0\\0\\1\\0",
        b"1e400",
        b"-inf",
    ),
    *(b"nan", b"nan\\nan\\nan", b"1e30\\1e30\\1e30", b"1000000000", b"-1000000000", b"9" * 400),
    *(b"abc", b"1,5", b"0x10", b"1 2", b"\xe9\xff", b"\x1b$B", "１２".encode(), b"\0\0", b"1.2.3"),
    *(b"1e-30\\1e-30", b"0.0", b"2147483648", b"1\\2\\3", b"x" * 5000, b"../../etc/passwd", b"ROW"),
)
INTEGERS = (0, 1, 2, 3, 7, 8, 12, 16, 32, 64, 255, 4096, 32767, 65535, 2**31 - 1, 2**32 - 1)
REALS = (0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), -float("inf"), 1e308)
SETS = (b"ISO_IR 999", b"ISO_IR 192", b"\\ISO 2022 IR 87", b"ISO_IR 13\\ISO 2022 IR 87", b"GB18030")


@dataclass
class Element:
    """A data element; the value is a list of items in a sequence. ``stated`` is a length that
    replaces the right one.
    """

    tag: int
    vr: bytes
    value: bytes | list[Elements]
    stated: int | None = None


Elements = list[Element]
Change = Callable[[Elements, int, random.Random], None]


# ---- files as elements, and back ----


def parsed(data: bytes) -> Elements | None:
    """The elements behind the preamble; None if they cannot be followed to the end."""
    if data[128:132] != b"DICM":
        return None
    try:
        found, at = _elements(data, 132, len(data))
    except (struct.error, ValueError, RecursionError):
        return None
    return found if at == len(data) else None


def _elements(data: bytes, at: int, end: int) -> tuple[Elements, int]:
    found: Elements = []
    while at < end:
        group, number, vr, nbytes = struct.unpack_from("<HH2sH", data, at)
        tag = group << 16 | number
        if tag in (ITEM_END, SEQUENCE_END):
            return found, at
        at += 8
        if vr in LONG:
            (nbytes,) = struct.unpack_from("<I", data, at)
            at += 4
        elif vr not in SHORT:
            raise ValueError(vr)
        if vr == b"SQ":
            items, at = _items(data, at, end if nbytes == UNDEFINED else at + nbytes)
            found.append(Element(tag, vr, items))
        elif nbytes == UNDEFINED:
            until = data.index(b"\xfe\xff\xdd\xe0\0\0\0\0", at) + 8
            found.append(Element(tag, vr, data[at:until], UNDEFINED))
            at = until
        else:
            found.append(Element(tag, vr, data[at : at + nbytes]))
            at += nbytes
        if at > end:
            raise ValueError("an element that is too long")
    return found, at


def _items(data: bytes, at: int, end: int) -> tuple[list[Elements], int]:
    items: list[Elements] = []
    while at < end:
        group, number, nbytes = struct.unpack_from("<HHI", data, at)
        tag, at = group << 16 | number, at + 8
        if tag == SEQUENCE_END:
            break
        if tag != ITEM:
            raise ValueError("no item")
        until = end if nbytes == UNDEFINED else at + nbytes
        inner, at = _elements(data, at, until)
        at += 8 if nbytes == UNDEFINED else 0
        items.append(inner)
    return items, at


def packed(elements: Elements) -> bytes:
    """The bytes of elements."""
    out = []
    for one in elements:
        value = one.value
        if not isinstance(value, bytes):
            inner = [packed(item) for item in value]
            value = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(i)) + i for i in inner)
        nbytes = len(value) if one.stated is None else one.stated
        head = struct.pack("<HH2s", one.tag >> 16, one.tag & 0xFFFF, one.vr[:2])
        is_long = one.vr in LONG
        out.append(
            head + struct.pack("<2xI" if is_long else "<H", nbytes % 2 ** (32 if is_long else 16))
        )
        out.append(value)
    return b"".join(out)


# ---- changes of one element ----


def _vr(place: Elements, at: int, chance: random.Random) -> None:
    place[at].vr = chance.choice([*sorted(LONG), *sorted(SHORT), b"ZZ", b"\0\0"])
    if place[at].vr == b"SQ" and isinstance(place[at].value, bytes):
        place[at].stated = chance.choice((None, UNDEFINED))


def _length(place: Elements, at: int, chance: random.Random) -> None:
    one = place[at]
    right = len(packed([one])) - (12 if one.vr in LONG else 8)
    one.stated = chance.choice(
        (0, right - 1, right + 1, right + 2, right // 2, 65535, 2**31, UNDEFINED - 1, UNDEFINED)
    )


def _value(place: Elements, at: int, chance: random.Random) -> None:
    one = place[at]
    if not isinstance(one.value, bytes) or one.tag == PIXELS:
        return
    if one.vr in NUMBERS:
        form = NUMBERS[one.vr]
        count = chance.choice((0, 1, 1, 1, len(one.value) // struct.calcsize(form), 3))
        if form in "fd":
            values = [chance.choice(REALS) for _ in range(count)]
            values = [min(v, 3e38) if form == "f" and v < float("inf") else v for v in values]
        else:
            size = 8 * struct.calcsize(form)
            sign = 1 << size - 1 if form in "hi" else 0
            values = [chance.choice(INTEGERS) % (1 << size) - sign for _ in range(count)]
        one.value = struct.pack(f"<{count}{form}", *values)
        return
    words = chance.choice(WORDS)
    if b"\\" in one.value and chance.random() < 0.5:
        # One of several values.
        parts = one.value.split(b"\\")
        parts[chance.randrange(len(parts))] = chance.choice(WORDS)
        words = b"\\".join(parts)
    one.value = words + b" " * (len(words) % 2)


def _removed(place: Elements, at: int, chance: random.Random) -> None:
    del place[at]


def _doubled(place: Elements, at: int, chance: random.Random) -> None:
    place[at:at] = [place[at]] * chance.choice((1, 1, 3))


def _exchanged(place: Elements, at: int, chance: random.Random) -> None:
    to = chance.randrange(len(place))
    place[at].value, place[to].value = place[to].value, place[at].value


def _moved(place: Elements, at: int, chance: random.Random) -> None:
    place.insert(chance.randrange(len(place)), place.pop(at))


def _renamed(place: Elements, at: int, chance: random.Random) -> None:
    """Another tag: that of another element, a private one, or any."""
    other = chance.choice(place).tag
    place[at].tag = chance.choice(
        (other, 0x00291010, 0x00290010, 0x0019100A, chance.randrange(2**32), place[at].tag + 1)
    )


def _items_changed(place: Elements, at: int, chance: random.Random) -> None:
    items = place[at].value
    if isinstance(items, bytes) or not items:
        return
    n = chance.randrange(len(items))
    what = chance.randrange(5)
    if what == 0:
        del items[n]
    elif what == 1:
        items[n:n] = [items[n]] * chance.choice((1, 3, 300))
    elif what == 2:
        items.clear()
    elif what == 3:
        items[n] = []
    else:
        chance.shuffle(items)


def _nested(place: Elements, at: int, chance: random.Random) -> None:
    """The element inside many sequences, with lengths or without."""
    if chance.random() < 0.5:
        depth = chance.choice((2, 40, 1000))
        start = struct.pack("<2H2s2xI2HI", 0x8, 0x1140, b"SQ", UNDEFINED, 0xFFFE, 0xE000, UNDEFINED)
        ends = struct.pack("<2HI2HI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
        raw = start * depth + packed([place[at]]) + ends * depth
        place[at] = Element(0x00081140, b"SQ", raw[12:], UNDEFINED)
    else:
        place[at] = Element(place[at].tag, b"SQ", [[place[at]]])


def _text_set(place: Elements, at: int, chance: random.Random) -> None:
    """A character set, and a text that needs one."""
    words = chance.choice(SETS)
    place.insert(0, Element(SPECIFIC_CHARACTER_SET, b"CS", words + b" " * (len(words) % 2)))
    if isinstance(place[at].value, bytes) and place[at].tag != PIXELS:
        place[at].value = chance.choice(
            (b"\x1b$B\x3b\x33", b"\xc3\x28", b"\xff\xfe", b"\x1b(J\xb1 ")
        )


def _fragments(place: Elements, at: int, chance: random.Random) -> None:
    """The offset table, or a fragment, of compressed pixels (PS3.5, A.4)."""
    found = [n for n, one in enumerate(place) if one.tag == PIXELS and one.stated == UNDEFINED]
    if not found or not isinstance(raw := place[found[0]].value, bytes):
        return
    parts, begin = [], 0
    while begin + 8 <= len(raw) - 8:
        nbytes = int.from_bytes(raw[begin + 4 : begin + 8], "little")
        parts.append(raw[begin + 8 : begin + 8 + nbytes])
        begin += 8 + nbytes
    if not parts:
        return
    n, what = chance.randrange(len(parts)), chance.randrange(6)
    if what == 0:
        offsets = [chance.choice(INTEGERS) for _ in range(chance.choice((1, 2, 5)))]
        parts[0] = struct.pack(f"<{len(offsets)}I", *offsets)
    elif what == 1:
        parts[n] = parts[n][: chance.randrange(len(parts[n]) + 1)]
    elif what == 2:
        del parts[n]
    elif what == 3:
        parts[n:n] = [parts[n]] * chance.choice((1, 3))
    elif what == 4 and parts[n]:
        out = bytearray(parts[n])
        for _ in range(chance.choice((1, 3, 10))):
            out[chance.randrange(min(len(out), 200))] = chance.randrange(256)
        parts[n] = bytes(out)
    else:
        middle = len(parts[n]) // 2
        parts[n : n + 1] = [parts[n][:middle], parts[n][middle:]]
    end = struct.pack("<2HI", 0xFFFE, 0xE0DD, 0)
    place[found[0]].value = (
        b"".join(struct.pack("<2HI", 0xFFFE, 0xE000, len(p)) + p for p in parts) + end
    )


CHANGES: tuple[Change, ...] = (
    *(_value, _value, _value, _value, _value, _vr, _length, _removed, _doubled, _exchanged, _moved),
    *(_renamed, _items_changed, _items_changed, _nested, _text_set, _fragments),
)


def mutant(data: bytes, chance: random.Random) -> bytes | None:
    """The file with a few elements changed; None if it cannot be divided into elements."""
    if (elements := parsed(data)) is None:
        return None
    for _ in range(chance.choice((1, 1, 2, 4))):
        places = list(_places(elements))
        top = chance.random() < 0.5
        place = elements if top or not places else chance.choice(places)
        if place:
            chance.choice(CHANGES)(place, chance.randrange(len(place)), chance)
    return data[:132] + packed(elements)


def _places(elements: Elements) -> Iterator[Elements]:
    """The lists of elements at all depths."""
    yield elements
    for one in elements:
        if not isinstance(one.value, bytes):
            for item in one.value:
                yield from _places(item)
