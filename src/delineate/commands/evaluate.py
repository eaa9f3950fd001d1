"""Evaluate: score predictions against reference masks, draw and write the results.

Files are paired and scored in ``evaluation``. This command writes ``scores.csv`` (one row per case,
structure and metric), ``scores.json`` (summary, means under their full names, pooled values, what
was left out) and, for volumes, ``slices.csv``. On request cases are drawn
(``reporting.side_by_side``).

Names of the label values come from ``labels``, else from the cohort, else from the
``predictions.json`` next to the predictions. Without any, every value of the truths is a structure;
masks with one value on each side (0/63 against 0/255) are compared as one structure "foreground",
and so are pictures whose 0/255 masks have soft edges (cut at 128). The notes report it.

A shard counts its pairs and keeps the counts in the folder; the call without ``--shard`` joins them
(``execution.kept``). What the values mean, every table and every picture are of all cases together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..cohorts.discovery.dicom_rules import DicomRules
from ..cohorts.discovery.names import read_label_names
from ..cohorts.discovery.originals import originals
from ..cohorts.discovery.structures import StructureSelection
from ..core.atomic import recording, remove_temporaries_of, write_text
from ..core.bundle import Bundle
from ..core.errors import UsageError
from ..core.labels import LabelSet
from ..core.manifest import Manifest
from ..core.outputs import Originals, refuse_foreign
from ..core.prediction import RECORD, Prediction
from ..core.progress import Progress, silent
from ..core.scores import Scores
from ..core.volume import Volume
from ..evaluation.counting import CaseCounts
from ..evaluation.declared import (
    Declared,
    chooses_structures,
    declared_labels,
    ignored_beside,
    renumbering,
)
from ..evaluation.masks import Reading
from ..evaluation.overlapping import may_overlap
from ..evaluation.pairing import Pairing, pair, pair_volumes, source_of
from ..evaluation.scoring import (
    WITHOUT_TRUTH,
    EvaluationResult,
    counted_cases,
    kept_counts,
    score,
    surface_choices,
)
from ..execution.executor import Work
from ..execution.local import Outcome
from ..extend.registers import RECIPES
from ..formats import files
from ..metrics.selection import MetricSelection
from ..reporting.side_by_side import BEST, MEDIAN, WORST, draw_cases, draw_montages
from .options import EvaluateOptions, ReportOptions, reads_images
from .report import report

WRITTEN = ("scores.csv", "scores.json", "slices.csv")  # the last one for volumes alone
Side = str | Path | Volume | Prediction  # what is compared with what


@reads_images
def evaluate(
    prediction: Side,
    truth: Side,
    out: str | Path | None = None,
    options: EvaluateOptions = EvaluateOptions(),
    *,
    progress: Progress = silent,
) -> EvaluationResult:
    """Score predictions against reference masks, paired by name.

    Args:
        prediction: a file, or a folder of files (or of slices); or a label map in memory, which is
            one case.
        truth: a file, a folder, or a cohort or its manifest, whose label mapping then applies; or a
            label map in memory.
        out: folder for the results and the report; None writes nothing.
        options: see ``commands.options``. The notes name cases that cannot be drawn.
        progress: see ``core.progress``.

    Returns:
        The result; for a shard one without scores, whose notes say what was counted.

    Raises:
        UsageError: options that exclude each other. PartError: an unknown metric.
        InputError: a path does not exist, or no case could be scored (with the first reason).
        LayoutError: no prediction has a truth.
        LabelError: the values of predictions and truths do not agree, and no names are known.
        OutputError: ``out`` cannot be written.
    """
    result = evaluate_cases(prediction, truth, out, options, progress=progress)
    if out is not None and options.report and options.work.shard.is_whole:
        # The page was checked with the other files.
        report(out, options=ReportOptions(overwrite=True))
    return result


def evaluate_cases(
    prediction: Side,
    truth: Side,
    out: str | Path | None,
    options: EvaluateOptions,
    *,
    most_pictures: int | None = None,
    progress: Progress = silent,
) -> EvaluationResult:
    """``evaluate`` without the page of the report; its three pictures are drawn.

    Args:
        most_pictures: draw at most so many cases, from the worst to the best.
    """
    _refuse_unfit(out, options)
    work = options.work
    _refuse_parts(prediction, truth, out, work)
    chosen = metric_selection(options)
    pairing, known, notes = _pairing(prediction, truth, options)
    if known is not None and may_overlap(known):
        known = LabelSet(known.labels, overlapping=True)
        pairing = pairing.of_overlapping(known)
    pairing = pairing.ignoring((*options.ignore, *_ignored_beside(truth)))
    given = (prediction, truth, options.labels, options.like, options.model)
    paths = [path for path in given if isinstance(path, str | Path)]
    kept = _originals(pairing, paths, options.images)
    targets = [] if out is None else list(_targets(pairing, Path(out), options))
    if out is not None:
        kept.refuse(targets)
        refuse_foreign(out, targets, options.overwrite)
    folder = None if out is None else Path(out)
    how: dict[str, Any] = {"work": work, "folder": folder, "workers": options.workers}
    if not work.shard.is_whole:
        with kept.kept():
            outcomes = counted_cases(pairing, known, chosen, **how, progress=progress)
        return _part(outcomes, pairing, work)
    result, reading = score(pairing, known, notes, chosen, **how, progress=progress)
    if folder is None or out is None:
        return result
    with kept.kept(), recording(out, targets, options.overwrite):
        # Scores are written before anything is drawn: a picture that fails costs no scores.
        write(result, out)
        if options.pictures or options.report:
            drawing = _Drawing(pairing, reading, Path(out), options, most_pictures, progress)
            result = drawing.added_to(result)
            write(result, out)
    kept_counts(folder).forget(work)
    return result


def _refuse_parts(prediction: Side, truth: Side, out: str | Path | None, work: Work) -> None:
    """Check that a shard has files to count, and a folder for the counts.

    Raises:
        UsageError: it has none.
    """
    if work.shard.is_whole:
        return
    if out is None:
        raise UsageError("--shard keeps its counts in the folder of the results: give it with -o")
    if not (isinstance(prediction, str | Path) and isinstance(truth, str | Path)):
        raise UsageError("--shard divides files, and a label map in memory is one case")


def _part(
    outcomes: Sequence[Outcome[CaseCounts]], pairing: Pairing, work: Work
) -> EvaluationResult:
    """The result of a shard."""
    failures = {o.name: str(o.error) for o in outcomes if o.error is not None}
    note = (
        f"{work.shard}: {len(outcomes) - len(failures)} of its {len(outcomes)} cases are counted; "
        "evaluate without --shard joins the counts of all shards"
    )
    alone = [name for name in pairing.without_truth if work.shard.has(name)]
    failures |= dict.fromkeys(alone, WITHOUT_TRUTH)
    return EvaluationResult(Scores(()), {}, LabelSet(()), failures=failures, notes=(note,))


def metric_selection(options: EvaluateOptions) -> MetricSelection:
    """What is measured in addition to the overlap.

    Raises:
        PartError: a metric is not registered. UsageError: an unknown definition of the surface.
    """
    surfaces = surface_choices(options.surface, options.percentile, options.tolerance_mm)
    return MetricSelection.of(surfaces, options.also)


def _refuse_unfit(out: str | Path | None, options: EvaluateOptions) -> None:
    if options.model is not None and options.labels is not None:
        raise UsageError("--model and --labels exclude each other: both state the structures")
    if options.pictures and out is None:
        raise UsageError("pictures need a folder for the results: give out (-o)")
    if options.images is not None and (out is None or not (options.pictures or options.report)):
        raise UsageError("images are used for pictures alone: give pictures (--pictures) too")


def _pairing(
    prediction: Side, truth: Side, options: EvaluateOptions
) -> tuple[Pairing, LabelSet | None, list[str]]:
    """The pairs, the structures if anything declares them, and notes."""
    found = _pairing_of_model if options.model is not None else _pairing_of_files
    if not (isinstance(prediction, str | Path) and isinstance(truth, str | Path)):
        pairing = pair_volumes(_volume(prediction), _volume(truth))
        declared = _in_memory(prediction, truth, options)
    else:
        pairing, declared = found(prediction, truth, options)
    return pairing.renumbered(declared.renumber), declared.labels, list(declared.notes)


def _pairing_of_files(
    prediction: str | Path, truth: str | Path, options: EvaluateOptions
) -> tuple[Pairing, Declared]:
    labels = _stated_labels(options)
    selects = isinstance(labels, str | Path) and chooses_structures(labels)
    selection = Path(labels) if selects and isinstance(labels, str | Path) else None
    pairing = pair(
        prediction,
        truth,
        like=options.like,
        as_stack=options.as_stack,
        labels=selection,
        rules=_rules(options),
    )
    if selects and pairing.manifest is not None and Path(truth).is_dir():
        # The file selected structures of the cohort, whose manifest now has the new numbers.
        labels = None
    return pairing, declared_labels(labels, pairing, Path(prediction), Path(truth))


def _pairing_of_model(
    prediction: str | Path, truth: str | Path, options: EvaluateOptions
) -> tuple[Pairing, Declared]:
    """With the structures of a model: those of a cohort are selected as for its training."""
    assert options.model is not None
    bundle = Bundle.load(options.model)
    labels = bundle.labels
    notes = (f"structures of the model {options.model}",)
    pairing = pair(
        prediction,
        truth,
        like=options.like,
        as_stack=options.as_stack,
        labels=partial(_as_trained, bundle),
        rules=_rules(options),
    )
    known = None
    if pairing.manifest is None:
        known = declared_labels(None, pairing, Path(prediction), Path(truth)).labels
    if known is None:
        return pairing, Declared(labels, notes)
    renumber = renumbering(labels, Path(options.model), known, Path(truth))
    return pairing, Declared(known if renumber else labels, notes, renumber)


def _as_trained(bundle: Bundle, manifest: Manifest) -> Manifest:
    """The cohort with the structures of a model: those that its recipe selects or merges, if they
    are the model's, else by name.
    """
    if bundle.plan.recipe in RECIPES.names():
        adapted = RECIPES[bundle.plan.recipe].adapt(manifest, False)
        if [(b.value, b.name) for b in adapted.labels] == [
            (b.value, b.name) for b in bundle.labels
        ]:
            return adapted
    selection = StructureSelection.of_labels(bundle.labels)
    labels, mapping = selection.apply(manifest.labels, manifest.mapping)
    return replace(manifest, labels=labels, mapping=mapping)


def _in_memory(prediction: Side, truth: Side, options: EvaluateOptions) -> Declared:
    """The structures of label maps: stated, or those that a ``Prediction`` on either side has.

    Raises:
        LabelError: both sides have structures that contradict each other.
    """
    if options.model is not None:
        return Declared(Bundle.load(options.model).labels)
    if (stated := _stated_labels(options)) is not None:
        return Declared(stated if isinstance(stated, LabelSet) else read_label_names(stated))
    found = [side.structures for side in (prediction, truth) if isinstance(side, Prediction)]
    here = Path("in memory")
    if len(found) == 2:
        return Declared(found[1], renumber=renumbering(found[0], here, found[1], here))
    return Declared(found[0] if found else None)


def _rules(options: EvaluateOptions) -> DicomRules:
    return DicomRules.of(options.fix_series, options.register_by)


def _stated_labels(options: EvaluateOptions) -> str | Path | LabelSet | None:
    given = options.labels
    return LabelSet.from_names(dict(given)) if isinstance(given, Mapping) else given


def _ignored_beside(truth: Side) -> tuple[int, ...]:
    return ignored_beside(Path(truth)) if isinstance(truth, str | Path) else ()


def _volume(side: Side) -> Volume:
    if isinstance(side, Prediction) and side.structures.overlapping:
        # One channel for each structure, as in a file with layers.
        masks = [side.structures.inside(side.labels.array, b) for b in side.structures]
        layers = side.labels.with_array(np.stack(masks).astype(np.uint8))
        names = dict(enumerate(side.structures.names, start=1))
        return replace(layers, meta=layers.meta | {"names": names})
    if isinstance(side, Prediction):
        return side.labels
    return side if isinstance(side, Volume) else files.read(Path(side))


@dataclass(frozen=True)
class _Drawing:
    """How the cases of an evaluation are drawn; see the arguments of ``evaluate_cases``."""

    pairing: Pairing
    reading: Reading | None
    out: Path
    options: EvaluateOptions
    most_pictures: int | None
    progress: Progress

    def added_to(self, result: EvaluationResult) -> EvaluationResult:
        """The result with its pictures and montages, and notes on those that could not be drawn."""
        images, workers = self.options.images, self.options.workers
        if self.options.pictures:
            drawn, gaps = draw_cases(
                self.pairing,
                result,
                self.reading,
                self.out / "pictures",
                self.most_pictures,
                images,
                workers=workers,
                progress=self.progress,
            )
            result = replace(result, pictures=drawn, notes=(*result.notes, *gaps))
        if self.options.report:
            shown = draw_montages(
                self.pairing,
                result,
                self.reading,
                self.out / "montages",
                images,
                workers=workers,
                progress=self.progress,
            )
            result = replace(result, montages=shown)
        return result


def _originals(
    pairing: Pairing, given: Sequence[str | Path], images: str | Path | None
) -> Originals:
    """Every file that an evaluation reads; of folders of masks, those that were paired."""
    sources = [
        path
        for p in pairing.pairs
        for mask in (p.prediction, p.truth)
        if mask is not None and (path := source_of(mask))
    ]
    cohorts = [p.cohort for p in pairing.pairs if p.cohort is not None] + (
        [] if pairing.manifest is None else [pairing.manifest]
    )
    first = source_of(pairing.pairs[0].prediction)
    beside = [Path(first).parent / RECORD] if first else []
    single = [path for path in given if not Path(path).is_dir()]
    return originals(cohorts, [*sources, *beside, *single, images])


def _targets(pairing: Pairing, out: Path, options: EvaluateOptions) -> Iterator[Path]:
    """Every file that may be written."""
    yield from (out / name for name in WRITTEN)
    if options.report:
        yield out / "report.html"
        yield from (out / "montages" / f"{what}.png" for what in (BEST, MEDIAN, WORST))
    if options.pictures:
        yield from (out / "pictures" / f"{p.case}.png" for p in pairing.pairs)


def write(evaluated: EvaluationResult, out: str | Path) -> None:
    """Write ``scores.csv``, ``scores.json`` and, for volumes, ``slices.csv`` to the folder
    ``out``.

    Raises:
        OutputError: it cannot be written.
    """
    table, data, slices = (Path(out) / name for name in WRITTEN)
    for path in (table, data, slices):
        remove_temporaries_of(path)
    write_text(table, evaluated.scores.to_csv())
    write_text(data, evaluated.to_json())
    if evaluated.slices is not None:
        write_text(slices, evaluated.slices.to_csv())
