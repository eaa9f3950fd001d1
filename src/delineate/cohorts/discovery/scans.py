"""The scans that a model is asked to delineate: from files, folders of any layout, manifests, or
channels stated one by one.

Truth, where there is some, is left out, but never written over. What cannot be used is a failure
under its own name, and costs no other scan. It opens few files: what is in them is found out when
each is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...core.errors import DelineateError, InputError, LayoutError, UsageError
from ...core.inputs import special_kind
from ...core.labels import LabelSet
from ...core.manifest import ABSENT, Case, Manifest
from ...core.outputs import Originals
from ...core.terms import number_of_channel
from ...formats.files import stem
from ..findings import DiscoveredCohort
from . import channels
from .channels import Numbered
from .layouts import discover
from .originals import originals
from .tree import IMAGE_ENDINGS, Tree

_UNUSABLE = ("refused", "missing")  # kinds of findings that cost a scan; others are about its truth


@dataclass(frozen=True)
class Scans:
    """What was found.

    Args:
        manifest: the scans, each with a source (or ``ABSENT``) for each of the model's channels, or
            one file that holds them all.
        failures: name of what cannot be used -> why.
        notes: what was skipped, a sentence each.
        originals: every file that must not be written over.
    """

    manifest: Manifest
    failures: Mapping[str, DelineateError]
    notes: tuple[str, ...]
    originals: Originals


def collect(
    inputs: Sequence[str | Path],
    wanted: Sequence[str],
    labels: LabelSet,
    *,
    numbered: Numbered = "",
    only: str | None = None,
    stated: Mapping[str, str] | None = None,
) -> Scans:
    """All scans of ``inputs``, with their channels in the order of ``wanted``.

    Args:
        inputs: files, DICOM folders, folders of cases, manifests.
        wanted: the model's channels; labels: its structures.
        numbered: how its training told channels apart that had no names; see ``channels.in_order``.
        only: "train", "val" or "test": that part of a cohort that is split.
        stated: channel -> the file that holds it (then there are no ``inputs``), or what it is
            called in the cohort.

    Raises:
        InputError: nothing can be used; the first reason is given.
        LayoutError: no scan is there.
        UsageError: neither inputs nor files of channels, or both.
    """
    said = channels.stated(stated or {}, wanted)
    if not inputs:
        return _of_files(said, wanted, labels)
    if said and any(Path(value).is_file() for value in said.values()):
        raise UsageError(
            "--channels names files: they are the scan, so give no other input; or name channels "
            "of the inputs instead of files"
        )
    search = _Search(tuple(wanted), only, numbered, said)
    search.look(inputs)
    if not search.cases:
        if search.failures:
            raise next(iter(search.failures.values()))
        raise LayoutError(
            "; ".join(["no scan found" + (f" in split {only}" if only else ""), *search.notes]),
            path=str(inputs[0]),
        )
    manifest = Manifest(tuple(_with_unique_ids(search.cases)), tuple(wanted), labels)
    kept = originals(
        [manifest, *(found.manifest for found in search.found)],
        [*search.beside, *(p for p in inputs if Path(p).is_file())],
    )
    return Scans(manifest, search.failures, tuple(search.notes), kept)


def _of_files(said: Mapping[int, str], wanted: Sequence[str], labels: LabelSet) -> Scans:
    if not said:
        raise UsageError(
            "there is nothing to delineate: give scans, or the files of one scan's channels with "
            "--channels"
        )
    manifest = Manifest((channels.of_files(said, wanted),), tuple(wanted), labels)
    return Scans(manifest, {}, (), originals([manifest]))


def _with_unique_ids(cases: Sequence[Case]) -> Iterator[Case]:
    seen: dict[str, int] = {}
    for case in cases:  # two inputs may hold files of one name
        seen[case.id] = seen.get(case.id, 0) + 1
        yield case if seen[case.id] == 1 else replace(case, id=f"{case.id}_{seen[case.id]}")


class _Search:
    """Looks through inputs one after the other; what one of them lacks is noted and does not stop
    the others.
    """

    def __init__(
        self, wanted: tuple[str, ...], only: str | None, numbered: Numbered, said: Mapping[int, str]
    ):
        self.wanted, self.only, self.numbered, self.said = wanted, only, numbered, said
        self.cases: list[Case] = []
        self.found: list[DiscoveredCohort] = []
        self.beside: list[str] = []  # files that lie among the scans and may be their masks
        self.failures: dict[str, DelineateError] = {}
        self.notes: list[str] = []

    def look(self, inputs: Sequence[str | Path]) -> None:
        usable = [path for path in map(Path, inputs) if self._is_usable(path)]
        told = {} if self.only else self._told_by_name(usable)
        for path in usable:
            if path in told:
                self.cases += told[path]
                continue
            try:
                self.cases += self._of_layout(path)
            except DelineateError as error:
                self._fail(path, error)

    def _is_usable(self, path: Path) -> bool:
        if kind := special_kind(path):
            self.notes.append(f"{path} is {kind} and was skipped; only regular files are opened")
            return False
        if not path.exists():
            self._fail(
                path,
                InputError(
                    "a link to nothing" if path.is_symlink() else "does not exist", path=path
                ),
            )
            return False
        return True

    def _fail(self, path: Path, error: DelineateError) -> None:
        name = error.case or stem(path)
        self.failures[name if name and name not in self.failures else str(path)] = error

    def _told_by_name(self, inputs: Sequence[Path]) -> dict[Path, list[Case]]:
        """Of the inputs, those whose files tell by name which of several channels they are, with
        their scans.

        The files given one by one are looked at together, and their scans stand with the first of
        them. What the user calls the channels stands above the model's names of them.
        """
        words = list(self.said.values() if self.said else self.wanted)
        if len(self.wanted) < 2 or any(number_of_channel(word) is not None for word in words):
            return {}
        loose = [path for path in inputs if path.is_file() and path.suffix != ".jsonl"]
        together = self._in_place(channels.grouped(loose, words, self.failures))
        used = {image.path for case in together for image in case.images}
        mine = [path for path in loose if os.path.abspath(path) in used]
        told = {path: together if path == mine[0] else [] for path in mine}
        for folder in (path for path in inputs if path.is_dir()):
            described = any(
                (folder / name).is_file() for name in ("manifest.jsonl", "dataset.json")
            )
            named = [] if described else channels.by_names(folder, words, self.failures)
            if found := self._in_place(named):
                told[folder] = found
                places = {
                    Path(image.path).parent
                    for case in found
                    for image in case.images
                    if image != ABSENT
                }
                self.beside += [
                    str(file) for place in places for file in place.iterdir() if file.is_file()
                ]
        return told

    def _in_place(self, cases: list[Case]) -> list[Case]:
        """Cases with a source for each channel that the user named, as cases with one for each of
        the model's.
        """
        if not self.said:
            return cases
        places = range(len(self.wanted))
        return [
            replace(
                c,
                images=tuple(
                    dict(zip(self.said, c.images, strict=True)).get(n, ABSENT) for n in places
                ),
            )
            for c in cases
        ]

    def _note_folders_named_as_images(self, given: Path, used: Sequence[str]) -> None:
        """Folders called as a scan's file would be, in which no scan was found, are failures."""
        folders = [given, *(given / name for name in ("images", "imagesTr", "imagesTs"))]
        for folder in (folder for folder in folders if folder.is_dir()):
            for path in Tree().folders(folder):
                place = os.path.abspath(path) + os.sep
                if path.name.lower().endswith(IMAGE_ENDINGS) and not any(
                    f"{one}{os.sep}".startswith(place) for one in used
                ):
                    self._fail(path, InputError("is a folder, named as a file is", path=path))

    def _of_layout(self, given: Path) -> list[Case]:
        """The scans that the layout of ``given`` tells, those that it left out for a lacking
        channel too.
        """
        found = discover(given, truth=False)
        self.found.append(found)
        lacking = channels.incomplete(found)
        known = {case.id for case in (*found.manifest, *lacking)}
        for finding in found.findings:
            if finding.kind == "skipped":
                self.notes.append(finding.message)
            elif (
                finding.kind in _UNUSABLE
                and finding.severity == "error"
                and finding.case
                and finding.case not in known
            ):
                self.failures[finding.case] = InputError(finding.message, case=finding.case)
        self._note_folders_named_as_images(given, [c.path for c in (*found.manifest, *lacking)])
        chosen = [
            case
            for case in (*found.manifest, *lacking)
            if self.only is None or case.split == self.only
        ]
        plain = [replace(case, label=(), split=None, fold=None) for case in chosen]
        names = found.manifest.channels
        if self.said:
            return [channels.as_stated(case, names, self.wanted, self.said) for case in plain]
        ordered = []
        for case in plain:
            try:
                ordered.append(channels.in_order(case, names, self.wanted, self.numbered))
            except DelineateError as error:
                self.failures[case.id] = error
        return ordered
