"""What the values of predictions and truths mean, from the names on both sides; names that
contradict the values are refused.

Masks hold values, people mean structures. Where both sides name their values and one value has two
names, or one structure two values, comparing by value would score one structure as another.
Spelling, case and the order of words make no difference (``core.terms``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..cohorts.discovery.names import read_label_names
from ..cohorts.discovery.structures import read_yaml
from ..core.errors import LabelError
from ..core.labels import LabelSet
from ..core.terms import contradictions, names_structure
from .pairing import Pairing

_SUFFIXES = (".csv", ".tsv", ".yaml", ".yml", ".json")
_OF_MASKS = re.compile(
    r"(?i)(labels?|masks?|seg(mentation)?s?|truths?|gts?|ground([ _-]?truths?)?|annotations?"
    r"|manual)"
    r"([ _-]?(tr|ts|train|test|val|\d+))?"
)
_STATE = (
    "say what the values mean on both sides with --labels FILE (lines such as '1: liver'), or "
    "number the truth's structures as the "
    "predictions have them with a YAML file of lines such as 'liver: NAME IN THE TRUTH', in the "
    "order of the predictions' values"
)


def chooses_structures(path: str | Path) -> bool:
    """Whether a ``--labels`` file is YAML that chooses structures by name, rather than one that
    names values.
    """
    if Path(path).suffix.lower() not in (".yaml", ".yml"):
        return False
    data = read_yaml(path)
    inner = data.get("labels", data) if isinstance(data, dict) else data
    return isinstance(inner, dict) and not all(str(key).strip().isdigit() for key in inner)


def declared_labels(
    stated: str | Path | LabelSet | None, pairing: Pairing, pred: Path, true: Path
) -> tuple[LabelSet | None, list[str]]:
    """The structures that something declares, and where their names come from; None where nothing
    does.

    Args:
        stated: what the user says of both sides: it stands above all names. None, or what was
            chosen of the truth, is held against the predictions'.
        pairing: what pairs; its manifest declares the truth's structures.
        pred, true: the two sides, a file or a folder each.

    Raises:
        LabelError: the names of both sides contradict the values; both tables are in the message.
    """
    if isinstance(stated, LabelSet):
        return stated, []
    if stated is not None:
        return read_label_names(stated), [f"structure names from {stated}"]
    said, said_in = _named_beside(pred)
    if pairing.manifest is not None and len(pairing.manifest.labels):
        mine = pairing.manifest.labels
        if said is None:
            return mine, []
        if set(said.values) != set(mine.values):
            raise LabelError(
                f"the predictions hold the values {said.values} ({', '.join(said.names)}), the "
                f"truth's are {mine.values} ({', '.join(mine.names)}); {_STATE}",
                path=said_in,
            )
        refuse_contradiction(said, said_in, mine, true)
        return (
            (mine, [])
            if any(names_structure(name) for name in mine.names)
            else (said, [f"structure names from {said_in}"])
        )
    known, known_in = _named_beside(true)
    if said is not None and known is not None:
        refuse_contradiction(said, said_in, known, known_in)
    if said is not None:
        return said, [f"structure names from {said_in}"]
    return known, [f"structure names from {known_in}"] if known is not None else []


def refuse_contradiction(said: LabelSet, said_in: Path, known: LabelSet, known_in: Path) -> None:
    """Refuse two tables in which a value means two structures, or a structure has two values.

    Raises:
        LabelError: they contradict each other.
    """
    problems = contradictions(said, known, "the predictions", "the truth")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise LabelError(
            "the names of predictions and truth contradict the values: "
            f"{'; '.join(problems[:3])}{more}. Predictions ({said_in}): {_table(said)}. "
            f"Truth ({known_in}): {_table(known)}. Structures are compared by value, so {_STATE}"
        )


def _table(labels: LabelSet) -> str:
    return ", ".join(f"{label.value} {label.name}" for label in labels)


def _named_beside(place: Path) -> tuple[LabelSet | None, Path]:
    """The names of the values in a file or folder of masks, from the first file beside them that
    has some, and that file.
    """
    for path in _beside(place):
        if path.is_file():
            return read_label_names(path), path
    return None, place


def _beside(place: Path) -> Iterator[Path]:
    folder = place if place.is_dir() else place.parent
    yield folder / "predictions.json"
    yield folder / "dataset.json"  # nnU-Net leaves it among its predictions
    yield from (folder / f"labels{ending}" for ending in _SUFFIXES)
    # Beside labelsTr, masks, Ground: in the folder of the cohort.
    if _OF_MASKS.fullmatch(folder.resolve().name):
        yield folder.parent / "dataset.json"
        yield from (folder.parent / f"labels{ending}" for ending in _SUFFIXES)
