"""Archives in this process, on the loopback interface: a DICOMweb service, which can be told to
fail, and a DIMSE service.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom import Dataset


class Store:
    """Instances by SOPInstanceUID, and what the archive states of their series.

    Args:
        faults: what the next retrievals do instead; see ``_Handler``.
        stated: NumberOfSeriesRelatedInstances, if it is not true.
    """

    def __init__(self, *paths: Path):
        self.files = {pydicom.dcmread(path).SOPInstanceUID: path.read_bytes() for path in paths}
        self.faults: list[str] = []
        self.stated: int | None = None
        self.most = 1000  # answers of one query
        self.ignores_offset = False
        self.seen: list[tuple[str, str]] = []
        self.credentials: list[str] = []
        self.url = ""

    def headers(self) -> list[Dataset]:
        return [pydicom.dcmread(BytesIO(raw)) for raw in self.files.values()]

    def of(self, study: str, series: str = "") -> dict[str, Dataset]:
        return {
            one.SOPInstanceUID: one
            for one in self.headers()
            if one.StudyInstanceUID == study and series in ("", one.SeriesInstanceUID)
        }

    def add(self, raw: bytes) -> None:
        self.files[pydicom.dcmread(BytesIO(raw)).SOPInstanceUID] = raw

    def asked(self, *parts: str) -> list[str]:
        """The paths of requests that have all of these parts."""
        return [path for _, path in self.seen if all(part in path for part in parts)]


def _json(**values: object) -> dict:
    return {
        pydicom.datadict.tag_for_keyword(key).__format__("08X"): {"vr": "LO", "Value": [value]}
        for key, value in values.items()
    }


class _Handler(BaseHTTPRequestHandler):
    """Faults: a number is answered as a status; "reset" closes the connection; "cut N" closes it
    in the middle of the instance N, without and with a stated length ("short N"); "frame" leaves
    the frame of a single instance out; "page" answers with a page of HTML.
    """

    store: Store

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, code: int, body: bytes, kind: str, phrase: str | None = None) -> None:
        self.send_response(code, phrase)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, code: int) -> None:
        # A service that repeats what it was sent, in every place that a client may print.
        given = self.headers.get("Authorization", "")
        self._answer(code, given.encode(), "text/plain", given or None)

    def do_GET(self) -> None:
        self.store.seen.append(("GET", self.path))
        self.store.credentials.append(self.headers.get("Authorization", ""))
        path, _, query = self.path.partition("?")
        study, series, instance = (
            (re.findall(rf"/{name}/([^/]+)", path) or [""])[0]
            for name in ("studies", "series", "instances")
        )
        if path.endswith(("/series", "/instances")):
            self._query(study, series, query, path.endswith("/series"))
        else:
            found = self.store.of(study, series)
            uids = [uid for uid in found if instance in ("", uid)]
            self._retrieve([self.store.files[uid] for uid in uids])

    def _query(self, study: str, series: str, query: str, of_series: bool) -> None:
        asked = dict(one.split("=") for one in query.split("&") if one)
        if of_series:
            series = asked.get("SeriesInstanceUID", "")
        found = self.store.of(study, series)
        rows = {
            uid: _json(SOPInstanceUID=uid, SOPClassUID=one.SOPClassUID)
            for uid, one in found.items()
        }
        if of_series:
            count = [one.SeriesInstanceUID for one in found.values()]
            rows = {
                one.SeriesInstanceUID: _json(
                    SeriesInstanceUID=one.SeriesInstanceUID,
                    Modality=one.Modality,
                    NumberOfSeriesRelatedInstances=self.store.stated
                    or count.count(one.SeriesInstanceUID),
                )
                for one in found.values()
            }
        first = 0 if self.store.ignores_offset else int(asked.get("offset", 0))
        page = list(rows.values())[first : first + self.store.most]
        self._answer(200, json.dumps(page).encode(), "application/dicom+json")

    def _retrieve(self, files: list[bytes]) -> None:
        fault = self.store.faults.pop(0) if self.store.faults else ""
        if fault.isdigit():
            self._refuse(int(fault))
        elif fault == "reset":
            self.connection.close()
        elif fault == "page":
            self._answer(200, b"<html>log in</html>", "text/html")
        elif not files:
            self._refuse(404)
        elif fault == "frame":
            self._answer(200, files[0], "application/dicom")
        else:
            parts = [b"--b 1\r\nContent-Type: application/dicom\r\n\r\n" + f for f in files]
            body = b"\r\n".join([*parts, b"--b 1--"])
            kind = 'multipart/related; type="application/dicom"; boundary="b 1"'
            if fault:
                how, _, count = fault.partition(" ")
                end = sum(len(part) + 2 for part in parts[: int(count)]) + 300
                self.send_response(200)
                self.send_header("Content-Type", kind)
                if how == "short":
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:end])
            else:
                self._answer(200, body, kind)

    def do_POST(self) -> None:
        self.store.seen.append(("POST", self.path))
        self.store.credentials.append(self.headers.get("Authorization", ""))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self.store.faults.pop(0) if self.store.faults else ""
        if fault.isdigit():
            self._refuse(int(fault))
            return
        boundary = re.findall('boundary="?([^";]+)', self.headers["Content-Type"])[0]
        raw = body.split(f"--{boundary}".encode())[1].partition(b"\r\n\r\n")[2][:-2]
        uid = pydicom.dcmread(BytesIO(raw)).SOPInstanceUID
        if fault.startswith("reason"):
            row = {"00081197": {"vr": "US", "Value": [int(fault.split()[1], 16)]}}
            failed = {"00081198": {"vr": "SQ", "Value": [row]}}
            self._answer(202, json.dumps(failed).encode(), "application/dicom+json")
        elif uid in self.store.files:
            self._answer(409, b"{}", "application/dicom+json")
        else:
            self.store.add(raw)
            self._answer(200, b"{}", "application/dicom+json")


@contextmanager
def serving(store: Store, tls: ssl.SSLContext | None = None) -> Iterator[Store]:
    """A DICOMweb service with the instances of ``store``, whose ``url`` is its address."""
    handler = type("Handler", (_Handler,), {"store": store})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    scheme = "http" if tls is None else "https"
    store.url = f"dicomweb:{scheme}://127.0.0.1:{server.server_address[1]}/dicom-web"
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def listening(
    store: Store,
    gives: bool = True,
    statuses: tuple[int, ...] = (),
    tls: ssl.SSLContext | None = None,
    moves_by: ssl.SSLContext | None = None,
) -> Iterator[Store]:
    """A DIMSE service called STORE.

    Args:
        gives: whether it accepts C-GET.
        tls, moves_by: of the connections that it accepts, and of those that it opens for C-MOVE.
        statuses: of the next objects that are sent to it, instead of keeping them.
    """
    from pynetdicom import AE, build_context, evt
    from pynetdicom.sop_class import CTImageStorage, SegmentationStorage

    from delineate.formats.dicom.remote.dimse import FIND, GET, MOVE

    left = list(statuses)

    def wanted(event: evt.Event) -> list[Dataset]:
        query = event.identifier
        uids = query.get("SOPInstanceUID") or ()
        uids = [uids] if isinstance(uids, str) else list(uids)
        store.seen.append((event.event.name, f"{query.QueryRetrieveLevel} {len(uids)}"))
        found = store.of(query.StudyInstanceUID, query.get("SeriesInstanceUID") or "")
        return [one for uid, one in found.items() if not uids or uid in uids]

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        found = wanted(event)
        level = event.identifier.QueryRetrieveLevel
        key = {"SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}[level]
        for uid in dict.fromkeys(one[key].value for one in found):
            same = [one for one in found if one[key].value == uid]
            row = Dataset()
            row.QueryRetrieveLevel = level
            for name in ("StudyInstanceUID", "SeriesInstanceUID", "Modality", key, "SOPClassUID"):
                setattr(row, name, same[0][name].value)
            row.NumberOfSeriesRelatedInstances = store.stated or len(same)
            yield 0xFF00, row

    def get(event: evt.Event) -> Iterator[object]:
        found = wanted(event)
        # A service that stops in the middle.
        count = int(store.faults.pop(0)) if store.faults else len(found)
        yield count
        for one in found[:count]:
            yield 0xFF00, one

    def move(event: evt.Event) -> Iterator[object]:
        port = int(store.url.rpartition(" ")[2])
        encrypted = {"tls_args": (moves_by, "127.0.0.1")} if moves_by else {}
        yield "127.0.0.1", port, {"contexts": [build_context(CTImageStorage)], **encrypted}
        yield from get(event)

    def keep(event: evt.Event) -> int:
        store.seen.append(("C-STORE", event.request.AffectedSOPInstanceUID))
        if left:
            return left.pop(0)
        store.add(event.encoded_dataset())
        return 0x0000

    own = AE("STORE")
    own.require_called_aet = True
    for kind in (CTImageStorage, SegmentationStorage):
        own.add_supported_context(kind, scu_role=True, scp_role=True)
    for model in (FIND, MOVE, *([GET] if gives else [])):
        own.add_supported_context(model)
    handlers = [
        (evt.EVT_C_FIND, find),
        (evt.EVT_C_GET, get),
        (evt.EVT_C_MOVE, move),
        (evt.EVT_C_STORE, keep),
    ]
    server = own.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=tls)
    store.url = f"dimse:STORE@127.0.0.1:{server.server_address[1]}"
    try:
        yield store
    finally:
        server.shutdown()
