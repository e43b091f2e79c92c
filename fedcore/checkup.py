"""Is a site ready for a study? ``fedcore site check``: one row a question, with the way out.

Nothing is loaded that a look at names and tables can tell; ``fedcore site prepare`` reads the
images themselves.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedcore.config import policy as policies
from fedcore.config.plan import Plan
from fedcore.data import consent, layout, participants, quarantine
from fedcore.errors import FedcoreError, NotFound
from fedcore.probe import probe
from fedcore.settings import ClientSettings
from fedcore.store.api import Store

State = Literal["good", "note", "bad"]
_TABLE = "participants.tsv"
_ROOM = 10 * 2**30
_FEW = 5  # of a class or group: below it a site's figures are not reported

_MODALITIES = {
    "t1ce": r"anat/.*_ce-.*_T1w", "t1": r"anat/(?!.*_ce-).*_T1w", "t2": r"anat/.*_T2w",
    "flair": r"anat/.*_FLAIR", "pd": r"anat/.*_PDw", "ct": r"ct/.*_ct", "pet": r"pet/.*_pet",
}  # fmt: skip
"""Names of images, for a check without a plan."""


@dataclass(frozen=True)
class Row:
    """One question. ``note``: to be known, and no obstacle."""

    what: str
    state: State
    found: str


def checkup(
    store: Store, settings: ClientSettings | None, why_not: str, plan: Plan | None
) -> Iterator[Row]:
    """The rows, one after the other. ``settings``: None if the environment lacks something,
    which ``why_not`` says."""
    yield from _guarded("data", lambda: _data(store, plan))
    yield from _guarded("policy", lambda: _policy(settings, why_not, plan))
    yield from _guarded("isolation", lambda: _isolation(settings, why_not))
    yield _gpu()
    yield from _disk(settings)


def _guarded(what: str, rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    try:
        yield from rows()
    except FedcoreError as error:
        yield Row(what, "bad", str(error))


def _data(store: Store, plan: Plan | None) -> Iterator[Row]:
    try:
        table = participants.read(store.get(_TABLE), source=_TABLE)
    except NotFound:
        yield Row("data", "bad", f"no {_TABLE}: run fedcore site import")
        return
    folders = layout.by_subject(store.list("sub-"), "")
    has = {subject: _modalities(folders.get(subject, []), plan) for subject in table.rows}
    usable = [subject for subject, names in has.items() if names]
    aside = quarantine.read(store, "")
    set_aside = Counter(reason for items in aside.values() for _, reason in items)
    yield Row("data", "good" if usable else "bad",
              f"{len(usable)} of {len({*table.rows, *aside})} subjects have an image")  # fmt: skip
    if set_aside:
        told = ", ".join(f"{n} {reason}" for reason, n in set_aside.most_common())
        yield Row("quarantine", "note", f"{told}; see fedcore site report")
    for name in plan.task.modalities if plan is not None else _MODALITIES:
        number = sum(name in names for names in has.values())
        yield Row(f"modality {name}", "good" if number else "note",
                  f"{number} of {len(usable)} subjects")  # fmt: skip
    yield _consent(table, usable, plan)
    yield from _counts(table, usable, plan)


def _modalities(paths: Sequence[str], plan: Plan | None) -> set[str]:
    """What a subject has: as the plan would choose it, or by the names alone."""
    if plan is not None:
        return set(layout.choose(paths, {n: m.path for n, m in plan.task.modalities.items()})[0])
    images = [path for path in paths if path.endswith(".nii.gz")]
    return {n for n, name in _MODALITIES.items() if any(re.search(name, p) for p in images)}


def _consent(table: participants.Participants, usable: Sequence[str], plan: Plan | None) -> Row:
    if "consent" not in table.columns:
        return Row("consent", "bad", f"{_TABLE} has no column consent: nobody may be used")
    cells = [table.rows[subject]["consent"] for subject in usable]
    if plan is None:
        given = sum(bool(cell) and consent.WITHDRAWN not in cell.split() for cell in cells)
        what = "some purpose"
    else:
        given = sum(consent.objection(cell, plan.purpose) is None for cell in cells)
        what = repr(plan.purpose)
    return Row("consent", "good" if given else "bad",
               f"{given} of {len(usable)} subjects consent to {what}"
               + ("" if given else ": give the site's list to fedcore site import "
                  "--participants"))  # fmt: skip


def _counts(
    table: participants.Participants, usable: Sequence[str], plan: Plan | None
) -> Iterator[Row]:
    """How many there are of each class and group."""
    rows = [table.rows[subject] for subject in usable]
    label = "diagnosis"
    if plan is not None:
        label = plan.task.dataset.arguments.get("label", label)
    attributes = plan.task.groups if plan is not None else ["sex", "age_band", "scanner"]
    if label in table.columns:
        counts = Counter(participants.value(row, label) or "unknown" for row in rows)
        missing = [name for name in plan.task.classes if not counts[name]] if plan else []
        state: State = "note" if missing or not set(counts) - {"unknown"} else "good"
        yield Row(f"class ({label})", state, _told(counts)
                  + (f"; none of {', '.join(missing)}" if missing else ""))  # fmt: skip
    else:
        yield Row(f"class ({label})", "bad", f"{_TABLE} has no column {label}")
    for attribute in attributes:
        if ("age" if attribute == "age_band" else attribute) not in table.columns:
            yield Row(f"group {attribute}", "bad", f"{_TABLE} has no such column")
            continue
        counts = Counter(participants.groups(row, [attribute])[attribute] for row in rows)
        few = any(number < _FEW for number in counts.values())
        yield Row(f"group {attribute}", "note" if few else "good", _told(counts))


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items())) or "none"


def _policy(settings: ClientSettings | None, why_not: str, plan: Plan | None) -> Iterator[Row]:
    if settings is None:
        yield Row("policy", "note", f"not checked: {why_not}")
        return
    policy = policies.load(settings.policy)
    objection = policies.objection(policy, plan) if plan is not None else None
    if objection is not None:
        yield Row("policy", "bad", f"refuses the plan: {objection}")
        return
    allowed = ", ".join(policy.allow.purposes)
    yield Row("policy", "good",
              f"site {policy.site}: accepts the plan" if plan is not None
              else f"site {policy.site}, for {allowed}")  # fmt: skip


def _isolation(settings: ClientSettings | None, why_not: str) -> Iterator[Row]:
    if settings is None:
        yield Row("credentials and isolation", "note", f"not checked: {why_not}")
        return
    rows = list(probe(settings))
    wrong = [row for row in rows if not row.as_expected]
    yield Row("credentials and isolation", "bad" if wrong else "good",
              "; ".join(f"{row.attempt}: {row.happened}" for row in wrong)
              or f"{len(rows)} attempts, as they must be")  # fmt: skip


def _gpu() -> Row:
    import torch

    if not torch.cuda.is_available():
        return Row("GPU", "note", "none: the CPU trains")
    return Row("GPU", "good", torch.cuda.get_device_name(0))


def _disk(settings: ClientSettings | None) -> Iterator[Row]:
    places = {"scratch": Path(tempfile.gettempdir())}
    if settings is not None and settings.data.folder is not None:
        places["data"] = settings.data.folder
    for name, place in places.items():
        free = shutil.disk_usage(place).free
        yield Row(f"disk ({name})", "good" if free >= _ROOM else "note",
                  f"{free / 2**30:.0f} GiB free in {place}")  # fmt: skip
