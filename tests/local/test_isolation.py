from typing import Any

import pytest

from fedcore.errors import AccessDenied
from fedcore.local import Stack, isolation_table
from fedcore.store.s3 import S3Store, connect

pytestmark = pytest.mark.e2e


def store(stack: Stack, name: str, bucket: str) -> S3Store:
    keys = stack.credential(name)
    return connect(
        bucket=bucket,
        endpoint=stack.s3_endpoint,
        access_key=keys.access_key,
        secret_key=keys.secret_key,
    )


@pytest.fixture(scope="module")
def rows(stack: Stack) -> list[dict[str, Any]]:
    return isolation_table(stack)


def test_every_attempt_ends_as_expected_and_leaves_nothing(
    stack: Stack, rows: list[dict[str, Any]]
) -> None:
    assert [row for row in rows if row["allowed"] != row["expected"]] == []
    assert len(rows) == 3 * 8 * 3  # credentials × targets × actions
    assert list(store(stack, "server", stack.exchange_bucket).list()) == []
    assert list(store(stack, "north", stack.site_bucket("north")).list()) == []


def test_what_a_site_may_do_is_little(rows: list[dict[str, Any]]) -> None:
    allowed = {
        (row["target"], row["action"]) for row in rows if row["site"] == "north" and row["allowed"]
    }
    assert allowed == {
        ("fedcore-site-north/", "read"),
        ("fedcore-site-north/", "write"),
        ("fedcore-site-north/", "list"),
        ("fedcore-exchange/params/", "read"),
        ("fedcore-exchange/orders/north/", "read"),
        ("fedcore-exchange/replies/north/", "read"),
        ("fedcore-exchange/replies/north/", "write"),
    }


@pytest.mark.parametrize(
    "key", ["params/run/1", "orders/north/1", "orders/south/1", "replies/south/1", "records/r"]
)
def test_a_site_can_neither_overwrite_nor_remove(stack: Stack, key: str) -> None:
    server = store(stack, "server", stack.exchange_bucket)
    north = store(stack, "north", stack.exchange_bucket)
    server.put(key, b"true")
    for attempt in (
        lambda: north.put(key, b"false"),
        lambda: north.create(key + "/new", b"false"),
        lambda: north.replace(key, b"false", server.get_versioned(key).version),
        lambda: north.delete(key),
    ):
        with pytest.raises(AccessDenied, match=key):
            attempt()
    assert server.get(key) == b"true"
    server.delete(key)


def test_a_site_with_a_similar_name_is_another_site(stack: Stack) -> None:
    server = store(stack, "server", stack.exchange_bucket)
    server.put("orders/north-2/1", b"")
    with pytest.raises(AccessDenied):
        store(stack, "north", stack.exchange_bucket).get("orders/north-2/1")
    server.delete("orders/north-2/1")


def test_a_wrong_secret_opens_nothing(stack: Stack) -> None:
    keys = stack.credential("north")
    bucket = stack.site_bucket("north")
    for access_key, secret in ((keys.access_key, "wrong"), ("unknown", keys.secret_key)):
        wrong = connect(
            bucket=bucket, endpoint=stack.s3_endpoint, access_key=access_key, secret_key=secret
        )
        with pytest.raises(AccessDenied, match="correct the credential"):
            wrong.get("key")
