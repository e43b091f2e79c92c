"""S3 and Prefect on loopback, below one folder, for as long as they are needed and no longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from fedcore.errors import ServiceUnavailable
from fedcore.local import credentials
from fedcore.local.credentials import ADMIN, EXCHANGE, SERVER, Credential
from fedcore.local.prefect_server import PrefectServer
from fedcore.local.seaweedfs import SeaweedFS
from fedcore.local.service import Service

_LOOK = 0.1


class Stack:
    """A context manager; or ``start`` and ``stop``. Everything is kept below ``workdir``.

    A stack started again there has the same data and credentials, and the same ports if they
    are still free. While it is up, a service that dies is started again within seconds.

    ``start`` raises ServiceUnavailable, with the end of the log, if a service ends or does not
    answer within ``timeout`` seconds. Prefect's first start makes its database: 17 s of one core.
    """

    def __init__(self, workdir: Path, sites: Sequence[str], *, timeout: float = 180.0) -> None:
        workdir = workdir.resolve()
        workdir.mkdir(parents=True, exist_ok=True)
        self.sites = tuple(sites)
        self._credentials = credentials.keep(workdir / "credentials.json", sites)
        identities = credentials.identities(self._credentials)
        self._s3 = SeaweedFS(workdir / "s3", identities, self._credentials[ADMIN])
        self._prefect = PrefectServer(workdir / "prefect")
        self._timeout = timeout
        self._stopping = threading.Event()
        self.seconds: dict[str, float] = {}
        """How long each service took from its start until it answered."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start both services at once, and return when both answer and the buckets are there."""
        self._services = {"s3": Service(self._s3), "prefect": Service(self._prefect)}
        self._watchdog = threading.Thread(target=self._watch, name="fedcore-watchdog", daemon=True)
        self._stopping.clear()
        try:
            for service in self._services.values():
                service.start()
            self._wait_until_ready()
            administrator = self._s3.administrator(self._services["s3"].ports)
            for bucket in (EXCHANGE, *map(credentials.site_bucket, self.sites)):
                administrator.on(bucket).create_bucket()
        except BaseException:
            self._end_services()
            raise
        self.seconds = {name: service.seconds for name, service in self._services.items()}
        self._watchdog.start()

    def stop(self) -> None:
        """End both services; their data stay."""
        self._stopping.set()
        self._watchdog.join()
        self._end_services()

    @property
    def s3_endpoint(self) -> str:
        """The URL of the S3 service."""
        return self._s3.endpoint(self._services["s3"].ports)

    @property
    def prefect_api_url(self) -> str:
        """The URL of Prefect's API."""
        return self._prefect.api_url(self._services["prefect"].ports)

    @property
    def prefect_ui_url(self) -> str:
        """The URL of Prefect's UI."""
        return self._prefect.ui_url(self._services["prefect"].ports)

    @property
    def prefect_home(self) -> Path:
        """A ``PREFECT_HOME`` for the flows, in which nothing is but this stack's."""
        return self._prefect.folder

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each service, to look at, or to kill in tests."""
        return {name: service.pid for name, service in self._services.items()}

    @property
    def exchange_bucket(self) -> str:
        """The bucket that server and sites share."""
        return EXCHANGE

    def site_bucket(self, site: str) -> str:
        """The bucket of the site's own data."""
        return credentials.site_bucket(site)

    def credential(self, name: str) -> Credential:
        """The credential of a site, or of ``server``."""
        if name not in (SERVER, *self.sites):
            raise KeyError(name)
        return self._credentials[name]

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._timeout
        waiting = list(self._services.values())
        while waiting:
            for service in waiting:
                service.look()
                if not service.ready and time.monotonic() > deadline:
                    what = f"did not answer within {self._timeout:.0f} s"
                    raise ServiceUnavailable(service.report(what))
            waiting = [service for service in waiting if not service.ready]
            self._stopping.wait(_LOOK if waiting else 0)

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK):
            for service in self._services.values():
                service.revive()

    def _end_services(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Service.stop, self._services.values()))
