"""The report's section on the plan: each choice with its named values and its reason.

It reads ``plan.json``, already parsed; names and units are those of ``plan_names``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.words import flattened
from .plan_names import field_name, field_value

# Entries that are listed even if they have no reason; all others are in plan.json.
CHOICES = (
    "orientation",
    "spacing_mm",
    "crop",
    "resampling",
    "patch",
    "batch",
    "network",
    "views",
    "loss",
    "optimiser",
    "schedule",
    "augmentation",
    "inference",
    "seed",
)
# Fields of a normalisation that its kind uses.
_NORMALISATION = {
    "window": ("kind", "low", "high", "mean", "std"),
    "robust": ("kind", "low_percentile", "high_percentile", "inside"),
    "standard": ("kind", "inside"),
}
# Field -> the field that switches it on, and the values that do so (none: any that is not 0).
_ONLY_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "network.encoder": ("network.kind", ("unet",)),
    "network.down": ("network.kind", ("unet",)),
    "network.growth": ("network.kind", ("denseunet",)),
    "network.squeeze": ("network.kind", ("quicknat",)),
    "loss.tversky_false_positives": ("loss.tversky", ()),
    "loss.tversky_false_negatives": ("loss.tversky", ()),
    "loss.focal_gamma": ("loss.focal", ()),
    "optimiser.nesterov": ("optimiser.kind", ("sgd",)),
    "optimiser.momentum": ("optimiser.kind", ("sgd",)),
    "schedule.drop_every": ("schedule.kind", ("step",)),
    "schedule.drop_to": ("schedule.kind", ("step",)),
}


@dataclass(frozen=True)
class PlanRow:
    """One choice: its name, its values by name ("" for a choice of one value), and the reason."""

    name: str
    values: tuple[tuple[str, str], ...]
    reason: str = ""


def plan_rows(plan: dict[str, Any] | None) -> list[PlanRow]:
    """The choices of a plan: first those with a reason, then ``CHOICES``. A choice has its fields
    that are set and used; each field is listed once.
    """
    if not plan:
        return []
    reasons = dict(plan.get("reasons") or {})
    flat = flattened({k: v for k, v in plan.items() if k not in ("reasons", "structures")})
    flat = {k: v for k, v in flat.items() if _is_used(k, v, flat)}
    rows = []
    for name, reason in reasons.items():
        if name.startswith("normalise."):
            rows.append(_normalisation(name.removeprefix("normalise."), plan, reason))
            continue
        inside = _keys(name, flat, reasons)
        rows.append(PlanRow(field_name(name), _values(name, inside, flat), reason))
        for k in inside:
            del flat[k]
    for name in CHOICES:
        keys = _keys(name, flat, reasons)
        if keys:
            rows.append(PlanRow(field_name(name), _values(name, keys, flat)))
    return rows


def _keys(name: str, flat: dict[str, Any], reasons: dict[str, str]) -> list[str]:
    """The fields of a choice; one that has a reason of its own has a row of its own. The plan of
    the first stage is not repeated.
    """
    if name == "low_resolution":
        return []
    inside = [k for k in flat if k == name or k.startswith(f"{name}.")]
    return [k for k in inside if k == name or k not in reasons]


def _values(name: str, keys: list[str], flat: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """(name, value) of the fields; the name is "" for the field that is the choice itself."""
    return tuple(("" if k == name else field_name(k), field_value(k, flat[k])) for k in keys)


def _is_used(name: str, value: Any, flat: dict[str, Any]) -> bool:
    """Whether a field is set, and is not a setting of something that is switched off."""
    if value in (None, [], {}, ""):
        return False
    if name in _ONLY_WITH:
        other, wanted = _ONLY_WITH[name]
        return flat.get(other) in wanted if wanted else bool(flat.get(other))
    group = name.partition(".")[0]
    if group == "loss":
        return value not in (0, False)
    # "rotation_deg" belongs to "rotation_p", and "noise_std" to "noise_p".
    own = next((k for k in flat if k.endswith("_p") and name.startswith(k[:-2])), None)
    return bool(flat[own]) if own and group == "augmentation" else True


def _normalisation(channel: str, plan: dict[str, Any], reason: str) -> PlanRow:
    """The row of one channel's intensity normalisation."""
    found: dict[str, Any] = next(
        (c["normalise"] for c in plan.get("channels", ()) if c["name"] == channel), {}
    )
    shown = _NORMALISATION.get(found.get("kind", ""), ("kind",))
    path = "channels.normalise"
    values = tuple(
        ("" if k == "kind" else field_name(f"{path}.{k}"), field_value(f"{path}.{k}", found[k]))
        for k in shown
        if k in found
    )
    return PlanRow(f"{field_name(f'{path}.kind')}, {channel}", values, reason)
