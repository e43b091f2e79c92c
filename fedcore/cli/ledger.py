"""A site's own records: what left it, and which orders it accepted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedcore.cli.options import DEFAULT_FEDERATION, FederationFile, Json, print_json
from fedcore.errors import BlobError
from fedcore.terminal import console, show_rows

if TYPE_CHECKING:
    from fedcore.store.api import Store
    from fedcore.store.egress import Entry

ledger_app = typer.Typer(
    help="A site's own records: what left it, which orders it took.", no_args_is_help=True
)

Data = Annotated[
    Path | None,
    typer.Option(help="Folder with (a copy of) the site's bucket; unset: FEDCORE_DATA's place."),
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
