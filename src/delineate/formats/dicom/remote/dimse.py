"""An archive by DIMSE (PS3.4): C-FIND, C-GET or C-MOVE, and C-STORE, by pynetdicom."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core.errors import DelineateError, InputError, UsageError
from .access import Access
from .address import Address, is_uid
from .archive import Identity, Receive, RemoteSeries, UnreachableError

if TYPE_CHECKING:
    from pynetdicom import AE
    from pynetdicom.association import Association

CONNECT_S, ANSWER_S = 20, 120
# Study root (PS3.4, C.6.2.1).
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{n}" for n in (1, 2, 3))
# CT, MR, PET and NM, single-frame, enhanced and legacy-converted; X-ray, ultrasound, secondary
# capture: where the archive does not say which classes a series has.
CLASSES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{n}"
    for n in ("2", "4", "128", "20", "2.1", "2.2", "4.1", "4.4", "130", "128.1", "7", "1.1")
)
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
# RLE; JPEG lossless, JPEG-LS, JPEG 2000 and their lossy kinds; deflated.
COMPRESSED = (
    *(f"1.2.840.10008.1.2.{n}" for n in ("5", "4.70", "4.57", "4.80", "4.90")),
    *(f"1.2.840.10008.1.2.{n}" for n in ("4.50", "4.51", "4.81", "4.91", "1.99")),
)
MOST_CONTEXTS = 126  # 128 in all (PS3.8, 9.3.2.2), without that of the query
AT_ONCE = 64  # instances in one request
SUCCESS, SOME_FAILED, OUT_OF_RESOURCES, NOT_KEPT = 0x0000, 0xB000, 0xA700, 0xA900
WARNINGS = (0xB000, 0xB006, 0xB007)  # stored, and changed on the way (PS3.4, B.2.3)
PENDING = (0xFF00, 0xFF01)


class Dimse:
    """A DIMSE service; see ``archive.Archive``.

    Args:
        title: AE title of this program, which archives often must know.
        receive_port: receive by C-MOVE on this port, instead of by C-GET.
    """

    def __init__(self, address: Address, access: Access, title: str, receive_port: int | None):
        self._peer, self._access = address.peer, access
        self._title, self._port = title, receive_port
        self._classes: dict[str, set[str]] = {}  # of the instances of each series

    def series(self, study: str, series: str = "") -> list[RemoteSeries]:
        keys = ("Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances")
        found = (
            RemoteSeries(
                study,
                _text(row, "SeriesInstanceUID"),
                _text(row, keys[0]),
                _text(row, keys[1]),
                _count(row, keys[2]),
            )
            for row in self._rows("SERIES", study, series, keys)
        )
        return [one for one in found if is_uid(one.uid) and series in ("", one.uid)]

    def instances(self, study: str, series: str) -> set[str]:
        rows = self._rows("IMAGE", study, series, ("SOPInstanceUID", "SOPClassUID"))
        self._classes[series] = {kind for row in rows if (kind := _text(row, "SOPClassUID"))}
        return {uid for row in rows if is_uid(uid := _text(row, "SOPInstanceUID"))}

    def retrieve(self, study: str, series: str, wanted: Collection[str], receive: Receive) -> None:
        uids = list(wanted)
        for first in range(0, max(1, len(uids)), AT_ONCE):
            identifier = _identifier("IMAGE" if uids else "SERIES", study, series)
            if uids:
                identifier.SOPInstanceUID = uids[first : first + AT_ONCE]
            keeper = _Keeper(receive)
            if self._port is None:
                self._get(identifier, keeper)
            else:
                self._move(self._port, identifier, keeper)
            keeper.check()

    def store(self, path: Path, identity: Identity) -> str:
        import pydicom
        from pynetdicom import build_context

        dataset = pydicom.dcmread(path)
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        syntaxes = [syntax, IMPLICIT] if syntax == EXPLICIT else [syntax]
        with self._associated([build_context(identity.sop_class, syntaxes)]) as association:
            code = _code(association.send_c_store(dataset))
        if code == OUT_OF_RESOURCES or 0xA700 <= code <= 0xA7FF:
            raise UnreachableError(f"it is out of resources (0x{code:04X})")
        return "" if code == SUCCESS or code in WARNINGS else f"status 0x{code:04X}"

    # ---- queries ----

    def _rows(self, level: str, study: str, series: str, keys: Collection[str]) -> list[Any]:
        from pynetdicom import build_context

        query = _identifier(level, study, series)
        for key in keys:
            setattr(query, key, None if key.startswith("Number") else "")
        with self._associated([build_context(FIND)]) as association:
            answers = association.send_c_find(query, FIND)
            return [row for row in self._pending(answers, "C-FIND") if row is not None]

    def _pending(self, answers: Any, what: str) -> Iterator[Any]:
        """What the answers to a request carry, to its end.

        Raises:
            InputError: the archive refuses. UnreachableError: the answers end too early.
        """
        for status, row in answers:
            code = _code(status)
            if code in PENDING:
                yield row
            elif code not in (SUCCESS, SOME_FAILED):
                raise InputError(f"the archive refuses {what} (status 0x{code:04X})")

    # ---- retrieval ----

    def _get(self, identifier: Any, keeper: _Keeper) -> None:
        from pynetdicom import build_context, build_role, evt

        classes = sorted(self._classes.get(identifier.SeriesInstanceUID) or CLASSES)
        # Each syntax has a context of its own, so that nothing need be decompressed to be sent.
        several = [[EXPLICIT, IMPLICIT], *([one] for one in COMPRESSED)]
        if len(classes) * len(several) > MOST_CONTEXTS:
            several = [[EXPLICIT, IMPLICIT], list(COMPRESSED)]
        contexts = [build_context(kind, some) for kind in classes for some in several]
        with self._associated(
            [build_context(GET), *contexts],
            ext_neg=[build_role(kind, scp_role=True) for kind in classes],
            evt_handlers=[(evt.EVT_C_STORE, keeper)],
        ) as association:
            if not any(one.abstract_syntax == GET for one in association.accepted_contexts):
                raise InputError(
                    "the archive accepts no C-GET; with --receive-port PORT it sends by C-MOVE to "
                    f"{self._title}, which it must know with this machine and port"
                )
            for _ in self._pending(association.send_c_get(identifier, GET), "C-GET"):
                pass

    def _move(self, port: int, identifier: Any, keeper: _Keeper) -> None:
        from pynetdicom import build_context, evt

        with (
            self._listening(port, [(evt.EVT_C_STORE, keeper)]),
            self._associated([build_context(MOVE)]) as association,
        ):
            answers = association.send_c_move(identifier, self._title, MOVE)
            for _ in self._pending(answers, f"C-MOVE to {self._title}"):
                pass

    @contextlib.contextmanager
    def _listening(self, port: int, handlers: list[Any]) -> Iterator[None]:
        """Accept objects on the port for the block."""
        from pynetdicom import AllStoragePresentationContexts

        own = self._entity()
        for one in AllStoragePresentationContexts:
            own.add_supported_context(str(one.abstract_syntax), [EXPLICIT, IMPLICIT, *COMPRESSED])
        tls = self._access.tls(serves=True) if self._access.dimse_tls else None
        try:
            server = own.start_server(
                ("", port), block=False, ssl_context=tls, evt_handlers=handlers
            )
        except OSError as error:
            raise UsageError(
                f"--receive-port {port} cannot be opened ({error.strerror})"
            ) from error
        try:
            yield
        finally:
            server.shutdown()  # type: ignore[union-attr]

    # ---- connections ----

    def _entity(self) -> AE:
        from pynetdicom import AE

        own = AE(ae_title=self._title)
        own.connection_timeout = own.acse_timeout = CONNECT_S
        own.dimse_timeout = own.network_timeout = ANSWER_S
        return own

    @contextlib.contextmanager
    def _associated(self, contexts: list[Any], **more: Any) -> Iterator[Association]:
        """An association for the block.

        Raises:
            UnreachableError: nobody answers. InputError: the archive refuses it.
        """
        title, host, port = self._peer
        tls = (self._access.tls(), host) if self._access.dimse_tls else None
        association = self._entity().associate(
            host, port, contexts=contexts, ae_title=title, tls_args=tls, **more
        )
        try:
            if association.is_rejected:
                raise InputError(
                    f"the archive {title} rejects an association with {self._title} "
                    f"({_reason(association)}); --ae-title names this program"
                )
            if not association.is_established:
                if association.rejected_contexts and not association.accepted_contexts:
                    names = sorted({str(c.abstract_syntax) for c in association.rejected_contexts})
                    raise InputError(f"the archive accepts none of {', '.join(names)}")
                raise UnreachableError(f"no association with {title} at {host}:{port}")
            yield association
        finally:
            if association.is_established:
                association.release()


class _Keeper:
    """Receives objects of the archive, in another thread."""

    def __init__(self, receive: Receive):
        self._receive = receive
        self._error: DelineateError | None = None

    def __call__(self, event: Any) -> int:
        try:
            return SUCCESS if self._receive([event.encoded_dataset()]) else NOT_KEPT
        except DelineateError as error:
            self._error = error
            return OUT_OF_RESOURCES

    def check(self) -> None:
        """Raise what kept an object from being written."""
        if self._error is not None:
            raise self._error


def _reason(association: Association) -> str:
    return getattr(association.acceptor.primitive, "reason_str", "no reason given")


def _identifier(level: str, study: str, series: str) -> Any:
    from pydicom import Dataset

    found = Dataset()
    found.QueryRetrieveLevel = level
    found.StudyInstanceUID, found.SeriesInstanceUID = study, series
    return found


def _code(status: Any) -> int:
    """The code of an answer.

    Raises:
        UnreachableError: there is none, because the connection ended.
    """
    if not status or "Status" not in status:
        raise UnreachableError("the connection ended before the answer")
    return int(status.Status)


def _text(row: Any, key: str) -> str:
    return str(row.get(key) or "")


def _count(row: Any, key: str) -> int | None:
    text = _text(row, key)
    return int(text) if text.isdecimal() else None
