"""What of the task, and of what is asked of its model, cannot go together."""

from __future__ import annotations

from operator import gt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedcore.config.plan import Plan


def check(plan: Plan) -> list[str]:
    """Each fault of the plan that is of this kind, as one sentence."""
    faults = []
    if plan.gates.max_group_gap is not None and not plan.task.groups:
        faults.append("gates: max_group_gap needs task.groups to compare; name them or remove it")
    return [
        *faults,
        *_against_the_other_task(plan),
        *_without_images(plan),
        *_against_patches(plan),
    ]


def _against_the_other_task(plan: Plan) -> list[str]:
    """What is of a classification, asked of a segmentation, or the other way round."""
    gates = plan.gates.asked()
    if plan.task.target is None:
        return [
            f"gates: {name} is of a segmentation, and there is no task.target; remove it"
            for name in ("min_dice", "min_site_dice") if name in gates
        ]  # fmt: skip
    faults = [
        f"gates: {name} is of a classification, and task.target makes this a segmentation; remove "
        "it, or ask for min_dice"
        for name in ("min_macro_auc", "min_accuracy", "min_site_auc") if name in gates
    ]  # fmt: skip
    of_classes = {
        "imbalance": plan.training.imbalance != "none",
        "alignment": plan.training.alignment is not None,
    }
    return faults + [
        f"training: {name} goes by each subject's class, and in a segmentation (task.target) it "
        "has none; remove it"
        for name, asked in of_classes.items() if asked
    ]  # fmt: skip


def _without_images(plan: Plan) -> list[str]:
    """What is of images of a known kind, asked of a task that names none."""
    if plan.training.augment is None or plan.task.modalities:
        return []
    return [
        "training: augment varies an image as its kind asks for, and task.modalities names none; "
        "name them, or remove it"
    ]


def _against_patches(plan: Plan) -> list[str]:
    """What cannot be cut into patches."""
    patches, where, faults = plan.training.patches, "training: patches ", []
    if patches is None:
        return []
    if plan.task.target is None:
        faults.append(
            f"{where}are for a segmentation, where each voxel has a class; without task.target the "
            "subject has one, and a patch need not show why; remove patches"
        )
    grid = _grid(plan)
    if any(map(gt, patches.shape, grid)):
        faults.append(
            f"{where}of {patches.shape} voxels do not fit into the grid of {grid}; lower "
            "patches.shape, or remove patches"
        )
    if plan.privacy.subject is not None and patches.per_subject > 1:
        faults.append(
            f"{where}with privacy.subject are one of each subject that a step samples, so that one "
            "gradient bounds what it does; remove per_subject"
        )
    return faults


def _grid(plan: Plan) -> list[int]:
    """Voxels of the grid that images share; empty where only a dataset of one's own knows."""
    how, dataset = plan.task.preprocessing, plan.task.dataset
    if how is not None and how.shape is not None:
        return how.shape
    given = dataset.arguments.get("shape")
    if dataset.function != "fedcore.data.bids:dataset" or not isinstance(given, list):
        return []
    return [size for size in given if isinstance(size, int)]
