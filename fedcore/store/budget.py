"""The site's budget ledger, in the site's own bucket: what privacy its studies have spent.

    derivatives/fedcore/budget/<number>.json     a chain, see ``fedcore.store.chain``

One entry an update, written before the training begins: an update that could leave is paid for. It
is paid for once, however often it is asked for (``TrainOrder.names_update``): a retry, a restarted
client and a secure round's next attempt are the same release, because the same order gives the same
update, its noise included. Anything else is a new one: another run, another round, and the same
round from other params.

Where a run is charged whole, its first entry holds the events of all its rounds, and those of the
other rounds hold none: they draw on it. It stays charged if the run ends early.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore.config.plan import Plan
from fedcore.config.policy import Budget
from fedcore.config.spending import round_events, run_events, without_noise
from fedcore.errors import OrderRefused
from fedcore.privacy.accounting import GaussianEvent, Unit, by_unit, epsilon_adaptive
from fedcore.records import TrainOrder
from fedcore.store import chain, egress
from fedcore.store.api import Store
from fedcore.store.chain import Chain, Checked, Link
from fedcore.store.ledger import accepted_orders


@dataclass(frozen=True)
class Entry(Link):
    """One update, and what is charged with it.

    ``order_digest``: of the order that first asked for it. ``events``: newly charged, of every
    unit, for the run's ``rounds`` (the first, and the first that is not); none where an earlier
    entry of the run holds them. ``delta``: the plan's, for figures about the run alone.
    ``mechanism``: of all events; a record with another word is not understood, and refused.
    """

    run_id: str
    nonce: str
    plan_digest: str
    purpose: str
    round_num: int
    params_digest: str
    order_digest: str
    cohort: str
    delta: float
    rounds: tuple[int, int]
    events: tuple[GaussianEvent, ...]
    mechanism: Literal["gaussian"] = "gaussian"

    def names_run(self) -> tuple[str, ...]:
        """As ``TrainOrder.names_run``."""
        return (self.run_id, self.nonce, self.plan_digest)

    def names_update(self) -> tuple[str | int, ...]:
        """As ``TrainOrder.names_update``."""
        return (*self.names_run(), self.round_num, self.params_digest)

    def covers(self, order: TrainOrder | Entry) -> bool:
        """Whether the order's round is one of those that this entry holds the events of."""
        return self.names_run() == order.names_run() and order.round_num in range(*self.rounds)


RECORD = chain.Kind(
    name="budget ledger",
    folder="derivatives/fedcore/budget/",
    entry=Entry,
    domain=b"fedcore budget 1\n",
    command="fedcore ledger verify",
)


@dataclass(frozen=True)
class Charged:
    """An update that is paid for. ``head``: hash of its entry, in hex. ``epsilon``: by unit, of
    all that was charged to its run until then, at the plan's own delta."""

    head: str
    epsilon: Mapping[Unit, float]

    @property
    def stated(self) -> float:
        """The epsilon of the unit that people ask for first: a subject, if the plan hides one."""
        return self.epsilon.get("subject", self.epsilon.get("site", 0.0))


@dataclass(frozen=True)
class Price:
    """What something costs a budget: ``spent`` before it, ``total`` with it."""

    spent: float
    total: float
    budget: Budget

    @property
    def left(self) -> float:
        """What would be left."""
        return max(self.budget.epsilon - self.total, 0.0)

    @property
    def refusal(self) -> str | None:
        """Why it is not let in; None if it is."""
        of = self.budget
        if self.total <= of.epsilon:
            return None
        return (
            f"over this site's privacy budget: it needs epsilon {self.total:.3g} of the "
            f"{of.epsilon:g} allowed for one {of.unit} of cohort {of.cohort} (delta {of.delta:g}), "
            f"of which {self.spent:.3g} was spent before; `fedcore ledger show` there tells on what"
        )


class BudgetLedger:
    """One client's hand on the ledger. Others may write to it at the same time.

    ``record``: of what left. ``budget``: the policy's; unset, what is spent is noted and nothing
    refused. ``approver``: who approved the policy.
    """

    def __init__(
        self,
        store: Store,
        record: egress.Egress,
        budget: Budget | None,
        identity: Ed25519PrivateKey | None = None,
        approver: str | None = None,
    ) -> None:
        self._egress = record
        self._budget = budget
        self._approver = approver
        self._chain = Chain(store, RECORD, identity)
        self._entries: list[Entry] | None = None  # until it was read
        self._heads: dict[tuple[str | int, ...], str] = {}

    def charge(self, order: TrainOrder, order_digest: str, plan: Plan) -> Charged | None:
        """Pay for the update that the order asks for, if nobody did yet; only then may it train.

        None if there is nothing to pay: a plan without noise, at a site without a budget. Raises
        OrderRefused if the budget does not allow it, and if the ledger is broken.
        """
        reason = None if self._budget is None else without_noise(plan, self._budget.unit)
        if reason is not None:
            raise OrderRefused(reason)
        if not round_events(plan):
            return None
        entries = self._known()
        while order.names_update() not in self._heads:
            entry = self._entry(order, order_digest, plan, entries)
            if self._budget is not None:
                refusal = price(entries, entry.events, self._budget).refusal
                if refusal is not None:
                    raise OrderRefused(refusal)
            there, _ = self._chain.append(entry)  # or another client's, if that was first
            self._remember(entries, there, self._chain.head)
        return self._charged(entries, order)

    def _known(self) -> list[Entry]:
        """Every entry. They are all read once, a read of the store each, and then followed: who
        writes the next one comes by what others wrote."""
        if self._entries is None:
            paid = self._egress.last_spend()  # first: it may grow while the ledger is read
            checked = self._chain.load()
            if paid is not None and paid not in checked.heads:
                raise OrderRefused(
                    "the budget ledger is broken: its end was cut off, for an update left that "
                    f"was paid for by an entry that is not there; see `{RECORD.command}`"
                )
            self._entries = []
            for entry, head in zip(checked.entries, checked.heads, strict=True):
                self._remember(self._entries, entry, head)
        return self._entries

    def _entry(
        self, order: TrainOrder, order_digest: str, plan: Plan, entries: Sequence[Entry]
    ) -> Entry:
        first = order.round_num
        of_run = [entry for entry in entries if entry.names_run() == order.names_run()]
        rounds = (first, first + 1)
        if all(entry.round_num != first for entry in of_run):  # else it is one more, and charged so
            whole = self._budget is None or self._budget.charge == "run"
            if any(entry.covers(order) for entry in of_run):
                rounds = (first, first)
            elif whole and first in range(plan.rounds):
                rounds = (0, plan.rounds)
        return Entry(
            run_id=order.run_id,
            nonce=order.nonce,
            plan_digest=order.plan_digest,
            purpose=plan.purpose,
            round_num=order.round_num,
            params_digest=order.params_digest,
            order_digest=order_digest,
            cohort="all" if self._budget is None else self._budget.cohort,
            delta=plan.privacy.target_delta,
            rounds=rounds,
            events=run_events(plan, rounds[1] - rounds[0]),
            approver=self._approver,
        )

    def _remember(self, entries: list[Entry], entry: Entry, head: str) -> None:
        entries.append(entry)
        self._heads.setdefault(entry.names_update(), head)

    def _charged(self, entries: Sequence[Entry], order: TrainOrder) -> Charged:
        """What is the same whenever it is asked for, whatever was charged since."""
        run: list[GaussianEvent] = []
        delta = 0.0
        for entry in entries:
            if entry.names_run() == order.names_run():
                run.extend(entry.events)
                delta = entry.delta
            if entry.names_update() == order.names_update():
                break
        return Charged(self._heads[order.names_update()], by_unit(run, delta))


def price(entries: Iterable[Entry], events: Iterable[GaussianEvent], budget: Budget) -> Price:
    """What these events cost, of the budget's unit, after what its cohort spent already."""
    spent = [
        block for e in entries if e.cohort == budget.cohort if (block := _of(budget, e.events))
    ]
    new = _of(budget, events)
    with_it = [*spent, new] if new else spent
    limits = (budget.delta, budget.epsilon)
    return Price(epsilon_adaptive(spent, *limits), epsilon_adaptive(with_it, *limits), budget)


def check(store: Store, accepted: Iterable[str] | None = None) -> tuple[Checked[Entry], str | None]:
    """The ledger from its first entry on (see ``chain.check``), and what is wrong with it.

    Beside the chain itself: every entry is of an order that the site accepted, no update is in it
    twice, none draws on what was not charged, and everything that left was paid for by an entry
    that is still there.
    """
    left = [entry.spend for entry in egress.check(store).entries if entry.spend is not None]
    orders = {order["digest"] for order in accepted_orders(store)}
    checked = chain.check(store, RECORD, accepted)
    return checked, checked.fault or _contradiction(checked, orders, left)


def _contradiction(checked: Checked[Entry], orders: set[str], left: Sequence[str]) -> str | None:
    earlier: list[Entry] = []
    for entry in checked.entries:
        at = f"entry {entry.number}: "
        if entry.order_digest not in orders:
            return f"{at}the site accepted no such order"
        if any(entry.names_update() == other.names_update() for other in earlier):
            return f"{at}its update was charged before"
        if not entry.events and not any(other.covers(entry) for other in earlier):
            return f"{at}it draws on what was never charged"
        earlier.append(entry)
    missing = [head for head in left if head not in checked.heads]
    if missing:
        return f"an update left that was paid for by entry {missing[0][:12]}…, which is not there"
    return None


def _of(budget: Budget, events: Iterable[GaussianEvent]) -> tuple[GaussianEvent, ...]:
    return tuple(event for event in events if event.unit == budget.unit)
