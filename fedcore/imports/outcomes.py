"""One scan or mask → its files, or the reason why there are none. Nothing is written here.

All that goes in and comes out can be sent to another process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from fedcore.errors import DataError
from fedcore.imports import writer
from fedcore.imports.convert import readable
from fedcore.imports.masks import Grid
from fedcore.imports.reasons import Reason
from fedcore.imports.records import Outcome
from fedcore.imports.rules import ModalityRule, Rules
from fedcore.imports.visits import MaskSource, Scan, Volume

log = logging.getLogger("fedcore.import")

Files = dict[str, bytes]
Made = tuple[Outcome, Files]

Finish = Callable[[Volume, str], Volume]
"""What is done to a volume of a modality before it is written: faces removed, say."""


def unchanged(volume: Volume, _modality: str) -> Volume:
    """The Finish that does nothing."""
    return volume


def image(
    scan: Scan, series: str, rule: ModalityRule, key: str, rules: Rules, finish: Finish
) -> Made:
    """What becomes of a scan that the rules want as ``key``. Raises nothing for what it holds."""
    if scan.risk is not None and rules.burned_in == "quarantine":
        return set_aside(series, rule.name, Reason.BURNED_IN, scan.risk), {}
    provenance = {"modality": rule.name, "series": series, "rules": rules.digest[:12]}
    try:
        volume = finish(scan.read(), rule.name)
        if scan.risk is not None:
            note = f"text may be burned in: {scan.risk}"
            volume = replace(volume, notes=(*volume.notes, note))
        files = writer.image_files(key, volume, provenance)
        readable(files[key])
    except Exception as error:  # of whatever kind: one bad series stops nothing
        return _failed(series, rule.name, error), {}
    x, y, z = volume.voxels.shape
    outcome = Outcome(
        series=series, what="used", modality=rule.name, notes=volume.notes,
        files=tuple(files), shape=(x, y, z), affine=volume.affine.tolist(),
    )  # fmt: skip
    return outcome, files


def masks(source: MaskSource, series: str, modality: str | None, on: str, grid: Grid) -> Made:
    """What becomes of masks of the image ``on``. Raises nothing for what the source holds."""
    files: Files = {}
    try:
        for name, mask in source.read(grid).items():
            files |= writer.mask_file(on, name, mask, grid.affine)
    except Exception as error:  # as above, of a mask
        return _failed(series, modality, error), {}
    return Outcome(series=series, what="used", modality=modality, files=tuple(files)), files


def set_aside(series: str, modality: str | None, reason: str, sentence: str) -> Outcome:
    """What goes into quarantine."""
    return Outcome(
        series=series, what="quarantined", modality=modality, reason=str(reason), sentence=sentence
    )


def _failed(series: str, modality: str | None, error: Exception) -> Outcome:
    """Whatever goes wrong with one series is a reason to leave it out, never to stop."""
    if isinstance(error, DataError):
        return set_aside(series, modality, error.reason, str(error))
    log.warning("a series could not be read", exc_info=error)
    sentence = f"it made the import fail: {type(error).__name__}"
    return set_aside(series, modality, Reason.INTERNAL, sentence)
