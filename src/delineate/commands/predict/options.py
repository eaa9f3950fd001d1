"""How to predict, beyond what the model's plan says, and what cannot be asked of a model."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.errors import UsageError
from ...core.plan import Plan

FORMATS = ("nii.gz", "nii", "nrrd", "mha", "png")
BACKENDS = ("auto", "openvino", "torch")
MONTAGES = ("outlined", "filled")
PRECISIONS = ("auto", "float32", "int8")


@dataclass(frozen=True)
class Options:
    """How to predict, beyond what the model's plan says.

    Args:
        device: "auto", "cpu" or "cuda".
        mirror: test-time mirroring along the axes that training mirrored; None does what the plan
            says.
        form: one of ``FORMATS``.
        dicom_seg: write a DICOM SEG beside each result whose scan is a DICOM series.
        views: only these views of a model that has several; all where empty.
        samples: so many Monte-Carlo dropout samples of each case, for their spread; 0 takes none.
        seed: of the samples; each one's stream follows from it, the case's id and the sample's
            number.
        allow_missing: delineate scans that lack some of the model's channels too.
        backend: "auto" takes the fastest that is here and knows the network, "torch" or "openvino"
            that one.
        precision: "auto" computes in half precision where the device has units for it, "float32"
            never; "int8" rounds to 8-bit integers what the model has bounds for (see
            ``commands.quantise``).
        ram_bytes, vram_bytes: what the process and its GPU may use, from reading to the written
            file; a case that needs more is refused with the least that works. None is no limit.
        skip_air: do not ask the network about what is more than 3 cm outside the body of a CT.
        montage: also write montages/CASE.png, three planes with the structures "outlined" or
            "filled".
        probabilities: also write probabilities/CASE.nii.gz, (I, J, K, structures + 1) with the
            background first.
    """

    device: str = "auto"
    mirror: bool | None = None
    form: str = "nii.gz"
    dicom_seg: bool = False
    views: tuple[str, ...] = ()
    samples: int = 0
    seed: int = 0
    allow_missing: bool = False
    backend: str = "auto"
    precision: str = "auto"
    ram_bytes: int | None = None
    vram_bytes: int | None = None
    skip_air: bool = False
    montage: str | None = None
    probabilities: bool = False


def refuse_unfit(asked: Options, plan: Plan) -> None:
    """Refuse options that exclude each other, or that a model of ``plan`` cannot meet.

    Raises:
        UsageError: they do.
    """
    from ...inference.predictor import (
        DropoutSamples,
        refuse_missing,
        refuse_overlapping,
        refuse_unless_ct,
    )

    if asked.form not in FORMATS:
        raise UsageError(f"results are written as {', '.join(FORMATS)}, not {asked.form!r}")
    DropoutSamples(asked.samples).refuse_unless_fit(plan)
    if asked.allow_missing:
        refuse_missing(plan)
    if asked.skip_air:
        refuse_unless_ct(plan)
    if asked.probabilities:
        refuse_overlapping(plan)
        if asked.ram_bytes is not None:
            raise UsageError(
                "probabilities take two bytes a voxel and structure, which --ram does not count: "
                "give one of both"
            )
    for given, allowed in (
        (asked.backend, BACKENDS),
        (asked.precision, PRECISIONS),
        (asked.montage or MONTAGES[0], MONTAGES),
    ):
        if given not in allowed:
            raise UsageError(f"allowed are {', '.join(allowed)}, not {given!r}")
