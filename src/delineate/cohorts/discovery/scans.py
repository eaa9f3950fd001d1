"""Find the scans to segment: from files, folders of any layout, manifests, or stated channels.

Ground truth, if present, is not used, but it is protected from being overwritten. A scan that
cannot be used is reported as a failure under its name and does not affect the others. This module
opens few files; errors in their content appear when each file is read.
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
from ...extend.findings import DiscoveredCohort
from ...formats.files import stem
from . import channels
from .channels import Numbered
from .dicom_rules import DicomRules
from .examinations import examinations_of
from .layouts import discover
from .originals import originals

_UNUSABLE = ("refused", "missing")  # kinds of findings that exclude a scan; others concern labels


@dataclass(frozen=True)
class Scans:
    """The scans that were found.

    Args:
        manifest: the scans, each with a source (or ``ABSENT``) per channel of the model, or with
            one file that contains all channels.
        failures: name of a scan or file that cannot be used -> its error.
        notes: one sentence per skipped entry.
        originals: every file that must not be overwritten.
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
    fix_series: str | None = None,
) -> Scans:
    """All scans of ``inputs``, with their channels in the order of ``wanted``.

    Args:
        inputs: files, DICOM folders, folders of cases, manifests.
        wanted: names of the model's channels.
        labels: the model's structures.
        numbered: how the training data identified channels without names; see
            ``channels.in_order``.
        only: "train", "val" or "test", to use only this split of a cohort.
        stated: channel of the model -> its file (then ``inputs`` is empty), or its name in the
            cohort.
        fix_series: see ``layouts.discover``.

    Raises:
        InputError: no input can be used; the message gives the first reason.
        LayoutError: there is no scan.
        UsageError: neither inputs nor channel files are given, or both.
    """
    said = channels.stated(stated or {}, wanted)
    rules = DicomRules.of(fix_series, None)
    # Without inputs, the stated files are the scan.
    if not inputs:
        return _scan_of_files(said, wanted, labels, rules)
    if said and any(Path(value).is_file() for value in said.values()):
        raise UsageError(
            "--channels names the files of the scan, so give no other input; for other inputs, "
            "name their channels instead of files"
        )
    # Search all inputs; if nothing was found, raise the first failure or list what was skipped.
    search = _Search(tuple(wanted), only, numbered, said, rules)
    search.look(inputs)
    if not search.cases:
        if search.failures:
            raise next(iter(search.failures.values()))
        raise LayoutError(
            "; ".join(["no scan found" + (f" in split {only}" if only else ""), *search.notes]),
            path=str(inputs[0]),
        )
    cases = tuple(map(rules.with_images, _with_unique_ids(search.cases)))
    manifest = Manifest(cases, tuple(wanted), labels)
    # Ground truth and files next to the scans are protected too, though they are not used.
    kept = originals(
        [manifest, *(found.manifest for found in search.found)],
        [*search.neighbours, *(p for p in inputs if Path(p).is_file())],
    )
    return Scans(manifest, search.failures, tuple(search.notes), kept)


def _scan_of_files(
    said: Mapping[int, str], wanted: Sequence[str], labels: LabelSet, rules: DicomRules
) -> Scans:
    """The one scan whose channels were all given as files."""
    if not said:
        raise UsageError(
            "nothing to segment: give scans, or the files of one scan's channels with --channels"
        )
    case = rules.with_images(channels.of_files(said, wanted))
    manifest = Manifest((case,), tuple(wanted), labels)
    return Scans(manifest, {}, (), originals([manifest]))


def _with_unique_ids(cases: Sequence[Case]) -> Iterator[Case]:
    """The cases, with a number after each repeated id: two inputs may contain equal file names."""
    seen: dict[str, int] = {}
    for case in cases:
        seen[case.id] = seen.get(case.id, 0) + 1
        yield case if seen[case.id] == 1 else replace(case, id=f"{case.id}_{seen[case.id]}")


class _Search:
    """Searches the inputs one after the other; a problem in one input does not stop the others."""

    def __init__(
        self,
        wanted: tuple[str, ...],
        only: str | None,
        numbered: Numbered,
        said: Mapping[int, str],
        rules: DicomRules,
    ):
        self.wanted, self.only, self.numbered, self.said = wanted, only, numbered, said
        self.rules = rules
        self.cases: list[Case] = []
        self.found: list[DiscoveredCohort] = []
        self.neighbours: list[str] = []  # files next to the scans, which may be their masks
        self.failures: dict[str, DelineateError] = {}
        self.notes: list[str] = []

    def look(self, inputs: Sequence[str | Path]) -> None:
        """Add the scans of ``inputs``, in this order, to ``cases``."""
        usable = [path for path in map(Path, inputs) if self._is_usable(path)]
        # A split is known only from the layout, so names are not used then.
        named = {} if self.only else self._scans_by_name(usable)
        for path in usable:
            if path in named:
                self.cases += named[path]
                continue
            try:
                self.cases += self._of_layout(path)
            except DelineateError as error:
                self._fail(path, error)

    def _is_usable(self, path: Path) -> bool:
        """Whether the input exists and can be opened; otherwise it is noted or a failure."""
        if kind := special_kind(path):
            self._fail(path, InputError(f"is {kind}; only regular files are opened", path=path))
            return False
        # A missing input is a failure, and the other inputs are still used.
        if not path.exists():
            self._fail(
                path,
                InputError(
                    "is a broken link" if path.is_symlink() else "does not exist", path=path
                ),
            )
            return False
        return True

    def _fail(self, path: Path, error: DelineateError) -> None:
        name = error.case or stem(path)
        # Two failures may have the same name; the second is stored under its whole path.
        self.failures[name if name and name not in self.failures else str(path)] = error

    def _scans_by_name(self, inputs: Sequence[Path]) -> dict[Path, list[Case]]:
        """Input -> scans, for the inputs whose file names give one of several channels.

        Files given one by one are grouped together, and all their scans are stored with the first
        of them. The names that the user gave to the channels replace the model's.
        """
        # Numbered channels are no names, and a single channel needs none.
        words = list(self.said.values() if self.said else self.wanted)
        if len(self.wanted) < 2 or any(number_of_channel(word) is not None for word in words):
            return {}
        # Single files: the channels of one scan may be given as separate inputs.
        loose = [path for path in inputs if path.is_file() and path.suffix != ".jsonl"]
        together = self._in_place(channels.grouped(loose, words, self.failures))
        used = {image.path for case in together for image in case.images}
        mine = [path for path in loose if os.path.abspath(path) in used]
        scans = {path: together if path == mine[0] else [] for path in mine}
        # Folders: each is searched by itself.
        for folder in (path for path in inputs if path.is_dir()):
            if found := self._scans_in_folder(folder, words):
                scans[folder] = found
        return scans

    def _scans_in_folder(self, folder: Path, words: Sequence[str]) -> list[Case]:
        """The scans in ``folder`` whose file names give a channel of ``words``.

        A folder with a list of its cases is left to its layout. All files next to the scans are
        recorded in ``neighbours``.
        """
        if any((folder / name).is_file() for name in ("manifest.jsonl", "dataset.json")):
            return []
        found = self._in_place(channels.by_names(folder, words, self.failures))
        places = {
            Path(image.path).parent for case in found for image in case.images if image != ABSENT
        }
        self.neighbours += [
            str(file) for place in places for file in place.iterdir() if file.is_file()
        ]
        return found

    def _in_place(self, cases: list[Case]) -> list[Case]:
        """Cases with a source per channel of the model, from cases with a source per channel that
        the user stated.
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

    def _of_layout(self, given: Path) -> list[Case]:
        """The scans in ``given`` according to its layout, including those with missing channels."""
        found = discover(given, truth=False, fix_series=self.rules.fix_series)
        self.found.append(found)
        # A layout drops cases with a missing channel, but the model may accept them.
        lacking = channels.incomplete(found)
        known = {case.id for case in (*found.manifest, *lacking)}
        # Findings become notes, or failures of scans that would otherwise be lost silently.
        for finding in found.findings:
            if finding.kind == "skipped" and finding.severity == "error":
                self._fail(Path(finding.data["path"]), InputError(finding.message))
            elif finding.kind == "skipped":
                self.notes.append(finding.message)
            elif (
                finding.kind in _UNUSABLE
                and finding.severity == "error"
                and finding.case
                and finding.case not in known
            ):
                self.failures[finding.case] = InputError(finding.message, case=finding.case)
        # Restrict to one split, if requested.
        chosen = [
            case
            for case in (*found.manifest, *lacking)
            if self.only is None or case.split == self.only
        ]
        # Labels, split and fold are not needed for prediction.
        plain = [replace(case, label=(), split=None, fold=None) for case in chosen]
        manifest = replace(found.manifest, cases=tuple(plain))
        # DICOM series are named by their descriptions.
        several = len(self.wanted) > 1 or bool(self.said)
        if (series := examinations_of(manifest, several)) is not None:
            return self._matched([(one.case, one.channels) for one in series])
        return self._matched([(case, manifest.channels) for case in plain])

    def _matched(self, cases: Sequence[tuple[Case, Sequence[str]]]) -> list[Case]:
        """The cases, each given with the names of its channels, with those of the model."""
        # Stated channels apply to all scans, so an error in them fails the whole input.
        if self.said:
            return [
                channels.as_stated(case, names, self.wanted, self.said) for case, names in cases
            ]
        # Otherwise each scan is matched by itself, and an error costs only that scan.
        ordered = []
        for case, names in cases:
            try:
                ordered.append(channels.in_order(case, names, self.wanted, self.numbered))
            except DelineateError as error:
                self.failures[case.id] = error
        return ordered
