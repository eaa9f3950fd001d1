"""Layouts that are stated by the paths of their files, and the function that finds their cases.

A ``Form`` gives a pattern (``patterns.py``) for each channel and for the masks. Channels and masks
with the same placeholders are one case. Placeholders with a meaning: ``{split}`` (see
``splits.py``), ``{group}``, ``{patient}`` and, for one mask per structure, ``{structure}``; several
masks of one structure differ in ``{part}`` and are united.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ....core.labels import LabelMapping, LabelSet
from ....core.manifest import Case, Split
from ....extend.findings import Draft
from ....extend.parts import Layout, Tier
from ....extend.registers import LAYOUTS
from ..patterns import PathMatch, matches
from ..splits import split_in, with_free_training
from ..tree import Tree, source
from .structure_masks import set_masks

Key = tuple[tuple[str, str], ...]
_ORDER: tuple[Split, ...] = ("train", None, "val", "test")


@dataclass(frozen=True)
class Form:
    """The paths of a layout.

    Args:
        channels: name -> pattern of its files.
        label: pattern of the masks; several are alternatives, the first that matches a case counts.
        case: the case's id, from the placeholders.
        patient: the patient, from the placeholders; "" leaves it to the form of the id.
        names: value -> structure.
        modality: "CT", "MR" ..., or "" if unknown.
        unused: files that are left out on purpose, for a note.
        pictures: whether the files are 2-D images; others are left out.
        groups: text of {group} -> name of the group.
        structures: text of {structure} -> name, in the order in which masks are drawn: where they
            overlap, the later one wins. Without {structure}, the name of a {part}'s structure.
        fixed: the structures and the mapping, if the values of the masks need one.
        complete: reads further facts from tables next to the cases; it changes the draft.
    """

    channels: Mapping[str, str]
    label: str | tuple[str, ...]
    case: str = "{id}"
    patient: str = ""
    names: Mapping[int, str] = field(default_factory=dict)
    modality: str = ""
    unused: str = ""
    pictures: bool = False
    groups: Mapping[str, str] = field(default_factory=dict)
    structures: Mapping[str, str] = field(default_factory=dict)
    fixed: tuple[LabelSet, LabelMapping] | None = None
    complete: Callable[[Draft, Tree, Path], None] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.label,) if isinstance(self.label, str) else self.label


def register(name: str, definition: str, *forms: Form, tier: Tier = "challenge") -> None:
    """Register a layout of one or several forms; the first form that matches is used."""
    LAYOUTS.add(name, Layout(FormFinder(name, forms), definition, tier))


@dataclass(frozen=True)
class FormFinder:
    """The ``find`` of a layout of forms: (tree, root) -> draft or None."""

    name: str
    forms: tuple[Form, ...]

    def __call__(self, tree: Tree, root: Path) -> Draft | None:
        drafts = (found_by(self.name, form, tree, root) for form in self.forms)
        return next((draft for draft in drafts if draft is not None), None)


def found_by(name: str, form: Form, tree: Tree, root: Path) -> Draft | None:
    """The cases of one form; None if no case has all channels, or no case has a mask."""
    draft = Draft(name, [], tuple(form.channels), modality=form.modality)
    draft.names, draft.usual = dict(form.names), True
    images = _images(form, tree, root, draft)
    if not any(len(found) == len(form.channels) for found in images.values()):
        return None
    labels = _labels(form, tree, root, draft, images)
    if not labels:
        return None
    for key, found in images.items():
        _add_case(draft, form, dict(key), found, labels.get(key, ()))
    # The cases to learn from come first.
    draft.cases = sorted(with_free_training(draft.cases), key=lambda c: _ORDER.index(c.split))
    _set_structures(draft, form, [match for found in labels.values() for match in found])
    if form.unused:
        draft.note("unused", form.unused)
    if form.complete is not None:
        form.complete(draft, tree, root)
    return draft


def _set_structures(draft: Draft, form: Form, masks: Sequence[PathMatch]) -> None:
    """Set the structures, if the paths of the masks or the form state them."""
    if form.fixed is not None:
        draft.labels, draft.mapping = form.fixed
        return
    found = {_structure(match, form) for match in masks}
    stated = [name for name in form.structures.values() if name in found]
    if found != {""}:
        set_masks(draft, stated or sorted(found))


def _structure(match: PathMatch, form: Form) -> str:
    """The structure that the path of a mask states, or "" for a mask with all structures."""
    text = match.fields.get("structure", "")
    if "part" in match.fields and not text:
        return next(iter(form.structures.values()))
    return {k.lower(): v for k, v in form.structures.items()}.get(text.lower(), text)


def _images(form: Form, tree: Tree, root: Path, draft: Draft) -> dict[Key, dict[str, PathMatch]]:
    """Key of a case -> channel -> file, in natural order; a second file for a channel is a problem,
    and the case is left out.
    """
    images: dict[Key, dict[str, PathMatch]] = {}
    unclear: set[Key] = set()
    for channel, pattern in form.channels.items():
        for match in matches(tree, root, pattern, pictures=form.pictures):
            key = tuple(sorted(match.fields.items()))
            held = images.setdefault(key, {})
            if channel in held:
                unclear.add(key)
                names = f"{held[channel].path.relative_to(root)} and {match.path.relative_to(root)}"
                case = form.case.format_map(_Known(match.fields))
                draft.problem(case, "unpaired", f"{names} could both be its {channel}")
            held[channel] = match
    return {key: found for key, found in images.items() if key not in unclear}


def _labels(
    form: Form, tree: Tree, root: Path, draft: Draft, images: Mapping[Key, Mapping[str, PathMatch]]
) -> dict[Key, list[PathMatch]]:
    """Key of a case -> its masks: several only if there is one per structure. A mask that fits no
    case or several, and a second mask of a case, are problems.
    """
    found: dict[Key, list[PathMatch]] = {}
    for pattern in form.labels:
        before = set(found)
        every = matches(tree, root, pattern, pictures=form.pictures)
        for match, fitting in zip(every, _cases_of(every, images), strict=True):
            if len(fitting) != 1:
                why = "has no image" if not fitting else "could belong to several images"
                draft.problem(
                    form.case.format_map(_Known(match.fields)),
                    "unpaired",
                    f"label {match.path.relative_to(root)} {why}",
                    path=str(match.path),
                )
            elif fitting[0] not in before:
                found.setdefault(fitting[0], []).append(match)
    return found


def _cases_of(labels: Sequence[PathMatch], images: Iterable[Key]) -> list[list[Key]]:
    """For each label, the cases that have the same text at all placeholders that both have."""
    stated = {name for match in labels for name in match.fields} - {"structure", "part"}
    index: dict[Key, list[Key]] = {}
    for key in images:
        index.setdefault(tuple(pair for pair in key if pair[0] in stated), []).append(key)
    shared = {tuple(name for name, _ in key) for key in index}
    return [
        [
            case
            for names in shared
            if names
            for case in index.get(tuple((n, match.fields.get(n, "")) for n in names), ())
        ]
        for match in labels
    ]


class _Known(dict[str, str]):
    """Fields for a template; the unknown ones are left out."""

    def __missing__(self, key: str) -> str:
        return ""


def _add_case(
    draft: Draft,
    form: Form,
    fields: Mapping[str, str],
    images: Mapping[str, PathMatch],
    labels: Sequence[PathMatch],
) -> None:
    case = form.case.format_map(_Known(fields)).strip("_-. ")
    split = split_in(fields.get("split", ""))
    lacking = [name for name in form.channels if name not in images]
    if lacking:
        first = next(iter(images.values())).path
        draft.problem(
            case,
            "missing",
            f"channel {', '.join(lacking)} is missing next to {first}",
            have={name: str(match.path.absolute()) for name, match in images.items()},
        )
        return
    if len(labels) > 1 and not {"structure", "part"} & set(labels[0].fields):
        names = ", ".join(match.path.name for match in labels)
        draft.problem(case, "unpaired", f"{len(labels)} files could be its label: {names}")
        return
    if not labels and split in (None, "train"):
        first = next(iter(images.values())).path
        draft.problem(case, "unpaired", f"no label belongs to {first}", "warning")
    draft.cases.append(
        Case(
            case,
            form.patient.format_map(_Known(fields)),
            tuple(source(images[name].path) for name in form.channels),
            tuple(source(match.path, structure=_structure(match, form)) for match in labels),
            split,
            group=form.groups.get(fields.get("group", "").lower(), fields.get("group", "")),
        )
    )
