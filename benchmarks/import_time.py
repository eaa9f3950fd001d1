"""Seconds of `import delineate` (and of `delineate --help`), whole process less an empty one.

python benchmarks/import_time.py
"""

from __future__ import annotations

from measure import child, keep, medians


def main() -> None:
    codes = {
        "empty": "pass",
        "import": "import delineate",
        "names": "import delineate as dl; dl.Volume, dl.Grid, dl.LabelSet, dl.load",
        "help": "import sys; sys.argv = ['delineate', '--help']\ntry:\n from delineate.cli "
        "import app\n app()\n"
        "except SystemExit: pass",
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
