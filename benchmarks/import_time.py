"""Seconds of `import delineate` and of `delineate --help`: whole processes, compared with an empty
Python process.

    python benchmarks/import_time.py
"""

from __future__ import annotations

from measure import child, keep, medians

HELP = """
import sys

sys.argv = ["delineate", "--help"]
try:
    from delineate.cli import app

    app()
except SystemExit:
    pass
"""


def main() -> None:
    codes = {
        "empty": "pass",
        "import": "import delineate",
        "names": "import delineate as dl; dl.Volume, dl.Grid, dl.LabelSet, dl.load",
        "help": HELP,
    }
    found = {
        name: medians([child(code) for _ in range(5)])["seconds"] for name, code in codes.items()
    }
    keep(
        "import_time",
        {"seconds": found, "import_alone_s": round(found["import"] - found["empty"], 3)},
    )


if __name__ == "__main__":
    main()
