"""Predicting beyond the plain case: Monte-Carlo dropout samples, and scans that lack a channel."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.calls import call
from tests.plans import small_network, small_plan
from tests.scans import scan

import delineate as dl
from delineate.cohorts.discovery.channels import grouped
from delineate.commands.options import PredictOptions
from delineate.commands.parsing import parse_bytes
from delineate.commands.predict import gather, predict, results, session
from delineate.core.bundle import Bundle, Member
from delineate.core.errors import InputError, OutputError, UsageError
from delineate.core.grid import Grid
from delineate.core.labels import LabelSet
from delineate.core.manifest import ABSENT, Case, Manifest, Source
from delineate.core.plan import Augmentation, Channel, Inference, Normalisation
from delineate.core.volume import Volume
from delineate.execution import local as batch
from delineate.inference import memory_limits as limits
from delineate.inference import predictor
from delineate.inference.engine import Engine
from delineate.networks.build import build, weights_of
from delineate.preprocessing.prepare import prepare

CHANNELS = ("Flair", "T1c")


def model(path: Path, channels=CHANNELS, dropout=0.4, drop_channel_p=0.3, names=None) -> Path:
    """An untrained model: what is tested here does not depend on being right."""
    network = small_network(
        3,
        channels=len(channels),
        classes=3,
        dropout=dropout,
        norm="batch",
        widths=(6, 8),
        strides=((2, 2, 2),),
        kernels=((3, 3, 3),) * 2,
    )
    plan = small_plan(
        3,
        names,
        channels=tuple(
            Channel(name=c, normalise=Normalisation(inside="nonzero")) for c in channels
        ),
        spacing_mm=(1.2, 1.5, 2.0),
        network=network,
        augmentation=Augmentation(drop_channel_p=drop_channel_p),
    )
    Bundle(plan, (Member("fold_0", weights_of(build(network, 3)), 0),)).save(path)
    return path


@pytest.fixture(scope="module")
def one_channel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    scan(folder / "scans" / "a.nii.gz", seed=1)
    scan(folder / "scans" / "b.nii.gz", seed=2)
    model(folder / "m.model", ("MR",), drop_channel_p=0)
    return folder


def test_a_model_that_was_loaded_here_leaves_memory_once_it_is_built(
    one_channel, tmp_path, monkeypatch
):
    released = []
    monkeypatch.setattr(Bundle, "release_weights", lambda bundle: released.append(bundle.id))
    options = PredictOptions(device="cpu")
    made = one_channel / "m.model"
    for used in (made, Bundle.load(made)):  # the second is the caller's
        predict(used, [one_channel / "scans"], tmp_path / type(used).__name__, options)
    predict(made, [one_channel / "scans"], tmp_path / "s", PredictOptions(device="cpu", samples=2))
    assert released == [Bundle.load(made).id]


# ---- Monte-Carlo dropout ----


def test_samples_are_measured_as_by_hand(one_channel, tmp_path):
    told: list[tuple[float, str]] = []
    predict(
        one_channel / "m.model",
        [one_channel / "scans"],
        tmp_path / "o",
        PredictOptions(device="cpu", samples=4),
        progress=lambda stage, n, _, note: told.append((n, note)),
    )
    record = json.loads((tmp_path / "o/predictions.json").read_text())
    assert (record["samples"], record["seed"]) == (4, 0)
    assert (1.4, "b, sample 2 of 4") in [(round(n, 3), note) for n, note in told] and [
        n for n, _ in told
    ] == sorted(n for n, _ in told)
    plain = (
        predict(
            one_channel / "m.model",
            [one_channel / "scans"],
            tmp_path / "plain",
            PredictOptions(device="cpu"),
        )
        .outcomes[0]
        .value
    )
    assert plain is not None and "uncertainty" not in plain
    bundle = Bundle.load(one_channel / "m.model")
    from delineate.inference import predictor
    from delineate.inference.engine import Engine

    engine = Engine.from_bundle(bundle, torch.device("cpu"))
    image = dl.read(one_channel / "scans/a.nii.gz")
    drawn = predictor.predict(image, engine, samples=predictor.DropoutSamples(4, "0 a"))
    # Asking changes nothing.
    assert np.array_equal(drawn.labels.array, dl.read(tmp_path / "plain/a.nii.gz").array)
    assert np.array_equal(drawn.labels.array, dl.read(tmp_path / "o/a.nii.gz").array)
    assert len({s.tobytes() for s in drawn.samples}) == 4
    for label in bundle.labels:
        masks = np.stack([s == label.value for s in drawn.samples])
        ml = masks.sum((1, 2, 3)) * image.grid.voxel_ml
        row = record["cases"]["a"]["uncertainty"][label.name]
        assert row["samples_ml"] == pytest.approx(ml.tolist()) and row["cv"] == pytest.approx(
            ml.std(ddof=1) / ml.mean()
        )
        assert (
            row["iou"] == pytest.approx(masks.all(0).sum() / masks.any(0).sum())
            and 0 < row["iou"] < 1
        )
    rows = list(csv.DictReader((tmp_path / "o/uncertainty.csv").open()))
    assert [(r["case"], r["structure"]) for r in rows] == [
        (c, n) for c in "ab" for n in bundle.labels.names
    ]
    assert float(rows[0]["iou"]) == pytest.approx(
        record["cases"]["a"]["uncertainty"]["left part"]["iou"]
    )
    assert float(rows[0]["volume_ml"]) == record["cases"]["a"]["volumes_ml"]["left part"]


def test_a_montage_is_drawn_of_each_case_on_request(one_channel, tmp_path):
    for style in ("outlined", "filled"):
        predict(
            one_channel / "m.model",
            [one_channel / "scans"],
            tmp_path / style,
            PredictOptions(device="cpu", montage=style),
        )
        cases = json.loads((tmp_path / style / "predictions.json").read_text())["cases"]
        assert [entry["montage"] for entry in cases.values()] == [
            "montages/a.png",
            "montages/b.png",
        ]
    both = [
        np.asarray(Image.open(tmp_path / style / "montages" / "a.png").convert("RGB")).astype(int)
        for style in ("outlined", "filled")
    ]
    assert both[0].shape == both[1].shape
    assert (np.abs(both[0] - both[1]).sum(axis=-1) > 30).sum() > 500
    with pytest.raises(UsageError, match="outlined, filled, found 'dotted'"):
        predict(
            one_channel / "m.model",
            [one_channel / "scans"],
            tmp_path / "no",
            PredictOptions(device="cpu", montage="dotted"),
        )


def test_probabilities_stand_beside_the_labels_and_agree_with_them(one_channel, tmp_path):
    out = tmp_path / "o"
    done = predict(
        one_channel / "m.model",
        [one_channel / "scans"],
        out,
        PredictOptions(device="cpu", probabilities=True),
    )
    assert not [o.error for o in done.failures]
    labels, found = dl.read(out / "a.nii.gz"), dl.read(out / "probabilities" / "a.nii.gz")
    bundle = Bundle.load(one_channel / "m.model")
    assert found.grid == labels.grid and found.array.shape == (
        len(bundle.labels) + 1,
        *labels.grid.shape,
    )
    assert found.array.sum(axis=0) == pytest.approx(1.0, abs=1e-4) and found.array.min() >= 0
    values = np.array([0, *bundle.labels.values])
    top = np.sort(found.array, axis=0)
    clear = top[-1] - top[-2] > 1e-4  # else rounding may decide
    assert clear.mean() > 0.9
    assert np.array_equal(values[found.array.argmax(axis=0)][clear], labels.array[clear])
    assert np.array_equal(
        dl.read(out / "b.nii.gz").array,
        dl.load(one_channel / "m.model")
        .predict(dl.read(one_channel / "scans/b.nii.gz"))
        .labels.array,
    )
    given = (
        dl.load(one_channel / "m.model")
        .predict(dl.read(one_channel / "scans/a.nii.gz"), probabilities=True)
        .probabilities
    )
    assert np.abs(given / 65535 - found.array).max() < 1e-6
    assert (
        json.loads((out / "predictions.json").read_text())["cases"]["a"]["probabilities"]
        == "probabilities/a.nii.gz"
    )
    with pytest.raises(UsageError, match="which the limit does not include"):
        predict(
            one_channel / "m.model",
            [one_channel / "scans"],
            tmp_path / "no",
            PredictOptions(device="cpu", probabilities=True, ram_bytes=1 << 40),
        )


def test_samples_repeat_and_follow_the_seed(one_channel, tmp_path):
    found = []
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        predict(
            one_channel / "m.model",
            [one_channel / "scans/a.nii.gz"],
            tmp_path / name,
            PredictOptions(device="cpu", samples=2, seed=seed),
        )
        found.append((tmp_path / name / "uncertainty.csv").read_text())
    assert found[0] == found[1] != found[2]


def test_a_structure_in_no_sample_is_null(tmp_path):
    network = small_network(
        3, dropout=0.4, widths=(6, 8), strides=((2, 2, 2),), kernels=((3, 3, 3),) * 2
    )
    weights = dict(weights_of(build(network, 0)))
    weights["heads.0.bias"] = np.array([0, 9, -99], np.float32)
    plan = small_plan(3, network=network)
    Bundle(plan, (Member("fold_0", weights, 0),)).save(tmp_path / "m.model")
    scan(tmp_path / "a.nii.gz")
    predict(
        tmp_path / "m.model",
        [tmp_path / "a.nii.gz"],
        tmp_path / "o",
        PredictOptions(device="cpu", samples=2),
    )
    rows = json.loads((tmp_path / "o/predictions.json").read_text())["cases"]["a"]["uncertainty"]
    assert (
        rows["right part"]["iou"] is None
        and rows["right part"]["cv"] is None
        and rows["right part"]["found_in"] == 0
    )
    assert rows["left part"]["found_in"] == 2
    assert list(csv.DictReader((tmp_path / "o/uncertainty.csv").open()))[1]["iou"] == ""


def test_python_gives_the_uncertainty_too(one_channel):
    loaded = dl.load(one_channel / "m.model", device="cpu")
    image = dl.read(one_channel / "scans/a.nii.gz")
    found = loaded.predict(image, samples=3)
    assert (
        set(found.uncertainty) == set(loaded.labels.names)
        and len(found.uncertainty["left part"]["samples_ml"]) == 3
    )
    assert loaded.predict(image).uncertainty == {}


@pytest.mark.parametrize("memory_bytes", [None, 20_000])
def test_maps_are_entropy_and_standard_deviation(one_channel, memory_bytes, monkeypatch):
    """Against all probabilities of all samples, which the program never keeps."""
    from delineate.inference import planes
    from delineate.inference.engine import Engine, sampling, slabs

    engine = Engine.from_bundle(Bundle.load(one_channel / "m.model"), torch.device("cpu"))
    engine = engine.uncompiled()
    image = dl.read(one_channel / "scans/a.nii.gz")
    samples = predictor.DropoutSamples(5, "x", ("sd", "entropy"))
    ready = predictor.preprocess_scan(image, engine.plan)
    used: list[torch.dtype] = []
    kept = planes.planes
    monkeypatch.setattr(
        "delineate.inference.sample_maps.planes",
        lambda *given: used.append(1) or kept(*given),
    )
    found = predictor.segment(ready, engine, samples=samples, memory_bytes=memory_bytes)
    drawn = []
    with torch.inference_mode():
        for n in range(5):
            with sampling(engine, samples.seed(n)):
                drawn.append(torch.cat(list(slabs(ready.scan, engine)), dim=1))
    each = torch.stack(drawn).double()
    mean = each.mean(0)
    entropy = -(mean * mean.log()).sum(0)
    sd = (each.var(0, correction=0).sum(0) / 2).sqrt()
    axis = predictor.marching_axis(ready.scan.shape[1:], engine.plan)
    maps = torch.stack([entropy, sd])
    expected = predictor.restore_maps([maps.float()], ready.record, axis, 2)
    assert used and list(found.maps) == ["sd", "entropy"]
    tolerance = 1e-4 if memory_bytes is None else 0.03  # half precision in a file
    for name, reference in zip(("entropy", "sd"), expected, strict=True):
        assert found.maps[name].shape == image.shape and reference.max() > 0.04
        assert np.abs(found.maps[name] - reference).max() < tolerance
    # The masks are those without maps, and so are the samples.
    if memory_bytes is not None:
        return  # rounding decides between the classes of an untrained network
    plain = predictor.segment(ready, engine, samples=predictor.DropoutSamples(5, "x"))
    assert np.array_equal(plain.labels.array, found.labels.array)
    for one, other in zip(plain.samples, found.samples, strict=True):
        assert np.array_equal(one, other)


def test_maps_are_written_on_the_scans_grid_and_drawn(one_channel, tmp_path):
    options = PredictOptions(
        device="cpu", samples=3, maps=("entropy", "sd"), montage="outlined", ram_bytes=8 << 30
    )
    done = predict(
        one_channel / "m.model", [one_channel / "scans/a.nii.gz"], tmp_path / "o", options
    )
    assert not done.failures
    image = dl.read(one_channel / "scans/a.nii.gz")
    direct = dl.load(one_channel / "m.model", device="cpu").predict(
        image, samples=3, maps=("entropy",), keep_samples=True
    )
    assert len(direct.samples) == 3 and direct.samples[0].shape == image.shape
    for name in ("entropy", "sd"):
        found = dl.read(tmp_path / f"o/{name}/a.nii.gz")
        assert found.grid.matches(image.grid, 1e-4) and 0 < found.array.max() <= np.log(3) + 1e-3
        assert done.outcomes[0].value[name] == f"{name}/a.nii.gz"
    # A second call keeps the result; without a map it is done again.
    before = (tmp_path / "o/sd/a.nii.gz").stat().st_mtime_ns
    predict(one_channel / "m.model", [one_channel / "scans/a.nii.gz"], tmp_path / "o", options)
    assert (tmp_path / "o/sd/a.nii.gz").stat().st_mtime_ns == before
    (tmp_path / "o/sd/a.nii.gz").unlink()
    predict(one_channel / "m.model", [one_channel / "scans/a.nii.gz"], tmp_path / "o", options)
    assert (tmp_path / "o/sd/a.nii.gz").is_file()
    shutil.copytree(tmp_path / "o", tmp_path / "kept")
    # In the montage, in the pictures of an evaluation (one more panel), and in the viewer.
    assert (tmp_path / "o/montages/a.png").is_file()
    (tmp_path / "truth").mkdir()
    shutil.copy(tmp_path / "o/a.nii.gz", tmp_path / "truth")
    ratios = []
    for out in ("with", "without"):
        scored = dl.evaluate(
            tmp_path / "o",
            tmp_path / "truth",
            tmp_path / out,
            images=one_channel / "scans",
            pictures=True,
            report=False,
        )
        picture = Image.open(scored.pictures[0])
        ratios.append(picture.width / picture.height)
        for name in ("entropy", "sd"):
            shutil.rmtree(tmp_path / "o" / name, ignore_errors=True)
    assert ratios[0] > 1.1 * ratios[1]
    from delineate.viewer.sources import find

    shown = find([one_channel / "scans/a.nii.gz", tmp_path / "kept/entropy/a.nii.gz"])
    scene = shown.entries[0].load()
    assert scene.masks[0].labels.names[0].endswith("from 0.14")
    assert len(np.unique(scene.masks[0].volume.array)) > 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"maps": ("entropy",)}, "state their number with --samples"),
        ({"maps": ("mean",), "samples": 2}, "--maps are entropy and sd, found mean"),
    ],
)
def test_maps_that_cannot_be_made_are_refused(one_channel, tmp_path, given, words):
    with pytest.raises(UsageError, match=words):
        predict(
            one_channel / "m.model",
            [one_channel / "scans"],
            tmp_path / "o",
            PredictOptions(device="cpu", **given),
        )


def test_what_cannot_be_sampled_is_refused(one_channel, tmp_path):
    with pytest.raises(UsageError, match="at least 2"):
        predict(
            one_channel / "m.model",
            [one_channel / "scans"],
            tmp_path / "o",
            PredictOptions(samples=1),
        )
    model(tmp_path / "sure.model", ("MR",), dropout=0)
    with pytest.raises(UsageError, match="without"):
        predict(
            tmp_path / "sure.model",
            [one_channel / "scans"],
            tmp_path / "o",
            PredictOptions(samples=5),
        )
    assert not (tmp_path / "o").exists()


# ---- missing channels ----


def folder_of(root: Path, files: dict[str, int]) -> Path:
    for name, seed in files.items():
        scan(root / f"{name}.nii.gz", seed=seed)
    return root


LAYOUTS = {
    "a folder a case": {"p1/flair_x": 1, "p1/t1c_x": 2, "p1/seg": 3, "p2/flair_x": 4, "p2/seg": 3},
    "names with the case": {"p1/p1_FLAIR": 1, "p1/p1_T1C": 2, "p2/p2_FLAIR": 4},
    "a flat folder": {"p1-t1c": 2, "p1-flair": 1, "p2-flair": 4, "p1_flair_mask": 5},
}


@pytest.mark.parametrize("files", LAYOUTS.values(), ids=list(LAYOUTS))
def test_a_lacking_channel_is_refused_by_name_or_allowed(tmp_path, files):
    data = folder_of(tmp_path / "data", files)
    path = model(tmp_path / "m.model")
    manifest = gather([data], Bundle.load(path)).manifest
    assert [(c.id, [s == ABSENT for s in c.images]) for c in manifest] == [
        ("p1", [False, False]),
        ("p2", [False, True]),
    ]
    assert (
        "flair" in Path(manifest.cases[0].images[0].path).name.lower()
        and "t1c" in Path(manifest.cases[0].images[1].path).name.lower()
    )
    refused = predict(path, [data], tmp_path / "o", PredictOptions(device="cpu"))
    assert [o.name for o in refused.failures] == ["p2"]
    assert "case p2: channel T1c is missing; the model needs Flair, T1c, found Flair (" in str(
        refused.failures[0].error
    )
    done = predict(path, [data], tmp_path / "o", PredictOptions(device="cpu", allow_missing=True))
    assert not done.failures
    record = json.loads((tmp_path / "o/predictions.json").read_text())
    assert record["cases"]["p2"]["missing"] == ["T1c"] and "missing" not in record["cases"]["p1"]
    whole = dl.load(path, device="cpu").predict(
        dl.read(record["cases"]["p2"]["input"]), channels=["flair"]
    )
    assert whole.missing == ("T1c",) and np.array_equal(
        whole.labels.array, dl.read(tmp_path / "o/p2.nii.gz").array
    )


def test_files_given_one_by_one_are_put_together(tmp_path):
    data = folder_of(tmp_path / "data", {"p1_flair": 1, "p1_t1c": 2, "p2_t1c": 3})
    bundle = Bundle.load(model(tmp_path / "m.model"))
    manifest = gather(
        [data / "p2_t1c.nii.gz", data / "p1_t1c.nii.gz", data / "p1_flair.nii.gz"], bundle
    ).manifest
    assert [(c.id, [Path(s.path).name for s in c.images]) for c in manifest] == [
        ("p2", ["", "p2_t1c.nii.gz"]),
        ("p1", ["p1_flair.nii.gz", "p1_t1c.nii.gz"]),
    ]


def test_a_case_that_its_layout_drops_is_seen(tmp_path):
    """nnU-Net's numbers tell the channel; the layout leaves an incomplete case out, predicting must
    not.
    """
    data = folder_of(
        tmp_path / "data",
        {f"imagesTr/p{n}_000{c}": n for n in (1, 2) for c in (0, 1) if (n, c) != (2, 0)},
    )
    for n in (1, 2):
        scan(data / f"labelsTr/p{n}.nii.gz", np.zeros((20, 18, 16), np.uint8))
    (data / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "Flair", "1": "T1c"},
                "labels": {"background": 0, "a": 1, "b": 2},
            }
        )
    )
    manifest = gather([data], Bundle.load(model(tmp_path / "m.model"))).manifest
    assert [(c.id, [s == ABSENT for s in c.images]) for c in manifest] == [
        ("p1", [False, False]),
        ("p2", [True, False]),
    ]


def test_a_model_that_never_missed_a_channel_is_not_asked(tmp_path):
    data = folder_of(tmp_path / "data", {"p1_flair": 1})
    path = model(tmp_path / "m.model", drop_channel_p=0)
    done = call("predict", path, data, "-o", tmp_path / "o", "--allow-missing")
    assert (
        done.returncode == 2 and "drop_channel_p" in done.stderr and not (tmp_path / "o").exists()
    )
    with pytest.raises(UsageError, match="modality dropout"):
        dl.load(path, device="cpu").predict(dl.read(data / "p1_flair.nii.gz"), channels=["Flair"])
    with pytest.raises(InputError, match="needs 2"):
        dl.load(path, device="cpu").predict(dl.read(data / "p1_flair.nii.gz"))
    with pytest.raises(UsageError, match="no channel PD; its channels are Flair, T1c"):
        dl.load(path, device="cpu").predict(dl.read(data / "p1_flair.nii.gz"), channels=["PD"])


def test_absent_channels_are_zero_and_present_ones_as_ever():
    rng = np.random.default_rng(0)
    names = ("T1", "Flair", "T2")
    plan = small_plan(
        3, channels=tuple(Channel(name=n) for n in names), network=small_network(3, channels=3)
    )
    volume = Volume(
        rng.normal(50, 9, (3, 11, 9, 7)).astype(np.float32),
        Grid.from_spacing((11, 9, 7), (1.5, 1.0, 2.0)),
    )
    whole, _ = prepare(volume, plan)
    part, trail = prepare(volume.with_array(volume.array[[2, 0]]), plan, present=[2, 0])
    assert part.shape == whole.shape and trail.source == volume.grid
    assert torch.equal(part[0], whole[0]) and torch.equal(part[2], whole[2]) and not part[1].any()
    with pytest.raises(InputError, match=r"found 3 channel\(s\), the plan needs 1 \(Flair\)"):
        prepare(volume, plan, present=[1])


def test_names_that_tell_a_channel(tmp_path):
    failures: dict[str, Exception] = {}

    def cases(*names, wanted=("T1", "T1_Gd", "T2")):
        return [
            (c.id, [Path(s.path).name.split(".")[0] for s in c.images])
            for c in grouped([scan(tmp_path / f"{n}.nii.gz") for n in names], wanted, failures)
        ]

    # The longer name first.
    assert cases("a_t1", "a_t1_gd", "a_T2") == [("a", ["a_t1", "a_t1_gd", "a_T2"])]
    # Parts of words, masks, and names of two channels.
    assert cases("b_t11", "b_flat1", "b_t1_seg", "b_t1_to_t2") == []
    assert cases("t1_7", "t2_7", "t1_8") == [("7", ["t1_7", "", "t2_7"]), ("8", ["t1_8", "", ""])]
    assert cases("sub/t1_x", "sub/t2_y") == [("sub", ["t1_x", "", "t2_y"])]
    assert not failures
    # The scan whose channel could be two files is left out; the others stay.
    assert [name for name, _ in cases("c_t1_raw", "c_t1_n4", "d_t1")] == ["d"]
    assert "could both be its channel T1" in str(failures["c"])


def test_brats_with_one_modality(real_data, tmp_path):
    source = real_data / "brats2013"
    for n, case in enumerate(sorted(p for p in source.iterdir() if p.is_dir())[:2]):
        (tmp_path / "data" / case.name).mkdir(parents=True)
        for kind in ("Flair", "T1c")[: 2 - n]:
            (tmp_path / "data" / case.name / f"{kind}_subtrMeanDivStd.nii.gz").symlink_to(
                case / f"{kind}_subtrMeanDivStd.nii.gz"
            )
    manifest = gather([tmp_path / "data"], Bundle.load(model(tmp_path / "m.model"))).manifest
    assert [(c.id, len([s for s in c.images if s != ABSENT])) for c in manifest] == [
        ("brats_2013_pat0003_1", 2),
        ("brats_2013_pat0004_1", 1),
    ]
    whole = gather([source], Bundle.load(tmp_path / "m.model")).manifest
    assert [Path(s.path).name for c in whole for s in c.images] == [
        "Flair_subtrMeanDivStd.nii.gz",
        "T1c_subtrMeanDivStd.nii.gz",
    ] * 4


def test_the_next_scan_is_read_while_one_is_delineated(tmp_path, monkeypatch):
    """Every scan once, in order, one ahead; what cannot be read fails alone; with limited memory
    one at a time.
    """
    names = ["a", "b", "c", "d"]
    for name in names:
        (tmp_path / name).write_text("")
    read, cases = [], tuple(Case(name, name, (Source(str(tmp_path / name)),)) for name in names)

    def slow(case, manifest):
        read.append(case.id)
        if case.id == "c":
            raise InputError("broken")
        return Volume(
            np.zeros((1, 2, 2, 2)), Grid.from_spacing((2, 2, 2), (1, 1, 1)), source=case.id
        )

    monkeypatch.setattr(results, "read_image", slow)
    monkeypatch.setattr(
        predictor,
        "preprocess_scan",
        lambda volume, plan, present, skip_air: f"{volume.source} ready",
    )
    manifest, threads = (
        Manifest(cases, ("MR",), LabelSet.from_names({1: "x"})),
        torch.get_num_threads(),
    )
    bundle = Bundle.load(model(tmp_path / "m.model", ("MR",), drop_channel_p=0))
    ahead = session.Prefetcher(manifest, bundle, PredictOptions())
    assert ahead(cases[0]).ready == "a ready" and ahead(cases[1]).ready == "b ready"
    with pytest.raises(InputError, match="broken"):
        ahead(cases[2])
    assert ahead(cases[3]).ready == "d ready"
    ahead.close()
    assert read == names and torch.get_num_threads() == threads
    read.clear()
    alone = session.Prefetcher(manifest, bundle, PredictOptions(ram_bytes=1))
    assert alone(cases[1]).ready == "b ready"
    alone.close()
    assert read == ["b"]


def test_networks_are_compiled_while_the_first_scan_is_read(tmp_path, monkeypatch):
    """Each waits for the other to begin."""
    path = model(tmp_path / "m.model", ("MR",), drop_channel_p=0)
    scan(tmp_path / "a.nii.gz")
    reads, makes = threading.Event(), threading.Event()
    read, make = results.read_image, Engine.from_bundle

    def reading(case, manifest):
        reads.set()
        assert makes.wait(30)
        return read(case, manifest)

    def making(*args, **how):
        makes.set()
        assert reads.wait(30)
        return make(*args, **how)

    monkeypatch.setattr(results, "read_image", reading)
    monkeypatch.setattr(Engine, "from_bundle", making)
    done = predict(path, [tmp_path / "a.nii.gz"], tmp_path / "out", PredictOptions(device="cpu"))
    assert not done.failures and reads.is_set()
    # What cannot run is refused before anything is written.
    with pytest.raises(UsageError, match="not quantised"):
        options = PredictOptions(device="cpu", precision="int8")
        predict(path, [tmp_path / "a.nii.gz"], tmp_path / "none", options)
    assert not (tmp_path / "none").exists()


def test_results_are_written_behind_one_at_a_time():
    """While the next case is delineated; a failure to write is that case's own; with limited memory
    at once.
    """
    go = threading.Event()

    def slow():
        go.wait()
        return {"file": "slow"}

    def broken():
        raise OutputError("disk full")

    behind = session.BackgroundWriter(PredictOptions())
    first = behind(slow)
    assert not first.done()
    threading.Timer(0.05, go.set).start()
    second = behind(broken)  # waits for the first
    assert first.done()
    kept, lost = (
        session.written(batch.Outcome(name, future, None, 1.0))
        for name, future in (("a", first), ("b", second))
    )
    behind.close()
    assert kept.value == {"file": "slow"} and kept.error is None and kept.seconds >= 1
    assert lost.value is None and isinstance(lost.error, OutputError) and lost.error.case == "b"
    writer = session.BackgroundWriter(PredictOptions(ram_bytes=1))
    assert writer(lambda: {"file": "c"}) == {"file": "c"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4G", 4 << 30), ("500M", 500 << 20), ("1.5 GiB", 3 << 29), ("2gb", 2 << 30), ("1000", 1000)],
)
def test_amounts_of_memory(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "4X", "G", "-1G", "0", "0.0M", "4G2M"])
def test_other_amounts_are_refused(text):
    with pytest.raises(UsageError, match="4G or 500M"):
        parse_bytes(text)


# ---- memory ----


@pytest.fixture(scope="module")
def many_labels(tmp_path_factory) -> Path:
    """A model of 40 structures and a scan whose class scores are 230 MB."""
    folder = tmp_path_factory.mktemp("many")
    names = {value: f"structure {value}" for value in range(1, 41)}
    network = small_network(
        3, classes=41, widths=(4, 6), strides=((2, 2, 2),), kernels=((3, 3, 3),) * 2
    )
    plan = small_plan(
        3,
        names,
        network=network,
        spacing_mm=(1.0, 1.0, 1.0),
        patch=(48, 48, 48),
        inference=Inference(overlap=0),
    )
    Bundle(plan, (Member("fold_0", weights_of(build(network, 3)), 0),)).save(folder / "m.model")
    array = np.random.default_rng(0).normal(size=(120, 112, 104)).astype(np.float32)
    dl.write(Volume(array, Grid.from_spacing(array.shape, (1.0, 1.0, 1.0))), folder / "scan.nii.gz")
    return folder


def run_predict(folder: Path, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "delineate.cli",
        "predict",
        str(folder / "m.model"),
        str(folder / "scan.nii.gz"),
        "-o",
        str(out),
        "--device",
        "cpu",
    ]
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=300)


def test_memory_is_refused_with_the_least_that_works_and_then_kept(many_labels, tmp_path):
    refused = run_predict(many_labels, tmp_path / "r", "--ram", "300M")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    least = re.search(
        r"smallest limit that works is\s+--ram\s+([0-9.]+)G",
        " ".join((refused.stdout + refused.stderr).split()),
    )
    assert least is not None, refused.stderr
    kept = run_predict(many_labels, tmp_path / "k", "--ram", f"{float(least[1]) + 0.1:.2f}G")
    assert kept.returncode == 0, kept.stdout + kept.stderr
    record = json.loads((tmp_path / "k" / "predictions.json").read_text())
    assert record["peak_memory_mb"] * 1e6 <= (float(least[1]) + 0.1) * 2**30
    words = ("m.model", "scan.nii.gz", "-o", tmp_path / "f", "--device", "cpu")
    free = call("predict", *words, cwd=many_labels)
    a, b = (np.asarray(dl.read(tmp_path / name / "scan.nii.gz").array) for name in ("k", "f"))
    # An untrained network is sure of nothing: half-precision sums move some voxels.
    assert free.returncode == 0 and (a == b).mean() > 0.98


def test_need_is_counted_along_the_scan_s_own_axes():
    plan = small_plan(3, spacing_mm=(1.0, 2.0, 4.0), orientation="ASR")
    grid = Grid.from_spacing((10, 20, 30), (1.0, 1.0, 1.0))
    assert limits._spacing_along(grid, plan) == [4.0, 1.0, 2.0]
    assert limits._spacing_along(grid, plan.replace(orientation="kji", resampling="spline")) == [
        4.0,
        2.0,
        1.0,
    ]
