"""Match the channels of a scan to those of a model, by name and meaning (``core.terms``) or as the
user states them.

Cohorts with several modalities have one file per channel: ``CASE/flair.nii.gz``,
``CASE/CASE_t1c.nii.gz``, or ``CASE_flair.nii.gz`` in one folder. A layout drops a scan that lacks a
channel. This module still returns it, so that it is either reported by name or segmented without
the channel. It uses names only and opens no file.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ...core.errors import DelineateError, InputError, LayoutError, UsageError
from ...core.manifest import ABSENT, Case, Manifest, Source
from ...core.terms import (
    candidates_of,
    is_known_channel,
    match_channels,
    may_be,
    number_of_channel,
    read,
)
from ...extend.findings import DiscoveredCohort
from ...formats.files import stem
from .tree import Tree, may_be_image, shared_start, source

# How the training data identified its channels if they had no names.
Numbered = Literal["", "files", "one file"]
_TRUTH = re.compile(
    r"(?i)(?<![a-z0-9])(seg|segmentation|mask|masks|label|labels|gt|truth|ground_?truth"
    r"|pred|prediction)(?![a-z0-9])"
)


def by_names(root: Path, wanted: Sequence[str], failures: dict[str, DelineateError]) -> list[Case]:
    """The scans in ``root`` and in its subfolders whose file names give a channel of ``wanted``; []
    if there are none.

    The other arguments are those of ``grouped``.
    """
    tree = Tree()
    folders = [root, *tree.folders(root)]
    # Folders inside a scan's folder that are named after a channel.
    inner = [
        folder
        for scan in tree.folders(root)
        for folder in tree.folders(scan)
        if read(folder.name, in_file_name=True).identity
    ]
    return grouped(
        [path for folder in (*folders, *inner) for path in tree.images(folder)], wanted, failures
    )


def grouped(
    paths: Iterable[Path], wanted: Sequence[str], failures: dict[str, DelineateError]
) -> list[Case]:
    """Group files into scans, with ``ABSENT`` for each channel that a scan lacks.

    Files whose name gives no channel, or several, are left out. The files of one scan are in one
    folder and have the same text before the channel (``c1_flair``, ``c1_t1``). If there is no text
    before it, the files of a folder are one scan with the folder's name (``c1/flair_x``,
    ``c1/t1_y``). If a channel then occurs more than once, the text after it separates the scans
    (``flair_1``, ``t1_1``, ``flair_2``). Folders named after a channel (``c1/MR_Flair.1/x.mha``)
    belong to the scan of the folder above.

    Args:
        paths: the files.
        wanted: names of the model's channels.
        failures: receives an error for each scan in which several files could be the same channel;
            such a scan is left out.
    """
    named = [
        found
        for path in paths
        if may_be_image(path) and (found := _named(Path(os.path.abspath(path)), wanted))
    ]
    # Folders with several scans whose names begin with the channel ("flair_1", "flair_2").
    bare = Counter((file.folder, file.channel) for file in named if not file.before)
    several = {folder for (folder, _), count in bare.items() if count > 1}
    scans: dict[tuple[Path, str], list[_NamedFile]] = {}
    for file in named:
        # The text before the channel names the scan, else the text after it, else the folder.
        text = file.before or (file.after if file.folder in several else "")
        scans.setdefault((file.folder, text), []).append(file)
    cases = []
    for (folder, text), files in scans.items():
        name = text or folder.name
        given = [file.channel for file in files]
        at = match_channels(given, wanted)
        # Several files for one channel: it is not known which one counts.
        if unclear := candidates_of(given, wanted):
            n, places = next(iter(unclear.items()))
            failures[name] = LayoutError(
                f"{' and '.join(files[k].path.name for k in places)} could both be its channel "
                f"{wanted[n]}; state the channels with --channels",
                case=name,
                path=folder,
            )
        elif any(place is not None for place in at):
            images = tuple(ABSENT if k is None else source(files[k].path) for k in at)
            cases.append(Case(name, name, images))
    return cases


@dataclass(frozen=True)
class _NamedFile:
    """A file, the folder of its scan, its channel, and the text before and after it in the name."""

    path: Path
    folder: Path
    channel: str
    before: str
    after: str


def _named(path: Path, wanted: Sequence[str]) -> _NamedFile | None:
    """The file with the channel that its name gives.

    None for a mask, or if the name gives no channel or several.
    """
    name = stem(path)
    if _TRUTH.search(name):
        return None
    found = read(name, in_file_name=True)
    if not found.has_evidence:
        return _named_as_written(path, wanted)
    if not found.identity:
        return None
    folder, before, after = path.parent, found.before, found.after
    # One folder for each channel, as in BraTS 2012 to 2015.
    if read(folder.name, in_file_name=True).identity == found.identity:
        folder, before, after = folder.parent, "", ""
    return _NamedFile(path, folder, found.identity, before.strip("_.- "), after.strip("_.- "))


def _named_as_written(path: Path, wanted: Sequence[str]) -> _NamedFile | None:
    """The file with the one of ``wanted`` that its name contains as a word; None if it contains
    none, or several. Only names that are in no table are searched.
    """
    name, found = stem(path), []
    for channel in wanted:
        if not is_known_channel(channel):
            words = r"[\s_.-]*".join(map(re.escape, channel.split()))
            pattern = re.compile(rf"(?i)(?<![a-z0-9]){words}(?![a-z0-9])")
            found += [(channel, match) for match in pattern.finditer(name)]
    if len({channel for channel, _ in found}) != 1:
        return None
    channel, match = found[-1]
    before, after = name[: match.start()], name[match.end() :]
    return _NamedFile(path, path.parent, channel, before.strip("_.- "), after.strip("_.- "))


def incomplete(found: DiscoveredCohort) -> list[Case]:
    """The cases that a layout left out for a missing channel, with ``ABSENT`` in its place."""
    cases = []
    for finding in found.findings:
        have: Mapping[str, str] = finding.data.get("have", {})
        # A layout records the files that it found in the data of the finding "missing".
        if finding.kind == "missing" and set(have) & set(found.manifest.channels):
            images = tuple(
                Source(have[name]) if name in have else ABSENT for name in found.manifest.channels
            )
            cases.append(Case(finding.case, finding.case, images))
    return cases


def in_order(
    case: Case, channels: Sequence[str], wanted: Sequence[str], numbered: Numbered = ""
) -> Case:
    """The case with its channels in the order of the model's.

    A channel is found by its name, else by its identity (``core.terms``); the order alone is no
    evidence. If the cohort's channels have numbers instead of names (``CASE_0000``, or channels of
    one file), their order is used, but only for a model that was trained on such data.

    Args:
        case: the case.
        channels: names of the case's channels.
        wanted: names of the model's channels.
        numbered: how the training data identified its channels, if by numbers.

    Returns:
        The case with a source for each channel. If each channel has its own file and some match, a
        channel that the cohort does not have becomes ``ABSENT``.

    Raises:
        InputError: the channels cannot be matched; the message lists both sides.
    """
    a_file_each = len(case.images) == len(channels) and len(channels) > 1
    kind: Numbered = "files" if a_file_each else "one file"
    if _numbers_differ(channels, wanted, numbered, kind):
        raise InputError(_both_sides(channels, wanted), case=case.id, path=case.path)
    at = match_channels(channels, wanted)
    if unclear := candidates_of(channels, wanted):
        raise InputError(
            _several_candidates(channels, wanted, unclear), case=case.id, path=case.path
        )
    if len(wanted) == 1:
        _refuse_other_sequence(case, channels, wanted[0])
    # Every channel was found by name or identity.
    if None not in at:
        if at == list(range(len(channels))):
            return case
        return replace(
            case, images=tuple(_channel_at(case, channels, n) for n in at if n is not None)
        )
    # Some were found: the others are absent. This needs one file per channel.
    if a_file_each and any(n is not None for n in at):
        return replace(case, images=tuple(ABSENT if n is None else case.images[n] for n in at))
    # A general name such as "image", or numbers, may still stand for the model's channels.
    if len(channels) == len(wanted) == 1 and may_be(channels[0], wanted[0]):
        return case
    if numbered == kind and len(channels) == len(wanted) and _counts_up(channels):
        return case
    raise InputError(_both_sides(channels, wanted), case=case.id, path=case.path)


def _numbers_differ(
    channels: Sequence[str], wanted: Sequence[str], numbered: Numbered, kind: Numbered
) -> bool:
    """Whether case and model both have numbered channels that do not correspond: files and channels
    of one file are mixed, or the case has a number that the model does not have.
    """
    have = [number_of_channel(name) for name in channels]
    needed = [number_of_channel(name) for name in wanted]
    if None in have or None in needed or len(wanted) < 2 or not numbered:
        return False
    # A case may lack a channel, but must not have one that the model does not know.
    return numbered != kind or not set(have) <= set(needed)


def _counts_up(channels: Sequence[str]) -> bool:
    """Whether the channels are numbered 0, 1, 2, ... in this order."""
    return [number_of_channel(name) for name in channels] == list(range(len(channels)))


def _refuse_other_sequence(case: Case, channels: Sequence[str], wanted: str) -> None:
    """Refuse a single file whose name gives another image than the model needs, unless the channel
    itself has a telling name.

    Raises:
        InputError: the name gives another image.
    """
    if len(channels) != 1 or is_known_channel(channels[0]):
        return
    if stated := other_image(case.path, wanted):
        raise InputError(
            f"the file name suggests {stated}, but the model needs {wanted}; if it really is "
            f"{wanted}, state it with --channels {wanted}={channels[0]}",
            case=case.id,
            path=case.path,
        )


def other_image(path: str | Path, wanted: str) -> str:
    """The image that the name of a file gives, if it cannot be the channel ``wanted``; "" if it
    can, or if the name gives several images or none.
    """
    stated = read(stem(path), in_file_name=True).identity
    known = bool(stated) and is_known_channel(wanted)
    return stated if known and not may_be(stated, wanted) else ""


def _channel_at(case: Case, channels: Sequence[str], index: int) -> Source:
    """The source of the cohort's channel ``index``: its own file, or a part of the only file."""
    return (
        case.images[index]
        if len(case.images) == len(channels)
        else replace(case.images[0], channel=index)
    )


def _both_sides(channels: Sequence[str], wanted: Sequence[str]) -> str:
    """The error message for channels that cannot be matched, with both lists of names."""
    example = ",".join(f"{name}=..." for name in wanted[:2]) + (",..." if len(wanted) > 2 else "")
    return (
        f"found {len(channels)} channel(s) ({', '.join(channels)}), the model takes "
        f"{len(wanted)} ({', '.join(wanted)}), and the names do not match; state the channels with "
        f"--channels {example}, giving a file or one of the names found for each"
    )


def _several_candidates(
    channels: Sequence[str], wanted: Sequence[str], unclear: Mapping[int, Sequence[int]]
) -> str:
    """The error message for channels of the model that several channels of the case could be."""
    listed = "; ".join(
        f"{wanted[n]} could be {' or '.join(channels[k] for k in places)}"
        for n, places in unclear.items()
    )
    return f"{listed}. {_both_sides(channels, wanted)}"


def numbered(manifest: Manifest) -> Numbered:
    """How the cohort identifies its channels, if by numbers; "" for named channels.

    A model stores this, because only a model trained on numbered channels accepts numbers again.
    """
    if len(manifest.channels) < 2:
        return ""
    if all(len(case.images) == 1 for case in manifest):
        return "one file"
    # nnU-Net has names in dataset.json, but its files are numbered.
    numbers = all(number_of_channel(name) is not None for name in manifest.channels)
    return "files" if numbers or manifest.layout == "nnunet-raw" else ""


def stated(pairs: Mapping[str, str], wanted: Sequence[str]) -> Mapping[int, str]:
    """Index of the model's channel -> VALUE, from ``--channels NAME=VALUE,...``.

    Raises:
        UsageError: a name is not a channel of the model, or is given twice.
    """
    found: dict[int, str] = {}
    for name, value in pairs.items():
        # A name is accepted in any spelling that means the same channel.
        index = match_channels(wanted, [name])[0]
        if index is None or index in found:
            problem = "is not a channel of the model" if index is None else "is given twice"
            raise UsageError(f"--channels: {name!r} {problem}; the model takes {', '.join(wanted)}")
        found[index] = value
    return found


def as_stated(
    case: Case, channels: Sequence[str], wanted: Sequence[str], said: Mapping[int, str]
) -> Case:
    """The case with its channels in the order that the user stated.

    Args:
        case: the case.
        channels: names of the case's channels.
        wanted: names of the model's channels.
        said: index of the model's channel -> name or number of the case's channel; a channel that
            is not in it becomes ``ABSENT``.

    Raises:
        UsageError: a value of ``said`` is not one of ``channels``.
    """
    images = []
    for index in range(len(wanted)):
        if index not in said:
            images.append(ABSENT)
            continue
        # A channel is found by its name, else by its number ("1" is channel "0001").
        place = match_channels(channels, [said[index]])[0]
        number = number_of_channel(said[index])
        if place is None and number is not None:
            place = next(
                (n for n, name in enumerate(channels) if number_of_channel(name) == number), None
            )
        if place is None:
            raise UsageError(
                f"--channels: {wanted[index]}={said[index]} is neither a file nor a channel of "
                f"{case.id}; its channels are {', '.join(channels)}"
            )
        # The only channel is the whole file; one of several may be a part of it.
        images.append(_channel_at(case, channels, place) if len(channels) > 1 else case.images[0])
    return replace(case, images=tuple(images))


def of_files(said: Mapping[int, str], wanted: Sequence[str]) -> Case:
    """The scan whose files the user gave with ``--channels``.

    Its id is the common start of the file names, else the name of the folder.

    Raises:
        InputError: a file does not exist.
    """
    paths = {index: Path(value) for index, value in said.items()}
    for path in paths.values():
        # "FOLDER#SERIES" is one DICOM series of a folder, so the path itself does not exist.
        if not path.exists() and "#" not in path.name:
            raise InputError("does not exist", path=path)
    images = tuple(source(paths[n]) if n in paths else ABSENT for n in range(len(wanted)))
    # If the file names contain only the channel, the folder gives the name.
    name = (
        _common_name([stem(path) for path in paths.values()])
        or next(iter(paths.values())).resolve().parent.name
        or "scan"
    )
    return Case(name, name, images)


def _common_name(names: Sequence[str]) -> str:
    """The common start of the names, cut to whole words; "" if there is none."""
    shared = shared_start(names)
    if shared in names and len(set(names)) == 1:
        return shared
    # Cut at the last separator: the text after it differs or is the start of a channel name.
    words = re.match(r"(.*)[_.-]", shared)
    return words[1].strip("_.- ") if words else ""


def missing(case: Case, manifest: Manifest) -> tuple[str, ...]:
    """Names of the channels that the case lacks, in the order of the manifest."""
    return tuple(
        name for name, image in zip(manifest.channels, case.images, strict=False) if image == ABSENT
    )


def only_present(case: Case, manifest: Manifest) -> tuple[Case, Manifest]:
    """The case without its absent channels, and a manifest of this case with the remaining ones,
    so that the image can be read.
    """
    lacking = missing(case, manifest)
    if not lacking:
        return case, manifest
    here = replace(case, images=tuple(image for image in case.images if image != ABSENT))
    return here, Manifest(
        (here,), tuple(name for name in manifest.channels if name not in lacking), manifest.labels
    )
