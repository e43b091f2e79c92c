"""Proof from within a site's pod: what it must reach it reaches, and nothing else answers.

``helm test`` runs this in the site's namespace, with the credentials and the network of a client.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from fedcore.config import policy as policies
from fedcore.config.federation import Location
from fedcore.errors import AccessDenied, FedcoreError, NotFound
from fedcore.settings import ClientSettings
from fedcore.store.api import Store
from fedcore.store.connect import Keys, keys_of, open_store

_TIMEOUT = 5.0
_PROBE = "derivatives/fedcore/isolation-probe"


@dataclass(frozen=True)
class Row:
    """One attempt. ``happened``: allowed, refused, or why it could not be told."""

    attempt: str
    expected: str
    happened: str

    @property
    def as_expected(self) -> bool:
        """Whether the isolation holds here."""
        return self.expected == self.happened


def probe(
    settings: ClientSettings,
    *,
    foreign_buckets: Sequence[str] = (),
    unreachable: Sequence[str] = (),
) -> Iterator[Row]:
    """Try the site's own places, other sites' places, and addresses that must not connect.

    ``foreign_buckets``: buckets of other sites at the same endpoint as the data. ``unreachable``:
    ``host:port`` of whatever must not answer. Raises ConfigError if the policy cannot be read.
    """
    site = policies.load(settings.policy).site
    data = open_store(settings.data, keys=keys_of(settings.data_keys))
    exchange = open_store(settings.exchange, keys=keys_of(settings.exchange_keys))
    own = f"replies/{site}/isolation-probe"
    yield _row("read own data", True, partial(_read, data, "participants.tsv"))
    yield _row("write own ledger", True, partial(data.put, _PROBE, b""))
    yield _row("write own replies", True, partial(exchange.put, own, b""))
    yield _row("read own replies", True, partial(_read, exchange, own))
    for place in ("params/", f"orders/{site}/", "replies/another-site/", "records/"):
        yield _row(f"write {place}", False, partial(exchange.put, f"{place}isolation-probe", b""))
    for place in ("orders/another-site/", "replies/another-site/", "records/"):
        yield _row(f"read {place}", False, partial(_read, exchange, f"{place}isolation-probe"))
    yield _row("list the exchange", False, partial(_list, exchange))
    for bucket in foreign_buckets:
        foreign = _foreign(settings.data, bucket, keys_of(settings.data_keys))
        yield _row(f"read bucket {bucket}", False, partial(_read, foreign, "participants.tsv"))
        yield _row(f"write bucket {bucket}", False, partial(foreign.put, _PROBE, b""))
    for address in unreachable:
        yield _row(f"connect to {address}", False, partial(_connect, address))


def _row(attempt: str, allowed: bool, act: Callable[[], object]) -> Row:
    expected = "allowed" if allowed else "refused"
    try:
        act()
    except (AccessDenied, OSError):
        return Row(attempt, expected, "refused")
    except FedcoreError as error:
        return Row(attempt, expected, f"unknown: {error}")
    return Row(attempt, expected, "allowed")


def _read(store: Store, key: str) -> None:
    """Whether it may be read: that there is nothing is an answer too."""
    try:
        store.get(key)
    except NotFound:
        return


def _list(store: Store) -> None:
    next(store.list(), None)


def _foreign(data: Location, bucket: str, keys: Keys | None) -> Store:
    return open_store(data.model_copy(update={"bucket": bucket}), keys=keys)


def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=_TIMEOUT).close()
