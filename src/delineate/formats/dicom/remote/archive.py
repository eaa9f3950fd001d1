"""What both protocols do, and what is tried again: a series is fetched until it is complete, and an
object counts as sent when the archive accepts or already has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ....core.errors import DelineateError, InputError, OutputError
from ....core.progress import Progress, silent
from ...web import ATTEMPTS
from ..header.file import read_header
from .address import Address
from .spool import Spool

WAIT_S = 1.0  # before the second attempt; doubled each time
# How an object was sent, see ``send``.
DONE = STORED, ACCEPTED, THERE = "stored", "accepted", "already there"
Receive = Callable[[Iterable[bytes]], bool]
Result = TypeVar("Result")


class UnreachableError(Exception):
    """The archive did not answer, or not to the end; the same request may succeed later."""


@dataclass(frozen=True)
class RemoteSeries:
    """A series in an archive.

    Args:
        instances: NumberOfSeriesRelatedInstances; None if the archive does not state it.
    """

    study: str
    uid: str
    modality: str
    description: str
    instances: int | None

    @property
    def title(self) -> str:
        """One line for a person, without the description: free text may have the patient's name."""
        return f"{self.modality or 'series'} ({self.uid})"


@dataclass(frozen=True)
class Identity:
    """The UIDs of an object that is sent."""

    sop_class: str
    instance: str
    study: str
    series: str


class Archive(Protocol):
    """An archive by one protocol. Every method may raise ``UnreachableError``, or ``InputError`` if
    the archive refuses.
    """

    def series(self, study: str, series: str = "") -> list[RemoteSeries]:
        """The series of a study, or the one with this UID."""

    def instances(self, study: str, series: str) -> set[str]:
        """The SOPInstanceUIDs of a series."""

    def retrieve(self, study: str, series: str, wanted: Collection[str], receive: Receive) -> None:
        """Pass the instances of a series to ``receive``: only those ``wanted``, or all of them if
        there are none.
        """

    def store(self, path: Path, identity: Identity) -> str:
        """Send an object; "" if it is accepted, else why it is not."""


def find(archive: Archive, address: Address) -> list[RemoteSeries]:
    """The series at an address, in the order of the archive.

    Raises:
        InputError: there is none, or the archive cannot be reached.
    """
    found = _retried(lambda: archive.series(address.study, address.series))
    if not found:
        what = "series" if address.series else "study"
        raise InputError(f"the archive has no such {what}", path=str(address))
    return found


def fetch(archive: Archive, address: Address, folder: Path, progress: Progress = silent) -> Path:
    """Receive all instances of a series as files of ``folder``; those that are there and whole are
    not fetched again.

    Args:
        address: with a series.

    Raises:
        InputError: the series is not complete; the message has the number of instances received and
            that of the archive.
        OutputError: a file cannot be written.
    """
    study, series = address.study, address.series
    spool = Spool(folder, study, series)
    fruitless, before, reason = 0, len(spool.whole), ""
    while True:
        try:
            listed = archive.instances(study, series)
            spool.keep_only(listed)
            if missing := listed - spool.whole:
                wanted = sorted(missing) if spool.whole else ()
                archive.retrieve(study, series, wanted, _counted(spool, len(listed), progress))
            reason = spool.refused
            if listed <= spool.whole:
                break
        except UnreachableError as error:
            reason = str(error)
        # Only attempts without progress count: a poor line that still brings files is not given up.
        fruitless = 1 if len(spool.whole) > before else fruitless + 1
        before = max(before, len(spool.whole))
        if fruitless >= ATTEMPTS:
            break
        time.sleep(WAIT_S * 2 ** (fruitless - 1))
    _refuse_incomplete(archive, address, len(spool.whole), reason)
    return spool.folder


def _counted(spool: Spool, total: int, progress: Progress) -> Receive:
    def receive(chunks: Iterable[bytes]) -> bool:
        is_kept = spool.receive(chunks)
        progress("fetch", len(spool.whole), total, spool.folder.name)
        return is_kept

    return receive


def _refuse_incomplete(archive: Archive, address: Address, received: int, reason: str) -> None:
    """Refuse a series with another number of instances than the archive states now."""
    try:
        found = find(archive, address)
        if (stated := found[0].instances) is None:
            stated = len(_retried(lambda: archive.instances(address.study, address.series)))
    except DelineateError as error:
        raise InputError(
            f"{error.message}; {received} instances were received", path=str(address)
        ) from None
    if received != stated:
        raise InputError(
            f"{received} of {stated} instances (NumberOfSeriesRelatedInstances) were received"
            + (f", because of: {reason}" if reason else "")
            + "; an incomplete series is not segmented, and the same command fetches what is "
            "missing",
            path=str(address),
        )


def send(archive: Archive, path: Path) -> str:
    """Send a DICOM object; the archive is asked whether it has it, so that an object that is sent
    twice is one object there.

    Returns:
        ``STORED`` if the archive lists it now, ``THERE`` if it refused what it has, ``ACCEPTED`` if
        it accepted the object and does not list it.

    Raises:
        OutputError: it is not accepted, with the reason.
    """
    identity = identity_of(path)
    try:
        refusal = _retried(lambda: archive.store(path, identity))
    except DelineateError as error:
        raise OutputError(f"was not sent: {error.message}", path=path) from None
    try:
        listed = _retried(lambda: archive.instances(identity.study, identity.series))
    except DelineateError:  # a router accepts objects, and answers no queries
        listed = set()
    is_there = identity.instance in listed
    if refusal and not is_there:
        raise OutputError(f"was not accepted by the archive: {refusal}", path=path)
    return THERE if refusal else STORED if is_there else ACCEPTED


def identity_of(path: Path) -> Identity:
    """The UIDs of an object that this program wrote."""
    header = read_header(path)
    names = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    assert header is not None  # because this program wrote it
    return Identity(*(str(header.get(name) or "") for name in names))


def _retried(request: Callable[[], Result]) -> Result:
    """The result of a request, which is repeated if the archive does not answer.

    Raises:
        InputError: it never does.
    """
    for attempt in range(ATTEMPTS):
        try:
            return request()
        except UnreachableError as error:
            reason = str(error)
        if attempt + 1 < ATTEMPTS:
            time.sleep(WAIT_S * 2**attempt)
    raise InputError(f"the archive cannot be reached ({reason})")
