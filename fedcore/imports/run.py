"""One import: a source into a site's bucket. What cannot be used is set aside, and stops nothing.

The order of writes is what makes it safe to be killed at any moment: a study's images, sidecars and
masks; its entry in quarantine; its record; the subject's row in participants.tsv, without which no
reader looks at the subject. Everything before the record is written again by the next import,
everything behind it follows from records.
"""

from __future__ import annotations

import datetime
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, groupby
from typing import Self, TypeVar

import numpy as np

from fedcore import __version__
from fedcore.data.layout import MASKS
from fedcore.errors import ConfigError, DataError
from fedcore.imports import records, table, writer
from fedcore.imports.convert import readable
from fedcore.imports.masks import Grid
from fedcore.imports.reasons import Reason, Unfit, remedy
from fedcore.imports.records import Outcome, Record
from fedcore.imports.rules import ModalityRule, Rules
from fedcore.imports.secret import Secret
from fedcore.imports.table import People
from fedcore.imports.visits import MaskSource, Scan, Visit, Volume
from fedcore.store.api import Store

T = TypeVar("T")
log = logging.getLogger("fedcore.import")
Finish = Callable[[Volume, str], Volume]
"""What is done to a volume of a modality before it is written: faces removed, say."""


@dataclass(frozen=True)
class Problem:
    """A file that belongs to no study. ``name`` is how the source calls it; it stays local."""

    name: str
    reason: str
    sentence: str


@dataclass
class Tally:
    """What an import did: studies by what became of them, series by reason."""

    studies: Counter[str] = field(default_factory=Counter)
    series: Counter[str] = field(default_factory=Counter)


class Importer:
    """Writes visits into ``store``. A context: at its end the table is brought up to date.

    ``people``: the site's own list. ``finish``: see Finish. ``note``: told, locally, whose study
    stands behind which name. ``tally``: what it did so far.

    Raises ConfigError, on entering, if the bucket knows another secret.
    """

    def __init__(
        self,
        store: Store,
        secret: Secret,
        rules: Rules,
        *,
        people: People | None = None,
        finish: Finish = lambda volume, _: volume,
        note: Callable[[Visit, Record], None] = lambda *_: None,
    ) -> None:
        self.store, self.secret, self.rules = store, secret, rules
        self.people, self.finish, self.note = people or {}, finish, note
        self.tally = Tally()
        self._records: dict[str, list[Record]] = defaultdict(list)

    def __enter__(self) -> Self:
        mine = self.secret.tag("bucket", "").encode()
        self.store.create(records.SECRET_CHECK, mine)
        if self.store.get(records.SECRET_CHECK) != mine:
            raise ConfigError(
                "this bucket was imported into with another secret: with two, one patient would "
                "be two subjects. Give the first one's file, or begin an empty bucket"
            )
        for key, data in writer.DATASET.items():
            self.store.create(key, data)
        for record in records.every(self.store):
            self._records[record.subject].append(record)
        return self

    def __exit__(self, *problem: object) -> None:
        if problem[0] is None:
            everything = chain.from_iterable(self._records.values())
            table.commit(self.store, table.rows(everything, self.people))

    def known(self, uid: str, content: str) -> bool:
        """Whether a study with these files was imported by these rules, without any failure."""
        return any(
            record.study == self.study(uid)
            and record.content == content
            and record.rules == self.rules.digest
            and not any(outcome.what == "quarantined" for outcome in record.outcomes)
            for theirs in self._records.values()
            for record in theirs
        )

    def take(self, visits: Iterable[Visit], on_visit: Callable[[], None] = lambda: None) -> None:
        """Import what is new. Raises what the store raises, and nothing for what a study holds."""
        ordered = sorted(visits, key=lambda v: (v.patient.strip(), str(v.date or "9999"), v.uid))
        for patient, theirs in groupby(ordered, key=lambda visit: visit.patient.strip()):
            name = self.secret.subject(patient)
            subject = _Subject(self, name, self._records[name])
            self._records[name] = subject.take(list(theirs), on_visit)

    def refuse(self, source: str, problems: Sequence[Problem]) -> None:
        """Note the files of a source that belong to no study; none any more: the note goes."""
        key = f"{records.QUARANTINE}files_{self.secret.tag('source', source)[:16]}.json"
        self.tally.series["quarantined"] += len(problems)
        if not problems:
            if self.store.exists(key):
                self.store.delete(key)
            return
        items = [
            {"file": self.secret.tag("file", p.name)[:16], "reason": p.reason,
             "sentence": p.sentence, "remedy": remedy(p.reason)}
            for p in sorted(problems, key=lambda p: p.name)
        ]  # fmt: skip
        records.put_if_new(self.store, key, records.as_json({"subject": None, "items": items}))

    def study(self, uid: str) -> str:
        """The name of a study in the bucket."""
        return self.secret.tag("study", uid)[:16]


@dataclass
class _Subject:
    """One subject's visits on their way into the bucket."""

    site: Importer
    name: str
    records: list[Record]

    def take(self, visits: list[Visit], on_visit: Callable[[], None]) -> list[Record]:
        """The subject's records afterwards.

        Images of all visits first: a mask may have been drawn on another visit's.
        """
        new = [visit for visit in visits if not self._same(visit)]
        coming = {self._series(scan.uid) for visit in new for scan in visit.scans}
        new += [visit for visit in visits if visit not in new and self._waits(visit, coming)]
        if new:
            self._clean()
        begun = []
        for visit in new:
            record = self._images(visit, self._old(visit))
            self._replace(record)
            begun.append((visit, record))
        for visit, record in begun:
            self._commit(visit, self._masks(visit, record))
            on_visit()
        if begun:
            table.commit(self.site.store, table.rows(self.records, self.site.people))
        for _ in range(len(visits) - len(new)):
            self.site.tally.studies["known"] += 1
            on_visit()
        return self.records

    def _clean(self) -> None:
        """Remove what an import that was killed left: files of no record."""
        claimed = {file for record in self.records for o in record.outcomes for file in o.files}
        store = self.site.store
        for prefix in (f"{self.name}/", f"{MASKS}{self.name}/"):
            for key in list(store.list(prefix)):
                if key not in claimed:
                    store.delete(key)

    def _old(self, visit: Visit) -> Record | None:
        study = self.site.study(visit.uid)
        return next((record for record in self.records if record.study == study), None)

    def _same(self, visit: Visit) -> bool:
        old = self._old(visit)
        return (
            old is not None
            and old.fingerprint == visit.fingerprint
            and old.rules == self.site.rules.digest
        )

    def _waits(self, visit: Visit, coming: set[str]) -> bool:
        """Whether a mask of the visit had no image, and now it is there, or may be soon."""
        old = self._old(visit)
        alone = {o.series for o in old.outcomes if o.reason == Reason.MASK_ALONE} if old else set()
        there = coming | {o.series for record in self.records for o in record.used()}
        return any(
            self._series(mask.uid) in alone and there & {self._series(uid) for uid in mask.on}
            for mask in visit.masks
        )

    def _replace(self, record: Record) -> None:
        self.records = [*(r for r in self.records if r.study != record.study), record]

    def _images(self, visit: Visit, old: Record | None) -> Record:
        session = old.session if old is not None else self._session(visit)
        outcomes = [o for o in old.outcomes if o.what == "used"] if old is not None else []
        done = {outcome.series for outcome in outcomes}
        taken = {
            outcome.modality
            for record in self.records if record.session == session
            for outcome in record.used()
        }  # fmt: skip
        for scan in sorted(visit.scans, key=lambda s: ([-r for r in s.rank], s.uid)):
            series = self._series(scan.uid)
            if series not in done:
                outcome = self._image(scan, series, session, taken)
                outcomes.append(outcome)
                if outcome.what == "used":
                    taken.add(outcome.modality)
        return self._record(visit, session, outcomes, version="")

    def _image(self, scan: Scan, series: str, session: str, taken: set[str | None]) -> Outcome:
        rules = self.site.rules
        unwanted = rules.unwanted(scan.traits)
        if unwanted is not None:
            return Outcome(series=series, what="skipped", reason=unwanted)
        rule = rules.modality(scan.traits)
        if rule is None:
            kind = scan.traits.modality or "unknown"
            return Outcome(series=series, what="skipped", reason=f"no rule for this {kind}")
        if rule.name in taken:
            return Outcome(series=series, what="surplus", modality=rule.name,
                           reason="another series of the modality is used")  # fmt: skip
        key = writer.image_key(self.name, session, rule.into)
        try:
            volume, files = _attempt(partial(self._files, scan, series, rule, key))
        except DataError as error:
            return _set_aside(series, rule.name, error)
        for name, data in files.items():
            self.site.store.put(name, data)
        x, y, z = volume.voxels.shape
        return Outcome(
            series=series, what="used", modality=rule.name, notes=volume.notes,
            files=tuple(files), shape=(x, y, z), affine=volume.affine.tolist(),
        )  # fmt: skip

    def _files(
        self, scan: Scan, series: str, rule: ModalityRule, key: str
    ) -> tuple[Volume, dict[str, bytes]]:
        if scan.risk is not None and self.site.rules.burned_in == "quarantine":
            raise Unfit(Reason.BURNED_IN, scan.risk)
        volume = self.site.finish(scan.read(), rule.name)
        if scan.risk is not None:
            note = f"text may be burned in: {scan.risk}"
            volume = replace(volume, notes=(*volume.notes, note))
        provenance = {"modality": rule.name, "series": series, "rules": self.site.rules.digest[:12]}
        files = writer.image_files(key, volume, provenance)
        readable(files[key])
        return volume, files

    def _masks(self, visit: Visit, record: Record) -> Record:
        done = {outcome.series for outcome in record.outcomes}
        outcomes = list(record.outcomes)
        for source in visit.masks:
            series = self._series(source.uid)
            if series not in done:
                outcomes += self._mask(source, series)
        return record.model_copy(update={"outcomes": outcomes, "version": __version__})

    def _mask(self, source: MaskSource, series: str) -> Iterator[Outcome]:
        on = {self._series(uid) for uid in source.on}
        images = [
            (outcome, Grid(outcome.shape, np.array(outcome.affine)))
            for record in self.records
            for outcome in record.used()
            if outcome.series in on and outcome.shape is not None
        ]
        if not images and self._left(on):
            yield Outcome(series=series, what="surplus", reason="a mask of an image that is left")
        elif not images:
            alone = Unfit(Reason.MASK_ALONE, "the series that it was drawn on is not used")
            yield _set_aside(series, None, alone)
        for image, grid in images:
            try:
                masks = _attempt(partial(source.read, grid))
            except DataError as error:
                yield _set_aside(series, image.modality, error)
                continue
            files: dict[str, bytes] = {}
            for name, mask in masks.items():
                files |= writer.mask_file(image.files[0], name, mask, grid.affine)
            for key, data in files.items():
                self.site.store.put(key, data)
            yield Outcome(series=series, what="used", modality=image.modality, files=tuple(files))

    def _left(self, series: set[str]) -> bool:
        """Whether one of these is there and not wanted: then its masks are not either."""
        return any(
            outcome.series in series and outcome.what in ("surplus", "skipped")
            for record in self.records
            for outcome in record.outcomes
        )

    def _commit(self, visit: Visit, record: Record) -> None:
        store = self.site.store
        key, data = records.quarantine(record)
        if data is not None:
            records.put_if_new(store, key, data)
        elif store.exists(key):
            store.delete(key)
        records.put_if_new(store, record.key, records.encode(record))
        self._replace(record)
        self.site.note(visit, record)
        self.site.tally.studies["imported"] += 1
        self.site.tally.series.update(outcome.what for outcome in record.outcomes)

    def _session(self, visit: Visit) -> str:
        """The session of the nearest study within the rules' days; else one named by its day."""
        day = None
        if visit.date is not None:
            day = self.site.secret.shifted(visit.date, visit.patient)
        if day is None:
            return min((record.session for record in self.records), default="ses-01")
        near = [
            (abs((day - other).days), record.session)
            for record in self.records if (other := _day(record)) is not None
            if abs((day - other).days) <= self.site.rules.session_days
        ]  # fmt: skip
        return min(near)[1] if near else f"ses-{day:%Y%m%d}"

    def _record(
        self, visit: Visit, session: str, outcomes: list[Outcome], *, version: str
    ) -> Record:
        day = None
        if visit.date is not None:
            day = self.site.secret.shifted(visit.date, visit.patient).isoformat()
        return Record(
            subject=self.name, session=session, study=self.site.study(visit.uid), date=day,
            sex=visit.person.sex, age=visit.person.age, scanner=visit.person.scanner,
            fingerprint=visit.fingerprint, content=visit.content, rules=self.site.rules.digest,
            version=version, outcomes=outcomes,
        )  # fmt: skip

    def _series(self, uid: str) -> str:
        return self.site.secret.tag("series", uid)[:16]


def _attempt(act: Callable[[], T]) -> T:
    """Whatever goes wrong with one series is a reason to leave it out, never to stop."""
    try:
        return act()
    except DataError:
        raise
    except Exception as error:
        log.warning("a series could not be read", exc_info=True)
        raise Unfit(Reason.INTERNAL, f"it made the import fail: {type(error).__name__}") from error


def _set_aside(series: str, modality: str | None, error: DataError) -> Outcome:
    return Outcome(
        series=series, what="quarantined", modality=modality, reason=error.reason,
        sentence=str(error),
    )  # fmt: skip


def _day(record: Record) -> datetime.date | None:
    return None if record.date is None else datetime.date.fromisoformat(record.date)
