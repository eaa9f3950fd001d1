"""The functions of the Python interface: reading, writing, and every command.

A command accepts its options as one dataclass, as keywords, or both: a keyword replaces the field
of the dataclass. The types of the keywords are in ``keywords``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, cast, overload

from ..commands.options import (
    AnyPath,
    CheckOptions,
    CompareOptions,
    DownloadOptions,
    EvaluateOptions,
    ExportSlicesOptions,
    MergeSlicesOptions,
    PlanOptions,
    PredictOptions,
    ReportOptions,
    TrainOptions,
    ViewOptions,
)
from ..core import atomic
from ..core import manifest as core_manifest
from ..core import volume as core
from ..core.errors import OutputError, UsageError
from ..core.plan import Plan
from ..core.prediction import Prediction as CorePrediction
from ..core.progress import Progress, Say, silent, unsaid
from ..formats import apart, files
from .keywords import (
    CheckKeywords,
    CompareKeywords,
    DownloadKeywords,
    EvaluateKeywords,
    ExportSlicesKeywords,
    MergeSlicesKeywords,
    PlanKeywords,
    PredictKeywords,
    ReportKeywords,
    TrainKeywords,
    ViewKeywords,
)
from .model import Model, load
from .prediction import Prediction
from .run import Run
from .volume import ImageLike, Volume

if TYPE_CHECKING:
    from ..commands.predict import PredictionReport
    from ..commands.slices.export_slices import SliceReport
    from ..commands.slices.merge_slices import MergeReport
    from ..core.bundle import Bundle
    from ..evaluation.comparing import Comparison
    from ..evaluation.scoring import EvaluationResult
    from .check_report import CheckReport

# Options of predict that say how a scan is segmented, not what is read and written.
IN_MEMORY = ("mirror", "coarse", "views", "samples", "maps", "seed", "probabilities")
OF_LOADING = ("device", "precision")
OF_READING = ("untrusted",)


def read(
    image: ImageLike,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    untrusted: bool = False,
) -> Volume:
    """Read a scan or a mask.

    Args:
        image: a file, a DICOM folder or a folder of slices (see ``formats.files.read``); or a
            volume, an image of nibabel or SimpleITK, or a pair (array, affine).
        spacing_mm: (column, row, slice) spacing of pictures, which store none.
        untrusted: read a file in a process with limits of memory and time, see ``ReadingOptions``.

    Raises:
        InputError: the file cannot be read. UsageError: ``image`` is something else.

    >>> read("ct.nii.gz")
    Volume(16x14x12 int16 a.u., 1x1.5x2 mm, LAS, ct.nii.gz)
    >>> read((np.zeros((4, 4, 2)), np.diag([2, 2, 5, 1]))).spacing_mm
    (2.0, 2.0, 5.0)
    """
    with apart.untrusted(untrusted):
        if spacing_mm is None:
            return Volume.of(image)
        if not isinstance(image, str | os.PathLike):
            raise UsageError("spacing_mm is for files that store no spacing")
        return Volume.of(files.read(Path(image), spacing_mm=spacing_mm))


def write(volume: core.Volume, path: AnyPath) -> None:
    """Write a volume; the ending of the name gives the format.

    Raises:
        OutputError: an unknown ending, or the file cannot be written.

    >>> write(read("ct.nii.gz").reorient("RPS"), "ct.nrrd")
    >>> read("ct.nrrd").grid.codes
    'RPS'
    """
    files.write(volume, path)


def check(
    data: AnyPath,
    out: AnyPath | None = None,
    options: CheckOptions = CheckOptions(),
    *,
    progress: Progress = silent,
    **keywords: Unpack[CheckKeywords],
) -> CheckReport:
    """Find and examine the cases of a folder: what is in it, what is wrong with it, and what can be
    repaired.

    Args:
        data: a folder of scans with or without masks, a manifest, or one scan.
        out: folder for ``manifest.jsonl`` and ``findings.json``; None writes nothing.
        options, keywords: see ``CheckOptions``.
        progress: see ``core.progress``.

    Raises:
        InputError, LayoutError, LabelError, UsageError: no cohort can be made of ``data``.
        OutputError: an output cannot be written.

    >>> report = check("cohort", workers=1)
    >>> report.cohort
    Cohort(5 cases of 5 patients: image; left part, right part)
    >>> [finding.kind for finding in report.findings if finding.severity == "error"]
    []
    """
    from ..commands import check as step
    from .check_report import CheckReport

    found = step.check(data, out, replace(options, **keywords), progress=progress)
    return CheckReport(**vars(found))


def plan(
    data: AnyPath | core_manifest.Manifest,
    out: AnyPath | None = None,
    options: PlanOptions = PlanOptions(),
    *,
    progress: Progress = silent,
    **keywords: Unpack[PlanKeywords],
) -> Plan:
    """Derive all settings of a training from the data and this machine, with the reason of each.

    Args:
        data: a folder of scans with masks, a manifest, or a ``Cohort``.
        out: a JSON file to edit and to train with (``plan=``); None writes nothing.
        options, keywords: see ``PlanOptions``.
        progress: see ``core.progress``.

    Raises:
        InputError, LayoutError, LabelError, UsageError: no plan can be made for ``data``.
        OutputError: ``out`` cannot be written.

    >>> found = plan("cohort", epochs=3, device="cpu")
    >>> found.spacing_mm, found.schedule.epochs
    ((1.0, 1.5, 2.0), 3)
    """
    from ..commands import plan as step

    return step.plan(data, out, replace(options, **keywords), progress=progress)


def train(
    data: AnyPath | core_manifest.Manifest,
    model: AnyPath,
    options: TrainOptions = TrainOptions(),
    *,
    say: Say = unsaid,
    progress: Progress = silent,
    **keywords: Unpack[TrainKeywords],
) -> Run:
    """Train a model: check, plan, prepare, train, evaluate and report. The same call after a kill
    continues.

    Args:
        data: a folder of scans with masks, a manifest, or a ``Cohort``, which is saved next to the
            model (``MODEL.cohort.jsonl``).
        model: the file to write; the run's folder is this name + ".run".
        options, keywords: see ``TrainOptions``.
        say: receives a sentence about each step, such as ``print``.
        progress: see ``core.progress``.

    Raises:
        UsageError, InputError, PlanError, TrainingError, OutputError: see their messages.

    A run that is finished is opened:

    >>> options = TrainOptions(plan="plan.json", split="split.json", device="cpu")
    >>> run = train("cohort", "liver.model", options, epochs=4)
    >>> run.scores.metrics[:2]
    ['dice', 'iou']
    """
    from ..commands.train import train as step

    chosen = replace(options, **keywords)
    if isinstance(data, core_manifest.Manifest):
        data = _saved(data, Path(model), chosen.overwrite)
    done = step.train(data, model, chosen, say=say, progress=progress)
    return Run(done.run, tuple(done.failures))


def _saved(cohort: core_manifest.Manifest, model: Path, overwrite: bool) -> Path:
    """The cohort as a file next to the model.

    Raises:
        OutputError: there is another one.
    """
    path, text = model.with_name(f"{model.name}.cohort.jsonl"), cohort.to_jsonl()
    if path.is_file() and path.read_text(encoding="utf-8") != text and not overwrite:
        raise OutputError(
            "holds another cohort; train with the same one, choose another model, or start from "
            "scratch with overwrite=True",
            path=path,
        )
    atomic.write_text(path, text)
    return path


@overload
def predict(
    model: AnyPath | Model,
    image: ImageLike,
    out: None = None,
    options: PredictOptions = PredictOptions(),
    *,
    say: Say = unsaid,
    progress: Progress = silent,
    **keywords: Unpack[PredictKeywords],
) -> Prediction: ...


@overload
def predict(
    model: AnyPath | Model,
    image: AnyPath | Sequence[AnyPath],
    out: AnyPath,
    options: PredictOptions = PredictOptions(),
    *,
    say: Say = unsaid,
    progress: Progress = silent,
    **keywords: Unpack[PredictKeywords],
) -> PredictionReport: ...


def predict(
    model: AnyPath | Model,
    image: ImageLike | Sequence[AnyPath],
    out: AnyPath | None = None,
    options: PredictOptions = PredictOptions(),
    *,
    say: Say = unsaid,
    progress: Progress = silent,
    **keywords: Unpack[PredictKeywords],
) -> Prediction | PredictionReport:
    """Segment one scan in memory, or files into a folder.

    Args:
        model: a model or its file. A model that is used again and again should be loaded once.
        image: without ``out`` one scan (see ``read``); with ``out`` files, DICOM folders, folders
            of cases or manifests.
        out: folder for ``CASE.nii.gz`` and ``predictions.json``.
        options, keywords: see ``PredictOptions``. Without ``out`` only those of ``Model.predict``,
            and the device and precision with which a file is loaded.
        say: receives a sentence about everything that is skipped or cannot be written.
        progress: see ``core.progress``.

    Returns:
        The prediction on exactly the scan's grid; with ``out`` a report with an outcome for every
        scan.

    Raises:
        InputError, BundleError, UsageError: nothing can be done.
        OutputError: an output would replace a file that is read.

    >>> predict("liver.model", "ct.nii.gz", device="cpu").shape
    (16, 14, 12)
    >>> done = predict("liver.model", ["ct.nii.gz"], "masks", device="cpu", form="nrrd")
    >>> [outcome.name for outcome in done.written], done.failures
    (['ct'], [])
    """
    chosen = replace(options, **keywords)
    if out is None:
        return _predicted(model, cast(ImageLike, image), chosen)
    from ..commands import predict as step

    given = [image] if isinstance(image, str | os.PathLike) else image
    if not isinstance(given, Sequence) or not all(isinstance(p, str | os.PathLike) for p in given):
        raise UsageError("files are predicted into a folder; a scan in memory needs no out")
    bundle: AnyPath | Bundle = model if isinstance(model, str | Path) else model.bundle
    paths = cast("Sequence[AnyPath]", given)
    return step.predict(bundle, paths, out, chosen, say=say, progress=progress)


def _predicted(model: AnyPath | Model, image: ImageLike, options: PredictOptions) -> Prediction:
    """One scan in memory.

    Raises:
        UsageError: an option that is only for files.
    """
    loading = () if isinstance(model, Model) else OF_LOADING
    allowed = (*IN_MEMORY, *OF_READING, *loading)
    changed = [one.name for one in fields(options) if getattr(options, one.name) != one.default]
    unused = [name for name in changed if name not in allowed]
    if unused:
        raise UsageError(
            f"without an output folder {', '.join(unused)} cannot be used; allowed are "
            f"{', '.join(allowed)}"
        )
    if not isinstance(model, Model):
        model = load(model, **{name: getattr(options, name) for name in loading})
    with apart.untrusted(options.untrusted):
        return model.predict(image, **{name: getattr(options, name) for name in IN_MEMORY})


def evaluate(
    prediction: ImageLike,
    truth: ImageLike,
    out: AnyPath | None = None,
    options: EvaluateOptions = EvaluateOptions(),
    *,
    progress: Progress = silent,
    **keywords: Unpack[EvaluateKeywords],
) -> EvaluationResult:
    """Score predictions against reference masks.

    Args:
        prediction: a file or a folder; or one mask in memory (see ``read``) or a ``Prediction``,
            whose structures then name the values.
        truth: a file, a folder, or a cohort or its manifest; or one mask in memory.
        out: folder for the scores and the report; None writes nothing.
        options, keywords: see ``EvaluateOptions``.
        progress: see ``core.progress``.

    Returns:
        A result with ``scores`` (case x structure x metric), ``summary``, ``means()``, the
        confusion matrix, failures and notes.

    Raises:
        UsageError: options that exclude each other. InputError: no case could be scored.
        LayoutError: no prediction has a truth. LabelError: values without a name.
        GeometryError: two masks in memory are not on the same grid.
        OutputError: ``out`` cannot be written.

    >>> mask = read("mask.nii.gz")
    >>> found = evaluate(mask, (mask.numpy(), mask.affine), labels={1: "left", 2: "right"})
    >>> found.scores.mean("dice"), found.scores.mean("hd95_mm")
    (1.0, 0.0)
    >>> evaluate("cohort/labels", "cohort", workers=1).scores.mean("dice")
    1.0
    """
    from ..commands import evaluate as step

    sides = (_side(prediction), _side(truth))
    return step.evaluate(*sides, out, replace(options, **keywords), progress=progress)


def _side(mask: ImageLike) -> str | Path | core.Volume | CorePrediction:
    if isinstance(mask, str | Path | CorePrediction):
        return mask
    return Path(mask) if isinstance(mask, os.PathLike) else Volume.of(mask)


def compare(
    runs: Sequence[AnyPath | Run],
    out: AnyPath | None = None,
    options: CompareOptions = CompareOptions(),
    **keywords: Unpack[CompareKeywords],
) -> Comparison:
    """Compare runs or evaluations case by case with the first one: differences with intervals,
    tests, effect sizes and ranks.

    Args:
        runs: two or more runs, models, evaluations, or files of scores.
        out: folder for the tables and the plots; None writes nothing.
        options, keywords: see ``CompareOptions``.

    Raises:
        UsageError: fewer than two runs, or an unknown metric.
        InputError: a run has no scores, or lacks a case. LabelError: other structures.
        OutputError: ``out`` cannot be written.

    >>> found = compare(["scores", "scores/scores.csv"], names=("one", "other"))
    >>> found.sentences[0]
    'other against one: on left part and right part there is no evidence of a difference ...'
    """
    from ..commands import compare as step

    paths = [run.folder if isinstance(run, Run) else run for run in runs]
    return step.compare(paths, out, replace(options, **keywords))


def export_slices(
    data: AnyPath | core_manifest.Manifest,
    out: AnyPath,
    options: ExportSlicesOptions = ExportSlicesOptions(),
    *,
    progress: Progress = silent,
    **keywords: Unpack[ExportSlicesKeywords],
) -> SliceReport:
    """Write every slice of a cohort as a 2-D file, with masks of the same names, an index and the
    geometry.

    Args:
        data: a folder of scans with or without masks, a manifest, or a ``Cohort``.
        out: a new or empty folder.
        options, keywords: see ``ExportSlicesOptions``.
        progress: see ``core.progress``.

    Returns:
        The exported cases, what was lost, and a sentence for each case that failed.

    Raises:
        InputError, LayoutError, LabelError: no case can be exported.
        UsageError: options out of range. OutputError: ``out`` cannot be written.

    >>> found = export_slices("cohort", "slices", views=("axial", "coronal"), masks="grey")
    >>> found.slices, found.failures, found.cases[0].views
    (130, (), ('axial', 'coronal'))
    """
    from ..commands.slices import export_slices as step

    return step.export_slices(data, out, replace(options, **keywords), progress=progress)


def merge_slices(
    slices: AnyPath,
    out: AnyPath,
    options: MergeSlicesOptions = MergeSlicesOptions(),
    *,
    progress: Progress = silent,
    **keywords: Unpack[MergeSlicesKeywords],
) -> MergeReport:
    """Rebuild the volumes of exported slices, or those of masks that were predicted on them.

    Args:
        slices: a folder of ``export_slices``.
        out: folder for the volumes.
        options, keywords: see ``MergeSlicesOptions``.
        progress: see ``core.progress``.

    Raises:
        InputError: no exported slices, or no case can be merged.
        UsageError: options out of range. OutputError: ``out`` cannot be written.

    >>> done = export_slices("cohort", "pictures")
    >>> merged = merge_slices("pictures", "volumes")
    >>> merged.written[0].name, merged.failures
    ('c0.nii.gz', ())
    """
    from ..commands.slices import merge_slices as step

    return step.merge_slices(slices, out, replace(options, **keywords), progress=progress)


def report(
    run: AnyPath | Run,
    out: AnyPath | None = None,
    options: ReportOptions = ReportOptions(),
    **keywords: Unpack[ReportKeywords],
) -> Path:
    """Write the report of a run or an evaluation: one HTML file that needs no other file.

    Args:
        run: the folder of a run or of an evaluation.
        out: the HTML file; None writes ``report.html`` to that folder.
        options, keywords: see ``ReportOptions``.

    Returns:
        The file written.

    Raises:
        InputError: no such folder, or a damaged file in it.
        UsageError: ``out`` has another ending than a page. OutputError: it cannot be written.

    >>> report("scores", "scores.html").name
    'scores.html'
    """
    from ..commands import report as step

    folder = run.folder if isinstance(run, Run) else run
    return step.report(folder, out, replace(options, **keywords))


def view(
    *paths: AnyPath | Run,
    options: ViewOptions = ViewOptions(),
    say: Say = print,
    **keywords: Unpack[ViewKeywords],
) -> None:
    """Show scans with their structures on a page that only this computer can open, until Ctrl-C.

    Args:
        paths: an image and its masks; or a run; or a manifest.
        options, keywords: see ``ViewOptions``.
        say: receives the address.

    Raises:
        UsageError: paths that do not belong together, or a port that cannot be used.
        InputError: nothing that can be shown.

    >>> view("ct.nii.gz", "no-mask.nii.gz")
    Traceback (most recent call last):
    delineate.core.errors.InputError: no-mask.nii.gz: does not exist
    """
    from ..commands import view as step

    places = [path.folder if isinstance(path, Run) else path for path in paths]
    step.view(places, replace(options, **keywords), say=say)


def download(
    name: str,
    out: AnyPath,
    options: DownloadOptions = DownloadOptions(),
    *,
    say: Say = unsaid,
    progress: Progress = silent,
    **keywords: Unpack[DownloadKeywords],
) -> list[Path]:
    """Download a public data set (resumable), check it and unpack it.

    Args:
        name: of the data set; ``delineate download --list`` shows all.
        out: folder for the unpacked files.
        options, keywords: see ``DownloadOptions``.
        say: receives the licence first, then a sentence about each step.
        progress: see ``core.progress``.

    Returns:
        The unpacked folders.

    Raises:
        UsageError: no such data set. InputError: the server cannot be reached.
        FormatError: a wrong checksum. OutputError: ``out`` cannot be written.

    >>> download("decathlon-hippocampus-2", "data")
    Traceback (most recent call last):
    delineate.core.errors.UsageError: no data set is called ...
    """
    from ..commands import trial_data as step

    return step.download(name, out, replace(options, **keywords), say=say, progress=progress)
