"""Which options of predict exclude each other, or do not fit a model."""

from __future__ import annotations

from ...core.errors import UsageError
from ...core.plan import Plan
from ..options import (
    BACKENDS,
    MONTAGES,
    PRECISIONS,
    PredictOptions,
    mask_formats,
    prediction_formats,
)


def refuse_unfit(asked: PredictOptions, plan: Plan) -> None:
    """Refuse options that exclude each other, or that do not fit a model with ``plan``.

    Raises:
        UsageError: names the options and what is allowed.
    """
    from ...formats.dicom.seg import SegEncoding
    from ...inference import oblique
    from ...inference.predictor import (
        DropoutSamples,
        refuse_coarse,
        refuse_missing,
        refuse_overlap,
        refuse_overlapping,
        refuse_unless_ct,
    )

    forms = tuple(prediction_formats())
    if unknown := [form for form in asked.forms if form not in forms]:
        raise UsageError(f"--format must be of {', '.join(forms)}, found {', '.join(unknown)!r}")
    if len(masks := [form for form in asked.forms if form in mask_formats()]) > 1:
        raise UsageError(f"--format accepts one format of the masks, found {', '.join(masks)}")
    if asked.seg_encoding != SegEncoding() and "seg" not in asked.objects:
        raise UsageError("--seg-type and --seg-syntax are for --format seg")
    if asked.smallest_mm2 and "rtstruct" not in asked.objects:
        raise UsageError("--smallest is for --format rtstruct")
    asked.seg_encoding.refuse_unfit(plan.output_labels)
    DropoutSamples(asked.samples, maps=asked.maps).refuse_unless_fit(plan)
    _refuse_unfit_spool(asked)
    oblique.refuse_unfit(plan, asked.oblique_deg)
    refuse_overlap(asked.overlap)
    refuse_coarse(plan, asked.coarse, asked.needs_probabilities, asked.samples)
    if asked.allow_missing:
        refuse_missing(plan)
    if asked.skip_air:
        refuse_unless_ct(plan)
    if asked.needs_probabilities:
        refuse_overlapping(plan)
        if asked.ram_bytes is not None:
            raise UsageError(
                "--probabilities (or --format pm, or a SEG of the type FRACTIONAL) and --ram "
                "exclude each other: probabilities take two bytes per voxel and structure, which "
                "the limit does not include"
            )
    for given, allowed in (
        (asked.backend, BACKENDS),
        (asked.precision, PRECISIONS),
        (asked.montage or MONTAGES[0], MONTAGES),
    ):
        if given not in allowed:
            raise UsageError(f"must be one of {', '.join(allowed)}, found {given!r}")


def _refuse_unfit_spool(asked: PredictOptions) -> None:
    limited = asked.ram_bytes is not None or asked.vram_bytes is not None
    if asked.spool_bytes is not None and (asked.work.is_local or limited):
        raise UsageError(
            "--spool is for --engine ray, without --ram and --vram, which limit what one worker "
            "does with a scan from its file to its mask"
        )
