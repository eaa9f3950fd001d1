"""The view step: scans with their structures on a local page, until it is stopped.

What is shown and how is in ``viewer``; this opens the page and keeps it open.
"""

from __future__ import annotations

import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from ..core.progress import Say
from ..viewer.server import Server
from ..viewer.sources import find


def view(
    paths: Sequence[str | Path],
    *,
    labels: str | Path | None = None,
    port: int = 0,
    browser: bool = True,
    say: Say = print,
) -> None:
    """Serve ``paths`` on 127.0.0.1 until Ctrl-C.

    Args:
        paths: a run's folder, a manifest, or an image and its masks (see ``viewer.sources.find``).
        labels: file of names for masks.
        port: 0 takes a free one.
        browser: open the page in the browser.
        say: gets the address.

    Raises:
        UsageError: paths that do not belong together, or a port that cannot be used.
        InputError: nothing that can be shown; a case of its own is read before the page opens, so
            that what is wrong is said here.
    """
    shelf = find(paths, labels)
    try:
        with Server(shelf, port) as server:
            if len(shelf.entries) == 1:
                server.cases.description(0)
            say(f"{shelf.title}: {server.address}")
            say("Ctrl-C ends it")
            if browser:
                threading.Thread(
                    target=webbrowser.open, args=(server.address,), daemon=True
                ).start()
            server.serve_forever()
    except KeyboardInterrupt:
        say("ended")
