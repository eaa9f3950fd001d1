"""Install the packages of requirements.lock with two calls of pip side by side: most of the time of
pip is unpacking, on one core.

    python tools/install.py

Each call gets half of the lock. The packages of both are disjoint and complete (``--no-deps``), so
neither looks at what the other installs. Where one of them fails, a single call says why or ends
what is left.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
INSTALL = (
    *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
    *("--require-hashes", "--no-deps", "-r"),
)


def parts(lock: str, count: int) -> list[str]:
    """The pins of a lock in ``count`` parts, in turn, because neighbours are often of one size."""
    pins = re.split(r"^(?=[\w.-]+==)", lock, flags=re.MULTILINE)[1:]
    return ["".join(pins[n::count]) for n in range(count)]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        calls: list[subprocess.Popen[bytes]] = []
        for n, part in enumerate(parts(LOCK.read_text(encoding="utf-8"), 2)):
            path = Path(folder) / f"{n}.txt"
            path.write_text(part, encoding="utf-8")
            calls.append(subprocess.Popen((*INSTALL, str(path)), stderr=subprocess.DEVNULL))
        codes = [call.wait() for call in calls]
    return subprocess.call((*INSTALL, str(LOCK))) if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
