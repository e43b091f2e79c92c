"""A SeaweedFS for the session, started the way the embedded stack starts it."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedcore.local.credentials import ADMIN, identities, keep
from fedcore.local.seaweedfs import SeaweedFS
from fedcore.local.service import Service
from fedcore.store.s3 import S3Store, connect

BUCKET = "contracts"


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """How ``connect`` reaches a bucket of a running SeaweedFS, as an administrator."""
    folder: Path = tmp_path_factory.mktemp("seaweedfs")
    credentials = keep(folder / "credentials.json", [])
    program = SeaweedFS(folder, identities(credentials), credentials[ADMIN])
    service = Service(program)
    service.start()
    try:
        deadline = time.monotonic() + 60
        while not service.ready:
            service.look()
            assert time.monotonic() < deadline, service.report("did not answer in 60 s")
        program.administrator(service.ports).on(BUCKET).create_bucket()
        keys = credentials[ADMIN]
        yield {
            "bucket": BUCKET,
            "endpoint": program.endpoint(service.ports),
            "access_key": keys.access_key,
            "secret_key": keys.secret_key,
        }
    finally:
        service.stop()


@pytest.fixture
def s3_store(seaweedfs: dict[str, str]) -> S3Store:
    """An empty store: every test has its own prefix in the bucket."""
    return connect(**seaweedfs, prefix=f"{uuid.uuid4()}/")
