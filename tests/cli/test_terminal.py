"""The progress bar on a terminal of 80 columns."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys

import pytest

SCRIPT = """
import time
from delineate.cli.terminal import progress_bar, say
with progress_bar() as progress:
    for n in range(5):
        progress("check", n, 5, "a case with a name that is far longer than any terminal is wide")
    for n in range(4):
        note = "validation Dice 0.843, loss 0.123"
        progress("train fold 0 coronal", n / 4, 1, note)
        say(f"line {n}")
        progress("a stage with a name that is longer than anybody expected", n, 4, note)
        time.sleep(0.12)
"""


def output_on_a_terminal(columns: int) -> str:
    """What the script writes to a terminal of this width."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    command = [sys.executable, "-c", SCRIPT]
    running = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=kept | {"TERM": "xterm"}
    )
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    assert running.wait(timeout=20) == 0
    return b"".join(parts).decode()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
@pytest.mark.parametrize("columns", [80, 60])
def test_no_line_of_the_bar_wraps(columns):
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output_on_a_terminal(columns))
    lines = re.split(r"[\r\n]+", text)
    assert max(map(len, lines)) <= columns
    train = [line for line in lines if line.startswith("train fold 0 coronal")]
    assert train and all("validation Dice 0.843"[: columns - 60] in line for line in train)
    assert any(re.search(r"(\d:\d\d:\d\d|-:--:--) left", line) for line in train)
    assert all(line.rstrip().endswith(" left") and "━" in line for line in train)
    assert any(line.startswith("a stage with a name tha…") for line in lines)
    assert {"line 0", "line 3"} <= {line.strip() for line in lines}
