"""One import: a source's studies into a site's bucket, several subjects at a time.

What cannot be used is set aside, and stops nothing. A subject's row in participants.tsv is written
when its studies are (see ``subject``), and all rows once more at the end.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Self

from fedcore.data.workers import Workers
from fedcore.errors import ConfigError
from fedcore.imports import records, table, writer
from fedcore.imports.outcomes import Finish, unchanged
from fedcore.imports.reasons import remedy
from fedcore.imports.records import Record
from fedcore.imports.rules import Rules
from fedcore.imports.secret import Secret
from fedcore.imports.subject import Site, Subject
from fedcore.imports.table import People
from fedcore.imports.visits import Visit
from fedcore.store.api import Store


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

    ``people``: the site's own list. ``finish``, ``note``: see ``subject.Site``; ``note`` may be
    called from several threads. ``workers``: processes, and subjects at a time; what comes out is
    the same. ``tally``: what it did so far.

    Raises ConfigError, on entering, if the bucket knows another secret.
    """

    def __init__(
        self,
        store: Store,
        secret: Secret,
        rules: Rules,
        *,
        people: People | None = None,
        finish: Finish = unchanged,
        note: Callable[[Visit, Record], None] = lambda *_: None,
        workers: int = 1,
    ) -> None:
        self.store, self.secret, self.rules = store, secret, rules
        self.people = people or {}
        self.tally = Tally()
        self._workers = Workers(workers, "import again with --workers 1, or with more memory")
        self._site = Site(store, secret, rules, finish, note, self._workers)
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
        self._workers.close(cancel=problem[0] is not None)
        if problem[0] is None:
            everything = chain.from_iterable(self._records.values())
            table.commit(self.store, table.rows(everything, self.people))

    def known(self, uid: str, content: str) -> bool:
        """Whether a study with these files was imported by these rules, without any failure."""
        return any(
            record.study == self._site.study(uid)
            and record.content == content
            and record.rules == self.rules.digest
            and not any(outcome.what == "quarantined" for outcome in record.outcomes)
            for theirs in self._records.values()
            for record in theirs
        )

    def take(self, visits: Iterable[Visit], on_visit: Callable[[], None] = lambda: None) -> None:
        """Import what is new. Raises what the store raises, and nothing for what a study holds."""
        theirs = defaultdict(list)
        for visit in sorted(visits, key=lambda v: (v.patient, str(v.date or "9999"), v.uid)):
            theirs[self.secret.subject(visit.patient)].append(visit)
        subjects = [Subject(self._site, name, self._records[name]) for name in theirs]
        news = self._workers.each(lambda subject: subject.take(theirs[subject.name]), subjects)
        for subject, new in zip(subjects, news, strict=True):
            self._records[subject.name] = subject.records
            if new:
                table.commit(self.store, table.rows(subject.records, self.people))
            self._count(new, len(theirs[subject.name]))
            for _ in theirs[subject.name]:
                on_visit()

    def _count(self, new: Sequence[Record], visits: int) -> None:
        self.tally.studies.update(["imported"] * len(new) + ["known"] * (visits - len(new)))
        for record in new:
            self.tally.series.update(outcome.what for outcome in record.outcomes)

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
