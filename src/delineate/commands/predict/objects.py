"""The DICOM objects of a prediction. Each kind is one entry of ``KINDS``, and its file is
``OUT/CASE.KIND.dcm``.

All of them refer to the series that the scan is, and are new series of its study (see
``formats.dicom.source.SourceSeries.number_of``).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import __version__
from ...core.errors import DelineateError, InputError, OutputError, UsageError
from ...core.labels import Label, LabelSet
from ...core.manifest import ABSENT, Case
from ...core.prediction import MAPS, Prediction
from ...core.terms import Code
from ...core.volume import Volume
from ...extras import require_extra
from ...formats import files
from ...metrics.diameters import diameters
from ..options import LabelObjectOptions

if TYPE_CHECKING:
    from ...formats.dicom import Series, SourceSeries
    from ...formats.dicom.seg import SegEncoding
    from ...reporting.pictures import Heat

NO_SERIES = "a DICOM object of a prediction needs a scan that is one DICOM series"
PROBABILITY = Code("122157", "Probability", "DCM")
# Map -> its explanation.
UNCERTAINTY = {
    "entropy": "Entropy (nats) of the mean probabilities of samples",
    "sd": "Standard deviation of the probabilities of samples",
}
MOST_UNCERTAIN = 3  # slices for review by a map of uncertainty


@dataclass(frozen=True)
class Result:
    """What the objects of a scan are made of.

    Args:
        prediction: the labels, with maps and probabilities if there are any.
        series: of the scan.
        scan: reads the scan, whose first channel is that series.
        flags: what is implausible, see ``trust.plausibility``.
        encoding: of the segmentation; None is the default.
        smallest_mm2: contours of a smaller area are left out of the structure set.
    """

    prediction: Prediction
    series: SourceSeries
    scan: Callable[[], Volume]
    flags: Sequence[Mapping[str, Any]] = ()
    encoding: SegEncoding | None = None
    smallest_mm2: float = 0.0

    @property
    def algorithm(self) -> dict[str, Any]:
        return _algorithm(self.prediction.bundle_id)

    @property
    def masks(self) -> tuple[Volume, LabelSet, SourceSeries]:
        return self.prediction.labels, self.prediction.structures, self.series


@dataclass(frozen=True)
class ObjectKind:
    """A kind of object.

    Args:
        entry: its name in ``predictions.json``.
        write: writes the file, and returns notes about it besides those on the series.
        after: the kind to whose file next to it the object refers.
        by_highdicom: whether highdicom writes it.
    """

    entry: str
    write: Callable[[Result, Path], list[str] | None]
    after: str = ""
    by_highdicom: bool = True


def file_of(case: str, kind: str) -> str:
    """The name of its file."""
    return f"{case}.{kind}.dcm"


def _algorithm(bundle_id: str) -> dict[str, Any]:
    return {"algorithm_name": f"delineate model {bundle_id}", "algorithm_version": __version__}


# ---- the series ----


def series_of(
    case: Case, bundle_id: str, structures: LabelSet, kinds: Sequence[str]
) -> dict[str, SourceSeries | DelineateError]:
    """Kind -> the series that the object will refer to, checked before inference, or why there can
    be none.
    """
    source = next(image for image in case.images if image != ABSENT)
    found: dict[bool, SourceSeries | DelineateError] = {}
    # What is enough for highdicom is enough for all.
    for by_highdicom in sorted({KINDS[kind].by_highdicom for kind in kinds}, reverse=True):
        if isinstance(found.get(True), DelineateError | None):
            try:
                series = series_at(source.path, source.series, source.fix_series)
                found[by_highdicom] = checked(series, bundle_id, structures, by_highdicom)
            except DelineateError as error:
                found[by_highdicom] = error.of_case(case.id)
        else:
            found[by_highdicom] = found[True]
    return {kind: found[KINDS[kind].by_highdicom] for kind in kinds}


def series_at(path: str, uid: str = "", fix_series: str = "") -> Series:
    """The only series of a folder, or the one that is named.

    Raises:
        InputError: it is no DICOM, or there are several series.
    """
    from ...formats import dicom

    place = files.place_of(path)
    if not files.is_folder(place) and files.detect(place) != "DICOM":
        raise InputError(NO_SERIES, path=path)
    return dicom.choose(path, uid, fix_series)


def checked(
    series: Series, bundle_id: str, structures: LabelSet, by_highdicom: bool
) -> SourceSeries:
    """The series as objects need it that highdicom writes, or as a structure set does.

    Raises:
        InputError: it lacks attributes that the object must repeat.
    """
    from ...formats.dicom.rtstruct import structure_set_source
    from ...formats.dicom.seg import seg_source

    if by_highdicom:
        return seg_source(series, structures, **_algorithm(bundle_id))
    return structure_set_source(series)


# ---- writers ----


def kind_of(path: str | Path) -> str:
    """The kind of object that a file's name asks for, "" for another file."""
    name = Path(path).name.lower()
    return next((kind for kind in KINDS if name.endswith(f".{kind}.dcm")), "")


def save_object(
    prediction: Prediction,
    kind: str,
    target: Path,
    like: str | Path | None = None,
    options: LabelObjectOptions | None = None,
) -> None:
    """Write one object of a prediction in memory, and the one to which it refers next to it.

    Args:
        prediction: of the series.
        kind: a key of ``KINDS``.
        target: the new file, NAME.KIND.dcm.
        like: the series, FOLDER or FOLDER#SERIES_UID; None if it is the source of the labels.
        options: how a segmentation or a structure set is written; by default as by ``predict``.

    Raises:
        UsageError, InputError, GeometryError, OutputError: as ``api.Prediction.save``.
    """
    from ...formats import dicom
    from ...formats.dicom.seg import SegEncoding

    written = tuple(filter(None, (KINDS[kind].after, kind)))
    options = options or LabelObjectOptions()
    encoding = options.seg_encoding
    if encoding != SegEncoding() and "seg" not in written:
        raise UsageError("seg_type and seg_syntax are for .seg.dcm and .sr.dcm files")
    if options.smallest_mm2 and kind != "rtstruct":
        raise UsageError("smallest_mm2 is for .rtstruct.dcm files")
    if KINDS[kind].by_highdicom:
        require_extra("dicom", f"a .{kind}.dcm file")
    labels, meta = prediction.labels, prediction.labels.meta
    if like is None and not (labels.source and meta.get("series")):
        raise InputError(
            "the prediction was not made of a path to a DICOM series; state it with like=FOLDER",
            path=target,
        )
    if like is None:
        place, uid = Path(labels.source), "/".join(filter(None, map(meta.get, ("series", "part"))))
    else:
        place, uid = files.place_and_series(like)
    series = series_at(str(place), uid)
    source = checked(series, prediction.bundle_id, prediction.structures, KINDS[kind].by_highdicom)
    unit = "suv" if meta.get("unit") == "SUV" else ""
    scan = cache(partial(dicom.read_series, series, unit))
    result = Result(prediction, source, scan, (), encoding, options.smallest_mm2)
    stem = target.name[: -len(file_of("", kind))]
    for each in written:
        KINDS[each].write(result, target.with_name(file_of(stem, each)))


def _write_seg(result: Result, target: Path) -> list[str]:
    from ...formats.dicom.seg import SegEncoding, write_seg

    return write_seg(
        *(*result.masks, target),
        **result.algorithm,
        encoding=result.encoding or SegEncoding(),
        probabilities=result.prediction.probabilities,
    )


def _write_rtstruct(result: Result, target: Path) -> list[str]:
    from ...formats.dicom.rtstruct import write_rtstruct

    more = {**result.algorithm, "smallest_mm2": result.smallest_mm2}
    return write_rtstruct(*result.masks, target, **more)


def _write_sr(result: Result, target: Path) -> None:
    from ...formats.dicom.report import Measured, write_sr
    from ...formats.dicom.source import inside, on_planes, on_series

    prediction, structures, series = result.prediction, result.prediction.structures, result.series
    scan, array = result.scan(), on_series(prediction.labels, series, structures)
    values = on_planes(scan, series).reshape(-1, *array.shape)[0]
    volumes_ml, rows = prediction.volumes_ml, []
    for label, areas in areas_of(array, structures).items():
        first, last = np.flatnonzero(areas)[[0, -1]]
        mask = inside(array[..., first : last + 1], structures, label)
        own = values[..., first : last + 1][mask].astype(np.float64)
        own = own[np.isfinite(own)]
        mean, sd = (float(own.mean()), float(own.std())) if own.size else (np.nan, np.nan)
        axes = diameters(mask, series.grid.spacing_mm)
        sizes = volumes_ml[label.name], mean, sd, axes.long_mm, axes.short_mm
        # A flag that names no structure is about the scan, and so about all of them.
        about = (one for one in result.flags if label.name in (one["structures"] or [label.name]))
        flags = tuple((str(one["kind"]), str(one["words"])) for one in about)
        rows.append(Measured(label.name, *sizes, flags))
    seg = target.with_name(file_of(target.name.removesuffix(".sr.dcm"), "seg"))
    write_sr(rows, scan.unit, seg, series, target, **result.algorithm)


def _write_pm(result: Result, target: Path) -> None:
    from ...formats.dicom.report import ParametricMap, write_pm

    prediction, labels, maps = result.prediction, result.prediction.labels, []
    if (shares := prediction.probabilities) is not None:
        # The first one is that of the background.
        for label, share in zip(prediction.structures, shares[1:], strict=True):
            words, stored = f"Probability of {label.name}", labels.with_array(share, "a.u.")
            maps.append(ParametricMap(label.name, words, stored, 1.0, PROBABILITY))
    for name, found in prediction.maps.items():
        values = labels.with_array(found, "a.u.")
        maps.append(ParametricMap.of(name, UNCERTAINTY[name], values, MAPS[name]))
    write_pm(maps, result.series, target, **result.algorithm)


def _write_kos(result: Result, target: Path) -> None:
    from ...formats.dicom.report import write_kos

    reasons = slices_for_review(result)
    if not reasons:
        raise OutputError("no slice to look at: no structure was found, and nothing is flagged")
    write_kos(reasons, result.series, target, **result.algorithm)


def _write_sc(result: Result, target: Path) -> None:
    from PIL import Image

    from ...formats.dicom.report import write_sc
    from ...reporting.pictures import figure_png, montage_figure

    prediction = result.prediction
    # Not the name of the case, which may be that of the patient.
    figure = montage_figure(
        result.scan(),
        {"prediction": prediction.labels},
        prediction.structures,
        title=result.algorithm["algorithm_name"],
        heat=heat_of(prediction),
    )
    with Image.open(io.BytesIO(figure_png(figure))) as picture:
        write_sc(np.asarray(picture.convert("RGB")), result.series, target, **result.algorithm)


def heat_of(prediction: Prediction) -> Heat | None:
    """The first map of uncertainty, to be drawn over a picture."""
    from ...reporting.pictures import Heat

    for name, found in prediction.maps.items():
        return Heat(name, Volume(found, prediction.labels.grid), MAPS[name])
    return None


# In the order in which they are written.
KINDS = {
    "seg": ObjectKind("dicom_seg", _write_seg),
    "rtstruct": ObjectKind("rtstruct", _write_rtstruct, by_highdicom=False),
    "sr": ObjectKind("sr", _write_sr, after="seg"),
    "pm": ObjectKind("pm", _write_pm),
    "kos": ObjectKind("kos", _write_kos),
    "sc": ObjectKind("sc", _write_sc),
}


# ---- slices for review ----


def slices_for_review(result: Result) -> dict[int, list[str]]:
    """Number of a plane of the series -> why a person should look at it.

    These are, of each flag, the slices with the largest cross-section of the structures that it
    names (of none, that of all structures, or the middle one); and the ``MOST_UNCERTAIN`` slices
    with the largest sum of a map of uncertainty. Without either, the slice with the largest
    cross-section of each structure.
    """
    from ...formats.dicom.source import on_planes, on_series

    prediction, structures, series = result.prediction, result.prediction.structures, result.series
    array = on_series(prediction.labels, series, structures)
    areas = areas_of(array, structures)
    largest = {label.name: int(own.argmax()) for label, own in areas.items()}
    reasons: dict[int, list[str]] = {}
    middle = int(np.sum([*areas.values()], axis=0).argmax()) if areas else len(series.planes) // 2
    for flag in result.flags:
        named = [largest[name] for name in flag["structures"] if name in largest]
        for number in dict.fromkeys(named or [middle]):
            reasons.setdefault(number, []).append(flag["words"])
    for name, found in list(prediction.maps.items())[:1]:
        sums = on_planes(prediction.labels.with_array(found, "a.u."), series).sum(axis=(0, 1))
        for number in _highest(sums):
            reasons.setdefault(number, []).append(f"high {name} of the samples")
    if not reasons:
        for name, number in largest.items():
            reasons.setdefault(number, []).append(f"largest cross-section of {name}")
    return reasons


def areas_of(array: NDArray[Any], structures: LabelSet) -> dict[Label, NDArray[np.int64]]:
    """Structure with a voxel -> its number of voxels in each plane of (I, J, planes)."""
    from ...formats.dicom.source import inside

    values = np.arange(int(array.max()) + 1)
    counts = np.stack(
        [np.bincount(plane.ravel(), minlength=len(values)) for plane in np.moveaxis(array, 2, 0)]
    )
    found = {one: counts[:, inside(values, structures, one)].sum(axis=1) for one in structures}
    return {label: areas for label, areas in found.items() if areas.any()}


def _highest(sums: NDArray[Any]) -> list[int]:
    """The slices with the largest sums above 0."""
    order = np.argsort(-sums, kind="stable")[:MOST_UNCERTAIN]
    return [int(number) for number in order if sums[number] > 0]
