"""A cohort with any other layout, described by a short YAML file.

    channels:
      CT: scans/{id}/ct.nii.gz           # glob pattern below the root; {id} is the case,
                                         # {split} may be train, val or test
    label: masks/{id}_{structure}.nii.gz # {structure}: one file per structure
    patient: ^(P[0-9]+)                  # one group, searched in the id
    modality: CT
    spacing_mm: [0.7, 0.7, 2.0]          # for 2-D images, which store no spacing
    labels:                              # structure: value, range, "#rrggbb", file stem,
                                         # or a list of these
      liver: 1
    rest: background                     # or refuse: what happens to other values
    ignore: 255                          # values whose voxels are neither learnt from nor scored

A pattern may match a file or a folder (a DICOM series or a stack of slices). ``draft`` writes a
first description for a folder.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...core.errors import InputError, LayoutError
from ...core.inputs import read_yaml
from ...core.labels import LabelMapping, LabelSet
from ...core.manifest import Case, Split
from ...extend.findings import Draft
from ...formats.files import natural_key, stem
from .patients import by_pattern
from .structures import StructureSelection, ignored_values
from .tree import Tree, source

_PLACEHOLDERS = {
    "id": r"(?P<id>[^/]+?)",
    "split": r"(?P<split>train|val|test)",
    "structure": r"(?P<structure>[^/]+?)",
}


class Description(BaseModel):
    """The content of the YAML file; unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: dict[str, str] = Field(min_length=1)
    label: str | None = None
    patient: str | None = None
    modality: str = ""
    spacing_mm: list[float] = Field(default_factory=list, max_length=3)
    labels: dict[str, Any] | None = None
    rest: Literal["background", "refuse"] = "background"
    ignore: int | str | list[int | str] | None = None


@dataclass(frozen=True)
class _Match:
    """A path that matches a pattern, with the text at the placeholders."""

    path: Path
    id: str
    split: Split
    structure: str


def load(path: str | Path) -> Description:
    """Read a description.

    Raises:
        InputError: the file cannot be read, or is not a valid description (with the wrong key).
    """
    data = read_yaml(path)
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


def apply(described: Description, root: str | Path) -> Draft:
    """The cases below ``root`` that match the description.

    Raises:
        LayoutError: a pattern has no {id} or matches nothing, or two files match one channel of a
            case.
    """
    base = Path(root)
    # Find all files first: the cases are the ids of the image files.
    hits = {name: _matches(base, pattern) for name, pattern in described.channels.items()}
    truth = _matches(base, described.label) if described.label else []
    draft = Draft("description", [], tuple(described.channels), modality=described.modality)
    ids = sorted(
        {(h.split or "", h.id) for channel in hits.values() for h in channel},
        key=lambda key: (key[0], natural_key(key[1])),
    )
    # An id that occurs in several splits gets the split as a prefix.
    repeated = Counter(case for _, case in ids)
    for split, case in ids:
        _add_case(
            draft,
            described,
            f"{split}_{case}" if repeated[case] > 1 else case,
            _matches_of(hits, split, case),
            [h for h in truth if _key(h) == (split, case)],
        )
    # Labels without an image.
    for hit in truth:
        if _key(hit) not in ids:
            draft.problem(
                hit.id, "unpaired", f"label {hit.path.name} has no image", path=str(hit.path)
            )
    _set_labels(draft, described, truth)
    _set_patients(draft, described.patient)
    return draft


def _matches_of(hits: dict[str, list[_Match]], split: str, case: str) -> dict[str, list[_Match]]:
    return {name: [h for h in found if _key(h) == (split, case)] for name, found in hits.items()}


def _key(hit: _Match) -> tuple[str, str]:
    return hit.split or "", hit.id


def _add_case(
    draft: Draft,
    described: Description,
    case: str,
    images: dict[str, list[_Match]],
    labels: list[_Match],
) -> None:
    # A case needs all its channels.
    lacking = [name for name, found in images.items() if not found]
    if lacking:
        draft.problem(
            case,
            "missing",
            f"channel {', '.join(lacking)} is missing: no file matches "
            f"{described.channels[lacking[0]]}",
        )
        return
    # Each channel needs exactly one file; only {structure} allows several label files.
    for name, found in [
        *images.items(),
        *(
            [("the label", labels)]
            if described.label and "{structure}" not in described.label
            else []
        ),
    ]:
        if len(found) > 1:
            raise LayoutError(
                f"{len(found)} files match {name}: {', '.join(h.path.name for h in found[:4])}",
                case=case,
            )
    if described.label and not labels:
        draft.problem(case, "unpaired", f"no file matches {described.label}", "warning")
    spacing = tuple(described.spacing_mm)
    first = next(iter(images.values()))[0]
    # Slices without geometry (PNG) that belong to a DICOM series get the series' geometry.
    like = first.path if first.path.is_dir() and Tree().is_dicom(first.path) else None
    truth = tuple(
        source(
            h.path,
            like=like if like and h.path.is_dir() and not Tree().is_dicom(h.path) else "",
            spacing_mm=() if like else spacing,
        )
        for h in labels
    )
    draft.cases.append(
        Case(
            case,
            "",
            tuple(source(found[0].path, spacing_mm=spacing) for found in images.values()),
            truth,
            first.split,
        )
    )


def _matches(root: Path, pattern: str) -> list[_Match]:
    """All paths below ``root`` that match the pattern, in natural order."""
    # Check the pattern before the disk is searched.
    if "{id}" not in pattern:
        raise LayoutError(
            f"the pattern {pattern!r} has no {{id}}, which identifies the case", path=root
        )
    if pattern.startswith("/") or ".." in Path(pattern).parts:
        raise LayoutError(f"the pattern {pattern!r} points outside the cohort's folder", path=root)
    # The glob gives the candidates; the regular expression checks them and reads the placeholders.
    compiled = re.compile(_regex(pattern) + "$")
    hits = []
    for path in sorted(
        root.glob(re.sub(r"\{\w+\}", "*", pattern)), key=lambda p: natural_key(p.relative_to(root))
    ):
        # Hidden files are never part of a cohort.
        found = compiled.match(path.relative_to(root).as_posix())
        if found and not path.name.startswith("."):
            named = found.groupdict()
            split: Any = named.get("split")
            hits.append(_Match(path, named["id"], split, named.get("structure") or ""))
    if not hits:
        raise LayoutError(f"no file matches the pattern {pattern!r}", path=root)
    return hits


def _regex(pattern: str) -> str:
    """The glob pattern as a regular expression.

    A placeholder that occurs twice must have the same text both times.
    """
    # Divide the pattern into placeholders, wildcards and plain text.
    out, seen = "", set[str]()
    for part in re.split(r"(\{\w+\}|\*\*/|\*|\?)", pattern):
        name = part[1:-1]
        if part.startswith("{"):
            if name not in _PLACEHOLDERS:
                raise LayoutError(
                    f"unknown placeholder {part} in the pattern {pattern!r}; allowed are {{id}}, "
                    "{split} and {structure}"
                )
            # A repeated placeholder becomes a back-reference.
            out += f"(?P={name})" if name in seen else _PLACEHOLDERS[name]
            seen.add(name)
        else:
            # Wildcards become their regular expressions; plain text is escaped.
            out += {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
    return out


def _set_labels(draft: Draft, described: Description, truth: list[_Match]) -> None:
    stems = sorted({stem(h.path): h.structure for h in truth if h.structure}.items())
    # File names may contain the case id, so several stems can stand for one structure.
    if stems:
        names = sorted({structure for _, structure in stems})
        draft.labels = LabelSet.from_names(dict(enumerate(names, start=1)))
        draft.mapping = LabelMapping(
            files=tuple((name, names.index(structure) + 1) for name, structure in stems)
        )
    draft.ignore = ignored_values(described.ignore)
    # The section "labels" selects from these structures or defines them.
    if described.labels is not None:
        choice = StructureSelection.from_data({"labels": described.labels, "rest": described.rest})
        draft.labels, draft.mapping = choice.apply(draft.labels or LabelSet(()), draft.mapping)


def _set_patients(draft: Draft, pattern: str | None) -> None:
    if pattern is None:
        return
    draft.cases = list(by_pattern(draft.cases, pattern))


# ---- a first draft ----

_HEAD = (
    "# Description of {root}\n"
    "# Written by `delineate check --draft`; edit it, then run: delineate check {root} "
    "--description THIS_FILE\n"
    "# {{id}} is the case and * any text; a pattern may match a file or a folder (a DICOM series "
    "or a stack of slices).\n"
)


def draft(root: str | Path) -> str:
    """The text of a first description of a folder, derived from the names in it.

    Keys that cannot be derived are written as comments.

    Raises:
        InputError: ``root`` is not a folder.
        LayoutError: there is no image in it or in the folders below it.
    """
    base = Path(root)
    if not base.is_dir():
        raise InputError("is not a folder", path=base)
    shapes = _shapes(base)
    if not shapes:
        raise LayoutError(
            "no image and no DICOM folder was found here or in a folder below", path=base
        )
    image, label = _guess(shapes)
    lines = [_HEAD.format(root=base), "channels:", f'  image: "{image}"']
    lines += [f'label: "{label}"' if label else '# label: "masks/{id}.nii.gz"']
    lines += [
        '# patient: "^(P[0-9]+)"      # one group, searched in the id',
        "# modality: CT               # or MR",
        "# spacing_mm: [1, 1, 1]      # for 2-D images, which store no spacing",
    ]
    lines += [
        "# labels:                    # structure: value, [values], range, colour or file stem",
        "#   liver: 1",
        "#   kidneys: [2, 3]",
        '#   spleen: "240-255"',
        '#   tumour: "#ff0000"',
        "# rest: background           # or refuse: what happens to other values",
        "# ignore: 255                # values whose voxels are neither learnt from nor scored",
    ]
    lines += [
        "",
        "# Found here (pattern: number of files or folders):",
        *(f"#   {shape}: {count}" for shape, count in shapes.most_common(20)),
    ]
    return "\n".join(lines) + "\n"


def _shapes(base: Path) -> Counter[str]:
    """Patterns of the images below ``base`` (four folders deep), each with the number of files or
    DICOM folders that match.
    """
    tree, level, shapes = Tree(), [base], Counter[str]()
    # Level by level from the root; each folder adds its DICOM series or its images.
    for _ in range(5):
        below: list[Path] = []
        for folder in level[:500]:  # enough folders to recognise the patterns of a large cohort
            if folder != base and tree.is_dicom(folder):
                shapes[_shape(folder.relative_to(base), "")] += 1
            for path in tree.images(folder):
                ending = path.name[len(stem(path)) :]
                shapes[_shape(path.relative_to(base), ending)] += 1
            below += tree.folders(folder)
        level = below
    return shapes


def _shape(path: Path, ending: str) -> str:
    """The path with {id} in place of the part that identifies the case.

    This part is the first folder with a digit in its name. If there is none, it is the file's or
    folder's own name, without a leading or trailing word ("liver_012_seg" -> "liver_{id}_seg").

    Args:
        path: relative to the cohort's folder.
        ending: the file extension; "" for a DICOM folder.
    """
    parts = list(path.parts)
    for n, part in enumerate(parts[:-1]):
        if re.search(r"\d", part):
            # Below it, the id may occur again; names of DICOM folders with numbers become "*".
            return "/".join(
                [
                    *parts[:n],
                    "{id}",
                    *(
                        "*" if re.search(r"\d{2,}", p) and not ending else p.replace(part, "{id}")
                        for p in parts[n + 1 :]
                    ),
                ]
            )
    # No folder identifies the case, so the name does: keep its first and last word, if any.
    name = parts[-1][: len(parts[-1]) - len(ending)] if ending else parts[-1]
    word = re.match(r"^([A-Za-z]+[_-])?.*\d.*?([_-][A-Za-z]+)?$", name)
    pattern = f"{(word[1] or '') if word else ''}{{id}}{(word[2] or '') if word else ''}"
    return "/".join([*parts[:-1], pattern + ending])


def _guess(shapes: Counter[str]) -> tuple[str, str]:
    """The most likely patterns of image and label ("" for none): a pattern with a word such as
    "mask" is a label; among equals the most frequent pattern is used.
    """
    words = re.compile(r"(?i)label|mask|seg|ground|truth|gt|annot")
    # Most frequent patterns first.
    labels = [s for s, _ in shapes.most_common() if words.search(s)]
    images = [s for s, _ in shapes.most_common() if s not in labels]
    if not images:
        return labels[0], labels[1] if len(labels) > 1 else ""
    return images[0], labels[0] if labels else ""
