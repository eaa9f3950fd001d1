"""View: serve scans with their structures as a local page until Ctrl-C (``viewer`` makes it)."""

from __future__ import annotations

import signal
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from ..core.progress import Say
from ..execution.stopping import StopSignal
from ..viewer.server import Server
from ..viewer.sources import find
from .options import ViewOptions, reads_images


@reads_images
def view(
    paths: Sequence[str | Path],
    options: ViewOptions = ViewOptions(),
    *,
    say: Say = print,
) -> None:
    """Serve ``paths`` on 127.0.0.1 until Ctrl-C.

    Args:
        paths: a run's folder, a manifest, or an image and its masks (see ``viewer.sources.find``).
        options: see ``commands.options``; port 0 chooses a free one.
        say: receives the address.

    Raises:
        UsageError: paths that do not belong together, or a port that cannot be used.
        InputError: nothing that can be shown. A single case is read before the page opens, so that
            its errors are raised here.
    """
    cases = find(paths, options.labels)
    try:
        with Server(cases, options.port) as server:
            if len(cases.entries) == 1:
                server.cases.description(0)
            say(f"{cases.title}: {server.address}")
            say("press Ctrl-C to stop")
            if options.browser:
                threading.Thread(
                    target=webbrowser.open, args=(server.address,), daemon=True
                ).start()
            server.serve_forever()
    except (KeyboardInterrupt, StopSignal) as stop:
        say("stopped")
        # Ctrl-C is the usual end; other signals keep their exit code.
        if isinstance(stop, StopSignal) and stop.number != signal.SIGINT:
            raise
