"""What one CT costs: CPU seconds, memory, bytes read and written, by choice of `predict`.

    python benchmarks/cost.py [--model MODEL] [--scan FOLDER] [--choices N]

segments one scan, and then three copies of it in one call: the difference is the cost of a scan,
and the rest that of a call (the program, the network that is loaded and compiled). By default the
scan is a real CT of 78 slices of 512x512, and the model an untrained one of 16 base channels and
four structures at 1.5 mm, because only its size matters. CPU seconds are those of all threads; they
depend on the load of the machine less than time does.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import DATA, keep
from model import model_plan, untrained

CHOICES: dict[str, list[str]] = {
    "default": [],
    "--overlap 0.25": ["--overlap", "0.25"],
    "--overlap 0": ["--overlap", "0"],
    "--skip-air": ["--skip-air"],
    "--mirror": ["--mirror"],
}
COPIES = 3


def spent(model: Path, scans: Path, out: Path, more: list[str]) -> dict[str, float]:
    """CPU seconds and peak memory of a call."""
    words = ["predict", model, scans, "-o", out, "--device", "cpu", *more]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "delineate.cli", *map(str, words)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": cpu, "peak_mb": after.ru_maxrss / 1e3}


def nbytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--scan", type=Path, default=DATA / "chaos_ct" / "DICOM_anon")
    parser.add_argument("--choices", type=int, default=len(CHOICES), help="only the first ones")
    given = parser.parse_args()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = given.model or folder / "m.model"
        if given.model is None:
            untrained(model_plan(4)).save(model)
        for count in (1, COPIES):
            for number in range(count):
                place = folder / f"{count}" / f"case_{number}"
                place.mkdir(parents=True)
                for path in given.scan.iterdir():
                    (place / path.name).symlink_to(path.resolve())
        spent(model, folder / "1", folder / "warm", [])  # compiles the network, for all calls
        for choice, more in list(CHOICES.items())[: given.choices]:
            out = folder / choice.replace(" ", "_")
            one, three = (
                spent(model, folder / f"{count}", Path(f"{out}_{count}"), more)
                for count in (1, COPIES)
            )
            a_scan = (three["cpu_s"] - one["cpu_s"]) / (COPIES - 1)
            rows[choice] = {
                "cpu_s": a_scan,
                "call_cpu_s": one["cpu_s"] - a_scan,
                "peak_mb": three["peak_mb"],
                "written_bytes": nbytes(Path(f"{out}_{COPIES}")) / COPIES,
            }
            print(choice, rows[choice], flush=True)
        read = nbytes(given.scan)
    keep(
        "cost",
        {
            "scan": given.scan.parent.name,
            "model": "untrained, 16 base channels, 1.5 mm" if given.model is None else "given",
            "read_bytes": read,
            "choices": rows,
        },
    )


if __name__ == "__main__":
    main()
