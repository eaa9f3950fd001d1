"""Evaluate: predictions against truths, scored, drawn and written.

It pairs files and scores them (``evaluation``), and writes ``scores.csv`` (a row a case, structure
and metric), ``scores.json`` (summary, means under their full names, pooled values, what was left
out) and, of volumes, ``slices.csv``. On request cases are drawn (``reporting.side_by_side``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..cohorts.discovery.originals import originals
from ..core.atomic import make_folder, write_text
from ..core.errors import UsageError
from ..core.labels import LabelSet
from ..core.outputs import Originals
from ..core.progress import Progress, silent
from ..evaluation.declared import chooses_structures, declared_labels
from ..evaluation.pairing import Pairing, pair
from ..evaluation.scoring import SURFACES, EvaluationResult, score
from ..metrics.selection import GROUPS, MetricSelection
from ..metrics.surface import SurfaceSettings
from ..reporting.side_by_side import BEST, MEDIAN, WORST, draw_cases, draw_montages


def evaluate(
    prediction: str | Path,
    truth: str | Path,
    out: str | Path | None = None,
    *,
    labels: str | Path | LabelSet | None = None,
    like: str | Path | None = None,
    as_stack: bool | None = None,
    surfaces: SurfaceSettings | None = SURFACES,
    also: Sequence[str] = (),
    pictures: bool | int = False,
    montages: bool = False,
    images: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> EvaluationResult:
    """Score predictions against truths, paired by name.

    Args:
        prediction: a file, or a folder of files (or of slices).
        truth: a file, a folder, a ``manifest.jsonl`` or a cohort's folder, whose label mapping then
            applies.
        out: folder for ``scores.csv`` and ``scores.json``; None writes nothing.
        labels: names of the values (see ``read_label_names``); a YAML file chooses structures where
            ``truth`` is a cohort's folder. Else names are those of the cohort, or of
            ``predictions.json`` beside the predictions. Without any, every value of the truths is a
            structure; masks with one value on each side (0/63 against 0/255) are compared as the
            one structure "foreground", and so are pictures whose 0/255 masks have soft edges (cut
            at 128); the notes say so.
        like, as_stack: see ``evaluation.pairing.pair``.
        surfaces: which distances between surfaces to measure of each case (see
            ``metrics.surface``); None measures none.
        also: further groups of measures: "lesions", "centreline", "boundary" (see
            ``metrics.selection``).
        pictures: also draw source, truth and prediction of every case (True), or of at most so
            many, from the worst to the best, into ``out``/pictures. A case that cannot be drawn is
            told in the notes.
        montages: also draw the best, the median and the worst case in three planes into
            ``out``/montages, for the report.
        images: the scans to draw, a folder of files or of folders with the names of the cases, or
            one scan; None takes those of the cohort, and draws masks alone where there are none.
        workers, progress: see ``execution.local.run``.

    Raises:
        UsageError: pictures are wanted without ``out``, or ``images`` without pictures; a group of
            measures that there is not.
        InputError: a path does not exist, or no case could be scored (with the first reason).
        LayoutError: nothing pairs.
        LabelError: the values of predictions and truths do not agree and no names say more.
        OutputError: ``out`` cannot be written.
    """
    if (pictures or montages) and out is None:
        raise UsageError("pictures need a folder to stand in: give out (-o)")
    if images is not None and not (pictures or montages):
        raise UsageError("images are only drawn: give pictures (--pictures) too")
    unknown = sorted(set(also) - set(GROUPS))
    if unknown:
        raise UsageError(f"there are the groups {', '.join(GROUPS)}, not {', '.join(unknown)}")
    chosen = MetricSelection(surfaces, tuple(dict.fromkeys(also)))
    given = None if isinstance(labels, LabelSet) else labels
    chooses = (
        Path(labels) if isinstance(labels, str | Path) and chooses_structures(labels) else None
    )
    pairing = pair(prediction, truth, like=like, as_stack=as_stack, labels=chooses)
    if chooses is not None and pairing.manifest is not None and Path(truth).is_dir():
        # the file chose structures of the cohort, which numbered them anew: the manifest has them
        labels = None
    kept = _originals(pairing, [prediction, truth, given, like], images)
    if out is not None:
        kept.refuse(_targets(pairing, Path(out)))
    known, label_notes = declared_labels(labels, pairing, Path(prediction), Path(truth))
    evaluated, reading = score(
        pairing, known, label_notes, chosen, workers=workers, progress=progress
    )
    if out is None:
        return evaluated
    with kept.kept():
        write(evaluated, out)  # before anything is drawn: a picture never costs the scores
        if pictures or montages:
            about = (pairing, evaluated, reading)
            if pictures:
                drawn, gaps = draw_cases(
                    *about,
                    Path(out) / "pictures",
                    None if pictures is True else pictures,
                    images,
                    workers=workers,
                    progress=progress,
                )
                evaluated = replace(evaluated, pictures=drawn, notes=(*evaluated.notes, *gaps))
            if montages:
                evaluated = replace(
                    evaluated,
                    montages=draw_montages(
                        *about, Path(out) / "montages", images, workers=workers, progress=progress
                    ),
                )
            write(evaluated, out)
    return evaluated


def _originals(
    pairing: Pairing, given: Sequence[str | Path | None], images: str | Path | None
) -> Originals:
    """Every file that an evaluation reads; folders of masks stand for the files that were paired of
    them.
    """
    sources = [
        source.path
        for p in pairing.pairs
        for source in (p.prediction, p.truth)
        if source is not None
    ]
    cohorts = [p.cohort for p in pairing.pairs if p.cohort is not None] + (
        [] if pairing.manifest is None else [pairing.manifest]
    )
    beside = [Path(p.prediction.path).parent / "predictions.json" for p in pairing.pairs[:1]]
    files = [path for path in given if path is not None and not Path(path).is_dir()]
    return originals(cohorts, [*sources, *beside, *files, images])


def _targets(pairing: Pairing, out: Path) -> Iterator[Path]:
    """Every file that may be written."""
    yield from (out / name for name in ("scores.csv", "scores.json", "slices.csv", "report.html"))
    yield from (out / "montages" / f"{what}.png" for what in (BEST, MEDIAN, WORST))
    yield from (out / "pictures" / f"{p.case}.png" for p in pairing.pairs)


def write(evaluated: EvaluationResult, out: str | Path) -> None:
    """Write ``scores.csv``, ``scores.json`` and, of volumes, ``slices.csv`` into the folder
    ``out``.

    Raises:
        OutputError: it cannot be written.
    """
    folder = make_folder(out)
    write_text(folder / "scores.csv", evaluated.scores.to_csv())
    write_text(folder / "scores.json", evaluated.to_json())
    if evaluated.slices is not None:
        write_text(folder / "slices.csv", evaluated.slices.to_csv())
