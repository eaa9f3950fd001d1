"""Words for modalities in the names of files and channels, and the modalities of cases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ....core.errors import LayoutError, UsageError
from ....core.manifest import Case, Manifest
from ....core.terms import is_known_channel, read
from ....core.terms.sequences import ANY_IMAGE, ANY_MR
from ....core.volume import ReadAs


def names_channel(key: str) -> bool:
    """Whether the key of a file names a sequence or modality, or begins with "image"."""
    return is_known_channel(key) or first_word(key) in ANY_IMAGE | ANY_MR


def first_word(key: str) -> str:
    """The first word of a key, in lower case."""
    return re.split(r"[_.-]", key.lower())[0]


def modality_of(channels: Iterable[object]) -> str:
    """CT or MR if the channel names show it, else ""."""
    names = [str(channel) for channel in channels]
    found = {"MR" if name.lower() in ANY_MR else read(name).modality for name in names}
    return "CT" if found == {"CT"} else "MR" if "MR" in found else ""


def one_modality(cases: Iterable[Case]) -> str:
    """The modality that all cases state, "" if they state several or none."""
    found = {case.modality for case in cases}
    return found.pop() if len(found) == 1 else ""


def of_modality(
    cases: Sequence[Case], wanted: str, cohort: str, path: str | Path
) -> tuple[Case, ...]:
    """The cases of a modality, which is that of the ``cohort`` where a case states none.

    Raises:
        LayoutError: there is none.
    """
    asked = _PLAIN.get(wanted.upper(), wanted.upper())
    kept = tuple(case for case in cases if (case.modality or cohort).upper() == asked)
    if not kept:
        counts = Counter(case.modality or cohort or "not stated" for case in cases)
        found = ", ".join(f"{name} ({count} cases)" for name, count in sorted(counts.items()))
        raise LayoutError(f"no case has the modality {wanted}; found: {found or 'none'}", path=path)
    return kept


def in_suv(manifest: Manifest, unit: str | None) -> Manifest:
    """The cohort with its PET channels read as SUV if ``unit`` is "suv"; None changes nothing.

    Raises:
        UsageError: another unit. LayoutError: no channel is PET, or its cases are of several
            modalities.
    """
    if unit is None:
        return manifest
    if unit != "suv":
        raise UsageError(f'--unit is "suv", found "{unit}"')
    names, stated = manifest.channels, {case.modality or manifest.modality for case in manifest}
    are_pet = [read(name).modality == "PET" for name in names]
    if len(names) == 1 and stated != {""}:
        are_pet = [stated == {"PT"}]
    if not any(are_pet):
        found = ", ".join(sorted(filter(None, stated))) or "not stated"
        raise LayoutError(
            f"no channel is PET, so none can be SUV; channels: {', '.join(names)}, modality: "
            f"{found} (--modality PT selects the cases of PET)",
            path=manifest.root or None,
        )
    return manifest.in_units(["suv" if is_pet else "" for is_pet in are_pet])


def in_stated_units(manifest: Manifest, units: Mapping[str, ReadAs]) -> Manifest:
    """The cohort of a layout with its channels read in ``units``, by the name of a channel or by
    the modality of one.

    Raises:
        LayoutError: a name is that of no channel.
    """
    found: list[ReadAs] = ["" for _ in manifest.channels]
    for name, unit in units.items():
        own = [n for n, one in enumerate(manifest.channels) if one.casefold() == name.casefold()]
        if own:
            found[own[0]] = unit
        elif unit and read(name).modality == "PET":
            manifest = in_suv(manifest, unit)
        else:
            listed = ", ".join(manifest.channels)
            raise LayoutError(
                f"unit names {name}, which is no channel; the layout has {listed}",
                path=manifest.root or None,
            )
    return manifest.in_units(found)


# Words for a modality other than the code of DICOM.
_PLAIN = {"PET": "PT", "MRI": "MR"}
