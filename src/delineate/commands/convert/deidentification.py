"""DICOM objects without what identifies a person: the part of ``convert`` for ``--deidentify``.

All headers are read first, so that a name in one object is found in the texts of all objects of the
patient. Messages never show names: parts of paths that have one are written as "*".
"""

from __future__ import annotations

import csv
import io
import os
import re
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...core import atomic
from ...core.errors import DelineateError, FormatError, InputError, OutputError, UsageError
from ...core.inputs import read_text
from ...core.outputs import state_folder
from ...core.progress import Progress
from ...extras import require_extra
from ...formats import archive, dicom
from ...formats.dicom.deidentify import (
    OPTIONS,
    Identities,
    Patient,
    Profile,
    Pseudonyms,
    text_in,
    without_rest,
)
from ...formats.dicom.deidentify import deidentify as clean
from ...formats.dicom.header.file import DICOMDIR, dataset_in, open_dataset
from ...formats.disk import HEAD_BYTES, natural_key
from ..options import ConvertOptions

KEY_VARIABLE = "DELINEATE_DEIDENTIFY_KEY"
FEWEST_CHARACTERS = 16  # of a key
_HELD_BYTES = 1 << 26  # of files that are kept between the two passes
_WRITTEN_TOGETHER = 64  # files that get their names at once
_SAFE = re.compile(r"[\w.+-]{1,64}")

__all__ = ["Deidentification", "deidentify"]


@dataclass(frozen=True)
class Deidentification:
    """What was written: folders of series, refused files with the reason, and notes, all without
    names; and how.
    """

    folders: tuple[Path, ...]
    refused: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    profile: Profile


def deidentify(
    source: Path, target: Path, options: ConvertOptions, progress: Progress
) -> Deidentification:
    """Write the DICOM objects of a folder, an archive or a file to new files in ``target``:
    PATIENT/STUDY/SERIES/INSTANCE.dcm by the new ids.

    Raises:
        UsageError: an option that is not allowed, or a missing package.
        InputError: no file can be de-identified, or a key that cannot be used.
        OutputError: the target is inside the source, or the key inside the target.
    """
    require_extra("dicom", "--deidentify")
    profile, notes = _profile_of(target, options)
    if target.resolve().is_relative_to(source.resolve()):
        raise OutputError("is inside the input; choose another output", path=target)
    work = _Work(source, target, profile, options.overwrite)
    others = work.read_headers()
    found = work.found
    for start in range(0, len(found), _WRITTEN_TOGETHER):
        with atomic.together():
            for n in range(start, min(start + _WRITTEN_TOGETHER, len(found))):
                progress("de-identify", n, len(found), "")
                work.write(n)
    refused = tuple((work.name(n), why) for n, why in sorted(work.failed.items()))
    if not work.folders:
        raise FormatError(
            f"none of {len(found)} DICOM files can be de-identified: {dicom.table(refused)}"
        )
    if others:
        notes.append(f"{others} other files are no DICOM objects and are left out")
    if work.indexes:
        notes.append(f"{work.indexes} DICOMDIR files are left out: they list names")
    if work.mosaics:
        notes.append(
            f"{work.mosaics} files are mosaics, which cannot be read as volumes without their "
            "private elements; convert the originals to NIfTI, which holds no names"
        )
    if work.invalid:
        notes.append(f"{work.invalid} elements that violate the standard were removed")
    return Deidentification(tuple(work.folders), refused, tuple(notes), profile)


# ---- the files ----


@dataclass
class _Work:
    """The files of one call, with the patient of each and the names that identify patients."""

    source: Path
    target: Path
    profile: Profile
    overwrite: bool
    found: list[Path] = field(default_factory=list)
    held: dict[int, bytes] = field(default_factory=dict)
    held_bytes: int = 0
    patients: dict[int, Patient] = field(default_factory=dict)
    known: dict[str, Identities] = field(default_factory=dict)
    digests: dict[Path, bytes] = field(default_factory=dict)
    folders: dict[Path, None] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    invalid: int = 0
    indexes: int = 0
    mosaics: int = 0

    def read_headers(self) -> int:
        """Find the DICOM files, the patient of each, and all names, and return the number of other
        files. Files that fail, and DICOMDIR files, have no patient.

        The first files, up to ``_HELD_BYTES`` in all, stay in memory, so that each is read once;
        names of all must be known before the first is written.
        """
        others = 0
        for path in dicom.files_in(self.source):
            if not self._is_dicom(path):
                is_archive = archive.is_archive(path)
                inside = sorted(archive.members(path), key=natural_key) if is_archive else []
                others += sum(not self._is_dicom(one) for one in inside) + (not is_archive)
        return others

    def _is_dicom(self, path: Path) -> bool:
        """Whether a file is DICOM; then its header is read."""
        with archive.opened(path) as file:
            head = file.read(HEAD_BYTES)
            if not dicom.is_dicom(head):
                return False
            n, nbytes = len(self.found), archive.nbytes_of(file, path)
            self.found.append(path)
            if nbytes is not None and nbytes <= _HELD_BYTES - self.held_bytes:
                self.held[n] = head + file.read(nbytes - len(head))
                self.held_bytes += nbytes
            self._read_header(n, io.BytesIO(self.held[n]) if n in self.held else file)
        return True

    def _read_header(self, n: int, file: Any) -> None:
        with self._refusing(n):
            header = dataset_in(file, stop_before_pixels=True)
            known = Identities.of(header)
            if header.file_meta.get("MediaStorageSOPClassUID") == DICOMDIR:
                self.indexes += 1
                self.known[""] = self.known.get("", Identities()) | known
                return
            patient = self.profile.pseudonyms.patient_of(header)
            self.known[patient.stated] = self.known.get(patient.stated, Identities()) | known
            self.patients[n] = patient

    def write(self, n: int) -> None:
        """Write one file. One that fails costs itself."""
        if n not in self.patients:
            return
        from pydicom import dcmread

        with self._refusing(n):
            content = self.held.pop(n, None)
            dataset = (
                open_dataset(self.found[n]) if content is None else dataset_in(io.BytesIO(content))
            )
            _complete(dataset, self.profile.pseudonyms)
            without_rest(dataset)
            pixels = _digest_of(dataset)
            patient = self.patients[n]
            has_text = bool(text_in(dataset))
            self.invalid += clean(dataset, self.profile, patient, self.known[patient.stated])
            content = _bytes_of(dataset)
            if not has_text and _digest_of(dcmread(io.BytesIO(content))) != pixels:
                raise FormatError("its pixels cannot be written as they are stored")
            study, series = dataset.get("StudyInstanceUID"), dataset.get("SeriesInstanceUID")
            folder = self.target / patient.pseudonym / (study or "study") / (series or "series")
            self.mosaics += "MOSAIC" in (dataset.get("ImageType") or ())
            self._put(folder / f"{dataset.SOPInstanceUID}.dcm", content)
            self.folders[folder] = None

    def _put(self, path: Path, content: bytes) -> None:
        digest = sha256(content).digest()
        if path in self.digests:
            if self.digests[path] != digest:
                raise FormatError("another file has its SOPInstanceUID and other content")
            return  # a copy
        if path.exists() and not self.overwrite:
            if sha256(path.read_bytes()).digest() != digest:
                raise OutputError("exists already; --overwrite replaces it", path=path)
        else:
            atomic.write_bytes(path, content)
        self.digests[path] = digest

    @contextmanager
    def _refusing(self, n: int) -> Iterator[None]:
        """Note why a file fails, without any of its values."""
        try:
            # The warnings of pydicom show values.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except OutputError as error:
            self.failed[n] = str(error)
        except DelineateError as error:
            self.failed[n] = error.message
        except OSError as error:
            self.failed[n] = f"cannot be read ({error.strerror})"
        # pydicom raises anything for damaged files, with values in its messages.
        except Exception as error:
            self.failed[n] = f"it is damaged or violates the standard ({type(error).__name__})"

    def name(self, n: int) -> str:
        """The place of a file in the input, with names as "*"."""
        where, path = f"file {n + 1} of {len(self.found)}", self.found[n]
        if not self.known:  # nothing says which parts are names
            return where
        is_inside = path != self.source and path.is_relative_to(self.source)
        place = self.source if is_inside else self.source.parent
        everyone = Identities(frozenset().union(*(one.words for one in self.known.values())))
        return f"{everyone.masked(path.relative_to(place).as_posix())} ({where})"


def _complete(dataset: Any, pseudonyms: Pseudonyms) -> None:
    """Add what old files lack: the transfer syntax in which they were read, and an instance UID."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if not getattr(dataset.file_meta, "TransferSyntaxUID", ""):
        is_implicit, is_little = dataset.original_encoding
        dataset.file_meta = FileMetaDataset()
        explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
    if not dataset.get("SOPClassUID"):
        dataset.SOPClassUID = dataset.file_meta.get("MediaStorageSOPClassUID", "")
        if not dataset.SOPClassUID:
            raise FormatError("it states no SOP class")
    if not dataset.get("SOPInstanceUID"):
        # Of the pixels and the place, so that slices do not replace each other.
        place = "|".join(str(dataset.get(name)) for name in ("SeriesInstanceUID", "InstanceNumber"))
        dataset.SOPInstanceUID = pseudonyms.uid(f"{place}|{_digest_of(dataset).hex()}")


def _digest_of(dataset: Any) -> bytes:
    """The SHA-256 of the pixels as stored; of nothing if there are none."""
    names = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
    return sha256(
        b"".join(bytes(dataset[one].value or b"") for one in names if one in dataset)
    ).digest()


def _bytes_of(dataset: Any) -> bytes:
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()


# ---- the profile ----


def _profile_of(target: Path, options: ConvertOptions) -> tuple[Profile, list[str]]:
    """The profile that the options describe, and a note if a key was made."""
    words = options.deidentify
    unknown = sorted(set(words) - {"basic", *OPTIONS})
    if unknown or "basic" not in words:
        raise UsageError(
            f"--deidentify is basic, and after it some of {', '.join(OPTIONS)}; found "
            f"{','.join(words)}"
        )
    if options.blacken and "pixels" not in words:
        raise UsageError("--blacken is for --deidentify basic,pixels")
    key, notes = _key_of(options, target)
    given = None if options.pseudonyms is None else _table_of(Path(options.pseudonyms))
    chosen = frozenset(words) - {"basic"}
    return Profile(Pseudonyms(key, given), chosen, options.blacken), notes


def _key_of(options: ConvertOptions, target: Path) -> tuple[bytes, list[str]]:
    """The key: of ``--key``, of the environment, or this user's; made if there is none.

    Raises:
        InputError: it is too short. OutputError: it would be in the target.
    """
    if options.key is None and KEY_VARIABLE in os.environ:
        return _long_enough(os.environ[KEY_VARIABLE], f"the variable {KEY_VARIABLE}"), []
    path = state_folder() / "deidentify.key" if options.key is None else Path(options.key)
    if path.resolve().is_relative_to(target.resolve()):
        raise OutputError("the key must not be in the output folder", path=path)
    notes = []
    if not path.exists():
        atomic.write_secret(path, secrets.token_hex(32).encode())
        notes.append(
            f"made the key {path}, which links new ids to patients: keep it secret, and for later "
            "calls"
        )
    elif os.name != "nt" and path.stat().st_mode & 0o077:
        notes.append(f"other users can read the key {path}; chmod 600 changes that")
    return _long_enough(read_text(path), str(path)), notes


def _long_enough(text: str, where: str) -> bytes:
    key = text.strip().encode()
    if len(key) < FEWEST_CHARACTERS:
        raise InputError(
            f"{where} has a key of {len(key)} characters; allowed are {FEWEST_CHARACTERS} or more"
        )
    return key


def _table_of(path: Path) -> dict[str, str]:
    """Patient id -> pseudonym of a CSV file with two columns and a line of titles.

    Raises:
        InputError: another form, or a pseudonym that two patients have or that is no file name.
    """
    rows = [row for row in csv.reader(io.StringIO(read_text(path))) if row]
    if len(rows) < 2 or any(len(row) != 2 for row in rows):
        raise InputError(
            "a table of pseudonyms has a line of titles, and two columns: patient id, pseudonym",
            path=path,
        )
    found = {stated.strip(): given.strip() for stated, given in rows[1:]}
    if len(set(found.values())) < len(rows) - 1:
        raise InputError("has a patient or a pseudonym twice", path=path)
    for number, given in enumerate(found.values(), start=2):
        if not _SAFE.fullmatch(given) or given.strip(".") == "":
            raise InputError(
                f"the pseudonym of line {number} is not of 1 to 64 letters, digits, and . _ + -",
                path=path,
            )
    return found
