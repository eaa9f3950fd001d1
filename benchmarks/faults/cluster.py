"""A Ray cluster whose workers and nodes are killed: every case is done once, and poison is named.

    python -m benchmarks.faults.cluster FOLDER [--cases 2000] [--kills 30] [--poison 10] [--nodes 4]

segments small real scans (crops of the hippocampus cases, made on the fly) with ``--engine ray`` on
a cluster of several raylets of this machine, while workers and whole nodes are killed at random
moments, and in one process without an engine. Poison cases are files of a format of their own
(``poison``): a reader that kills its process, or that never ends. It is checked that

    - each sound case has one line in the journal, and the mask of the call without an engine;
    - each poison case is a named failure after three tries, and nothing else is one;
    - the exit code is 1.

It needs the extra cluster.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from delineate.core.inputs import read_json_lines
from measure import DATA, keep

from .batch import hashes, small_model

CROP = 24  # voxels of a crop along each axis, at most
NODES = 0.3  # share of the kills that end a whole node
PLUGIN = """
import os, sys, time
from pathlib import Path
import numpy as np
from delineate import extend


def read(path):
    # Only workers read voxels; the process that was called finds files and reads no more.
    if "ray" in sys.modules and "delineate.cli" not in sys.modules:
        if b"slow" in Path(path).read_bytes():
            time.sleep(3600)
        os.kill(os.getpid(), 9)
    return extend.Volume(np.zeros((8, 8, 8), np.float32), extend.Grid((8, 8, 8), np.eye(4)))


extend.file_format(
    "Poison",
    extend.Format(lambda head: head.startswith(b"POISON"), read, "Ends its reader.", (".poison",)),
)
"""


def make(folder: Path, cases: int, poison: int) -> list[str]:
    """Write the scans, the poison and its format; the names of the poison cases."""
    sources = sorted((DATA / "hippocampus" / "imagesTr").glob("[!.]*.nii.gz"))
    (folder / "scans").mkdir(parents=True)
    for number in range(cases):
        image: Any = nib.load(sources[number % len(sources)])
        rng = np.random.default_rng(number)
        low = [int(rng.integers(0, max(1, size - CROP + 1))) for size in image.shape]
        crop = image.slicer[tuple(slice(at, at + CROP) for at in low)]
        nib.save(crop, folder / "scans" / f"case_{number:05d}.nii.gz")
    names = [f"poison_{number:02d}" for number in range(poison)]
    (folder / "poison").mkdir()
    for number, name in enumerate(names):
        how = b"slow" if number % 5 == 4 else b"dies"
        (folder / "poison" / f"{name}.poison").write_bytes(b"POISON " + how)
    plugin = folder / "plugin"
    about = plugin / "poison-1.dist-info"
    about.mkdir(parents=True)
    (plugin / "poison_format.py").write_text(PLUGIN)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: poison\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[delineate.formats]\nPoison = poison_format\n")
    return names


def predict(folder: Path, out: str, inputs: list[str], *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "delineate.cli", "predict", "m.model", *inputs, "-o", out]
    with open(folder / f"{out}.txt", "a", encoding="utf-8") as said:
        words = [*command, "--device", "cpu", *more]
        return subprocess.Popen(words, cwd=folder, stdout=said, stderr=said)


class Harm:
    """Kills of workers and nodes of a cluster."""

    def __init__(self, nodes: int, seed: int):
        from ray.cluster_utils import Cluster

        self.rng, self.kills = random.Random(seed), Counter[str]()
        # The head gives work away and does none.
        self.cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for _ in range(nodes):
            self.cluster.add_node(num_cpus=1)

    def once(self) -> None:
        """Kill one node, which another replaces, or one worker."""
        nodes = sorted(self.cluster.worker_nodes, key=lambda node: node.node_id)
        if self.rng.random() < NODES:
            self.cluster.remove_node(self.rng.choice(nodes), allow_graceful=False)
            self.cluster.add_node(num_cpus=1)
            self.kills["node"] += 1
            return
        found = [worker for node in nodes for worker in workers_of(node)]
        if found:
            self.rng.choice(found).kill()
            self.kills["worker"] += 1


def workers_of(node: Any) -> list[psutil.Process]:
    """The actors of a node."""
    found = []
    for started in node.all_processes["raylet"]:
        for one in psutil.Process(started.process.pid).children(recursive=True):
            try:
                if "_Worker" in " ".join(one.cmdline()):
                    found.append(one)
            except psutil.Error:
                continue
    return found


def lines(out: Path) -> list[dict[str, Any]]:
    path = out / "predictions.jsonl"
    return read_json_lines(path) if path.is_file() else []


def disturbed(folder: Path, given: argparse.Namespace) -> tuple[int, Counter[str]]:
    """Exit code and kills of the call on the cluster. The kills are spread over the first four
    fifths of the cases.
    """
    harm, out = Harm(given.nodes, given.seed), folder / "cluster"
    os.environ["RAY_ADDRESS"] = harm.cluster.address
    limit = ["--engine", "ray", "--case-timeout", f"{given.timeout:g}s"]
    process = predict(folder, "cluster", ["scans", "poison"], *limit)
    wanted = [0.8 * given.cases * (number + 0.5) / given.kills for number in range(given.kills)]
    while process.poll() is None:
        done = len(lines(out))
        if wanted and done >= wanted[0] and sum(harm.kills.values()) < given.kills:
            time.sleep(harm.rng.random())
            harm.once()
            wanted = wanted[1:] if sum(harm.kills.values()) + len(wanted) > given.kills else wanted
            print(f"{done} done, kills: {dict(harm.kills)}", flush=True)
        time.sleep(0.2)
    harm.cluster.shutdown()
    del os.environ["RAY_ADDRESS"]
    return process.wait(), harm.kills


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--poison", type=int, default=10)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds of one case")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = given.folder.absolute()
    poison = make(folder, given.cases, given.poison)
    places = [str(folder / "plugin"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(place for place in places if place)
    small_model(folder / "m.model")
    began = time.monotonic()
    whole = predict(folder, "whole", ["scans"]).wait()
    alone_s, began = time.monotonic() - began, time.monotonic()
    code, kills = disturbed(folder, given)
    journal = lines(folder / "cluster")
    done = Counter(str(line["case"]) for line in journal if "error" not in line)
    failed = {str(line["case"]): str(line["error"]) for line in journal if "error" in line}
    expected, masks = hashes(folder / "whole"), hashes(folder / "cluster")
    found = {
        "cases": given.cases,
        "nodes": given.nodes,
        "kills": dict(kills),
        "masks": len(masks),
        "masks as without an engine": sum(masks.get(n) == digest for n, digest in expected.items()),
        "lost": given.cases - len(done),
        "doubled": sum(count - 1 for count in done.values()),
        "poison": len(poison),
        "failures": len(failed),
        "exit codes": [whole, code],
        "seconds": [round(alone_s), round(time.monotonic() - began)],
    }
    print(json.dumps(found, indent=1))
    for name, why in sorted(failed.items()):
        print(f"{name}: {why}")
    right = masks == expected and len(expected) == given.cases == len(done) == done.total()
    named = sorted(failed) == poison and all("given up after" in w for w in failed.values())
    if right and named and [whole, code] == [0, 1]:
        keep("cluster", found)
        shutil.rmtree(folder)
        return
    sys.exit(1)


if __name__ == "__main__":
    main()
