"""Standardised uptake values by body weight (SUVbw, g/ml) of a PET series.

The rules are those of the QIBA profile for FDG-PET ("Computing SUV"): activity in Bq/ml, corrected
for attenuation and decay, divided by the dose that is left at the time to which decay was
corrected, and multiplied by the body weight. That time is the start of the scan (START) or the
administration (ADMIN). Where an attribute is missing, or two of them contradict each other, there
is no SUV but a refusal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from ....core.errors import FormatError
from ....core.volume import Volume
from ..header.file import Series, lenient, open_dataset
from ..header.marks import number, private_tag, text

MOST_WEIGHT_KG = 1000.0  # a larger number is a weight in another unit
LEAST_DOSE_BQ = 1e4  # a smaller number is a dose in another unit
MOST_HALF_LIVES = 15.0  # between administration and scan
MOST_OVERNIGHT = 6.0  # half lives, where only the time is stated and it is after that of the scan
LONG_HALF_LIFE_S = 6 * 3600.0  # with a longer one, the day of the administration must be known
SAME_FACTOR = 0.01  # relative difference of the factor of Philips and the computed one
GE_SCAN_TIME, GE = 0x0009100D, "GEMS_PETD_01"
PHILIPS_SUV, PHILIPS_ACTIVITY, PHILIPS = 0x70531000, 0x70531009, "Philips PET Private Group"
# What all files of a series state alike about the radiopharmaceutical.
GIVEN = (
    "RadionuclideTotalDose",
    "RadionuclideHalfLife",
    "RadiopharmaceuticalStartTime",
    "RadiopharmaceuticalStartDateTime",
)
_DAY = timedelta(days=1)
_OFFSET = re.compile(r"([+-])(\d\d)(\d\d)\s*$")


def as_suv(volume: Volume, series: Series) -> Volume:
    """The values of a PET series as SUVbw, float32.

    Args:
        volume: as read from ``series``, after its rescale.

    Raises:
        FormatError: no PET, or an attribute that is needed is missing or contradicts another.
    """
    with lenient(series.files[0].parent, "DICOM series"):
        factor = factor_of([open_dataset(p, stop_before_pixels=True) for p in series.files])
    array = volume.array.astype(np.float32) * np.float32(factor)
    meta = volume.meta | {"suv_factor": factor}
    return Volume(array, volume.grid, "SUV", volume.source, meta)


def factor_of(headers: Sequence[Any]) -> float:
    """What the rescaled values of a PET series are multiplied by.

    Args:
        headers: of all its files.

    Raises:
        FormatError: see ``as_suv``.
    """
    if (modality := _same(headers, "Modality")) != "PT":
        raise FormatError(f"SUV needs a PET series; this is {modality or 'of unknown modality'}")
    units = _same(headers, "Units")
    stated = headers[0].get("CorrectedImage") or ()
    corrected = {stated} if isinstance(stated, str) else set(stated)
    if units != "GML" and (lacking := {"ATTN", "DECY"} - corrected):
        raise FormatError(f"no SUV: CorrectedImage has no {' and no '.join(sorted(lacking))}")
    if units == "GML":
        if (kind := _same(headers, "SUVType")) not in ("", "BW"):
            raise FormatError(f"no SUV by body weight: Units are g/ml of SUVType {kind}")
        return 1.0
    if units == "BQML":
        return _by_dose(headers)
    if units == "CNTS":
        return _by_philips(headers)
    raise FormatError(f"no SUV: Units are {units or 'missing'}; BQML, CNTS or GML are needed")


def _by_philips(headers: Sequence[Any]) -> float:
    """The factor of counts, which only the private factors of Philips give."""
    own = _private(headers, PHILIPS_SUV)
    activity = _private(headers, PHILIPS_ACTIVITY)
    if own is None and activity is None:
        raise FormatError("no SUV: Units are CNTS, and there is no private factor of Philips")
    if activity is None:
        assert own is not None
        return own
    computed = activity * _by_dose(headers)
    if own is not None and abs(own - computed) > SAME_FACTOR * computed:
        raise FormatError(
            f"no SUV: the private factor of Philips is {own:g}, dose, weight and times give "
            f"{computed:g}"
        )
    return computed if own is None else own


def _by_dose(headers: Sequence[Any]) -> float:
    """Weight in g by the dose in Bq that is left at the time of the decay correction."""
    first = headers[0]
    every = [list(one.get("RadiopharmaceuticalInformationSequence") or ()) for one in headers]
    items = max(every, key=len)
    if len(items) != 1:
        raise FormatError(f"no SUV: {len(items)} radiopharmaceuticals are stated, one is needed")
    _same(headers, "PatientWeight")
    for name in GIVEN:
        _same([one for several in every for one in several], name)
    weight_kg = _positive(first, "PatientWeight")
    if weight_kg > MOST_WEIGHT_KG:
        raise FormatError(f"no SUV: PatientWeight is {weight_kg:g}, which is not in kg")
    dose_bq = _positive(items[0], "RadionuclideTotalDose")
    if dose_bq < LEAST_DOSE_BQ:
        raise FormatError(f"no SUV: RadionuclideTotalDose is {dose_bq:g}, which is not in Bq")
    correction = _same(headers, "DecayCorrection")
    if correction == "ADMIN":
        return weight_kg * 1000 / dose_bq
    if correction != "START":
        raise FormatError(
            f"no SUV: DecayCorrection is {correction or 'missing'}; START or ADMIN is needed"
        )
    half_life_s = _positive(items[0], "RadionuclideHalfLife")
    scan = _start_of_scan(headers, half_life_s)
    zone = _same(headers, "TimezoneOffsetFromUTC")
    waited_s = (scan - _administration(items[0], scan, half_life_s, zone)).total_seconds()
    if not 0 <= waited_s <= MOST_HALF_LIVES * half_life_s:
        raise FormatError(
            f"no SUV: {waited_s:g} s from the administration to the scan, with a half life of "
            f"{half_life_s:g} s"
        )
    return weight_kg * 1000 / (dose_bq * 2 ** (-waited_s / half_life_s))


def _start_of_scan(headers: Sequence[Any], half_life_s: float) -> datetime:
    """The time to which decay is corrected by START."""
    acquired = [_moment(one, "AcquisitionDate", "AcquisitionTime") for one in headers]
    earliest = min(acquired)
    first = headers[acquired.index(earliest)]
    series = _moment(first, "SeriesDate", "SeriesTime")
    if series <= earliest:
        return series
    # The series was made again later: its time is not that of the scan.
    place = private_tag(first, GE_SCAN_TIME, GE)
    if place and (stated := first.get(place)):
        return _parsed(str(stated.value), "the private scan time of GE")
    offset_ms, frame_ms = number(first, "FrameReferenceTime"), number(first, "ActualFrameDuration")
    if not offset_ms or not frame_ms or min(offset_ms, frame_ms) <= 0:
        return earliest
    # FrameReferenceTime leads from that time to the moment of the average count rate.
    decay = math.log(2) / half_life_s
    during = decay * frame_ms / 1000
    average_s = math.log(during / (1 - math.exp(-during))) / decay
    return earliest + timedelta(seconds=average_s - offset_ms / 1000)


def _administration(item: Any, scan: datetime, half_life_s: float, zone: str) -> datetime:
    """When the radiopharmaceutical was given, by the clock of the scan, whose offset from UTC is
    ``zone``: by its date and time, else by its time alone on the day of the scan or, if that is
    later than the scan, on the day before.
    """
    clock = text(item, "RadiopharmaceuticalStartTime")
    whole = text(item, "RadiopharmaceuticalStartDateTime")
    if whole:
        given = _parsed(whole, "RadiopharmaceuticalStartDateTime") + _to_scan(whole, zone)
        if clock and abs((given - _on_day(clock, given)).total_seconds()) >= 1:
            raise FormatError(
                "no SUV: RadiopharmaceuticalStartTime and RadiopharmaceuticalStartDateTime differ"
            )
        return given
    if not clock:
        raise FormatError("no SUV: RadiopharmaceuticalStartTime is missing")
    if half_life_s > LONG_HALF_LIFE_S:
        raise FormatError(
            f"no SUV: with a half life of {half_life_s:g} s the day of the administration is "
            "needed (RadiopharmaceuticalStartDateTime)"
        )
    given = _on_day(clock, scan)
    if given <= scan:
        return given
    if (scan - given + _DAY).total_seconds() > MOST_OVERNIGHT * half_life_s:
        raise FormatError("no SUV: RadiopharmaceuticalStartTime is after the scan, without a date")
    return given - _DAY


def _to_scan(moment: str, zone: str) -> timedelta:
    """What leads from the clock of a moment to that of the scan; 0 unless both state their offset
    from UTC (PS3.5 6.2, DT; PS3.3 C.12.1.1.8).
    """
    own, scan = (_OFFSET.search(value) for value in (moment, zone))
    if not own or not scan:
        return timedelta()
    minutes = [int(one[1] + "1") * (60 * int(one[2]) + int(one[3])) for one in (scan, own)]
    return timedelta(minutes=minutes[0] - minutes[1])


def _on_day(clock: str, day: datetime) -> datetime:
    return _parsed(f"{day:%Y%m%d}{clock}", "RadiopharmaceuticalStartTime")


def _moment(header: Any, date: str, time: str) -> datetime:
    stated = text(header, date), text(header, time)
    if not all(stated):
        raise FormatError(f"no SUV: {date if not stated[0] else time} is missing")
    return _parsed("".join(stated), time)


def _parsed(value: str, what: str) -> datetime:
    """A date and time of DICOM (PS3.5 6.2, DT), without its offset from UTC."""
    digits, _, fraction = value.partition("+")[0].partition("-")[0].strip().partition(".")
    try:
        moment = datetime.strptime(digits.ljust(14, "0"), "%Y%m%d%H%M%S")
        return moment + timedelta(seconds=float(f"0.{fraction or 0}"))
    except ValueError:
        raise FormatError(f"no SUV: {what} cannot be read") from None


def _same(headers: Sequence[Any], name: str) -> str:
    """The value that all files of the series have.

    Raises:
        FormatError: they differ.
    """
    found = sorted({text(one, name) for one in headers})
    if len(found) > 1:
        raise FormatError(f"no SUV: {name} is {found[0] or 'missing'} and {found[1]} in one series")
    return found[0]


def _positive(header: Any, name: str) -> float:
    value = number(header, name)
    if value is None or value <= 0:
        raise FormatError(f"no SUV: {name} is {'missing' if value is None else f'{value:g}'}")
    return value


def _private(headers: Sequence[Any], tag: int) -> float | None:
    """A private factor of Philips; None if it is missing or 0."""
    places = ((one, private_tag(one, tag, PHILIPS)) for one in headers)
    values = {number(one, place) for one, place in places if place}
    if len(values) > 1:
        raise FormatError("no SUV: the private factor of Philips differs within the series")
    return next(iter(values), None) or None
