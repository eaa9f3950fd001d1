"""Which channels of a model a scan has: by the channels' names and what they mean (``core.terms``),
or as a user states it.

Cohorts of several modalities keep a file each: ``CASE/flair.nii.gz``, ``CASE/CASE_t1c.nii.gz``, or
flat ``CASE_flair.nii.gz``. What a cohort's layout drops as incomplete must be seen here, so that a
scan that lacks a channel is refused by its name, or delineated without it. It goes by names and
opens no file.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ...core.errors import DelineateError, InputError, LayoutError, UsageError
from ...core.manifest import ABSENT, Case, Manifest, Source
from ...core.terms import (
    CHANNELS,
    NOT_MR,
    channel_of,
    channel_spans,
    match_channels,
    may_be,
    number_of_channel,
    read_with_rest,
)
from ...formats.files import stem
from ..findings import DiscoveredCohort
from .tree import Tree, may_be_image, shared_start, source

# How the channels of a training were told apart where they had no names.
Numbered = Literal["", "files", "one file"]
_TRUTH = re.compile(
    r"(?i)(?<![a-z0-9])(seg|segmentation|mask|masks|label|labels|gt|truth|ground_?truth|pred|prediction)(?![a-z0-9])"
)


def by_names(root: Path, wanted: Sequence[str], failures: dict[str, DelineateError]) -> list[Case]:
    """The scans in a folder, and in the folders in it, whose files tell by name which of the
    channels ``wanted`` they hold; [] where none does. ``failures`` as of ``grouped``.
    """
    tree = Tree()
    return grouped(
        [path for folder in (root, *tree.folders(root)) for path in tree.images(folder)],
        wanted,
        failures,
    )


def grouped(
    paths: Iterable[Path], wanted: Sequence[str], failures: dict[str, DelineateError]
) -> list[Case]:
    """These files as scans with ``ABSENT`` for the channels that a scan lacks; files that tell no
    channel, or several, are left out.

    Files of one scan stand in one folder and have the same name up to the channel's (``c1_flair``,
    ``c1_t1``). Where nothing stands before it, the files of a folder are one scan with the folder's
    name (``c1/flair_x``, ``c1/t1_y``), or several where a channel occurs more than once, told by
    what stands after it (``flair_1``, ``t1_1``, ``flair_2``).

    Args:
        failures: is given each scan of which two files could be one channel; it is left out.
    """
    told = [
        (Path(os.path.abspath(path)), found)
        for path in paths
        if (found := _channel_of(stem(path), wanted)) and may_be_image(path)
    ]
    bare = Counter((path.parent, index) for path, (index, before, _) in told if not before)
    several = {folder for (folder, _), count in bare.items() if count > 1}
    scans: dict[tuple[Path, str], dict[int, Path]] = {}
    unclear: set[tuple[Path, str]] = set()
    for path, (index, before, after) in told:
        key = path.parent, before or (after if path.parent in several else "")
        held = scans.setdefault(key, {})
        if index in held:
            unclear.add(key)
            name = key[1] or path.parent.name
            failures[name] = LayoutError(
                f"{held[index].name} and {path.name} could both be its channel {wanted[index]}",
                case=name,
                path=path.parent,
            )
        held[index] = path
    return [
        Case(
            name or folder.name,
            name or folder.name,
            tuple(source(held[n]) if n in held else ABSENT for n in range(len(wanted))),
        )
        for (folder, name), held in scans.items()
        if (folder, name) not in unclear
    ]


def _channel_of(name: str, wanted: Sequence[str]) -> tuple[int, str, str] | None:
    """The index of the channel that a file's name gives, and the parts of the name before and
    after it; None for a mask, or where the name gives no channel or several.
    """
    if _TRUTH.search(name):
        return None
    identities = [channel_of(channel) for channel in wanted]
    found = _only_channel(
        name, [span for span in channel_spans(name, wanted) if identities.count(span[2]) == 1]
    )
    if found is None or identities.count(found[0]) != 1:
        return None
    identity, before, after = found
    return identities.index(identity), before.strip("_.- "), after.strip("_.- ")


def _only_channel(name: str, spans: Sequence[tuple[int, int, str]]) -> tuple[str, str, str] | None:
    """The one identity that ``spans`` of a file's name give, as the whole name says it ("" for a
    map), and the parts of the name before and after it; None where they give none or several.
    """
    if len({identity for _, _, identity in spans}) != 1:
        return None
    start, stop, identity = max(spans)
    before, after = name[:start], name[stop:]
    return read_with_rest(identity, f"{before} {after}"), before, after


def incomplete(found: DiscoveredCohort) -> list[Case]:
    """The cases that a layout left out because they lack channels, with ``ABSENT`` where a channel
    is missing.
    """
    cases = []
    for finding in found.findings:
        have: Mapping[str, str] = finding.data.get("have", {})
        if finding.kind == "missing" and set(have) & set(found.manifest.channels):
            images = tuple(
                Source(have[name]) if name in have else ABSENT for name in found.manifest.channels
            )
            cases.append(Case(finding.case, finding.case, images))
    return cases


def in_order(
    case: Case, channels: Sequence[str], wanted: Sequence[str], numbered: Numbered = ""
) -> Case:
    """The case with its channels, called ``channels``, in the order of ``wanted``.

    A channel is found by its name, else by its identity (``core.terms``); order alone is no
    evidence. Where the cohort's channels have numbers instead of names (``CASE_0000``, or places in
    one file), they are taken in order by a model that was trained on such.

    Args:
        numbered: how the channels of the model's training were told apart, where by numbers.

    Returns:
        The case with a source for each channel. Of files with a channel each, one that the cohort
        does not have at all becomes ``ABSENT`` where others agree.

    Raises:
        InputError: the channels cannot be told; both sides are listed.
    """
    a_file_each = len(case.images) == len(channels) and len(channels) > 1
    kind = "files" if a_file_each else "one file"
    numbers = [number_of_channel(name) for name in (*channels, *wanted)]
    if (
        None not in numbers
        and len(wanted) > 1
        and numbered
        and (numbered != kind or not set(numbers[: len(channels)]) <= set(numbers[len(channels) :]))
    ):
        raise InputError(_both_sides(channels, wanted), case=case.id, path=case.path)
    at = match_channels(channels, wanted)
    if len(wanted) == 1:
        _refuse_other_sequence(case, channels, wanted[0])
    if None not in at:
        if at == list(range(len(channels))):
            return case
        return replace(
            case, images=tuple(_channel_at(case, channels, n) for n in at if n is not None)
        )
    if a_file_each and any(n is not None for n in at):
        return replace(case, images=tuple(ABSENT if n is None else case.images[n] for n in at))
    if len(channels) == len(wanted) == 1 and may_be(channels[0], wanted[0]):
        return case
    by_number = [number_of_channel(name) for name in channels] == list(range(len(channels)))
    if by_number and len(channels) == len(wanted) and numbered == kind:
        return case
    raise InputError(_both_sides(channels, wanted), case=case.id, path=case.path)


def _refuse_other_sequence(case: Case, channels: Sequence[str], wanted: str) -> None:
    """Refuse the one file of a case whose name tells another MR sequence than the one that the
    model takes; a name that tells several, or none, is no evidence.
    """
    identity = channel_of(wanted)
    is_mr = identity in CHANNELS and identity not in NOT_MR
    if len(channels) != 1 or not is_mr or channel_of(channels[0]) == identity:
        return
    name = stem(case.path)
    found = _only_channel(name, channel_spans(name, ()))
    if found is not None and found[0] not in ("", identity):
        raise InputError(
            f"its name tells {found[0]}, and the model takes {wanted}; if it is that all the same, "
            f"state it: --channels {wanted}={channels[0]}",
            case=case.id,
            path=case.path,
        )


def _channel_at(case: Case, channels: Sequence[str], index: int) -> Source:
    """Where the channel number ``index`` of the cohort is: a file of its own, or a place in the one
    file.
    """
    return (
        case.images[index]
        if len(case.images) == len(channels)
        else replace(case.images[0], channel=index)
    )


def _both_sides(channels: Sequence[str], wanted: Sequence[str]) -> str:
    example = ",".join(f"{name}=..." for name in wanted[:2]) + (",..." if len(wanted) > 2 else "")
    return (
        f"found {len(channels)} channel(s) ({', '.join(channels)}), the model takes "
        f"{len(wanted)} ({', '.join(wanted)}), and the names do not tell "
        f"which is which; state it: --channels {example} with a file, or one of the names found, "
        "for each"
    )


def numbered(manifest: Manifest) -> Numbered:
    """How the cohort tells its channels apart, where that is by numbers; models keep it, since only
    they may be given numbers again.
    """
    if len(manifest.channels) < 2:
        return ""
    if all(len(case.images) == 1 for case in manifest):
        return "one file"
    numbers = all(number_of_channel(name) is not None for name in manifest.channels)
    return "files" if numbers or manifest.layout == "nnunet-raw" else ""


def stated(pairs: Mapping[str, str], wanted: Sequence[str]) -> Mapping[int, str]:
    """Index of the model's channel -> what the user says it is, from ``--channels NAME=VALUE,...``.

    Raises:
        UsageError: a name that is none of the model's, or one given twice.
    """
    found: dict[int, str] = {}
    for name, value in pairs.items():
        index = match_channels(wanted, [name])[0]
        if index is None or index in found:
            problem = "names no channel of the model" if index is None else "is given twice"
            raise UsageError(f"--channels: {name!r} {problem}; it takes {', '.join(wanted)}")
        found[index] = value
    return found


def as_stated(
    case: Case, channels: Sequence[str], wanted: Sequence[str], said: Mapping[int, str]
) -> Case:
    """The case with its channels, called ``channels``, as the user says; ``ABSENT`` for one of
    ``wanted`` that is not said.

    Raises:
        UsageError: what is said is none of ``channels``.
    """
    images = []
    for index in range(len(wanted)):
        if index not in said:
            images.append(ABSENT)
            continue
        place = match_channels(channels, [said[index]])[0]
        number = number_of_channel(said[index])
        if place is None and number is not None:
            place = next(
                (n for n, name in enumerate(channels) if number_of_channel(name) == number), None
            )
        if place is None:
            raise UsageError(
                f"--channels: {wanted[index]}={said[index]} is neither a file nor a channel of "
                f"{case.id}, which has {', '.join(channels)}"
            )
        images.append(_channel_at(case, channels, place) if len(channels) > 1 else case.images[0])
    return replace(case, images=tuple(images))


def of_files(said: Mapping[int, str], wanted: Sequence[str]) -> Case:
    """The one scan whose files the user names, called as its files are but for the channels.

    Raises:
        InputError: a file that does not exist.
    """
    paths = {index: Path(value) for index, value in said.items()}
    for path in paths.values():
        if not path.exists() and "#" not in path.name:
            raise InputError("does not exist", path=path)
    images = tuple(source(paths[n]) if n in paths else ABSENT for n in range(len(wanted)))
    name = (
        _common_name([stem(path) for path in paths.values()])
        or next(iter(paths.values())).resolve().parent.name
        or "scan"
    )
    return Case(name, name, images)


def _common_name(names: Sequence[str]) -> str:
    """What the names begin with, in whole words; "" where that is nothing."""
    shared = shared_start(names)
    if shared in names and len(set(names)) == 1:
        return shared
    # Up to the last separator: what follows differs, or is the beginning of a channel's name.
    words = re.match(r"(.*)[_.-]", shared)
    return words[1].strip("_.- ") if words else ""


def missing(case: Case, manifest: Manifest) -> tuple[str, ...]:
    """Names of the channels that the case lacks."""
    return tuple(
        name for name, image in zip(manifest.channels, case.images, strict=False) if image == ABSENT
    )


def only_present(case: Case, manifest: Manifest) -> tuple[Case, Manifest]:
    """The case without its absent channels, and a manifest that knows no others: what can be
    read.
    """
    lacking = missing(case, manifest)
    if not lacking:
        return case, manifest
    here = replace(case, images=tuple(image for image in case.images if image != ABSENT))
    return here, Manifest(
        (here,), tuple(name for name in manifest.channels if name not in lacking), manifest.labels
    )
