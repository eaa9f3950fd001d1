"""Paths with placeholders, the one notation of layouts and of descriptions.

A pattern is a relative path such as ``{patient:P\\d+}/{patient}_{frame}``: ``{name}`` is any text
without "/", ``{name:REGEX}`` text of that form; ``*`` is any text, ``?`` any letter, ``**/`` any
folders, and a part in brackets such as ``[{group}/]`` may be missing. A placeholder that occurs
again has the same text.

``matches`` finds the files of a layout folder by folder, so that only folders that fit are listed:
names are compared without case, and the last one is that of an image file without its ending, or,
after a final "/", of a folder of DICOM files. Descriptions state whole paths with endings, which
are searched by ``glob_of`` and read by ``compiled``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...formats.files import stem
from .tree import Tree, is_raster

_TOKEN = re.compile(r"\{(?P<name>\w+)(?::(?P<form>(?:[^{}]|\{[^{}]*\})+))?\}|(?P<any>\*\*/|\*|\?)")
_ANY = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
_OPTIONAL = re.compile(r"\[([^\[\]]*/)\]")


def expanded(pattern: str) -> list[str]:
    """The patterns with and without each optional part.

    >>> expanded("[{group}/]{id}.png")
    ['{group}/{id}.png', '{id}.png']
    """
    found = _OPTIONAL.search(pattern)
    if found is None:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [one for inner in (found[1], "") for one in expanded(before + inner + after)]


def placeholders(pattern: str) -> set[str]:
    """The names of the placeholders."""
    return {token["name"] for token in _TOKEN.finditer(pattern) if token["name"]}


def own_text(pattern: str) -> str:
    """The pattern without placeholders and wildcards."""
    return _TOKEN.sub("", pattern)


def glob_of(pattern: str) -> str:
    """The pattern as a glob, in which a bracket is a bracket."""
    out, end = "", 0
    for token in _TOKEN.finditer(pattern):
        out += pattern[end : token.start()].replace("[", "[[]") + (token["any"] or "*")
        end = token.end()
    found = out + pattern[end:].replace("[", "[[]")
    # Two placeholders next to each other are any text, and "**" alone is any folders.
    return "/".join(
        part if part == "**" else re.sub(r"\*+", "*", part) for part in found.split("/")
    )


@cache
def compiled(pattern: str, forms: tuple[tuple[str, str], ...] = ()) -> re.Pattern[str]:
    """The pattern as a regular expression, with a group for each placeholder.

    Args:
        pattern: without optional parts.
        forms: placeholder -> regular expression of its text where the pattern gives none.
    """
    out, end, seen = "", 0, set[str]()
    default = dict(forms)
    for token in _TOKEN.finditer(pattern):
        out += re.escape(pattern[end : token.start()])
        name = token["name"]
        if token["any"]:
            out += _ANY[token["any"]]
        elif name in seen:
            out += f"(?P={name})"
        else:
            out += f"(?P<{name}>{token['form'] or default.get(name, '[^/]+?')})"
            seen.add(name)
        end = token.end()
    return re.compile(out + re.escape(pattern[end:]))


@dataclass(frozen=True)
class PathMatch:
    """A file or DICOM folder that matches a pattern, with the text at each placeholder."""

    path: Path
    fields: dict[str, str]


def matches(tree: Tree, root: Path, pattern: str, *, pictures: bool = False) -> list[PathMatch]:
    """All paths below ``root`` that match, in natural order: only 2-D images if ``pictures``, else
    none.
    """
    return [
        match for one in expanded(pattern) for match in _walk(tree, root, _parts(one), {}, pictures)
    ]


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
    found = _without_case(part).fullmatch(name)
    if found is None:
        return None
    own = {k: v for k, v in found.groupdict().items() if v is not None}
    return None if any(fields.get(k, v) != v for k, v in own.items()) else {**fields, **own}


@cache
def _without_case(part: str) -> re.Pattern[str]:
    return re.compile(f"(?i:{compiled(part).pattern})")
