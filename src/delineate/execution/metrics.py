"""Figures of a running work in the text format of Prometheus, as a file or as a page.

The page is bound to 127.0.0.1 only, because it has no password; a collector of this machine reads
it. No figure and no label names a case, a file or a person. The module does not know what is
counted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

from ..core.errors import DelineateError, UsageError

HOST, PATH = "127.0.0.1", "/metrics"
TYPE = "text/plain; version=0.0.4; charset=utf-8"
FRESH_S = 2.0  # for which a page is not counted again

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gauge:
    """A figure that may rise and fall.

    Args:
        name: of letters and underscores, with its unit.
        about: a sentence.
        values: label, such as 'state="done"', or "" -> value.
    """

    name: str
    about: str
    values: dict[str, float]


def text_of(gauges: Iterable[Gauge]) -> str:
    """The figures in the text exposition format (Prometheus documentation, version 0.0.4).

    >>> print(text_of([Gauge("work_cases", "Cases.", {'state="done"': 3})]), end="")
    # HELP work_cases Cases.
    # TYPE work_cases gauge
    work_cases{state="done"} 3
    """
    lines = []
    for one in gauges:
        lines += [f"# HELP {one.name} {one.about}", f"# TYPE {one.name} gauge"]
        for label, value in one.values.items():
            lines.append(f"{one.name}{f'{{{label}}}' if label else ''} {value:.10g}")
    return "".join(f"{line}\n" for line in lines)


def page(port: int, count: Callable[[], Iterable[Gauge]]) -> ThreadingHTTPServer:
    """A server of the page, which does not answer yet; see ``serve_forever`` of ``socketserver``.

    Args:
        port: 0 chooses a free one.
        count: counts the figures; its errors are answered with status 503.

    Raises:
        UsageError: the port is used, or not allowed.
    """
    handler = type("Handler", (_Handler,), {"counted": _Counted(count)})
    try:
        return ThreadingHTTPServer((HOST, port), handler)
    except (OSError, OverflowError) as error:
        raise UsageError(f"the port {port} of {HOST} cannot be used ({error})") from error


class _Counted:
    """The page, counted again if it is not fresh; by one thread at a time."""

    def __init__(self, count: Callable[[], Iterable[Gauge]]):
        self._count, self._lock = count, Lock()
        self._text, self._until = "", 0.0

    def text(self) -> str:
        with self._lock:
            if time.monotonic() >= self._until:
                self._text = text_of(self._count())
                self._until = time.monotonic() + FRESH_S
            return self._text


class _Handler(BaseHTTPRequestHandler):
    counted: _Counted
    timeout = 10  # seconds, for a client that does not end its request

    def do_GET(self) -> None:
        """Answer with the page."""
        if self.path != PATH:
            self._answer(HTTPStatus.NOT_FOUND, f"the figures are at {PATH}\n")
            return
        try:
            self._answer(HTTPStatus.OK, self.counted.text())
        except DelineateError as error:  # its message may name files
            log.debug("the figures could not be counted: %s", error)
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "the records cannot be read\n")

    def _answer(self, status: HTTPStatus, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", TYPE)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Print no line for each request."""
