"""Training steps a minute on an idle machine, and next to one and two busy processes.

    python benchmarks/busy_training.py [--data hippocampus] [--minutes 1] [--runs 3] [--busy 0,1,2]
        [--work FOLDER]

One plan, made on the idle machine, is trained by the loop that users run, each time from the start
in a process of its own. Busy processes compute without an end, at the same priority. On two cores,
the fair share of a training is 75 % of its idle steps next to one of them, and 50 % next to two.
The numbers of busy processes are run in turns; a ratio is that of the steps of the same turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from demo import busy
from measure import DATA, child, keep

CODE = """
import json, sys
from pathlib import Path
from what_helps import prepared, score

run = prepared(sys.argv[1], 600.0, 1, Path(sys.argv[2]), None)
seconds = 60 * float(sys.argv[3])
print(json.dumps({"steps": score(run, run.plan, 1, seconds, None)["steps"]} if seconds else {}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="hippocampus")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--busy", type=lambda text: [int(n) for n in text.split(",")], default=[0, 1, 2]
    )
    parser.add_argument("--work", type=Path)
    a = parser.parse_args()
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {"DELINEATE_DATA": str(DATA), "PYTHONPATH": here}
    rates: dict[int, list[float]] = {count: [] for count in a.busy}
    with tempfile.TemporaryDirectory() as folder:
        work = str(a.work or folder)
        # Plan and prepared cases are made once, before anything is busy.
        child(CODE, a.data, work, "0", environment=environment)
        for _ in range(a.runs):
            for count in a.busy:
                with busy(count):
                    words = (a.data, work, str(a.minutes))
                    steps = child(CODE, *words, environment=environment)["steps"]
                rates[count].append(round(steps / a.minutes, 1))
                print(f"{count} busy: {rates[count]} steps a minute", file=sys.stderr, flush=True)
    idle = rates[a.busy[0]]
    keep(
        "busy_training",
        {
            "data": a.data,
            "minutes": a.minutes,
            "rows": {
                f"{count} busy": {
                    "steps a minute": found,
                    "share of idle": round(
                        statistics.median(one / of for one, of in zip(found, idle, strict=True)), 3
                    ),
                }
                for count, found in rates.items()
            },
        },
    )


if __name__ == "__main__":
    main()
