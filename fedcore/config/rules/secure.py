"""What a sum that is all the server sees cannot go with, or without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedcore.config.rules.compression import stages

if TYPE_CHECKING:
    from fedcore.config.plan import Plan


def check(plan: Plan) -> list[str]:
    """Each fault of the plan that is of this kind, as one sentence."""
    return [*_against_secure_aggregation(plan), *_against_hidden_statistics(plan)]


def _against_secure_aggregation(plan: Plan) -> list[str]:
    """What cannot go with a sum that is all the server sees, or would do nothing."""
    secure, where = plan.secure_aggregation, "secure_aggregation: "
    faults = []
    changed = {name for name, value in secure if value != type(secure).model_fields[name].default}
    masks, ckks = {"bits", "threshold", "neighbours"}, {"encrypt", "encrypt_share", "rest"}
    without_effect = {
        "none": masks | ckks | {"statistics"}, "masks": ckks, "ckks": {"neighbours"}
    }  # fmt: skip
    idle = changed & (
        set() if secure.mode == "ckks" and secure.masked else without_effect[secure.mode]
    )
    if idle:
        faults.append(f"{where}{min(idle)} has no effect with mode: {secure.mode}; remove it")
    if secure.mode == "none":
        return faults
    if plan.privacy.clip_norm is None:
        faults.append(
            f"{where}needs privacy.clip_norm, because the server cannot clip what it cannot see, "
            "and because the range of the sum follows from it"
        )
    if plan.aggregation.weights == "examples" and plan.aggregation.weight_cap is None:
        faults.append(
            f"{where}needs bounded weights, because the server cannot check what it cannot see; "
            "use weights: uniform, or set weight_cap"
        )
    lossy = [stage.stage for stage in stages(plan, "up") if stage.stage != "subsample"]
    if lossy:
        faults.append(
            f"compression: {lossy[0]} on the way up does not commute with a secure sum; use "
            "subsample there (behind masks, bits says how many bits travel)"
        )
    if plan.cohort.min_clients < 2:
        faults.append(
            f"{where}a sum over one site is that site's update; set cohort.min_clients to 2 or more"
        )
    size, threshold = plan.cohort.size, secure.threshold
    if size is not None and threshold is not None and not size / 2 < threshold <= size:
        faults.append(
            f"{where}threshold {threshold} for a cohort of {size}: more than half and at most all "
            "of them are needed"
        )
    if size is not None and secure.neighbours is not None and secure.neighbours >= size:
        faults.append(
            f"{where}a cohort of {size} has no {secure.neighbours} neighbours; remove neighbours"
        )
    return faults


def _against_hidden_statistics(plan: Plan) -> list[str]:
    """What cannot go with evaluation statistics of which the server sees the sum alone."""
    secure, where = plan.secure_aggregation, "secure_aggregation: "
    if not secure.statistics or secure.mode == "none":
        return []
    faults = []
    if plan.task.groups:
        faults.append(
            f"{where}statistics cannot go with task.groups: what is summed has one layout for all "
            "sites, and which groups a site has is not told; remove groups, or statistics"
        )
    for gate in ("min_site_auc", "min_site_dice", "max_group_gap"):
        if gate in plan.gates.asked():
            faults.append(
                f"gates: {gate} cannot be asked with secure_aggregation.statistics, because nobody "
                "knows a figure by site or by group then; remove it, or statistics"
            )
    if plan.cohort.size is not None and secure.threshold is not None:
        faults.append(
            f"{where}a threshold for a cohort of {plan.cohort.size} cannot go with statistics, "
            "which all sites are asked for; remove threshold (more than two thirds must stay then)"
        )
    return faults
