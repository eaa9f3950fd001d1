"""The verdicts on trainings that are bad in different ways, and on good ones.

    python benchmarks/verdicts.py [NAME ...]

Every run is a real training by the command, on hippocampi at 2 mm (MR) or on patients of the
phantom on 32 x 32 x 16 voxels (CT), with a small network and a fixed number of steps. What was
done to the data or to the plan is known, and so is the verdict that is right. Four runs are good.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delineate.cohorts.phantom.cohort import make_scan
from delineate.core.grid import Grid
from delineate.core.inputs import read_json_if_any
from delineate.core.labels import LabelSet
from delineate.core.plan import (
    Augmentation,
    Channel,
    Network,
    Normalisation,
    Optimiser,
    Plan,
    Schedule,
    Structure,
)
from delineate.core.volume import Volume
from delineate.formats import files
from measure import DATA, keep

RECORD = Path(__file__).parent / "results" / "verdicts.json"
DELINEATE = (sys.executable, "-m", "delineate.cli")
GOOD, CARE, NOT_USABLE, REFUSED = "good", "usable with care", "not usable", "refused"
HIPPOCAMPUS = {1: "anterior", 2: "posterior"}
ORGANS = {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}
Pair = tuple[NDArray[Any], NDArray[Any]]  # the voxels of a scan and of its truth


@dataclass(frozen=True)
class Cohort:
    """Cases in memory: names, scans and truths with their grid, the structures and the modality."""

    cases: dict[str, tuple[Volume, Volume]]
    names: dict[int, str]
    patch: tuple[int, int, int]
    modality: str = "MR"

    def changed(self, change: Callable[[int, Pair], Pair]) -> Cohort:
        """Each case changed by a function of its number and its arrays."""
        cases = {}
        for number, (name, (scan, truth)) in enumerate(self.cases.items()):
            image, label = change(number, (scan.array, truth.array))
            cases[name] = scan.with_array(image), truth.with_array(label)
        return replace(self, cases=cases)


@dataclass(frozen=True)
class Case:
    """A run, and the verdict that is right.

    Args:
        make: the cohort, changed or not.
        right: the levels that are right; "refused" if the command ends before a training.
        words: of the reason that must be among those of the verdict; "" for a good run.
        sides: number of cases for validation and for testing; the others are learned from.
        plan: changes of the plan.
    """

    make: Callable[[], Cohort]
    right: tuple[str, ...]
    words: str = ""
    sides: tuple[int, int] = (6, 10)
    plan: dict[str, Any] = field(default_factory=dict)


# ---- cohorts ----


def hippocampi(count: int = 40) -> Cohort:
    """Real MR of the hippocampus, every second voxel along each axis."""
    folder, cases = DATA / "hippocampus", {}
    for path in sorted((folder / "imagesTr").glob("*.nii.gz"))[:count]:
        scan, truth = files.read(path), files.read(folder / "labelsTr" / path.name)
        thin = (Ellipsis, *[slice(None, None, 2)] * 3)
        grid = Grid(truth.array[thin].shape, scan.grid.affine @ np.diag([2.0, 2, 2, 1]))
        image, label = scan.array[thin].astype(np.float32), truth.array[thin].astype(np.uint8)
        cases[path.name.removesuffix(".nii.gz")] = (
            replace(scan, array=image, grid=grid),
            replace(truth, array=label, grid=grid),
        )
    return Cohort(cases, HIPPOCAMPUS, (16, 24, 16))


def patients(count: int = 32) -> Cohort:
    """Patients of the phantom, with a liver, a spleen and two kidneys."""
    made = [make_scan(index, size=(32, 16)) for index in range(count)]
    cases = {scan.patient: (scan.image, scan.label) for scan in made}
    return Cohort(cases, ORGANS, (32, 32, 16), "CT")


# ---- what is done to them ----


def of_other_cases(cohort: Cohort) -> Cohort:
    """Each scan has the truth of the next case, at the same relative positions."""
    truths = [truth.array for _, truth in cohort.cases.values()]

    def change(number: int, pair: Pair) -> Pair:
        other = truths[(number + 1) % len(truths)]
        at = [(np.arange(n) * m // n) for n, m in zip(pair[1].shape, other.shape, strict=True)]
        return pair[0], other[np.ix_(*at)]

    return cohort.changed(change)


def shifted(cohort: Cohort) -> Cohort:
    """Each truth is shifted by 8 to 12 mm in a direction of its own."""

    def change(number: int, pair: Pair) -> Pair:
        draws = np.random.default_rng(number)
        steps = draws.integers(4, 7, 3) * draws.choice([-1, 1], 3)
        return pair[0], np.roll(pair[1], steps, (0, 1, 2))

    return cohort.changed(change)


def with_images(cohort: Cohort, image: Callable[[int, NDArray[Any]], NDArray[Any]]) -> Cohort:
    """Other scans with the same truths."""
    return cohort.changed(lambda number, pair: (image(number, pair[0]), pair[1]))


def noise(number: int, scan: NDArray[Any]) -> NDArray[Any]:
    """Random intensities."""
    return np.random.default_rng(number).normal(100, 20, scan.shape).astype(np.float32)


def with_invisible(cohort: Cohort) -> Cohort:
    """A third structure of eight voxels, where nothing is to be seen."""

    def change(number: int, pair: Pair) -> Pair:
        label = pair[1].copy()
        at = [np.random.default_rng(number).integers(1, n - 3) for n in label.shape]
        label[tuple(slice(a, a + 2) for a in at)] = 3
        return pair[0], label

    return replace(cohort.changed(change), names={**cohort.names, 3: "nodule"})


def sides_exchanged(cohort: Cohort, every: int) -> Cohort:
    """In every n-th case, left and right kidney have each other's value."""
    table = np.array([0, 1, 3, 2, 4], np.uint8)

    def change(number: int, pair: Pair) -> Pair:
        return pair[0], table[pair[1]] if number % every == 0 else pair[1]

    return cohort.changed(change)


def mixed(cohort: Cohort) -> Cohort:
    """The last ten cases, those of the test, are the first ten under other names, with a little
    noise.
    """
    cases = list(cohort.cases.items())
    for number in range(10):
        name, (scan, truth) = cases[number]
        noisy = scan.array + np.random.default_rng(number).normal(0, 1, scan.array.shape)
        cases[number - 10] = (f"again_{name}", (scan.with_array(noisy.astype(np.float32)), truth))
    return replace(cohort, cases=dict(cases))


def blank_channel(cohort: Cohort) -> Cohort:
    """Two channels, the second of them empty."""
    return cohort.changed(lambda number, pair: (np.stack([pair[0], 0 * pair[0]]), pair[1]))


def other_gains(cohort: Cohort) -> Cohort:
    """Each scan has a gain and a noise of its own, as from another scanner."""

    def change(number: int, scan: NDArray[Any]) -> NDArray[Any]:
        draws = np.random.default_rng(number)
        noisy = scan * draws.uniform(0.1, 30) + draws.normal(0, 0.05 * scan.std(), scan.shape)
        return noisy.astype(np.float32)

    return with_images(cohort, change)


def one_structure(cohort: Cohort) -> Cohort:
    """The two parts of the hippocampus as one structure."""
    merged = cohort.changed(lambda number, pair: (pair[0], (pair[1] > 0).astype(np.uint8)))
    return replace(merged, names={1: "hippocampus"})


LONG = {"schedule": {"epochs": 20, "steps_per_epoch": 20}}
STILL = {"augmentation": Augmentation.none().model_dump()}
CASES = {
    "good: hippocampi": Case(hippocampi, (GOOD,)),
    "good: one structure": Case(lambda: one_structure(hippocampi()), (GOOD,)),
    "good: scanners of different gains": Case(lambda: other_gains(hippocampi()), (GOOD,)),
    "good: organs with sides": Case(patients, (GOOD,), plan=LONG),
    "too few steps": Case(
        hippocampi,
        (NOT_USABLE,),
        "trivial mask",
        plan={"schedule": {"epochs": 1, "steps_per_epoch": 8}},
    ),
    "one structure never found": Case(
        lambda: with_invisible(hippocampi()), (NOT_USABLE,), "nodule was never found"
    ),
    "overfitted": Case(
        lambda: hippocampi(22),
        (CARE, NOT_USABLE),
        "overfitted",
        sides=(10, 10),
        plan={"schedule": {"epochs": 40, "steps_per_epoch": 10}} | STILL,
    ),
    "labels of other patients": Case(
        lambda: of_other_cases(hippocampi()), (NOT_USABLE,), "trivial mask"
    ),
    "labels shifted": Case(lambda: shifted(hippocampi()), (NOT_USABLE, CARE), "trivial mask"),
    "noise images": Case(lambda: with_images(hippocampi(), noise), (NOT_USABLE,), "trivial mask"),
    "constant images": Case(
        lambda: with_images(hippocampi(), lambda number, scan: 0 * scan + 7), (REFUSED,)
    ),
    "one channel blank": Case(lambda: blank_channel(hippocampi()), (REFUSED,)),
    "patients mixed": Case(lambda: mixed(hippocampi()), (CARE,), "not independent"),
    "sides exchanged in most truths": Case(
        lambda: sides_exchanged(patients(), 1), (NOT_USABLE,), "exchanged", plan=LONG
    ),
    "sides exchanged in every third truth": Case(
        lambda: sides_exchanged(patients(), 3), (CARE, NOT_USABLE), "wrong side", plan=LONG
    ),
    "learning rate absurd": Case(
        hippocampi, (NOT_USABLE,), "", plan={"optimiser": {"learning_rate": 300.0}}
    ),
    "one patient for testing": Case(
        lambda: hippocampi(31), (CARE,), "too few patients", sides=(1, 1)
    ),
}


# ---- runs ----


def written(cohort: Cohort, sides: tuple[int, int], folder: Path) -> Path:
    """The cohort in two folders with names, and its split."""
    for kind in ("images", "labels"):
        (folder / "cohort" / kind).mkdir(parents=True)
    labels = LabelSet.from_names(cohort.names)
    for name, (scan, truth) in cohort.cases.items():
        files.write(scan, folder / "cohort" / "images" / f"{name}.nii.gz")
        files.write(truth, folder / "cohort" / "labels" / f"{name}.nii.gz", labels=labels)
    lines = [f"{value},{name}" for value, name in cohort.names.items()]
    (folder / "cohort" / "labels.csv").write_text("\n".join(["value,name", *lines]) + "\n")
    names, (validating, testing) = list(cohort.cases), sides
    split = {
        "train": names[validating:-testing],
        "val": names[:validating],
        "test": names[-testing:],
    }
    (folder / "split.json").write_text(json.dumps(split))
    return folder / "cohort"


def plan_of(cohort: Cohort, changes: dict[str, Any]) -> Plan:
    """A small network and 300 steps, and the changes."""
    scan = next(iter(cohort.cases.values()))[0]
    ct = Normalisation(kind="window", low=-150, high=250, mean=50, std=80)
    rule = ct if cohort.modality == "CT" else Normalisation()
    channels = ["image"] if scan.channels == 1 else ["first", "second"]
    levels = ((3, 3, 3),) * 3
    network = Network(
        dims=3,
        channels=len(channels),
        classes=len(cohort.names) + 1,
        widths=(16, 32, 32),
        strides=((2, 2, 2), (2, 2, 2)),
        kernels=levels,
    )
    structures = LabelSet.from_names(cohort.names).to_json()
    base = Plan(
        channels=tuple(Channel(name=name, normalise=rule) for name in channels),
        structures=tuple(Structure(**one) for one in structures),
        spacing_mm=(None, None, None),
        patch=cohort.patch,
        network=network,
        optimiser=Optimiser(kind="muon", learning_rate=3e-3),
        schedule=Schedule(epochs=15, steps_per_epoch=20, ema=0.95),
        augmentation=Augmentation(),
    )
    merged = {key: getattr(base, key).model_dump() | value for key, value in changes.items()}
    return base.replace(**merged)


def run(case: Case) -> dict[str, Any]:
    """The verdict on a run, and whether it is right."""
    with tempfile.TemporaryDirectory() as name:
        work, cohort, began = Path(name), case.make(), time.monotonic()
        data = written(cohort, case.sides, work)
        (work / "plan.json").write_text(plan_of(cohort, case.plan).to_json())
        line = [*DELINEATE, "--quiet", "train", data, "-o", work / "m.model", "--device", "cpu"]
        line += ["--plan", work / "plan.json", "--split", work / "split.json"]
        done = subprocess.run([str(w) for w in line], capture_output=True, text=True, check=False)
        card = work / "m.model.run" / "card.json"
        verdict = json.loads(card.read_text())["verdict"] if card.is_file() else {}
        level = verdict.get("level", REFUSED if done.returncode == 2 else "no verdict")
        words = verdict.get("words", done.stderr.strip().splitlines()[-1:])
        right = level in case.right and case.words in str(words)
        # The exit code is 3 exactly if the model is not usable.
        right = right and (done.returncode == 3) == (level == NOT_USABLE)
        return {
            "level": level,
            "right": right,
            "exit": done.returncode,
            "seconds": round(time.monotonic() - began, 1),
            "words": words,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CASES))
    names = parser.parse_args().names or list(CASES)
    # Runs that were not asked for keep their figures.
    found = (read_json_if_any(RECORD) or {}).get("runs", {})
    for name in names:
        found[name] = run(CASES[name])
        print(name, found[name], file=sys.stderr)
    keep("verdicts", {"right": sum(one["right"] for one in found.values()), "runs": found})


if __name__ == "__main__":
    main()
