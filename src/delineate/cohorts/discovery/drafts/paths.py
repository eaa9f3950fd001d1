"""The files below a folder in roles: groups of files whose paths differ only in the case.

A path is divided into words and numbers. A word that only images have, or only masks, marks a role
("Bild_01", "Maske_01"); a word that both have belongs to the case, as do all numbers. So no list of
words in any language is needed, and the order of the files does not matter.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ....formats.files import stem
from ..splits import SPLITS
from ..tree import Tree
from .content import Content, Kind, content_of

MOST_FILES = 20_000  # files and folders of DICOM slices that are looked at
DEEPEST = 7  # folders below the root
MOST_READ, MOST_BYTES = 300, 256 << 20  # files whose content is examined, and their size
OF_ONE_FORM = 6  # files of one form that are read first
MOST_SEQUENCES = 6  # words of one form that mark a role, such as t1 and t2
SHORT = 2  # letters of a word for a split that has other meanings too ("Te", "Va")
SHARE_OF_ALL = 0.75  # the same, with files of no clear content
SHARE = 0.9  # of the files with a word that must be of one kind, so that the word marks a role

# Letters and digits, a closing bracket, or separators.
_CHUNK = re.compile(r"[^\W_]+|[)\]]|(?:(?![)\]])[\W_])+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])")
_LETTERS_DIGITS = re.compile(r"[^\W\d_]+|\d+")
_CHANNEL_NUMBER = re.compile(r"000\d")
Sort = Literal["text", "case", "split"]
Word = tuple[bool, str]  # whether it is in the name of a file, not of a folder; the word


@dataclass(frozen=True)
class Entry:
    """One file, or one folder of DICOM slices.

    Args:
        path: where it is.
        parts: the folders below the root and the name without its ending.
        ending: of the name; "" for a folder.
        content: None if it was not examined.
    """

    path: Path
    parts: tuple[str, ...]
    ending: str
    content: Content | None = None

    @property
    def kind(self) -> Kind:
        return self.content.kind if self.content else ""


@dataclass(frozen=True)
class Piece:
    """A piece of one part of a path: text of the role, text of the case, or a word of a split."""

    sort: Sort
    text: str


@dataclass(frozen=True)
class Role:
    """Files whose paths differ only in the case and in the split.

    Args:
        entries: the files.
        pieces: for each file and each part of its path its pieces, all of the same form.
    """

    entries: tuple[Entry, ...]
    pieces: tuple[tuple[tuple[Piece, ...], ...], ...]

    @property
    def ending(self) -> str:
        return self.entries[0].ending

    @property
    def kind(self) -> Kind:
        """The kind that most of the examined files have; "" if none has one."""
        kinds = Counter(entry.kind for entry in self.entries if entry.kind)
        return kinds.most_common(1)[0][0] if kinds else ""

    @property
    def words(self) -> str:
        """The text of the role, with a space between words, for messages and rules of names."""
        first = self.pieces[0]
        texts = [piece.text for part in first for piece in part if piece.sort == "text"]
        return " ".join(re.sub(r"[\W_]+", " ", text).strip() for text in texts).strip()

    def __len__(self) -> int:
        return len(self.entries)


_Row = tuple[Entry, tuple[tuple[Piece, ...], ...]]


def entries_below(root: Path) -> list[Entry]:
    """The images and DICOM folders below ``root``, those with an unclear content included."""
    tree, level, found = Tree(), [root], list[Entry]()
    for _ in range(DEEPEST):
        below: list[Path] = []
        for folder in level:
            if folder != root and tree.is_dicom(folder):
                found.append(Entry(folder, folder.relative_to(root).parts, ""))
            for path in tree.images(folder):
                name = stem(path)
                parts = (*folder.relative_to(root).parts, name)
                found.append(Entry(path, parts, path.name[len(name) :]))
            below += tree.folders(folder)
            if len(found) >= MOST_FILES:
                break
        level = below
    return _examined(found[:MOST_FILES])


def _examined(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, with the content of those that are read: first a few of each form."""
    forms: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for number, entry in enumerate(entries):
        name = re.sub(r"\d+", "#", entry.parts[-1])
        folders = tuple(re.sub(r"\d+", "#", part) for part in entry.parts[:-1])
        forms[(folders, name, entry.ending.lower())].append(number)
    # Spread over each form, then round after round over all forms.
    order = [_spread(numbers) for numbers in forms.values()]
    rounds = [one[n] for n in range(OF_ONE_FORM) for one in order if n < len(one)]
    rest = [number for one in order for number in one[OF_ONE_FORM:]]
    out, spent = list(entries), 0
    for number in [*rounds, *(rest if len(entries) <= MOST_READ else [])][:MOST_READ]:
        path = entries[number].path
        files = path.iterdir() if path.is_dir() else [path]
        spent += sum(one.stat().st_size for one in files if one.is_file())
        if spent > MOST_BYTES:
            break
        out[number] = replace(entries[number], content=content_of(path))
    return out


def _spread(numbers: Sequence[int]) -> list[int]:
    step = max(1, len(numbers) // OF_ONE_FORM)
    first = list(numbers[::step])
    return [*first, *(number for number in numbers if number not in set(first))]


def roles_of(entries: Sequence[Entry]) -> list[Role]:
    """The roles of the files, those with most files first."""
    words = _role_words(entries)
    groups: dict[tuple[object, ...], list[_Row]] = {}
    for entry in entries:
        pieces = _pieces(entry, words)
        key = (_form(pieces), entry.ending.lower())
        groups.setdefault(key, []).append((entry, pieces))
    roles = [
        Role(tuple(e for e, _ in one), tuple(p for _, p in one))
        for group in groups.values()
        for one in _by_kind(group)
    ]
    return sorted(map(_with_common_text, roles), key=len, reverse=True)


def _by_kind(group: Sequence[_Row]) -> list[list[_Row]]:
    """The files of one form; images and masks apart, if it has both."""
    kinds = Counter(entry.kind for entry, _ in group if entry.kind)
    if len(kinds) < 2:
        return [list(group)]
    most = kinds.most_common(1)[0][0]
    return [[row for row in group if (row[0].kind or most) == kind] for kind in kinds]


def _form(pieces: Iterable[Iterable[Piece]]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        tuple(piece.text if piece.sort == "text" else f"{{{piece.sort}}}" for piece in part)
        for part in pieces
    )


# ---- words of roles ----


def with_spaces(part: str) -> str:
    """A part of a path with a space before each further capitalised word ("Train Batch1")."""
    return " ".join(_CAMEL.split(part))


def _tokens(part: str) -> list[str]:
    """The words, numbers and separators of a part of a path ("TrainImages_01" has four)."""
    return [chunk for word in _CAMEL.split(part) for chunk in _CHUNK.findall(word)]


def _chunks(part: str) -> list[str]:
    return [chunk.casefold() for chunk in _tokens(part) if chunk[0].isalnum()]


def _inner(chunk: str) -> list[str]:
    """The letters of a chunk of letters and one number, such as img in img12; [] of another."""
    found = _LETTERS_DIGITS.findall(chunk)
    return [word for word in found if not word.isdigit()] if len(found) == 2 else []


def _role_words(entries: Sequence[Entry]) -> set[Word]:
    """The words that mark a role: at least two files have them, nearly all of one kind."""
    known = _marking(entries, {entry.path: entry.kind for entry in entries})
    # Files of no clear content, such as empty masks, have the kind of their most frequent word.
    kinds = {entry.path: entry.kind or _kind_by_words(entry, known) for entry in entries}
    count = _count(entries, kinds)
    # A word of one case is not a role because only some of its files were examined.
    return {
        word
        for word, (kind, _) in _marking(entries, kinds).items()
        if count[word][kind] >= SHARE_OF_ALL * sum(count[word].values())
    }


def _kind_by_words(entry: Entry, known: Mapping[Word, tuple[Kind, int]]) -> Kind:
    found = [known[word] for word in _words_of(entry) if word in known]
    return max(found, key=lambda one: one[1])[0] if found else ""


def _words_of(entry: Entry) -> set[Word]:
    found = set[Word]()
    last = len(entry.parts) - 1
    for n, part in enumerate(entry.parts):
        chunks = _chunks(part)
        inner = (word for chunk in chunks for word in _inner(chunk))
        found |= {(n == last, word) for word in (*chunks, *inner)}
    return found


def _count(entries: Sequence[Entry], kinds: Mapping[Path, Kind]) -> dict[Word, Counter[Kind]]:
    """Word -> kind -> number of files; "" for files of no known kind."""
    count: dict[Word, Counter[Kind]] = defaultdict(Counter)
    for entry in entries:
        for word in _words_of(entry):
            count[word][kinds[entry.path]] += 1
    return count


def _marking(entries: Sequence[Entry], kinds: Mapping[Path, Kind]) -> dict[Word, tuple[Kind, int]]:
    """Word -> the kind of its files and their number, of the words that mark a role."""
    marking: dict[Word, tuple[Kind, int]] = {}
    count = _count(entries, kinds)
    # The case may be in the folders of the images and in the names of the masks.
    anywhere: dict[str, Counter[Kind]] = defaultdict(Counter)
    for (_, text), of_kind in count.items():
        anywhere[text].update(of_kind)
    numbered = _numbered_words(anywhere)
    for word, of_kind in count.items():
        number = sum(n for kind, n in of_kind.items() if kind)
        text = word[1]
        if number < 2 or (text.isdigit() and not _CHANNEL_NUMBER.fullmatch(text)):
            continue
        if text in numbered:
            continue
        kind: Kind = max(("image", "mask"), key=lambda kind: of_kind[kind])
        everywhere = anywhere[text]["image"] + anywhere[text]["mask"]
        are_alike = min(of_kind[kind] / number, anywhere[text][kind] / everywhere) >= SHARE
        if are_alike and text not in SPLITS:
            marking[word] = (kind, number)
    return marking


def _numbered_words(words: Iterable[str]) -> set[str]:
    """The words whose number belongs to the case: im0001, or frame1 to frame9; not t1 and t2."""
    of_letters: dict[str, set[str]] = defaultdict(set)
    for word in words:
        if inner := _inner(word):
            of_letters[inner[0]].add(word)
    return {
        word
        for letters, ones in of_letters.items()
        for word in ones
        if len(ones) > MOST_SEQUENCES or re.search(r"\D0\d", word)
    }


def _pieces(entry: Entry, words: set[Word]) -> tuple[tuple[Piece, ...], ...]:
    """The pieces of each part of the path; text of the case is one piece from its first to its last
    word, unless a word of the role is between.
    """
    split = ""
    parts = []
    last = len(entry.parts) - 1
    for n, part in enumerate(entry.parts):
        tokens: list[Piece] = []
        for chunk in _tokens(part):
            sort: Sort = "case"
            if chunk in ")]" and tokens:  # it belongs to what is in the brackets
                sort = tokens[-1].sort
            elif not chunk[0].isalnum() or (n == last, chunk.casefold()) in words:
                sort = "text"
            elif split in ("", chunk) and _is_split(chunk, bool(tokens)):
                sort, split = "split", chunk
            inner = _inner(chunk.casefold()) if sort == "case" else []
            if inner and (n == last, inner[0]) in words:
                tokens += [
                    Piece("case" if one.isdigit() else "text", one)
                    for one in _LETTERS_DIGITS.findall(chunk)
                ]
            else:
                tokens.append(Piece(sort, chunk))
        parts.append(_joined(tokens))
    return tuple(parts)


def _is_split(chunk: str, follows: bool) -> bool:
    """Whether a word names a split; the short ones only as an ending ("imagesTr")."""
    is_short = len(chunk) <= SHORT
    return chunk.casefold() in SPLITS and (not is_short or (follows and chunk.istitle()))


def _joined(tokens: Sequence[Piece]) -> tuple[Piece, ...]:
    """Neighbouring tokens of one sort as one; separators between two words of the case are part of
    it.
    """
    out: list[Piece] = []
    for n, token in enumerate(tokens):
        is_between = (
            0 < n < len(tokens) - 1
            and not any(letter.isalnum() for letter in token.text)
            and tokens[n - 1].sort == tokens[n + 1].sort == "case"
        )
        sort = "case" if is_between else token.sort
        if out and out[-1].sort == sort != "split":
            out[-1] = Piece(sort, out[-1].text + token.text)
        else:
            out.append(Piece(sort, token.text))
    return tuple(out)


def _with_common_text(role: Role) -> Role:
    """The role with text of the case that all files share as text of the role, if it is a whole
    piece and there are several files.
    """
    if len(role) < 2:
        return role
    shared = {
        (part, n)
        for part, pieces in enumerate(role.pieces[0])
        for n, piece in enumerate(pieces)
        if piece.sort == "case" and len({one[part][n].text for one in role.pieces}) == 1
    }
    pieces = tuple(
        tuple(
            _joined(
                [
                    Piece("text", piece.text) if (part, n) in shared else piece
                    for n, piece in enumerate(ones)
                ]
            )
            for part, ones in enumerate(one)
        )
        for one in role.pieces
    )
    return Role(role.entries, pieces)
