"""Build wheel and sdist, install the wheel into bare environments, and run a short demo there.

    python tools/wheel.py

The wheel is built from the sdist, so a file that the sdist lacks is missing in both. The demo runs
in a bare environment that sees only the packages that the wheel's metadata asks for, as links to
those of the running environment: first those of the core, then also those of the extras train and
itk. It therefore proves that the wheel is complete and that its requirements suffice, with the
versions of the lock; it downloads nothing and proves nothing about other versions or platforms.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
NAME = "delineate-imaging"
BUILD = "import setuptools.build_meta as b, sys; getattr(b, sys.argv[1])(sys.argv[2])"
CORE = (
    "phantom dicom --patients 1",
    "phantom cohort --patients 3 --format nifti",
    "check cohort -o checked",
    "convert dicom/phantom_001/DICOM_anon scan.nrrd",
    "info scan.nrrd",
    "evaluate cohort/labels cohort/labels -o first",
    "compare first first --names a,b -o compared",
)
TRAINING = ("train cohort -o organs.model --plan plan.json",)
TRAINED = (
    "predict organs.model cohort/images/phantom_001.nii.gz -o out",
    "info organs.model",
    "convert out/phantom_001.nii.gz mask.mha",
)
# The rules' plan with a network and a number of steps that train in seconds.
SMALL_PLAN = """
from pathlib import Path
from delineate.cohorts.discovery.layouts import find
from delineate.planning import rules

cohort = find("cohort")
machine = rules.Machine("cpu", 2, 8 << 30)
facts = rules.fingerprint(cohort, workers=1)
plan = rules.make_plan(facts, cohort, machine, epochs=1, probe=lambda *_: 0.1)
widths = [8] * len(plan.network.widths)
plan = plan.replace(
    spacing_mm=[4 * value for value in plan.spacing_mm],
    patch=[16, 16, 16],
    network=plan.network.model_dump() | {"widths": widths},
    schedule=plan.schedule.model_dump() | {"steps_per_epoch": 5},
)
Path("plan.json").write_text(plan.to_json())
"""


def build() -> Path:
    """The wheel in ``dist``, built from the sdist next to it."""
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    run(sys.executable, "-c", BUILD, "build_sdist", DIST, cwd=ROOT)
    (sdist,) = DIST.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as packed:
            packed.extractall(folder, filter="data")
        run(sys.executable, "-c", BUILD, "build_wheel", DIST, cwd=next(Path(folder).iterdir()))
    (wheel,) = DIST.glob("*.whl")
    return wheel


def environment(folder: Path, wheel: Path) -> tuple[Path, Path]:
    """A bare environment with the wheel alone: the folders of its packages and programs."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    scheme = sysconfig.get_preferred_scheme("prefix")
    places = sysconfig.get_paths(scheme, vars={"base": str(folder), "platbase": str(folder)})
    packages, programs = Path(places["purelib"]), Path(places["scripts"])
    pip = (sys.executable, "-m", "pip", "--python", programs / "python", "install")
    run(*pip, "--quiet", "--no-deps", "--no-index", "--no-compile", wheel)
    return packages, programs


def link_required(packages: Path, *extras: str) -> None:
    """Link what the wheel requires, with these extras, into its environment."""
    (installed,) = importlib.metadata.distributions(name=NAME, path=[str(packages)])
    for distribution in required(installed, set(extras)):
        for name in {Path(str(file)).parts[0] for file in distribution.files or ()} - {".."}:
            source = Path(str(distribution.locate_file(name)))
            if name != "__pycache__" and not (packages / name).exists():
                (packages / name).symlink_to(source, target_is_directory=source.is_dir())


def required(
    distribution: importlib.metadata.Distribution, extras: set[str]
) -> list[importlib.metadata.Distribution]:
    """Everything that a distribution with these extras requires, directly and indirectly."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting, done = [(distribution, extra) for extra in {"", *extras}], set()
    while waiting:
        current, extra = waiting.pop()
        if (current.name, extra) in done:
            continue
        done.add((current.name, extra))
        for line in current.requires or ():
            one = Requirement(line)
            if one.marker is not None and not one.marker.evaluate({"extra": extra}):
                continue
            if one.name == NAME:
                waiting += [(distribution, other) for other in one.extras]
                continue
            needed = importlib.metadata.distribution(one.name)
            found[needed.name] = needed
            waiting += [(needed, other) for other in {"", *one.extras}]
    return list(found.values())


def demo(programs: Path, commands: tuple[str, ...], folder: Path, expected: int = 0) -> None:
    """Run commands of the installed wheel in an empty folder outside the checkout; each must end
    with the exit code ``expected``.
    """
    folder.mkdir(exist_ok=True)
    for command in commands:
        began = time.perf_counter()
        run(programs / "delineate", *command.split(), cwd=folder, expected=expected)
        print(f"  {time.perf_counter() - began:5.1f} s  delineate {command}", flush=True)


def keep_compiled(packages: Path) -> None:
    """Copy the loops that the demo's commands compiled to the checkout, whose tests need the same,
    where it has none. numba uses a copy only for the source text and the processor of its making.
    """
    for index in (packages / "delineate").rglob("*.nbi"):
        target = ROOT / "src" / index.relative_to(packages)
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            for compiled in (*index.parent.glob(f"{index.stem}.*.nbc"), index):
                shutil.copyfile(compiled, target.with_name(compiled.name))


def run(*command: object, cwd: Path | None = None, expected: int = 0) -> str:
    """Run a program; its output is shown only if it fails."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    # One thread, as in the tests: the type check may use the other core.
    clean = {"OMP_NUM_THREADS": "1"} | clean
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != expected:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def main() -> None:
    wheel = build()
    print(f"built {', '.join(file.name for file in sorted(DIST.iterdir()))}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packages, programs = environment(folder / "environment", wheel)
        where = run(programs / "python", "-c", "import delineate; print(delineate.__file__)")
        assert Path(where.strip()).is_relative_to(packages), where
        link_required(packages)
        print("the core:")
        demo(programs, CORE, folder / "demo")
        print("with the extras train and itk:")
        link_required(packages, "train", "itk")
        run(programs / "python", "-c", SMALL_PLAN, cwd=folder / "demo")
        # So short a training is not usable, which its exit code reports.
        demo(programs, TRAINING, folder / "demo", expected=3)
        demo(programs, TRAINED, folder / "demo")
        keep_compiled(packages)


if __name__ == "__main__":
    main()
