"""Prefect's server as the stack's workflow service: API, scheduler and UI on SQLite."""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fedcore.local.ports import LOOPBACK


class PrefectServer:
    """Everything it knows lies below ``folder``; it reports to nobody."""

    name = "Prefect"
    num_ports = 1
    grace = 5.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tmp").mkdir(parents=True, exist_ok=True)

    def command(self, ports: Sequence[int]) -> list[str]:
        """Prefect's application under uvicorn, without the command line's process in between."""
        return [
            *(sys.executable, "-m", "uvicorn"),
            *("--factory", "prefect.server.api.server:create_app"),
            *("--host", LOOPBACK, "--port", str(ports[0])),
            *("--log-level", "warning", "--no-access-log"),
            *("--timeout-graceful-shutdown", "2"),
        ]

    def environment(self, ports: Sequence[int]) -> dict[str, str]:
        """Nothing of the caller's: neither its Prefect profile nor its cloud."""
        return {
            "PATH": os.defpath,
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder / "tmp"),
            "PREFECT_HOME": str(self.folder),
            "PREFECT_API_URL": self.api_url(ports),
            "PREFECT_SERVER_API_HOST": LOOPBACK,
            "PREFECT_SERVER_API_PORT": str(ports[0]),
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(self.folder / "ui"),
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }

    def answers(self, ports: Sequence[int]) -> bool:
        """Whether its API says that it is well, which it does once its database is."""
        connection = http.client.HTTPConnection(LOOPBACK, ports[0], timeout=5)
        try:
            connection.request("GET", "/api/health")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def remains(self, ports: Sequence[int]) -> list[Path]:  # noqa: ARG002
        """Nothing."""
        return []

    def api_url(self, ports: Sequence[int]) -> str:
        """What ``PREFECT_API_URL`` has to be."""
        return f"{self.ui_url(ports)}/api"

    def ui_url(self, ports: Sequence[int]) -> str:
        """For the browser."""
        return f"http://{LOOPBACK}:{ports[0]}"
