"""What the server tells while it works: log records that carry their facts.

The terminal shows them as progress, Prefect's log as lines; neither is known here.
"""

from __future__ import annotations

import logging
from dataclasses import is_dataclass
from typing import Any

log = logging.getLogger("fedcore.run")
log.setLevel(logging.INFO)  # the root's level would hide what a listener is there for


def tell(event: str, /, **facts: Any) -> None:
    """Log ``event`` with its facts; a handler finds both in the record's ``event`` attribute."""
    plain = {name: value for name, value in facts.items() if not is_dataclass(value)}
    text = ", ".join(f"{name}={value}" for name, value in plain.items())
    log.info("%s: %s", event, text, extra={"event": {"event": event, **facts}})
