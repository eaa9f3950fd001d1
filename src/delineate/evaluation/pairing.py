"""Which prediction belongs to which truth: pairing by name, or slice folder with slice folder.

PRED is a file or a folder of files. TRUTH is a file, a folder of files, a ``manifest.jsonl``, or
any cohort that ``layouts.find`` recognises (then its label mapping applies). Equal names pair
first. Remaining names pair after endings such as ``_0000`` or ``_seg`` are removed, but only if the
result is unambiguous. The module opens no images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..cohorts.discovery.dicom_rules import DicomRules
from ..cohorts.discovery.tree import has_image_ending, is_raster, may_be_image
from ..core.errors import InputError, LayoutError
from ..core.inputs import read_json_if_any, refuse_special
from ..core.labels import LabelSet
from ..core.manifest import Case, Manifest, Source
from ..core.prediction import RECORD
from ..core.volume import Volume
from ..formats.dicom.source import OBJECTS
from ..formats.files import natural_key, stem

# Of the DICOM objects that ``predict`` writes next to its masks.
OBJECT_ENDINGS = tuple(f".{kind}.dcm" for kind in OBJECTS)
GEOMETRY_FOLDER = "DICOM_anon"  # CHAOS stores the series here, next to the folder of PNG masks
NO_RULES = DicomRules()  # of DICOM: uneven series and other frames of reference are refused
_ENDING = re.compile(
    r"(?i)([_-](0000|seg|segmentation|mask|labels?|pred|prediction|gt|truth|ground))+$"
)


@dataclass(frozen=True)
class Pair:
    """One case to score.

    Args:
        case: its id.
        prediction: one label map, to be read or in memory.
        truth: the same; None if it is in ``cohort``.
        cohort: a manifest of this one case, whose label mapping applies to the truth.
        patient: "" if unknown.
        stacked: whether both are folders of slices, read as one case.
        spacing_known: False if a stack has no geometry.
        ignore: values of ``truth`` whose voxels are not scored; a cohort states its own.
        renumber: value of ``prediction`` -> value of the same structure in ``truth``; None if they
            are equal.
        structures: if they overlap; the masks are then read as codes (``evaluation.overlapping``).
    """

    case: str
    prediction: Source | Volume
    truth: Source | Volume | None = None
    cohort: Manifest | None = None
    patient: str = ""
    stacked: bool = False
    spacing_known: bool = True
    ignore: tuple[int, ...] = ()
    renumber: Mapping[int, int] | None = None
    structures: LabelSet | None = None


@dataclass(frozen=True)
class Pairing:
    """The pairs, and the names without a partner on either side.

    Args:
        pairs: the cases to score.
        without_truth, without_prediction: names of unpaired files or cases.
        manifest: of the truth, if TRUTH is a cohort.
        notes: what was assumed while pairing.
    """

    pairs: tuple[Pair, ...]
    without_truth: tuple[str, ...] = ()
    without_prediction: tuple[str, ...] = ()
    manifest: Manifest | None = None
    notes: tuple[str, ...] = ()

    def of_overlapping(self, structures: LabelSet) -> Pairing:
        """The same pairs, whose masks are read as codes of these structures."""
        pairs = tuple(replace(one, structures=structures) for one in self.pairs)
        return replace(self, pairs=pairs)

    def renumbered(self, values: Mapping[int, int]) -> Pairing:
        """The same pairs, whose predictions get the truth's values; none changes nothing."""
        pairs = tuple(replace(one, renumber=values or None) for one in self.pairs)
        return replace(self, pairs=pairs)

    def ignoring(self, values: Sequence[int]) -> Pairing:
        """The same pairs; truths with one of ``values`` are not scored there."""
        pairs = []
        for one in self.pairs:
            cohort = one.cohort
            if cohort is not None:
                ignored = tuple(sorted({*cohort.mapping.ignore, *values}))
                cohort = replace(cohort, mapping=replace(cohort.mapping, ignore=ignored))
            pairs.append(replace(one, cohort=cohort, ignore=tuple(values)))
        return replace(self, pairs=tuple(pairs))


def source_of(mask: Source | Volume) -> str:
    """Its file or folder; "" for a label map that was computed."""
    return mask.source if isinstance(mask, Volume) else mask.path


def pair_volumes(prediction: Volume, truth: Volume) -> Pairing:
    """The pair of two label maps in memory; the case has the name of their file, if they have
    one.
    """
    sources = [Path(volume.source) for volume in (prediction, truth) if volume.source]
    name = stem(sources[0]) if sources else "in memory"
    return Pairing((Pair(name, prediction, truth),))


def pair(
    prediction: str | Path,
    truth: str | Path,
    *,
    like: str | Path | None = None,
    as_stack: bool | None = None,
    labels: Path | Callable[[Manifest], Manifest] | None = None,
    rules: DicomRules = NO_RULES,
) -> Pairing:
    """Pair every prediction with its truth.

    Args:
        prediction: a file, or a folder of files (or of slices).
        truth: a file, a folder, a ``manifest.jsonl`` or a cohort's folder.
        like: an image that gives its geometry to stacks of slices without one.
        as_stack: True reads both folders as one stack of slices, False never does. None does if no
            names match and both folders have the same number of numbered 2-D slices.
        labels: YAML file with the structures that ``layouts.find`` chooses, if TRUTH is a cohort's
            folder; or a function that selects them in the cohort or manifest that was found.
        rules: of DICOM labels and their series; a ``manifest.jsonl`` states its own.

    Raises:
        InputError: a path does not exist.
        LayoutError: no image in PRED, two files with one name, or no pair (the message lists what
            was found).
    """
    pred, true = Path(prediction), Path(truth)
    for path in (pred, true):
        if not path.exists():
            raise InputError("does not exist", path=path)
    if true.is_file() and true.suffix == ".jsonl":
        manifest = Manifest.load(true)
        return _with_manifest(pred, labels(manifest) if callable(labels) else manifest, like)
    predicted, known = masks_in(pred), _without_objects(images_in(true))
    if not predicted:
        raise LayoutError("contains no image to evaluate", path=pred)
    # Two single files pair even if their names differ.
    if pred.is_file() and true.is_file():
        one, other = (
            Source(str(path), fix_series=rules.fix_series, register_by=rules.register_by)
            for path in (pred, true)
        )
        return Pairing((Pair(stem(pred), one, other),))
    if as_stack:
        return _stack(pred, true, predicted, known, like)
    # By name first; then numbered slices as a stack; then TRUTH as a cohort.
    if known:
        found = _by_name(predicted, known)
        if found.pairs:
            return found
        if (
            as_stack is None
            and _are_slices(predicted)
            and _are_slices(known)
            and len(predicted) == len(known)
        ):
            return _stack(pred, true, predicted, known, like)
    return _with_found_cohort(pred, true, predicted, known, like, labels, rules)


def images_in(path: Path) -> list[Path]:
    """The image files of a folder, without its subfolders, in natural order; for a file, that file.

    Whatever has an image's name is kept, also an empty file, a broken link, a named pipe or a
    folder, so that its case is reported as failed under its own name.

    Raises:
        InputError: the path is neither a file nor a folder.
    """
    refuse_special(path)
    if path.is_file():
        return [path]
    files = [
        p
        for p in path.iterdir()
        if not p.name.startswith(".")
        and (has_image_ending(p.name) or (p.is_file() and may_be_image(p)))
    ]
    return sorted(files, key=lambda p: natural_key(p.name))


def masks_in(path: Path) -> list[Path]:
    """``images_in`` without DICOM objects of a mask, and the folders of cases whose structures
    overlap, one file each, that the ``predictions.json`` next to them lists.
    """
    found = _without_objects(images_in(path))
    record = prediction_record(path) if path.is_dir() else {}
    folders = [path / name for name, entry in record.get("cases", {}).items() if "files" in entry]
    return found + [folder for folder in folders if folder.is_dir()]


def _without_objects(paths: list[Path]) -> list[Path]:
    """Without DICOM objects that were written next to the mask of their case."""
    objects = {p for p in paths if p.name.lower().endswith(OBJECT_ENDINGS)}
    others = {stem(p) for p in paths if p not in objects}
    return [p for p in paths if p not in objects or stem(p) not in others]


def prediction_record(folder: Path) -> dict[str, Any]:
    """The ``predictions.json`` of a folder; {} if there is none, or if another program wrote it.

    Raises:
        InputError: it is damaged.
    """
    path = folder / RECORD
    record = read_json_if_any(path)
    if not isinstance(record, dict):
        return {}
    cases = record.get("cases", {})
    if not isinstance(cases, dict) or not all(isinstance(one, dict) for one in cases.values()):
        raise InputError('"cases" is not a mapping of cases to their results', path=path)
    return record


def match_names(left: Sequence[str], right: Sequence[str]) -> dict[str, str]:
    """``left`` name -> ``right`` name: equal names first, then names that are equal without their
    endings, if each side has only one such name left.
    """
    found = {name: name for name in left if name in set(right)}
    rest_left, rest_right = (
        [n for n in left if n not in found],
        [n for n in right if n not in set(found.values())],
    )
    for name in rest_left:
        # Pair only if the name without its ending is unique on both sides.
        stripped = _ENDING.sub("", name)
        same_left = [n for n in rest_left if _ENDING.sub("", n) == stripped]
        same_right = [n for n in rest_right if _ENDING.sub("", n) == stripped]
        if len(same_left) == len(same_right) == 1:
            found[name] = same_right[0]
    return found


def _by_name(predicted: list[Path], known: list[Path]) -> Pairing:
    """Two lists of files paired by name; the case has the shorter of the two names."""
    left, right = _unique_stems(predicted), _unique_stems(known)
    match = match_names(list(left), list(right))
    pairs = [
        Pair(min(a, b, key=len), Source(str(left[a])), Source(str(right[b])))
        for a, b in match.items()
    ]
    notes = [f"{a} was paired with {b}" for a, b in match.items() if a != b]
    return Pairing(
        tuple(pairs),
        tuple(n for n in left if n not in match),
        tuple(n for n in right if n not in set(match.values())),
        notes=tuple(notes),
    )


def _unique_stems(files: list[Path]) -> dict[str, Path]:
    """Name without extension -> file.

    Raises:
        LayoutError: two files have the same name.
    """
    names: dict[str, Path] = {}
    for path in files:
        if stem(path) in names:
            raise LayoutError(
                f"two files have the name {stem(path)} ({names[stem(path)].name} and {path.name})",
                path=path.parent,
            )
        names[stem(path)] = path
    return names


def _with_found_cohort(
    pred: Path,
    true: Path,
    predicted: list[Path],
    known: list[Path],
    like: str | Path | None,
    labels: Path | Callable[[Manifest], Manifest] | None,
    rules: DicomRules,
) -> Pairing:
    """Predictions paired with the cases of the cohort in the folder ``true``."""
    from ..cohorts.discovery.layouts import find

    stated: dict[str, Any] = {"fix_series": rules.fix_series, "register_by": rules.register_by}
    try:
        if callable(labels):
            manifest = labels(find(true, **stated))
        else:
            manifest = find(true, labels=labels, **stated)
        return _with_manifest(pred, manifest, like)
    except LayoutError as error:
        if not known:
            raise
        raise LayoutError(
            f"no prediction pairs with a truth by name: found {_some(predicted)} in {pred} and "
            f"{_some(known)} in {true}; "
            "rename the files to match, or read folders of slices as one stack (--as-stack)"
        ) from error


def _with_manifest(pred: Path, manifest: Manifest, like: str | Path | None) -> Pairing:
    """Predictions paired with the cases of a manifest.

    Raises:
        LayoutError: no name matches a case with a truth.
    """
    predicted = masks_in(pred)
    names = _unique_stems(predicted)
    match = match_names(list(names), [c.id for c in manifest])
    labelled = [c for c in manifest if c.label]
    # A cohort of one case, and a folder of slices: the slices are that case.
    if not match and len(labelled) == 1 and pred.is_dir() and _are_slices(predicted):
        return _slices_of_one_case(pred, labelled[0], manifest, like)
    pairs, without_truth = [], []
    for name, case_id in match.items():
        case = manifest.named(case_id)
        if case.label:
            pairs.append(_pair_of_case(Source(str(names[name])), case, manifest))
        else:
            without_truth.append(name)
    if not pairs:
        raise LayoutError(
            f"no prediction pairs with a case of the cohort by name: found {_some(predicted)}; "
            f"the cohort's cases are {', '.join(c.id for c in manifest.cases[:3])} ...",
            path=pred,
        )
    matched = set(match.values())
    return Pairing(
        tuple(pairs),
        (*(n for n in names if n not in match), *without_truth),
        tuple(c.id for c in labelled if c.id not in matched),
        manifest,
    )


def _pair_of_case(prediction: Source, case: Case, manifest: Manifest) -> Pair:
    """A prediction with the truth of a case, in a manifest of that case only."""
    return Pair(
        case.id,
        prediction,
        cohort=replace(manifest, cases=(replace(case, fold=None),)),
        patient=case.patient,
    )


def _slices_of_one_case(
    pred: Path, case: Case, manifest: Manifest, like: str | Path | None
) -> Pairing:
    """A folder of slices as the prediction of one case, on the grid of ``like`` or of its image."""
    geometry = str(like or case.images[0].path)
    found = replace(_pair_of_case(Source(str(pred), like=geometry), case, manifest), stacked=True)
    return Pairing(
        (found,),
        manifest=manifest,
        notes=(f"the slices in {pred} were read as one stack on the grid of {geometry}",),
    )


def _stack(
    pred: Path, true: Path, predicted: list[Path], known: list[Path], like: str | Path | None
) -> Pairing:
    """Two folders of slices as one case, paired slice by slice in natural order of their names.

    Raises:
        LayoutError: a folder does not contain numbered 2-D slices, or their numbers differ.
    """
    if not (_are_slices(predicted) and _are_slices(known)):
        raise LayoutError(
            "both folders of a stack must contain numbered 2-D slices (PNG, TIFF, JPEG)", path=pred
        )
    if len(predicted) != len(known):
        raise LayoutError(
            f"has {len(predicted)} slices, but the truth in {true} has {len(known)}", path=pred
        )
    geometry, notes = (
        like,
        [
            f"{len(known)} slices were read as one stack, in natural order of names "
            f"({predicted[0].name} with {known[0].name})"
        ],
    )
    # Without ``like`` the geometry is that of a CHAOS series next to either folder.
    if geometry is None:
        geometry = next(
            (
                p
                for p in (true.parent / GEOMETRY_FOLDER, pred.parent / GEOMETRY_FOLDER)
                if p.is_dir()
            ),
            None,
        )
    notes.append(
        f"the spacing is that of {geometry}"
        if geometry
        else "spacing unknown: give an image with the same geometry (--like) for volumes in ml"
    )

    def slices(folder: Path) -> Source:
        return (
            Source(str(folder), like=str(geometry))
            if geometry
            else Source(str(folder), spacing_mm=(1.0, 1.0, 1.0))
        )

    # CHAOS keeps each case's masks in CASE/Ground: the case has the name of the parent folder.
    name = true.parent.name if true.parent.name not in ("", ".", "..") else true.name
    return Pairing(
        (Pair(name, slices(pred), slices(true), stacked=True, spacing_known=geometry is not None),),
        notes=tuple(notes),
    )


def _are_slices(files: list[Path]) -> bool:
    """Whether these are several 2-D images with a number in each name."""
    return len(files) > 1 and all(is_raster(p) and re.search(r"\d", p.stem) for p in files)


def _some(files: list[Path]) -> str:
    """The first two names, for a message."""
    return ", ".join(p.name for p in files[:2]) + (" ..." if len(files) > 2 else "")
