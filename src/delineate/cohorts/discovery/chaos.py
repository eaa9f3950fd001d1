"""The CHAOS challenge's folders, CT and MR: DICOM series with PNG truth, ``(tree, root) -> Draft |
None``.

The slices of the truth have no place of their own: they take that of the series, in natural order
of the file names.
"""

from __future__ import annotations

import os
from pathlib import Path

from ...core.labels import LabelMapping, LabelSet, Range
from ...core.manifest import Case, Source
from ..findings import Draft
from .tree import Tree, most, source

CHAOS_MR = (
    (55, 70, "liver"),
    (110, 135, "right kidney"),
    (175, 200, "left kidney"),
    (240, 255, "spleen"),
)


def chaos(tree: Tree, root: Path) -> Draft | None:
    """``PATIENT/DICOM_anon`` with ``PATIENT/Ground/*.png``; the root itself may be the one patient.

    A truth of one value is the liver (CHAOS CT); values that all lie in the grey ranges of CHAOS MR
    have its meaning.
    """
    alone = _is_chaos_patient(tree, root)
    folders = [root] if alone else [f for f in tree.folders(root) if _is_chaos_patient(tree, f)]
    if not (alone or most(tree, root, folders)):
        return None
    draft = Draft(
        "chaos",
        [],
        ("image",),
        names=dict.fromkeys((1, 63, 255), "liver"),
        ranges=chaos_mr_labels(),
    )
    for folder in folders:
        series, truth = tree.folder(folder, "DICOM_anon"), tree.folder(folder, "Ground")
        name = Path(os.path.abspath(folder)).name
        extra = [f.name for f in tree.folders(folder) if f not in (series, truth)]
        if extra:
            draft.problem(name, "unused", f"folder {', '.join(extra)} was not used", "note")
        label = _png_stack(tree, draft, name, truth, series)
        draft.cases.append(Case(name, "" if alone else name, (source(series or folder),), label))
    return draft


def _is_chaos_patient(tree: Tree, folder: Path) -> bool:
    series = tree.folder(folder, "DICOM_anon")
    return series is not None and tree.is_dicom(series)


def _png_stack(
    tree: Tree, draft: Draft, case: str, truth: Path | None, series: Path | None
) -> tuple[Source, ...]:
    if truth is None or series is None or not tree.images(truth):
        draft.problem(case, "unpaired", "no folder Ground with the slices of the truth", "warning")
        return ()
    return (source(truth, like=series),)


def chaos_mr(tree: Tree, root: Path) -> Draft | None:
    """CHAOS MR, T1DUAL: in phase and out of phase are two channels of one case (they are registered
    and share their truth).
    """
    return _chaos_mr(tree, root, "chaos-mr", "T1DUAL", ("InPhase", "OutPhase"))


def chaos_mr_inphase(tree: Tree, root: Path) -> Draft | None:
    """CHAOS MR, T1DUAL in phase alone; only where asked for."""
    return _chaos_mr(tree, root, "chaos-mr-inphase", "T1DUAL", ("InPhase",))


def chaos_mr_t2(tree: Tree, root: Path) -> Draft | None:
    """CHAOS MR, T2SPIR; only where asked for."""
    return _chaos_mr(tree, root, "chaos-mr-t2", "T2SPIR", ("",))


def _chaos_mr(
    tree: Tree, root: Path, layout: str, sequence: str, phases: tuple[str, ...]
) -> Draft | None:
    alone = tree.folder(root, sequence) is not None
    folders = [f for f in ([root] if alone else tree.folders(root)) if tree.folder(f, sequence)]
    if not (alone or most(tree, root, folders)):
        return None
    draft = Draft(
        layout,
        [],
        tuple(f"{sequence} {p}".strip() for p in phases),
        *chaos_mr_labels(),
        modality="MR",
    )
    others = sorted({other.name for f in folders for other in tree.folders(f)} - {sequence})
    if others:
        draft.note(
            "unused",
            f"{', '.join(others)} was not used; choose with --layout chaos-mr, chaos-mr-inphase "
            "or chaos-mr-t2",
            names=others,
        )
    for folder in folders:
        name = Path(os.path.abspath(folder)).name
        base = tree.folder(folder, sequence) or folder
        series = tree.folder(base, "DICOM_anon")
        found = [tree.folder(series, p) if p else series for p in phases] if series else [None]
        if series is None or any(f is None or not tree.is_dicom(f) for f in found):
            draft.problem(
                name,
                "missing",
                f"no DICOM files under {base / 'DICOM_anon'} {' and '.join(phases)}".rstrip(),
            )
            continue
        kept = [f for f in found if f]
        draft.cases.append(
            Case(
                name,
                name,
                tuple(source(f) for f in kept),
                _png_stack(tree, draft, name, tree.folder(base, "Ground"), kept[0]),
            )
        )
    return draft


def chaos_mr_labels() -> tuple[LabelSet, LabelMapping]:
    """The four organs and their grey ranges, as the challenge states them."""
    names = {v: name for v, (_, _, name) in enumerate(CHAOS_MR, start=1)}
    ranges = tuple(Range(low, high, v) for v, (low, high, _) in enumerate(CHAOS_MR, start=1))
    return LabelSet.from_names(names), LabelMapping(ranges=ranges)
