"""Benchmark: how fast this machine is, in a few quick measurements, each compared with another
library's way if that library is installed.

Every figure is the median of several runs after a warm-up, on synthetic volumes. The long
comparisons, with peers in their own environments, are scripts in the project's ``benchmarks/``.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..core import atomic
from ..core.grid import Grid
from ..core.labels import LabelSet
from ..core.machine import cores
from ..core.outputs import refuse_foreign
from ..core.plan import Channel, Network, Normalisation, Plan, Schedule, Structure
from ..core.progress import Progress, silent
from ..core.volume import Volume
from ..formats import files
from ..inference import engine as infer
from ..inference import openvino as compiled
from ..inference.devices import choose_device
from ..networks.build import build, filled, weights_of
from ..planning.capacity import measure_step
from ..preprocessing.prepare import prepare, restore
from ..preprocessing.warp import warp
from .options import BenchmarkOptions

# Of the CT: a quarter of the usual size, to keep the benchmark short.
SHAPE, SPACING = (256, 256, 150), (1.6, 1.6, 2.0)
WINDOW = (64, 64, 64)
RUNS = 3


@dataclass(frozen=True)
class Measurement:
    """One measurement: our seconds, and those of ``other`` if there is one."""

    what: str
    seconds: float
    other: str = ""
    other_s: float | None = None

    @property
    def ratio(self) -> float | None:
        """Their seconds divided by ours; None without another."""
        return None if self.other_s is None else self.other_s / self.seconds


def benchmark(
    out: str | Path | None = None,
    options: BenchmarkOptions = BenchmarkOptions(),
    *,
    progress: Progress = silent,
) -> list[Measurement]:
    """Measure this machine, in about a minute.

    Args:
        out: JSON file for the figures and the machine; None writes nothing.
        options: the device is that of the networks.
        progress: see ``core.progress``.

    Raises:
        UsageError: the device is not available. OutputError: ``out`` cannot be written.
    """
    choose_device(options.device)  # refused before anything is measured
    if out is not None:
        refuse_foreign(Path(out).parent, [out], options.overwrite)
    rows: list[Measurement] = []
    measurements = (_window, _step, _preparing, _restoring, _patches, _files)
    for n, measure in enumerate(measurements):
        progress("benchmark", n, len(measurements), measure.__name__.strip("_"))
        rows += measure(options.device)
    progress("benchmark", len(measurements), len(measurements), "done")
    if out is not None:
        with atomic.recording(Path(out).parent, [out], options.overwrite):
            atomic.write_text(out, json.dumps(record(rows), indent=1))
    return rows


def record(rows: Sequence[Measurement]) -> dict[str, Any]:
    """The measurements with the machine, as plain data."""
    return {
        "delineate": __version__,
        "machine": machine(),
        "rows": [asdict(row) | {"ratio": row.ratio} for row in rows],
    }


def table(rows: Sequence[Measurement]) -> Any:
    """The measurements, for a terminal."""
    from rich.table import Table

    facts = (f"{k.replace('_', ' ')} {v}" for k, v in machine().items() if v is not None)
    drawn = Table(title=", ".join(facts))
    for column in ("what", "seconds", "compared with", "seconds", "ratio"):
        drawn.add_column(column, justify="right" if column in ("seconds", "ratio") else "left")
    for row in rows:
        other_s, ratio = ("–", "–")
        if row.other_s is not None and row.ratio is not None:
            other_s, ratio = f"{row.other_s:.3f}", f"{row.ratio:.1f}"
        drawn.add_row(row.what, f"{row.seconds:.3f}", row.other, other_s, ratio)
    return drawn


def machine() -> dict[str, Any]:
    """The machine, for records of measurements."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    half = infer.fast_dtype(torch.device("cpu")) != torch.float32
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": cores(),
        "matrix_units": half,
        "gpu": gpu,
        "torch": torch.__version__,
    }


def _median(function: Callable[[], Any]) -> float:
    function()
    taken = []
    for _ in range(RUNS):
        began = time.perf_counter()
        function()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _nnunet_3d() -> Network:
    """nnU-Net's plain convolutional network for small patches."""
    widths = (32, 64, 128, 256)
    return Network(
        dims=3,
        channels=1,
        classes=3,
        widths=widths,
        strides=((2, 2, 2),) * 3,
        kernels=((3, 3, 3),) * 4,
    )


def _plan() -> Plan:
    names = LabelSet.from_names({value: f"structure {value}" for value in range(1, 5)})
    return Plan(
        channels=(
            Channel(
                name="CT",
                normalise=Normalisation(kind="window", low=-200, high=300, mean=50, std=100),
            ),
        ),
        structures=tuple(Structure(**label) for label in names.to_json()),
        spacing_mm=(3.0,) * 3,
        patch=WINDOW,
        network=_nnunet_3d().model_copy(update={"classes": 5}),
        schedule=Schedule(epochs=1),
    )


def _ct() -> NDArray[np.int16]:
    rng = np.random.default_rng(0)
    smooth = rng.normal(40, 80, (32, 32, 30)).repeat(8, 0).repeat(8, 1).repeat(5, 2)
    return np.asfortranarray((smooth + rng.normal(0, 12, SHAPE)).astype(np.int16))


def _window(device: str) -> Iterator[Measurement]:
    import torch

    net, where = _nnunet_3d(), choose_device(device)
    weights, dtype = weights_of(build(net, 0)), infer.fast_dtype(where)
    x = torch.randn(1, 1, *WINDOW, device=where)
    plain: Any = filled(net, weights).to(where)
    plain = plain.to(memory_format=torch.contiguous_format)
    graph = (
        compiled.compiled(lambda: filled(net, weights), (1, *WINDOW), dtype)
        if where.type == "cpu" and compiled.available()
        else None
    )
    quick = graph or filled(net, weights).to(where)

    def run(network: infer.Forward, how: torch.dtype) -> None:
        infer.forward(network, x, 3, how)
        if where.type != "cpu":
            torch.accelerator.synchronize()

    size = "x".join(map(str, WINDOW))
    own, other = _median(lambda: run(quick, dtype)), _median(lambda: run(plain, torch.float32))
    yield Measurement(
        f"3-D U-Net (32 to 256 channels), one window of {size}", own, "torch in float32", other
    )


def _step(device: str) -> Iterator[Measurement]:
    yield Measurement(
        "training step of the same network, 2 patches of 40x56x40",
        measure_step(_nnunet_3d(), (40, 56, 40), 2, device),
    )


def _preparing(device: str) -> Iterator[Measurement]:
    volume = Volume(_ct(), Grid.from_spacing(SHAPE, SPACING), "HU")
    plan = _plan()
    name = "CT of {}x{}x{} to half its resolution: crop, window, cubic resampling".format(*SHAPE)
    own = _median(lambda: prepare(volume, plan))
    if importlib.util.find_spec("SimpleITK") is None:
        yield Measurement(name, own)
        return
    import SimpleITK

    sitk: Any = SimpleITK  # its functions are not typed
    image = sitk.GetImageFromArray(volume.array.transpose())
    image.SetSpacing(SPACING)
    size = [round(n * s / 3) for n, s in zip(SHAPE, SPACING, strict=True)]
    linear = (
        size,
        sitk.Transform(),
        sitk.sitkLinear,
        image.GetOrigin(),
        (3.0,) * 3,
        image.GetDirection(),
        0.0,
        sitk.sitkFloat32,
    )
    yield Measurement(
        name,
        own,
        "SimpleITK, linear resampling alone",
        _median(lambda: sitk.Resample(image, *linear)),
    )


def _restoring(device: str) -> Iterator[Measurement]:
    import torch
    from torch.nn import functional

    plan = _plan()
    scan, record = prepare(Volume(_ct(), Grid.from_spacing(SHAPE, SPACING), "HU"), plan)
    scores = torch.rand(5, *scan.shape[1:])
    values = np.arange(5, dtype=np.uint8)

    def in_torch() -> None:
        functional.interpolate(scores[None], size=record.cropped_shape, mode="trilinear")[0].argmax(
            0
        )

    name = "scores of 4 structures back to {}x{}x{} as labels".format(*SHAPE)
    yield Measurement(
        name,
        _median(lambda: restore([scores], record, 0, values)),
        "torch: interpolate, argmax",
        _median(in_torch),
    )


def _patches(device: str) -> Iterator[Measurement]:
    image, label = (
        np.random.default_rng(0).integers(-3000, 3000, (1, 200, 200, 200)).astype(np.int16),
        np.zeros((200, 200, 200), np.uint8),
    )
    turn = np.array([[0.97, -0.24, 0.0], [0.24, 0.97, 0.0], [0.0, 0.0, 1.1]])
    field = np.random.default_rng(1).normal(0, 2, (3, 5, 5, 5)).astype(np.float32)
    one = np.ones(1, np.float32)
    yield Measurement(
        "a patch of 128x128x128: rotated, scaled, displaced, one core",
        _median(lambda: warp(image, label, one, turn, (30.0, 20.0, 25.0), (128, 128, 128), field)),
    )


def _files(device: str) -> Iterator[Measurement]:
    import nibabel as nib

    array = _ct()
    volume = Volume(array, Grid.from_spacing(SHAPE, SPACING), "HU")
    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder) / "a.nii.gz", Path(folder) / "b.nii.gz"
        image = nib.Nifti1Image(array, volume.grid.affine)  # type: ignore[no-untyped-call]
        own, theirs = (
            _median(lambda: files.write(volume, path)),
            _median(lambda: nib.save(image, other)),
        )
        yield Measurement("writing it as .nii.gz", own, "nibabel", theirs)
        own, theirs = (
            _median(lambda: files.read(path)),
            _median(lambda: np.asarray(nib.load(path).dataobj)),  # type: ignore[attr-defined]
        )
        yield Measurement("reading it again", own, "nibabel", theirs)
