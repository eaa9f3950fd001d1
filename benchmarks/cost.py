"""What one CT costs: CPU seconds, memory, bytes read and written, by choice of `predict`.

    python benchmarks/cost.py [--model MODEL] [--scan FOLDER] [--choices N] [--labels N ...]

segments one scan, and then three copies of it in one call: the difference is the cost of a scan,
and the rest that of a call (the program, the network that is loaded and compiled). By default the
scan is a real CT of 78 slices of 512x512, and the model an untrained one of 16 base channels and
four structures at 1.5 mm, because only its size matters. Then a whole CT, that of
``predict_memory.py``, is segmented by such models of so many structures, each in a call of its own.

CPU seconds are those of all threads; they depend on the load of the machine less than time does.
Bytes are those of all system calls that read and write, whether or not a disk was needed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from measure import DATA, child, keep
from model import model_plan, untrained
from predict_memory import PREDICT, SCAN, write_ct

CHOICES: dict[str, list[str]] = {
    "default": [],
    "--overlap 0.25": ["--overlap", "0.25"],
    "--overlap 0": ["--overlap", "0"],
    "--skip-air": ["--skip-air"],
    "--mirror": ["--mirror"],
}
COPIES = 3
PER_SCAN = ("seconds", "cpu_s", "read_bytes", "written_bytes")
PREDICT_AND_COUNT = (
    PREDICT.replace('"--device", "cpu"]', '"--device", "cpu", *sys.argv[4:]]')
    + """
import json, resource

kinds = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
used = [resource.getrusage(kind) for kind in kinds]
found = {"cpu_s": sum(one.ru_utime + one.ru_stime for one in used)}
counted = dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())
found |= {"read_bytes": int(counted["rchar"]), "written_bytes": int(counted["wchar"])}
print(json.dumps(found))
"""
)


def spent(model: Path, scans: Path, out: Path, more: list[str]) -> dict[str, float]:
    """What a call needs: seconds, CPU seconds, peak memory, bytes read and written."""
    return child(PREDICT_AND_COUNT, str(model), str(scans), str(out), *more)


def by_choice(model: Path, scan: Path, folder: Path, choices: int) -> dict[str, Any]:
    """Choice -> what a scan costs, and what a call costs without it."""
    for count in (1, COPIES):
        for number in range(count):
            place = folder / f"{count}" / f"case_{number}"
            place.mkdir(parents=True)
            for path in scan.iterdir():
                (place / path.name).symlink_to(path.resolve())
    spent(model, folder / "1", folder / "warm", [])  # compiles the network, for all calls
    rows = {}
    for choice, more in list(CHOICES.items())[:choices]:
        out = folder / choice.replace(" ", "_")
        one, three = (
            spent(model, folder / f"{count}", Path(f"{out}_{count}"), more) for count in (1, COPIES)
        )
        a_scan = {name: (three[name] - one[name]) / (COPIES - 1) for name in PER_SCAN}
        a_call = {f"call_{name}": one[name] - a_scan[name] for name in ("seconds", "cpu_s")}
        rows[choice] = a_scan | a_call | {"peak_mb": three["peak_mb"]}
        print(choice, rows[choice], flush=True)
    return rows


def whole(folder: Path, labels: list[int]) -> dict[int, Any]:
    """Number of structures -> what a call for a whole CT costs."""
    write_ct(folder / "ct.nii.gz")
    rows = {}
    for count in labels:
        model = folder / f"{count}.model"
        untrained(model_plan(count)).save(model)
        rows[count] = spent(model, folder / "ct.nii.gz", folder / f"whole_{count}", [])
        print(count, "structures", rows[count], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--scan", type=Path, default=DATA / "chaos_ct" / "DICOM_anon")
    parser.add_argument("--choices", type=int, default=len(CHOICES), help="only the first ones")
    parser.add_argument("--labels", type=int, nargs="*", default=[4, 104])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = given.model or folder / "m.model"
        if given.model is None:
            untrained(model_plan(4)).save(model)
        rows = by_choice(model, given.scan, folder, given.choices)
        result = {
            "scan": given.scan.parent.name,
            "model": "untrained, 16 base channels, 1.5 mm" if given.model is None else "given",
            "choices": rows,
            "whole scan": SCAN,
            "whole": whole(folder, given.labels),
        }
    keep("cost", result)


if __name__ == "__main__":
    main()
