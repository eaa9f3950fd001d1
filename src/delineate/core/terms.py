"""Terms: names of channels and structures in files, matched to identities.

This is a first table: MR sequences with their names in BraTS 2013-2023, BIDS, the Decathlon and
hospitals, CT and PET, and spellings of structures. Two names mean the same if their identities are
equal. A name that is not in the tables is its own identity, without case and separators. Nothing is
guessed from a position or a value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .labels import LabelSet, side_of

# Identity -> its names, words apart; matched with any separator or none ("t1 gd" is T1Gd, t1_gd,
# T1-Gd).
CHANNELS: dict[str, tuple[str, ...]] = {
    "T1": ("t1", "t1w", "t1 w", "t1n", "t1 native", "t1 pre", "t1 weighted", "t1w pre"),
    "T1 post-contrast": (
        "t1c",
        "t1ce",
        "t1 ce",
        "t1gd",
        "t1 gd",
        "t1post",
        "t1 post",
        "t1km",
        "t1 km",
        "t1c+",
        "t1+c",
        "t1 +c",
        "t1+gd",
        "t1 contrast",
        "t1 post contrast",
        "t1 contrast enhanced",
        "t1 gadolinium",
        "t1 weighted post contrast",
        "t1wc",
        "t1wce",
        "t1w ce",
        "t1wgd",
        "t1w gd",
        "t1w post",
        "t1w contrast",
        "t1w post contrast",
        "ce t1",
        "ce t1w",
        "cet1",
        "cet1w",
        "ce gadolinium t1w",
        "gd t1",
        "gd t1w",
        "ce gd t1",
        "ce gd t1w",
        "ce gado t1w",
        "ce gadobutrol t1w",
        "ce gadovist t1w",
        "post t1",
        "post t1w",
        "post contrast t1",
        "post contrast t1w",
    ),
    "T2": ("t2", "t2w", "t2 w", "t2 weighted"),
    "FLAIR": ("flair", "t2f", "t2 flair", "t2w flair", "fl", "flair t2"),
    "T2*": ("t2star", "t2 star", "t2starw", "t2*", "t2*w"),
    "PD": ("pd", "pdw", "pd w", "proton density"),
    "DWI": ("dwi",),
    "ADC": ("adc",),
    "SWI": ("swi",),
    "CT": ("ct",),
    "PET": ("pet", "pt"),
}
# Names that mean only "an image", and names that mean only "MR".
ANY_IMAGE = {
    "image",
    "img",
    "imaging",
    "orig",
    "volume",
    "scan",
    "data",
    "raw",
    "input",
    "grey",
    "gray",
    "channel",
    "modality",
}
ANY_MR = {"mr", "mri", "magneticresonance"}
NOT_MR = {"CT", "PET"}
# Tokens that have other meanings in file names (a patient, a disk): there they are no evidence of a
# channel.
_NOT_IN_FILES = {"fl", "pt", "pd", "pd w", "ct"}
_NUMBERED = re.compile(r"(?:channel|modality|image)?\s*_?0*(\d+)")

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
_SIDE_IN_WORD = re.compile(r"(?i)^(left|right)(?=[a-z]{4})")  # such as leftkidney
_NAMELESS = re.compile(
    r"(?i)(label|class|value|structure|segment|region|mask|foreground|object)?[\s_.-]*\d*"
)


# ---- channels ----


def channel_of(name: str) -> str:
    """The identity of a channel name: a key of ``CHANNELS``, else the name without case and
    separators.
    """
    compact = _compact(name)
    return _CHANNELS.get(compact, compact)


def is_known_channel(name: str) -> bool:
    """Whether ``name`` is a sequence or modality in the tables."""
    return _compact(name) in _CHANNELS


def number_of_channel(name: str) -> int | None:
    """The number in a name that is only a number ("channel 2", "0002"); None for any other name."""
    found = _NUMBERED.fullmatch(name.strip().lower())
    return None if found is None else int(found[1])


def may_be(given: str, wanted: str) -> bool:
    """Whether the only channel of a scan, named ``given``, can be the one that a model names
    ``wanted``: their identities are equal, or one name is less specific ("image", "MR").
    """
    one, other = channel_of(given), channel_of(wanted)
    if one == other:
        return True
    # The less specific name may be on either side.
    for a, b in ((one, other), (other, one)):
        if a in ANY_IMAGE or number_of_channel(a) is not None:
            return True
        if a in ANY_MR and b not in NOT_MR:
            return True
    return False


def contradicts_modality(modality: str, channel: str) -> bool:
    """Whether a scan of the DICOM ``modality`` ("CT", "MR", "PT") cannot be the ``channel``; False
    if either is unknown.
    """
    identity = channel_of(channel)
    kind = identity if identity in NOT_MR else "MR"
    known = identity in CHANNELS or identity in ANY_MR
    return known and {"CT": "CT", "PT": "PET", "MR": "MR"}.get(modality, kind) != kind


def match_channels(given: Sequence[str], wanted: Sequence[str]) -> list[int | None]:
    """For each name in ``wanted``, the index in ``given`` of the channel with the same name, else
    with the same identity; None if there is none.

    A name that occurs twice on either side is not matched, unless both lists are equal. Nor is an
    identity that occurs twice, unless the names are equal.
    """
    given_names, wanted_names = [n.lower() for n in given], [n.lower() for n in wanted]
    if given_names == wanted_names:
        return list(range(len(given)))
    # First by name, if it is unique on both sides.
    exact = {
        name: n
        for n, name in enumerate(given_names)
        if given_names.count(name) == 1 and wanted_names.count(name) == 1
    }
    # Then by identity, among the channels that are left.
    given_identities = [channel_of(name) for name in given]
    wanted_identities = [channel_of(name) for name in wanted]
    used = {exact[name.lower()] for name in wanted if name.lower() in exact}
    found: list[int | None] = []
    for name, identity in zip(wanted, wanted_identities, strict=True):
        if name.lower() in exact:
            found.append(exact[name.lower()])
            continue
        places = [
            n for n, other in enumerate(given_identities) if other == identity and n not in used
        ]
        unique = len(places) == 1 and wanted_identities.count(identity) == 1
        found.append(places[0] if unique else None)
    return found


def channel_spans(text: str, wanted: Sequence[str]) -> list[tuple[int, int, str]]:
    """All channel names in the file name ``text``: (start, stop, identity), the longest name first,
    without overlaps.

    Names in ``wanted`` are searched as they are written, and so are all names in the tables that
    have no other meaning in file names.
    """
    spans: list[tuple[int, int, str]] = []
    words = [(name, channel_of(name)) for name in wanted] + _IN_FILES
    for name, identity in sorted(words, key=lambda word: -len(word[0])):
        for match in _pattern(name).finditer(text):
            if all(match.end() <= low or match.start() >= high for low, high, _ in spans):
                spans.append((match.start(), match.end(), identity))
    return spans


def read_with_rest(identity: str, rest: str) -> str:
    """The channel of a file whose name has the channel ``identity`` and the text ``rest``.

    "T1" and "axial_gd" are T1 post-contrast. The result is "" if the rest names a derived image (a
    map, a difference) or a channel that is not in the tables.
    """
    rest = _WITHOUT_CONTRAST.sub(" ", rest.lower())
    if _DERIVED.search(rest):
        return ""
    if _CONTRAST.search(rest):
        return {"T1": "T1 post-contrast", "T1 post-contrast": "T1 post-contrast"}.get(identity, "")
    return identity


def _compact(name: str) -> str:
    return re.sub(r"[^\w*+]|_", "", name.lower())


def _pattern(name: str) -> re.Pattern[str]:
    if name not in _PATTERNS:
        words = r"[\s_.-]*".join(re.escape(word) for word in name.split())
        _PATTERNS[name] = re.compile(rf"(?i)(?<![a-z0-9]){words}(?![a-z0-9])")
    return _PATTERNS[name]


_AGENT = r"contrast|ce|gd|gado[a-z]*|km"
_WITHOUT_CONTRAST = re.compile(rf"(?<![a-z0-9])(pre|non?|without|wo)[\W_]*({_AGENT})(?![a-z])")
# Not followed by a number, which would be a patient ("CE_001_t1").
_CONTRAST = re.compile(
    rf"(?<![a-z0-9])({_AGENT}|postcontrast|post(?![\W_]*op))(?![a-z0-9])(?![\W_]*\d)"
)
_DERIVED = re.compile(
    r"(?<![a-z0-9])(map|subtraction|diff|difference|sub(?![\W_]*[a-z]*\d))(?![a-z0-9])"
)
_PATTERNS: dict[str, re.Pattern[str]] = {}
_CHANNELS = {
    _compact(name): identity for identity, names in CHANNELS.items() for name in (identity, *names)
}
_IN_FILES = [
    (name, identity)
    for identity, names in CHANNELS.items()
    for name in names
    if name not in _NOT_IN_FILES
]


# ---- structures ----


def structure_of(name: str) -> str:
    """The identity of a structure name: its side, then its name in one spelling ("Left_Kidney",
    "kidney left" -> "left kidney").
    """
    # Abbreviations whose letters include the side, such as "LV", before the general rule.
    whole = _WHOLE.get(_compact(name))
    if whole is not None:
        return whole
    side, rest = side_of(_SIDE_IN_WORD.sub(r"\1 ", name))
    words = re.sub(r"[\W_]+", " ", rest.lower()).split()
    return f"{side or ''} {_STRUCTURES.get(_unified(words), _unified(words))}".strip()


def names_structure(name: str) -> bool:
    """Whether ``name`` describes a structure; "label 3", "foreground" and numbers do not."""
    return _NAMELESS.fullmatch(name.strip()) is None


def contradictions(one: LabelSet, other: LabelSet, of_one: str, of_other: str) -> list[str]:
    """Contradictions between the names and values of two tables, one sentence each: a value with
    two names, or a structure with two values.

    Names that do not describe a structure ("label 3") contradict nothing.
    """
    # Compare by value (two names) and by structure (two values).
    mine = {label.value: label.name for label in one if names_structure(label.name)}
    theirs = {label.value: label.name for label in other if names_structure(label.name)}
    places = {structure_of(name): value for value, name in theirs.items()}
    found = []
    for value, name in mine.items():
        place = places.get(structure_of(name), value)
        if value in theirs and structure_of(name) != structure_of(theirs[value]):
            found.append(f"{value} is {name!r} in {of_one} and {theirs[value]!r} in {of_other}")
        elif place != value:
            found.append(f"{name!r} is {value} in {of_one} and {place} in {of_other}")
    return found


def _unified(words: Sequence[str]) -> str:
    """The words as one, in American spelling and without plural; only for comparison."""
    spelled = [
        _AMERICAN_END.sub(
            lambda m: {"our": "or", "re": "er"}[m[0]], word.replace("oe", "e").replace("ae", "e")
        )
        for word in words
    ]
    # A final "s" is a plural, except in short words and after another "s".
    text = "".join("gray" if word == "grey" else word for word in spelled)
    return text[:-1] if len(text) > 4 and text.endswith("s") and not text.endswith("ss") else text


_AMERICAN_END = re.compile(r"(?<=tum)our$|(?<=col)our$|(?<=[nbt])re$")
_STRUCTURES = {
    _unified(name.split()): _unified(names[0].split()) for names in STRUCTURES for name in names
}
