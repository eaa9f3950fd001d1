"""The names that published data sets give to the values of their masks, by the names of their
cases.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ....core.labels import LabelMapping, LabelSet, Range

TISSUES = {1: "CSF", 2: "grey matter", 3: "white matter"}  # FSL FAST on T1, as in OASIS-1
# Lowest value, highest value and structure of CHAOS MR masks, as the challenge defines them.
CHAOS_MR = (
    (55, 70, "liver"),
    (110, 135, "right kidney"),
    (175, 200, "left kidney"),
    (240, 255, "spleen"),
)
# A mask of CHAOS with only one of these values is of the liver.
CHAOS_LIVER = dict.fromkeys((1, 63, 255), "liver")
# BraTS: the classes of each edition.
SINCE_2023 = {1: "necrosis", 2: "oedema", 3: "enhancing tumour", 4: "resection cavity"}
UNTIL_2016 = {1: "necrosis", 2: "oedema", 3: "non-enhancing tumour", 4: "enhancing tumour"}
_NCR_NET = "necrotic and non-enhancing tumour core"
_PED_2023 = {1: "non-enhancing component", 2: "oedema", 3: "enhancing tumour"}
_PED_SINCE_2024 = {1: "enhancing tumour", 2: "non-enhancing tumour", 3: "cyst", 4: "oedema"}
LIVER_TUMOUR = {1: "liver", 2: "liver tumour"}
# Form of the ids of all cases -> the tables of the editions with this form.
_FORMS: tuple[tuple[str, tuple[dict[int, str], ...]], ...] = (
    (r"BraTS-PED", (_PED_2023, _PED_SINCE_2024)),
    (r"BraTS-MEN-RT", ({1: "gross tumour volume"},)),
    (
        r"BraTS-(MEN|MET)",
        ({1: "non-enhancing tumour core", 2: "oedema", 3: "enhancing tumour"},),
    ),
    (r"BraTS-", (SINCE_2023,)),
    (r"BraTS2021_", ({1: "necrosis", 2: "oedema", 4: "enhancing tumour"},)),
    (r"BraTS(17|18|19|20)_", ({1: _NCR_NET, 2: "oedema", 4: "enhancing tumour"},)),
    (r"brats_(2012|2013|tcia)_", (UNTIL_2016,)),
    (r"OAS1_\d{4}_MR\d+.*(gfc|fseg)", (TISSUES,)),
    # The Decathlon, also in parts (liver_12_0).
    (r"liver[_-]\d+([_-]\d+)?$", (LIVER_TUMOUR,)),
    (r"pancreas_\d+(_\d+)?$", ({1: "pancreas", 2: "pancreatic tumour"},)),
    (r"spleen_\d+(_\d+)?$", ({1: "spleen"},)),
)


def tables_for(ids: Sequence[str]) -> tuple[Mapping[int, str], ...]:
    """The tables value -> structure of the published data set whose form all ids have; ()
    without one.

    >>> tables_for(["liver_1_0", "liver_12_3"])
    ({1: 'liver', 2: 'liver tumour'},)
    """
    for form, tables in _FORMS:
        if ids and all(re.match(f"(?i){form}", one) for one in ids):
            return tables
    return ()


def chaos_mr_labels() -> tuple[LabelSet, LabelMapping]:
    """The four organs of CHAOS MR and their value ranges."""
    names = {v: name for v, (_, _, name) in enumerate(CHAOS_MR, start=1)}
    ranges = tuple(Range(low, high, v) for v, (low, high, _) in enumerate(CHAOS_MR, start=1))
    return LabelSet.from_names(names), LabelMapping(ranges=ranges)
