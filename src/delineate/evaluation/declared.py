"""What the label values of predictions and truths mean, from the names on both sides.

Masks store values, but users mean structures. If both sides name the same structures, these are
paired by identity, whatever their values (``core.terms``: spelling, case and word order make no
difference). If one side lacks a structure of the other, and one value has two names or one
structure two values, the evaluation is refused: a comparison by value would score one structure as
another.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..cohorts.discovery.names import read_ignored, read_label_names
from ..core.errors import InputError, LabelError
from ..core.inputs import read_yaml
from ..core.labels import LabelSet
from ..core.prediction import RECORD
from ..core.terms import contradictions, names_structure, values_by_identity
from ..formats.label_files import names_in, overlap_in
from .pairing import Pairing, prediction_record

NAMING = (".nii", ".nii.gz", ".nrrd", ".dcm")  # files that may state names
FEW = 5  # masks of a folder whose headers are read for names
_SUFFIXES = (".csv", ".tsv", ".yaml", ".yml", ".json")
_MASK_FOLDER = re.compile(
    r"(?i)(labels?|masks?|seg(mentation)?s?|truths?|gts?|ground([ _-]?truths?)?|annotations?"
    r"|manual)"
    r"([ _-]?(tr|ts|train|test|val|\d+))?"
)
_HOW_TO_STATE_NAMES = (
    "name the values of both sides with --labels FILE (lines such as '1: liver'), or give the "
    "truth's structures the values of the predictions with a YAML file of lines such as "
    "'liver: NAME IN THE TRUTH', in the order of the predictions' values"
)


def chooses_structures(path: str | Path) -> bool:
    """Whether a ``--labels`` file is YAML that chooses structures by name, and not one that names
    label values.
    """
    if Path(path).suffix.lower() not in (".yaml", ".yml"):
        return False
    data = read_yaml(path)
    inner = data.get("labels", data) if isinstance(data, dict) else data
    return isinstance(inner, dict) and not all(str(key).strip().isdigit() for key in inner)


@dataclass(frozen=True)
class Declared:
    """What is known about the structures of two sides.

    Args:
        labels: the structures, with the values of the truth; None if nothing declares them.
        notes: on the source of their names.
        renumber: value of the predictions -> value of the same structure in the truth; empty if
            they are equal.
    """

    labels: LabelSet | None
    notes: tuple[str, ...] = ()
    renumber: Mapping[int, int] = field(default_factory=dict)


def declared_labels(
    stated: str | Path | LabelSet | None, pairing: Pairing, pred: Path, true: Path
) -> Declared:
    """The declared structures.

    Args:
        stated: the names that the user states for both sides; they override all other names. With
            None, the names of both sides are compared.
        pairing: the pairs; its manifest declares the truth's structures.
        pred, true: the two sides, a file or a folder each.

    Raises:
        LabelError: the names of both sides contradict the values; the message has both tables.
    """
    if isinstance(stated, LabelSet):
        return Declared(stated)
    if stated is not None:
        return Declared(read_label_names(stated), (f"structure names from {stated}",))
    predicted, predicted_in = _names_next_to(pred)
    # The truth is a cohort: its manifest declares the structures.
    if pairing.manifest is not None and len(pairing.manifest.labels):
        declared = pairing.manifest.labels
        if predicted is None:
            return Declared(declared)
        if renumber := renumbering(predicted, predicted_in, declared, true):
            return Declared(declared, (_paired_by_name(predicted, declared, renumber),), renumber)
        if set(predicted.values) != set(declared.values):
            raise LabelError(
                f"the predictions have the values {predicted.values} "
                f"({', '.join(predicted.names)}), the truth has {declared.values} "
                f"({', '.join(declared.names)}); {_HOW_TO_STATE_NAMES}",
                path=predicted_in,
            )
        # Generic names such as "label 1" name no structure: use those of the predictions.
        if any(names_structure(name) for name in declared.names):
            return Declared(declared)
        return Declared(predicted, (f"structure names from {predicted_in}",))
    # The truth is a file or a folder: names may be next to either side.
    known, known_in = _names_next_to(true)
    if predicted is None:
        return Declared(known, (f"structure names from {known_in}",) if known is not None else ())
    if known is not None and (renumber := renumbering(predicted, predicted_in, known, known_in)):
        return Declared(known, (_paired_by_name(predicted, known, renumber),), renumber)
    return Declared(predicted, (f"structure names from {predicted_in}",))


def _paired_by_name(said: LabelSet, known: LabelSet, renumber: Mapping[int, int]) -> str:
    ours, theirs = (dict(zip(one.values, one.names, strict=True)) for one in (said, known))
    pairs = ", ".join(f"{ours[a]} {a} with {theirs[b]} {b}" for a, b in renumber.items())
    return f"structures of predictions and truth were paired by name, not by value: {pairs}"


def renumbering(said: LabelSet, said_in: Path, known: LabelSet, known_in: Path) -> dict[int, int]:
    """Value of the predictions -> value of the same structure in the truth; {} if the values are
    equal, or nothing is known.

    Args:
        said, said_in: the names of the predictions, and their file.
        known, known_in: the names of the truth, and their file.

    Raises:
        LabelError: a value means two structures, or a structure has two values, and the two sides
            do not have the same structures, so that names cannot pair them.
    """
    values = values_by_identity(said, known)
    if values is not None and not (said.overlapping or known.overlapping):
        return values if any(a != b for a, b in values.items()) else {}
    problems = contradictions(said, known, "the predictions", "the truth")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise LabelError(
            "the names of predictions and truth contradict the values: "
            f"{'; '.join(problems[:3])}{more}. Predictions ({said_in}): {_table(said)}. "
            f"Truth ({known_in}): {_table(known)}. They do not have the same structures: "
            f"{_HOW_TO_STATE_NAMES}"
        )
    return {}


def _table(labels: LabelSet) -> str:
    return ", ".join(f"{label.value} {label.name}" for label in labels)


def _names_next_to(place: Path) -> tuple[LabelSet | None, Path]:
    """The names of the values in a file or folder of masks, and the file that states them: the mask
    itself (the first one, if all masks of a folder that are read agree), or a file next to it.
    """
    if named := _names_within(place):
        return named
    for path in _files_with_names(place):
        if path.is_file():
            return read_label_names(path), path
    return None, place


def ignored_beside(place: Path) -> tuple[int, ...]:
    """The values that the ``dataset.json`` of a folder of masks, or of their cohort, ignores."""
    return next((read_ignored(path) for path in _files_with_names(place) if path.is_file()), ())


def prediction_records(predictions: Collection[str]) -> dict[Path, dict[str, Any]]:
    """Folder of predictions -> its ``predictions.json``, of those that have one."""
    folders = sorted({Path(path).parent for path in predictions if path})
    found = {folder: prediction_record(folder) for folder in folders}
    return {folder: record for folder, record in found.items() if record}


def recorded_flags(
    records: Mapping[Path, Mapping[str, Any]],
) -> dict[str, tuple[Mapping[str, str], ...]]:
    """Prediction -> its flags, for those that ``prediction_records`` name."""
    return {
        str(folder / entry["file"]): tuple(entry["flags"])
        for folder, record in records.items()
        for entry in record.get("cases", {}).values()
        if "file" in entry and isinstance(entry.get("flags"), list)
    }


def _names_within(place: Path) -> tuple[LabelSet, Path] | None:
    """The names in the headers of the masks; None if the first has none or others differ."""
    inside = sorted(place.iterdir()) if place.is_dir() else [place]
    masks = [p for p in inside if p == place or p.name.lower().endswith(NAMING)]
    stated: list[tuple[dict[int, str], Path]] = []
    for path in masks[:: max(1, len(masks) // FEW)]:
        with contextlib.suppress(InputError):  # reported where its voxels are read
            stated.append((names_in(path), path))
    if not stated or not stated[0][0] or any(names != stated[0][0] for names, _ in stated):
        return None
    names, path = stated[0]
    overlapping = len(names) > 1 and any(overlap_in(one) for _, one in stated)
    return LabelSet.from_names(names, overlapping), path


def _files_with_names(place: Path) -> Iterator[Path]:
    """Where names may be, in order of preference."""
    folder = place if place.is_dir() else place.parent
    yield folder / RECORD
    yield folder / "dataset.json"  # nnU-Net writes it into the folder of its predictions
    yield from (folder / f"labels{ending}" for ending in _SUFFIXES)
    # Next to labelsTr, masks or Ground, that is, in the cohort's folder.
    if _MASK_FOLDER.fullmatch(folder.resolve().name):
        yield folder.parent / "dataset.json"
        yield from (folder.parent / f"labels{ending}" for ending in _SUFFIXES)
