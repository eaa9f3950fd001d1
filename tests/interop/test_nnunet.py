"""Importing nnU-Net: a real trained fold against nnU-Net's own masks, every family against a
reference forward pass, and what is refused.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from tests.plans import small_network, small_plan
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner

from delineate.cli import app
from delineate.core.bundle import Bundle, graphs_beside
from delineate.core.errors import BundleError, InputError, PlanError, UsageError
from delineate.core.grid import Grid
from delineate.core.plan import Plan
from delineate.core.volume import Volume
from delineate.formats.files import read
from delineate.inference import openvino as compiled
from delineate.inference.engine import Engine
from delineate.inference.predictor import predict
from delineate.interop.nnunet import load_data_only, read_bundle
from delineate.networks.build import build, load_weights

TRAINED = "nnUNetTrainer__nnUNetPlans__3d_fullres"


# ---- a results folder as nnU-Net writes it, small, with drawn weights ----


def results(
    folder: Path,
    *,
    name: str = "3d_fullres",
    network: str = "PlainConvUNet",
    dims: int = 3,
    bias: bool = True,
    inputs: int = 2,
    **changes: Any,
) -> Path:
    """``changes``: of plans (``plans_x``), of the dataset (``dataset_x``), of the network's words
    (``words_x``), else of the configuration.
    """

    def part(start: str) -> dict[str, Any]:
        return {
            key.removeprefix(start): value
            for key, value in changes.items()
            if key.startswith(start)
        }

    resnet = network == "ResidualEncoderUNet"
    kernels, strides = (
        [[3] * dims, [1] + [3] * (dims - 1), [3] * dims],
        [[1] * dims, [1] + [2] * (dims - 1), [2] * dims],
    )
    words = {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "kernel_sizes": kernels,
        "strides": strides,
        ("n_blocks_per_stage" if resnet else "n_conv_per_stage"): [1, 2, 2]
        if resnet
        else [2, 1, 2],
        "n_conv_per_stage_decoder": [2, 1],
        "conv_bias": bias,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "nonlin": "torch.nn.LeakyReLU",
    } | part("words_")
    config = {
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [12, 16, 8][-dims:],
        "spacing": [2.0, 1.0, 1.5][-dims:],
        "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
        "use_mask_for_norm": [False, True],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{network}",
            "arch_kwargs": words,
        },
    }
    config |= {
        key: value
        for key, value in changes.items()
        if not key.startswith(("plans_", "dataset_", "words_"))
    }
    seen = {"0": {"percentile_00_5": -50.0, "percentile_99_5": 150.0, "mean": 60.0, "std": 20.0}}
    plans = {
        "dataset_name": "Dataset999_Small",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": seen,
        "configurations": {name: config},
    } | part("plans_")
    dataset = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": 3},
    } | part("dataset_")
    trained = folder / f"nnUNetTrainer__nnUNetPlans__{name}"
    trained.mkdir(parents=True)
    (trained / "plans.json").write_text(json.dumps(plans))
    (trained / "dataset.json").write_text(json.dumps(dataset))
    for fold in (0, 1):
        torch.manual_seed(fold)
        (trained / f"fold_{fold}").mkdir()
        content = {
            "network_weights": resnet_state(dims, kernels, bias)
            if resnet
            else plain_state(dims, kernels, bias, inputs),
            "optimizer_state": {},
            "grad_scaler_state": None,
            "_best_ema": np.float32(0.5),
            "logging": {"mean_fg_dice": [np.float64(0.3)]},
            "current_epoch": 3,
            "init_args": {"configuration": name},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": tuple(range(dims)),
        }
        torch.save(content, trained / f"fold_{fold}" / "checkpoint_final.pth")
    return trained


def block(
    state: dict[str, Tensor], at: str, c_in: int, c_out: int, kernel: list[int], bias: bool
) -> None:
    """A convolution and its norm, each listed twice, as nnU-Net's modules do."""
    state[f"{at}.conv.weight"] = torch.randn(c_out, c_in, *kernel) / (c_in * np.prod(kernel)) ** 0.5
    if bias:
        state[f"{at}.conv.bias"] = torch.randn(c_out)
    state[f"{at}.norm.weight"], state[f"{at}.norm.bias"] = (
        torch.rand(c_out) + 0.5,
        torch.randn(c_out) / 3,
    )
    state[f"{at}.all_modules.0.weight"] = state[f"{at}.conv.weight"]


def decoder_state(
    state: dict[str, Tensor], kernels: list[list[int]], strides: list[list[int]]
) -> None:
    for d, (c_in, c_out) in enumerate(((8, 8), (8, 4))):
        state[f"decoder.transpconvs.{d}.weight"] = torch.randn(c_in, c_out, *strides[-1 - d]) / 3
        state[f"decoder.transpconvs.{d}.bias"] = torch.randn(c_out)
        for n in range((2, 1)[d]):
            block(
                state,
                f"decoder.stages.{d}.convs.{n}",
                2 * c_out if n == 0 else c_out,
                c_out,
                kernels[-2 - d],
                True,
            )
        state[f"decoder.seg_layers.{d}.weight"], state[f"decoder.seg_layers.{d}.bias"] = (
            torch.randn(3, c_out, *[1] * len(kernels[0])),
            torch.randn(3),
        )


def strides_of(dims: int) -> list[list[int]]:
    return [[1] + [2] * (dims - 1), [2] * dims]


def plain_state(dims: int, kernels: list[list[int]], bias: bool, inputs: int) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for s, (c_in, c_out, convs) in enumerate(((inputs, 4, 2), (4, 8, 1), (8, 8, 2))):
        for n in range(convs):
            block(
                state,
                f"encoder.stages.{s}.0.convs.{n}",
                c_in if n == 0 else c_out,
                c_out,
                kernels[s],
                bias,
            )
    state |= {f"decoder.{name}": tensor for name, tensor in state.items()}
    decoder_state(state, kernels, strides_of(dims))
    return state


def resnet_state(dims: int, kernels: list[list[int]], bias: bool) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    block(state, "encoder.stem.convs.0", 2, 4, kernels[0], bias)
    for s, (c_in, c_out, blocks) in enumerate(((4, 4, 1), (4, 8, 2), (8, 8, 2))):
        for n in range(blocks):
            block(
                state,
                f"encoder.stages.{s}.blocks.{n}.conv1",
                c_in if n == 0 else c_out,
                c_out,
                kernels[s],
                bias,
            )
            block(state, f"encoder.stages.{s}.blocks.{n}.conv2", c_out, c_out, kernels[s], bias)
        if c_in != c_out:
            block(state, f"encoder.stages.{s}.blocks.0.skip.1", c_in, c_out, [1] * dims, False)
    decoder_state(state, kernels, strides_of(dims))
    return state


# ---- the reference: what dynamic_network_architectures computes, written with functions alone ----


def reference(state: dict[str, Tensor], x: Tensor, resnet: bool) -> Tensor:
    dims = x.ndim - 2
    conv, up, pool = (
        (F.conv2d, F.conv_transpose2d, F.avg_pool2d)
        if dims == 2
        else (F.conv3d, F.conv_transpose3d, F.avg_pool3d)
    )
    strides = [[1] * dims, *strides_of(dims)]

    def one(at: str, x: Tensor, stride: Any = 1, act: bool = True) -> Tensor:
        weight = state[f"{at}.conv.weight"]
        x = conv(
            x, weight, state.get(f"{at}.conv.bias"), stride, [k // 2 for k in weight.shape[2:]]
        )
        x = F.instance_norm(
            x, weight=state[f"{at}.norm.weight"], bias=state[f"{at}.norm.bias"], eps=1e-5
        )
        return F.leaky_relu(x, 0.01) if act else x

    skips = []
    if resnet:
        x = one("encoder.stem.convs.0", x)
    for s, count in enumerate((1, 2, 2) if resnet else (2, 1, 2)):
        for n in range(count):
            stride = strides[s] if n == 0 else 1
            if not resnet:
                x = one(f"encoder.stages.{s}.0.convs.{n}", x, stride)
                continue
            at, beside = f"encoder.stages.{s}.blocks.{n}", x
            if n == 0 and s:
                beside = pool(x, stride)
                beside = (
                    one(f"{at}.skip.1", beside, act=False)
                    if f"{at}.skip.1.conv.weight" in state
                    else beside
                )
            x = F.leaky_relu(
                one(f"{at}.conv2", one(f"{at}.conv1", x, stride), act=False) + beside, 0.01
            )
        skips.append(x)
    for d in range(2):
        x = up(
            x,
            state[f"decoder.transpconvs.{d}.weight"],
            state[f"decoder.transpconvs.{d}.bias"],
            strides[-1 - d],
        )
        x = torch.cat([x, skips[-2 - d]], 1)
        for n in range((2, 1)[d]):
            x = one(f"decoder.stages.{d}.convs.{n}", x)
    return conv(x, state["decoder.seg_layers.1.weight"], state["decoder.seg_layers.1.bias"])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("network", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_an_imported_network_computes_what_nnunets_does(tmp_path, network, dims, bias):
    folder = results(
        tmp_path, name="2d" if dims == 2 else "3d_fullres", network=network, dims=dims, bias=bias
    )
    bundle = read_bundle(folder)
    x = torch.randn(2, 2, *(12, 16, 8)[:dims], generator=torch.Generator().manual_seed(5))
    for fold, member in enumerate(bundle.members):
        module = build(bundle.plan.network).eval()
        load_weights(module, member.weights)
        state = torch.load(folder / f"fold_{fold}" / "checkpoint_final.pth", weights_only=False)[
            "network_weights"
        ]
        with torch.inference_mode():
            expected, found = reference(state, x, network == "ResidualEncoderUNet"), module(x)
        assert found.shape == expected.shape == (2, 3, *x.shape[2:])
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_plans_say_what_nnunet_does(tmp_path):
    plan = read_bundle(results(tmp_path / "a", plans_transpose_forward=[1, 0, 2])).plan
    assert (
        plan.orientation == "jki"
        and plan.spacing_mm == (2.0, 1.0, 1.5)
        and plan.patch == (12, 16, 8)
        and plan.sided_axis is None
    )
    assert (
        plan.inference.average == "logits"
        and plan.inference.mirror == (0, 1, 2)
        and plan.crop == "not_zero"
        and plan.resampling == "spline"
    )
    ct, pet = (channel.normalise for channel in plan.channels)
    assert (ct.kind, ct.low, ct.high, ct.mean, ct.std) == ("window", -50, 150, 60, 20) and (
        pet.kind,
        pet.inside,
    ) == ("standard", "nonzero")
    # The ignore label is none of them.
    assert plan.labels.names == ["liver", "tumour"] and plan.labels.values == [
        1,
        2,
    ]
    flat = read_bundle(
        results(tmp_path / "b", name="2d", dims=2, plans_transpose_forward=[1, 0, 2])
    ).plan
    # NnU-Net slices j first, a plan last.
    assert (
        flat.orientation == "kij"
        and flat.patch == (16, 8, 1)
        and flat.spacing_mm == (1.0, 1.5, None)
    )
    turned = read_bundle(
        results(tmp_path / "c", plans_image_reader_writer="NibabelIOWithReorient")
    ).plan
    assert turned.orientation == "SAR" and turned.sided_axis == 2


def test_regions_overwrite_each_other_in_their_order(tmp_path):
    """Three heads, a sigmoid each, whose order is not that of their values; against nnU-Net's rule
    on the reference's own logits.
    """
    labels = {"background": 0, "whole": [1, 2, 3], "left rim": [3], "core": [2, 3], "ignore": 4}
    folder = results(
        tmp_path,
        dataset_labels=labels,
        dataset_regions_class_order=[1, 3, 2],
        normalization_schemes=["NoNormalization"] * 2,
        spacing=[1.0, 1.0, 1.0],
        patch_size=[12, 16, 8],
    )
    # I, j, k: the file's axes.
    scan = np.random.default_rng(0).normal(size=(2, 8, 16, 12)).astype(np.float32)
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    state, x = content["network_weights"], torch.from_numpy(scan.transpose(0, 3, 2, 1).copy())[None]
    # Each region is half of the voxels.
    state["decoder.seg_layers.1.bias"] -= (
        reference(state, x, resnet=False)[0].flatten(1).median(1).values
    )
    torch.save(content, path)
    bundle = read_bundle(folder, folds=[0])
    assert bundle.plan.network.overlapping and bundle.plan.network.classes == 3
    assert [(s.value, s.name, s.side) for s in bundle.plan.structures] == [
        (1, "whole", None),
        (3, "left rim", None),
        (2, "core", None),
    ]
    engine = Engine.from_bundle(bundle, torch.device("cpu"), torch.float32)
    found = predict(
        Volume(scan, Grid.from_spacing((8, 16, 12), (1, 1, 1))),
        engine,
        inference=engine.plan.inference.model_copy(update={"mirror": ()}),
    )
    logits = reference(state, x, resnet=False)[0]
    expected = np.zeros((12, 16, 8), np.uint8)
    for value, scores in zip((1, 3, 2), logits, strict=True):
        expected[scores.numpy() > 0] = value
    assert all((expected == v).sum() > 50 for v in range(4))
    # The medians were put at 0, where rounding decides.
    clear = np.abs(logits.numpy()).min(0).transpose(2, 1, 0) > 1e-4
    assert clear.mean() > 0.99 and np.array_equal(
        found.labels.array[clear], expected.transpose(2, 1, 0)[clear]
    )


def test_a_cascade_is_one_model_of_both_stages(tmp_path):
    """The second stage sees what the first found; against both reference networks, one after the
    other.
    """
    alike = {
        "normalization_schemes": ["NoNormalization"] * 2,
        "spacing": [1.0, 1.0, 1.0],
        "patch_size": [12, 16, 8],
    }
    first = results(tmp_path, name="3d_lowres", **alike)
    second = results(
        tmp_path, name="3d_cascade_fullres", inputs=4, previous_stage="3d_lowres", **alike
    )
    bundle = read_bundle(second, folds=[1])
    assert bundle.plan.cascade and [(m.name, m.first_stage) for m in bundle.members] == [
        ("fold_1", False),
        ("first_stage_fold_0", True),
        ("first_stage_fold_1", True),
    ]
    bundle.save(tmp_path / "cascade.model")
    assert Bundle.load(tmp_path / "cascade.model").id == bundle.id
    scan = np.random.default_rng(0).normal(size=(2, 8, 16, 12)).astype(np.float32)
    x = torch.from_numpy(scan.transpose(0, 3, 2, 1).copy())[None]
    states = [
        torch.load(f / "checkpoint_final.pth", weights_only=False)["network_weights"]
        for f in (first / "fold_0", first / "fold_1", second / "fold_1")
    ]
    # Folds' logits are averaged.
    before = sum(reference(state, x, resnet=False) for state in states[:2]).argmax(1)
    assert all((before == v).sum() > 20 for v in range(3))
    seen = torch.cat([x, torch.stack([before == 1, before == 2], 1).float()], 1)
    expected = reference(states[2], seen, resnet=False).argmax(1)[0].numpy()
    engine = Engine.from_bundle(bundle, torch.device("cpu"), torch.float32)
    found = predict(
        Volume(scan, Grid.from_spacing((8, 16, 12), (1, 1, 1))),
        engine,
        inference=engine.plan.inference.model_copy(update={"mirror": ()}),
    )
    assert np.array_equal(found.labels.array, expected.transpose(2, 1, 0))
    shutil.move(first, tmp_path / "elsewhere")
    with pytest.raises(InputError, match="first stage of the cascade"):
        read_bundle(second)


def test_older_plans_and_inherited_configurations(tmp_path):
    new = results(tmp_path / "new", words_features_per_stage=[4, 8, 8])
    old = shutil.copytree(new, tmp_path / "old" / new.name)
    plans = json.loads((old / "plans.json").read_text())
    config = plans["configurations"]["3d_fullres"]
    words = config.pop("architecture")["arch_kwargs"]
    config |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "conv_kernel_sizes": words["kernel_sizes"],
        "pool_op_kernel_sizes": words["strides"],
        "n_conv_per_stage_encoder": [2, 1, 2],
        "n_conv_per_stage_decoder": [2, 1],
    }
    plans["configurations"] = {
        "base": config,
        "3d_fullres": {"inherits_from": "base", "batch_size": 5},
    }
    (old / "plans.json").write_text(json.dumps(plans))
    first, second = read_bundle(new), read_bundle(old)
    assert first.plan.network == second.plan.network and second.plan.batch == 5
    assert all(
        np.array_equal(a, second.members[0].weights[n]) for n, a in first.members[0].weights.items()
    )


def test_folds_and_checkpoints_are_chosen(tmp_path):
    folder = results(tmp_path)
    assert [m.fold for m in read_bundle(folder).members] == [0, 1] and [
        m.fold for m in read_bundle(folder, folds=[1]).members
    ] == [1]
    with pytest.raises(
        UsageError, match=r"no checkpoint_final\.pth for fold 4; folds that have it: 0, 1"
    ):
        read_bundle(folder, folds=[1, 4])
    with pytest.raises(
        InputError, match=r"no fold has a checkpoint_best\.pth; there is checkpoint_final\.pth"
    ):
        read_bundle(folder, checkpoint="checkpoint_best.pth")
    shutil.move(folder / "fold_0", folder / "fold_all")
    shutil.rmtree(folder / "fold_1")
    assert [m.name for m in read_bundle(folder).members] == ["all"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        (
            {
                "dataset_labels": {"background": 0, "whole": [1, 2], "core": [2]},
                "dataset_regions_class_order": [1],
            },
            "regions_class_order names 1",
        ),
        ({"preprocessor_name": "MyPreprocessor"}, "MyPreprocessor"),
        ({"normalization_schemes": ["MyNorm", "NoNormalization"]}, "MyNorm"),
        ({"resampling_fn_data": "my_resampling"}, "my_resampling"),
        ({"plans_image_reader_writer": "MyReader"}, "MyReader"),
        ({"words_norm_op": "torch.nn.modules.normalization.GroupNorm"}, "GroupNorm"),
        ({"words_dropout_op": "torch.nn.Dropout3d"}, "dropout_op"),
        ({"words_features_per_stage": [4, 8, 16]}, "do not fit"),
        ({"words_n_conv_per_stage": [2, 2, 2]}, "has no encoder.stages.1.0.convs.1"),
        ({"plans_foreground_intensity_properties_per_channel": {}}, "percentile_00_5"),
        ({"network": "MyNet"}, "MyNet"),
        ({"inherits_from": "nowhere"}, "inherits from nowhere"),
        ({"inherits_from": "3d_fullres"}, "or inherits from itself"),
        ({"plans_configurations": [1]}, "no configurations"),
        ({"spacing": [1.0, -2.0, 1.0]}, "not from nnU-Net v2"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(tmp_path, changes, word):
    with pytest.raises(BundleError, match=word):
        read_bundle(results(tmp_path, **changes))


class Harmful:
    def __reduce__(self) -> Any:
        return (print, ("this must never be printed",))


def test_a_checkpoint_that_would_run_something_is_refused_unrun(tmp_path, capsys):
    folder = results(tmp_path)
    torch.save({"network_weights": {}, "x": Harmful()}, folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(BundleError, match="print"):
        read_bundle(folder)
    assert "never" not in capsys.readouterr().out
    for content in (b"", b"PK nonsense", b"\x80\x02}."):
        (folder / "fold_0" / "checkpoint_final.pth").write_bytes(content)
        with pytest.raises(BundleError):
            read_bundle(folder)
    torch.save([1, 2], folder / "x.pth")
    with pytest.raises(BundleError, match="dictionary"):
        load_data_only(folder / "x.pth")


def test_plans_of_cascades_and_of_regions_where_there_are_none_are_not_trained(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for case in range(3):
            array = np.zeros((16, 16, 16), np.uint8)
            array[4:9, 5:9, 6:12], array[9:12] = 1, 2
            nib.save(
                nib.Nifti1Image(array, np.eye(4)), tmp_path / "data" / kind / f"case{case}.nii.gz"
            )
    names = {1: "1", 2: "2"}
    regions = small_plan(names=names, network=small_network(classes=2, overlapping=True))
    cascade = small_plan(
        names=names,
        network=small_network(channels=3),
        cascade=True,
        low_resolution=small_plan(names=names),
    )
    for plan, said in (
        (regions, "exclude each other, those of the plan may"),
        (cascade, "cascade"),
    ):
        assert Plan.from_json(plan.to_json()) == plan
        (tmp_path / "plan.json").write_text(plan.to_json())
        done = CliRunner().invoke(
            app,
            [
                "train",
                str(tmp_path / "data"),
                "-o",
                str(tmp_path / "m.model"),
                "--plan",
                str(tmp_path / "plan.json"),
            ],
        )
        assert (
            isinstance(done.exception, PlanError)
            and said in str(done.exception)
            and not (tmp_path / "m.model").exists()
        )
    with pytest.raises(ValueError, match="3 structures need 3"):
        small_plan(names={**names, 3: "c"}, network=small_network(classes=4, overlapping=True))
    with pytest.raises(ValueError, match="low_resolution plan"):
        small_plan(network=small_network(channels=3), cascade=True)
    with pytest.raises(ValueError, match="two classes"):
        small_network(classes=1)


def test_the_command(tmp_path):
    folder, out = results(tmp_path / "Dataset999_Small"), tmp_path / "small.model"
    done = CliRunner().invoke(
        app, ["import", "nnunet", str(folder), "-o", str(out), "--folds", "0"]
    )
    assert done.exit_code == 0 and "1 network(s)" in done.output and "liver, tumour" in done.output
    bundle = Bundle.load(out)
    assert (
        bundle.card["checkpoints"].keys() == {"fold_0/checkpoint_final.pth"}
        and bundle.card["imported"] == "nnU-Net v2"
    )
    # The first prediction finds its networks compiled, and uses nnU-Net's own windows.
    assert bundle.plan.inference.overlap == 0.5
    graphs = [path.name.split("-")[:2] for path in graphs_beside(out).glob("*.graph")]
    assert graphs == ([[bundle.id, "fold_0"]] if compiled.available() else [])
    wrong = {
        "imported from nnunet": ["nnunett", str(folder)],
        "folds are numbers": ["nnunet", str(folder), "--folds", "a"],
        "not a folder": ["nnunet", str(tmp_path / "no")],
    }
    for said, words in wrong.items():
        done = CliRunner().invoke(app, ["import", *words, "-o", str(tmp_path / "x.model")])
        assert (
            done.exit_code != 0
            and not isinstance(done.exception, SystemExit)
            and said in str(done.exception)
        )
        assert not (tmp_path / "x.model").exists()


def test_the_one_network_below_a_folder_is_found(tmp_path):
    root = tmp_path / "nnUNet_results"
    folder = results(root / "Dataset999_Small")
    (root / "Dataset999_Small" / "predictions").mkdir()
    (tmp_path / "elsewhere").symlink_to(root)
    for above in (folder, folder.parent, root, tmp_path):
        assert read_bundle(above, folds=[0]).card["folder"] == folder.name
    other = results(root / "Dataset998_Other")
    with pytest.raises(UsageError) as refused:
        read_bundle(root)
    assert "contains 2 trained networks" in str(refused.value)
    for one in (folder, other):
        assert str(one.relative_to(root)) in str(refused.value)
    with pytest.raises(InputError, match="contains no trained nnU-Net"):
        read_bundle(folder / "fold_0")


@pytest.fixture(scope="module")
def hippocampus(real_data) -> tuple[Path, Engine]:
    folder = real_data / "nnunet_hippocampus"
    if not folder.is_dir():
        pytest.skip("the trained nnU-Net is not here")
    bundle = read_bundle(folder)  # the network is found below
    assert bundle.card["folder"] == TRAINED
    return folder, Engine.from_bundle(bundle, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize(
    ("mirror", "cases"),
    [
        (False, 3),
        (True, 1),
        *(pytest.param(*one, marks=pytest.mark.rounds) for one in ((False, 10), (True, 2))),
    ],
)
def test_a_real_fold_gives_nnunets_own_masks(hippocampus, real_data, mirror, cases):
    folder, engine = hippocampus
    scores = []
    for path in sorted(
        (folder / ("predictions_tta" if mirror else "predictions_plain")).glob("*.nii.gz")
    )[:cases]:
        scan = read(next((real_data / "hippocampus").rglob(f"images*/{path.name}")))
        inference = engine.plan.inference.model_copy(update={} if mirror else {"mirror": ()})
        assert isinstance(scan, Volume)
        found, theirs = (
            predict(scan, engine, inference=inference).labels.array,
            np.asarray(nib.load(path).dataobj),
        )
        scores += [
            2 * ((found == v) & (theirs == v)).sum() / ((found == v).sum() + (theirs == v).sum())
            for v in (1, 2)
        ]
    assert np.mean(scores) >= 0.998
