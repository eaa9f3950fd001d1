# ruff: noqa: E501  (programs in strings)
"""Preparing the hippocampus cases for training: ours from their folder to the store, nnU-Net's from its fingerprint to its store, whole processes.

    python benchmarks/prepare_cohort.py [--peer FOLDER_OF_A_VENV] [--data ../shared/data]

Ours is what `train` does before it trains: fingerprint, plan, store, in one process where others would take longer to start; nnU-Net's is ``nnUNetv2_plan_and_preprocess -c 3d_fullres``
with as many processes as there are cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import DATA, child, keep

OURS = """
import sys
from pathlib import Path
from delineate.cohort.layouts import discover
from delineate.core.store import Store
from delineate.steps import plan as plan_step
from delineate.steps.prepare import prepare_cohort
if __name__ == "__main__":
    manifest = discover(sys.argv[1]).manifest
    found = plan_step.fingerprint(manifest)
    plan = plan_step.make_plan(found, manifest, plan_step.Machine.here("cpu"), epochs=1, probe=lambda *_: 0.1)
    outcomes = prepare_cohort(manifest, plan, Store(Path(sys.argv[2])), progress=None)
    assert not [o for o in outcomes if o.error], outcomes
    print('{"cases": %d}' % len(outcomes))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="an environment with nnunetv2")
    parser.add_argument("--data", type=Path, default=DATA)
    a = parser.parse_args()
    cohort = (a.data / "hippocampus").resolve()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        script = work / "ours.py"  # workers import it
        script.write_text(OURS)
        run = child(
            f"import runpy, sys; sys.argv[0] = {str(script)!r}; runpy.run_path({str(script)!r}, run_name='__main__')",
            str(cohort),
            str(work / "store"),
        )
        found: dict[str, Any] = {"cases": int(run["cases"]), "ours_s": round(run["seconds"], 1)}
        if a.peer:
            raw = work / "raw" / "Dataset004_Hippocampus"
            for kind in ("imagesTr", "labelsTr"):
                (raw / kind).mkdir(parents=True)
                for path in sorted((cohort / kind).glob("hippocampus_*.nii.gz")):
                    name = path.name.replace(".nii.gz", "_0000.nii.gz") if kind == "imagesTr" else path.name
                    (raw / kind / name).symlink_to(path)
            info = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "Anterior": 1, "Posterior": 2}, "file_ending": ".nii.gz"}
            (raw / "dataset.json").write_text(json.dumps(info | {"numTraining": len(list((raw / "labelsTr").iterdir()))}))
            folders = {f"nnUNet_{n}": str(work / n) for n in ("raw", "preprocessed", "results")}
            began = time.perf_counter()
            command = [
                str(a.peer / "bin" / "nnUNetv2_plan_and_preprocess"),
                "-d",
                "4",
                "-c",
                "3d_fullres",
                "-np",
                str(os.cpu_count()),
                "-npfp",
                str(os.cpu_count()),
            ]
            subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | folders)
            found["peer_s"] = round(time.perf_counter() - began, 1)
            found["ratio"] = round(found["peer_s"] / found["ours_s"], 2)
    keep("prepare_cohort", found)


if __name__ == "__main__":
    main()
