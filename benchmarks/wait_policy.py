"""Number of training steps in a given time, depending on how torch's threads wait for each other:
OpenMP's default, OMP_WAIT_POLICY=PASSIVE, and shorter spinning.

    python benchmarks/wait_policy.py [--data ../shared/data] [--minutes 0.5] [--runs 3]

Complete trainings on the hippocampus cases, in which threads draw patches next to those of the
network. The policies are run in turns; the result is the median number of steps of each.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from measure import DATA, child, keep

WAYS: dict[str, dict[str, str]] = {
    "as OpenMP does": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
}
CODE = """
import json, sys
from pathlib import Path
from what_helps import prepared, score

run = prepared("hippocampus", 600.0, 1, Path(sys.argv[1]), None)
print(json.dumps({"steps": score(run, run.plan, 1, 60 * float(sys.argv[2]), None)["steps"]}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--runs", type=int, default=3)
    a = parser.parse_args()
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    always = {"DELINEATE_DATA": str(a.data), "PYTHONPATH": here}
    steps: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as work:
        for _ in range(a.runs):
            for name, variables in WAYS.items():
                steps[name].append(
                    child(CODE, work, str(a.minutes), environment=always | variables)["steps"]
                )
                print(name, steps[name], file=sys.stderr, flush=True)
    first = statistics.median(steps["as OpenMP does"])
    found = {
        name: {
            "steps": of,
            "median": statistics.median(of),
            "ratio": round(statistics.median(of) / first, 3),
        }
        for name, of in steps.items()
    }
    keep("wait_policy", {"minutes": a.minutes, "ways": found})


if __name__ == "__main__":
    main()
