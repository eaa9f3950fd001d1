"""Searching files for words, in whatever way they are stored."""

from __future__ import annotations

import base64
import gzip
import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image


def contents(raw: bytes) -> Iterator[bytes]:
    """The bytes, and those of what is packed in them: gzip, zip, data of pages, texts of PNG."""
    yield raw
    if raw[:2] == b"\x1f\x8b":
        yield from contents(gzip.decompress(raw))
    if raw[:4] == b"PK\3\4":
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for name in archive.namelist():
                yield from (name.encode(), *contents(archive.read(name)))
    if raw[:4] == b"\x89PNG":
        yield repr(Image.open(io.BytesIO(raw)).info).encode()
    for found in re.finditer(rb"base64,([A-Za-z0-9+/=]{40,})", raw):
        yield from contents(base64.b64decode(found[1]))


def leaks(places: Iterable[Path | str], words: Iterable[str]) -> list[str]:
    """Where a word is, in any case, in UTF-8 or UTF-16: in texts, or names and contents of files
    and of all files below folders.
    """
    found = []
    wanted = {word.lower() for word in words}
    for place in places:
        below = [place] if isinstance(place, str) else [place, *place.rglob("*")]
        for one in below:
            name = "the text" if isinstance(one, str) else str(one)
            raw = one.encode() if isinstance(one, str) else one.name.encode()
            parts = [
                raw,
                *(contents(one.read_bytes()) if isinstance(one, Path) and one.is_file() else ()),
            ]
            for part in parts:
                low = part.lower()
                found += [
                    f"{word} in {name}"
                    for word in wanted
                    if any(word.encode(how) in low for how in ("utf-8", "utf-16-le", "utf-16-be"))
                ]
    return found
