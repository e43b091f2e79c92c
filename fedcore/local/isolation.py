"""Proof that the credentials of a stack keep the sites apart: every one is tried everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from fedcore.errors import AccessDenied
from fedcore.local.credentials import SERVER
from fedcore.local.stack import Stack
from fedcore.store.api import Store
from fedcore.store.exchange import grants
from fedcore.store.s3 import S3Store, connect

_PROBE = "derivatives/fedcore/isolation-probe"


class _Target(NamedTuple):
    """A bucket, or a prefix of the exchange; ``owner`` may write there."""

    bucket: str
    prefix: str
    owner: str


def isolation_table(stack: Stack) -> list[dict[str, Any]]:
    """Try each credential on each bucket and each prefix of the exchange: read, write and list.

    Rows of ``{site, target, action, allowed, expected}``; ``site`` is also ``server``. What is
    written for it is removed again. Raises StoreUnavailable.
    """
    targets = list(_targets(stack))
    stores = {name: _store(stack, name) for name in (SERVER, *stack.sites)}
    for target in targets:
        stores[target.owner].on(target.bucket).put(target.prefix + _PROBE, b"")
    rows = [
        {"site": name, "target": f"{target.bucket}/{target.prefix}", "action": action,
         "allowed": _allowed(attempt), "expected": action in _expected(stack, name, target)}
        for name, store in stores.items()
        for target in targets
        for action, attempt in _attempts(store.on(target.bucket), target.prefix)
    ]  # fmt: skip
    for target in targets:
        stores[target.owner].on(target.bucket).delete(target.prefix + _PROBE)
    return rows


def _targets(stack: Stack) -> Iterator[_Target]:
    for site in stack.sites:
        yield _Target(stack.site_bucket(site), "", site)
    yield _Target(stack.exchange_bucket, "params/", SERVER)
    yield _Target(stack.exchange_bucket, "records/", SERVER)
    for site in stack.sites:
        yield _Target(stack.exchange_bucket, f"orders/{site}/", SERVER)
        yield _Target(stack.exchange_bucket, f"replies/{site}/", SERVER)


def _expected(stack: Stack, name: str, target: _Target) -> set[str]:
    own = stack.exchange_bucket if name == SERVER else stack.site_bucket(name)
    if target.bucket == own:
        return {"read", "write", "list"}
    if name == SERVER or target.bucket != stack.exchange_bucket:
        return set()
    granted = grants(name)
    actions = {"read": granted.read, "write": granted.write}
    return {action for action, prefixes in actions.items() if target.prefix in prefixes}


def _attempts(store: Store, prefix: str) -> list[tuple[str, Callable[[], object]]]:
    return [
        ("read", lambda: store.get(prefix + _PROBE)),
        ("write", lambda: store.put(prefix + _PROBE, b"")),
        ("list", lambda: list(store.list(prefix))),
    ]


def _allowed(attempt: Callable[[], object]) -> bool:
    with suppress(AccessDenied):
        attempt()
        return True
    return False


def _store(stack: Stack, name: str) -> S3Store:
    keys = stack.credential(name)
    return connect(
        bucket=stack.exchange_bucket,
        endpoint=stack.s3_endpoint,
        access_key=keys.access_key,
        secret_key=keys.secret_key,
    )
