"""An imported nnU-Net: its masks compared with nnU-Net's own, and the seconds that both take on the
same scans, measured for whole processes.

    python benchmarks/import_nnunet.py [--peer FOLDER_OF_A_VENV] [--data ../shared/data] [--runs 3]

Without ``--peer`` the masks are compared with those that nnU-Net 2.8.1 left next to the data, and
only ours is timed. Create the environment for ``--peer`` with ``python -m venv FOLDER`` and
``FOLDER/bin/pip install torch==2.13.0 nnunetv2``. No code of it is used here.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from measure import DATA, keep, timed
from nnunet_peer import TRAINED, link_scans, predict

DELINEATE = (sys.executable, "-m", "delineate.cli")


def dice(ours: Path, theirs: Path) -> dict[str, float]:
    """Mean and lowest Dice over cases and both structures, and the share of equal voxels."""
    scores, equal = [], []
    for path in sorted(theirs.glob("*.nii.gz")):
        a, b = (np.asarray(nib.load(folder / path.name).dataobj) for folder in (ours, theirs))
        scores += [
            2 * ((a == v) & (b == v)).sum() / max(1, (a == v).sum() + (b == v).sum())
            for v in (1, 2)
        ]
        equal.append((a == b).mean())
    return {
        "mean_dice": round(float(np.mean(scores)), 5),
        "least_dice": round(float(min(scores)), 5),
        "equal_voxels": round(float(np.mean(equal)), 6),
    }


def options(description: str | None, runs: int) -> argparse.ArgumentParser:
    """The options of a comparison with nnU-Net: --peer, --data, --runs."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, help="virtual environment with nnunetv2")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--runs", type=int, default=runs)
    return parser


def side_by_side(
    a: argparse.Namespace, work: Path, trained: Path, name: str, flag: str
) -> tuple[list[float], list[float]]:
    """Seconds of each run, ours and nnU-Net's in turns; masks go to NAME_ours and NAME_peer."""
    model, scans, out = work / "hippocampus.model", work / "scans", work / f"{name}_ours"
    line = [*DELINEATE, "predict", str(model), str(scans), "-o", str(out), flag]
    ours: list[float] = []
    peer: list[float] = []
    for _ in range(a.runs):
        ours.append(timed(line))
        if a.peer:
            theirs = work / f"{name}_peer"
            peer.append(timed(*predict(a.peer, trained, scans, theirs, mirror=name == "mirrored")))
    # Remove nnU-Net's channel suffix, so that masks have the names of the cases.
    for path in out.glob("*_0000.nii.gz"):
        path.rename(path.with_name(path.name.replace("_0000", "")))
    return ours, peer


def main() -> None:
    a = options(__doc__, 3).parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work, kept = Path(temporary), a.data / "nnunet_hippocampus"
        trained = kept / TRAINED
        model = work / "hippocampus.model"
        timed([*DELINEATE, "import", "nnunet", str(trained), "-o", str(model)])
        # The scans are those for which nnU-Net left its own masks.
        predicted = sorted((kept / "predictions_plain").glob("*.nii.gz"))
        images = {
            p.name.removesuffix(".nii.gz"): next(
                (a.data / "hippocampus").rglob(f"images*/{p.name}")
            )
            for p in predicted
        }
        link_scans(images, work / "scans")
        for name, flag, theirs in (
            ("plain", "--no-mirror", "predictions_plain"),
            ("mirrored", "--mirror", "predictions_tta"),
        ):
            ours, peer = side_by_side(a, work, trained, name, flag)
            found[name] = {
                "ours_s": round(statistics.median(ours), 2),
                "against the masks it left": dice(work / f"{name}_ours", kept / theirs),
            }
            if peer:
                found[name] |= {
                    "peer_s": round(statistics.median(peer), 2),
                    "ratio": round(statistics.median(peer) / statistics.median(ours), 2),
                    "against the masks it made": dice(work / f"{name}_ours", work / f"{name}_peer"),
                }
    keep("import_nnunet", {"cases": 10, "runs": a.runs, **found})


if __name__ == "__main__":
    main()
