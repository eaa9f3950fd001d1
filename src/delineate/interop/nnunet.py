"""Import a trained nnU-Net v2 as a bundle (Isensee 2021, Isensee 2024): its plans become a plan,
and its weights are renamed.

A results folder ``TRAINER__PLANS__CONFIGURATION`` contains ``plans.json``, ``dataset.json`` and
``fold_N/checkpoint_*.pth``. nnU-Net itself is neither needed nor run. A checkpoint is a pickle;
torch's weights-only loader reads only data from it: tensors, numbers and text. Anything else is
refused by name. Every fold becomes a member.

nnU-Net does not reorient scans. Its network reads a file's own axes in reverse (k, j, i), in the
order that ``transpose_forward`` sets; a plan expresses this as ``orientation``. nnU-Net's z-score,
nonzero crop and cubic resampling have counterparts in a plan. Its regions become overlapping
classes, with a sigmoid for each. A cascade becomes one bundle of both stages. Networks,
normalisations and readers that a plan cannot express (custom ones) are refused.

Shapes: weights keep nnU-Net's shapes; kernels and strides become triples, with 1 along the axis
that a 2-D network lacks.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..cohorts.discovery.names import regions_of
from ..cohorts.licence import licence_of_data, stated_licences
from ..core.bundle import Bundle, Member, Weights
from ..core.errors import BundleError, InputError, UsageError
from ..core.grid import Grid
from ..core.inputs import read_json
from ..core.labels import LabelSet
from ..core.plan import (
    Augmentation,
    Channel,
    Inference,
    Network,
    Normalisation,
    Optimiser,
    Plan,
    Schedule,
    Structure,
)
from ..core.progress import Say, unsaid
from ..networks.build import build, load_weights

# The axes of the arrays that each of nnU-Net's readers returns, as orientation letters.
AXES = {
    "SimpleITKIO": "kji",
    "NibabelIO": "kji",
    "NaturalImage2DIO": "kji",
    "Tiff3DIO": "kji",
    "NibabelIOWithReorient": "SAR",
}
# nnU-Net's names -> ours.
NETWORKS = {"PlainConvUNet": "plain", "ResidualEncoderUNet": "resnet"}
NORMS = {
    "InstanceNorm2d": "instance",
    "InstanceNorm3d": "instance",
    "BatchNorm2d": "batch",
    "BatchNorm3d": "batch",
}
ACTIVATIONS = {"LeakyReLU": "leaky_relu", "ReLU": "relu", "PReLU": "prelu"}
RESAMPLERS = {
    "resample_data_or_seg_to_shape": "spline",
    "resample_torch_fornnunet": "cubic",
    "resample_torch_simple": "cubic",
}


@dataclass(frozen=True)
class _ModelFolder:
    """The content of a model folder."""

    folder: Path
    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]
    name: str  # of the configuration
    configuration: Mapping[str, Any]
    axes: str | None = None  # stated directions of the axes of its training scans

    def refuse(self, reason: str) -> BundleError:
        """An error about this folder."""
        return BundleError(reason, path=self.folder)


def read_bundle(
    folder: str | Path,
    *,
    checkpoint: str = "checkpoint_final.pth",
    folds: Sequence[int] = (),
    axes: str | None = None,
    licence: str | None = None,
    say: Say = unsaid,
) -> Bundle:
    """Read a trained nnU-Net as a bundle.

    Args:
        folder: ``.../DATASET/TRAINER__PLANS__CONFIGURATION``, or a folder above it with this one
            trained network below.
        checkpoint: name of the file to read in each fold.
        folds: only these folds; if empty, all that have the file.
        axes: directions of the axes of every scan that the network was trained on, such as "RAS",
            if they were all the same; each scan is then reoriented. None: its own axes, as nnU-Net.
        licence: of the weights; None: that of ``dataset.json``.
        say: called with a line of text for each difference from nnU-Net.

    Returns:
        A bundle whose plan mirrors at prediction along the axes that the training allowed, as
        ``nnUNetv2_predict`` does.

    Raises:
        InputError: the folder, or a file that it must have, is missing or cannot be read.
        UsageError: the folder contains several trained networks, or lacks a requested fold; or
            ``axes`` contradict its reader of images.
        GeometryError: ``axes`` are no orientation.
        BundleError: something in it has no counterpart here, or its weights do not fit its plans.
    """
    source = _read(Path(folder), axes)
    first = _first_stage(source, checkpoint)
    files = _checkpoints(source.folder, checkpoint, folds)
    plan, members = _plan_and_members(source, files, first, say)
    if first is not None:
        members += [
            replace(member, name=f"first_stage_{member.name}", first_stage=True)
            for member in first.members
        ]
    return Bundle(plan, tuple(members), _card(source, files, first, licence or ""))


def _plan_and_members(
    source: _ModelFolder, files: Mapping[int | None, Path], first: Bundle | None, say: Say
) -> tuple[Plan, list[Member]]:
    """The plan, and one member for each fold. All folds must agree on the mirrored axes."""
    plan, allowed, members = None, None, []
    for fold, path in files.items():
        content = load_data_only(path)
        state, mirror = (
            content.get("network_weights"),
            tuple(content.get("inference_allowed_mirroring_axes") or ()),
        )
        if not isinstance(state, Mapping):
            raise BundleError(
                "is not a checkpoint of nnU-Net v2: it has no network_weights", path=path
            )
        # The plan needs the mirrored axes, which only a checkpoint records.
        if plan is None:
            try:
                plan, allowed = _plan(source, first, mirror, say), mirror
            except (KeyError, TypeError, IndexError, ValueError) as error:
                # Pydantic's messages have several lines and end in a URL.
                words = " ".join(str(error).split("\n  For further")[0].split())
                raise source.refuse(
                    "its plans.json or dataset.json is not from nnU-Net v2 "
                    f"({type(error).__name__}: {words})"
                ) from error
        if mirror != allowed:
            raise BundleError(
                f"allows mirroring along {mirror}, another fold along {allowed}", path=path
            )
        name = "all" if fold is None else f"fold_{fold}"
        members.append(Member(name, renamed(state, plan.network, path), fold))
    assert plan is not None
    return plan, members


def _card(
    source: _ModelFolder, files: Mapping[int | None, Path], first: Bundle | None, licence: str
) -> dict[str, Any]:
    """The bundle's card: where the model comes from, with the SHA-256 of each checkpoint."""
    card: dict[str, Any] = {
        "imported": "nnU-Net v2",
        "dataset": source.plans.get("dataset_name", ""),
        "folder": source.folder.name,
        "configuration": source.name,
        "licence": stated_licences(licence, licence_of_data(source.folder)),
        "checkpoints": {
            f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files.values()
        },
    }
    if first is not None:
        card["first_stage"] = first.card
    return card


# ---- reading the folder ----


def _read(folder: Path, axes: str | None) -> _ModelFolder:
    """Read the folder's JSON files, and resolve its configuration."""
    folder = _network_below(folder)
    # The folder's name ends with the name of the configuration.
    plans, dataset = _json(folder / "plans.json"), _json(folder / "dataset.json")
    name = folder.resolve().name.rsplit("__", 1)[-1]
    known = plans.get("configurations")
    if not isinstance(known, dict) or not all(isinstance(entry, dict) for entry in known.values()):
        raise BundleError(
            "its plans.json is not from nnU-Net v2: it has no configurations", path=folder
        )
    if name not in known:
        raise BundleError(
            "the folder's name must end with __ and a configuration of its plans "
            f"({', '.join(known)}), found {folder.name!r}",
            path=folder,
        )
    # A configuration may inherit from another; its own values take precedence.
    config, parents = dict(known[name]), [name]
    while (parent := config.pop("inherits_from", None)) is not None:
        if parent not in known or parent in parents:
            raise BundleError(
                f"its configuration {parents[-1]} inherits from {parent}, which is missing or "
                "inherits from itself",
                path=folder,
            )
        parents.append(parent)
        config = {**known[parent], **config}
    return _ModelFolder(folder, plans, dataset, name, config, axes)


def _network_below(folder: Path) -> Path:
    """The folder of the one trained network in ``folder`` or below it: ``nnUNet_results``, a data
    set's folder, or the network's own.

    Raises:
        InputError: there is none. UsageError: there are several; all are named.
    """
    if not folder.is_dir():
        raise InputError("is not a folder", path=folder)
    found = [folder] if (folder / "plans.json").is_file() else sorted(_networks_below(folder))
    if not found:
        raise InputError(
            "contains no trained nnU-Net: a folder TRAINER__PLANS__CONFIGURATION with plans.json, "
            "dataset.json and fold_0",
            path=folder,
        )
    if len(found) > 1:
        names = ", ".join(str(one.relative_to(folder)) for one in found)
        raise UsageError(
            f"{folder} contains {len(found)} trained networks; give the folder of one of them: "
            f"{names}"
        )
    return found[0]


def _networks_below(folder: Path) -> Iterator[Path]:
    """Folders below ``folder`` with plans.json and a fold; links to folders are not followed."""
    for place, folders, names in os.walk(folder):
        if "plans.json" in names and any(name.startswith("fold_") for name in folders):
            yield Path(place)
            folders.clear()


def _json(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError("is not a JSON object", path=path)
    return found


def _checkpoints(folder: Path, name: str, folds: Sequence[int]) -> dict[int | None, Path]:
    """Fold -> file. None is nnU-Net's fold "all", which is used only if there is no other."""
    found = {
        int(m.group(1)): path / name
        for path in folder.glob("fold_*")
        if (m := re.fullmatch(r"fold_(\d+)", path.name)) and (path / name).is_file()
    }
    missing = sorted(set(folds) - set(found))
    if missing:
        raise UsageError(
            f"{folder} has no {name} for fold {', '.join(map(str, missing))}; folds that have it: "
            f"{', '.join(map(str, sorted(found))) or 'none'}"
        )
    if found:
        return {fold: found[fold] for fold in sorted(folds or found)}
    if (folder / "fold_all" / name).is_file():
        return {None: folder / "fold_all" / name}
    # Nothing found: name the checkpoints that exist.
    others = sorted({path.name for path in folder.glob("fold_*/*.pth")})
    raise InputError(
        f"no fold has a {name}" + (f"; there is {', '.join(others)}" if others else ""), path=folder
    )


def load_data_only(path: Path) -> dict[str, Any]:
    """The content of a torch checkpoint, loaded without running code from it: tensors, numbers,
    text and numpy scalars.

    Raises:
        InputError: it cannot be read.
        BundleError: it is damaged, or contains anything else.
    """
    import numpy._core.multiarray as multiarray

    # The constructor in a pickled numpy scalar, by its current and its older module name.
    scalar = multiarray.scalar
    allowed: list[Any] = [
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "b1")),
    ]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint
        raise BundleError(f"cannot be read safely: {_reason(path, error)}", path=path) from error
    if not isinstance(content, dict):
        raise BundleError("is not a checkpoint: it contains no dictionary", path=path)
    return content


def _reason(path: Path, error: Exception) -> str:
    """Why a checkpoint was refused: the names of what it would run, or that it is damaged."""
    try:
        unsafe = [
            name
            for name in torch.serialization.get_unsafe_globals_in_checkpoint(path)
            if not name.startswith("numpy")
        ]
    except Exception:
        unsafe = []
    if unsafe:
        return f"it would run {', '.join(sorted(unsafe)[:3])}, but a model must contain only data"
    return f"damaged, or not a checkpoint ({type(error).__name__})"


# ---- from nnU-Net's plans to a plan ----


def _plan(source: _ModelFolder, first: Bundle | None, mirror: tuple[int, ...], say: Say) -> Plan:
    """The plan with the same preprocessing, network and prediction as the model folder's."""
    config, plans = source.configuration, source.plans
    if config.get("preprocessor_name", "DefaultPreprocessor") != "DefaultPreprocessor":
        raise source.refuse(
            f"preprocesses scans with {config['preprocessor_name']}; only nnU-Net's "
            "DefaultPreprocessor can be imported"
        )
    # The second stage of a cascade has a further input channel for each structure.
    channels, (structures, overlapping) = _channels(source), _structures(source)
    network = _network(
        source,
        len(channels) + (0 if first is None else len(structures)),
        len(structures),
        overlapping,
    )
    # Axes, patch and spacing are in nnU-Net's order, as in the network.
    array_axes = _array_axes(source)
    axes = "".join(array_axes[n] for n in plans["transpose_forward"])
    patch, spacing = list(config["patch_size"]), list(config["spacing"])
    if network.dims == 2:  # nnU-Net slices the first axis, a plan the last
        axes, patch, spacing = axes[1:] + axes[0], [*patch, 1], [*spacing[-2:], None]
    resampler = config.get("resampling_fn_data", "resample_data_or_seg_to_shape")
    if resampler not in RESAMPLERS:
        raise source.refuse(f"resamples with {resampler}; supported are {', '.join(RESAMPLERS)}")
    if RESAMPLERS[resampler] != "spline":
        say(
            f"the model resamples with {resampler}; here cubic convolution is used, with a wider "
            "kernel for downsampling"
        )
    return Plan(
        recipe="nnU-Net v2",
        channels=channels,
        structures=structures,
        orientation=axes,
        spacing_mm=spacing,  # type: ignore[arg-type]
        crop="not_zero",
        resampling=RESAMPLERS[resampler],  # type: ignore[arg-type]
        patch=patch,  # type: ignore[arg-type]
        batch=config["batch_size"],
        foreground=0.33,
        network=network,
        optimiser=Optimiser(kind="sgd", learning_rate=1e-2, weight_decay=3e-5),
        schedule=Schedule(kind="poly", epochs=1000, steps_per_epoch=250, warmup=0, ema=0),
        augmentation=Augmentation(mirror=mirror),
        inference=Inference(average="logits", mirror=mirror),
        low_resolution=None if first is None else first.plan,
        cascade=first is not None,
        reasons={
            "recipe": f"imported from nnU-Net, {plans.get('dataset_name', '')} {source.folder.name}"
        },
    )


def _array_axes(source: _ModelFolder) -> str:
    """The axes of the arrays that the network was trained on, as orientation letters."""
    reader = source.plans.get("image_reader_writer", "SimpleITKIO")
    if reader not in AXES:
        raise source.refuse(f"reads images with {reader}; supported are {', '.join(AXES)}")
    if source.axes is None:
        return AXES[reader]
    Grid.from_spacing((1, 1, 1), (1, 1, 1)).reorient(source.axes)  # refuses other letters
    stated = source.axes.upper()[::-1]
    if AXES[reader].isupper() and AXES[reader] != stated:
        raise UsageError(
            f"the axes {source.axes} contradict the plans, whose reader {reader} reorients every "
            f"scan to {AXES[reader][::-1]}"
        )
    return stated


def _first_stage(source: _ModelFolder, checkpoint: str) -> Bundle | None:
    """The first stage of a cascade with all its folds, from the folder next to that of the second;
    None if the model is no cascade.
    """
    if not source.configuration.get("previous_stage"):
        return None
    folder = source.folder.resolve()
    # Its folder has the same name but for the configuration.
    folder = folder.with_name(
        folder.name.removesuffix(source.name) + str(source.configuration["previous_stage"])
    )
    if not folder.is_dir():
        raise InputError(
            f"the first stage of the cascade {source.folder.name} is missing", path=folder
        )
    return read_bundle(folder, checkpoint=checkpoint, axes=source.axes)


def _structures(source: _ModelFolder) -> tuple[tuple[Structure, ...], bool]:
    """The structures, and whether they are overlapping regions.

    No structure has a side, because nnU-Net's mirroring does not exchange left and right.
    """
    labels = {
        str(name): value
        for name, value in source.dataset["labels"].items()
        if name != "ignore" and value not in (0, [0])
    }
    overlapping = any(not isinstance(value, int) for value in labels.values())
    if overlapping:
        # The label value of each region; where regions overlap, the last one overwrites the others.
        order = source.dataset["regions_class_order"]
        if len(order) != len(labels):
            raise source.refuse(
                f"has {len(labels)} regions, but regions_class_order names {len(order)}"
            )
        found = regions_of(labels, order).to_json()
    else:
        found = LabelSet.from_names({v: n for n, v in labels.items()}).to_json()
    # The order of the network's classes is that of the data set.
    known = {entry["name"]: Structure(**(entry | {"side": None})) for entry in found}
    return tuple(known[name] for name in labels), overlapping


def _channels(source: _ModelFolder) -> tuple[Channel, ...]:
    """The channels with their normalisation; repeated names get a number."""
    names = source.dataset.get("channel_names", source.dataset.get("modality", {}))
    schemes, masked = (
        source.configuration["normalization_schemes"],
        source.configuration["use_mask_for_norm"],
    )
    # The name of this entry in newer and in older plans.
    intensities = source.plans.get(
        "foreground_intensity_properties_per_channel",
        source.plans.get("foreground_intensity_properties_by_modality", {}),
    )
    if len(names) != len(schemes):
        raise source.refuse(f"names {len(names)} channels but normalises {len(schemes)}")
    rules = [
        _normalisation(source, scheme, bool(masked[n]), intensities.get(str(n), {}))
        for n, scheme in enumerate(schemes)
    ]
    # Channels of a plan need distinct names.
    unique = [
        name if list(names.values()).count(name) == 1 else f"{name} {n}"
        for n, name in enumerate(map(str, names.values()))
    ]
    return tuple(
        Channel(name=name, normalise=rule) for name, rule in zip(unique, rules, strict=True)
    )


def _normalisation(
    source: _ModelFolder, scheme: str, masked: bool, intensities: Mapping[str, float]
) -> Normalisation:
    """The normalisation that equals nnU-Net's ``scheme``; ``intensities`` are the training set's
    statistics.
    """
    if scheme == "CTNormalization":
        return Normalisation(
            kind="window",
            low=intensities["percentile_00_5"],
            high=intensities["percentile_99_5"],
            mean=intensities["mean"],
            std=max(intensities["std"], 1e-8),
        )
    if scheme == "ZScoreNormalization":
        return Normalisation(kind="standard", inside="nonzero" if masked else "all")
    if scheme == "RescaleTo01Normalization":
        return Normalisation(kind="range")
    if scheme == "RGBTo01Normalization":
        return Normalisation(kind="window", low=0, high=255, mean=0, std=255)
    if scheme == "NoNormalization":
        return Normalisation(kind="none")
    raise source.refuse(f"normalises with {scheme}, which is not part of nnU-Net")


def _network(source: _ModelFolder, channels: int, structures: int, overlapping: bool) -> Network:
    """The network of the plans; anything that a plan cannot express is refused."""
    architecture = _architecture(source)
    kwargs = architecture["arch_kwargs"]
    name = str(architecture["network_class_name"]).rsplit(".", 1)[-1]
    dims = int(str(kwargs["conv_op"])[-2])
    norm, activation = (str(kwargs[key]).rsplit(".", 1)[-1] for key in ("norm_op", "nonlin"))
    # The parts that must be among those known here.
    for what, found, known in (
        ("network", name, NETWORKS),
        ("normalisation", norm, NORMS),
        ("activation", activation, ACTIVATIONS),
    ):
        if found not in known:
            raise source.refuse(
                f"has the {what} {found}, which cannot be imported; supported are "
                f"{', '.join(known)}"
            )
    # Options that change the network and have no counterpart; None or False means unused.
    unsupported = {
        key: kwargs[key]
        for key in (
            "dropout_op",
            "nonlin_first",
            "squeeze_excitation",
            "bottleneck_channels",
            "stochastic_depth_p",
        )
        if kwargs.get(key)
    }
    if unsupported:
        raise source.refuse(
            f"has {', '.join(f'{key} {value}' for key, value in unsupported.items())}, which "
            "cannot be imported"
        )
    stages = int(kwargs["n_stages"])
    kernels, strides = (_triples(kwargs[key], stages, dims) for key in ("kernel_sizes", "strides"))
    if strides[0] != (1, 1, 1):
        raise source.refuse(
            f"has the stride {strides[0]} in its first stage, which cannot be imported"
        )
    encoder = "n_blocks_per_stage" if NETWORKS[name] == "resnet" else "n_conv_per_stage"
    # nnU-Net lists the decoder from the bottleneck upwards, a plan from full resolution downwards.
    decoder = _listed(kwargs["n_conv_per_stage_decoder"], stages - 1)
    return Network(
        dims=dims,  # type: ignore[arg-type]
        channels=channels,
        classes=structures + (0 if overlapping else 1),
        overlapping=overlapping,
        widths=tuple(kwargs["features_per_stage"]),
        strides=strides[1:],
        kernels=kernels,
        convs=tuple(_listed(kwargs[encoder], stages)),
        decoder_convs=tuple(reversed(decoder)),
        encoder=NETWORKS[name],  # type: ignore[arg-type]
        norm=NORMS[norm],  # type: ignore[arg-type]
        activation=ACTIVATIONS[activation],  # type: ignore[arg-type]
        deep_supervision=False,
    )


def _architecture(source: _ModelFolder) -> dict[str, Any]:
    """The network's description as in plans since nnU-Net 2.3; for older plans, derived in the same
    way as nnU-Net does.
    """
    config = source.configuration
    if "architecture" in config:
        return dict(config["architecture"])
    stages, dims = len(config["n_conv_per_stage_encoder"]), len(config["patch_size"])
    widths = [
        min(config["UNet_base_num_features"] * 2**n, config["unet_max_num_features"])
        for n in range(stages)
    ]
    kwargs = {
        "n_stages": stages,
        "features_per_stage": widths,
        "conv_op": f"Conv{dims}d",
        "kernel_sizes": config["conv_kernel_sizes"],
        "strides": config["pool_op_kernel_sizes"],
        "n_conv_per_stage": config["n_conv_per_stage_encoder"],
        "n_blocks_per_stage": config["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": config["n_conv_per_stage_decoder"],
        "norm_op": f"InstanceNorm{dims}d",
        "nonlin": "LeakyReLU",
    }
    return {"network_class_name": config["UNet_class_name"], "arch_kwargs": kwargs}


def _listed(value: int | Sequence[int], count: int) -> list[int]:
    """A value for each of ``count`` stages, from one number or a list."""
    return [value] * count if isinstance(value, int) else [int(v) for v in value]


def _triples(values: Any, count: int, dims: int) -> tuple[tuple[int, int, int], ...]:
    """(a, b, c) for each stage, from one number, one per stage, or one per stage and axis. The
    third entry is 1 in 2-D.
    """
    rows = []
    for row in [values] * count if isinstance(values, int) else values:
        a, b, c = ([row] * dims if isinstance(row, int) else [int(v) for v in row]) + [1] * (
            3 - dims
        )
        rows.append((a, b, c))
    return tuple(rows)


# ---- renaming weights ----


def renamed(state: Mapping[str, torch.Tensor], net: Network, path: str | Path = "") -> Weights:
    """nnU-Net's weights with the names of ``networks.unet``.

    A convolution's bias before a norm has no effect, because the norm subtracts the mean. The bias
    is dropped; for a batch norm it is subtracted from the running mean. Heads for deep supervision
    are dropped. Weights that nnU-Net lists twice (``all_modules``, ``decoder.encoder``) are used
    once.

    Raises:
        BundleError: a weight is missing, or its shape differs from the plans'.
    """
    # Remove the prefixes of data-parallel and compiled modules.
    state = {
        re.sub(r"^(module\.|_orig_mod\.)+", "", name): tensor for name, tensor in state.items()
    }
    used: dict[str, torch.Tensor] = {}
    deepest = len(net.widths) - 2

    def needed(name: str) -> torch.Tensor:
        if name not in state:
            raise BundleError(f"has no {name}, which the plans' network has", path=path or None)
        return state[name]

    # Convolutions with their norms and, if it is learnt, the activation.
    for theirs, ours in _blocks(net):
        used[f"{ours}.0.weight"] = needed(f"{theirs}.conv.weight")
        bias = state.get(f"{theirs}.conv.bias")
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            if f"{theirs}.norm.{name}" in state:
                value = state[f"{theirs}.norm.{name}"]
                used[f"{ours}.1.{name}"] = (
                    value - bias if name == "running_mean" and bias is not None else value
                )
        if f"{theirs}.nonlin.weight" in state:
            used[f"{ours}.2.weight"] = state[f"{theirs}.nonlin.weight"]
    # Upsampling and the head at full resolution; nnU-Net counts decoder levels from the bottleneck.
    for level in range(deepest + 1):
        up = f"decoder.transpconvs.{deepest - level}"
        used[f"up.{level}.weight"] = needed(f"{up}.weight")
        used[f"up.{level}.bias"] = state.get(f"{up}.bias", torch.zeros(net.widths[level]))
    for name in ("weight", "bias"):
        used[f"heads.0.{name}"] = needed(f"decoder.seg_layers.{deepest}.{name}")
    # Weights in half precision become float32; counters stay integers.
    weights = {
        name: tensor.detach().float().numpy() if tensor.is_floating_point() else tensor.numpy()
        for name, tensor in used.items()
    }
    # Check names and shapes now, with the path at hand.
    try:
        load_weights(build(net), weights)
    except BundleError as error:
        raise BundleError(str(error), path=path or None) from error
    return weights


def _blocks(net: Network) -> list[tuple[str, str]]:
    """(nnU-Net's name, ours) of every convolution with its norm."""
    pairs = []
    # Encoder.
    for stage in range(len(net.widths)):
        if net.encoder != "resnet":
            pairs += [
                (f"encoder.stages.{stage}.0.convs.{n}", f"encoder.{stage}.{n}")
                for n in range(net.convs_at(stage))
            ]
            continue
        # Residual blocks; our first stage counts the stem as its layer 0.
        if stage == 0:
            pairs.append(("encoder.stem.convs.0", "encoder.0.0"))
        for n in range(net.convs_at(stage)):
            theirs, ours = (
                f"encoder.stages.{stage}.blocks.{n}",
                f"encoder.{stage}.{n + (stage == 0)}",
            )
            pairs += [
                (f"{theirs}.conv1", f"{ours}.convs.0"),
                (f"{theirs}.conv2", f"{ours}.convs.1"),
            ]
            if n == 0 and stage and net.widths[stage] != net.widths[stage - 1]:
                pooled = max(net.strides[stage - 1]) > 1  # then the average pool is skip.0
                pairs.append((f"{theirs}.skip.{int(pooled)}", f"{ours}.project"))
    # Decoder; nnU-Net counts its levels from the bottleneck.
    deepest = len(net.widths) - 2
    for level in range(deepest + 1):
        pairs += [
            (f"decoder.stages.{deepest - level}.convs.{n}", f"decoder.{level}.{n}")
            for n in range(net.decoder_convs_at(level))
        ]
    return pairs
