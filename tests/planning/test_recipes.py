"""Every recipe against the setting its original states, its scaling to a budget, and the whole road
on small real files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.scans import mask, scan
from typer.testing import CliRunner

from delineate.cli import app
from delineate.cohorts.phantom.cohort import make_cohort
from delineate.core.errors import PlanError, UsageError
from delineate.core.labels import LabelSet
from delineate.core.manifest import Case, Manifest, Source
from delineate.core.plan import Network, Plan
from delineate.extend import RECIPES
from delineate.planning.capacity import Machine
from delineate.planning.fingerprint import CaseFingerprint, Fingerprint
from delineate.planning.recipes import brain_quicknat, liver_mr_unet2d
from delineate.planning.recipes.scaling import FASTEST_ADAM, scaled

MACHINE = Machine("cpu", 2, 24 << 30)
FULL = {"budget_s": None, "epochs": None, "seed": 3, "dims": None}


def fingerprint(modality: str = "CT", channels: int = 1, classes: int = 1) -> Fingerprint:
    counts = {0: 10_000_000} | {v: 1000 * v for v in range(1, classes + 1)}
    case = CaseFingerprint(
        (200, 180, 160),
        (0.75, 0.75, 2.0),
        (180, 150, 160),
        0.1,
        modality == "CT",
        modality,
        ((1.0,),) * channels,
        counts,
        ((-400.0, 500.0),) * channels,
    )
    return Fingerprint((case,) * 20, tuple(f"c{n}" for n in range(channels)))


def manifest(names: dict[int, str] | None = None, channels: int = 1) -> Manifest:
    held = tuple(
        Case(f"p{n}", f"p{n}", (Source("x"),) * channels, (Source("y"),)) for n in range(20)
    )
    return Manifest(
        held, tuple(f"c{n}" for n in range(channels)), LabelSet.from_names(names or {1: "liver"})
    )


@pytest.fixture(autouse=True)
def quick_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step's time by its work, so that no network need be built to look at a plan."""

    def seconds(
        network: Network, patch: tuple[int, int, int], batch: int, device: str = "cpu"
    ) -> float:
        return 1e-8 * batch * float(np.prod(patch)) * network.widths[0] ** 2 / 64

    monkeypatch.setattr("delineate.planning.recipes.scaling.measure_step", seconds)


def planned(
    name: str, found: Fingerprint | None = None, cohort: Manifest | None = None, **changes: object
) -> Plan:
    return RECIPES[name].plan(
        found or fingerprint(), cohort or manifest(), MACHINE, **{**FULL, **changes}
    )  # type: ignore[arg-type]


def test_liver_ct_unet3d_is_the_original() -> None:
    plan = planned("liver-ct-unet3d")
    # The body is smaller than 128.
    assert (plan.orientation, plan.spacing_mm, plan.patch, plan.batch) == (
        "RAS",
        (1.5, 1.5, 1.0),
        (96, 80, 64),
        1,
    )
    rule = plan.channels[0].normalise
    assert ((-200 - rule.mean) / rule.std, (200 - rule.mean) / rule.std, rule.low, rule.high) == (
        0,
        1,
        -200,
        200,
    )
    assert (
        plan.network.widths == (16, 32, 64, 128, 256)
        and plan.network.encoder == "residual"
        and plan.network.norm == "batch"
    )
    assert (
        plan.optimiser.kind,
        plan.optimiser.learning_rate,
        plan.optimiser.weight_decay,
        plan.optimiser.amsgrad,
    ) == ("adam", 1e-5, 1e-5, True)
    assert (
        plan.schedule.epochs == 600
        and plan.schedule.steps_per_epoch == 20
        and plan.loss.cross_entropy == 0
    )
    weights = planned("liver-ct-unet3d-weighted").loss.class_weights
    assert len(weights) == 2 and weights[1] > 100 * weights[0]


def test_brain_quicknat_is_the_original() -> None:
    names = {1: "Left Hippocampus", 2: "Right Hippocampus", 3: "Brain Stem"}
    plan = planned("brain-quicknat", fingerprint("MR", classes=3), manifest(names))
    assert [(v.axis, v.weight, v.merge_sides) for v in plan.views] == [
        (2, 0.4, False),
        (1, 0.4, False),
        (0, 0.2, True),
    ]
    assert (
        plan.network.kind == "quicknat"
        and plan.network.widths == (64,) * 5
        and plan.network.dropout == 0.2
        and plan.network.squeeze == "both"
    )
    assert all(k == (5, 5, 1) for k in plan.network.kernels)
    assert (
        plan.optimiser.kind,
        plan.optimiser.learning_rate,
        plan.optimiser.momentum,
        plan.optimiser.weight_decay,
    ) == ("sgd", 0.1, 0.95, 1e-4)
    schedule = plan.schedule
    assert schedule.kind == "step" and schedule.drop_every and schedule.epochs
    assert schedule.drop_every * schedule.epochs == 10
    # The median of 4 classes over its own.
    assert plan.loss.boundary == 2 and plan.loss.class_weights[1] == pytest.approx(2500 / 1000)
    sagittal = plan.seen(plan.views[2])
    assert [s.name for s in sagittal.structures] == [
        "hippocampus",
        "Brain Stem",
    ] and sagittal.orientation == "ASR"


def test_quicknat_takes_its_28_classes_from_the_protocol_and_leaves_other_cohorts_alone() -> None:
    names = {
        n: f"{side} {name}"
        for n, (side, name) in enumerate(
            ((s, b) for b in brain_quicknat.BOTH_SIDES for s in ("Right", "Left")), start=1
        )
    }
    names |= dict(enumerate(brain_quicknat.MIDDLE, start=60))
    names |= {
        100: "Right ACgG",
        101: "Left ACgG",
        102: "Right AIns",
        103: "Left AIns",
        70: "Left vessel",
    }
    found = brain_quicknat.structures(manifest(names), False)
    assert len(found.labels) + 1 == 28 and "Left vessel" not in found.labels.names
    cortex = found.labels.named("Left Cerebral Cortex").value
    assert found.mapping.apply(
        np.array([[[101, 103, 100, 70]]]), found.labels
    ).ravel().tolist() == [
        cortex,
        cortex,
        found.labels.named("Right Cerebral Cortex").value,
        0,
    ]
    assert brain_quicknat.structures(manifest(names), True).labels == manifest(names).labels
    assert brain_quicknat.structures(manifest({1: "grey matter"}), False).labels.names == [
        "grey matter"
    ]


def test_liver_mr_is_the_original_and_takes_one_phase() -> None:
    plan = planned("liver-mr-unet2d", fingerprint("MR"))
    assert (
        plan.network.widths == (64, 128, 256, 512, 1024)
        and plan.network.dropout == 0.2
        and plan.batch == 4
        and plan.schedule.keep_every == 20
    )
    assert plan.loss.binary_cross_entropy == 1 and plan.loss.dice == plan.loss.cross_entropy == 0
    a = plan.augmentation
    assert (a.rotation_p, a.rotation_deg, a.scale_p, a.scale, a.mirror, a.noise_p) == (
        0.8,
        (0, 0, 10),
        0.3,
        (0.85, 0.85),
        (0,),
        0,
    )
    both = Manifest(
        (Case("p", "p", (Source("in"), Source("out"))),),
        ("T1DUAL InPhase", "T1DUAL OutPhase"),
        LabelSet.from_names({1: "liver", 2: "spleen"}),
    )
    one = liver_mr_unet2d.in_phase_liver(both, False)
    assert (
        one.channels == ("T1DUAL InPhase",)
        and one.cases[0].images[0].path == "in"
        and one.labels.names == ["liver"]
    )
    assert planned("liver-mr-denseunet167", fingerprint("MR")).network.convs == (6, 12, 36, 24)


def test_liver_ct_unet2d_is_the_original_and_oblique() -> None:
    plan = planned("liver-ct-unet2d")
    assert (
        plan.spacing_mm == (1.5, 1.5, None)
        and plan.patch == (112, 96, 1)
        and plan.foreground == 1
        and plan.batch == 10
    )
    assert (plan.channels[0].normalise.mean, plan.channels[0].normalise.std) == (-400, 500)
    assert (
        plan.augmentation.oblique_p > 0
        and planned("liver-ct-unet2d-axial").augmentation.oblique_p == 0
    )
    assert (
        plan.schedule.epochs == 20
        and plan.optimiser.learning_rate == 1e-3
        and plan.network.widths[-1] == 512
    )
    assert RECIPES["liver-ct-unet2d"].folds == 3  # 13 of 20 patients train


def test_brats_vnet_takes_any_number_of_modalities() -> None:
    cohort = manifest({1: "necrosis", 2: "oedema", 3: "enhancing"}, channels=4)
    plan = planned("brats-vnet", fingerprint("MR", 4, 3), cohort)
    assert (
        plan.network.kind == "vnet"
        and plan.network.channels == 4
        and plan.network.convs == (1, 2, 3, 3, 3)
        and plan.patch == (128, 128, 128)
    )
    assert (
        plan.schedule.best_by == "loss"
        and plan.augmentation.drop_channel_p > 0
        and plan.optimiser.learning_rate == 1e-4
    )
    assert (
        planned(
            "brats-vnet", fingerprint("MR", 1, 3), manifest(channels=1)
        ).augmentation.drop_channel_p
        == 0
    )
    light = planned("brats-vnet-light", fingerprint("MR", 4, 3), cohort)
    assert (
        light.network.kind == "unet"
        and light.network.down == "pool"
        and light.loss.cross_entropy == 1
        and light.loss.dice == 0
    )
    assert plan.loss.squared and plan.loss.dice == plan.loss.cross_entropy == 1


@pytest.mark.parametrize("name", ["liver-ct-unet3d", "liver-ct-unet2d"])
def test_a_window_in_hu_is_refused_for_other_modalities(name: str) -> None:
    with pytest.raises(PlanError, match="its intensity window is in HU; found MR"):
        planned(name, fingerprint("MR"))


def test_only_the_liver_is_taken_unless_structures_were_chosen() -> None:
    cohort = manifest({1: "liver", 2: "cancer", 3: "spleen"})
    taken = RECIPES["liver-ct-unet3d"].adapt(cohort, False)
    assert taken.labels.names == ["liver"] and taken.mapping.apply(
        np.array([[[0, 1, 2, 3]]]), taken.labels
    ).ravel().tolist() == [0, 1, 1, 0]
    assert RECIPES["liver-ct-unet3d"].adapt(cohort, True) is cohort


@pytest.mark.parametrize("name", RECIPES.names())
def test_every_recipe_scales_to_a_budget_and_survives_json(name: str) -> None:
    names = {1: "left part", 2: "right part"} if "brain" in name else {1: "liver"}
    found = fingerprint("CT" if "-ct-" in name else "MR", classes=len(names))
    full, short = (planned(name, found, manifest(names), budget_s=b) for b in (None, 300.0))
    assert full.schedule.epochs is not None and "scaling" not in full.reasons
    assert (
        short.schedule.budget_s == 300 / max(1, len(short.views))
        and short.schedule.epochs is None
        and short.schedule.kind in ("cosine", "step")
    )
    assert (
        short.network.widths[0] <= full.network.widths[0]
        and short.network.kind == full.network.kind
        and short.loss == full.loss
    )
    assert Plan.from_json(short.to_json()) == short
    assert planned(name, found, manifest(names), epochs=7).schedule.epochs == 7


def test_scaling_shrinks_until_enough_steps_fit_and_lengthens_adams_steps() -> None:
    full = planned("liver-ct-unet3d")
    asked: list[int] = []

    def probe(network: Network, patch: tuple[int, int, int], batch: int) -> float:
        asked.append(network.widths[0])
        return 100.0 if np.prod(patch) > 80_000 else 0.1

    short = scaled(full, MACHINE, budget_s=200.0, epochs=None, probe=probe)
    assert (
        np.prod(short.patch) <= 80_000
        and "resolution 50 %" in short.reasons["scaling"]
        and min(asked) >= 16
    )
    seen = [np.multiply(p.patch, p.spacing_mm) for p in (short, full)]
    # As much of the patient, with fewer voxels.
    assert np.all(seen[0] >= seen[1]) and short.spacing_mm == (
        3.0,
        3.0,
        2.0,
    )
    assert short.optimiser.learning_rate == pytest.approx(min(FASTEST_ADAM, 1e-5 * 600 * 20 / 2000))
    with pytest.raises(PlanError, match="memory"):
        scaled(full, Machine("cpu", 2, 1 << 20), budget_s=200.0, epochs=None, probe=probe)


def test_networks_of_volumes_get_narrower_than_16_only_without_matrix_units() -> None:
    without = Machine("cpu", 2, 24 << 30, matrix_units=False)

    def probe(network: Network, patch: tuple[int, int, int], batch: int) -> float:
        return 10.0 if network.widths[0] >= 16 else 0.1

    def width(name: str, machine: Machine) -> int:
        return scaled(
            planned(name), machine, budget_s=200.0, epochs=None, probe=probe
        ).network.widths[0]

    assert width("liver-ct-unet3d", without) == 8 and width("liver-ct-unet3d", MACHINE) == 16
    assert width("liver-ct-unet2d", without) == 16
    assert "without AMX or AVX512-BF16" in str(without) and "AMX" not in str(MACHINE)


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean brain-quicknat"):
        RECIPES["brain-quicknet"]
    result = CliRunner().invoke(
        app, ["train", ".", "-o", "m", "--recipe", "brats-vnet", "--dims", "2"]
    )
    assert (
        isinstance(result.exception, UsageError) and "excludes" in str(result.exception)
    ) or "exclude" in str(result.exception)


# ---- the whole road ----


def mr_cohort(folder: Path, channels: int = 1) -> Path:
    for n in range(4):
        for c in range(channels):
            scan(
                folder / f"case{n}" / f"{('flair', 't1')[c]}.nii.gz"
                if channels > 1
                else folder / "images" / f"case{n}.nii.gz",
                seed=n + 10 * c,
            )
        scan(
            folder / f"case{n}" / "seg.nii.gz"
            if channels > 1
            else folder / "labels" / f"case{n}.nii.gz",
            mask(n),
        )
    if channels == 1:
        (folder / "labels.csv").write_text("value,name\n1,Left part\n2,Right part\n")
    return folder


def two_modalities(folder: Path) -> Path:
    return mr_cohort(folder, 2)


def ct_cohort(folder: Path) -> Path:
    for n in range(4):
        hu = np.where(mask(n) > 0, 100, -50).astype(np.int16)
        hu[:2] = -1000
        hu[12:14, 7:9] = 900
        scan(folder / "TrainVolumes" / f"p{n}.nii.gz", hu, seed=n)
        scan(folder / "TrainSegmentation" / f"p{n}.nii.gz", (mask(n) > 0).astype(np.uint8))
    return folder


def run(*words: str | Path) -> None:
    result = CliRunner().invoke(app, [*map(str, words)])
    # So few steps make no model that is of use, which is code 3.
    assert result.exit_code in (0, 3 if words[0] == "train" else 0), (
        f"{result.output}\n{result.exception!r}"
    )


@pytest.mark.usefixtures("empty_figures")
@pytest.mark.parametrize(
    ("recipe", "cohort"),
    [
        # One of volumes and one of slices in every run of the tests; `make rounds` has all.
        ("brats-vnet-light", two_modalities),
        ("liver-mr-unet2d", mr_cohort),
        *(
            pytest.param(*one, marks=pytest.mark.rounds)
            for one in (
                ("liver-ct-unet3d-weighted", ct_cohort),
                ("liver-ct-unet2d", ct_cohort),
                ("brain-quicknat", mr_cohort),
                ("liver-mr-denseunet65", mr_cohort),
                ("brats-vnet", two_modalities),
            )
        ),
    ],
)
def test_train_and_predict(recipe: str, cohort: Callable[[Path], Path], tmp_path: Path) -> None:
    data = cohort(tmp_path / "data")
    run("plan", data, "--recipe", recipe, "--epochs", "1", "-o", tmp_path / "plan.json")
    plan = json.loads((tmp_path / "plan.json").read_text())
    # The full widths are for another machine than a test's.
    plan["network"]["widths"] = [8] * len(plan["network"]["widths"])
    if plan["network"]["kind"] == "denseunet":
        plan["network"]["growth"] = 8
    plan["schedule"]["steps_per_epoch"] = 2
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    run("train", data, "--plan", tmp_path / "plan.json", "-o", tmp_path / "m.model")
    scans = (
        data
        if recipe.startswith("brats")
        else next(data.glob("*mages"))
        if "-ct-" not in recipe
        else data / "TrainVolumes"
    )
    run("predict", tmp_path / "m.model", scans, "-o", tmp_path / "out")
    masks = sorted((tmp_path / "out").glob("*.nii.gz"))
    assert len(masks) == 4 and nib.load(masks[0]).shape == (20, 18, 16)
    assert np.allclose(nib.load(masks[0]).affine, np.diag([-1.0, 1.5, 2.0, 1]))


@pytest.mark.rounds
def test_the_recipe_by_name_trains_on_the_phantom_in_the_tutorials_tree(tmp_path: Path) -> None:
    make_cohort(tmp_path / "p", patients=4, seed=1, form="volumes")  # type: ignore[arg-type]
    run(
        "train",
        tmp_path / "p",
        "--recipe",
        "liver-ct-unet2d",
        "--budget",
        "30s",
        "-o",
        tmp_path / "m.model",
    )
    card = json.loads((tmp_path / "m.model.run" / "card.json").read_text())
    assert card["scores"]["what"] == "test" and set(card["scores"]["dice"]) == {"liver"}
    # Finished: nothing to do.
    run(
        "train",
        tmp_path / "p",
        "--recipe",
        "liver-ct-unet2d",
        "--budget",
        "30s",
        "-o",
        tmp_path / "m.model",
    )


@pytest.mark.rounds
def test_a_second_stage_keeps_the_network_of_the_first(tmp_path: Path) -> None:
    data = mr_cohort(tmp_path / "data")
    run("plan", data, "--recipe", "brain-quicknat", "--epochs", "1", "-o", tmp_path / "plan.json")
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["network"]["widths"] = [8] * 5
    plan["schedule"]["steps_per_epoch"] = 1
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    run("train", data, "--plan", tmp_path / "plan.json", "-o", tmp_path / "first.model")
    (tmp_path / "one.yaml").write_text("labels:\n  part: [1, 2]\n")
    again = [
        "train",
        data,
        "--recipe",
        "brain-quicknat",
        "--init",
        tmp_path / "first.model",
        "--labels",
        tmp_path / "one.yaml",
        "-o",
        tmp_path / "second.model",
    ]
    run(*again, "--budget", "30s")
    second = Plan.load(tmp_path / "second.model.run" / "plan.json")
    assert (
        second.network.widths == (8,) * 5
        and second.network.classes == 2
        and "starts from" in second.reasons["network"]
    )
