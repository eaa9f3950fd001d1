"""Scans from archives, and results back to them.

A series becomes the folder ``OUT/fetched/STUDY/SERIES``, which the layouts then read as any other.
What was sent is recorded in the entry of its case, object by object, so that a call after one that
was killed sends the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...core import atomic
from ...core.errors import DelineateError, InputError, OutputError, UsageError
from ...core.manifest import ABSENT, Case, Manifest
from ...core.plan import Plan
from ...core.progress import Progress, Say
from ...core.terms import contradicts_modality
from ...execution import local as batch
from ...execution.claims import CLAIM, claimed
from ...formats.dicom import remote
from ...formats.dicom.remote import Access, Address, Archive
from ..options import PredictOptions
from .journal import Journal
from .objects import KINDS, file_of

FETCHED = "fetched"
# Modalities of objects that are no scans (PS3.3, C.7.3.1.1.1).
NO_SCANS = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTRECORD", "PR", "SR", "KO", "REG", "DOC", "OT")
Outcome = batch.Outcome[dict[str, Any]]


@dataclass(frozen=True)
class Fetched:
    """Inputs on the disk.

    Args:
        inputs: local inputs, and the folders of what was fetched.
        origins: folder of a study -> the address of its archive.
        failures: address of a series or study -> why it was not fetched.
    """

    inputs: tuple[str | Path, ...]
    origins: Mapping[Path, Address] = field(default_factory=dict)
    failures: Mapping[str, DelineateError] = field(default_factory=dict)

    def origin_of(self, case: Case) -> Address | None:
        """The archive that the scan came from; None for a local one."""
        source = next(image for image in case.images if image != ABSENT)
        near = (Path(source.path), *Path(source.path).parents)
        return next((self.origins[place] for place in near if place in self.origins), None)


def asked(options: PredictOptions, inputs: Sequence[str | Path]) -> PredictOptions:
    """The options with the object that is sent by default.

    Raises:
        UsageError: shards of an archive, options that exclude each other, or nothing to send back
            to.
    """
    if options.shard is not None and any(map(remote.is_remote, inputs)):
        raise UsageError(
            "--shard is for scans on a disk: of an archive, every shard would fetch all of them; a "
            "work list of its series can be shared (docs/how-to/work-lists.md)"
        )
    if not (options.send or options.send_to):
        return options
    if options.send and options.send_to:
        raise UsageError("--send and --send-to exclude each other")
    if options.send_to and Address.of(options.send_to).study:
        raise UsageError("--send-to names an archive, without a study; give INPUT apart from it")
    local = [str(one) for one in inputs if not remote.is_remote(one)]
    if options.send and (local or not inputs):
        what = local[0] if local else "the scan of --channels"
        raise UsageError(
            f"--send sends to the archive that a scan came from, and {what} came from none; "
            "--send-to names one"
        )
    return options if options.objects else replace(options, dicom_seg=True)


def fetched(
    inputs: Sequence[str | Path],
    out: str | Path,
    plan: Plan,
    options: PredictOptions,
    say: Say,
    progress: Progress,
) -> Fetched:
    """Fetch the inputs that are addresses of archives to ``out``.

    Raises:
        UsageError: an address of another form or without a study, or a missing package.
        OutputError: another process works in ``out``, or it cannot be written.
    """
    if not any(map(remote.is_remote, inputs)):
        return Fetched(tuple(inputs))
    access = Access.of_environment()
    addresses = {one: Address.of(one) for one in inputs if remote.is_remote(one)}
    if whole := [address for address in addresses.values() if not address.study]:
        raise UsageError(f"{whole[0]}: names no study; give its StudyInstanceUID")
    found: list[str | Path] = []
    origins: dict[Path, Address] = {}
    failures: dict[str, DelineateError] = {}
    complete: set[Path] = set()
    with claimed(atomic.make_folder(out) / CLAIM):
        for one in inputs:
            if one not in addresses:
                found.append(one)
                continue
            address = addresses[one]
            owner = replace(address, study="", series="")
            study = Path(out).absolute() / FETCHED / address.study
            if origins.setdefault(study, owner) != owner:  # another archive has this study too
                named = sha256(str(owner).encode()).hexdigest()[:8]
                study = study.with_name(f"{address.study}-{named}")
                origins[study] = owner
            try:
                archive = _connect(address, access, options)
                folders = _fetch(archive, address, study, plan, failures, say, progress)
            except UsageError:
                raise
            except DelineateError as error:
                failures[str(address)] = error
                continue
            complete.update(folders)
            # Series of one study are the channels of one scan.
            found += [study] if len(plan.channels) > 1 and folders else folders
    found = list(dict.fromkeys(found))
    for study in [one for one in found if one in origins]:
        if left := sorted(path.name for path in set(Path(study).iterdir()) - complete):
            found.remove(study)
            failures[Path(study).name] = InputError(
                "a model of several channels needs complete series only, and these were not "
                f"fetched by this call or are not complete: {', '.join(left)}",
                path=study,
            )
    return Fetched(tuple(found), origins, failures)


def _connect(address: Address, access: Access, options: PredictOptions) -> Archive:
    return remote.connect(address, access, options.ae_title, options.receive_port)


def _fetch(
    archive: Archive,
    address: Address,
    study: Path,
    plan: Plan,
    failures: dict[str, DelineateError],
    say: Say,
    progress: Progress,
) -> list[Path]:
    """The folders of the series at an address that are complete; the others are failures."""
    found = remote.find(archive, address)
    names = [channel.name for channel in plan.channels]
    folders = []
    for one in found:
        unfit = all(contradicts_modality(one.modality, name) for name in names)
        # A series that was named by its UID is not chosen here.
        if not address.series and (unfit or one.modality in NO_SCANS):
            say(f"{one.title} is left out: the model needs {', '.join(names)}")
            continue
        place = replace(address, series=one.uid)
        try:
            folders.append(remote.fetch(archive, place, study / one.uid, progress))
        except OutputError:
            raise
        except DelineateError as error:
            failures[one.uid] = error
    if not folders and not failures:
        raise InputError(
            f"none of the {len(found)} series of the study fits the model", path=str(address)
        )
    return folders


def sent(
    outcomes: Sequence[Outcome],
    manifest: Manifest,
    folder: Path,
    options: PredictOptions,
    source: Fetched,
    journal: Journal,
    progress: Progress,
) -> list[Outcome]:
    """Send the DICOM objects of all cases that are not recorded as sent; the outcomes with what was
    sent, or an error for what was not.
    """
    access, archives = Access.of_environment(), {}
    after = []
    for number, (outcome, case) in enumerate(zip(outcomes, manifest, strict=True), start=1):
        target = Address.of(options.send_to) if options.send_to else source.origin_of(case)
        if outcome.value is not None and target is not None:
            if target not in archives:
                archives[target] = _connect(target, access, options)
            outcome = _send_case(outcome, folder, archives[target], target, journal)
        after.append(outcome)
        progress("send", number, len(outcomes), case.id)
    return after


def _send_case(
    outcome: Outcome, folder: Path, archive: Archive, target: Address, journal: Journal
) -> Outcome:
    entry = dict(outcome.value or {})
    failed = []
    for path in objects_of(outcome.name, entry, folder):
        uid = remote.identity_of(path).instance
        record = {"file": path.name, "to": str(target), "sop_instance_uid": uid}
        rows = list(entry.get("sent", ()))
        if any(record.items() <= row.items() and row["status"] in remote.DONE for row in rows):
            continue
        try:
            status = remote.send(archive, path)
        except OutputError as error:
            failed.append(f"{path.name} {error.message}")
            status = error.message
        others = [row for row in rows if (row["file"], row["to"]) != (path.name, str(target))]
        entry["sent"] = [*others, record | {"status": status}]
        journal.amend(outcome.name, entry)
    if not failed:
        return replace(outcome, value=entry)
    earlier = [] if outcome.error is None else [outcome.error.message]
    words = "; ".join([*earlier, *failed])
    lost = OutputError(f"{words} (its results are written)", case=outcome.name)
    return replace(outcome, value=entry, error=lost)


def objects_of(case: str, entry: Mapping[str, Any], folder: Path) -> list[Path]:
    """The DICOM objects of a case, by its entry of ``predictions.json``."""
    return [folder / file_of(case, kind) for kind in KINDS if KINDS[kind].entry in entry]
