"""The options of the functions as keywords: a type for each dataclass of ``commands.options``, so
that an editor completes them and a type checker finds a wrong one.

A test compares names and types with the dataclasses; defaults and descriptions are only there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from ..commands.options import AnyPath


class ReadingKeywords(TypedDict, total=False):
    """``ReadingOptions`` as keywords."""

    untrusted: bool


class SeriesKeywords(TypedDict, total=False):
    """``SeriesOptions`` as keywords."""

    fix_series: str | None


class LabelObjectKeywords(TypedDict, total=False):
    """``LabelObjectOptions`` as keywords."""

    seg_type: str
    seg_syntax: str
    smallest_mm2: float


class ArchiveKeywords(TypedDict, total=False):
    """``ArchiveOptions`` as keywords."""

    send: bool
    send_to: str | None
    ae_title: str
    receive_port: int | None


class EngineKeywords(TypedDict, total=False):
    """``EngineOptions`` as keywords."""

    shard: str | None
    engine: str
    case_timeout_s: float | None
    case_memory_bytes: int | None


class CohortKeywords(SeriesKeywords, total=False):
    """``CohortOptions`` as keywords."""

    layout: str | None
    description: AnyPath | None
    labels: AnyPath | None
    patient: str | None
    ignore: tuple[int, ...]
    modality: str | None
    unit: str | None
    register_by: str | None


class CheckKeywords(ReadingKeywords, CohortKeywords, EngineKeywords, total=False):
    """``CheckOptions`` as keywords."""

    fix: AnyPath | None
    workers: int | None
    split: AnyPath | None
    seed: int
    overwrite: bool


class PlanKeywords(ReadingKeywords, CohortKeywords, total=False):
    """``PlanOptions`` as keywords."""

    budget_s: float | None
    epochs: int | None
    dims: int | None
    recipe: str | None
    device: str
    seed: int
    split: AnyPath | None
    changes: tuple[str, ...]
    overwrite: bool


class TrainKeywords(PlanKeywords, EngineKeywords, total=False):
    """``TrainOptions`` as keywords."""

    plan: AnyPath | None
    fold: int | None
    folds: int | None
    init: AnyPath | None
    deterministic: bool
    at_most_s: float | None
    extend_s: float | None
    tensorboard: bool
    devices: int
    nodes: int
    workers: int | None
    licence: str | None
    network: str | Callable[..., Any] | None
    loss: str | Callable[..., Any] | None
    listeners: tuple[str | Callable[..., Any], ...]


class PredictKeywords(
    ReadingKeywords,
    SeriesKeywords,
    LabelObjectKeywords,
    ArchiveKeywords,
    EngineKeywords,
    total=False,
):
    """``PredictOptions`` as keywords."""

    device: str
    mirror: bool | None
    overlap: float | None
    coarse: bool | None
    form: str
    dicom_seg: bool
    rtstruct: bool
    views: tuple[str, ...]
    oblique_deg: float
    samples: int
    maps: tuple[str, ...]
    seed: int
    allow_missing: bool
    backend: str
    precision: str
    ram_bytes: int | None
    vram_bytes: int | None
    spool_bytes: int | None
    skip_air: bool
    montage: str | None
    probabilities: bool
    channels: Mapping[str, str] | None
    only: str | None
    again: bool
    overwrite: bool


class EvaluateKeywords(ReadingKeywords, SeriesKeywords, EngineKeywords, total=False):
    """``EvaluateOptions`` as keywords."""

    labels: AnyPath | Mapping[int, str] | None
    model: AnyPath | None
    like: AnyPath | None
    register_by: str | None
    ignore: tuple[int, ...]
    as_stack: bool | None
    surface: str
    percentile: str
    tolerance_mm: float
    also: tuple[str, ...]
    pictures: bool
    images: AnyPath | None
    report: bool
    workers: int | None
    overwrite: bool


class CompareKeywords(TypedDict, total=False):
    """``CompareOptions`` as keywords."""

    names: tuple[str, ...]
    metric: str
    labels: tuple[str, ...]
    per: str
    common: bool
    overwrite: bool


class ExportSlicesKeywords(ReadingKeywords, CohortKeywords, total=False):
    """``ExportSlicesOptions`` as keywords."""

    views: tuple[str, ...]
    window: tuple[float, float] | None
    bits: int | None
    masks: str
    form: str
    split: AnyPath | None
    seed: int
    overwrite: bool
    workers: int | None


class MergeSlicesKeywords(TypedDict, total=False):
    """``MergeSlicesOptions`` as keywords."""

    masks: AnyPath | None
    kind: str | None
    view: str | None
    form: str
    overwrite: bool
    workers: int | None


class ReportKeywords(TypedDict, total=False):
    """``ReportOptions`` as keywords."""

    interactive: bool
    overwrite: bool


class ViewKeywords(ReadingKeywords, total=False):
    """``ViewOptions`` as keywords."""

    labels: AnyPath | None
    port: int
    browser: bool


class DownloadKeywords(TypedDict, total=False):
    """``DownloadOptions`` as keywords."""

    only: tuple[str, ...]
    mirror: str
    keep_archives: bool
