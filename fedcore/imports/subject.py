"""One subject's visits on their way into the bucket.

The order of writes is what makes an import safe to be killed at any moment: a study's images,
sidecars and masks; its entry in quarantine; its record; the subject's row in participants.tsv,
without which no reader looks at the subject. Everything before the record is written again by the
next import, everything behind it follows from records.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedcore import __version__
from fedcore.data.layout import MASKS
from fedcore.data.workers import Call
from fedcore.imports import outcomes, records, writer
from fedcore.imports.masks import Grid
from fedcore.imports.outcomes import Files, Finish
from fedcore.imports.reasons import Reason
from fedcore.imports.records import Outcome, Record
from fedcore.imports.rules import Rules
from fedcore.imports.secret import Secret
from fedcore.imports.visits import MaskSource, Scan, Visit
from fedcore.store.api import Store


@dataclass(frozen=True)
class Site:
    """What one import is made with, of whatever subject.

    ``call``: runs what takes long, here or in another process. ``finish``: see Finish. ``note``:
    told, locally, whose study stands behind which name.
    """

    store: Store
    secret: Secret
    rules: Rules
    finish: Finish
    note: Callable[[Visit, Record], None]
    call: Call

    def study(self, uid: str) -> str:
        """The name of a study in the bucket."""
        return self.secret.tag("study", uid)[:16]

    def series(self, uid: str) -> str:
        """The name of a series there."""
        return self.secret.tag("series", uid)[:16]


@dataclass
class Subject:
    """``records``: of all of the subject's studies that are known."""

    site: Site
    name: str
    records: list[Record]

    def take(self, visits: Sequence[Visit]) -> list[Record]:
        """Import what is new of the visits, and return the records of that.

        Images of all visits first: a mask may have been drawn on another visit's.
        """
        new = [visit for visit in visits if not self._same(visit)]
        coming = {self.site.series(scan.uid) for visit in new for scan in visit.scans}
        new += [visit for visit in visits if visit not in new and self._waits(visit, coming)]
        if new:
            self._clean()
        begun = []
        for visit in new:
            record = self._images(visit, self._old(visit))
            self._replace(record)
            begun.append((visit, record))
        return [self._commit(visit, self._masks(visit, record)) for visit, record in begun]

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
        old, series = self._old(visit), self.site.series
        alone = {o.series for o in old.outcomes if o.reason == Reason.MASK_ALONE} if old else set()
        there = coming | {o.series for record in self.records for o in record.used()}
        return any(
            series(mask.uid) in alone and there & {series(uid) for uid in mask.on}
            for mask in visit.masks
        )

    def _replace(self, record: Record) -> None:
        self.records = [*(r for r in self.records if r.study != record.study), record]

    def _images(self, visit: Visit, old: Record | None) -> Record:
        session = old.session if old is not None else self._session(visit)
        found = [o for o in old.outcomes if o.what == "used"] if old is not None else []
        done = {outcome.series for outcome in found}
        taken = {
            outcome.modality
            for record in self.records if record.session == session
            for outcome in record.used()
        }  # fmt: skip
        for scan in sorted(visit.scans, key=lambda s: ([-r for r in s.rank], s.uid)):
            series = self.site.series(scan.uid)
            if series not in done:
                outcome = self._image(scan, series, session, taken)
                found.append(outcome)
                if outcome.what == "used":
                    taken.add(outcome.modality)
        return self._record(visit, session, found, version="")

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
        outcome, files = self.site.call(
            outcomes.image, scan, series, rule, key, rules, self.site.finish
        )
        self._put(files)
        return outcome

    def _put(self, files: Files) -> None:
        for key, data in files.items():
            self.site.store.put(key, data)

    def _masks(self, visit: Visit, record: Record) -> Record:
        done = {outcome.series for outcome in record.outcomes}
        found = list(record.outcomes)
        for source in visit.masks:
            series = self.site.series(source.uid)
            if series not in done:
                found += self._mask(source, series)
        return record.model_copy(update={"outcomes": found, "version": __version__})

    def _mask(self, source: MaskSource, series: str) -> Iterator[Outcome]:
        on = {self.site.series(uid) for uid in source.on}
        images = [
            (outcome, Grid(outcome.shape, np.array(outcome.affine)))
            for record in self.records
            for outcome in record.used()
            if outcome.series in on and outcome.shape is not None
        ]
        if not images and self._left(on):
            yield Outcome(series=series, what="surplus", reason="a mask of an image that is left")
        elif not images:
            yield outcomes.set_aside(
                series, None, Reason.MASK_ALONE, "the series that it was drawn on is not used"
            )
        for image, grid in images:
            outcome, files = self.site.call(
                outcomes.masks, source, series, image.modality, image.files[0], grid
            )
            self._put(files)
            yield outcome

    def _left(self, series: set[str]) -> bool:
        """Whether one of these is there and not wanted: then its masks are not either."""
        return any(
            outcome.series in series and outcome.what in ("surplus", "skipped")
            for record in self.records
            for outcome in record.outcomes
        )

    def _commit(self, visit: Visit, record: Record) -> Record:
        store = self.site.store
        key, data = records.quarantine(record)
        if data is not None:
            records.put_if_new(store, key, data)
        elif store.exists(key):
            store.delete(key)
        self.site.note(visit, record)  # before the record: what is known has been noted
        records.put_if_new(store, record.key, records.encode(record))
        self._replace(record)
        return record

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

    def _record(self, visit: Visit, session: str, found: list[Outcome], *, version: str) -> Record:
        day = None
        if visit.date is not None:
            day = self.site.secret.shifted(visit.date, visit.patient).isoformat()
        return Record(
            subject=self.name, session=session, study=self.site.study(visit.uid), date=day,
            sex=visit.person.sex, age=visit.person.age, scanner=visit.person.scanner,
            fingerprint=visit.fingerprint, content=visit.content, rules=self.site.rules.digest,
            version=version, outcomes=found,
        )  # fmt: skip


def _day(record: Record) -> datetime.date | None:
    return None if record.date is None else datetime.date.fromisoformat(record.date)
