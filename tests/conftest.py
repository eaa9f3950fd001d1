"""What all tests share: the folder of real data, and volumes on which a slip of geometry shows.

Cubes and identity affines prove nothing: the volumes here are anisotropic, oblique, flipped and
asymmetric.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from delineate.core.grid import Grid
from tests.scans import rename_in_json

GOLDEN = Path(__file__).parent / "golden" / "schema_1"


def pytest_collection_finish() -> None:
    """What was imported lives until the end: the collector of garbage need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory) -> Iterator[None]:
    """Tests and their child processes keep the key of compiled graphs in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def default_signals() -> None:
    """Tests and their child processes receive signals, also if the tests run in the background of a
    shell or below nohup, where some are ignored.
    """
    for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture
def deep_path(tmp_path: Path) -> Path:
    """A folder with two above it that are the test's own. A series is searched in the folders above
    a file; above ``tmp_path`` are those of all tests, which take half a minute.
    """
    folder = tmp_path / "own" / "place"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans; tests that need it are skipped with the reason where it is
    absent.
    """
    folder = Path(os.environ.get("DELINEATE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found in {folder} (set DELINEATE_DATA)")
    return folder


@contextlib.contextmanager
def nothing_drawn() -> Iterator[None]:
    """Figures are empty, and written in this process: others would draw them."""
    from benchmarks.faults import small

    one = mock.patch("delineate.reporting.side_by_side.workers_for", return_value=1)
    with small.empty_figures(), one:
        yield


@pytest.fixture
def empty_figures() -> Iterator[None]:
    """Nothing is drawn in the figures of a report, which would be most of the time of a training or
    an evaluation; for tests of anything else.
    """
    with nothing_drawn():
        yield


@pytest.fixture(scope="module")
def figures_of_module_empty() -> Iterator[None]:
    """``empty_figures`` for all tests of a module and for what they share."""
    with nothing_drawn():
        yield


@pytest.fixture(scope="session")
def example_folder(tmp_path_factory):
    """The folder in which examples run: cohort/, plan.json and split.json; liver.model with its
    run; ct.nii.gz and mask.nii.gz; scores/.
    """
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(GOLDEN / "cohort", folder / "cohort")
    (folder / "cohort/labels.csv").write_text("value,name\n1,left part\n2,right part\n")
    for name in ("plan.json", "split.json"):
        shutil.copy(GOLDEN / name, folder / name)
    shutil.copytree(GOLDEN / "finished" / "m.model.run", folder / "liver.model.run")
    shutil.copy(GOLDEN / "finished" / "m.model", folder / "liver.model")
    rename_in_json(folder / "liver.model.run", "@ROOT@", folder)
    shutil.copy(folder / "cohort/images/c0.nii.gz", folder / "ct.nii.gz")
    shutil.copy(folder / "cohort/labels/c0.nii.gz", folder / "mask.nii.gz")
    from delineate.commands.evaluate import evaluate
    from delineate.commands.options import EvaluateOptions

    options = EvaluateOptions(workers=1, report=False)
    evaluate(folder / "cohort/labels", folder / "cohort", folder / "scores", options)
    return folder


def rotation(degrees_x: float, degrees_y: float, degrees_z: float) -> np.ndarray:
    """(3, 3) rotation about x, then y, then z."""
    x, y, z = np.deg2rad([degrees_x, degrees_y, degrees_z])
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return rz @ ry @ rx


IDENTITY = np.eye(3)


def affine(
    spacing_mm, codes_matrix=IDENTITY, degrees=(0, 0, 0), origin=(-31.5, 17.25, -120.0)
) -> np.ndarray:
    """(4, 4): rotated, permuted or flipped axes with ``spacing_mm``."""
    out = np.eye(4)
    out[:3, :3] = rotation(*degrees) @ codes_matrix @ np.diag(spacing_mm)
    out[:3, 3] = origin
    return out


GRIDS = {
    "anisotropic": Grid((7, 5, 4), affine((0.8, 1.1, 5.0))),
    "oblique": Grid((6, 7, 5), affine((0.9, 1.3, 3.0), degrees=(12, -8, 25))),
    "flipped": Grid((5, 6, 7), affine((1.0, 1.5, 2.5), np.diag([-1.0, -1.0, 1.0]))),
    "permuted": Grid(
        (4, 7, 6),
        affine(
            (1.2, 0.7, 3.3), np.array([[0, 0, -1.0], [1.0, 0, 0], [0, 1.0, 0]]), degrees=(5, 4, -9)
        ),
    ),
}


@pytest.fixture(params=list(GRIDS))
def grid(request: pytest.FixtureRequest) -> Grid:
    return GRIDS[request.param]


@pytest.fixture
def asymmetric(grid: Grid) -> np.ndarray:
    """An int16 array on ``grid`` in which every voxel differs, so that any flip or swap shows."""
    return (np.arange(np.prod(grid.shape)).reshape(grid.shape) * 7 - 300).astype(np.int16)
