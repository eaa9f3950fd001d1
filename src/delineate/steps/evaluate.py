"""The evaluate step: predictions against truths, every figure with its definition.

It pairs files (``cohort.pairs``), counts each pair once (``metrics.overlap``), and writes ``scores.csv`` (a row a case,
structure and metric) and ``scores.json`` (summary, means under their full names, pooled values, what was left out).

Two means of one cohort can differ much, so each is always named: *pooled* is computed from the voxels of all cases
together, *mean per case* is the average of every case's own value. Of 2-D images and stacks of slices the words are
*pooled over all slices* and *mean per slice*.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..cohort.names import read_label_names
from ..cohort.pairs import Pair, Pairing, pair
from ..core.atomic import make_folder, write_text
from ..core.errors import DelineateError, GeometryError, InputError, LabelError
from ..core.labels import LabelSet
from ..core.scores import Score, Scores
from ..core.volume import Volume
from ..metrics import overlap
from ..metrics.overlap import MEASURES, Counts
from .words import decimals

if TYPE_CHECKING:
    from rich.table import Table

GRID_TOLERANCE_MM = 0.1
FOREGROUND = "foreground"
HALF = 128  # of 255: where the smoothed edge of a mask lies
SOFT_VALUES = 8  # more greys than this, up to 255, are no label values
BYTES_PER_SECOND = 3e5  # of compressed label maps, read and counted on one core


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found.

    Args:
        scores: case x structure x metric.
        pooled: structure -> metric -> value, from the sum of all cases' counts.
        labels: the structures.
        slices: the same of every slice, where a case is a stack of slices; None otherwise.
        patients: the same of every patient, pooled over the patient's cases, where patients have several; None otherwise.
        planar: every case is a 2-D image, so that a case is a slice.
        paired: (case, prediction, truth) paths.
        unpaired: "prediction without truth" and "truth without prediction" -> names.
        failures: name -> why it could not be scored, predictions without truth included.
        notes: what was assumed.
    """

    scores: Scores
    pooled: dict[str, dict[str, float]]
    labels: LabelSet
    slices: Scores | None = None
    patients: Scores | None = None
    planar: bool = False
    paired: tuple[tuple[str, str, str], ...] = ()
    unpaired: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 where every prediction was scored, else 1."""
        return 1 if self.failures else 0

    def means(self, metric: str = "dice") -> dict[str, float]:
        """Every mean of ``metric`` over the structures, under its full name, such as "dice_mean_per_slice"."""
        per_slice = self.scores if self.planar else self.slices
        found = {f"{metric}_pooled_over_all_{'slices' if per_slice else 'cases'}": _mean([m[metric] for m in self.pooled.values() if metric in m])}
        if not self.planar:
            found[f"{metric}_mean_per_case"] = self.scores.mean(metric)
        if per_slice is not None:
            found[f"{metric}_mean_per_slice"] = per_slice.mean(metric)
        if self.patients is not None:
            found[f"{metric}_mean_per_patient"] = self.patients.mean(metric)
        return found

    def to_json(self) -> str:
        """The text of ``scores.json``."""
        more: dict[str, Any] = {} if self.slices is None else {"slices": {"summary": self.slices.summary(), "rows": _plain(self.slices)}}
        if self.patients is not None:
            more["patients"] = {"summary": self.patients.summary(), "rows": _plain(self.patients)}
        means = {k: v for m in ("dice", "iou") for k, v in self.means(m).items()}
        return self.scores.to_json(
            means=means, pooled=self.pooled, labels=self.labels.to_json(), planar=self.planar,
            cases=[{"case": c, "prediction": p, "truth": t} for c, p, t in self.paired], unpaired={k: list(v) for k, v in self.unpaired.items()},
            failures=self.failures, notes=list(self.notes), definitions=definitions(), **more)  # fmt: skip


def evaluate(prediction: str | Path, truth: str | Path, out: str | Path | None = None, *, labels: str | Path | LabelSet | None = None,
             like: str | Path | None = None, as_stack: bool | None = None, workers: int | None = None,
             progress: Callable[..., None] | None = None) -> Evaluated:  # fmt: skip
    """Score predictions against truths, paired by name.

    Args:
        prediction: a file, or a folder of files (or of slices).
        truth: a file, a folder, a ``manifest.jsonl`` or a cohort's folder, whose label mapping then applies.
        out: folder for ``scores.csv`` and ``scores.json``; None writes nothing.
        labels: names of the values (see ``read_label_names``); a YAML file chooses structures where ``truth`` is a
            cohort's folder. Else names are those of the cohort, or of ``predictions.json`` beside the predictions. Without
            any, every value of the truths is a structure; masks with one value on each side (0/63 against 0/255) are
            compared as the one structure "foreground", and so are pictures whose 0/255 masks have soft edges (cut at
            128); the notes say so.
        like, as_stack: see ``cohort.pairs.pair``.
        workers, progress: see ``steps.batch.run``.

    Raises:
        InputError: a path does not exist, or no case could be scored (with the first reason).
        LayoutError: nothing pairs.
        LabelError: the values of predictions and truths do not agree and no names say more.
        OutputError: ``out`` cannot be written.
    """
    from .batch import run, workers_for

    chooses = Path(labels) if isinstance(labels, str | Path) and Path(labels).suffix.lower() in (".yaml", ".yml") else None
    pairing = pair(prediction, truth, like=like, as_stack=as_stack, labels=chooses)
    if chooses is not None and pairing.manifest is not None and Path(truth).is_dir():
        labels = pairing.manifest.labels  # the file chose structures of the cohort, which numbered them anew
    known, label_notes = _known_labels(labels, pairing, Path(prediction), Path(truth))
    function = functools.partial(count_pair, values=None if known is None else tuple(known.values))
    count = workers_for(_seconds(pairing), len(pairing.pairs)) if workers is None else workers
    outcomes = run(function, list(pairing.pairs), names=[p.case for p in pairing.pairs], workers=count, progress=progress)
    failures = {o.name: str(o.error) for o in outcomes if o.error is not None}
    counted = [o.value for o in outcomes if o.value is not None]
    if not counted:
        _give_up(outcomes)
    evaluated = _gather(counted, pairing, known, failures, label_notes)
    if out is not None:
        write(evaluated, out)
    return evaluated


def write(evaluated: Evaluated, out: str | Path) -> None:
    """Write ``scores.csv`` and ``scores.json`` into the folder ``out``.

    Raises:
        OutputError: it cannot be written.
    """
    folder = make_folder(out)
    write_text(folder / "scores.csv", evaluated.scores.to_csv())
    write_text(folder / "scores.json", evaluated.to_json())


def definitions() -> dict[str, str]:
    """Metric -> its definition in one sentence, as the report prints it."""
    return {name: " ".join((function.__doc__ or "").split()) for name, (_, function) in MEASURES.items()}


def table(evaluated: Evaluated) -> Table:
    """A table for the terminal: a row a structure, then the mean over structures."""
    from rich.table import Table

    unit = "slice" if evaluated.planar else "case"
    shown = Table(title=f"{len(evaluated.paired)} {unit}{'s' * (len(evaluated.paired) != 1)}", caption=_caption(evaluated))
    shown.add_column("structure")
    columns = ["n", "empty", f"Dice, mean per {unit}", "sd", "median", "min", "Dice, pooled", "IoU", "precision", "recall", "|volume error| %"]
    for name in columns:
        shown.add_column(name, justify="right")
    summary = {(s["label"], s["metric"]): s for s in evaluated.scores.summary()}
    for name in evaluated.labels.names:
        d = summary[name, "dice"]
        others = [summary[name, m]["mean"] for m in ("iou", "precision", "recall", "absolute_volume_difference_percent")]
        shown.add_row(name, str(d["n"]), str(d["undefined"]), *(decimals(d[k]) for k in ("mean", "std", "median", "min")),
                      decimals(evaluated.pooled[name]["dice"]), *map(decimals, others[:3]), decimals(others[3], 2))  # fmt: skip
    if len(evaluated.labels) > 1:
        shown.add_section()
        pooled = _mean([m["dice"] for m in evaluated.pooled.values()])
        shown.add_row("mean of structures", "", "", decimals(evaluated.scores.mean("dice")), "", "", "", decimals(pooled),
                      *(decimals(evaluated.scores.mean(m)) for m in ("iou", "precision", "recall")),
                      decimals(evaluated.scores.mean("absolute_volume_difference_percent"), 2))  # fmt: skip
    return shown


def _seconds(pairing: Pairing) -> float:
    """Roughly how long reading and counting takes in one process, from the size of the predictions."""
    files = [Path(p.prediction.path) for p in pairing.pairs]
    return sum(f.stat().st_size for f in files if f.is_file()) / BYTES_PER_SECOND + 0.01 * len(files)


# ---- one case ----


@dataclass(frozen=True)
class Counted:
    """One pair, counted.

    ``foreground`` holds the counts of one structure, prediction and truth each read as "above zero" (False) or as "at
    least half of 255" (True): which of them is right, only the whole cohort's values tell.
    """

    case: str
    patient: str
    counts: Counts
    predicted: tuple[int, ...]
    true: tuple[int, ...]
    foreground: dict[tuple[bool, bool], Counts] = field(default_factory=dict)
    slices: tuple[Counts, ...] = ()
    foreground_slices: tuple[dict[tuple[bool, bool], Counts], ...] = ()
    planar: bool = False
    notes: tuple[str, ...] = ()


def count_pair(item: Pair, values: tuple[int, ...] | None) -> Counted:
    """Read one pair and count it; ``values`` None counts whatever occurs.

    Raises:
        GeometryError: the two do not stand at the same place within 0.1 mm.
        LabelError: values that were not declared.
    """
    try:
        return _count_pair(item, values)
    except DelineateError as error:
        raise error.of_case(item.case) from error


def _count_pair(item: Pair, values: tuple[int, ...] | None) -> Counted:
    prediction, truth = _read_pair(item)
    _check_place(prediction, truth)
    p, t = _one_channel(prediction), _one_channel(truth)
    known_size = item.spacing_known and truth.meta.get("spacing_known", True)
    voxel_ml = truth.grid.voxel_ml if known_size else float("nan")
    notes: list[str] = []
    if values is not None and len(values) == 1:
        p = _as_structure(p, values[0], "prediction", notes)
        t = t if item.cohort is not None else _as_structure(t, values[0], "truth", notes)
    counts = overlap.count(p, t, values, voxel_ml)
    predicted, true = ([v for v, n in zip(counts.values, counts.tp + wrong, strict=True) if n] for wrong in (counts.fp, counts.fn))
    picture = not (_is_placed(prediction) and _is_placed(truth))
    readings: list[tuple[bool, bool]] = []
    if values is None:
        readings = [(a, b) for a in (False, True) for b in (False, True)] if picture or item.stacked else [(False, False)]
    planes = range(p.shape[2]) if item.stacked else ()
    return Counted(item.case, item.patient, counts, tuple(predicted), tuple(true), _foreground(p, t, readings, voxel_ml),
                   tuple(overlap.count(p[..., k], t[..., k], counts.values, voxel_ml) for k in planes),
                   tuple(_foreground(p[..., k], t[..., k], readings, voxel_ml) for k in planes), p.shape[2] == 1, tuple(notes))  # fmt: skip


def _foreground(p: NDArray[Any], t: NDArray[Any], readings: list[tuple[bool, bool]], voxel_ml: float) -> dict[tuple[bool, bool], Counts]:
    return {(a, b): overlap.count_foreground(p >= HALF if a else p, t >= HALF if b else t, voxel_ml) for a, b in readings}


def _read_pair(item: Pair) -> tuple[Volume, Volume]:
    from ..formats.files import read

    prediction = read(item.prediction)
    if item.cohort is not None:
        from ..cohort.cases import read_label

        return prediction, read_label(item.cohort.cases[0], item.cohort)
    assert item.truth is not None  # a pair has a truth or a cohort
    return prediction, read(item.truth)


def _check_place(prediction: Volume, truth: Volume) -> None:
    if prediction.grid.shape != truth.grid.shape:
        raise GeometryError(f"the prediction has {prediction.grid.shape} voxels, the truth {truth.grid.shape}", path=prediction.source or None)
    if not (_is_placed(prediction) and _is_placed(truth)):
        return  # plain pictures have no place: the number of pixels is all that can be compared
    distance = prediction.grid.distance_mm(truth.grid)
    if distance > GRID_TOLERANCE_MM:
        raise GeometryError(f"prediction and truth stand {distance:.2f} mm apart, allowed are {GRID_TOLERANCE_MM} mm; "
                            "the prediction must be on the truth's grid", path=prediction.source or None)  # fmt: skip


def _is_placed(volume: Volume) -> bool:
    return bool(volume.meta.get("place_known", volume.meta.get("spacing_known", True)))


def _is_soft(values: Collection[int]) -> bool:
    """Whether these are the greys of a 0/255 mask whose edges were smoothed, rather than label values."""
    return len(values) > SOFT_VALUES and max(values) == 255


def _one_channel(volume: Volume) -> NDArray[Any]:
    array = volume.array
    if array.ndim == 3:
        return array
    if array.shape[0] > 1 and not all(np.array_equal(array[0], c) for c in array[1:3]):
        raise LabelError(f"a mask has one channel, found {array.shape[0]} that differ", path=volume.source or None)
    first: NDArray[Any] = array[0]
    return first


def _as_structure(array: NDArray[Any], value: int, name: str, notes: list[str]) -> NDArray[Any]:
    """A mask whose only value is another one than that of the task's only structure, as that structure."""
    found = overlap.found_values(array)
    if _is_soft(found):
        notes.append(f"the {name} has {len(found)} grey values up to 255; values from {HALF} were taken as the only structure (value {value})")
        return np.where(array >= HALF, value, 0).astype(np.uint16)
    if len(found) != 1 or found[0] == value:
        return array
    notes.append(f"value {found[0]} of the {name} was taken as the only structure (value {value})")
    return np.where(array != 0, value, 0).astype(np.uint16)


# ---- all cases ----


def _known_labels(labels: str | Path | LabelSet | None, pairing: Pairing, pred: Path, true: Path) -> tuple[LabelSet | None, list[str]]:
    """The declared structures and where their names come from; None where nothing declares them."""
    if isinstance(labels, LabelSet):
        return labels, []
    if labels is not None:
        return read_label_names(labels), [f"structure names from {labels}"]
    beside = (pred if pred.is_dir() else pred.parent) / "predictions.json"
    said = read_label_names(beside) if beside.is_file() else None
    if pairing.manifest is not None and len(pairing.manifest.labels):
        mine = pairing.manifest.labels
        if said is not None and set(said.values) != set(mine.values):
            raise LabelError(f"the predictions hold the values {said.values} ({', '.join(said.names)}), the truth's are {mine.values} "
                             f"({', '.join(mine.names)})", path=beside)  # fmt: skip
        return mine, []
    if said is not None:
        return said, [f"structure names from {beside}"]
    dataset = true.parent / "dataset.json"  # beside labelsTr, in the layouts of the Decathlon and of nnU-Net
    if true.is_dir() and true.name.lower().startswith("labels") and dataset.is_file():
        return read_label_names(dataset), [f"structure names from {dataset}"]
    return None, []


def _gather(counted: list[Counted], pairing: Pairing, known: LabelSet | None, failures: dict[str, str], notes: list[str]) -> Evaluated:
    labels, rows, slices = _resolve(counted, known, notes)
    pooled_counts = overlap.pool(rows.values())
    sized = any(not np.isnan(c.truth_ml).any() for c in rows.values())
    metrics = [m for m in MEASURES if sized or MEASURES[m][0] != "ml"]
    if not sized:
        notes.append("voxel size unknown: no volumes in ml")
    patients: dict[str, list[Counts]] = {}
    for c in counted:
        patients.setdefault(c.patient, []).append(rows[c.case])
    grouped = "" not in patients and len(patients) < len(counted)
    failures |= dict.fromkeys(pairing.without_truth, "prediction without truth")
    done = {c.case for c in counted}
    return Evaluated(
        scores=_scores(rows, labels, metrics),
        pooled={name: {m: float(MEASURES[m][1](pooled_counts)[i]) for m in metrics} for i, name in enumerate(labels.names)},
        labels=labels,
        slices=_scores(slices, labels, metrics) if slices else None,
        patients=_scores({p: overlap.pool(c) for p, c in patients.items()}, labels, metrics) if grouped else None,
        planar=all(c.planar for c in counted),
        paired=tuple((p.case, p.prediction.path, _truth_path(p)) for p in pairing.pairs if p.case in done),
        unpaired={"prediction without truth": pairing.without_truth, "truth without prediction": pairing.without_prediction},
        failures=failures,
        notes=(*pairing.notes, *notes, *dict.fromkeys(note for c in counted for note in c.notes)),
    )


def _resolve(counted: list[Counted], known: LabelSet | None, notes: list[str]) -> tuple[LabelSet, dict[str, Counts], dict[str, Counts]]:
    """The structures, each case's counts of them, and each slice's."""
    predicted, true = ({v for c in counted for v in getattr(c, side)} for side in ("predicted", "true"))
    soft = _is_soft(predicted), _is_soft(true)
    one_each = all(is_soft or len(values) <= 1 for is_soft, values in zip(soft, (predicted, true), strict=True))
    if known is None and one_each and all(soft in c.foreground for c in counted):
        notes.extend(_foreground_notes(predicted, true, soft))
        slices = {f"{c.case}#{k:04d}": s[soft] for c in counted for k, s in enumerate(c.foreground_slices)}
        return LabelSet.from_names({1: FOREGROUND}), {c.case: c.foreground[soft] for c in counted}, slices
    stray = sorted(predicted - true) if known is None else []
    if stray:
        case = next(c.case for c in counted if stray[0] in c.predicted)
        raise LabelError(f"the predictions hold the values {stray}, which no truth has (the truths have {sorted(true)}); "
                         "name the structures (labels) if this is meant", case=case)  # fmt: skip
    labels = known if known is not None else LabelSet.from_names({v: f"label {v}" for v in true})
    slices = {f"{c.case}#{k:04d}": s.of(labels.values) for c in counted for k, s in enumerate(c.slices)}
    return labels, {c.case: c.counts.of(labels.values) for c in counted}, slices


def _foreground_notes(predicted: set[int], true: set[int], soft: tuple[bool, bool]) -> list[str]:
    notes = [f"the {name} have {len(values)} grey values up to 255: read as masks with soft edges, values from {HALF} are {FOREGROUND}"
             for name, values, is_soft in (("predictions", predicted, soft[0]), ("truths", true, soft[1])) if is_soft]  # fmt: skip
    if not any(soft) and predicted and true and predicted != true:
        notes.append(f"value {min(predicted)} of the predictions and {min(true)} of the truths were compared as one structure, {FOREGROUND}")
    return notes


def _scores(rows: dict[str, Counts], labels: LabelSet, metrics: list[str]) -> Scores:
    out = []
    for case, counts in rows.items():
        values = {m: MEASURES[m][1](counts) for m in metrics}
        out += [Score(case, name, m, float(values[m][i]), MEASURES[m][0]) for i, name in enumerate(labels.names) for m in metrics]
    return Scores(tuple(out))


def _truth_path(item: Pair) -> str:
    return item.truth.path if item.truth is not None else ", ".join(s.path for s in item.cohort.cases[0].label) if item.cohort else ""


def _give_up(outcomes: list[Any]) -> None:
    first = outcomes[0]
    more = f" (and {len(outcomes) - 1} more cases failed)" if len(outcomes) > 1 else ""
    if isinstance(first.error, DelineateError):
        first.error.message += more
        raise first.error
    raise InputError(f"{first.error}{more}", case=first.name)


def _plain(scores: Scores) -> list[dict[str, Any]]:
    return [{"case": r.case, "label": r.label, "metric": r.metric, "value": r.value, "unit": r.unit} for r in scores]


def _caption(evaluated: Evaluated) -> str:
    lines = [f"{name.replace('_', ' ')}: {decimals(value)}" for name, value in evaluated.means().items()]
    lines += [f"{what}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}" for what, names in evaluated.unpaired.items() if names]
    lines += [f"failed: {name}: {why}" for name, why in evaluated.failures.items() if why != "prediction without truth"]
    return "\n".join([*lines, *evaluated.notes])


def _mean(values: list[float]) -> float:
    kept = [v for v in values if np.isfinite(v)]
    return float(np.mean(kept)) if kept else float("nan")
