"""Bundle: a model in one file (plan, labels, weights and card); loading it runs no code.

The file is an uncompressed zip of ``bundle.json``, ``plan.json``, ``card.json`` and one safetensors
file per member. The zip comment is the SHA-256 of all bytes before it, so any changed byte is
detected. A member may also have the topology of its network, a JSON file (see
``inference.topology``). ``id`` depends only on plan, weights, bounds and topologies: two training
runs with the same result have the same id. The weights of a training that is not finished are
safetensors files of their own, with a digest of all bytes (``save_tensors``). This module knows
neither torch nor how a network is built; tensors are numpy arrays here.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from . import atomic
from .errors import BundleError, InputError
from .inputs import parse_json, refuse_special, special_kind
from .labels import LabelSet
from .outputs import refuse_replacing
from .plan import Plan
from .progress import Say
from .schema import SCHEMAS, migrate

Weights = Mapping[str, NDArray[Any]]
_DIGEST = len(hashlib.sha256().hexdigest())
_BLANK = b"-" * _DIGEST
# Metadata of a safetensors file before its digest is known.
NO_DIGEST = {"sha256": _BLANK.decode()}


@dataclass(frozen=True)
class Member:
    """One trained network of a bundle; members are averaged by ``weight`` on the prepared grid.

    ``view`` names one of the plan's views. ``first_stage`` marks a network of the
    low-resolution plan, which is part of a cascade or finds where structures are. ``bounds`` has
    the lower and upper bound, (2,) float32, of the input of each layer that can be quantised to 8
    bits, by layer name (see ``inference.int8``); it is empty if no bounds were chosen. ``graph`` is
    the topology of the network as text (see ``inference.topology``), "" if it has none.
    """

    name: str
    weights: Weights = field(repr=False)
    fold: int | None = None
    weight: float = 1.0
    view: str = ""
    first_stage: bool = False
    bounds: Weights = field(default_factory=dict, repr=False)
    graph: str = field(default="", repr=False)


@dataclass(frozen=True)
class Bundle:
    """A model.

    Args:
        plan: how scans are preprocessed and how the network is built.
        members: at least one, with unique names.
        card: provenance as plain data: data hashes, scores, licence, measured time and memory,
            versions.
        plan_text: the text of ``plan.json`` in the file; written from ``plan`` if it does not
            describe the same plan.

    Raises:
        BundleError: no members, repeated names, views that the plan lacks, or the wrong stages.

    >>> bundle = Bundle.load("liver.model")
    >>> bundle.labels.names, [member.name for member in bundle.members]
    (['left part', 'right part'], ['fold_0'])
    >>> bundle.save("copy.model")
    >>> Bundle.is_bundle("copy.model"), Bundle.load("copy.model").id == bundle.id
    (True, True)
    >>> bundle.id in bundle.known_ids
    True
    >>> bundle.finds_coarsely, bundle.segmenting == bundle.members
    (False, True)
    >>> bundle.release_weights()
    """

    plan: Plan
    members: tuple[Member, ...]
    card: dict[str, Any] = field(default_factory=dict, repr=False)
    plan_text: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        # The text of the file is kept if it describes the plan, because the id depends on it.
        if not self.plan_text or Plan.from_json(self.plan_text) != self.plan:
            object.__setattr__(self, "plan_text", self.plan.to_json())
        # Members must be distinct, and of the views and stages of the plan.
        names = [m.name for m in self.members]
        if not names or len(set(names)) != len(names):
            raise BundleError(f"a bundle needs members with unique names, found {names}")
        known = set(self.plan.named_views()) or {""}
        unknown = {m.view for m in self.members} - known
        stages = {m.first_stage for m in self.members}
        if stages != ({False, True} if self.plan.cascade or self.finds_coarsely else {False}):
            raise BundleError(
                "a plan with a cascade or a coarse pass needs members of both stages; others have "
                "no first-stage members"
            )
        if unknown:
            raise BundleError(
                f"members of unknown views {sorted(unknown)}; the plan has {sorted(known)}"
            )

    @property
    def labels(self) -> LabelSet:
        return self.plan.labels

    @property
    def finds_coarsely(self) -> bool:
        """Whether the first stage only finds where structures are (``Inference.coarse``)."""
        return self.plan.inference.coarse > 0

    @property
    def segmenting(self) -> tuple[Member, ...]:
        """All members except those that only find where structures are."""
        return tuple(m for m in self.members if not (m.first_stage and self.finds_coarsely))

    @property
    def known_ids(self) -> tuple[str, ...]:
        """The bundle's id and all former ids, from before it was rewritten."""
        return (self.id, *self.card.get("former_ids", ()))

    @cached_property
    def id(self) -> str:
        """16 hex digits of the SHA-256 of the stored plan text, weights, bounds and topologies.

        The plan text is the one in the file, so a field that a later version adds to plans changes
        no model's id.
        """
        digest = hashlib.sha256(self.plan_text.encode())
        for member in self.members:
            view = f"{member.view} first stage" if member.first_stage else member.view
            digest.update(
                f"{member.name} {view} {member.weight!r} {weights_sha256(member.weights)}".encode()
            )
            if member.bounds:
                digest.update(weights_sha256(member.bounds).encode())
            if member.graph:
                digest.update(f"graph {hashlib.sha256(member.graph.encode()).hexdigest()}".encode())
        return digest.hexdigest()[:16]

    def release_weights(self) -> None:
        """Drop the weights from memory, once the networks have them. They are read from the file
        again when they are used; those of a bundle that was not loaded are kept.
        """
        for member in self.members:
            if isinstance(member.weights, _StoredWeights):
                member.weights.release()

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the file in one step.

        Args:
            path: the file, a model or none yet.
            overwrite: whether another kind of file is replaced.

        Raises:
            OutputError: it cannot be written, or is no model; an existing file is unchanged.
        """
        from safetensors.numpy import save

        refuse_foreign(path, overwrite)

        def packed(arrays: Weights) -> bytes:
            # np.ascontiguousarray would turn scalars into arrays of one value.
            return save({k: np.asarray(v, order="C") for k, v in arrays.items()})

        # Files of the zip, and the entry of each member in bundle.json.
        files = {
            "plan.json": self.plan_text.encode(),
            "card.json": json.dumps(self.card, indent=1).encode(),
        }
        members = []
        for m in self.members:
            files[f"weights/{m.name}.safetensors"] = packed(m.weights)
            if m.bounds:
                files[f"bounds/{m.name}.safetensors"] = packed(m.bounds)
            if m.graph:
                files[f"graphs/{m.name}.json"] = m.graph.encode()
            members.append(
                {"name": m.name, "fold": m.fold, "weight": m.weight, "view": m.view}
                | ({"first_stage": True} if m.first_stage else {})
            )
        head = {
            "delineate_bundle": SCHEMAS["delineate_bundle"],
            "delineate": __version__,
            "id": self.id,
            "members": members,
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        }
        raw = _zip({"bundle.json": json.dumps(head, indent=1).encode(), **files})
        atomic.write_bytes(path, raw)

    @classmethod
    def load(cls, path: str | Path) -> Bundle:
        """Read and verify the file.

        Raises:
            InputError: there is no such file.
            BundleError: not a bundle, of another version, or changed since it was written.
        """
        path = Path(path)
        raw = _bytes_of(path)
        # The bytes are hashed while the parts are read and hashed for the id. If they are damaged,
        # that is why something else went wrong.
        with ThreadPoolExecutor(1) as pool:
            intact = pool.submit(_is_intact, raw)
            try:
                found = cls._parsed(raw, path)
            except Exception:
                _refuse_damaged(intact.result(), path)
                raise
            _refuse_damaged(intact.result(), path)
        return found

    @classmethod
    def _parsed(cls, raw: bytes, path: Path) -> Bundle:
        """The bundle in the bytes of a file, not verified but for its id; raises as ``load``."""
        try:
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                # The header first: a newer schema must be refused before its parts are read.
                head = parse_json(archive.read("bundle.json"))
                if "delineate_bundle" not in head:
                    raise KeyError("delineate_bundle")
                head = migrate("delineate_bundle", head, path=str(path), error=BundleError)
                plan_text = archive.read("plan.json").decode()
                plan = Plan.from_json(plan_text, f"{path}: plan.json")
                stored = _Stored(path, head["id"])
                members = tuple(_read_member(archive, entry, stored) for entry in head["members"])
                found = cls(plan, members, parse_json(archive.read("card.json")), plan_text)
                # The checksum proves that the file is as written, the id that its parts belong
                # together.
                if found.id != head["id"]:
                    raise BundleError(
                        f"has the id {head['id']} in its header, but its content has the id "
                        f"{found.id}: it was assembled from parts of different models",
                        path=path,
                    )
                return found
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            raise BundleError(
                f"is not a delineate model ({type(error).__name__}: {error})", path=path
            ) from error

    @staticmethod
    def is_bundle(path: str | Path) -> bool:
        """Whether the file looks like a bundle; fast, does not verify it."""
        if special_kind(path):
            return False
        try:
            with Path(path).open("rb") as file:
                # The name of the first file in a zip follows its 30-byte header.
                return file.read(64)[30:41] == b"bundle.json"
        except OSError:
            return False


class _Stored:
    """The weights of all members of a model file, which are read from it again after a release."""

    def __init__(self, path: Path, bundle: str):
        self._path, self._bundle = path.absolute(), bundle
        self.arrays: dict[str, Weights] = {}  # by member

    def of(self, member: str) -> Weights:
        """Those of a member.

        Raises:
            InputError: the file is no longer there.
            BundleError: the file is no longer the same model.
        """
        arrays = self.arrays  # another thread may release them at any time
        if member not in arrays:
            found = Bundle.load(self._path)
            if found.id != self._bundle:
                raise BundleError(
                    f"has changed while it was used: its id was {self._bundle} and is {found.id}",
                    path=self._path,
                )
            self.arrays = arrays = {one.name: dict(one.weights) for one in found.members}
        return arrays[member]


class _StoredWeights(Weights):
    """The weights of one member of a model file; raises as ``_Stored.of`` when they are used."""

    def __init__(self, stored: _Stored, member: str):
        self._stored, self._member = stored, member

    def release(self) -> None:
        self._stored.arrays = {}

    def _all(self) -> Weights:
        return self._stored.of(self._member)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self._all()),)  # another process may not see the file


def refuse_foreign(path: str | Path, overwrite: bool = False) -> None:
    """Refuse to replace a file that is no model.

    Raises:
        OutputError: there is one.
    """
    if not overwrite and os.path.lexists(path) and not Bundle.is_bundle(path):
        refuse_replacing(path)


def save_tensors(path: Path, raw: bytes) -> None:
    """Write a safetensors file, whose metadata have ``NO_DIGEST``, with its digest; the file that
    it replaces is kept as ``before_of(path)``.

    Raises:
        OutputError: it cannot be written; the existing file is unchanged.
    """
    start, view = raw.index(_BLANK), memoryview(raw)
    # In parts: a copy would need the memory of the file once more.
    parts = view[:start], _digest_of(raw, start), view[start + _DIGEST :]
    atomic.write_bytes(path, *parts, before=before_of(path))


def load_tensors(path: Path, say: Say) -> tuple[bytes, dict[str, str]]:
    """A safetensors file and its metadata. A damaged file is replaced by the one before it.

    Args:
        path: the file; one of an earlier version has no digest.
        say: receives a sentence about a damaged file.

    Raises:
        InputError: it is damaged, and there is none before it.
    """
    try:
        return _verified_tensors(path)
    except InputError as error:
        try:
            raw, metadata = _verified_tensors(before_of(path))
        except InputError:
            raise error from None
        say(f"{error}; the one saved before it is used")
        atomic.write_bytes(path, raw)
        return raw, metadata


def save_weights(path: Path, weights: Weights) -> None:
    """Write the weights of one network; see ``save_tensors``."""
    from safetensors.numpy import save

    arrays = {name: np.asarray(array, order="C") for name, array in weights.items()}
    save_tensors(path, save(arrays, NO_DIGEST))


def load_weights(path: Path, say: Say) -> Weights:
    """The weights of one network; see ``load_tensors``."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(load_tensors(path, say)[0])
    except SafetensorError as error:
        raise InputError(f"is damaged ({error})", path=path) from error


def before_of(path: Path) -> Path:
    """The name of the file that the file at ``path`` replaced."""
    return path.with_name(f"{path.stem}_before{path.suffix}")


def _verified_tensors(path: Path) -> tuple[bytes, dict[str, str]]:
    try:
        raw = path.read_bytes()
        end = 8 + int.from_bytes(raw[:8], "little")
        metadata = dict(parse_json(raw[8:end]).get("__metadata__", {}))
        digest = metadata.get("sha256")
        if digest and _digest_of(raw, raw.index(digest.encode(), 8, end)) != digest.encode():
            raise ValueError("its SHA-256 does not match")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error
    except (ValueError, AttributeError, TypeError, OverflowError) as error:
        raise InputError(f"is damaged ({error})", path=path) from error
    return raw, metadata


def _digest_of(raw: bytes, start: int) -> bytes:
    """SHA-256, as hex digits, of all bytes except the ``_DIGEST`` ones at ``start``."""
    digest = hashlib.sha256(memoryview(raw)[:start])
    digest.update(memoryview(raw)[start + _DIGEST :])
    return digest.hexdigest().encode()


def graphs_beside(model: str | Path) -> Path:
    """The folder for graphs compiled from a model file; it may be deleted at any time."""
    return Path(f"{model}.graphs")


def weights_sha256(weights: Weights) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of all arrays, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)  # without a copy
    return digest.hexdigest()


def _bytes_of(path: Path) -> bytes:
    """The content of a file that looks like a bundle.

    Raises:
        InputError: it cannot be read.
        BundleError: a folder, or another kind of file.
    """
    if path.is_dir():
        raise BundleError("is a folder; a model is a single file", path=path)
    refuse_special(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error
    # The signature distinguishes another kind of file from a damaged bundle.
    if not raw.startswith(b"PK\x03\x04"):
        raise BundleError(
            "is not a delineate model (expected a file written by `delineate train -o`)",
            path=path,
        )
    return raw


def _is_intact(raw: bytes) -> bool:
    """Whether the bytes of a bundle have the checksum at their end."""
    content = memoryview(raw)[:-_DIGEST]
    return hashlib.sha256(content).hexdigest().encode() == raw[-_DIGEST:]


def _refuse_damaged(is_intact: bool, path: Path) -> None:
    if not is_intact:
        raise BundleError(
            "has been changed or damaged since it was written: its SHA-256 does not match; "
            "copy it again",
            path=path,
        )


def _read_member(archive: zipfile.ZipFile, entry: dict[str, Any], stored: _Stored) -> Member:
    """The member that ``entry`` of ``bundle.json`` describes, with its arrays."""
    from safetensors.numpy import load

    bounds, graph = f"bounds/{entry['name']}.safetensors", f"graphs/{entry['name']}.json"
    names = archive.namelist()
    stored.arrays[entry["name"]] = load(archive.read(f"weights/{entry['name']}.safetensors"))
    return Member(
        entry["name"],
        _StoredWeights(stored, entry["name"]),
        entry["fold"],
        entry["weight"],
        entry.get("view", ""),
        entry.get("first_stage", False),
        load(archive.read(bounds)) if bounds in names else {},
        archive.read(graph).decode() if graph in names else "",
    )


def _zip(files: dict[str, bytes]) -> bytes:
    """An uncompressed zip whose comment is the SHA-256 of all bytes before it.

    Dates are fixed, so equal content gives equal bytes.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
        # The comment must have its final length before the digest is computed.
        archive.comment = b"0" * _DIGEST
    raw = buffer.getvalue()
    return raw[:-_DIGEST] + hashlib.sha256(raw[:-_DIGEST]).hexdigest().encode()
