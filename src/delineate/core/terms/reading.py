"""Read what an image is from a text: the name of a channel, of a file, or of a DICOM series.

A text is divided into words; each has meanings from the tables in ``sequences``, or none. The
meanings together give the identity of the image: a base such as "T1 post-contrast" and, after
commas, what else is known ("CT, arterial phase"). Words without a meaning (a patient, a protocol)
change nothing. If the words allow two readings, or name a derived image, the identity is "".
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from .sequences import (
    DERIVED,
    FILLERS,
    HEADS,
    MAPS,
    MODIFIERS,
    NEUTRAL,
    NO_MODALITY,
    PERFUSION,
    PHASE,
    PHASES,
    TECHNIQUES,
    TIMES,
    TOGETHER,
    TRACERS,
    WEAK,
    WORDS,
)

_CJK = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_CJK}]+|(?:(?![{_CJK}_])\w)+\*?|[+*]")
# Abbreviations with a slash, as words.
_SLASHED = (
    (re.compile(r"(?i)(?<![a-z])w/o(?![a-z0-9])"), "without"),
    (re.compile(r"(?i)(?<![a-z0-9])w/wo(?![a-z0-9])"), "with without"),
    (re.compile(r"(?i)(?<![a-z0-9])s/c(?![a-z0-9])"), "without c"),
    (re.compile(r"(?i)(?<![a-z0-9])c/c(?![a-z0-9])"), "with c"),
)
# A diffusion weighting in s/mm2 ("b1000"), and a kernel of CT (B30f, Br40).
_B_VALUE = re.compile(r"b(\d{1,4})")
_KERNEL = re.compile(r"[bih]\d{2}[fsh]|(?:br|bv|bl|bf|hr|hc|qr|ur|ub)\d{2}[fsh]?")
# Sizes, factors and counts: "1mm", "3scan", "2".
_MEASURE = re.compile(r"\d{1,2}|\d+mm|\d+scan|\d+d|[pxs]\d|iso\d*|\d+x\d+")
# BIDS: entities such as "ses-post" are no words, except the values of some.
_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?(?=_)")
_ENTITY = re.compile(r"([a-z]+)-([A-Za-z0-9+]+)")
_READ_ENTITIES = ("ce", "acq", "trc", "part", "inv", "desc", "mod", "rec")


@dataclass(frozen=True)
class Word:
    """A word or phrase in small letters: its meanings, and its place in the text."""

    text: str
    meanings: frozenset[str]
    start: int
    stop: int


@dataclass(frozen=True)
class Reading:
    """What a text states about an image.

    Args:
        identity: "" if unknown.
        before, after: the text before and after the words that name the image.
        modality: "CT", "MR" or "PET" if the words state it, else "".
        states_contrast: whether words state that a contrast agent was given, or was not.
        has_evidence: whether any word names an image; if the identity is "" nevertheless, the words
            contradict each other, or name a derived image.
    """

    identity: str
    before: str = ""
    after: str = ""
    modality: str = ""
    states_contrast: bool = False
    has_evidence: bool = True


# ---- the tables as phrases ----


def plain(text: str) -> str:
    """The text in small letters, without accents."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _base_of(identity: str) -> str:
    return identity.partition(", ")[0].removesuffix(" post-contrast").removesuffix(" native")


def _parts(identity: str) -> frozenset[str]:
    """The meanings of an identity: "T1 post-contrast" -> T1, contrast."""
    base = _base_of(identity)
    more = [word for word in re.split(", | (?=post-contrast|native)", identity) if word != base]
    as_words = {
        "without contrast": "native",
        "contrast-enhanced": "contrast",
        "post-contrast": "contrast",
    }
    return frozenset({base, *(as_words.get(word, word) for word in more)})


def phrases(names: str) -> list[tuple[str, ...]]:
    """The names of one line of a table, each as its words."""
    return [tuple(plain(name).split()) for name in names.split(",")]


def _all_phrases() -> dict[tuple[str, ...], frozenset[str]]:
    lines = (
        *((names, _parts(identity)) for identity, names in WORDS.items()),
        *((names, frozenset({f"implies {base}"})) for base, names in TECHNIQUES.items()),
        *((names, frozenset(meaning.split("+"))) for meaning, names in MODIFIERS.items()),
        (PHASE, frozenset({"phase"})),
        (DERIVED, frozenset({"derived"})),
        (NEUTRAL, frozenset({"neutral"})),
    )
    return {phrase: meanings for names, meanings in lines for phrase in phrases(names)}


_PHRASES = _all_phrases()
_BASES = {_base_of(identity) for identity in WORDS}


_TIMES = {word for (word,) in phrases(TIMES)}
_FILLERS = {word for (word,) in phrases(FILLERS)}


def add(name: str, identity: str) -> None:
    """Make ``name`` a name of ``identity``, which may be new."""
    meanings = _parts(identity)
    _BASES.add(_base_of(identity))
    (phrase,) = phrases(name)
    _PHRASES[phrase] = meanings
    for cached in (_divided, _longest, _cjk_words, read):
        cached.cache_clear()


def is_phrase(name: str) -> bool:
    """Whether exactly this name is in the tables, or it is a compound of words in them."""
    (phrase,) = phrases(name)
    return phrase in _PHRASES or (len(phrase) == 1 and len(_divided(phrase[0])) > 1)


_MORE: list[Callable[[], object]] = []


def load_more_with(load: Callable[[], object]) -> None:
    """Call ``load`` before the first name is read; it adds the names of installed packages."""
    _MORE.append(load)


def load_more() -> None:
    """Load the names of installed packages, once."""
    while _MORE:
        _MORE.pop()()


@functools.cache
def _longest() -> int:
    return max(map(len, _PHRASES))


@functools.cache
def _cjk_words() -> re.Pattern[str]:
    known = [phrase[0] for phrase in _PHRASES if re.match(rf"[{_CJK}]", phrase[0])]
    return re.compile(f"({'|'.join(sorted(map(re.escape, known), key=len, reverse=True))})")


# ---- words of a text ----


def _words(text: str) -> list[Word]:
    """The words and phrases of a text in order; of two phrases the longer one."""
    tokens = [token for match in _WORD.finditer(text) for token in _tokens(match)]
    found: list[Word] = []
    while tokens:
        for size in range(min(_longest(), len(tokens)), 0, -1):
            part = tokens[:size]
            meanings = _PHRASES.get(tuple(token.text for token in part))
            if meanings is not None:
                words = " ".join(token.text for token in part)
                found.append(Word(words, meanings, part[0].start, part[-1].stop))
                break
        else:
            found.append(_measured(tokens[0]))
            size = 1
        tokens = tokens[size:]
    return found


def _tokens(match: re.Match[str]) -> Iterator[Word]:
    """A run of letters and digits, divided if it is a compound ("t2tse" -> t2, tse)."""
    text, start = match[0], match.start()
    if re.match(rf"[{_CJK}]", text):
        pieces = [piece for piece in _cjk_words().split(text) if piece]
    elif text == "AdC":  # an adenocarcinoma
        pieces = [text]
    else:
        pieces = list(_divided(plain(text)))
    for piece in pieces:
        stop = match.end() if piece is pieces[-1] else start + len(piece)
        yield Word(piece, frozenset(), start, stop)
        start = stop


@functools.lru_cache(4096)
def _divided(token: str) -> tuple[str, ...]:
    """The words of a compound; the token itself if it is none."""
    if (token,) in _PHRASES:
        return (token,)
    for head in HEADS:
        for rest, is_first in (
            (token.removeprefix(head), True),
            (token.removesuffix(head), False),
        ):
            if not rest or rest == token:
                continue
            inner = _divided(rest)
            if all((word,) in _PHRASES for word in inner):
                return (head, *inner) if is_first else (*inner, head)
    return (token,)


def _measured(token: Word) -> Word:
    """A token that is in no table: perhaps a b-value, a kernel or a size."""
    meanings: set[str] = set()
    found = _B_VALUE.fullmatch(token.text)
    if found and int(found[1]) % 50 == 0:
        meanings = {f"b={int(found[1])}"}
    elif _KERNEL.fullmatch(token.text):
        meanings = {"kernel"}
    elif _MEASURE.fullmatch(token.text):
        meanings = {"measure"}
    return replace(token, meanings=frozenset(meanings))


def _joined_b_values(words: Sequence[Word]) -> list[Word]:
    """The words with "b", "1000" as one, and with further numbers after a b-value as b-values."""
    found: list[Word] = []
    for word in words:
        before = found[-1] if found else None
        is_number = word.text.isdigit() and len(word.text) <= 4 and int(word.text) % 50 == 0
        if before and is_number and before.text == "b":
            found[-1] = Word("b", frozenset({f"b={int(word.text)}"}), before.start, word.stop)
        elif before and is_number and len(word.text) > 1 and _b_values([before]):
            found.append(replace(word, meanings=frozenset({f"b={int(word.text)}"})))
        else:
            found.append(word)
    return found


def _b_values(words: Sequence[Word]) -> set[int]:
    return {int(m[2:]) for word in words for m in word.meanings if m.startswith("b=")}


def _bases(words: Sequence[Word]) -> set[str]:
    return {meaning for word in words for meaning in word.meanings if meaning in _BASES}


# ---- contrast ----


def _contrast(words: Sequence[Word]) -> set[str]:
    """ "contrast" and "native" as far as the words state them."""
    found: set[str] = set()
    for at, word in enumerate(words):
        found |= word.meanings & {"contrast", "native"}
        if {"with", "without", "post"} & word.meanings:
            found |= _of_preposition(words, at)
            if at and "without" in word.meanings and words[at - 1].text.endswith(" w"):
                found.add("contrast")  # "T1 W WO"
        elif "agent" in word.meanings and not _is_taken(words, at) and not _is_id(words, at):
            found.add("contrast")
    return found


def _of_preposition(words: Sequence[Word], at: int) -> set[str]:
    """What "without" or "post" and the words after it state."""
    word, rest = words[at], list(words[at + 1 :])
    kind = "native" if "without" in word.meanings else "contrast"
    # "with and without": two images, or the wrong one.
    skipped = 0
    while rest and skipped < 3 and rest[0].text in _FILLERS:
        rest, skipped = rest[1:], skipped + 1
    following = rest[0] if rest else None
    if following and following.meanings & {"with", "without"} and following.text != "+":
        return {"contrast", "native"}
    if following and ("agent" in following.meanings or following.text in ("c", "k")):
        return {kind}
    # Without an agent, "post" and "pre" alone state it, unless a time follows.
    if word.text == "post" and not (following and following.text in _TIMES):
        return {"contrast"}
    alone = word.text == "pre" or ("without" in word.meanings and following is None)
    if alone and not (following and following.text in _TIMES):
        return {"native"}
    return set()


def _is_taken(words: Sequence[Word], at: int) -> bool:
    """Whether a preposition before the agent was counted with it."""
    before = list(words[:at])
    while before and before[-1].text in _FILLERS:
        before.pop()
    return bool(before) and bool(before[-1].meanings & {"with", "without", "post"})


def _is_id(words: Sequence[Word], at: int) -> bool:
    """Whether the word is a patient's id with its number, before the image ("CE_001_t1")."""
    if at or len(words) < 2 or not words[1].text.isdigit():
        return False
    return bool(_bases(words[2:]))


# ---- the identity ----


@functools.lru_cache(4096)
def read(text: str, in_file_name: bool = False) -> Reading:
    """What ``text`` states about an image.

    Args:
        text: the name of a channel or a series; or of a file, without its extension.
        in_file_name: words with other meanings in the names of files are no evidence.
    """
    load_more()
    text = unicodedata.normalize("NFC", text)
    for pattern, words in _SLASHED:
        text = pattern.sub(words, text)
    subject = _SUBJECT.match(text) if in_file_name else None
    head, rest = (subject[0], text[subject.end() :]) if subject else ("", text)
    if subject:
        rest = _without_entities(rest)
    found = _joined_b_values(_words(rest))
    if in_file_name:
        found = _without_weak(found)
    runs = [run for run in _runs(found) if _names_image(run)]
    if not runs:
        return Reading("", has_evidence=False)
    # Words that name different images are no evidence for one of them.
    identities = {_identity(run, ()) for run in runs}
    identity = _identity(runs[-1], found) if len(identities) == 1 else ""
    if _is_derived(found) or (in_file_name and _may_be_visit(found)) or _has_lone_c(found):
        identity = ""
    modality, states_contrast = _modality(found), bool(_contrast(found))
    if subject:
        return Reading(identity, head, "", modality, states_contrast)
    # Numbers at the ends of the run belong to the patient or to the scan.
    run = _trimmed(runs[-1])
    before, after = rest[: run[0].start], rest[run[-1].stop :]
    return Reading(identity, before, after, modality, states_contrast)


def _without_entities(text: str) -> str:
    """The rest of a BIDS name without its entities; the values of some are kept as words."""
    kept = []
    for part in text.split("_"):
        found = _ENTITY.fullmatch(part)
        if found is None:
            kept.append(part)
        elif found[1] == "ce":
            kept.append("native" if found[2].lower() in ("none", "no", "pre") else "contrast agent")
        elif found[1] in _READ_ENTITIES:
            kept.append(found[2])
    return "_".join(kept)


def _without_weak(words: Sequence[Word]) -> list[Word]:
    """The words without the meanings of weak ones, except where they end the name, or only words
    with a meaning are there.
    """
    if all(word.meanings for word in words):
        return list(words)
    strong = any(_names_image([word]) and not _is_weak(word) for word in words)
    last = max((n for n, word in enumerate(words) if word.meanings != {"measure"}), default=-1)
    return [
        replace(word, meanings=frozenset())
        if _is_weak(word) and (strong or (n != last and not (n == 0 and word.text == "ct")))
        else word
        for n, word in enumerate(words)
    ]


def _is_weak(word: Word) -> bool:
    return word.text in WEAK or any(m == "kernel" or m.startswith("b=") for m in word.meanings)


def _runs(words: Sequence[Word]) -> list[list[Word]]:
    """Groups of neighbouring words that have a meaning."""
    runs: list[list[Word]] = [[]]
    for word in words:
        if word.meanings:
            runs[-1].append(word)
        else:
            runs.append([])
    return [run for run in runs if run]


def _names_image(words: Sequence[Word]) -> bool:
    meanings = {meaning for word in words for meaning in word.meanings}
    implied = any(m.startswith(("implies", "b=")) for m in meanings)
    evidence = {*PHASES, *TRACERS, "in phase", "out of phase", "kernel"}
    return bool(_bases(words)) or implied or bool(meanings & evidence)


def _is_derived(words: Sequence[Word]) -> bool:
    """Whether a word says that the image is made from others, or is no image of the anatomy; some
    images are maps by nature.
    """
    derived = {word.text for word in words if "derived" in word.meanings}
    meanings = {meaning for word in words for meaning in word.meanings}
    of_signal = "phase" in meanings and not meanings & {*PHASES, "in phase", "out of phase", "CT"}
    is_map = derived <= {"map", "maps"} and bool(_bases(words)) and _bases(words) <= {*MAPS, "DWI"}
    return of_signal or (bool(derived) and not is_map)


def _may_be_visit(words: Sequence[Word]) -> bool:
    """Whether a lone "post" precedes the image: a visit, or contrast."""
    first = next((n for n, word in enumerate(words) if _names_image([word])), 0)
    return any(
        word.text == "post" and not (n + 1 < len(words) and "agent" in words[n + 1].meanings)
        for n, word in enumerate(words[:first])
    )


def _has_lone_c(words: Sequence[Word]) -> bool:
    """Whether "T1 C" could be T1 post-contrast, or without."""
    return any(
        word.text == "c" and before.meanings & {"T1", "implies T1"}
        for before, word in pairwise(words)
    )


def _trimmed(run: Sequence[Word]) -> Sequence[Word]:
    image = [n for n, word in enumerate(run) if _names_image([word]) and not _is_number(word)]
    image = image or [n for n, word in enumerate(run) if _names_image([word])]
    first, last = 0, len(run) - 1
    while first < image[0] and _is_number(run[first]):
        first += 1
    while last > image[-1] and _is_number(run[last]):
        last -= 1
    return run[first : last + 1]


def _is_number(word: Word) -> bool:
    return "measure" in word.meanings or bool(_b_values([word]))


def _modality(words: Sequence[Word]) -> str:
    """CT, PET or MR if the words state it; a phase alone is of either."""
    bases, meanings = _bases(words), {m for word in words for m in word.meanings}
    stated = {"CT": "CT", "PET": "PET"}
    found = {stated.get(base, "MR") for base in bases - {*PERFUSION, *NO_MODALITY}}
    found |= {"MR"} & meanings
    found |= {"CT"} if "kernel" in meanings else set()
    return found.pop() if len(found) == 1 else ""


def _identity(run: Sequence[Word], name: Sequence[Word]) -> str:
    """The identity of neighbouring words; contrast is stated anywhere in the name."""
    meanings = {meaning for word in run for meaning in word.meanings}
    bases = _resolved(_bases(run), meanings, _b_values(run))
    contrast = _contrast(name or run)
    phases = [phase for phase in PHASES if phase in meanings]
    if len(bases) != 1 or contrast == {"contrast", "native"} or len(phases) > 1:
        return ""
    (base,) = bases
    if base in PERFUSION:
        return ", ".join([base, *(m for m in ("CT", "MR") if m in meanings)])
    if base == "CT":
        return "" if "MR" in meanings else _ct(phases, contrast, meanings)
    if base == "PET":
        return ", ".join(["PET", *(m for m in (*TRACERS, "SUV") if m in meanings)])
    if base == "DWI":
        return _dwi(_b_values(run))
    return _mr(base, phases, contrast, meanings)


def _dwi(b_values: set[int]) -> str:
    """Without diffusion weighting it is another image; several weightings are not told apart."""
    if len(b_values) != 1:
        return "DWI"
    (value,) = b_values
    return f"DWI, b={value}" if value else "DWI b=0"


def _resolved(bases: set[str], meanings: set[str], b_values: set[int]) -> set[str]:
    """The bases after the rules on words that occur together."""
    implied = {m.removeprefix("implies ") for m in meanings if m.startswith("implies ")}
    bases = bases or implied
    if len(bases & set(PERFUSION)) == 1 and bases - set(PERFUSION) <= {"CT"}:
        bases = bases & set(PERFUSION)
    elif "perfusion" in bases and len(bases & set(PERFUSION)) == 2:
        bases = _resolved(bases - {"perfusion"}, meanings, b_values)
    bases = {TOGETHER.get(frozenset(bases), "")} if frozenset(bases) in TOGETHER else bases
    if "gradient echo" in meanings and bases == {"T2"}:
        return {"T2*"}
    if not bases and b_values:
        return {"DWI"}
    if not bases and meanings & {"in phase", "out of phase"}:
        return {"T1"}
    if not bases and meanings & set(TRACERS):
        return {"PET"}
    if not bases and meanings & {*PHASES, "kernel"}:
        return {"CT"}
    return bases


def _ct(phases: Sequence[str], contrast: set[str], meanings: set[str]) -> str:
    more = list(phases) or (["contrast-enhanced"] if contrast == {"contrast"} else [])
    if "angiography" in meanings:
        more = ["angiography", *phases]
    if contrast == {"native"}:
        if more:
            return ""
        more = ["without contrast"]
    return ", ".join(["CT", *more, *(["resampled"] if "resampled" in meanings else [])])


def _mr(base: str, phases: Sequence[str], contrast: set[str], meanings: set[str]) -> str:
    weighted = base in ("T1", "T2", "PD")
    base = _sequence(base, meanings) if weighted else base
    if not base or (phases and contrast == {"native"}):
        return ""
    # The phase of a dynamic T1 study is that of a contrast agent.
    phases = phases if base.startswith("T1") else ()
    if phases or contrast == {"contrast"}:
        base = f"{base} post-contrast"
    suppressed = weighted and "fat-suppressed" in meanings
    return ", ".join([base, *phases, *(["fat-suppressed"] if suppressed else [])])


def _sequence(base: str, meanings: set[str]) -> str:
    """T1, T2 or PD, with what makes it another image; "" if it is not known which one it is."""
    # A magnitude of inversion recovery is FLAIR or STIR; with T1 it is a sequence of its own.
    if "inversion recovery" in meanings and "implies T1" not in meanings:
        return "T1 inversion recovery" if base == "T1" else ""
    # Water and fat are images only of a Dixon sequence, which always has several.
    images = {"in phase", "out of phase"}
    if "Dixon" in meanings:
        images |= {"water", "fat"}
    found = meanings & images
    if len(found) > 1 or ("Dixon" in meanings and not found):
        return ""
    return " ".join([base, *found])
