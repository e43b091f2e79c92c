"""What was prepared, kept at the site, so that the next client need not prepare it again.

Below ``derivatives/fedcore/prepared/<pipeline>/<subject>/`` lie ``<files>.safetensors``, the
images as a model takes them, and ``<files>.json``, what was done to them. ``<pipeline>`` is the
digest of everything that is done, ``<files>`` that of the bytes it was done to and of a human's
verdicts: another parameter, another byte or another version of a step is another key, and nothing
here can be out of date.

The images are float32 and not float16, so that a client computes the same update whether it finds
them here or makes them: half of the bytes is not worth a result that depends on a cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedcore.data.preparation import Doubt, Pipeline, Prepared, Verdict, libraries
from fedcore.data.preprocess import Grid
from fedcore.data.site import Files
from fedcore.errors import AccessDenied, NotFound

log = logging.getLogger("fedcore.data")

FOLDER = "derivatives/fedcore/prepared/"


@runtime_checkable
class Folder(Files, Protocol):
    """The part of a Store that keeping takes: every ``put`` is whole, or is not."""

    def put(self, key: str, data: bytes) -> None:
        """Write, replacing what was there."""


class Kept:
    """What one pipeline prepared. ``root``: of the BIDS dataset, empty or with a slash at its end.

    Where the site's credential may only read, nothing is kept, and that is logged once.
    """

    def __init__(self, folder: Folder, root: str, pipeline: Pipeline) -> None:
        self._folder = folder
        self._prefix = f"{root}{FOLDER}{pipeline.digest[:16]}/"
        self._may_write = True

    def key(
        self,
        subject: str,
        files: Mapping[str, bytes],
        verdicts: Mapping[str, tuple[str, Verdict]],
    ) -> str:
        """Of a subject's files (modality → bytes) and verdicts, without an ending."""
        inputs = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        text = json.dumps([inputs, verdicts], sort_keys=True)
        return f"{self._prefix}{subject}/{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def get(self, key: str) -> Prepared | None:
        """What lies there, or None: there is nothing, a part, or something damaged."""
        try:
            about = json.loads(self._folder.get(f"{key}.json"))
            data = self._folder.get(f"{key}.safetensors")
            if hashlib.sha256(data).hexdigest() == about["sha256"]:
                return _read(data, about)
            log.warning("%s.safetensors is damaged: prepared anew", key)
        except NotFound:
            pass
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            log.warning("%s.json is damaged (%s): prepared anew", key, type(error).__name__)
        return None

    def put(self, key: str, prepared: Prepared) -> None:
        """Keep it. The images come first: what lacks its JSON file does not count."""
        if not self._may_write:
            return
        data = save(dict(prepared.images))
        text = json.dumps(_about(prepared, data), indent=1, ensure_ascii=False)
        try:
            self._folder.put(f"{key}.safetensors", data)
            self._folder.put(f"{key}.json", text.encode())
        except AccessDenied as error:
            self._may_write = False
            log.warning("what is prepared cannot be kept, and is prepared each time: %s", error)


def _about(prepared: Prepared, data: bytes) -> dict[str, Any]:
    grid = prepared.grid
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "grid": None if grid is None else [list(grid.shape), grid.spacing_mm, list(grid.centre_mm)],
        "images": list(prepared.history),
        "order": list(prepared.images),
        "left_out": {name: list(why) for name, why in prepared.left_out.items()},
        "doubts": [vars(doubt) for doubt in prepared.doubts],
        "libraries": libraries(),
    }


def _read(data: bytes, about: Mapping[str, Any]) -> Prepared:
    images = load(data)
    grid = None
    if about["grid"] is not None:
        (width, depth, height), spacing, (x, y, z) = about["grid"]
        grid = Grid((width, depth, height), spacing, (x, y, z))
    return Prepared(
        images={name: images[name] for name in about["order"]},
        left_out={name: (reason, told) for name, (reason, told) in about["left_out"].items()},
        doubts=tuple(Doubt(**{**d, "concerns": tuple(d["concerns"])}) for d in about["doubts"]),
        grid=grid,
        history=tuple(about["images"]),
    )
