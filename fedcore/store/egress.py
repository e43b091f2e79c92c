"""The site's egress record, in the site's own bucket: what left, when, for what, and under which
protection.

    derivatives/fedcore/egress/<number>.json     a chain, see ``fedcore.store.chain``

An entry is written before anything leaves. Entries cut off the end leave a sound chain; but each
signed reply carries the hash of the last entry before it, so that the server's copy of a reply
bears witness.

It also keeps a site from saying two things in one place: what a killed client noted and did not
send is sent again if it is the same, and refused if it is not. A second masked input under the
same masks would show the difference of both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore.errors import OrderRefused
from fedcore.store import chain
from fedcore.store.api import Store
from fedcore.store.chain import Chain, Checked, Link
from fedcore.store.exchange import grants
from fedcore.store.identity import NO_HEAD, egress_head

REFUSAL = "Refusal"
UPDATES = ("ClientUpdate", "SealedUpdate", "masked_input")
"""The kinds in which something of what a site learnt leaves."""


@dataclass(frozen=True)
class Departure:
    """What is about to leave.

    ``kind``: a reply's, or the step of a secure round. ``destination``: its key in the exchange.
    ``sha256``: of the bytes as they leave. ``content``: of what they say, which is the same when a
    client says it again (only how long it took differs). ``protection``: plain, masked, encrypted,
    several joined by +, or none where no value of the site's data is in it. ``epsilon``: of all
    that its run was charged by then. ``spend``: hash of the entry in the budget ledger that it was
    charged under. Unset: there is none, or it is not known.
    """

    run_id: str
    seq: int
    kind: str
    destination: str
    bytes: int
    sha256: str
    content: str
    protection: str = "none"
    round_num: int | None = None
    plan_digest: str | None = None
    purpose: str | None = None
    clip_norm: float | None = None
    update_norm: float | None = None
    noise_multiplier: float | None = None
    epsilon: float | None = None
    spend: str | None = None


@dataclass(frozen=True)
class Entry(Departure, Link):
    """What left, in its place in the record."""


RECORD = chain.Kind(
    name="egress record",
    folder="derivatives/fedcore/egress/",
    entry=Entry,
    domain=b"fedcore egress 1\n",
    command="fedcore ledger egress",
)


class Egress:
    """One client's hand on the record. Others may write to it at the same time.

    ``approver``: who approved the site's policy.
    """

    def __init__(
        self,
        store: Store,
        identity: Ed25519PrivateKey | None = None,
        approver: str | None = None,
    ) -> None:
        self._chain = Chain(store, RECORD, identity)
        self._approver = approver
        self._since: int | None = None  # until the end was looked for
        self._noted: dict[str, Entry] = {}

    def end(self) -> int:
        """The number that the next entry gets. The bucket is listed for it once."""
        end = self._chain.end()
        if self._since is None:
            self._since = end
        return end

    def recall(self, since: int) -> None:
        """Know what was noted from entry ``since`` on, by whichever client."""
        self.end()
        known = self._since or since
        for number in range(since, known):
            self._remember(self._chain.read(number))
        self._since = min(known, since)

    def noted(self, destination: str) -> Entry | None:
        """What is known to have been noted for that place; of several, the last."""
        return self._noted.get(destination)

    def last_spend(self) -> str | None:
        """What the last update that left was charged under; None if none was.

        Reads the record from its end. Raises OrderRefused if that is broken.
        """
        for number in range(self.end() - 1, 0, -1):
            entry = self._chain.read(number)
            if entry.kind in UPDATES:
                return entry.spend
        return None

    @property
    def head(self) -> bytes:
        """The hash of the last entry that is known."""
        self.end()
        return bytes.fromhex(self._chain.head)

    def note(self, departure: Departure) -> None:
        """Write the entry; only then may it leave.

        Raises OrderRefused if something else was noted for this place before: nothing may leave.
        A refusal says nothing of the data, and stands beside anything.
        """
        self.end()
        written = False
        while not written:
            self._check(departure)
            entry = Entry(**asdict(departure), approver=self._approver)
            there, written = self._chain.append(entry)
            self._remember(there)

    def _check(self, departure: Departure) -> None:
        before = self._noted.get(departure.destination)
        if before is None or REFUSAL in (before.kind, departure.kind):
            return
        if before.content != departure.content:
            raise OrderRefused(
                f"something else was about to leave for {departure.destination} before (egress "
                f"record, entry {before.number}): a site says one thing in one place"
            )

    def _remember(self, entry: Entry) -> None:
        known = self._noted.get(entry.destination)
        # A refusal says nothing that what was said beside it would have to agree with.
        if known is None or (entry.kind != REFUSAL, entry.number) > (
            known.kind != REFUSAL,
            known.number,
        ):
            self._noted[entry.destination] = entry


def check(store: Store, accepted: Iterable[str] | None = None) -> Checked[Entry]:
    """The record from its first entry on; see ``chain.check``."""
    return chain.check(store, RECORD, accepted)


def witnessed(exchange: Store, site: str, run_id: str) -> list[str]:
    """The heads of a site's record that its signed replies to its last order in a run carry."""
    prefix = f"{grants(site).write[0]}{run_id}/"
    keys = [key for key in exchange.list(prefix) if key.endswith(".safetensors")]
    numbers = [key.removeprefix(prefix).split(".")[0] for key in keys]
    last = [key for key, number in zip(keys, numbers, strict=True) if number == max(numbers)]
    heads = (egress_head(exchange.get(key)) for key in last)
    return [head.hex() for head in heads if head != NO_HEAD]
