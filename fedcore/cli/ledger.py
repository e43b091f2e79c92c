"""A site's own records: what left it, which orders it accepted, and what privacy they spent."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedcore.cli.options import DEFAULT_FEDERATION, FederationFile, Json, PlanFile, print_json
from fedcore.errors import BlobError, OrderRefused
from fedcore.terminal import console, show_rows

if TYPE_CHECKING:
    from fedcore.config.policy import Budget
    from fedcore.store import budget
    from fedcore.store.api import Store
    from fedcore.store.egress import Entry

ledger_app = typer.Typer(
    help="A site's own records: what left it, which orders it took, what privacy they spent.",
    no_args_is_help=True,
)

Data = Annotated[
    Path | None,
    typer.Option(help="Folder with (a copy of) the site's bucket; unset: FEDCORE_DATA's place."),
]
PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy", help="The site's policy, for its budget; unset: FEDCORE_POLICY's, or none."
    ),
]
RunId = Annotated[str | None, typer.Option("--run", help="This run alone.")]

_SHOWN = {"no": "number", "when": "when", "round": "round", "what": "kind",
          "sent": "protection", "bytes": "bytes", "ε": "epsilon"}  # fmt: skip


@ledger_app.command("egress")
def egress(
    data: Data = None,
    run_id: RunId = None,
    identity: Annotated[
        list[str] | None,
        typer.Option(help="Public identity that every entry must be signed by. Repeatable."),
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option(help="Hash that a reply bore witness of, and that must be here. Repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """What left the site, when, and under which protection; and whether the record is whole.

    Checks that no entry was changed, removed or moved. Entries cut off the end show by what the
    server's copies of the replies bear witness of: `fedcore ledger witness` there prints it. The
    site's own FEDCORE_IDENTITY, where it is set, is who must have signed. Exit code 65 if anything
    is wrong, after what is sound.
    """
    from fedcore.store.egress import check

    store, own = _store(data)
    checked = check(store, identity or own)
    entries = [entry for entry in checked.entries if run_id in (None, entry.run_id)]
    rows = [_row(entry) for entry in entries]
    for title, of_run in _by_run(rows).items():
        show_rows(title, of_run)
    fault = checked.fault
    missing = [head for head in witness or () if head not in checked.heads]
    if fault is None and missing:
        fault = f"the end was cut off: nothing here has the hash {missing[0]}"
    summary = _summary(entries) | {"signed_by": sorted(checked.signers), "fault": fault}
    console.print(_told(summary), markup=False, highlight=False)
    print_json(summary | {"entries": rows}, as_json=as_json)
    if fault is not None:
        raise BlobError(
            f"the egress record is broken: {fault}. Compare it with a backup, and with the replies "
            "in the exchange"
        )


@ledger_app.command("show")
def show(data: Data = None, policy: PolicyFile = None, as_json: Json = False) -> None:
    """What privacy was spent on what, and what is left of the policy's budget.

    A row a run and unit: ε is the run's alone, at its plan's δ. What the runs come to together is
    not the sum of their ε but what docs/privacy.md says. Updates that left without noise before
    the site had a budget are counted apart: no ε bounds what they show.
    """
    from fedcore.store import budget, egress

    store, _ = _store(data)
    checked, fault = budget.check(store)
    rows = [row for of_run in _runs(checked.entries).values() for row in _spent_on(of_run)]
    show_rows("Spent", rows)
    terms = _budget(data, policy)
    told = None
    if terms is not None:
        told = _priced(budget.price(checked.entries, (), terms))
        show_rows(f"Budget, by unit {terms.unit} and cohort {terms.cohort}", [told])
    left = egress.check(store).entries
    free = sum(entry.kind in egress.UPDATES and entry.spend is None for entry in left)
    if free:
        console.print(f"{free} updates left without noise: no epsilon bounds what they show")
    print_json(
        {"spent": rows, "budget": told, "without_noise": free, "fault": fault}, as_json=as_json
    )
    if fault is not None:
        raise BlobError(f"the budget ledger is broken: {fault}; see `fedcore ledger verify`")


@ledger_app.command("verify")
def verify(
    data: Data = None,
    identity: Annotated[
        list[str] | None,
        typer.Option(help="Public identity that every entry must be signed by. Repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the budget ledger: whole, signed, and in agreement with the site's other records.

    No entry was changed, removed or moved; each is of an order that the site accepted; no update is
    in it twice; and every update that left, by the egress record, was paid for by an entry that is
    still there. `fedcore ledger egress` checks that record. The site's own FEDCORE_IDENTITY, where
    it is set, is who must have signed. Exit code 65 if anything is wrong.
    """
    from fedcore.store import budget

    store, own = _store(data)
    checked, fault = budget.check(store, identity or own)
    summary = {
        "entries": len(checked.entries),
        "runs": len(_runs(checked.entries)),
        "signed_by": sorted(checked.signers),
        "head": checked.heads[-1] if checked.heads else None,
        "fault": fault,
    }
    show_rows("Budget ledger", [{"what": name, "": told or "–"} for name, told in summary.items()])
    print_json(summary, as_json=as_json)
    if fault is not None:
        raise BlobError(
            f"the budget ledger is broken: {fault}. Compare it with a backup, and with `fedcore "
            "ledger egress` and `orders`"
        )


@ledger_app.command("spend")
def spend(
    plan: PlanFile, data: Data = None, policy: PolicyFile = None, as_json: Json = False
) -> None:
    """What a run of PLAN would cost this site, before it is agreed to; nothing is written.

    Shows what is spent, what it would be with the run, and what would be left. Exit code 77 if
    the site would refuse it for its budget.
    """
    from fedcore.config import plan as plans
    from fedcore.config.spending import run_events, without_noise
    from fedcore.privacy.accounting import by_unit
    from fedcore.store import budget

    what, terms = plans.load(plan), _budget(data, policy)
    alone = by_unit(run_events(what), what.privacy.target_delta)
    checked, fault = budget.check(_store(data)[0])
    if fault is not None:
        raise BlobError(f"the budget ledger is broken: {fault}; see `fedcore ledger verify`")
    told: dict[str, Any] = {"plan": what.name, "digest": what.digest, "alone": alone}
    told |= {"refused": None, "budget": None}
    if terms is not None:
        price = budget.price(checked.entries, run_events(what), terms)
        told["refused"] = without_noise(what, terms.unit) or price.refusal
        told["budget"] = _priced(price)
        show_rows(f"{what.name}, by unit {terms.unit} and cohort {terms.cohort}", [told["budget"]])
    by = ", ".join(f"ε {value:.3g} for one {unit}" for unit, value in alone.items())
    console.print(
        f"alone: {by or 'no bound, for it adds no noise'} (δ {what.privacy.target_delta:g})"
    )
    if terms is None:
        console.print("The policy sets no budget: nothing is refused for what it spends.")
    print_json(told, as_json=as_json)
    if told["refused"] is not None:
        raise OrderRefused(told["refused"])


@ledger_app.command("orders")
def orders(data: Data = None, run_id: RunId = None, as_json: Json = False) -> None:
    """Which orders the site accepted."""
    from fedcore.store.ledger import accepted_orders

    wanted = ("run_id", "seq", "kind", "round_num", "plan_digest", "digest")
    rows = [
        {name: order.get(name) for name in wanted}
        for order in accepted_orders(_store(data)[0])
        if run_id in (None, order.get("run_id"))
    ]
    show_rows("Orders", rows)
    print_json({"orders": rows}, as_json=as_json)


@ledger_app.command("witness")
def witness(
    run: Annotated[str, typer.Argument(help="The run.")],
    federation: FederationFile = DEFAULT_FEDERATION,
    as_json: Json = False,
) -> None:
    """The coordinator's: how far each site's egress record went, by its last replies of a run.

    For `fedcore ledger egress --witness` at the site.
    """
    from fedcore.config import federation as federations
    from fedcore.server.connect import server_store
    from fedcore.store.egress import witnessed

    who = federations.load(federation)
    store = server_store(who)
    heads = {site: witnessed(store, site, run) for site in who.sites}
    show_rows(
        "Witnessed", [{"site": s, "hash": head} for s, all_ in heads.items() for head in all_]
    )
    print_json(heads, as_json=as_json)


def _store(data: Path | None) -> tuple[Store, list[str] | None]:
    """The site's bucket, and the identity that the environment names."""
    from fedcore.settings import client_settings
    from fedcore.store.connect import keys_of, open_store
    from fedcore.store.envelope import load_key, public_text
    from fedcore.store.filesystem import FilesystemStore

    if data is not None:
        return FilesystemStore(data), None
    settings = client_settings()
    path = settings.identity
    own = [public_text(load_key(path))] if path is not None and path.exists() else None
    return open_store(settings.data, keys=keys_of(settings.data_keys)), own


def _budget(data: Path | None, policy: Path | None) -> Budget | None:
    """Of the policy that is named, or of the environment's; none of a copy without one."""
    from fedcore.config import policy as policies
    from fedcore.settings import client_settings

    if policy is None and data is not None:
        return None
    return policies.load(policy or client_settings().policy).budget


def _runs(entries: list[budget.Entry]) -> dict[tuple[str, ...], list[budget.Entry]]:
    runs: dict[tuple[str, ...], list[budget.Entry]] = {}
    for entry in entries:
        runs.setdefault(entry.names_run(), []).append(entry)
    return runs


def _spent_on(entries: list[budget.Entry]) -> list[dict[str, Any]]:
    """Of one run, a row a unit."""
    from fedcore.privacy.accounting import by_unit

    first, events = entries[0], [event for entry in entries for event in entry.events]
    return [
        {
            "run": first.run_id,
            "since": first.when[:16].replace("T", " "),
            "purpose": first.purpose,
            "plan": first.plan_digest[:12],
            "cohort": first.cohort,
            "updates": len(entries),
            "unit": unit,
            "noise": " ".join(sorted({f"{e.noise_multiplier:g}" for e in of_unit})),
            "sampling": " ".join(sorted({f"{e.sampling_rate:g}" for e in of_unit})),
            "releases": sum(event.count for event in of_unit),
            "ε": value,
            "δ": f"{first.delta:g}",
        }
        for unit, value in by_unit(events, first.delta).items()
        if (of_unit := [event for event in events if event.unit == unit])
    ]


def _priced(price: budget.Price) -> dict[str, Any]:
    return {
        "spent": price.spent,
        "with_it": price.total,
        "allowed": price.budget.epsilon,
        "left": price.left,
        "delta": f"{price.budget.delta:g}",
    }


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "number": entry.number,
        "when": entry.when,
        "run": entry.run_id,
        "round": entry.round_num,
        "kind": entry.kind,
        "protection": entry.protection,
        "bytes": entry.bytes,
        "clip": entry.clip_norm,
        "norm": entry.update_norm,
        "noise": entry.noise_multiplier,
        "epsilon": entry.epsilon,
        "purpose": entry.purpose,
        "plan": (entry.plan_digest or "")[:12],
        "approver": entry.approver,
        "to": entry.destination,
        "sha256": entry.sha256,
    }


def _by_run(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Tables by run and by what a run has in common: terms, and who approved them."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        terms = ("plan", "purpose", "clip", "noise", "approver")
        told = ", ".join(f"{name} {row[name]}" for name in terms if row[name] not in (None, ""))
        shown = {title: "–" if row[name] is None else row[name] for title, name in _SHOWN.items()}
        shown["when"] = row["when"][:16].replace("T", " ")
        tables.setdefault(f"{row['run']}: {told}", []).append(shown)
    return tables


def _summary(entries: list[Entry]) -> dict[str, Any]:
    """Bytes by kind, and the epsilon of each run, as far as it is known."""
    sizes: Counter[str] = Counter()
    for entry in entries:
        sizes[entry.kind] += entry.bytes
    runs = {entry.run_id: None for entry in entries} | {
        entry.run_id: entry.epsilon for entry in entries if entry.epsilon is not None
    }
    return {"left": len(entries), "bytes": dict(sizes), "epsilon_by_run": runs}


def _told(summary: dict[str, Any]) -> str:
    sizes = ", ".join(f"{kind} {size}" for kind, size in summary["bytes"].items())
    runs = ", ".join(
        f"{run} ({'no epsilon' if spent is None else f'epsilon {spent:.3g}'})"
        for run, spent in summary["epsilon_by_run"].items()
    )
    signed = ", ".join(summary["signed_by"]) or "nobody: the site has no identity"
    return (
        f"{summary['left']} objects left\nbytes     {sizes or 'none'}\nruns      {runs or 'none'}\n"
        f"signed by {signed}"
    )
