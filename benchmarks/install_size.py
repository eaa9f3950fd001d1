"""How much disk an installation takes, and whether the core works in it.

    python benchmarks/install_size.py python3.11 python3.12 python3.13
    python benchmarks/install_size.py --extra train python3.11

For each interpreter: a fresh environment, ``pip install`` of this checkout, and the size of
site-packages as ``du -sm`` counts it, of all (with pip itself) and of what was added. For the
core, commands then run on real scans, given with --data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "phantom cohort --patients 2",
    "check {data}/hippocampus -o checked",
    "check {data}/chaos_ct -o checked_ct",
    "convert {data}/chaos_ct/DICOM_anon ct.nii.gz",
    "convert ct.nii.gz ct.nrrd",
    "convert {data}/dicom_seg/liver_seg.nrrd liver.nii.gz",
    "info ct.nrrd",
    "evaluate {data}/chaos_ct/Segmentation {data}/chaos_ct/Ground --like {data}/chaos_ct/DICOM_anon"
    " -o scores_ct",
    "evaluate {data}/nnunet_hippocampus/predictions_plain {data}/hippocampus/labelsTr -o plain",
    "evaluate {data}/nnunet_hippocampus/predictions_tta {data}/hippocampus/labelsTr -o tta",
    "compare plain tta -o compared",
    "report plain",
)


def megabytes(folder: Path) -> int:
    done = subprocess.run(["du", "-sm", str(folder)], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0])


def measured(python: str, extra: str, data: Path | None) -> dict[str, object]:
    """Sizes in MB, and the commands that failed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([python, "-m", "venv", str(folder / "env")], check=True)
        own = folder / "env" / "bin" / "python"
        (site,) = (folder / "env" / "lib").glob("python*/site-packages")
        before = megabytes(site)
        what = f"{ROOT}[{extra}]" if extra else str(ROOT)
        subprocess.run([str(own), "-m", "pip", "install", "--quiet", what], check=True)
        after, failed = megabytes(site), []
        for command in COMMANDS if data is not None and not extra else ():
            words = command.format(data=data).split()
            done = subprocess.run(
                [str(own.with_name("delineate")), *words],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            # 1: there are findings, or some cases failed; the command itself works.
            if done.returncode not in (0, 1) or "Traceback" in done.stderr:
                failed.append(f"{command}: {done.stderr.strip()[-300:]}")
        return {
            "python": python,
            "extra": extra or "(core)",
            "all_mb": after,
            "added_mb": after - before,
            "commands": len(COMMANDS) if data is not None and not extra else 0,
            "failed": failed,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="+")
    parser.add_argument("--extra", default="")
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    for python in given.pythons:
        print(json.dumps(measured(python, given.extra, given.data)), flush=True)


if __name__ == "__main__":
    main()
