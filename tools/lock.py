"""Write the locks: requirements.lock has every package of the extra dev with hashes, for all
platforms, and requirements-image.lock those of them that the container needs.

    python tools/lock.py

uv resolves for every platform and Python version at once. torch and the packages of CUDA that it
requires on Linux are left out: its builds for CPU and for CUDA are different files of one version,
so pip must choose the build without hashes, from requirements-torch.txt.

Versions stay as they are in the lock, except those of packages given on the command line.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
IMAGE = ROOT / "requirements-image.lock"
OLDEST = "3.11.7"  # of Python
OF_TORCH = ("torch==", "nvidia-", "cuda-", "triton")
# setuptools builds the project itself without an environment of its own.
ALSO = ("setuptools>=77",)
HEAD = """\
# Written by `make lock`. {user} installs exactly these packages, and then torch:
#     pip install --require-hashes --no-deps -r {name}
#     pip install -r requirements-torch.txt
"""


def resolved(extra: str, free: list[str]) -> str:
    """uv's answer for an extra, with the pins of the present lock except those of ``free``."""
    with tempfile.TemporaryDirectory() as folder:
        pins, wanted = Path(folder) / "pins.txt", Path(folder) / "wanted.in"
        old = re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
        pins.write_text(
            "\n".join(f"{name}=={version}" for name, version in old if name not in free)
        )
        wanted.write_text("\n".join(ALSO))
        torch = ("-c", "requirements-torch.txt")
        command = [
            *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", str(wanted)),
            *("--extra", extra, "--universal", "--generate-hashes", "--no-header"),
            *("--no-annotate", "--python-version", OLDEST, "-c", str(pins), *torch, "-q"),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def write(path: Path, extra: str, user: str, free: list[str]) -> None:
    """Write one lock."""
    blocks = re.split(r"^(?=[\w.-]+==)", resolved(extra, free), flags=re.MULTILINE)
    kept = [block for block in blocks if not block.startswith(OF_TORCH)]
    head = HEAD.format(user=user, name=path.name)
    path.write_text(head + "".join(kept), encoding="utf-8")


def main() -> None:
    write(LOCK, "dev", "`make install`", sys.argv[1:])
    # Versions are those of the first lock, which the tests ran with.
    write(IMAGE, "all", "The container", [])


if __name__ == "__main__":
    main()
