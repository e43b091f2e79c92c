"""What the sites count for a task, and what the server makes of the sum: by the plan alone."""

from __future__ import annotations

from typing import Any

from fedcore.config.functions import resolve
from fedcore.config.task import Task
from fedcore.evaluation import memorisation, reconstruction, tally
from fedcore.records import Statistics


def layout(task: Task) -> tally.Layout:
    """Which arrays a site's statistics are, without groups."""
    found = dict(tally.layout_of(resolve(task.metrics.collect), len(task.classes)))
    if task.metrics.reconstruction:
        found |= reconstruction.layout(list(task.modalities))
    if task.metrics.memorisation > 0:
        found |= memorisation.layout()
    return found


def summarise(task: Task, statistics: Statistics) -> dict[str, Any]:
    """The plan's figures; of all subjects also ``reconstruction`` and ``memorisation``, where the
    plan asks for them.

    Raises UpdateRejected where nobody counted so.
    """
    also = dict[str, Any]()
    if task.metrics.reconstruction:
        also[reconstruction.KEY] = reconstruction.figures(statistics, list(task.modalities))
    if task.metrics.memorisation > 0:
        also[memorisation.KEY] = memorisation.figures(statistics)
    of_classes = {name: array for name, array in statistics.items() if name not in also}
    summary: dict[str, Any] = resolve(task.metrics.summarise)(of_classes, task.classes)
    return {**summary, "overall": {**summary["overall"], **also}} if also else summary
