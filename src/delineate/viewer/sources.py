"""What there is to show: an image with its masks, folders of both paired by name, a manifest, or
the scored cases of a run.

Everything that can be wrong without opening an image is refused here; images are read when a case's
turn comes. It knows no server and no page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..cohorts.discovery.names import read_label_names
from ..cohorts.reading import read_image, read_label
from ..core.errors import FormatError, InputError, LayoutError, UsageError
from ..core.labels import LabelSet
from ..core.manifest import Case, Manifest, Source
from ..core.volume import Volume
from ..evaluation.pairing import images_in, match_names
from ..formats import files
from .scenes import Mask, Scene, ViewerCase

NAMES = "predictions.json"  # beside predictions, says what their values mean
NOTHING = LabelSet(())


@dataclass(frozen=True)
class CaseList:
    """The cases that can be shown, in the order in which they come, under one title."""

    title: str
    entries: tuple[ViewerCase, ...]


def find(paths: Sequence[str | Path], labels: str | Path | None = None) -> CaseList:
    """What ``delineate view`` shows for ``paths``.

    Args:
        paths: one run's folder; one ``manifest.jsonl``, or the folder of a check that holds it; or
            an image and any number of masks, each a file or a folder. Folders of volumes are cases
            paired by name; folders of DICOM or of slices are one case, and bare slices take the
            image's geometry.
        labels: file of names for masks that are not said what they mean.

    Raises:
        UsageError: masks given with a run or manifest.
        InputError: a path does not exist, or holds nothing that can be shown.
    """
    places = [Path(p) for p in paths]
    for place in places:
        if not place.exists() and not (
            "#" in place.name and place.with_name(place.name.rpartition("#")[0]).exists()
        ):
            raise InputError("does not exist", path=place)
    first, masks = places[0], places[1:]
    run, cohort = is_run(first), first.is_file() and first.suffix == ".jsonl"
    if not run and (first / "manifest.jsonl").is_file():
        first, cohort = first / "manifest.jsonl", True
    if (run or cohort) and masks:
        raise UsageError(
            f"a {'run' if run else 'manifest'} knows its masks; give it alone", path=first
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


# ---- files ----


def _of_files(image: Path, masks: Sequence[Path], labels: LabelSet | None) -> CaseList:
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
    """One case an image; a mask's folder gives it the file of its name."""
    scans = {files.stem(path): path for path in images_in(images)}
    named = list(zip(_names(masks), masks, strict=True))
    found: dict[str, list[tuple[str, Path]]] = {case: [] for case in scans}
    for name, folder in named:
        if not folder.is_dir():
            raise UsageError(
                f"{images} holds several images, so a folder of masks is needed, found a file",
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
    scan = files.read(image)
    read = [
        Mask(name, _read_mask(path, image), labels or _said_beside(path)) for name, path in masks
    ]
    return Scene(files.stem(image.resolve()), scan, tuple(read))


def _read_mask(path: Path, image: Path) -> Volume:
    """The mask; a folder of bare slices takes the image's geometry."""
    bare = path.is_dir() and all(files.detect(p) in files.RASTER for p in images_in(path))
    return files.read(Source(str(path), like=str(image)) if bare else path)


def _said_beside(mask: Path) -> LabelSet:
    beside = mask.parent / NAMES
    return read_label_names(beside) if beside.is_file() else NOTHING


def _names(masks: Sequence[Path], image: str = "") -> list[str]:
    """Names that tell the masks apart: the file's or folder's own, with as much of the folders
    above as that needs; masks named like the image are called by their folder."""
    parts = [[*p.resolve().parts[1:-1], files.stem(p.resolve())] for p in masks]
    if len(parts) > 1 and all(len(p) > 1 and p[-1] == image for p in parts):
        parts = [p[:-1] for p in parts]
    depth = 1
    while len({"/".join(p[-depth:]) for p in parts}) < len(parts) and depth < max(
        map(len, parts), default=0
    ):
        depth += 1
    short = ["/".join(p[-depth:]) for p in parts]
    return [
        f"{name} ({n})" if short.count(name) > 1 else name for n, name in enumerate(short, start=1)
    ]


def _holds_volumes(path: Path) -> bool:
    """Whether a folder holds volumes of their own, rather than one DICOM series or one stack of
    slices.
    """
    if not path.is_dir():
        return False
    kinds = {files.detect(p) for p in images_in(path)}
    return bool(kinds) and not kinds & {"DICOM", *files.RASTER}


# ---- manifests and runs ----


def is_run(path: Path) -> bool:
    """Whether ``path`` is the folder of a training's run, finished or not."""
    return (
        path.is_dir()
        and (path / "manifest.jsonl").is_file()
        and ((path / "request.json").is_file() or _scored(path) is not None)
    )


def scored_cases(run: str | Path, labels: LabelSet | None = None) -> CaseList:
    """The cases that a run scored, with truth and prediction, the lowest mean Dice first.

    Args:
        run: MODEL.run, with manifest.jsonl and, under test/ or else validation/, scores.json and
            predictions/.
        labels: names instead of the manifest's.

    Raises:
        InputError: no run, nothing scored yet, or a damaged file.
    """
    folder = Path(run)
    if not (folder / "manifest.jsonl").is_file():
        raise InputError("is no run: a run's folder, MODEL.run, holds manifest.jsonl", path=folder)
    part = _scored(folder)
    if part is None:
        raise InputError(
            "holds no scores yet, neither in test/ nor in validation/; they are there when the "
            "training has ended",
            path=folder,
        )
    manifest, dice = Manifest.load(folder / "manifest.jsonl"), _dice(part / "scores.json")
    known = {case.id for case in manifest}
    ranked = sorted((case for case in dice if case in known), key=lambda case: _mean(dice[case]))
    if not ranked:
        raise InputError("names no case of the run's manifest.jsonl", path=part / "scores.json")
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
    return next(
        (run / part for part in ("test", "validation") if (run / part / "scores.json").is_file()),
        None,
    )


def _of_manifest(path: Path, labels: LabelSet | None) -> CaseList:
    manifest = Manifest.load(path)
    if not manifest.cases:
        raise InputError("holds no case", path=path)
    entries = [
        ViewerCase(case.id, partial(_read_case, manifest, case, labels)) for case in manifest
    ]
    return CaseList(Path(manifest.root).name or path.resolve().parent.name, tuple(entries))


def _read_case(manifest: Manifest, case: Case, labels: LabelSet | None) -> Scene:
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
    found = sorted(p for p in predictions.glob("*") if p.is_file() and files.stem(p) == case.id)
    if not found:
        raise FormatError("its prediction is not in the run", path=predictions).of_case(case.id)
    scene = _read_case(manifest, case, labels)
    prediction = Mask("prediction", files.read(found[0]), labels or manifest.labels, dice)
    return replace(scene, masks=(*scene.masks, prediction), note=_note(dice))


def _image_of(manifest: Manifest, case: Case) -> Volume:
    """The scan; of a CT whose format states no unit the manifest does."""
    image = read_image(case, manifest)
    unit = "HU" if manifest.modality == "CT" and len(manifest.channels) == 1 else image.unit
    return replace(image, unit=unit, meta={**image.meta, "channels": manifest.channels})


def _dice(path: Path) -> dict[str, dict[str, float]]:
    """Case -> structure -> Dice, NaN where it is not defined."""
    out: dict[str, dict[str, float]] = {}
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for row in data["rows"]:
            if row["metric"] == "dice":
                out.setdefault(row["case"], {})[row["label"]] = (
                    float("nan") if row["value"] is None else float(row["value"])
                )
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"is not the scores.json of an evaluation ({type(error).__name__}: {error})", path=path
        ) from error
    return out


def _mean(dice: dict[str, float]) -> float:
    """Mean of the structures where it is defined; cases without any come last."""
    values = [v for v in dice.values() if np.isfinite(v)]
    return float(np.mean(values)) if values else float("inf")


def _note(dice: dict[str, float]) -> str:
    mean = _mean(dice)
    return f"Dice {mean:.3f}" if np.isfinite(mean) else "Dice undefined"
