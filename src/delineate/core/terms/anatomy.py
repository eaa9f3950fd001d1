"""Names of structures, as data."""

from __future__ import annotations

# Names of one structure in several collections, in addition to the spellings that ``structure_of``
# unifies by rule.
STRUCTURES: tuple[tuple[str, ...], ...] = (
    (
        "edema",
        "ed",
        "peritumoral edema",
        "vasogenic edema",
        "snfh",
        "surrounding non enhancing flair hyperintensity",
    ),
    (
        "enhancing tumor",
        "et",
        "enhancing",
        "gd enhancing tumor",
        "gadolinium enhancing tumor",
        "active tumor",
    ),
    ("necrosis", "ncr", "necrotic core", "necrotic tumor core", "necrotic"),
    ("nonenhancing tumor", "net", "netc", "non enhancing", "non enhancing tumor core"),
    (
        "necrotic and non enhancing tumor core",
        "ncr net",
        "ncr and net",
        "necrotic and non enhancing tumor",
        "necrotic non enhancing tumor core",
    ),
    ("resection cavity", "rc"),
    ("myocardium", "myo"),
    ("vertebra", "vertebrae"),
    ("gray matter", "gm"),
    ("white matter", "wm"),
    ("cerebrospinal fluid", "csf"),
    ("urinary bladder", "bladder"),
    ("inferior vena cava", "ivc", "postcava", "vena cava inferior"),
    ("portal vein and splenic vein", "portal vein and spleen vein", "veins"),
    ("adrenal gland", "suprarenal gland", "adrenal"),
)
# Short names that include their side.
_WHOLE = {
    "lv": "left ventricle",
    "rv": "right ventricle",
    "la": "left atrium",
    "ra": "right atrium",
    "lvcavity": "left ventricle",
    "rvcavity": "right ventricle",
}
