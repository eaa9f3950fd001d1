"""Find the cases of a cohort: recognise the layout of a folder.

The first tier with a matching layout wins. If two layouts of one tier find different cases, the
user must choose. Any other layout is described by a YAML file (``description.py``). Files are
recognised by their names; few are opened.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ....core.errors import InputError, LayoutError, UsageError
from ....core.inputs import refuse_special
from ....core.manifest import Case, Manifest
from ....extend.findings import DiscoveredCohort, Draft, Finding
from ....extend.parts import TIERS
from ....extend.registers import LAYOUTS, running
from ....formats import archive, files
from ..channel_count import with_channels
from ..completion import complete
from ..dicom_rules import DicomRules
from ..drafts.content import content_of
from ..drafts.pairing import is_other_mask
from ..drafts.paths import entries_below
from ..drafts.writing import ARRAYS_NEED, first_array
from ..patients import by_pattern
from ..splits import split_in
from ..structures import StructureSelection, all_ignored
from ..tree import Tree, case_ids, has_image_ending, source
from .modalities import in_stated_units, in_suv, of_modality, one_modality
from .scans_only import series_in
from .siblings import difference, joined, siblings_of
from .suffix_pairs import is_label

if TYPE_CHECKING:
    from ..description import Description

MOST_FOLDERS = 2000  # that are searched in one folder
DEEPEST = 2  # number of folder levels below the root that are searched for a cohort


def find(
    root: str | Path,
    *,
    layout: str | None = None,
    description: str | Path | None = None,
    labels: str | Path | StructureSelection | None = None,
    patient: str | None = None,
    ignore: Sequence[int] = (),
    modality: str | None = None,
    unit: str | None = None,
    fix_series: str | None = None,
    register_by: str | None = None,
) -> Manifest:
    """The cohort at ``root`` without the findings; arguments and errors as for ``discover``."""
    return discover(
        root,
        layout=layout,
        description=description,
        labels=labels,
        patient=patient,
        ignore=ignore,
        modality=modality,
        unit=unit,
        fix_series=fix_series,
        register_by=register_by,
    ).manifest


def discover(
    root: str | Path,
    *,
    layout: str | None = None,
    description: str | Path | None = None,
    labels: str | Path | StructureSelection | None = None,
    patient: str | None = None,
    ignore: Sequence[int] = (),
    modality: str | None = None,
    unit: str | None = None,
    fix_series: str | None = None,
    register_by: str | None = None,
    truth: bool = True,
) -> DiscoveredCohort:
    """The cohort at ``root`` and the findings made while it was searched.

    Args:
        root: a folder, a ``manifest.jsonl`` (or a folder that contains one), or one image file.
        layout: name of a registered layout, if several match.
        description: YAML file that describes another layout.
        labels: YAML file that names, merges or selects structures, or the selection itself.
        patient: regular expression with one group that finds the patient in a case's id.
        ignore: values in the masks whose voxels are ignored, besides those that the layout, the
            description or the selection states.
        modality: use only the cases of this modality (CT, MR, PT ...).
        unit: "suv" reads the PET channels as SUV by body weight.
        fix_series: how DICOM series with uneven gaps become even (``formats.dicom.fix``); None as
            the description states, which by default refuses them.
        register_by: "position" accepts DICOM labels in another frame of reference than their image,
            "frame" refuses them; None as the description states, by default "frame".
        truth: False if only the scans are needed: masks are found, but their structures are not
            determined.

    Raises:
        InputError: ``root`` does not exist.
        UsageError: arguments exclude each other. PartError: the layout is unknown.
        LayoutError: no layout was recognised, or more than one; no case has the modality, or no
            channel can have the unit.
        LabelError: the structures cannot be determined, or the selected ones do not exist.
    """
    from .. import description as describing

    root = Path(root)
    _refuse_unfit(root, layout, description)
    described = describing.load(description) if description else None
    choice = _selection(labels, described)
    if described is not None:
        fix_series = fix_series or described.fix_series
        register_by = register_by or described.register_by
    rules = DicomRules.of(fix_series, register_by)
    # A manifest lists its cases itself, so no layout is needed.
    written = root if root.suffix == ".jsonl" else root / "manifest.jsonl"
    if not (layout or description) and written.is_file():
        found = _from_manifest(written, choice, patient, ignore, modality, rules)
    else:
        with describing.naming(description):
            draft = _draft(root, layout, described, truth, rules)
        _choose_modality(draft, modality or _stated_modality(draft, described), root)
        found = complete(draft, root, choice, patient, ignore, truth, rules)
    return replace(found, manifest=_in_units(found.manifest, unit, described))


def _refuse_unfit(root: Path, layout: str | None, description: str | Path | None) -> None:
    """Check the arguments before any folder is read."""
    if layout and description:
        raise UsageError("a layout and a description exclude each other; give only one")
    if layout:
        LAYOUTS[layout]
    if not root.exists():
        raise InputError("no such file or folder", path=root)
    refuse_special(root)


def _selection(
    labels: str | Path | StructureSelection | None, described: Description | None
) -> StructureSelection | None:
    """The structures that the user selects, else those that a description of a layout does; one of
    patterns applies its own.
    """
    if isinstance(labels, StructureSelection):
        return labels
    if labels:
        return StructureSelection.load(labels)
    return described.selection if described is not None and described.layout else None


def _draft(
    root: Path,
    layout: str | None,
    described: Description | None,
    truth: bool,
    rules: DicomRules,
) -> Draft:
    """The cases by a description, which replaces the search for a layout, or by their layout."""
    tree = Tree(rules.fix_series)
    if described is not None:
        from .. import description as describing

        found_in = partial(_draft_of_folder, tree, truth=truth)
        return with_channels(describing.apply(described, root, found_in))
    if root.is_file() and truth and not files.is_folder(root):
        # A single file that is no scan is no cohort.
        files.read_grid(rules.of_images([source(root)])[0])
    if root.is_file():
        return _draft_of_file(tree, root)
    return _draft_of_folder(tree, root, layout, truth)


def _in_units(manifest: Manifest, unit: str | None, described: Description | None) -> Manifest:
    """The cohort in the unit of the user, else in those that a description of a layout states."""
    if described is not None and described.layout and unit is None:
        return in_stated_units(manifest, described.unit)
    return in_suv(manifest, unit)


def _stated_modality(draft: Draft, described: Description | None) -> str | None:
    """The modality by which a description selects cases of a layout that have several."""
    has_several = len({case.modality for case in draft.cases}) > 1
    return described.modality or None if described is not None and has_several else None


def _choose_modality(draft: Draft, wanted: str | None, root: Path) -> None:
    """Keep only the cases of one modality, or report that there are several."""
    if wanted is not None:
        kept = of_modality(draft.cases, wanted, draft.modality, root)
        gone = {case.id for case in draft.cases} - {case.id for case in kept}
        draft.cases = list(kept)
        draft.findings = [one for one in draft.findings if one.case not in gone]
    if one := one_modality(draft.cases):
        draft.modality = one
        draft.channels = (one,) if draft.channels == ("image",) else draft.channels
    counts = Counter(case.modality for case in draft.cases if case.modality)
    if len(counts) > 1:
        shown = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        words = f"the cases are of several modalities ({shown}) and one channel; --modality selects"
        draft.findings.append(Finding("", "modality", "warning", words, dict(counts)))


def _draft_of_file(tree: Tree, path: Path) -> Draft:
    """A single image file as a cohort of one case, or the series of an archive as cases."""
    if files.is_folder(path):
        return with_channels(series_in(tree, path, files.stem(path)))
    return with_channels(Draft("file", [Case(files.stem(path), "", (source(path),))]))


def _draft_of_folder(tree: Tree, root: Path, layout: str | None, truth: bool) -> Draft:
    """The cases of a folder; entries that are not regular files are reported as skipped, and as a
    failure if they are named like an image.
    """
    draft = with_channels(_recognise(tree, root, layout))
    if truth and not layout:
        _refuse_lost_masks(draft, root)
    for path, kind in tree.skipped.items():
        message = f"{path} is {kind} and was skipped; only regular files are opened"
        if has_image_ending(path):
            draft.problem(files.stem(path), "skipped", message, path=path)
        else:
            draft.note("skipped", message, path=path)
    used = [one.path + os.sep for case in draft.cases for one in (*case.images, *case.label)]
    for path in tree.folders_named_as_images:
        if not any(one.startswith(os.path.abspath(path) + os.sep) for one in used):
            message = f"{path} is a folder, but its name ends like an image file"
            draft.problem(files.stem(path), "skipped", message, path=path)
    return draft


def _refuse_lost_masks(draft: Draft, root: Path) -> None:
    """Raise if no case of a layout of images and masks has a mask, although some files are masks by
    their content: the layout fits only a part of the folder, or a mask would be an image.
    """
    tier = LAYOUTS[draft.layout].tier
    if tier == "described" or any(case.label for case in draft.cases):
        return
    entries = entries_below(root)
    masks = [one for one in entries if one.kind == "mask"]
    # Scans alone may have the content of masks, such as drawings.
    if tier == "files" and not any(one.kind == "image" for one in entries):
        return
    if masks := [one for one in masks if not is_other_mask(" ".join(one.parts))]:
        raise LayoutError(
            f"the layout {draft.layout} fits, but no case has a mask, although {len(masks)} of the "
            f"files that were read look like masks (such as {masks[0].path.relative_to(root)}); "
            f"`delineate check {root} --draft FILE` writes a description",
            path=root,
        )


# ---- recognising the layout ----


def _recognise(tree: Tree, root: Path, layout: str | None) -> Draft:
    """The draft of the given layout, else of the first tier that matches in or below ``root``."""
    if layout:
        draft = _drafted(layout, tree, root)
        if draft is None:
            raise LayoutError(
                f"the folder does not have the layout {layout}; {_content(tree, root)}", path=root
            )
        return draft
    # The specific tiers come first; folders below are searched only if nothing matches here.
    tiers = _tiers()
    for tier in tiers:
        if draft := _of_tier(tree, root, tier):
            return draft
    # The last tier is left out: images or DICOM files in some subfolder are no cohort.
    return _descend(tree, root, tiers[:-1])


def _tiers() -> list[list[str]]:
    """Names of the layouts that are tried on every folder, by tier, from specific to general."""
    found = list(LAYOUTS.items())
    tiers = [tier for tier in TIERS if tier != "on request"]
    return [[name for name, one in found if one.tier == tier] for tier in tiers]


def _drafted(layout: str, tree: Tree, root: Path) -> Draft | None:
    with running(LAYOUTS, layout):
        return LAYOUTS[layout].find(tree, root)


def _of_tier(tree: Tree, root: Path, tier: Sequence[str]) -> Draft | None:
    """The draft of the first layout in ``tier`` that matches; None if none matches.

    Raises:
        LayoutError: two layouts match and find different images.
    """
    drafts = [draft for name in tier if (draft := _drafted(name, tree, root)) is not None]
    # Two layouts that find the same images agree, and the first one is used.
    held = {frozenset(s.path for c in draft.cases for s in c.images) for draft in drafts}
    if len(held) > 1:
        fits = "; ".join(f"{draft.layout} ({len(draft.cases)} cases)" for draft in drafts)
        raise LayoutError(
            f"more than one layout matches: {fits}; choose one with --layout NAME, or write a "
            "description (check --draft FILE)",
            path=root,
        )
    return drafts[0] if drafts else None


def _descend(tree: Tree, root: Path, tiers: Sequence[Sequence[str]]) -> Draft:
    """The draft of the recognised folders below the root: the only one, or siblings as one cohort,
    else the only one at the smallest depth.

    Raises:
        LayoutError: no folder is recognised, or several that are no siblings.
    """
    found = _below(tree, root, tiers, DEEPEST)
    if not found:
        # A draft is made of files with geometry.
        how = f"`delineate check {root} --draft FILE` writes a first one"
        raise LayoutError(
            f"the layout was not recognised; {_content(tree, root)}. Describe it in a short YAML "
            f"file: {ARRAYS_NEED if first_array(root) else how}; "
            "docs/reference/layouts.md lists the known layouts",
            path=root,
        )
    siblings = siblings_of(root, found)
    if len(found) > 1 and not (why := difference(siblings)):
        return joined(siblings)
    # Folders that are no siblings: the others are deeper, such as examples of a program.
    depth = min(len(folder.relative_to(root).parts) for folder, _ in found)
    nearest = [one for one in found if len(one[0].relative_to(root).parts) == depth]
    if len(nearest) > 1:
        names = ", ".join(
            f"{folder.relative_to(root)} ({draft.layout})" for folder, draft in nearest[:6]
        ) + (" ..." if len(nearest) > 6 else "")
        raise LayoutError(
            f"several cohorts were found: {names}; {why}; give one of these folders, or describe "
            "them together (check --draft FILE)",
            path=root,
        )
    folder, draft = nearest[0]
    _add_test_images(tree, folder, draft)
    others = [str(other.relative_to(root)) for other, _ in found if other != folder]
    left = f"; {', '.join(others[:4])} was not used" if others else ""
    draft.note(
        "descended", f"the cohort was found in {folder.relative_to(root)}{left}", path=str(folder)
    )
    return draft


def _add_test_images(tree: Tree, folder: Path, draft: Draft) -> None:
    """Add the images of a folder for validation or test next to that of the training cases: of the
    same format, without masks, and with one file for each case.
    """
    if split_in(folder.name) != "train" or any(len(case.images) != 1 for case in draft.cases):
        return
    format_of = {Path(case.path).name[len(files.stem(case.path)) :].lower() for case in draft.cases}
    found = [
        Case(files.stem(path), "", (source(path),), (), split)
        for other in tree.folders(folder.parent)
        if (split := split_in(other.name)) in ("val", "test")
        for path in tree.images(other)
        if path.name[len(files.stem(path)) :].lower() in format_of and not is_label(path)
    ]
    if not found or content_of(Path(found[0].path)).kind == "mask":
        return
    ids = case_ids(
        [c.id for c in (*draft.cases, *found)], [c.split or "" for c in (*draft.cases, *found)]
    )
    new = [replace(case, id=one) for case, one in zip(found, ids[len(draft.cases) :], strict=True)]
    draft.cases += new
    names = ", ".join(sorted({Path(case.path).parent.name for case in found}))
    draft.note("siblings", f"{len(new)} images without masks in {names} are cases of its split")


def _below(
    tree: Tree, root: Path, tiers: Sequence[Sequence[str]], depth: int
) -> list[tuple[Path, Draft]]:
    """The nearest recognised folders below the root on each way down, at most ``depth`` deep."""
    found: list[tuple[Path, Draft]] = []
    # The limit bounds the time in large trees.
    for folder in tree.folders(root)[:MOST_FOLDERS]:
        if draft := next((d for tier in tiers if (d := _of_tier(tree, folder, tier))), None):
            found.append((folder, draft))
        elif depth > 1:
            found += _below(tree, folder, tiers, depth - 1)
    return found


def _content(tree: Tree, root: Path) -> str:
    """A sentence on the content of the folder, for error messages."""
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
    return "the folder contains " + " and ".join(parts)


def _from_manifest(
    path: Path,
    choice: StructureSelection | None,
    patient: str | None,
    ignore: Sequence[int],
    modality: str | None,
    rules: DicomRules,
) -> DiscoveredCohort:
    """The cohort of a ``manifest.jsonl``, with the user's patients, structures and rules for DICOM
    applied.

    Raises:
        InputError: a file that the manifest lists does not exist.
        LayoutError: no case has the modality.
    """
    manifest = Manifest.load(path)
    # A manifest may be older than its files, so check that all of them exist.
    for case in manifest:
        for one in (*case.images, *case.label):
            if not (Path(one.path).exists() or archive.is_file(Path(one.path))):
                raise InputError(
                    f"the manifest lists {one.path}, which does not exist", case=case.id, path=path
                )
    manifest = replace(manifest, cases=tuple(map(rules.of_case, manifest.cases)))
    if modality is not None:
        kept = of_modality(manifest.cases, modality, manifest.modality, path)
        manifest = replace(manifest, cases=kept, modality=one_modality(kept) or manifest.modality)
    if patient is not None:
        manifest = replace(manifest, cases=by_pattern(manifest.cases, patient))
    if choice is not None:
        labels, mapping = choice.apply(manifest.labels, manifest.mapping)
        manifest = replace(manifest, labels=labels, mapping=mapping)
    if ignored := all_ignored(manifest.mapping.ignore, choice, ignore):
        manifest = replace(manifest, mapping=replace(manifest.mapping, ignore=ignored))
    return DiscoveredCohort(
        manifest, (Finding("", "manifest", "note", f"the cases come from {path}"),)
    )
