"""Runs as Prefect's UI starts, watches and cancels them: through its HTTP API."""

from __future__ import annotations

from typing import Any

import httpx
from cluster import KindError

_OVER = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Prefect:
    """``url``: of the server, without ``/api``."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=f"{url}/api", timeout=30)

    def start(self, deployment: str) -> str:
        """Run a deployment (``flow/name``) with its own parameters; the flow run's id."""
        found = self._ask("GET", f"/deployments/name/{deployment}")
        run = self._ask("POST", f"/deployments/{found['id']}/create_flow_run", {})
        return str(run["id"])

    def state(self, run: str) -> str:
        """RUNNING, COMPLETED, …; raises KindError if the run has failed."""
        state = self._ask("GET", f"/flow_runs/{run}")["state"]
        if state["type"] in ("FAILED", "CRASHED"):
            raise KindError(f"the run {state['name']}: {state['message']}")
        return str(state["type"])

    def is_over(self, run: str) -> bool:
        """Whether nothing more will come of it; raises KindError if it has failed."""
        return self.state(run) in _OVER

    def parameters(self, run: str) -> dict[str, Any]:
        """What the run was asked with."""
        found: dict[str, Any] = self._ask("GET", f"/flow_runs/{run}")["parameters"]
        return found

    def cancel(self, run: str) -> None:
        """As the button does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self._ask("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": False})

    def artifacts(self, run: str) -> list[dict[str, Any]]:
        """What the run showed: a table a round, and the model's card."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [run]}}}
        found: list[dict[str, Any]] = self._ask("POST", "/artifacts/filter", wanted)
        return found

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        try:
            answer = self._http.request(method, path, json=body)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise KindError(f"Prefect's server: {error}") from error
        return answer.json()
