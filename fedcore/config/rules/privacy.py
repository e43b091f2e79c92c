"""What noise cannot go with, or without, whoever adds it and whomever it hides."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedcore.config.plan import Plan


def check(plan: Plan) -> list[str]:
    """Each fault of the plan that is of this kind, as one sentence."""
    return [
        *_without_a_bound(plan),
        *_against_noise_in_shares(plan),
        *_against_adaptive_clipping(plan),
        *_against_subject_privacy(plan),
    ]


def _without_a_bound(plan: Plan) -> list[str]:
    """What leaves open how much one site can change, which the noise is scaled to."""
    faults, how = [], plan.aggregation
    if plan.privacy.noise_multiplier == 0:
        return []
    if plan.privacy.clip_norm is None:
        faults.append(
            "privacy: noise_multiplier without clip_norm protects nothing, because noise is scaled "
            "to the clipped norm; set clip_norm or remove the noise"
        )
    if how.weights == "examples" and how.weight_cap is None:
        faults.append(
            "aggregation: unbounded weights with noise make the sensitivity unbounded; use "
            "weights: uniform, or set weight_cap"
        )
    return faults


def _against_noise_in_shares(plan: Plan) -> list[str]:
    """What noise that the sites add cannot go with, or without."""
    if plan.privacy.noise_by != "sites":
        return []
    secure, where = plan.secure_aggregation, "privacy: noise_by: sites "
    faults = []
    if plan.privacy.noise_multiplier == 0:
        faults.append(f"{where}has no effect without noise_multiplier; set it, or remove noise_by")
    if secure.mode != "masks":
        faults.append(
            f"{where}needs secure_aggregation.mode: masks, because a share alone hides no update, "
            "and shares are whole numbers on the grid of the masks; set it, or use noise_by: server"
        )
    elif secure.threshold is None:
        faults.append(
            f"{where}needs secure_aggregation.threshold, because the shares must be enough noise "
            "over as few sites as a sum may be opened over; set it"
        )
    return faults


def _against_adaptive_clipping(plan: Plan) -> list[str]:
    """What a clip norm that the server finds cannot go with, or without."""
    largest, adaptive = plan.privacy.clip_norm, plan.privacy.adaptive
    if adaptive is None:
        return []
    faults = []
    if largest is None:
        faults.append("privacy: adaptive needs clip_norm, the largest norm that it may come to")
    elif adaptive.initial is not None and adaptive.initial > largest:
        faults.append(
            f"privacy: adaptive.initial {adaptive.initial:g} is above clip_norm, the largest norm "
            "that it may come to; lower it"
        )
    if plan.secure_aggregation.mode != "none":
        faults.append(
            "privacy: adaptive cannot go with secure_aggregation, because the server clips, and "
            "counts what it clipped, and sees no single update; remove it, or use mode: none"
        )
    return faults


def _against_subject_privacy(plan: Plan) -> list[str]:
    """What cannot go with noise at the sites that hides each subject."""
    if plan.privacy.subject is None:
        return []
    where, faults, training = "privacy: ", [], plan.training
    together = {
        "imbalance": training.imbalance != "none",
        "fairness": training.fairness is not None,
        "alignment": training.alignment is not None,
    }
    for what in [name for name, asked in together.items() if asked]:
        faults.append(
            f"{where}subject bounds what one subject does to its own gradient, and with "
            f"training.{what} it does something to the others' too; remove one"
        )
    if plan.privacy.noise_multiplier > 0:
        faults.append(
            f"{where}subject and noise_multiplier protect two units, and one plan has one epsilon; "
            "remove noise_multiplier (for subjects), or subject (for sites)"
        )
    if plan.aggregation.weights != "uniform":
        faults.append(
            f"{where}with subject, weights: examples would tell how many subjects have which "
            "modality, without noise; set weights: uniform"
        )
    if plan.training.local_epochs > 0:
        faults.append(
            f"{where}subject counts steps over all params together, and local_epochs would be "
            "others; remove local_epochs"
        )
    if plan.training.mixed_precision:
        faults.append(
            f"{where}subject bounds each gradient's norm, which mixed_precision only estimates; "
            "remove mixed_precision"
        )
    return faults
