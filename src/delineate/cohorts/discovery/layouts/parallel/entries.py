"""The entries of a folder of images or labels: a name for each case, with its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .....core.terms import Reading, read
from .....formats.files import stem
from ...tree import Tree, match_names
from ..scans_only import entries_of


@dataclass(frozen=True)
class Entries:
    """The images of a folder.

    Args:
        files: name of each case -> its files, one for each channel.
        channels: the channels that the names of the files state, in the order of the files; ()
            if they state none.
        incomplete: name of each case that lacks channels of the others -> these.
    """

    files: Mapping[str, list[Path]]
    channels: tuple[str, ...] = ()
    incomplete: Mapping[str, list[str]] = field(default_factory=dict)


def image_entries(tree: Tree, folder: Path, labels: Mapping[str, Path]) -> Entries:
    """The cases in a folder of images: files, or folders of slices; ``labels`` are the masks."""
    if _is_flat(tree, folder):
        files = {stem(path): [path] for path in tree.dicom_files(folder)}
    else:
        files = entries_of(tree, folder, labels)
    if any(len(paths) > 1 or paths[0].is_dir() for paths in files.values()):
        return Entries(files)
    return named_channels(folder, {name: paths[0] for name, paths in files.items()}, labels)


def label_entries(tree: Tree, folder: Path) -> dict[str, Path]:
    """Name -> label: the files in ``folder``, or else its folders of slices."""
    if _is_flat(tree, folder):
        return {stem(path): path for path in tree.dicom_files(folder)}
    return {stem(p): p for p in tree.images(folder)} or {
        f.name: f for f in tree.folders(folder) if tree.is_dicom(f) or tree.images(f)
    }


def _is_flat(tree: Tree, folder: Path) -> bool:
    """Whether the folder itself holds DICOM files, each a slice with a mask of its own."""
    return not tree.images(folder) and tree.is_dicom(folder)


def named_channels(folder: Path, files: Mapping[str, Path], labels: Mapping[str, Path]) -> Entries:
    """The files of ``folder`` as channels of cases, if their names state sequences or modalities
    (``CASE_t1``, ``CASE_flair``), and several of a case share its mask. If all names end with the
    same one, it is the only channel.
    """
    plain = Entries({name: [path] for name, path in files.items()})
    readings = {name: read(name, in_file_name=True) for name in files}
    if not files or not all(one.identity for one in readings.values()):
        return plain
    if len({one.identity for one in readings.values()}) == 1:
        return _only_channel(plain, readings, labels)
    # Each image with a mask of its own is a case, as are images of different cases.
    if len(match_names(list(files), list(labels))) == len(files):
        return plain
    cases: dict[str, dict[str, str]] = {}
    for name, one in readings.items():
        cases.setdefault(_case_of(one) or folder.name, {})[one.identity] = name
    if sum(map(len, cases.values())) < len(files):
        return plain  # two files of one case cannot be one channel
    return _of_cases(plain, readings, cases)


def _of_cases(
    plain: Entries, readings: Mapping[str, Reading], cases: Mapping[str, Mapping[str, str]]
) -> Entries:
    """The entries of cases, channel -> name of its file; as they are if most cases lack one."""
    identities = list(dict.fromkeys(one.identity for one in readings.values()))
    complete = {case: held for case, held in cases.items() if len(held) == len(identities)}
    if 2 * len(complete) < len(cases):
        return plain
    first = next(iter(complete.values()))
    return Entries(
        {case: [plain.files[held[one]][0] for one in first] for case, held in complete.items()},
        tuple(_as_written(first[one], readings[first[one]]) for one in first),
        {
            case: [one for one in identities if one not in held]
            for case, held in cases.items()
            if case not in complete
        },
    )


def _only_channel(
    plain: Entries, readings: Mapping[str, Reading], labels: Mapping[str, Path]
) -> Entries:
    """The entries with the channel that all names state; their names end before it if it is the
    end of all, and the masks' names do not have it.
    """
    written = Counter(_as_written(name, one) for name, one in readings.items())
    channels = (written.most_common(1)[0][0],)
    at_end = all(not one.after.strip("_.- ") and _case_of(one) for one in readings.values())
    if not at_end or set(plain.files) & set(labels):
        return Entries(plain.files, channels)
    named = {_case_of(readings[name]): paths for name, paths in plain.files.items()}
    return Entries(named if len(named) == len(plain.files) else plain.files, channels)


def _case_of(one: Reading) -> str:
    return "_".join(filter(None, (one.before.strip("_.- "), one.after.strip("_.- "))))


def _as_written(name: str, one: Reading) -> str:
    """The words that name the channel, as the file has them."""
    return name[len(one.before) : len(name) - len(one.after)].strip("_.- ") or one.identity
