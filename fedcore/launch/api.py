"""The one protocol through which the server gets clients to run, wherever that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class ClientStatus:
    """How a site's client is.

    ``running``: alive, or nobody's business here (the site starts its own). ``failed``: ended
    without the reply; ``reason`` says why in one sentence, ``permanent`` that a new start would
    end the same way.
    """

    state: Literal["running", "failed"]
    reason: str = ""
    permanent: bool = False


class Launcher(Protocol):
    """Starts, watches and ends clients. Every method may be called again without harm."""

    def ensure(self, site: str, run_id: str, seq: int) -> None:
        """See to it that a client of ``site`` is alive that will answer order ``seq``."""

    def poll(self, site: str) -> ClientStatus:
        """How that client is now."""

    def cancel(self, site: str) -> None:
        """End it."""


class ExternalLauncher:
    """``launch: none``: the sites start their clients themselves; the server only waits."""

    def ensure(self, site: str, run_id: str, seq: int) -> None:
        """Nothing to do."""

    def poll(self, site: str) -> ClientStatus:  # noqa: ARG002
        """Taken to be running: whether a reply comes is for the deadline to say."""
        return ClientStatus("running")

    def cancel(self, site: str) -> None:
        """Nothing to do."""
