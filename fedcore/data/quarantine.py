"""What ``fedcore site import`` set aside: a run counts it among what was left out.

One JSON object a study, ``derivatives/fedcore/quarantine/*.json``: ``{"subject": "sub-…", "items":
[{"reason": …}]}``; files that belong to no subject have none and are not counted here.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict

from fedcore.data.site import Files
from fedcore.errors import NotFound

log = logging.getLogger("fedcore.data")
PLACE = "derivatives/fedcore/quarantine/"


def read(files: Files, root: str) -> dict[str, list[tuple[str, str]]]:
    """Subject → (key, reason) of each of its series that could not be used.

    An entry that cannot be read is no reason to stop: it is told in the log.
    """
    aside = defaultdict(list)
    for key in files.list(f"{root}{PLACE}"):
        try:
            entry = json.loads(files.get(key))
            for item in entry["items"] if entry["subject"] is not None else ():
                aside[str(entry["subject"])].append((key, f"quarantined: {item['reason']}"))
        except (ValueError, KeyError, TypeError, NotFound) as error:
            log.warning("%s is no entry of the quarantine: %r", key, error)
    return dict(aside)
