"""Private elements as Siemens scanners write them, made for tests."""

from __future__ import annotations

import struct

import pydicom


def csa(tags, second=True):
    """A CSA header of format 2 or 1 with ``tags``, name -> items."""
    out = (b"SV10\4\3\2\1" if second else b"") + struct.pack("<II", len(tags), 77)
    base = 6  # of format 1: the number of items of its first tag
    for name, items in tags.items():
        texts = [str(item).encode() + b"\0" for item in items] + [b""] * (base - len(items))
        out += struct.pack("<64si4siii", name.encode(), len(items), b"FD", 4, len(texts), 77)
        for text in texts:
            lengths = (
                (len(text), len(text), 77, len(text)) if second else (len(text) + base, 0, 0, 0)
            )
            out += struct.pack("<4i", *lengths) + text + bytes(-len(text) % 4)
    return out


def protocol(positions, **more):
    """The text of a protocol whose slices have their centres at ``positions``, LPS mm."""
    lines = [f"sSliceArray.lSize\t = \t{len(positions)}"]
    for n, position in enumerate(positions):
        for axis, value in zip(("Sag", "Cor", "Tra"), position, strict=True):
            if value:  # values of zero are left out
                lines.append(f"sSliceArray.asSlice[{n}].sPosition.d{axis}\t = \t{value}")
    lines += [f"{name.replace('__', '.')} = {value}" for name, value in more.items()]
    text = "\n".join(["### ASCCONV BEGIN ###", *lines, "### ASCCONV END ###"])
    return csa({"MrPhoenixProtocol": [text]})


def mosaic(*, image=None, series=None, creator=True, **fields):
    """The header of a mosaic of 5 slices with 4 columns and 3 rows, upright, 2.5 mm apart; the
    centre of the first slice is (10, 20, 30).
    """
    one = pydicom.Dataset()
    one.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    one.Rows, one.Columns = 9, 12
    one.PixelSpacing, one.SpacingBetweenSlices = [2, 3], 2.5
    one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    one.ImagePositionPatient = [10 - 12 * 3 / 2, 20 - 9 * 2 / 2, 30]
    for name, value in fields.items():
        setattr(one, name, value)
    if creator:
        one.add_new(0x00290010, "LO", "SIEMENS CSA HEADER")
    for element, data in ((0x00291010, image), (0x00291020, series)):
        if data is not None:
            one.add_new(element, "OB", data)
    return one
