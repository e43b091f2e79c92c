"""``fedcore site report --html``: a page with a picture per subject. It stays at the site."""

from __future__ import annotations

import importlib.resources
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np

from fedcore.data import nifti, pictures
from fedcore.errors import FedcoreError
from fedcore.imports import records
from fedcore.imports.records import Outcome
from fedcore.imports.report import Report
from fedcore.store.api import Store


@dataclass(frozen=True)
class Card:
    """One subject: ``picture`` is a data URI, or "" with the reason in ``trouble``."""

    subject: str
    session: str
    picture: str
    trouble: str
    images: tuple[tuple[str, str, tuple[str, ...]], ...]


def page(
    store: Store,
    found: Report,
    *,
    most: int,
    on_subject: Callable[[], None] = lambda: None,
) -> str:
    """The page as HTML, with pictures of the first ``most`` subjects."""
    shown = []
    for (subject, session), outcomes in list(_sessions(store).items())[:most]:
        shown.append(_card(store, subject, session, outcomes))
        on_subject()
    text = (importlib.resources.files(__package__) / "page.html").read_text("utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        text
    )
    return template.render(report=found, cards=shown, left=max(0, found.used - len(shown)))


def _sessions(store: Store) -> Mapping[tuple[str, str], list[Outcome]]:
    """(Subject, session) → what is used there, images and masks."""
    found: dict[tuple[str, str], list[Outcome]] = {}
    for record in sorted(records.every(store), key=lambda r: (r.subject, r.session, r.study)):
        if record.used():
            found.setdefault((record.subject, record.session), []).extend(record.used())
    return found


def _card(store: Store, subject: str, session: str, outcomes: list[Outcome]) -> Card:
    scans = [outcome for outcome in outcomes if outcome.shape]
    told = tuple(
        (o.modality or "", " × ".join(map(str, o.shape or ())), tuple(o.notes)) for o in scans
    )
    try:
        png = _picture(store, scans, [o for o in outcomes if not o.shape])
    except FedcoreError as error:
        return Card(subject, session, "", str(error), told)
    source = f"data:image/png;base64,{b64encode(png).decode()}"
    return Card(subject, session, source, "", told)


def _picture(store: Store, scans: list[Outcome], drawn: list[Outcome]) -> bytes:
    volumes = {scan.modality or "": nifti.read(store.get(scan.files[0])) for scan in scans}
    masks: dict[str, Any] = {}
    for name, key in _mask_keys(drawn):
        if name in volumes:
            mask = nifti.read(store.get(key)).voxels > 0
            masks[name] = np.maximum(masks.get(name, mask), mask)
    return pictures.panel(
        {name: volume.voxels for name, volume in volumes.items()},
        {name: volume.affine for name, volume in volumes.items()},
        masks=masks,
        notes={scan.modality or "": scan.notes for scan in scans},
    )


def _mask_keys(drawn: list[Outcome]) -> Iterator[tuple[str, str]]:
    for outcome in drawn:
        for key in outcome.files:
            yield outcome.modality or "", key
