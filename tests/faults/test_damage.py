"""No changed bit passes: kept files that are damaged are refused, or made again, with a word."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import bit_flips
import pytest
import small

from delineate.commands.options import PredictOptions
from delineate.commands.predict import predict
from delineate.core.bundle import load_weights
from delineate.core.errors import InputError

pytestmark = pytest.mark.usefixtures("figures_of_module_empty")

RUN = "m.model.run"
PREDICT = PredictOptions(device="cpu")


class StoppedError(Exception):
    pass


def stop(stage: str, done: float, total: float, note: str) -> None:
    if stage.startswith("train") and done > 0.9:
        raise StoppedError


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A training that was killed at its end, with two checkpoints."""
    folder = tmp_path_factory.mktemp("killed")
    small.write_inputs(folder)
    with pytest.raises(StoppedError):
        small.training(folder, lambda text: None, stop)
    shutil.copytree(folder / RUN, folder / "kept")
    return folder


@pytest.fixture
def killed(begun) -> Iterator[Path]:
    """The same for each test, in the same place."""
    shutil.rmtree(begun / RUN)
    shutil.copytree(begun / "kept", begun / RUN)
    return begun


def weights(folder: Path) -> dict[str, bytes]:
    best = load_weights(folder / RUN / "fold_0/best.safetensors", pytest.fail)
    return {name: array.tobytes() for name, array in best.items()}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("each", [2, pytest.param(100, marks=pytest.mark.rounds)])
def test_no_damage_of_any_kept_file_is_silent(finished, each):
    found = bit_flips.judge(finished, each, seed=each)
    assert not bit_flips.faults(found), found
    for kind in ("prepared image", "prepared label", "model"):
        assert set(found[kind]) == {"flip: refused", "cut: refused"}


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("store/c0/image.b2nd", "case c0: its prepared arrays are damaged; prepared again"),
        ("store/c1/case.npz", "case c1: its prepared arrays are damaged; prepared again"),
        ("fold_0/last.safetensors", "the one saved before it is used"),
    ],
)
def test_a_training_with_a_damaged_file_ends_as_without(finished, killed, file, words):
    flip(killed / RUN / file)
    said: list[str] = []
    assert small.training(killed, said.append) == 0
    assert any(words in text for text in said), said
    assert weights(killed) == weights(finished)


def test_of_damaged_best_weights_those_before_are_used(finished, killed):
    best = killed / RUN / "fold_0/best.safetensors"
    flip(best)
    said: list[str] = []
    assert small.training(killed, said.append) == 0
    assert any("the one saved before it is used" in text for text in said), said
    # Whether the last epoch is better than those before differs by processor.
    lines = (finished / RUN / "fold_0/log.jsonl").read_text().splitlines()
    scores = [line["val_dice_mean"] for line in map(json.loads, lines) if "val_dice_mean" in line]
    if scores[-1] == max(scores):
        assert weights(killed) == weights(finished)
    else:
        assert weights(killed).keys() == weights(finished).keys()


def test_lost_lines_of_a_log_are_reported(finished, killed):
    log = killed / RUN / "fold_0/log.jsonl"
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    said: list[str] = []
    small.training(killed, said.append)
    assert any("fold_0/log.jsonl: 4 of 5 lines are damaged or lost" in text for text in said), said
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    small.reporting(killed, said.append)
    page = (killed / RUN / "report.html").read_text()
    assert "the log of fold_0: 1 of 2 lines are damaged or lost" in page


def test_two_damaged_checkpoints_are_refused_by_name(killed):
    for name in ("last", "last_before"):
        flip(killed / RUN / f"fold_0/{name}.safetensors")
    with pytest.raises(InputError, match=r"last\.safetensors: .*SHA-256 .*--overwrite"):
        small.training(killed, lambda text: None)


def test_the_order_of_cases_changes_no_mask(finished, tmp_path):
    scans = sorted((finished / "scans").iterdir())
    masks = []
    for name, inputs in (("there", scans), ("back", scans[::-1])):
        assert not predict(finished / "m.model", inputs, tmp_path / name, PREDICT).failures
        masks.append({p.name: p.read_bytes() for p in (tmp_path / name).glob("*.nii.gz")})
    assert masks[0] == masks[1] and len(masks[0]) == len(scans)
