"""Which channels of a model a scan has: by the channels' names, whatever the case of their letters.

Cohorts of several modalities keep a file each: ``CASE/flair.nii.gz``, ``CASE/CASE_t1c.nii.gz``, or flat ``CASE_flair.nii.gz``. What a
cohort's layout drops as incomplete must be seen here, so that a scan that lacks a channel is refused by its name, or
delineated without it. It goes by names and opens no file.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..core.errors import InputError, LayoutError
from ..core.manifest import ABSENT, Case, Manifest, Source
from ..formats.files import is_image, stem
from .findings import Found
from .tree import Tree, source

_TRUTH = re.compile(r"(?i)(?<![a-z0-9])(seg|segmentation|mask|masks|label|labels|gt|truth|ground_?truth|pred|prediction)(?![a-z0-9])")


def by_names(root: Path, wanted: Sequence[str]) -> list[Case]:
    """The scans in a folder, and in the folders in it, whose files tell by name which of the channels ``wanted`` they hold; [] where none does."""
    tree = Tree()
    return grouped([path for folder in (root, *tree.folders(root)) for path in tree.images(folder)], wanted)


def grouped(paths: Iterable[Path], wanted: Sequence[str]) -> list[Case]:
    """These files as scans with ``ABSENT`` for the channels that a scan lacks; files that tell no channel, or several, are left out.

    Files of one scan stand in one folder and have the same name up to the channel's (``c1_flair``, ``c1_t1``). Where nothing stands before
    it, the files of a folder are one scan with the folder's name (``c1/flair_x``, ``c1/t1_y``), or several where a channel occurs more
    than once, told by what stands after it (``flair_1``, ``t1_1``, ``flair_2``).

    Raises:
        LayoutError: two files for one channel of one scan.
    """
    told = [(Path(os.path.abspath(path)), found) for path in paths if (found := _channel_of(stem(path), wanted)) and is_image(path)]
    bare = Counter((path.parent, index) for path, (index, before, _) in told if not before)
    several = {folder for (folder, _), count in bare.items() if count > 1}
    scans: dict[tuple[Path, str], dict[int, Path]] = {}
    for path, (index, before, after) in told:
        held = scans.setdefault((path.parent, before or (after if path.parent in several else "")), {})
        if index in held:
            raise LayoutError(f"{held[index].name} and {path.name} could both be its channel {wanted[index]}", case=before or None, path=path.parent)
        held[index] = path
    return [
        Case(name or folder.name, name or folder.name, tuple(source(held[n]) if n in held else ABSENT for n in range(len(wanted))))
        for (folder, name), held in scans.items()
    ]


def _channel_of(name: str, wanted: Sequence[str]) -> tuple[int, str, str] | None:
    """(index of the channel that ``name`` tells, what stands before it, and after); None for a mask, or where it tells none or several."""
    if _TRUTH.search(name):
        return None
    spans: list[tuple[int, int, int]] = []
    for index in sorted(range(len(wanted)), key=lambda n: -len(wanted[n])):  # T1_Gd before T1
        for match in re.finditer(rf"(?i)(?<![a-z0-9]){re.escape(wanted[index])}(?![a-z0-9])", name):
            if all(match.end() <= low or match.start() >= high for low, high, _ in spans):
                spans.append((match.start(), match.end(), index))
    if len({index for _, _, index in spans}) != 1:
        return None
    start, stop, index = max(spans)
    return index, name[:start].strip("_.- "), name[stop:].strip("_.- ")


def incomplete(found: Found) -> list[Case]:
    """The cases that a layout left out because they lack channels, with ``ABSENT`` where a channel is missing."""
    cases = []
    for finding in found.findings:
        have: Mapping[str, str] = finding.data.get("have", {})
        if finding.kind == "missing" and set(have) & set(found.manifest.channels):
            images = tuple(Source(have[name]) if name in have else ABSENT for name in found.manifest.channels)
            cases.append(Case(finding.case, finding.case, images))
    return cases


def in_order(case: Case, channels: Sequence[str], wanted: Sequence[str]) -> Case:
    """The case with its channels, called ``channels``, in the order of ``wanted``: by name where the names agree, else in order.

    A channel of ``wanted`` that the cohort does not have at all becomes ``ABSENT`` where the others agree by name.

    Raises:
        InputError: they agree neither by name nor in number.
    """
    known, asked = [name.lower() for name in channels], [name.lower() for name in wanted]
    a_file_each = len(case.images) == len(channels)
    if a_file_each and set(asked) <= set(known):
        return replace(case, images=tuple(case.images[known.index(name)] for name in asked))
    if len(channels) == len(wanted) or len(case.images) == len(wanted):
        return case
    if a_file_each and set(known) & set(asked):
        return replace(case, images=tuple(case.images[known.index(name)] if name in known else ABSENT for name in asked))
    found = f"found {len(channels)} channel(s) ({', '.join(channels)}), the model takes {len(wanted)} ({', '.join(wanted)})"
    raise InputError(found, case=case.id, path=case.path)


def missing(case: Case, manifest: Manifest) -> tuple[str, ...]:
    """Names of the channels that the case lacks."""
    return tuple(name for name, image in zip(manifest.channels, case.images, strict=False) if image == ABSENT)


def only_present(case: Case, manifest: Manifest) -> tuple[Case, Manifest]:
    """The case without its absent channels, and a manifest that knows no others: what can be read."""
    lacking = missing(case, manifest)
    if not lacking:
        return case, manifest
    here = replace(case, images=tuple(image for image in case.images if image != ABSENT))
    return here, Manifest((here,), tuple(name for name in manifest.channels if name not in lacking), manifest.labels)
