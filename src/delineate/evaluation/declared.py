"""What the label values of predictions and truths mean, from the names on both sides; names that
contradict the values are an error.

Masks store values, but users mean structures. If both sides name their values, and one value has
two names or one structure two values, a comparison by value would score one structure as another.
Spelling, case and word order make no difference (``core.terms``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..cohorts.discovery.names import read_ignored, read_label_names
from ..core.errors import LabelError
from ..core.inputs import read_yaml
from ..core.labels import LabelSet
from ..core.terms import contradictions, names_structure
from ..formats.label_files import names_in
from .pairing import Pairing

NAMING = (".nii", ".nii.gz", ".nrrd")  # files that may state names
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


def declared_labels(
    stated: str | Path | LabelSet | None, pairing: Pairing, pred: Path, true: Path
) -> tuple[LabelSet | None, list[str]]:
    """The declared structures, and notes on the source of their names; None if nothing declares
    them.

    Args:
        stated: the names that the user states for both sides; they override all other names. With
            None, the names of both sides are compared.
        pairing: the pairs; its manifest declares the truth's structures.
        pred, true: the two sides, a file or a folder each.

    Raises:
        LabelError: the names of both sides contradict the values; the message has both tables.
    """
    if isinstance(stated, LabelSet):
        return stated, []
    if stated is not None:
        return read_label_names(stated), [f"structure names from {stated}"]
    predicted, predicted_in = _names_next_to(pred)
    # The truth is a cohort: its manifest declares the structures.
    if pairing.manifest is not None and len(pairing.manifest.labels):
        declared = pairing.manifest.labels
        if predicted is None:
            return declared, []
        if set(predicted.values) != set(declared.values):
            raise LabelError(
                f"the predictions have the values {predicted.values} "
                f"({', '.join(predicted.names)}), the truth has {declared.values} "
                f"({', '.join(declared.names)}); {_HOW_TO_STATE_NAMES}",
                path=predicted_in,
            )
        refuse_contradiction(predicted, predicted_in, declared, true)
        # Generic names such as "label 1" name no structure: use those of the predictions.
        return (
            (declared, [])
            if any(names_structure(name) for name in declared.names)
            else (predicted, [f"structure names from {predicted_in}"])
        )
    # The truth is a file or a folder: names may be next to either side.
    known, known_in = _names_next_to(true)
    if predicted is not None and known is not None:
        refuse_contradiction(predicted, predicted_in, known, known_in)
    if predicted is not None:
        return predicted, [f"structure names from {predicted_in}"]
    return known, [f"structure names from {known_in}"] if known is not None else []


def refuse_contradiction(said: LabelSet, said_in: Path, known: LabelSet, known_in: Path) -> None:
    """Refuse two tables of names if a value means two structures, or a structure has two values.

    Args:
        said, said_in: the names of the predictions, and their file.
        known, known_in: the names of the truth, and their file.

    Raises:
        LabelError: they contradict each other.
    """
    problems = contradictions(said, known, "the predictions", "the truth")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise LabelError(
            "the names of predictions and truth contradict the values: "
            f"{'; '.join(problems[:3])}{more}. Predictions ({said_in}): {_table(said)}. "
            f"Truth ({known_in}): {_table(known)}. Structures are compared by value: "
            f"{_HOW_TO_STATE_NAMES}"
        )


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


def _names_within(place: Path) -> tuple[LabelSet, Path] | None:
    """The names in the headers of the masks; None if the first has none or others differ."""
    inside = sorted(place.iterdir()) if place.is_dir() else [place]
    masks = [path for path in inside if path.name.lower().endswith(NAMING)]
    spread = masks[:: max(1, len(masks) // FEW)]
    stated = [names_in(path) for path in spread]
    if not stated or not stated[0] or any(names != stated[0] for names in stated):
        return None
    return LabelSet.from_names(stated[0]), spread[0]


def _files_with_names(place: Path) -> Iterator[Path]:
    """Where names may be, in order of preference."""
    folder = place if place.is_dir() else place.parent
    yield folder / "predictions.json"
    yield folder / "dataset.json"  # nnU-Net writes it into the folder of its predictions
    yield from (folder / f"labels{ending}" for ending in _SUFFIXES)
    # Next to labelsTr, masks or Ground, that is, in the cohort's folder.
    if _MASK_FOLDER.fullmatch(folder.resolve().name):
        yield folder.parent / "dataset.json"
        yield from (folder.parent / f"labels{ending}" for ending in _SUFFIXES)
