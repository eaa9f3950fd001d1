"""Bundle: one file that is a model: plan, labels, weights and card; loading it runs no code.

The file is an uncompressed zip of ``bundle.json``, ``plan.json``, ``card.json`` and one safetensors
file a member. Its archive comment is the SHA-256 of everything before it, so a single changed byte
anywhere is seen. ``id`` depends on plan and weights alone: two trainings that gave the same network
give the same id. It knows neither torch nor how a network is built; tensors are numpy arrays here.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from . import atomic
from .errors import BundleError, InputError
from .inputs import refuse_special, special_kind
from .labels import LabelSet
from .plan import Plan
from .schema import SCHEMAS, migrate

Weights = Mapping[str, NDArray[Any]]
_DIGEST = len(hashlib.sha256().hexdigest())


@dataclass(frozen=True)
class Member:
    """One trained network of a bundle; members are averaged by ``weight`` on the prepared grid.

    ``view`` names one of the plan's views; ``first_stage``: of a cascade's low-resolution plan.
    ``bounds``: of layers that can be rounded to 8 bits, (2,) float32 by name (see
    ``inference.int8``); empty where none were found.
    """

    name: str
    weights: Weights = field(repr=False)
    fold: int | None = None
    weight: float = 1.0
    view: str = ""
    first_stage: bool = False
    bounds: Weights = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Bundle:
    """A model.

    Args:
        plan: how scans are prepared and the network is built.
        members: at least one; unique names.
        card: provenance as plain data: data hashes, scores, licence, measured time and memory,
            versions.
    """

    plan: Plan
    members: tuple[Member, ...]
    card: dict[str, Any] = field(default_factory=dict, repr=False)
    plan_text: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.plan_text or Plan.from_json(self.plan_text) != self.plan:
            object.__setattr__(self, "plan_text", self.plan.to_json())
        names = [m.name for m in self.members]
        if not names or len(set(names)) != len(names):
            raise BundleError(f"a bundle has members with unique names, found {names}")
        known = set(self.plan.named_views()) or {""}
        strange = {m.view for m in self.members} - known
        stages = {m.first_stage for m in self.members}
        if stages != ({False, True} if self.plan.cascade else {False}):
            raise BundleError(
                "a cascade has members of both stages, and no other bundle of a first"
            )
        if strange:
            raise BundleError(
                f"members of the views {sorted(strange)}, the plan has {sorted(known)}"
            )

    @property
    def labels(self) -> LabelSet:
        return self.plan.labels

    @property
    def known_ids(self) -> tuple[str, ...]:
        """Its id, and those under which it was known before it was written again."""
        return (self.id, *self.card.get("former_ids", ()))

    @cached_property
    def id(self) -> str:
        """16 hex digits of the SHA-256 of what is stored: the plan's text, weights and bounds.

        The text is the one in the file, so a field that a later version adds to plans changes no
        model's id.
        """
        digest = hashlib.sha256(self.plan_text.encode())
        for member in self.members:
            view = f"{member.view} first stage" if member.first_stage else member.view
            digest.update(
                f"{member.name} {view} {member.weight!r} {weights_sha256(member.weights)}".encode()
            )
            if member.bounds:
                digest.update(weights_sha256(member.bounds).encode())
        return digest.hexdigest()[:16]

    def save(self, path: str | Path) -> None:
        """Write the file in one step.

        Raises:
            OutputError: it cannot be written; what stood there before is unchanged.
        """
        from safetensors.numpy import save

        def packed(arrays: Weights) -> bytes:
            # Scalars stay scalars.
            return save({k: np.asarray(v, order="C") for k, v in arrays.items()})

        files = {
            "plan.json": self.plan_text.encode(),
            "card.json": json.dumps(self.card, indent=1).encode(),
        }
        members = []
        for m in self.members:
            files[f"weights/{m.name}.safetensors"] = packed(m.weights)
            if m.bounds:
                files[f"bounds/{m.name}.safetensors"] = packed(m.bounds)
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
        from safetensors.numpy import load

        path = Path(path)
        if path.is_dir():
            raise BundleError("is a folder, a model is one file", path=path)
        refuse_special(path)
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", path=path) from error
        if not raw.startswith(b"PK\x03\x04"):
            raise BundleError(
                "is not a delineate model (expected the file that `delineate train -o` wrote)",
                path=path,
            )
        if hashlib.sha256(raw[:-_DIGEST]).hexdigest().encode() != raw[-_DIGEST:]:
            raise BundleError(
                "has been changed or damaged since it was written: its SHA-256 does not match; "
                "copy it anew",
                path=path,
            )
        try:
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                head = json.loads(archive.read("bundle.json"))
                if "delineate_bundle" not in head:
                    raise KeyError("delineate_bundle")
                head = migrate("delineate_bundle", head, path=str(path), error=BundleError)
                plan_text = archive.read("plan.json").decode()
                plan = Plan.from_json(plan_text, f"{path}: plan.json")
                members = tuple(
                    Member(
                        m["name"],
                        load(archive.read(f"weights/{m['name']}.safetensors")),
                        m["fold"],
                        m["weight"],
                        m.get("view", ""),
                        m.get("first_stage", False),
                        load(archive.read(bounds))
                        if (bounds := f"bounds/{m['name']}.safetensors") in archive.namelist()
                        else {},
                    )
                    for m in head["members"]
                )
                found = cls(plan, members, json.loads(archive.read("card.json")), plan_text)
                if found.id != head["id"]:
                    raise BundleError(
                        f"is called {head['id']} in its head, and its content is {found.id}: it "
                        "was put together from parts of different models",
                        path=path,
                    )
                return found
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            raise BundleError(
                f"is not a delineate model ({type(error).__name__}: {error})", path=path
            ) from error

    @staticmethod
    def is_bundle(path: str | Path) -> bool:
        """Whether the file looks like a bundle; cheap, does not verify it."""
        if special_kind(path):
            return False
        try:
            with Path(path).open("rb") as file:
                return file.read(64)[30:41] == b"bundle.json"
        except OSError:
            return False


def graphs_beside(model: str | Path) -> Path:
    """The folder where what is compiled of a model's file is kept; it may be deleted at any
    time.
    """
    return Path(f"{model}.graphs")


def weights_sha256(weights: Weights) -> str:
    """SHA-256 over names, dtypes, shapes and bytes in order of name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _zip(files: dict[str, bytes]) -> bytes:
    """An uncompressed zip with fixed dates (equal content, equal bytes) whose comment is the
    SHA-256 of all before it.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
        archive.comment = b"0" * _DIGEST
    raw = buffer.getvalue()
    return raw[:-_DIGEST] + hashlib.sha256(raw[:-_DIGEST]).hexdigest().encode()
