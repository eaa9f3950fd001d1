"""A cohort with any other layout, described by a short YAML file.

    channels:
      CT: scans/{id}/ct.nii.gz           # glob pattern below the root, or a list of them
    label: masks/{id}_{structure}.nii.gz # {structure}: one file per structure
    #label: {liver: "{id}_liver.png"}    # or a pattern for each structure
    leave_out: ["**/*_preview.png"]      # files that are no part of the cohort
    match: names                         # or numbers: case1 and case_001 are one case
    patient: ^(P[0-9]+)                  # one group, searched in the id
    modality: CT
    unit: {PET: suv}                     # channels whose PET series (DICOM) are read as SUV
    spacing_mm: [0.7, 0.7, 2.0]          # for 2-D images and arrays, which store no spacing
    axes: SPL                            # for arrays, see formats.arrays; FILE.npz#NAME names one
    labels:                              # structure: value, range, "#rrggbb", structure of the
                                         # label's pattern, or a list of these
      liver: 1
    rest: background                     # or refuse: what happens to other values
    ignore: 255                          # values whose voxels are neither learnt from nor scored
    overlapping: true                    # a voxel may belong to several structures
    fix_series: run                      # of DICOM with uneven gaps: run, fill or split
    register_by: position                # accept DICOM labels in another frame of reference

Instead of ``channels``, ``layout: NAME`` lets a known layout find the files; the description then
states what these do not. ``unit`` then names channels of the layout or a modality, and ``modality``
selects the cases of one if the layout finds several.

A pattern may match a file or a folder (a DICOM series or a stack of slices). It may have these
placeholders: {id} is the case; {split} is a folder or word such as train, validation or testing;
{group}, {patient} and {visit} are parts of the path that identify a case together with {id};
{structure} is a structure, and {part} tells the files of one structure apart, which are united.
{id:REGEX} states the form of the text, and [{group}/] is a folder that may be missing (see
``patterns``). A file that several patterns match belongs to the one with most text of its own.
Files belong together if the placeholders that both patterns have are equal. ``drafts`` writes a
first description.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from ...core.errors import InputError, LabelError, LayoutError
from ...core.inputs import read_yaml
from ...core.labels import FOREGROUND, LabelMapping, LabelSet
from ...core.manifest import Case, Source
from ...core.volume import ReadAs
from ...extend.findings import Draft
from ...formats.disk import natural_key
from .patients import by_pattern
from .patterns import compiled, expanded, glob_of, own_text, placeholders
from .splits import SPLITS, split_in, with_free_training
from .structures import StructureSelection, ignored_values
from .tree import Tree, source

# Placeholders that identify a case, from the outermost.
KEYS = ("split", "group", "patient", "visit", "id")
_TEXT = ("group", "patient", "visit", "id", "structure", "part")
# Placeholders, with the form of their text.
_PLACEHOLDERS = {
    **dict.fromkeys(_TEXT, "[^/]+?"),
    # The longest word first, so that "training" is not "train".
    "split": rf"(?i:{'|'.join(sorted(SPLITS, key=len, reverse=True))})",
}
_ITEM = re.compile(r"(.+\.(?:npz|h5|hdf5))#(.+)")
Patterns = str | list[str]


class Description(BaseModel):
    """The content of the YAML file; unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: dict[str, Patterns] = Field(default_factory=dict)
    layout: str = ""
    label: Patterns | dict[str, Patterns] | None = None
    leave_out: list[str] = Field(default_factory=list)
    match: Literal["names", "numbers"] = "names"
    patient: str | None = None
    modality: str = ""
    unit: dict[str, ReadAs] = Field(default_factory=dict)
    spacing_mm: list[float] = Field(default_factory=list, max_length=3)
    axes: str = Field("", pattern="^[RLAPSICrlapsic]{0,4}$")
    labels: dict[str, Any] | None = None
    rest: Literal["background", "refuse"] = "background"
    ignore: int | str | list[int | str] | None = None
    overlapping: bool = False
    fix_series: Literal["", "run", "fill", "split"] = ""
    register_by: Literal["frame", "position"] = "frame"

    @model_validator(mode="after")
    def _has_files(self) -> Self:
        """Either patterns or a layout find the files."""
        stated = (self.channels, self.label, self.leave_out, self.spacing_mm, self.axes)
        if self.layout and any(stated):
            words = (
                "a layout finds the files without channels, label, leave_out, spacing_mm and axes"
            )
            raise PydanticCustomError("layout", words)
        if not (self.layout or self.channels):
            raise PydanticCustomError("missing", "channels: field required, or a layout")
        return self

    @property
    def selection(self) -> StructureSelection | None:
        """The structures that are selected or defined; None if there are none."""
        if self.labels is None:
            return None
        stated = {"rest": self.rest, "overlapping": self.overlapping}
        return StructureSelection.from_data({"labels": self.labels, **stated})


@dataclass(frozen=True)
class _Match:
    """A path that matches a pattern, with the text at the placeholders."""

    path: Path
    named: Mapping[str, str]

    def key(self, fields: Sequence[str]) -> tuple[str, ...]:
        return tuple(self.named.get(field, "") for field in fields)


@dataclass(frozen=True)
class _Role:
    """The files of one channel, or of the label.

    Args:
        name: of the channel, or of the structure.
        shown: its patterns, for messages.
        fields: the placeholders that identify a case and that all patterns have.
        matches: the files, in natural order.
    """

    name: str
    shown: str
    fields: tuple[str, ...]
    matches: tuple[_Match, ...]

    def partners(self, other: _Role) -> dict[tuple[str, ...], list[_Match]]:
        """The files by the placeholders that this role shares with ``other``."""
        found: dict[tuple[str, ...], list[_Match]] = defaultdict(list)
        for match in self.matches:
            found[match.key(self.shared(other))].append(match)
        return found

    def shared(self, other: _Role) -> tuple[str, ...]:
        return tuple(field for field in self.fields if field in other.fields)


def load(path: str | Path) -> Description:
    """Read a description.

    Raises:
        InputError: the file cannot be read, or is not a valid description (with the wrong key).
        LabelError: no valid ``labels`` or ``ignore``.
    """
    described = parse(read_yaml(path), path)
    with naming(path):
        # These keys have rules of their own.
        _ = described.selection, ignored_values(described.ignore)
    return described


@contextmanager
def naming(path: str | Path | None) -> Iterator[None]:
    """Errors about structures get the path of their description, if they have none."""
    try:
        yield
    except LabelError as error:
        if error.path is None and path is not None:
            error.path = str(path)
        raise


def parse(data: Any, path: str | Path | None = None) -> Description:
    """The description in ``data``, which was read from ``path``.

    Raises:
        InputError: it is not valid (with the wrong key).
    """
    try:
        return Description.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        allowed = ", ".join(Description.model_fields)
        # Only the first problem is reported, with its key.
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"{where}: {first['msg'].lower()}, found {str(first['input'])[:80]!r}; the allowed "
            f"keys are {allowed}",
            path=path,
        ) from error


def apply(
    described: Description, root: str | Path, found_in: Callable[[Path, str], Draft] | None = None
) -> Draft:
    """The cases below ``root`` that match the description; ``found_in`` finds those of a layout.

    Raises:
        LayoutError: a pattern has no {id} or matches nothing, two files match one channel of a
            case, a label belongs to two cases, or a unit is of no channel.
    """
    unknown = sorted(set(described.unit) - set(described.channels))
    if unknown and not described.layout:
        raise LayoutError(f"unit names {', '.join(unknown)}, which is no channel", path=root)
    if described.layout:
        assert found_in is not None  # only drafts have none, and they name no layout
        return _of_layout(described, found_in(Path(root), described.layout))
    # Find all files first: the cases are the ids of the first channel's files.
    channels, labels = _roles(described, Path(root))
    draft = Draft("description", [], tuple(described.channels), modality=described.modality)
    images = {role.name: role.partners(channels[0]) for role in channels}
    truths = [role.partners(channels[0]) for role in labels]
    _refuse_shared(channels, labels)
    names = _case_names(channels[0].matches)
    for match in channels[0].matches:
        _add_case(
            draft,
            described,
            names[match.key(KEYS)],
            [
                (role, images[role.name].get(_key(match, role, channels[0]), []))
                for role in channels
            ],
            [
                (role, truth.get(_key(match, role, channels[0]), []))
                for role, truth in zip(labels, truths, strict=True)
            ],
        )
    # Files without a case.
    for role in channels[1:]:
        for hit in _without_case(role, channels[0]):
            draft.problem(
                hit.named["id"],
                "missing",
                f"channel {channels[0].name} is missing: no file matches {channels[0].shown}",
            )
    for role in labels:
        for hit in _without_case(role, channels[0]):
            draft.problem(
                hit.named["id"],
                "unpaired",
                f"label {hit.path.name} has no image",
                path=str(hit.path),
            )
    draft.cases = with_free_training(draft.cases)
    _set_labels(draft, described, labels)
    if described.patient is not None:
        draft.cases = list(by_pattern(draft.cases, described.patient))
    return draft


def _of_layout(described: Description, draft: Draft) -> Draft:
    """The cases that a layout found, with what the description states."""
    draft.modality = described.modality or draft.modality
    draft.ignore = ignored_values(described.ignore) or draft.ignore
    if described.patient is not None:
        draft.cases = list(by_pattern(draft.cases, described.patient))
    return draft


def _key(match: _Match, role: _Role, first: _Role) -> tuple[str, ...]:
    return match.key(role.shared(first))


def _without_case(role: _Role, first: _Role) -> list[_Match]:
    known = {_key(match, role, first) for match in first.matches}
    return [match for match in role.matches if _key(match, role, first) not in known]


def _case_names(matches: Sequence[_Match]) -> dict[tuple[str, ...], str]:
    """Key -> id of the case: {id} alone, or with the outer placeholders if it is repeated."""
    repeated = Counter(match.named["id"] for match in matches)
    return {
        match.key(KEYS): "_".join(filter(None, match.key(KEYS)))
        if repeated[match.named["id"]] > 1
        else match.named["id"]
        for match in matches
    }


def _refuse_shared(channels: Sequence[_Role], labels: Sequence[_Role]) -> None:
    """Raise if a file of another channel or a label belongs to two cases."""
    first = channels[0]
    for role in (*channels[1:], *labels):
        cases = first.partners(role)
        for key, found in role.partners(first).items():
            if len(cases.get(key, [])) > 1:
                images = ", ".join(str(match.path) for match in cases[key][:2])
                raise LayoutError(
                    f"{found[0].path.name} belongs to {len(cases[key])} images ({images}); their "
                    "patterns need the same placeholders, such as {split} or {patient}"
                )


def _add_case(
    draft: Draft,
    described: Description,
    case: str,
    images: Sequence[tuple[_Role, list[_Match]]],
    labels: Sequence[tuple[_Role, list[_Match]]],
) -> None:
    # A case needs all its channels.
    lacking = [role for role, found in images if not found]
    if lacking:
        names = ", ".join(role.name for role in lacking)
        draft.problem(
            case, "missing", f"channel {names} is missing: no file matches {lacking[0].shown}"
        )
        return
    _refuse_several(case, images, labels)
    first = images[0][1][0]
    split = split_in(first.named.get("split", ""))
    # A test case has no label by custom.
    if labels and not any(found for _, found in labels) and split != "test":
        shown = " or ".join(role.shown for role, _ in labels)
        draft.problem(case, "unpaired", f"no file matches {shown}", "warning")
    # Slices without geometry (PNG) that belong to a DICOM series get the series' geometry.
    like = first.path if first.path.is_dir() and Tree().is_dicom(first.path) else None
    truth = tuple(
        _label_source(hit, role, like, described) for role, found in labels for hit in found
    )
    patient = _patient(first.named.get("group", ""), first.named.get("patient", ""))
    draft.cases.append(
        Case(
            case,
            patient if "patient" in first.named else "",
            tuple(
                source(
                    found[0].path,
                    spacing_mm=tuple(described.spacing_mm),
                    item=found[0].named.get("item", ""),
                    axes=described.axes,
                    unit=described.unit.get(role.name, ""),
                )
                for role, found in images
            ),
            truth,
            split,
            group=first.named.get("group", ""),
        )
    )


def _patient(group: str, patient: str) -> str:
    """The patient; with the group, because sites may number their patients alike, unless its text
    repeats the patient's.
    """
    return patient if patient in group else "_".join(filter(None, (group, patient)))


def _label_source(hit: _Match, role: _Role, like: Path | None, described: Description) -> Source:
    bare = like is not None and hit.path.is_dir() and not Tree().is_dicom(hit.path)
    return source(
        hit.path,
        like=like if like is not None and bare else "",
        spacing_mm=() if like else tuple(described.spacing_mm),
        structure=role.name or hit.named.get("structure", ""),
        item=hit.named.get("item", ""),
        axes=described.axes,
    )


def _refuse_several(
    case: str,
    images: Sequence[tuple[_Role, list[_Match]]],
    labels: Sequence[tuple[_Role, list[_Match]]],
) -> None:
    """Raise if a channel or a structure has several files; only {part} allows that."""
    named = [(f"the label {role.name}".strip(), found) for role, found in labels]
    for what, found in [*((role.name, found) for role, found in images), *named]:
        structures = [hit.named.get("structure", "") for hit in found]
        if len(set(structures)) < len(found) and not any("part" in hit.named for hit in found):
            names = ", ".join(hit.path.name for hit in found[:4])
            raise LayoutError(f"{len(found)} files match {what}: {names}", case=case)


# ---- patterns ----


def _roles(described: Description, root: Path) -> tuple[list[_Role], list[_Role]]:
    """The files of the channels and of the labels; each file has one role."""
    label = described.label
    if label is None:
        named: dict[str, Patterns] = {}
    else:
        named = label if isinstance(label, dict) else {"": label}
    patterns = [*described.channels.items(), *named.items()]
    # The glob gives the candidates; the one with most text of its own gets a file.
    ignored = {path for pattern in described.leave_out for path in root.glob(pattern)}
    claimed: dict[tuple[Path, str], tuple[int, int, _Match]] = {}
    for number, (_, one) in enumerate(patterns):
        for pattern in _listed(one):
            matches = _matches(root, pattern)
            for match in matches:
                rank = len(own_text(pattern))
                place = match.path, match.named.get("item", "")
                if match.path not in ignored and rank > claimed.get(place, (-1,))[0]:
                    claimed[place] = (rank, number, match)
    roles = []
    for number, (name, one) in enumerate(patterns):
        found = [match for _, owner, match in claimed.values() if owner == number]
        if not found:
            raise LayoutError(
                f"no file is left for {' or '.join(_listed(one))}: other patterns or leave_out "
                "match all of them",
                path=root,
            )
        if described.match == "numbers":
            found = [_by_number(match) for match in found]
        fields = [placeholders(pattern) for pattern in _listed(one)]
        roles.append(
            _Role(
                name,
                " or ".join(_listed(one)),
                tuple(key for key in KEYS if all(key in names for names in fields)),
                tuple(sorted(found, key=lambda m: natural_key(m.path.relative_to(root)))),
            )
        )
    channels = len(described.channels)
    return roles[:channels], roles[channels:]


def _listed(patterns: Patterns) -> list[str]:
    return [patterns] if isinstance(patterns, str) else patterns


def _by_number(match: _Match) -> _Match:
    """The match with only the numbers of its id ("case_001" -> "1")."""
    numbers = "-".join(str(int(n)) for n in re.findall(r"\d+", match.named["id"]))
    return _Match(match.path, {**match.named, "id": numbers or match.named["id"]})


def _matches(root: Path, pattern: str) -> list[_Match]:
    """All paths below ``root`` that match the pattern."""
    # Check the pattern before the disk is searched.
    if "id" not in placeholders(pattern):
        raise LayoutError(
            f"the pattern {pattern!r} has no {{id}}, which identifies the case", path=root
        )
    if pattern.startswith("/") or ".." in Path(pattern).parts:
        raise LayoutError(f"the pattern {pattern!r} points outside the cohort's folder", path=root)
    # FILE.npz#NAME is one array of the file.
    found_item = _ITEM.fullmatch(pattern)
    pattern, item = (found_item[1], found_item[2]) if found_item else (pattern, "")
    # The glob gives the candidates; the regular expression checks them and reads the placeholders.
    hits = []
    for one in expanded(pattern):
        regex = compiled_pattern(one)
        for path in root.glob(glob_of(one)):
            # Hidden files are never part of a cohort.
            found = regex.fullmatch(path.relative_to(root).as_posix())
            if found and not path.name.startswith("."):
                hits.append(_Match(path, found.groupdict() | ({"item": item} if item else {})))
    if not hits:
        raise LayoutError(f"no file matches the pattern {pattern!r}", path=root)
    return hits


def compiled_pattern(pattern: str) -> re.Pattern[str]:
    """The pattern of a whole path as a regular expression.

    Raises:
        LayoutError: an unknown placeholder, or a form that is no regular expression.
    """
    for name in sorted(placeholders(pattern) - set(_PLACEHOLDERS)):
        allowed = ", ".join(f"{{{name}}}" for name in (*KEYS, "structure", "part"))
        raise LayoutError(
            f"unknown placeholder {{{name}}} in the pattern {pattern!r}; allowed are {allowed}"
        )
    try:
        return compiled(pattern, tuple(_PLACEHOLDERS.items()))
    except re.error as error:
        raise LayoutError(
            f"a placeholder of the pattern {pattern!r} has no regular expression ({error})"
        ) from error


def _set_labels(draft: Draft, described: Description, roles: Sequence[_Role]) -> None:
    matches = [(role, match) for role in roles for match in role.matches]
    found = {role.name or match.named.get("structure", ""): None for role, match in matches}
    names = [name for name in found if name]
    # In an overlap the later structure wins: the order is that of the patterns, else of the names.
    if not any(role.name for role in roles):
        names = sorted(names)
    if not names and any("part" in match.named for _, match in matches):
        names = [FOREGROUND]
        draft.cases = [
            replace(case, label=tuple(replace(one, structure=FOREGROUND) for one in case.label))
            for case in draft.cases
        ]
    if names:
        overlapping = described.overlapping and len(names) > 1
        draft.labels = LabelSet.from_names(dict(enumerate(names, start=1)), overlapping)
        draft.mapping = LabelMapping(files=tuple((n, v) for v, n in enumerate(names, start=1)))
    draft.ignore = ignored_values(described.ignore)
    # The section "labels" selects from these structures or defines them.
    if (choice := described.selection) is not None:
        draft.labels, draft.mapping = choice.apply(draft.labels or LabelSet(()), draft.mapping)
