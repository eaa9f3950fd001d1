"""Finds the cases to show: an image with its masks, folders of images and masks paired by name, a
manifest, or the scored cases of a run.

Errors that are visible without opening an image are raised here. Images are read later, when their
case is shown. The module knows no server and no page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..cohorts.discovery.names import read_label_names
from ..cohorts.reading import read_image, read_label
from ..core.bundle import Bundle
from ..core.errors import FormatError, InputError, LayoutError, UsageError
from ..core.inputs import read_json
from ..core.labels import LabelSet
from ..core.manifest import Case, Manifest, Source
from ..core.prediction import MAPS, RECORD
from ..core.volume import Volume
from ..evaluation.overlapping import prediction_codes
from ..evaluation.pairing import images_in, masks_in, match_names
from ..formats import files
from ..formats.label_files import as_codes, dicom_labels_in, labels_of, read_label_file
from .scenes import Mask, Scene, ViewerCase, banded

NAMES = RECORD  # file next to predictions that names their label values
NOTHING = LabelSet(())


@dataclass(frozen=True)
class CaseList:
    """The cases to show, in order, and the title of the page."""

    title: str
    entries: tuple[ViewerCase, ...]


def find(paths: Sequence[str | Path], labels: str | Path | None = None) -> CaseList:
    """The cases that ``delineate view`` shows for ``paths``.

    Args:
        paths: the folder of one run, or its model; one ``manifest.jsonl``, or the folder of a check
            that holds it; or an image and any number of masks, each a file or a folder. In folders
            of volumes, images and masks are paired by name. A folder of DICOM files or of slices is
            one case; slices without geometry take that of the image. A map that ``predict --maps``
            wrote (in a folder ``entropy`` or ``sd``) is shown in bands.
        labels: a file with names for the label values; None uses the names stored with the masks.

    Raises:
        UsageError: masks are given in addition to a run or manifest.
        InputError: a path does not exist, holds nothing that can be shown, or is a model without
            its run.
    """
    places = [Path(p) for p in paths]
    for place in places:
        # "FILE#PART" names a part of a file, so the file itself must exist.
        if not place.exists() and not (
            "#" in place.name and place.with_name(place.name.rpartition("#")[0]).exists()
        ):
            raise InputError("does not exist", path=place)
    first, masks = _run_of_model(places[0]), places[1:]
    run, cohort = is_run(first), first.is_file() and first.suffix == ".jsonl"
    if not run and (first / "manifest.jsonl").is_file():
        first, cohort = first / "manifest.jsonl", True
    if (run or cohort) and masks:
        raise UsageError(
            f"a {'run' if run else 'manifest'} already names its masks; give no other masks",
            path=first,
        )
    named = None if labels is None else read_label_names(labels)
    if run:
        return scored_cases(first, named)
    if cohort:
        return _of_manifest(first, named)
    return (
        _of_folders(first, masks, named)
        if _holds_volumes(first)
        else _of_files(first, masks, named)
    )


def _run_of_model(path: Path) -> Path:
    """The folder of the run next to a model; another path is returned as it is."""
    if not Bundle.is_bundle(path):
        return path
    run = path.with_name(f"{path.name}.run")
    if not is_run(run):
        raise InputError(
            f"is a model; its scored cases are shown from its run {run.name}, which is not next "
            "to it; give a scan and its masks instead",
            path=path,
        )
    return run


# ---- files ----


def _of_files(image: Path, masks: Sequence[Path], labels: LabelSet | None) -> CaseList:
    """A list of one case: an image and its masks."""
    entry = ViewerCase(
        files.stem(image.resolve()),
        partial(
            _read_files,
            image,
            list(zip(_names(masks, files.stem(image.resolve())), masks, strict=True)),
            labels,
        ),
    )
    return CaseList(entry.id, (entry,))


def _of_folders(images: Path, masks: Sequence[Path], labels: LabelSet | None) -> CaseList:
    """One case per image; each folder of masks contributes the file with the image's name.

    Images without any mask are left out, unless no masks are given at all.
    """
    scans = {files.stem(path): path for path in images_in(images)}
    named = list(zip(_names(masks), masks, strict=True))
    found: dict[str, list[tuple[str, Path]]] = {case: [] for case in scans}
    for name, folder in named:
        if not folder.is_dir():
            raise UsageError(
                f"{images} is a folder of images, so masks must be a folder too; found a file",
                path=folder,
            )
        drawn = {files.stem(path): path for path in images_in(folder)}
        pairs = match_names(list(scans), list(drawn))
        if not pairs:
            raise LayoutError(f"no mask has the name of an image in {images}", path=folder)
        for case, mask in pairs.items():
            found[case].append((name, drawn[mask]))
    entries = [
        ViewerCase(case, partial(_read_files, path, found[case], labels))
        for case, path in scans.items()
        if found[case] or not masks
    ]
    return CaseList(images.resolve().name, tuple(entries))


def _read_files(image: Path, masks: Sequence[tuple[str, Path]], labels: LabelSet | None) -> Scene:
    """Read an image and its (name, path) masks."""
    scan = files.read(image)
    read = [
        _read_mask(name, path, image, labels)
        if path.parent.name not in MAPS
        else banded(name, files.read(path), MAPS[path.parent.name])
        for name, path in masks
    ]
    return Scene(files.stem(image.resolve()), scan, tuple(read))


def _read_mask(name: str, path: Path, image: Path, labels: LabelSet | None) -> Mask:
    """Read a mask; a folder of slices without geometry takes that of the image, and DICOM labels
    are put on its grid.
    """
    if dicom_labels_in(path):
        volume = as_codes(read_label_file(Source(str(path), like=str(image))))
        return Mask(name, volume, labels or labels_of(volume) or NOTHING)
    bare = path.is_dir() and all(files.detect(p) in files.RASTER for p in images_in(path))
    volume = files.read(Source(str(path), like=str(image)) if bare else path)
    return Mask(name, volume, labels or _said_beside(path))


def _said_beside(mask: Path) -> LabelSet:
    """The labels in the file ``NAMES`` next to ``mask``; none if there is no such file."""
    beside = mask.parent / NAMES
    return read_label_names(beside) if beside.is_file() else NOTHING


def _names(masks: Sequence[Path], image: str = "") -> list[str]:
    """A different name for each mask.

    It is the name of the file or folder, with as many parent folders as are needed to make it
    unique. Masks that have the image's name are named after their folder.
    """
    parts = [[*p.resolve().parts[1:-1], files.stem(p.resolve())] for p in masks]
    if len(parts) > 1 and all(len(p) > 1 and p[-1] == image for p in parts):
        parts = [p[:-1] for p in parts]
    depth = 1
    while len({"/".join(p[-depth:]) for p in parts}) < len(parts) and depth < max(
        map(len, parts), default=0
    ):
        depth += 1
    # Identical paths cannot be made unique: they are numbered.
    short = ["/".join(p[-depth:]) for p in parts]
    return [
        f"{name} ({n})" if short.count(name) > 1 else name for n, name in enumerate(short, start=1)
    ]


def _holds_volumes(path: Path) -> bool:
    """Whether a folder holds separate volumes, not one DICOM series or one stack of slices."""
    if not path.is_dir():
        return False
    kinds = {files.detect(p) for p in images_in(path)}
    return bool(kinds) and not kinds & {"DICOM", *files.RASTER}


# ---- manifests and runs ----


def is_run(path: Path) -> bool:
    """Whether ``path`` is the folder of a training run, finished or not."""
    return (
        path.is_dir()
        and (path / "manifest.jsonl").is_file()
        and ((path / "request.json").is_file() or _scored(path) is not None)
    )


def scored_cases(run: str | Path, labels: LabelSet | None = None) -> CaseList:
    """The scored cases of a run, with truth and prediction, lowest mean Dice first.

    Args:
        run: MODEL.run, with manifest.jsonl and, in test/ or else in validation/, scores.json and
            predictions/.
        labels: names used instead of those in the manifest.

    Raises:
        InputError: the folder is not a run, it has no scores yet, or a file is damaged.
    """
    folder = Path(run)
    if not (folder / "manifest.jsonl").is_file():
        raise InputError(
            "is not a run: the folder of a run, MODEL.run, holds manifest.jsonl", path=folder
        )
    part = _scored(folder)
    if part is None:
        raise InputError(
            "holds no scores yet, neither in test/ nor in validation/; they are written at the end "
            "of the training",
            path=folder,
        )
    manifest, dice = Manifest.load(folder / "manifest.jsonl"), _dice(part / "scores.json")
    known = {case.id for case in manifest}
    ranked = sorted((case for case in dice if case in known), key=lambda case: _mean(dice[case]))
    if not ranked:
        raise InputError("has no case of the run's manifest.jsonl", path=part / "scores.json")
    entries = [
        ViewerCase(
            case,
            partial(
                _read_scored,
                manifest,
                manifest.named(case),
                part / "predictions",
                dice[case],
                labels,
            ),
            _note(dice[case]),
        )
        for case in ranked
    ]
    return CaseList(f"{folder.resolve().name}, {part.name} cases", tuple(entries))


def _scored(run: Path) -> Path | None:
    """The folder with the run's scores: test/, else validation/; None if there are none."""
    return next(
        (run / part for part in ("test", "validation") if (run / part / "scores.json").is_file()),
        None,
    )


def _of_manifest(path: Path, labels: LabelSet | None) -> CaseList:
    """All cases of a manifest, with their truth."""
    manifest = Manifest.load(path)
    if not manifest.cases:
        raise InputError("holds no case", path=path)
    entries = [
        ViewerCase(case.id, partial(_read_case, manifest, case, labels)) for case in manifest
    ]
    return CaseList(Path(manifest.root).name or path.resolve().parent.name, tuple(entries))


def _read_case(manifest: Manifest, case: Case, labels: LabelSet | None) -> Scene:
    """Read a case of a manifest, with its truth if it has one."""
    image = _image_of(manifest, case)
    truth = (
        [Mask("truth", read_label(case, manifest, image.grid), labels or manifest.labels)]
        if case.label
        else []
    )
    return Scene(case.id, image, tuple(truth))


def _read_scored(
    manifest: Manifest,
    case: Case,
    predictions: Path,
    dice: dict[str, float],
    labels: LabelSet | None,
) -> Scene:
    """Read a case of a run, with truth and prediction.

    Raises:
        FormatError: the prediction is missing.
    """
    masks = masks_in(predictions) if predictions.is_dir() else []
    found = sorted(p for p in masks if files.stem(p) == case.id)
    if not found:
        raise FormatError("its prediction is not in the run", path=predictions).of_case(case.id)
    scene = _read_case(manifest, case, labels)
    own = manifest.labels
    if own.overlapping:
        volume = prediction_codes(Source(str(found[0])), own, manifest)
    else:
        volume = files.read(found[0])
    prediction = Mask("prediction", volume, labels or own, dice)
    return replace(scene, masks=(*scene.masks, prediction), note=_note(dice))


def _image_of(manifest: Manifest, case: Case) -> Volume:
    """Read the scan; a CT whose format has no unit gets HU from the manifest's modality."""
    image = read_image(case, manifest)
    unit = "HU" if manifest.modality == "CT" and len(manifest.channels) == 1 else image.unit
    return replace(image, unit=unit, meta={**image.meta, "channels": manifest.channels})


def _dice(path: Path) -> dict[str, dict[str, float]]:
    """Case -> structure -> Dice, NaN if it is undefined."""
    out: dict[str, dict[str, float]] = {}
    try:
        for row in read_json(path)["rows"]:
            if row["metric"] == "dice":
                out.setdefault(row["case"], {})[row["label"]] = (
                    float("nan") if row["value"] is None else float(row["value"])
                )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"is not the scores.json of an evaluation ({type(error).__name__}: {error})", path=path
        ) from error
    return out


def _mean(dice: dict[str, float]) -> float:
    """Mean Dice over the structures with a defined Dice; infinite (ranked last) without any."""
    values = [v for v in dice.values() if np.isfinite(v)]
    return float(np.mean(values)) if values else float("inf")


def _note(dice: dict[str, float]) -> str:
    mean = _mean(dice)
    return f"Dice {mean:.3f}" if np.isfinite(mean) else "Dice undefined"
