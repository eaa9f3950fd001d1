"""Paths with placeholders, matched folder by folder, so that only folders that fit are listed.

A pattern is a relative path such as ``{patient:P\\d+}/{patient}_{frame}``: ``{name}`` is any text
without "/", ``{name:REGEX}`` text of that form, ``*`` any text, and a part in brackets such as
``[{group}/]`` may be missing. A placeholder that occurs again has the same text. Names without
placeholders are compared without case. The last name is that of an image file without its ending,
or, after a final "/", of a folder of DICOM files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...formats.files import stem
from .tree import Tree, is_raster

_TOKEN = re.compile(r"\{(?P<name>[a-z]+)(?::(?P<form>(?:[^{}]|\{[^{}]*\})+))?\}|(?P<any>\*)")
_OPTIONAL = re.compile(r"\[([^\[\]]*/)\]")


@dataclass(frozen=True)
class PathMatch:
    """A file or DICOM folder that matches a pattern, with the text at each placeholder."""

    path: Path
    fields: dict[str, str]


def matches(tree: Tree, root: Path, pattern: str, *, pictures: bool = False) -> list[PathMatch]:
    """All paths below ``root`` that match, in natural order: only 2-D images if ``pictures``, else
    none.
    """
    # A pattern with an optional part is two patterns.
    if found := _OPTIONAL.search(pattern):
        before, after = pattern[: found.start()], pattern[found.end() :]
        return [
            match
            for inner in (found[1], "")
            for match in matches(tree, root, before + inner + after, pictures=pictures)
        ]
    parts = _parts(pattern)
    return list(_walk(tree, root, parts, {}, pictures))


@cache
def _parts(pattern: str) -> tuple[str, ...]:
    """The pattern cut at "/", but not inside braces; the last part is "" for a folder."""
    return tuple(re.split(r"/(?![^{]*\})", pattern))


def _walk(
    tree: Tree, folder: Path, parts: tuple[str, ...], fields: dict[str, str], pictures: bool
) -> Iterator[PathMatch]:
    part, rest = parts[0], parts[1:]
    # The folder itself: it must hold a DICOM series.
    if not part and not rest:
        if tree.is_dicom(folder):
            yield PathMatch(folder, fields)
        return
    if not rest:
        for path in tree.images(folder):
            if is_raster(path) is not pictures:
                continue
            if (found := _match(part, stem(path), fields)) is not None:
                yield PathMatch(path, found)
        return
    for inner in tree.folders(folder):
        if (found := _match(part, inner.name, fields)) is not None:
            yield from _walk(tree, inner, rest, found, pictures)


def _match(part: str, name: str, fields: dict[str, str]) -> dict[str, str] | None:
    """The fields with those in ``name``; None if it does not fit ``part`` or contradicts them."""
    found = _regex(part).fullmatch(name)
    if found is None:
        return None
    own = {k: v for k, v in found.groupdict().items() if v is not None}
    return None if any(fields.get(k, v) != v for k, v in own.items()) else {**fields, **own}


@cache
def _regex(part: str) -> re.Pattern[str]:
    out, end, seen = "", 0, set[str]()
    for token in _TOKEN.finditer(part):
        out += re.escape(part[end : token.start()])
        name = token["name"]
        if token["any"]:
            out += ".*"
        elif name in seen:
            out += f"(?P={name})"
        else:
            out += f"(?P<{name}>{token['form'] or '.+?'})"
            seen.add(name)
        end = token.end()
    return re.compile(f"(?i:{out}{re.escape(part[end:])})")
