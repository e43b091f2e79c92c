"""A SeaweedFS for the session, started the way the embedded stack starts it."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import weed

from fedcore.store.s3 import S3Store, connect


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """How ``connect`` reaches a bucket of a running SeaweedFS, as an administrator."""
    with weed.running(tmp_path_factory.mktemp("seaweedfs")) as running:
        yield running.reach


@pytest.fixture
def s3_store(seaweedfs: dict[str, Any]) -> S3Store:
    """An empty store: every test has its own prefix in the bucket."""
    return connect(**seaweedfs, prefix=f"{uuid.uuid4()}/")
