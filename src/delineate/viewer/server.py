"""The viewer's server: one page and its cases, for one person on this computer.

It listens on 127.0.0.1 alone. Every address carries a random token, and the Host header must name
this server (a foreign name that was made to resolve to 127.0.0.1 would send its own); whatever else
is asked for is refused with
403. Cases are read when the page asks for them, one at a time. It writes nothing but temporary
files.
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
from .page import SCRIPTS, STATIC, STYLE, served_page
from .scenes import Scene, ViewerCase, described, shown_array
from .sources import CaseList
from .voxels import MOST_VOXELS, channel, coarser, packed

HOST = "127.0.0.1"
KEPT = 2  # cases in memory: that on the screen and the one before
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
    """The shelf's cases as bytes, read when they are asked for, one at a time, the last few
    kept.
    """

    def __init__(self, shelf: CaseList):
        self.shelf = shelf
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, tuple[bytes, Scene]] = OrderedDict()

    def description(self, index: int) -> bytes:
        """What the page needs to know of a case, as JSON.

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
        if index not in self._kept:
            while len(self._kept) >= KEPT:
                self._kept.popitem(last=False)
            self._kept[index] = self._read(self.shelf.entries[index])
        self._kept.move_to_end(index)
        return self._kept[index]

    def _read(self, entry: ViewerCase) -> tuple[bytes, Scene]:
        scene = entry.load()
        small = coarser(scene, MOST_VOXELS)
        facts = {
            **described(scene),
            "reduced": small.image.grid != scene.image.grid,
            "shown_mm": [round(s, 3) for s in small.image.grid.spacing_mm],
        }
        return json.dumps(facts, allow_nan=False).encode(), small


class Server(ThreadingHTTPServer):
    """Serves ``shelf`` until it is shut down; ``address`` is what to open.

    Raises:
        UsageError: the port is taken or may not be used.
    """

    daemon_threads = True

    def __init__(self, shelf: CaseList, port: int = 0):
        self.cases, self.token = CaseReader(shelf), secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UsageError(
                f"port {port} cannot be used ({error.strerror}); leave --port out to get a free one"
            ) from error
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that an idle connection may stay

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
            self.close_connection = True  # the page went on to another case
        # a library met something it did not foresee; the page says so, and the server goes on
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
        """Other methods are refused like other addresses."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._refuse()
        else:
            super().send_error(code, message, explain)

    def _refuse(self) -> None:
        self.close_connection = True  # a body, if there is one, is not read
        self._send(
            403,
            "text/plain; charset=utf-8",
            b"This address is not the viewer's: open the one that delineate printed.\n",
        )

    def _own_path(self) -> str | None:
        """What is asked for below the token; None where the token, the host or the origin is not
        ours.
        """
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in self.server.hosts or (
            origin is not None and origin.removeprefix("http://") not in self.server.hosts
        ):
            return None
        token, slash, rest = self.path.removeprefix("/").partition("/")
        own = secrets.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode())
        return rest.partition("?")[0] if own and slash and self.path.startswith("/") else None

    def _answer(self, path: str) -> None:
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
        """Send what ``make`` gives; a number that no case, channel or mask has is refused."""
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
        """Say nothing: the terminal belongs to the address."""
