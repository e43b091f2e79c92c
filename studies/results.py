"""What the studies found, in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results.json"


def write(study: str, found: dict[str, Any], path: Path = RESULTS) -> None:
    """Put a study's findings in the place of its earlier ones."""
    whole = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    whole[study] = found
    text = json.dumps(dict(sorted(whole.items())), indent=1, default=str)
    path.write_text(text + "\n", encoding="utf-8")
