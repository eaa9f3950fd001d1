"""A server between a client and a store that fails in the ways of networks and servers: states of
5xx, bodies that end early, and answers that come too late.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP = ("connection", "transfer-encoding", "content-length", "date", "server")


@contextlib.contextmanager
def unreliable(
    behind: tuple[str, int], fault: Callable[[str, str, int], str], late_s: float = 0.0
) -> Iterator[tuple[str, Counter[str]]]:
    """The URL of the server, and how often it failed in each way.

    Args:
        behind: host and port of the store.
        fault: of method, path and number of the request: "", "503", "short" or "late".
        late_s: how long late answers wait.
    """
    seen: Counter[str] = Counter()
    number = iter(range(1 << 30))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            what = fault(self.command, self.path, next(number))
            seen[what] += 1
            if what == "503":
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            time.sleep(late_s if what == "late" else 0)
            there = http.client.HTTPConnection(*behind, timeout=30)
            there.request(self.command, self.path, body, dict(self.headers))
            found = there.getresponse()
            content = found.read()
            self.send_response(found.status)
            for name, value in found.getheaders():
                if name.lower() not in HOP:
                    self.send_header(name, value)
            size = found.getheader("Content-Length") or str(len(content))
            self.send_header("Content-Length", size)
            self.end_headers()
            if self.command != "HEAD":
                with contextlib.suppress(OSError):
                    self.wfile.write(content[: len(content) // 2] if what == "short" else content)
            self.close_connection = what == "short"

    for verb in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        setattr(Handler, f"do_{verb}", Handler.answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
