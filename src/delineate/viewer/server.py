"""The viewer's server: one page and its cases, for one person on this computer.

The server is bound to 127.0.0.1 only. Every address contains a random token, and the Host header
must name this server, which stops DNS rebinding (a foreign host name that resolves to 127.0.0.1).
All other requests are refused with status 403. A case is read when the page requests it, one at a
time. The server writes only temporary files.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ..core.errors import DelineateError, UsageError
from ..core.grid import rounded_mm
from .page import SCRIPTS, STATIC, STYLE, served_page
from .scenes import Scene, ViewerCase, described, shown_array
from .sources import CaseList
from .voxels import MOST_VOXELS, channel, coarser, packed, straightened

HOST = "127.0.0.1"
KEPT = 2  # cases kept in memory: the one on the screen and the previous one
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": POLICY,
}
TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}


class CaseReader:
    """The cases of ``shelf`` as bytes.

    A case is read when it is first requested, one at a time; the last ``KEPT`` cases stay in
    memory. A lock makes it safe for several request threads.
    """

    def __init__(self, shelf: CaseList):
        self.shelf = shelf
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, tuple[bytes, Scene]] = OrderedDict()

    def description(self, index: int) -> bytes:
        """The description of a case, as JSON.

        Raises:
            DelineateError: the case cannot be read.
        """
        with self._lock:
            return self._case(index)[0]

    def image(self, index: int, number: int) -> bytes:
        """One channel of a case's image as .nii.gz."""
        with self._lock:
            return packed(channel(self._case(index)[1].image, number))

    def mask(self, index: int, number: int) -> bytes:
        """One mask of a case as .nii.gz, on exactly the image's grid."""
        with self._lock:
            mask = self._case(index)[1].masks[number]
            return packed(mask.volume.with_array(shown_array(mask)))

    def _case(self, index: int) -> tuple[bytes, Scene]:
        """Description and scene of a case; reading it drops the case used longest ago."""
        if index not in self._kept:
            while len(self._kept) >= KEPT:
                self._kept.popitem(last=False)
            self._kept[index] = self._read(self.shelf.entries[index])
        self._kept.move_to_end(index)
        return self._kept[index]

    def _read(self, entry: ViewerCase) -> tuple[bytes, Scene]:
        """Read a case; volumes are counted on the original masks, voxels may be made coarser."""
        scene = entry.load()
        straight = straightened(scene)
        small = coarser(straight, MOST_VOXELS)
        facts = {
            **described(straight),
            **({} if straight is scene else {"masks": described(scene)["masks"]}),
            "reduced": small.image.grid != scene.image.grid,
            "shown_mm": [rounded_mm(s) for s in small.image.grid.spacing_mm],
        }
        return json.dumps(facts, allow_nan=False).encode(), small


class Server(ThreadingHTTPServer):
    """Serves ``shelf`` until it is shut down; open ``address`` in a browser.

    Raises:
        UsageError: the port is in use or not allowed.
    """

    daemon_threads = True

    def __init__(self, shelf: CaseList, port: int = 0):
        self.cases, self.token = CaseReader(shelf), secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UsageError(
                f"port {port} cannot be used ({error.strerror}); omit --port to get a free one"
            ) from error
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds after which an idle connection is closed

    def do_GET(self) -> None:
        path = self._own_path()
        if path is None:
            self._refuse()
            return
        try:
            self._answer(path)
        except DelineateError as error:
            self._send(422, "application/json", json.dumps({"error": str(error)}).encode())
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the page has moved on to another case
        # An unexpected error in a library: the page shows it, and the server continues.
        except Exception as error:
            self._send(
                500,
                "application/json",
                json.dumps(
                    {"error": f"cannot be shown ({type(error).__name__}: {error})"}
                ).encode(),
            )

    def do_HEAD(self) -> None:
        self.do_GET()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse other methods in the same way as other addresses."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._refuse()
        else:
            super().send_error(code, message, explain)

    def _refuse(self) -> None:
        self.close_connection = True  # a request body, if there is one, is not read
        self._send(
            403,
            "text/plain; charset=utf-8",
            b"This is not an address of the viewer. Open the address that delineate printed.\n",
        )

    def _own_path(self) -> str | None:
        """The requested path below the token; None if token, host or origin is wrong."""
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in self.server.hosts or (
            origin is not None and origin.removeprefix("http://") not in self.server.hosts
        ):
            return None
        token, slash, rest = self.path.removeprefix("/").partition("/")
        own = secrets.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode())
        return rest.partition("?")[0] if own and slash and self.path.startswith("/") else None

    def _answer(self, path: str) -> None:
        """Send the page, one of its files, or a part of a case; refuse any other path."""
        shelf, cases = self.server.cases.shelf, self.server.cases
        if path == "":
            page = served_page(shelf.title, [(entry.id, entry.note) for entry in shelf.entries])
            self._send(200, "text/html; charset=utf-8", page.encode())
        elif path in (*SCRIPTS, STYLE):
            self._send(200, TYPES[path[path.rindex(".") :]], (STATIC / path).read_bytes())
        elif found := re.fullmatch(r"case/(\d{1,9})\.json", path):
            self._numbered(partial(cases.description, int(found[1])), "application/json")
        elif found := re.fullmatch(r"case/(\d{1,9})/(image|mask)/(\d{1,9})\.nii\.gz", path):
            make = cases.image if found[2] == "image" else cases.mask
            self._numbered(partial(make, int(found[1]), int(found[3])), "application/gzip")
        else:
            self._refuse()

    def _numbered(self, make: Callable[[], bytes], kind: str) -> None:
        """Send the bytes that ``make`` returns; refuse a number without a case, channel or mask."""
        try:
            data = make()
        except IndexError:
            self._refuse()
            return
        self._send(200, kind, data)

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {
            **HEADERS,
            "Content-Type": kind,
            "Content-Length": str(len(body)),
        }.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "delineate"

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing, so that the address stays visible in the terminal."""
