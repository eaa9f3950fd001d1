"""Three readers on the same inputs: right, refused, silently wrong, or crashed.

    python -m benchmarks.inputs.compare [--nnunet FOLDER --monai FOLDER] [--only NAME ...]

Run it in the repository's root. FOLDER is a virtual environment with the peer, SimpleITK, nibabel
and Pillow (MONAI also needs itk and pynrrd). Writes ``benchmarks/results/inputs.json``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from ..measure import keep
from .every import INPUTS
from .judge import LEAST_CONTRAST, Answer, judge
from .made import AFFINE, Input, ids
from .read_delineate import answer

HERE = Path(__file__).parent
ORDER = ("right", "refused", "silently wrong", "wrong file named", "crashed", "no reader")


def pairs_of(root: Path) -> list[tuple[str, str, str]]:
    """Case, image and label of each case, as the user matched them."""
    masks = next((p for name in ("labels", "masks") if (p := root / name).is_dir()), root)
    images = root / "images" if (root / "images").is_dir() else root
    found = []
    for case in ids():
        image = min(images.glob(f"{case}.*"), key=lambda p: len(p.name))
        label = max(masks.glob(f"{case}.*"), key=lambda p: len(p.name))
        found.append((case, str(image), str(label)))
    return found


def by_peer(script: str, folder: Path, made: dict[str, Path], work: Path) -> dict[str, Any]:
    """Name of the input -> the answers "plain" and "expert" of a peer."""
    work.mkdir()
    tasks = [
        {
            "name": name,
            "pairs": pairs_of(root),
            "stated": dict(INPUTS[name].stated),
            "spacing_mm": [float(abs(AFFINE[k, k])) for k in range(3)],
        }
        for name, root in made.items()
        if INPUTS[name].peers
    ]
    subprocess.run(
        [str(folder / "bin" / "python"), str(HERE / script), str(work)],
        input=json.dumps(tasks),
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=(work / "log").open("w"),
    )
    answers: dict[str, Any] = json.loads((work / "answers.json").read_text())
    return answers


def judged(one: Input, given: Any) -> tuple[str, str]:
    """The outcome of a peer's answer, and why; a peer reports neither cases nor files."""
    if given is None:
        return "no reader", ""
    right = one.right
    given = Answer(**{**given, "bad": tuple(given.get("bad", ()))})
    outcome, why = judge(given, right)
    # Every peer gets the names; only the numbers of voxels are compared.
    if outcome == "silently wrong" and right.voxels is not None and given.voxels:
        same = sorted(given.voxels.values()) == sorted(right.voxels.values())
        aligned = given.contrast is None or given.contrast >= LEAST_CONTRAST
        if same and aligned and set(given.bad) == set(right.bad) and not right.refused:
            return "right", ""
    return outcome, why


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nnunet", type=Path)
    parser.add_argument("--monai", type=Path)
    parser.add_argument("--only", nargs="*", default=list(INPUTS))
    options = parser.parse_args()
    peers = {"nnunet": options.nnunet, "monai": options.monai}
    with tempfile.TemporaryDirectory() as folder:
        made = {}
        for name in options.only:
            made[name] = Path(folder) / "inputs" / name
            made[name].mkdir(parents=True)
            INPUTS[name].make(made[name])
        table: dict[str, dict[str, Any]] = {}
        for name, root in made.items():
            one = INPUTS[name]
            table[name] = {
                "topic": one.topic,
                "what": one.what,
                "delineate": judge(answer(root), one.right),
            }
        for peer, where in peers.items():
            if where is None:
                continue
            given = by_peer(f"peer_{peer}.py", where, made, Path(folder) / peer)
            for name in made:
                for way in ("plain", "expert"):
                    answers = given.get(name, {}).get(way)
                    table[name][f"{peer} {way}"] = judged(INPUTS[name], answers)
    report(table)


def report(table: dict[str, dict[str, Any]]) -> None:
    readers = [key for key in next(iter(table.values())) if key not in ("topic", "what")]
    for name, row in table.items():
        print(f"{name:32s}" + "".join(f"{row[reader][0]:18s}" for reader in readers))
    counted = {reader: Counter(row[reader][0] for row in table.values()) for reader in readers}
    for reader in readers:
        print(reader, {outcome: counted[reader][outcome] for outcome in ORDER})
    if len(table) == len(INPUTS) and len(readers) > 1:
        keep("inputs", {"counts": counted, "inputs": table})


if __name__ == "__main__":
    main()
