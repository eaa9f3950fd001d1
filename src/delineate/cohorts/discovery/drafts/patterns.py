"""The pattern of a role: its placeholders, and the text that each file has at them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..description import KEYS, compiled_pattern
from ..tree import MOST_SCANS, is_raster
from .paths import Role, with_spaces

FEW_GROUPS = 10  # folders with more different names are patients, if no number says so before
# Folders with such names hold several patients.
_GROUP = re.compile(
    r"(?i)(?<![a-z])(site|cent(re|er)|hospital|clinic|batch|(sub)?set|part|fold|class|grade|group"
    r"|cohort)(?![a-z])"
)
OUTER = ("{patient}", "{visit}")
JOINTS = ("_", "-", "")  # between two texts of a path that a mask has as one
SAME = 0.5  # share of equal texts for a placeholder to be the same
NUMBERS_COUNT = 0.9  # weight of equal numbers, compared with equal texts
Place = tuple[int, int]  # part of the path, and piece of it


@dataclass(frozen=True)
class Template:
    """A role with its pattern.

    Args:
        role: the files.
        pattern: as in a description.
        named: for each file the text at each placeholder.
    """

    role: Role
    pattern: str
    named: tuple[Mapping[str, str], ...]

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(key for key in KEYS if f"{{{key}}}" in self.pattern)

    def keys(self, fields: Sequence[str], numbers: bool) -> list[tuple[str, ...]]:
        """The text of each file at ``fields``; only the numbers of {id} if ``numbers``."""
        return [
            tuple(
                numbers_of(named[field]) if numbers and field == "id" else named[field]
                for field in fields
            )
            for named in self.named
        ]

    def shared(self, other: Template) -> tuple[str, ...]:
        return tuple(field for field in self.fields if field in other.fields)


def numbers_of(text: str) -> str:
    return "-".join(str(int(n)) for n in re.findall(r"\d+", text)) or text


def template_of(role: Role, like: Template | None = None) -> Template | None:
    """The pattern of a role; None if no part of the paths identifies a case.

    Args:
        like: the template of the images, for a role of masks: equal text gets equal placeholders.
    """
    places = _places(role)
    if not places:
        return None
    names = _names_like(role, places, like) if like else _names(role, places)
    pattern = _pattern(role, names)
    # Read back what a description with this pattern would read.
    compiled = compiled_pattern(pattern)
    paths = ["/".join(entry.parts) + entry.ending for entry in role.entries]
    found = [match.groupdict() for path in paths if (match := compiled.fullmatch(path))]
    if "{id}" not in pattern or len(found) < len(paths):
        return None
    return Template(role, pattern, tuple(found))


def _places(role: Role) -> list[Place]:
    """The pieces of the case, from the outermost part; several of one part in order."""
    return [
        (part, n)
        for part, pieces in enumerate(role.pieces[0])
        for n, piece in enumerate(pieces)
        if piece.sort == "case"
    ]


def _texts(role: Role, place: Place) -> list[str]:
    part, n = place
    return [pieces[part][n].text for pieces in role.pieces]


def _names(role: Role, places: Sequence[Place]) -> dict[Place, str]:
    """Placeholders of a role of images: the innermost piece is {id}, the others are a group, the
    patient and a visit. A piece that repeats another one gets the same placeholder.
    """
    texts = {place: _texts(role, place) for place in places}
    last = max(part for part, _ in places)
    inner = [place for place in places if place[0] == last]
    own = max(inner, key=lambda place: len(set(texts[place])))
    names = {own: "{id}"} | _names_of_repeated(role, places, texts, own)
    free = [name for name in OUTER if name not in names.values()]
    groups = _groups(role, places, texts, own)
    for place in places:
        same_text = [name for other, name in names.items() if texts[other] == texts[place]]
        if place in names:
            continue
        may_be_group = "{group}" not in names.values()
        is_group = place in groups
        if same_text:
            names[place] = same_text[0]
        elif may_be_group and ("{patient}" not in free or is_group):
            names[place] = "{group}"
        elif is_group:
            names[place] = "*"
        else:
            names[place] = free.pop(0) if free and place[0] != last else "*"
    return names


def _names_of_repeated(
    role: Role, places: Sequence[Place], texts: Mapping[Place, Sequence[str]], own: Place
) -> dict[Place, str]:
    """Placeholders of the folders whose text the names of the files ``own`` repeat: the outermost
    is the patient, and deeper ones add nothing.
    """
    names: dict[Place, str] = {}
    for place in places:
        pairs = zip(texts[place], texts[own], strict=True)
        is_folder = place[0] != own[0]
        if place == own or not all(text in whole for text, whole in pairs):
            continue
        if texts[place] == texts[own]:
            names[place] = "{id}"
        elif not (is_folder and _is_group(role, place, texts)):
            is_patient = is_folder and "{patient}" not in names.values()
            names[place] = "{patient}" if is_patient else "*"
    return names


def _groups(
    role: Role, places: Sequence[Place], texts: Mapping[Place, Sequence[str]], own: Place
) -> list[Place]:
    """The places but ``own`` that hold several patients, and those that divide the files alike."""
    groups = [place for place in places if place != own and _is_group(role, place, texts)]
    return [
        place
        for place in places
        if any(_divide_alike(texts[place], texts[group]) for group in groups)
    ]


def _divide_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two texts divide the files into the same sets."""
    return len(set(one)) == len(set(other)) == len(set(zip(one, other, strict=True)))


def _is_group(role: Role, place: Place, texts: Mapping[Place, Sequence[str]]) -> bool:
    """Whether a folder holds several patients: its name says so, or there are few such folders,
    most without a number in their names.
    """
    part = place[0]
    name = with_spaces("".join(piece.text for piece in role.pieces[0][part]))
    values = set(texts[place])
    numbered = [value for value in values if any(letter.isdigit() for letter in value)]
    has_number = 2 * len(numbered) > len(values)
    few = len(values) <= min(FEW_GROUPS, len(role) / 2)
    return (
        bool(_GROUP.search(name)) or (few and not has_number) or _holds_volumes(role, place, texts)
    )


def _holds_volumes(role: Role, place: Place, texts: Mapping[Place, Sequence[str]]) -> bool:
    """Whether each folder has more volumes than one patient has, and names do not repeat it."""
    counts = Counter(texts[place])
    if is_raster(role.entries[0].path) or min(counts.values()) <= MOST_SCANS:
        return False
    names = [entry.parts[-1] for entry in role.entries]
    return not all(text in name for text, name in zip(texts[place], names, strict=True))


def _names_like(role: Role, places: Sequence[Place], like: Template) -> dict[Place, str]:
    """Placeholders of a role of masks: those of the images' text that is equal most often; several
    files of one image differ in {part}.
    """
    names: dict[Place, str] = {}
    of_images = _values_of(like)
    numbers = {numbers_of(value) for value in of_images["{id}"]}
    for place in _innermost_first(role, places, like):
        texts = set(_texts(role, place))
        shares = {name: len(texts & values) / len(texts) for name, values in of_images.items()}
        by_number = len({numbers_of(text) for text in texts} & numbers) / len(texts)
        shares["{id}"] = max(shares["{id}"], NUMBERS_COUNT * by_number)
        fits = [
            name
            for name, share in shares.items()
            if share >= SAME and _may_repeat(name, place, names, role)
        ]
        if fits:
            names[place] = max(fits, key=lambda name: shares[name])
    # What no image has tells several masks of one image apart.
    known = [place for place in places if place in names]
    rest = [place for place in places if place not in names]
    keys = Counter(tuple(ones[part][n].text for part, n in known) for ones in role.pieces)
    several = max(keys.values()) > 1
    return names | {place: "{part}" if several and place == rest[-1] else "*" for place in rest}


def _innermost_first(role: Role, places: Sequence[Place], like: Template) -> list[Place]:
    """The places from the innermost, after those of folders that have images too: such a folder
    states the case, whatever numbers follow.
    """
    common = [place for place in places if _is_shared(role, place[0], like)]
    return [*reversed(common), *(place for place in reversed(places) if place not in common)]


def _is_shared(role: Role, part: int, like: Template) -> bool:
    """Whether the folders of the masks down to ``part`` are those of images too."""
    of_images = {
        entry.parts[: part + 1] for entry in like.role.entries if len(entry.parts) > part + 1
    }
    of_masks = {entry.parts[: part + 1] for entry in role.entries}
    return len(of_masks & of_images) >= SAME * len(of_masks)


def _values_of(like: Template) -> dict[str, set[str]]:
    """Placeholder -> its texts, from the innermost; then {id} joined with another placeholder or
    with text that all images have, such as "{patient}_{id}".
    """
    fields = [field for field in reversed(KEYS) if field in like.fields and field != "split"]
    found = {f"{{{field}}}": {named[field] for named in like.named} for field in fields}
    for mark in JOINTS:
        for outer in fields[1:]:
            joined = {f"{named[outer]}{mark}{named['id']}" for named in like.named}
            found[f"{{{outer}}}{mark}{{id}}"] = joined
        for text in like.role.words.split():
            for form in (f"{{id}}{mark}{text}", f"{text}{mark}{{id}}"):
                found[form] = {form.replace("{id}", named["id"]) for named in like.named}
    return found


def _may_repeat(name: str, place: Place, names: Mapping[Place, str], role: Role) -> bool:
    """Whether a placeholder is new, or has the same text where it is already."""
    earlier = [other for other, one in names.items() if one == name]
    return all(_texts(role, other) == _texts(role, place) for other in earlier)


def _pattern(role: Role, names: Mapping[Place, str]) -> str:
    parts = []
    for part, pieces in enumerate(role.pieces[0]):
        texts = []
        for n, piece in enumerate(pieces):
            name = "{split}" if piece.sort == "split" else names.get((part, n), "")
            texts.append(name or piece.text)
        parts.append("".join(texts))
    return "/".join(parts) + role.ending
