"""Layouts with one folder per case and one file per modality in it, such as BraTS."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ....core.errors import DelineateError
from ....core.manifest import Case, Source
from ....core.terms import channel_of, is_known_channel
from ....extend.findings import Draft
from ....extend.registering import layout
from ....formats.files import read_grid, stem
from ..masks.published import SINCE_2023, UNTIL_2016, tables_for
from ..tables import rows_of
from ..tree import Tree, is_raster, most, source
from .modalities import first_word, modality_of, names_channel

FEW = 3  # cases whose grids are compared
# A word for ground truth anywhere in a file's key ("OT" is the ground truth of BraTS 2013).
_TRUTH = re.compile(
    r"(?i)^(?:.*[^a-z])?(ot|otmulticlass|seg|segmentation|label|labels|mask|truth|gt|ground_?truth"
    r"|annotation|manual|segm|gtv)(?:[^a-z].*)?$"
)


@layout("modality-files", definition="ID/ID_t1.*, ID/ID_seg.*", tier="channels")
def modality_files(tree: Tree, root: Path) -> Draft | None:
    """One folder per case with one file per modality and one of ground truth, such as BraTS
    (``CASE/CASE_flair.nii.gz`` or ``CASE/Flair_….nii.gz``).

    A file belongs to the cohort if at least half of the cases have one with its key. Keys that are
    neither a modality nor ground truth are reported as unused.
    """
    folders = {f: _keys(tree, f) for f in tree.folders(root)}
    folders = _spelt_alike({f: keys for f, keys in folders.items() if keys})
    if not most(tree, root, list(folders)):
        return None
    # Find out which keys are channels, ground truth or neither.
    common = _common_keys(folders.values())
    truths = [k for k in common if _TRUTH.match(k)]
    channels = [k for k in common if names_channel(k) and k not in truths]
    # With several ground truths it is not clear which one counts.
    if not channels or len(truths) > 1:
        return None
    draft = Draft("modality-files", [], tuple(channels), modality=modality_of(channels))
    unused = [k for k in common if k not in channels and k not in truths]
    if unused:
        draft.note(
            "unused",
            f"files {', '.join(unused)} of each case are neither a channel nor ground truth and "
            "were not used",
            names=unused,
        )
    for folder, keys in folders.items():
        _add_modality_case(draft, folder, keys, truths)
    _put_mask_grid_first(draft)
    tables = _brats_tables(root, folders, channels)
    if len(tables) == 1:
        draft.names, draft.usual = dict(tables[0]), True
    draft.editions = tables
    _set_grades(root, draft)
    return draft if draft.cases else None


def _put_mask_grid_first(draft: Draft) -> None:
    """Put a channel on the grid of the masks first, because its grid is that of the case."""
    for case in [case for case in draft.cases if case.label][:FEW]:
        try:
            shape = read_grid(case.label[0]).shape
            shapes = [read_grid(image).shape for image in case.images]
        except DelineateError:  # reported where the files are read
            continue
        if shapes[0] == shape or shape not in shapes:
            return
        first = shapes.index(shape)
        order = [first, *(n for n in range(len(shapes)) if n != first)]
        draft.cases = [
            replace(one, images=tuple(one.images[n] for n in order)) for one in draft.cases
        ]
        draft.channels = tuple(draft.channels[n] for n in order)
        words = f"{draft.channels[0]} is the first channel, because the masks are on its grid"
        draft.note("channels", words)
        return


def _set_grades(root: Path, draft: Draft) -> None:
    """Set the groups from the column Grade of ``name_mapping.csv`` (BraTS 2020): the row of a case
    has its id in one of the columns.
    """
    path = root / "name_mapping.csv"
    if not path.is_file():
        return
    grades = {value: row.get("grade", "") for row in rows_of(path) for value in row.values()}
    draft.settings.append(path)
    draft.cases = [replace(case, group=grades.get(case.id, "")) for case in draft.cases]


def _spelt_alike(folders: dict[Path, dict[str, Path]]) -> dict[Path, dict[str, Path]]:
    """The keys of all folders, with one spelling for each known channel: the most frequent one
    (``t1ce`` in some cases and ``t1c`` in others are one sequence).
    """
    spelt: dict[str, Counter[str]] = {}
    for keys in folders.values():
        channels = [k for k in keys if is_known_channel(k)]
        for key in channels:
            spelt.setdefault(channel_of(key), Counter())[key] += 1
        # Two files of one case are not the same channel, whatever their names.
        if len({channel_of(key) for key in channels}) < len(channels):
            return folders
    usual = {key: keys.most_common(1)[0][0] for keys in spelt.values() for key in keys}
    return {
        folder: {usual.get(key, key): path for key, path in keys.items()}
        for folder, keys in folders.items()
    }


def _common_keys(of_folders: Iterable[dict[str, Path]]) -> list[str]:
    """The keys that at least half of the case folders have, in the order of their first use."""
    of_cases = list(of_folders)
    held = [k for keys in of_cases for k in keys]
    return [k for k in dict.fromkeys(held) if held.count(k) >= max(1, len(of_cases) / 2)]


def _add_modality_case(
    draft: Draft, folder: Path, keys: dict[str, Path], truths: Sequence[str]
) -> None:
    """Add the case in ``folder``, or a problem if it lacks a channel of ``draft``.

    Args:
        draft: the draft with its channels.
        folder: the case's folder; its name is the case's id.
        keys: key -> file, from ``_keys``.
        truths: the key of the ground truth, at most one.
    """
    channels = draft.channels
    lacking = [k for k in channels if k not in keys]
    if lacking:
        message = (
            f"channel {', '.join(lacking)} is missing in {folder}; the cohort has "
            f"{', '.join(channels)}"
        )
        draft.problem(
            folder.name,
            "missing",
            message,
            have={k: os.path.abspath(keys[k]) for k in channels if k in keys},
        )
        return
    label = tuple(source(keys[k]) for k in truths if k in keys)
    if truths and not label:
        label = _renamed_truth(draft, folder, keys, truths[0])
    draft.cases.append(Case(folder.name, "", tuple(source(keys[k]) for k in channels), label))


def _renamed_truth(
    draft: Draft, folder: Path, keys: dict[str, Path], wanted: str
) -> tuple[Source, ...]:
    """The only other file of the case that is named like a mask, with a note (BraTS 2020 has such a
    case); () with a warning if there is none.
    """
    others = [path for key, path in keys.items() if key not in draft.channels and _TRUTH.match(key)]
    if len(others) == 1:
        words = f"{others[0].name} is used as {wanted}, which this case lacks"
        draft.problem(folder.name, "unpaired", words, "note")
        return (source(others[0]),)
    draft.problem(
        folder.name,
        "unpaired",
        f"no {wanted} (the ground truth of the other cases) in {folder}",
        "warning",
    )
    return ()


def _keys(tree: Tree, folder: Path) -> dict[str, Path]:
    """Key -> file for the images of a case folder (2-D images are left out).

    The key is the file stem without the folder's name and without a suffix that several files
    share: ``P1/P1_flair_reg``, ``P1/P1_t1_reg`` have the keys ``flair`` and ``t1``.
    """
    # Remove the folder name, which most files repeat.
    files = {
        re.sub(rf"^{re.escape(folder.name)}[_.-]?", "", stem(p)) or "image": p
        for p in tree.images(folder)
        if not is_raster(p)
    }
    # Remove a suffix that several files share, such as a processing step.
    endings = [name.split("_", 1)[1] for name in files if "_" in name]
    shared = {e for e in endings if endings.count(e) > 1}
    short = {
        (name.split("_", 1)[0] if "_" in name and name.split("_", 1)[1] in shared else name): p
        for name, p in files.items()
    }
    return short if len(short) == len(files) else files  # CT_image and CT_mask stay apart


def _brats_tables(
    root: Path, folders: Iterable[Path], channels: Sequence[str]
) -> tuple[Mapping[int, str], ...]:
    """The tumour classes of the editions of BraTS that the case folders are named after. Other
    trees whose names mention BraTS have those until 2016, or since 2023 if a channel is called
    "t2f". () for other trees, because the sequences alone do not tell what the values mean.
    """
    names = [folder.name for folder in folders]
    if tables := tables_for(names):
        return tables
    if not any("brats" in name.lower() for name in (str(root), *names)):
        return ()
    return (SINCE_2023 if "t2f" in {first_word(c) for c in channels} else UNTIL_2016,)
