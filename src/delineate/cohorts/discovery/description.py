"""A cohort of any other layout, described by a short YAML file.

    channels:
      CT: scans/{id}/ct.nii.gz          # glob patterns below the root; {id} is the case, {split}
                                        may be train, val or test
    label: masks/{id}_{structure}.nii.gz  # {structure}: one file a structure
    patient: ^(P[0-9]+)                  # one group, searched in the id
    modality: CT
    spacing_mm: [0.7, 0.7, 2.0]          # for pictures, which carry none
    labels:                              # structure: value, range, "#rrggbb", file stem, or a list
                                         of these
      liver: 1
    rest: background                     # or refuse: what becomes of other values

A pattern may end at a file or at a folder (a DICOM series or a stack of slices). ``draft`` writes a
first such file.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...core.errors import InputError, LayoutError
from ...core.labels import LabelMapping, LabelSet
from ...core.manifest import Case, Split
from ...formats.files import natural_key, stem
from ..findings import Draft
from .patients import by_pattern
from .structures import StructureSelection, read_yaml
from .tree import Tree, source

_HOLES = {
    "id": r"(?P<id>[^/]+?)",
    "split": r"(?P<split>train|val|test)",
    "structure": r"(?P<structure>[^/]+?)",
}


class Description(BaseModel):
    """The content of the YAML file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: dict[str, str] = Field(min_length=1)
    label: str | None = None
    patient: str | None = None
    modality: str = ""
    spacing_mm: list[float] = Field(default_factory=list, max_length=3)
    labels: dict[str, Any] | None = None
    rest: Literal["background", "refuse"] = "background"


@dataclass(frozen=True)
class _Match:
    """A path that a pattern fits, and what stood at its placeholders."""

    path: Path
    id: str
    split: Split
    structure: str


def load(path: str | Path) -> Description:
    """Read a description.

    Raises:
        InputError: it cannot be read, or is not one (with the key that is wrong).
    """
    data = read_yaml(path)
    try:
        return Description.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        allowed = ", ".join(Description.model_fields)
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"{where}: {first['msg'].lower()}, found {str(first['input'])[:80]!r}; the keys are "
            f"{allowed}",
            path=path,
        ) from error


def apply(described: Description, root: str | Path) -> Draft:
    """The cases that the description finds below ``root``.

    Raises:
        LayoutError: a pattern without {id}, one that fits nothing, or two files for one channel of
            a case.
    """
    base = Path(root)
    hits = {name: _fitting(base, pattern) for name, pattern in described.channels.items()}
    truth = _fitting(base, described.label) if described.label else []
    draft = Draft("description", [], tuple(described.channels), modality=described.modality)
    ids = sorted(
        {(h.split or "", h.id) for channel in hits.values() for h in channel},
        key=lambda key: (key[0], natural_key(key[1])),
    )
    repeated = Counter(case for _, case in ids)
    for split, case in ids:
        _add(
            draft,
            described,
            f"{split}_{case}" if repeated[case] > 1 else case,
            _of(hits, split, case),
            [h for h in truth if _key(h) == (split, case)],
        )
    for hit in truth:
        if _key(hit) not in ids:
            draft.problem(
                hit.id, "unpaired", f"label {hit.path.name} has no image", path=str(hit.path)
            )
    _set_labels(draft, described, truth)
    _set_patients(draft, described.patient)
    return draft


def _of(hits: dict[str, list[_Match]], split: str, case: str) -> dict[str, list[_Match]]:
    return {name: [h for h in found if _key(h) == (split, case)] for name, found in hits.items()}


def _key(hit: _Match) -> tuple[str, str]:
    return hit.split or "", hit.id


def _add(
    draft: Draft,
    described: Description,
    case: str,
    images: dict[str, list[_Match]],
    labels: list[_Match],
) -> None:
    lacking = [name for name, found in images.items() if not found]
    if lacking:
        draft.problem(
            case,
            "missing",
            f"channel {', '.join(lacking)} is missing: nothing fits "
            f"{described.channels[lacking[0]]}",
        )
        return
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
                f"{len(found)} files fit {name}: {', '.join(h.path.name for h in found[:4])}",
                case=case,
            )
    if described.label and not labels:
        draft.problem(case, "unpaired", f"nothing fits {described.label}", "warning")
    spacing = tuple(described.spacing_mm)
    first = next(iter(images.values()))[0]
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


def _fitting(root: Path, pattern: str) -> list[_Match]:
    """Everything below ``root`` that the pattern fits, in natural order."""
    if "{id}" not in pattern:
        raise LayoutError(
            f"the pattern {pattern!r} has no {{id}}, which tells the cases apart", path=root
        )
    if pattern.startswith("/") or ".." in Path(pattern).parts:
        raise LayoutError(f"the pattern {pattern!r} leaves the cohort's folder", path=root)
    compiled = re.compile(_regex(pattern) + "$")
    hits = []
    for path in sorted(
        root.glob(re.sub(r"\{\w+\}", "*", pattern)), key=lambda p: natural_key(p.relative_to(root))
    ):
        found = compiled.match(path.relative_to(root).as_posix())
        if found and not path.name.startswith("."):
            named = found.groupdict()
            split: Any = named.get("split")
            hits.append(_Match(path, named["id"], split, named.get("structure") or ""))
    if not hits:
        raise LayoutError(f"nothing fits the pattern {pattern!r}", path=root)
    return hits


def _regex(pattern: str) -> str:
    """The pattern as a regular expression; a placeholder that occurs again must hold the same
    text.
    """
    out, seen = "", set[str]()
    for part in re.split(r"(\{\w+\}|\*\*/|\*|\?)", pattern):
        hole = part[1:-1]
        if part.startswith("{"):
            if hole not in _HOLES:
                raise LayoutError(
                    f"unknown placeholder {part} in the pattern {pattern!r}; there are {{id}}, "
                    "{split} and {structure}"
                )
            out += f"(?P={hole})" if hole in seen else _HOLES[hole]
            seen.add(hole)
        else:
            out += {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
    return out


def _set_labels(draft: Draft, described: Description, truth: list[_Match]) -> None:
    stems = sorted({stem(h.path): h.structure for h in truth if h.structure}.items())
    # Files of one structure may have the id in their name, so several stems mean one structure.
    if stems:
        names = sorted({structure for _, structure in stems})
        draft.labels = LabelSet.from_names(dict(enumerate(names, start=1)))
        draft.mapping = LabelMapping(
            files=tuple((name, names.index(structure) + 1) for name, structure in stems)
        )
    if described.labels is not None:
        choice = StructureSelection.from_data({"labels": described.labels, "rest": described.rest})
        draft.labels, draft.mapping = choice.apply(draft.labels or LabelSet(()), draft.mapping)


def _set_patients(draft: Draft, pattern: str | None) -> None:
    if pattern is None:
        return

    draft.cases = list(by_pattern(draft.cases, pattern))


# ---- a first draft ----

_HEAD = (
    "# A description of {root}\n"
    "# Written by `delineate check --draft`; edit it, then: delineate check {root} "
    "--description THIS_FILE\n"
    "# {{id}} stands for the case; * for anything; a pattern may end at a folder (a DICOM series "
    "or a stack of slices).\n"
)


def draft(root: str | Path) -> str:
    """The text of a first description of the folder, from the names in it; what was not understood
    is a comment.

    Raises:
        InputError: it is no folder.
        LayoutError: no image lies in it or in folders below it.
    """
    base = Path(root)
    if not base.is_dir():
        raise InputError("is not a folder", path=base)
    shapes = _shapes(base)
    if not shapes:
        raise LayoutError("no image and no DICOM folder was found here or below", path=base)
    image, label = _guess(shapes)
    lines = [_HEAD.format(root=base), "channels:", f'  image: "{image}"']
    lines += [f'label: "{label}"' if label else '# label: "masks/{id}.nii.gz"']
    lines += [
        '# patient: "^(P[0-9]+)"      # one group, searched in the id',
        "# modality: CT               # or MR",
        "# spacing_mm: [1, 1, 1]      # for pictures, which carry none",
    ]
    lines += [
        "# labels:                    # structure: value, [values], range, colour or file stem",
        "#   liver: 1",
        "#   kidneys: [2, 3]",
        '#   spleen: "240-255"',
        '#   tumour: "#ff0000"',
        "# rest: background           # or refuse: what becomes of other values",
    ]
    lines += [
        "",
        "# Seen here (pattern: how many):",
        *(f"#   {shape}: {count}" for shape, count in shapes.most_common(20)),
    ]
    return "\n".join(lines) + "\n"


def _shapes(base: Path) -> Counter[str]:
    """Patterns of the images below ``base`` (four folders deep), with how many files or DICOM
    folders each fits.
    """
    tree, level, shapes = Tree(), [base], Counter[str]()
    for _ in range(5):
        below: list[Path] = []
        for folder in level[:500]:
            if folder != base and tree.is_dicom(folder):
                shapes[_shape(folder.relative_to(base), "")] += 1
            for path in tree.images(folder):
                ending = path.name[len(stem(path)) :]
                shapes[_shape(path.relative_to(base), ending)] += 1
            below += tree.folders(folder)
        level = below
    return shapes


def _shape(path: Path, ending: str) -> str:
    """The path with the part that tells the case as {id}: the first folder with a number, else the
    stem's number or the stem.
    """
    parts = list(path.parts)
    for n, part in enumerate(parts[:-1]):
        if re.search(r"\d", part):
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
    name = parts[-1][: len(parts[-1]) - len(ending)] if ending else parts[-1]
    word = re.match(r"^([A-Za-z]+[_-])?.*\d.*?([_-][A-Za-z]+)?$", name)
    hole = f"{(word[1] or '') if word else ''}{{id}}{(word[2] or '') if word else ''}"
    return "/".join([*parts[:-1], hole + ending])


def _guess(shapes: Counter[str]) -> tuple[str, str]:
    """The patterns most likely image and label: by the words in them, else the two most
    frequent.
    """
    words = re.compile(r"(?i)label|mask|seg|ground|truth|gt|annot")
    labels = [s for s, _ in shapes.most_common() if words.search(s)]
    images = [s for s, _ in shapes.most_common() if s not in labels]
    if not images:
        return labels[0], labels[1] if len(labels) > 1 else ""
    return images[0], labels[0] if labels else ""
