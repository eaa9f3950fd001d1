"""Preprocessing of the hippocampus cases for training, whole processes: ours from the folder to the
store, compared with nnU-Net's from the fingerprint to its store.

    python benchmarks/prepare_cohort.py [--peer FOLDER_OF_A_VENV] [--runs 5]
        [--data ../shared/data]

Ours does what `train` does before training (fingerprint, plan, store), in one process, because more
processes would take longer to start. nnU-Net's is ``nnUNetv2_plan_and_preprocess -c 3d_fullres``
with one process per core.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from measure import DATA, absent, child, keep, python_with, timed
from nnunet_peer import prepare, raw_dataset

OURS = """
import sys
from pathlib import Path
from delineate.cohorts.discovery.layouts import discover
from delineate.core.store import Store
from delineate.planning import rules
from delineate.commands.train.preparation import prepare_cohort

if __name__ == "__main__":
    manifest = discover(sys.argv[1]).manifest
    found = rules.fingerprint(manifest)
    plan = rules.make_plan(
        found, manifest, rules.Machine.here("cpu"), epochs=1, probe=lambda *_: 0.1
    )
    outcomes = prepare_cohort(manifest, plan, Store(Path(sys.argv[2])))
    assert not [o for o in outcomes if o.error], outcomes
    print('{"cases": %d}' % len(outcomes))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, help="virtual environment with nnunetv2")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--data", type=Path, default=DATA)
    a = parser.parse_args()
    cohort = (a.data / "hippocampus").resolve()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        script = work / "ours.py"  # a file, because worker processes import it
        script.write_text(OURS)
        program = (
            f"import runpy, sys; sys.argv[0] = {str(script)!r}; "
            f"runpy.run_path({str(script)!r}, run_name='__main__')"
        )
        truths = {
            p.name.removesuffix(".nii.gz"): p
            for p in sorted((cohort / "labelsTr").glob("hippocampus_*.nii.gz"))
        }
        cases = {case: (cohort / "imagesTr" / truth.name, truth) for case, truth in truths.items()}
        has_peer = python_with("nnunetv2", a.peer) is not None
        taken: dict[str, list[float]] = {"delineate": []} | ({"nnU-Net": []} if has_peer else {})
        for run in range(a.runs):  # in turns
            printed = child(program, str(cohort), str(work / f"store_{run}"))
            taken["delineate"].append(round(printed["seconds"], 2))
            if has_peer:
                there = work / f"peer_{run}"
                raw_dataset(there, 4, "Hippocampus", cases, {"Anterior": 1, "Posterior": 2})
                taken["nnU-Net"].append(round(timed(*prepare(a.peer, there, 4)), 2))
    found: dict[str, Any] = {
        name: {"seconds": statistics.median(each), "each_s": each} for name, each in taken.items()
    }
    found |= {"cases": int(printed["cases"]), "runs": a.runs}
    found["absent"] = absent({"nnU-Net": "nnunetv2"}, a.peer)
    keep("prepare_cohort", found)


if __name__ == "__main__":
    main()
