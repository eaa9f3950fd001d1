"""Finding the cases of a cohort: which layout a folder has, whose scans they are, what their labels
mean.

``LAYOUTS`` is the ordered table: each layout is one small function ``(tree, root) -> Draft | None``
in ``challenges.py``, ``chaos.py`` or ``folders.py``. Layouts stand in tiers, the specific before
the general; the first tier in which one fits wins, and where two of a tier find different cases the
choice is left to the user. Anything else is described by a YAML file (``description.py``). Files
are told by their names; few are opened.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ...core.errors import DelineateError, InputError, LayoutError, UsageError
from ...core.inputs import refuse_special
from ...core.manifest import Case, Manifest
from ...formats import dicom, files
from ..findings import DiscoveredCohort, Draft, Finding
from . import challenges, chaos, folders
from .patients import by_pattern
from .structures import StructureSelection, derive, named
from .tree import Tree, patient_from_id, source

Layout = Callable[[Tree, Path], Draft | None]
LAYOUTS: tuple[dict[str, Layout], ...] = (
    {"nnunet-raw": challenges.nnunet_raw, "decathlon": challenges.decathlon},
    {
        "totalsegmentator": challenges.totalsegmentator,
        "chaos-mr": chaos.chaos_mr,
        "chaos": chaos.chaos,
        "3d-ircadb": challenges.ircad,
        "oasis-1": challenges.oasis1,
    },
    {"parallel-folders": folders.parallel_folders},
    {"modality-files": challenges.modality_files},
    {"suffix-pairs": folders.suffix_pairs},
    {"dicom": folders.dicom_folder, "plain-images": folders.plain_images},
)
ON_REQUEST: dict[str, Layout] = {
    "chaos-mr-inphase": chaos.chaos_mr_inphase,
    "chaos-mr-t2": chaos.chaos_mr_t2,
}
NAMES = (*(name for tier in LAYOUTS for name in tier), *ON_REQUEST)
# cases that are asked for a fact that all share; the first may be the one that cannot be read
FEW = 3
DEEPEST = 2  # folders below the root that are looked into for one recognisable cohort


def find(
    root: str | Path,
    *,
    layout: str | None = None,
    description: str | Path | None = None,
    labels: str | Path | None = None,
    patient: str | None = None,
) -> Manifest:
    """The cohort at ``root``; arguments and errors as of ``discover``, whose findings are left out
    here.
    """
    return discover(
        root, layout=layout, description=description, labels=labels, patient=patient
    ).manifest


def discover(
    root: str | Path,
    *,
    layout: str | None = None,
    description: str | Path | None = None,
    labels: str | Path | None = None,
    patient: str | None = None,
    truth: bool = True,
) -> DiscoveredCohort:
    """The cohort at ``root`` and what was noticed while finding it.

    Args:
        root: a folder, a ``manifest.jsonl`` (or a folder that holds one), or one image file.
        layout: name of a layout (``NAMES``) where several fit.
        description: YAML file that describes another layout.
        labels: YAML file that names, merges or selects structures.
        patient: regular expression with one group that finds the patient in a case's id.
        truth: False where only the scans matter: masks are found, but nothing is asked of what they
            mean.

    Raises:
        InputError: ``root`` does not exist.
        UsageError: arguments that exclude each other, or an unknown layout.
        LayoutError: nothing was recognised, or more than one thing.
        LabelError: the structures cannot be told, or the chosen ones do not exist.
    """
    root = Path(root)
    if layout and description:
        raise UsageError("a layout's name and a description exclude each other")
    if layout and layout not in NAMES:
        raise UsageError(f"no layout is called {layout!r}; there are {', '.join(NAMES)}")
    if not root.exists():
        raise InputError("no such file or folder", path=root)
    refuse_special(root)
    choice = StructureSelection.load(labels) if labels else None
    if description:
        from . import description as described

        return _finish(
            described.apply(described.load(description), root), root, choice, patient, truth
        )
    written = root if root.suffix == ".jsonl" else root / "manifest.jsonl"
    if not layout and written.is_file():
        return _from_manifest(written, choice, patient)
    if root.is_file():
        return _finish(
            folders.with_channels(Draft("file", [Case(files.stem(root), "", (source(root),))])),
            root,
            choice,
            patient,
            truth,
        )
    tree = Tree()
    draft = folders.with_channels(_recognise(tree, root, layout))
    for path, kind in tree.skipped.items():
        draft.note(
            "skipped", f"{path} is {kind} and was skipped; only regular files are opened", path=path
        )
    return _finish(draft, root, choice, patient, truth)


# ---- recognising ----


def _recognise(tree: Tree, root: Path, layout: str | None) -> Draft:
    if layout:
        table = {name: f for tier in LAYOUTS for name, f in tier.items()} | ON_REQUEST
        draft = table[layout](tree, root)
        if draft is None:
            raise LayoutError(f"does not have the layout {layout}; {_seen(tree, root)}", path=root)
        return draft
    for tier in LAYOUTS:
        if draft := _of_tier(tree, root, tier):
            return draft
    return _descend(tree, root)


def _of_tier(tree: Tree, root: Path, tier: dict[str, Layout]) -> Draft | None:
    drafts = [draft for function in tier.values() if (draft := function(tree, root)) is not None]
    held = {frozenset(s.path for c in draft.cases for s in c.images) for draft in drafts}
    if len(held) > 1:
        fits = "; ".join(f"{draft.layout} ({len(draft.cases)} cases)" for draft in drafts)
        raise LayoutError(
            f"more than one layout fits: {fits}; choose with --layout NAME, or write a "
            "description (check --draft FILE)",
            path=root,
        )
    return drafts[0] if drafts else None


def _descend(tree: Tree, root: Path) -> Draft:
    """The one recognisable folder below the root, at the least depth at which there is one."""
    level = [root]
    for _ in range(DEEPEST):
        level = [f for folder in level for f in tree.folders(folder)][:200]
        found: list[tuple[Path, Draft]] = []
        for folder in level:
            draft = next((d for tier in LAYOUTS[:-1] if (d := _of_tier(tree, folder, tier))), None)
            if draft:
                found.append((folder, draft))
        if len(found) == 1:
            folder, draft = found[0]
            draft.note(
                "descended", f"the cohort was found in {folder.relative_to(root)}", path=str(folder)
            )
            return draft
        if found:
            names = ", ".join(
                f"{folder.relative_to(root)} ({draft.layout})" for folder, draft in found[:6]
            ) + (" ..." if len(found) > 6 else "")
            raise LayoutError(
                f"several cohorts lie here: {names}; name one of these folders, or describe them "
                "together (check --draft FILE)",
                path=root,
            )
    raise LayoutError(
        f"no layout that is known; {_seen(tree, root)}. Describe it in a short YAML file: "
        f"`delineate check {root} --draft FILE` "
        "writes a first one; docs/layouts.md lists what is recognised",
        path=root,
    )


def _seen(tree: Tree, root: Path) -> str:
    """What lies in the folder, in words, for errors that teach."""
    inner, names = tree.folders(root), tree.files(root)
    if not inner and not names:
        return "the folder is empty"
    endings = Counter(
        "".join(p.suffixes[-2:]) if p.name.endswith(".gz") else p.suffix or "no ending"
        for p in names
    )
    parts = (
        [
            f"{len(inner)} folders "
            f"({', '.join(f.name for f in inner[:4])}{' ...' if len(inner) > 4 else ''})"
        ]
        if inner
        else []
    )
    parts += (
        [
            f"{len(names)} files "
            f"({', '.join(f'{n} {ending}' for ending, n in endings.most_common(4))})"
        ]
        if names
        else []
    )
    return "seen were " + " and ".join(parts)


# ---- making the manifest ----


def _finish(
    draft: Draft, root: Path, choice: StructureSelection | None, patient: str | None, truth: bool
) -> DiscoveredCohort:
    if not draft.cases:
        first = next(
            (f.message for f in draft.findings if f.severity == "error"), "no case was found"
        )
        raise LayoutError(f"no usable case ({draft.layout}): {first}", path=root)
    if not draft.modality:
        draft.modality = next(
            (fact for case in draft.cases[:FEW] if (fact := _dicom_fact(case, "modality"))), ""
        )
    if truth:
        _settle_labels(draft, root, choice)
    cases = _with_patients(draft, patient)
    try:
        manifest = Manifest(
            cases,
            draft.channels,
            draft.labels or named([], {}),
            draft.mapping,
            draft.layout,
            os.path.abspath(root),
            draft.modality,
        )
    except LayoutError as error:
        hint = (
            ""
            if patient
            else "; if these are different patients, name them with --patient, such as --patient "
            "'(.+)' for one a case"
        )
        raise LayoutError(
            error.message + (hint if "stands in" in error.message else ""),
            case=error.case,
            path=root,
        ) from error
    return DiscoveredCohort(manifest, tuple(draft.findings))


def _settle_labels(draft: Draft, root: Path, choice: StructureSelection | None) -> None:
    """The structures as the user chose them, as the layout says, or as the files' values tell."""
    if draft.labels is None and choice is not None and draft.names:
        # The choice may use these names; values decide nothing then.
        draft.labels = named(sorted(draft.names), draft.names)
    if draft.labels is None and (choice is None or choice.needs_names()) and not draft.refusal:
        derive(draft)
    if choice is not None:
        draft.labels, draft.mapping = choice.apply(draft.labels or named([], {}), draft.mapping)
    elif draft.refusal:
        raise LayoutError(draft.refusal, path=root)


def _with_patients(draft: Draft, pattern: str | None) -> tuple[Case, ...]:
    """Every case with its patient: by the user's pattern, else the layout, the DICOM PatientID, a
    common form of id, or the id itself.
    """
    if pattern is not None:
        return by_pattern(draft.cases, pattern)
    rules: Counter[str] = Counter()
    cases = []
    for case in draft.cases:
        known = "DICOM PatientID" if draft.layout in LAYOUTS[-1] else "the layout"
        for rule, name in (
            (known, case.patient),
            ("DICOM PatientID", _dicom_fact(case, "patient_id") if not case.patient else ""),
            ("the form of the case's id", patient_from_id(case.id)),
            ("the case's id itself", case.id),
        ):
            if name:
                rules[rule] += 1
                cases.append(replace(case, patient=name))
                break
    told = ", ".join(f"{rule} ({count} cases)" for rule, count in rules.items())
    draft.findings.append(
        Finding(
            "",
            "patient",
            "note",
            f"{len({c.patient for c in cases})} patients, told by {told}",
            {"rules": dict(rules)},
        )
    )
    return tuple(cases)


def _dicom_fact(case: Case, name: str) -> str:
    """``modality`` or ``patient_id`` of the case's first image where it is DICOM, else ""."""
    image = case.images[0]
    path = Path(image.path)
    try:
        if path.is_file() and files.detect(path) != "DICOM":
            return ""
        if not path.exists() or (path.is_dir() and not Tree().is_dicom(path)):
            return ""
        series = [s for s in dicom.find_series(path) if not image.series or s.uid == image.series]
    except (
        DelineateError
    ):  # one file that cannot be read is found out with its own case, and ends nobody else's
        return ""
    return str(getattr(series[0], name)) if series else ""


def _from_manifest(
    path: Path, choice: StructureSelection | None, patient: str | None
) -> DiscoveredCohort:
    manifest = Manifest.load(path)
    for case in manifest:
        for one in (*case.images, *case.label):
            if not Path(one.path).exists():
                raise InputError(
                    f"the manifest names {one.path}, which does not exist", case=case.id, path=path
                )
    if patient is not None:
        manifest = replace(manifest, cases=by_pattern(manifest.cases, patient))
    if choice is not None:
        labels, mapping = choice.apply(manifest.labels, manifest.mapping)
        manifest = replace(manifest, labels=labels, mapping=mapping)
    return DiscoveredCohort(
        manifest, (Finding("", "manifest", "note", f"the cases are those of {path}"),)
    )
