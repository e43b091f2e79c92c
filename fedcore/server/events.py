"""What the server tells while it works: log records that carry their facts.

The terminal shows them as progress, Prefect's log as lines; neither is known here.
"""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("fedcore.run")


def tell(event: str, /, **facts: Any) -> None:
    """Log ``event`` with its facts; a handler finds both in the record's ``event`` attribute."""
    text = ", ".join(f"{name}={value}" for name, value in facts.items())
    log.info("%s: %s", event, text, extra={"event": {"event": event, **facts}})
