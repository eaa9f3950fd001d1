"""Scans from stores of objects or archives, and results to stores (``formats.stores``).

The scan of a case is fetched to a temporary folder, segmented there while the next one is fetched,
and removed. Each result is put as one object when it is complete. A journal in a store is one
object, ``predictions.jsonl``, and while a call works one part more for every ``PART_LINES`` lines
or ``PART_S`` seconds, because objects cannot grow: a kill costs the lines since the last part,
whose cases are done again. Records have the names of objects, not those of temporary files.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from ...cohorts.discovery.dicom_rules import DicomRules
from ...cohorts.work_list import Row
from ...core import atomic
from ...core.errors import DelineateError, InputError
from ...core.inputs import sha256_of
from ...core.manifest import Case, Source
from ...core.prediction import RECORD
from ...core.volume import ReadAs
from ...execution.ledger import NAME, hashed
from ...execution.shards import Shard
from ...formats import stores
from ...formats.apart import untrusted
from ...formats.dicom.remote import Access, Address, Archive, connect, fetch, is_remote
from ...formats.dicom.remote.archive import UnreachableError
from ..options import PredictOptions
from .elsewhere import Finished, SegmentCase

PART = ".part-"
PART_LINES, PART_S = 500, 20.0


@dataclass
class StoredCase:
    """The function of one case with a scan or results in a store, or a scan whose content the list
    states.

    Args:
        segment: the function of a case on this machine.
        out: the URL of the results; "" is the folder of ``segment``.
        rules, units: for the sources of the scan.
    """

    segment: SegmentCase
    out: str
    rules: DicomRules
    units: Sequence[ReadAs]
    _following: Row | None = field(default=None, init=False, repr=False)
    _ahead: _Copy | None = field(default=None, init=False, repr=False)

    def targets(self, row: Row) -> list[Path]:
        """See ``CaseFunction``."""
        return [] if self.out else self.segment.targets(row.case)

    def begin(self) -> None:
        """See ``SegmentCase.begin``."""
        self.segment.begin()

    def follow(self, row: Row, following: Row) -> None:
        """Fetch the scan of ``following`` while that of ``row`` is segmented."""
        self._following = following

    def __call__(self, row: Row) -> Finished:
        copy, self._ahead = self._ahead, None
        if copy is not None and copy.row != row:
            copy.drop()
            copy = None
        copy, options = copy or _Copy(row), self.segment.options
        with copy.folder as place:
            try:
                images = copy.sources(options)
                following, self._following = self._following, None
                if following is not None:
                    self._ahead = _Copy(following)
                    self._ahead.begin(options)
                return self._finished(row, Path(place), images, copy.names)
            except DelineateError as error:
                error.message = _renamed(error.message, copy.names)
                error.path = None if error.path is None else _renamed(error.path, copy.names)
                raise

    def close(self) -> None:
        """See ``CaseFunction``: remove what was fetched for a case that does not come."""
        copy, self._ahead, self._following = self._ahead, None, None
        if copy is not None:
            copy.drop()

    def _finished(
        self, row: Row, place: Path, images: Sequence[Source], names: Mapping[str, str]
    ) -> Finished:
        case = self.rules.with_images(replace(row.case, images=tuple(images)))
        case = _in_units(case, self.units)
        out = atomic.make_folder(place / "results") if self.out else self.segment.out
        from_archive = any(is_remote(image.path) for image in row.case.images)
        with untrusted(from_archive):
            done = self.segment(case, out)
        nbytes = sum((out / name).stat().st_size for name in done.files)
        for name in done.files if self.out else ():
            stores.put(out / name, stores.joined(self.out, name))
        return replace(done, entry=_renamed(done.entry, names), nbytes=nbytes)


class _Copy:
    """The files of a scan in a temporary folder, fetched now or in a thread; ``names`` receives
    what they stand for.
    """

    def __init__(self, row: Row):
        self.row, self.names = row, dict[str, str]()
        self.folder = tempfile.TemporaryDirectory(prefix="delineate-", ignore_cleanup_errors=True)
        self._coming: Future[list[Source]] | None = None

    def begin(self, options: PredictOptions) -> None:
        """Fetch them in a thread, which nobody waits for at the end of the program."""
        self._coming = coming = Future[list[Source]]()

        def fetch() -> None:
            try:
                coming.set_result(self._fetched(options))
            except BaseException as error:  # of the case, at its turn
                coming.set_exception(error)

        threading.Thread(target=fetch, name="ahead", daemon=True).start()

    def sources(self, options: PredictOptions) -> list[Source]:
        """The sources on this machine.

        Raises:
            InputError: see ``_fetched``.
        """
        return self._fetched(options) if self._coming is None else self._coming.result()

    def drop(self) -> None:
        """Remove what is there, and what still comes."""
        self.folder.cleanup()
        if self._coming is not None:
            left = self.folder.name
            self._coming.add_done_callback(lambda _: shutil.rmtree(left, ignore_errors=True))

    def _fetched(self, options: PredictOptions) -> list[Source]:
        place, count = Path(self.folder.name), len(self.row.case.images)
        return [_fetched(self.row, n, place, self.names, options) for n in range(count)]


def _in_units(case: Case, units: Sequence[ReadAs]) -> Case:
    if not any(units):
        return case
    pairs = zip(case.images, units, strict=len(case.images) > 1)
    return replace(case, images=tuple(replace(s, unit=u) if s.path else s for s, u in pairs))


def _archive(address: Address, options: PredictOptions) -> Archive:
    return connect(address, Access.of_environment(), options.ae_title, options.receive_port)


def objects_of(image: Source, options: PredictOptions) -> Any:
    """What tells whether a series of an archive has changed: the UIDs of its objects, as a hash;
    None if it cannot be asked.
    """
    address = Address.of(image.path)
    try:
        found = _archive(address, options).instances(address.study, address.series)
    except (DelineateError, UnreachableError):
        return None
    return [len(found), hashed("\n".join(sorted(found)))]


def _fetched(
    row: Row,
    number: int,
    place: Path,
    names: dict[str, str],
    options: PredictOptions = PredictOptions(),
) -> Source:
    """The source with files of this machine; ``names`` receives what they stand for.

    Raises:
        InputError: it cannot be fetched, or is not what the list states.
    """
    image = row.case.images[number]
    if not (stores.is_url(image.path) or is_remote(image.path)):
        _refuse_other(row, Path(image.path))
        return image
    folder = atomic.make_folder(place / f"scan {number}")
    if is_remote(image.path):
        address = Address.of(image.path)
        names[str(folder)] = image.path
        return replace(image, path=str(fetch(_archive(address, options), address, folder)))
    if stores.exists(image.path):
        target = folder / Path(image.path.partition("?")[0]).name
        names[str(folder)] = stores.shown(image.path).rpartition("/")[0]
        stores.fetch(image.path, target)
        _refuse_other(row, target)
        return replace(image, path=str(target))
    names[str(folder)] = stores.shown(image.path).rstrip("/")
    left = stores.MOST_BYTES
    parts = stores.below(image.path)
    for url in parts:
        target = folder / url.removeprefix(image.path.rstrip("/")).lstrip("/")
        if ".." in target.parts:  # a store allows it in a name, which would be a place elsewhere
            raise InputError("has .. in its name", path=stores.shown(url))
        atomic.make_folder(target.parent)
        stores.fetch(url, target, left)
        left -= target.stat().st_size
    if not parts:
        raise InputError("does not exist", path=stores.shown(image.path))
    return replace(image, path=str(folder))


def _refuse_other(row: Row, path: Path) -> None:
    """Raises InputError: the file is not what the list states."""
    if row.nbytes is not None and path.stat().st_size != row.nbytes:
        raise InputError(
            f"has {path.stat().st_size} bytes, and the list states {row.nbytes}", path=path
        )
    if row.sha256 and (found := sha256_of(path)) != row.sha256:
        raise InputError(f"has the SHA-256 {found}, and the list states {row.sha256}", path=path)


def _renamed(data: Any, names: Mapping[str, str]) -> Any:
    """Plain data with the names of objects instead of those of temporary files."""
    if isinstance(data, str):
        for old, new in names.items():
            data = data.replace(old, new)
        return data
    if isinstance(data, Mapping):
        return {_renamed(key, names): _renamed(value, names) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_renamed(one, names) for one in data]
    return data


def _content(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            yield from iter(lambda: file.read(1 << 20), b"")


class StoredRecords(AbstractContextManager["StoredRecords"]):
    """The records of predictions in a store, with copies in a temporary folder, ``folder``, which
    this call works with. A context manager, which removes it.

    Args:
        url: the place of the results.
        shard: of this call, whose journal is written.
    """

    def __init__(self, url: str, shard: Shard):
        stores.require(url)
        self._url, self._own = url.rstrip("/"), shard.named(NAME)
        self._is_whole = shard.is_whole
        self.folder = Path(tempfile.mkdtemp(prefix="delineate-"))
        self._stored: list[str] = []
        self._sent = self._lines = self._number = 0
        self._since = time.monotonic()

    def fetch(self) -> None:
        """Copy the records that are there.

        Raises:
            InputError: they cannot be read.
        """
        stem = NAME.partition(".")[0]
        parts: dict[str, list[Path]] = {}
        with tempfile.TemporaryDirectory(prefix="delineate-") as place:
            for url in stores.found(f"{self._url}/{stem}*.json*"):
                name = url.rpartition("/")[2]
                if name == RECORD:
                    stores.fetch(url, self.folder / name)
                    continue
                stores.fetch(url, Path(place, name))
                self._stored.append(url)
                parts.setdefault(name.partition(PART)[0], []).append(Path(place, name))
            for name, paths in parts.items():
                atomic.write_parts(self.folder / name, _content(paths))
        own = self.folder / self._own
        self._sent = own.stat().st_size if own.is_file() else 0

    def put_record(self) -> None:
        """Put the head of the record.

        Raises:
            OutputError: it cannot be written.
        """
        stores.put(self.folder / RECORD, f"{self._url}/{RECORD}")

    def each(self) -> None:
        """After a line of the journal: put a part when it is time.

        Raises:
            OutputError: it cannot be written.
        """
        self._lines += 1
        if self._lines >= PART_LINES or time.monotonic() - self._since > PART_S:
            self._put_part()

    def _put_part(self) -> None:
        self._lines, self._since = 0, time.monotonic()
        part = self.folder / ".part"
        with (self.folder / self._own).open("rb") as file:
            file.seek(self._sent)
            content = file.read()
        if not content:
            return
        atomic.write_bytes(part, content)
        self._number += 1
        url = f"{self._url}/{self._own}{PART}{int(time.time()):012d}-{self._number:06d}"
        stores.put(part, url)
        self._stored.append(url)
        self._sent += len(content)

    def finish(self) -> None:
        """After the last line and the compaction of the journal: put it as one object.

        Raises:
            OutputError: it cannot be written.
        """
        whole = f"{self._url}/{self._own}"
        stores.put(self.folder / self._own, whole)
        for url in self._stored:
            name = url.rpartition("/")[2].partition(PART)[0]
            if url.rpartition("/")[2] != self._own and (self._is_whole or name == self._own):
                stores.remove(url)
        self.put_record()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
