"""Layouts of the CHAOS challenge, CT and MR: DICOM series with ground truth in PNG slices.

Each layout is a function ``(tree, root) -> Draft | None``. The PNG slices store no position. They
get the geometry of the series, in natural order of the file names.
"""

from __future__ import annotations

import os
from pathlib import Path

from .....core.manifest import Case, Source
from .....extend.findings import Draft
from .....extend.registering import layout
from ...masks.published import CHAOS_LIVER, chaos_mr_labels
from ...tree import Tree, most, source


@layout("chaos", definition="ID/DICOM_anon/, ID/Ground/", tier="challenge")
def chaos(tree: Tree, root: Path) -> Draft | None:
    """CHAOS CT: ``PATIENT/DICOM_anon`` with ``PATIENT/Ground/*.png``; the root itself may be the
    only patient.

    A mask with a single value is the liver (CHAOS CT). If all values are in the value ranges of
    CHAOS MR, they have the meaning defined there.
    """
    alone = _is_chaos_patient(tree, root)
    folders = [root] if alone else [f for f in tree.folders(root) if _is_chaos_patient(tree, f)]
    if not (alone or most(tree, root, folders)):
        return None
    draft = Draft(
        "chaos",
        [],
        ("image",),
        names=dict(CHAOS_LIVER),
        ranges=chaos_mr_labels(),
    )
    for folder in folders:
        series, truth = tree.folder(folder, "DICOM_anon"), tree.folder(folder, "Ground")
        name = Path(os.path.abspath(folder)).name
        # Other folders of a patient may contain further series.
        extra = [f.name for f in tree.folders(folder) if f not in (series, truth)]
        if extra:
            draft.problem(name, "unused", f"folder {', '.join(extra)} was not used", "note")
        label = _png_stack(tree, draft, name, truth, series)
        draft.cases.append(Case(name, "" if alone else name, (source(series or folder),), label))
    return draft


def _is_chaos_patient(tree: Tree, folder: Path) -> bool:
    """Whether ``folder`` has a folder ``DICOM_anon`` with DICOM files."""
    series = tree.folder(folder, "DICOM_anon")
    return series is not None and tree.is_dicom(series)


def _png_stack(
    tree: Tree, draft: Draft, case: str, truth: Path | None, series: Path | None
) -> tuple[Source, ...]:
    """The source of the PNG slices in ``truth``, with the geometry of ``series``; () if missing."""
    if truth is None or series is None or not tree.images(truth):
        draft.problem(case, "unpaired", "no folder Ground with slices of the masks", "warning")
        return ()
    return (source(truth, like=series),)


@layout("chaos-mr", definition="ID/T1DUAL, ID/T2SPIR with DICOM_anon, Ground", tier="challenge")
def chaos_mr(tree: Tree, root: Path) -> Draft | None:
    """CHAOS MR, T1DUAL: in phase and out of phase are two channels of one case (they are registered
    and share their masks).
    """
    return _chaos_mr(tree, root, "chaos-mr", "T1DUAL", ("InPhase", "OutPhase"))


@layout("chaos-mr-inphase", definition="T1 in phase of chaos-mr", tier="on request")
def chaos_mr_inphase(tree: Tree, root: Path) -> Draft | None:
    """CHAOS MR, T1DUAL in phase only; used only on request (``--layout``)."""
    return _chaos_mr(tree, root, "chaos-mr-inphase", "T1DUAL", ("InPhase",))


@layout("chaos-mr-t2", definition="T2 of chaos-mr", tier="on request")
def chaos_mr_t2(tree: Tree, root: Path) -> Draft | None:
    """CHAOS MR, T2SPIR; used only on request (``--layout``)."""
    return _chaos_mr(tree, root, "chaos-mr-t2", "T2SPIR", ("",))


def _chaos_mr(
    tree: Tree, root: Path, layout: str, sequence: str, phases: tuple[str, ...]
) -> Draft | None:
    """The cases with the folder ``sequence``, one channel per phase.

    Args:
        tree, root: as in every layout.
        layout: name of the layout.
        sequence: folder of the MR sequence inside a patient's folder.
        phases: folders inside ``DICOM_anon``; "" stands for ``DICOM_anon`` itself.
    """
    # One patient per folder, or the patient in the root itself.
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
    # The other sequences have another grid, so they form another cohort.
    others = sorted({other.name for f in folders for other in tree.folders(f)} - {sequence})
    if others:
        draft.note(
            "unused",
            f"{', '.join(others)} was not used; select it with --layout chaos-mr, "
            "chaos-mr-inphase or chaos-mr-t2",
            names=others,
        )
    for folder in folders:
        _add_mr_case(tree, draft, folder, sequence, phases)
    return draft


def _add_mr_case(
    tree: Tree, draft: Draft, folder: Path, sequence: str, phases: tuple[str, ...]
) -> None:
    """Add the patient in ``folder``, or a problem if a phase has no DICOM files."""
    name = Path(os.path.abspath(folder)).name
    base = tree.folder(folder, sequence) or folder
    series = tree.folder(base, "DICOM_anon")
    # One series per phase; all of them must exist, because they are the channels of one case.
    found = [tree.folder(series, p) if p else series for p in phases] if series else [None]
    if series is None or any(f is None or not tree.is_dicom(f) for f in found):
        draft.problem(
            name,
            "missing",
            f"no DICOM files under {base / 'DICOM_anon'} {' and '.join(phases)}".rstrip(),
        )
        return
    kept = [f for f in found if f]
    draft.cases.append(
        Case(
            name,
            name,
            tuple(source(f) for f in kept),
            _png_stack(tree, draft, name, tree.folder(base, "Ground"), kept[0]),
        )
    )
