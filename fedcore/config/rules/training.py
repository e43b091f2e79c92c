"""What of the sites' training cannot go together, or with how its updates are summed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedcore.config.plan import Plan


def check(plan: Plan) -> list[str]:
    """Each fault of the plan that is of this kind, as one sentence."""
    training, faults = plan.training, []
    if training.mixed_precision and training.device == "cpu":
        faults.append("training: mixed_precision is for GPUs; remove it or set device: auto")
    if training.local_epochs > 0 and not training.local:
        faults.append(
            "training: local_epochs has no effect without training.local, the params that it is "
            "for; name them, or remove it"
        )
    return [
        *faults,
        *_against_scaffold(plan),
        *_against_other_starts_and_rates(plan),
        *_against_statistics(plan),
    ]


def _against_scaffold(plan: Plan) -> list[str]:
    """What control variates cannot go with: they follow from updates as the sites send them."""
    if not plan.training.scaffold:
        return []
    where, how, faults = "training: scaffold ", plan.aggregation, []
    if plan.training.optimizer != "sgd":
        faults.append(
            f"{where}needs optimizer: sgd, because a control variate is the mean gradient of its "
            f"steps, which an update of {plan.training.optimizer} does not tell; use sgd"
        )
    if plan.training.proximal_mu > 0:
        faults.append(
            f"{where}and proximal_mu are two cures of the same drift, and the variate would hold "
            "the term of the other; remove one of them"
        )
    if plan.training.mixed_precision:
        faults.append(f"{where}corrects gradients, which mixed_precision scales; remove one")
    if how.weights != "uniform":
        faults.append(
            f"{where}counts every site the same, as its control variate does; set "
            "aggregation.weights: uniform"
        )
    if how.rule != "mean":
        faults.append(
            f"{where}takes every update into the control variate, also those that rule: {how.rule} "
            "leaves out; use rule: mean"
        )
    if how.normalise != "none":
        faults.append(f"{where}reckons with whole updates, and normalise sends others; remove one")
    if plan.privacy.noise_multiplier > 0 or plan.privacy.subject is not None:
        faults.append(
            f"{where}publishes a control variate that the noise would not protect; remove the "
            "noise, or scaffold"
        )
    if plan.privacy.adaptive is not None:
        faults.append(
            f"{where}needs updates that the server takes as they come, and adaptive has it clip "
            "them anew; remove adaptive"
        )
    if plan.secure_aggregation.mode != "none":
        faults.append(
            f"{where}divides each update by its steps, and secure_aggregation hides both; use "
            "mode: none"
        )
    if plan.compression.up or plan.compression.down or plan.compression.last is not None:
        faults.append(
            f"{where}needs updates and params as exact as the sender's own; remove "
            "compression.up, down and last"
        )
    return faults


def _against_other_starts_and_rates(plan: Plan) -> list[str]:
    """What pre-training, and rates that differ by param, cannot go with."""
    training, where, faults = plan.training, "training: ", []
    rule = plan.aggregation
    reckoning = {
        "scaffold": training.scaffold,
        "aggregation.normalise": rule.normalise != "none",
        "aggregation.fairness_q": rule.fairness_q > 0,
    }
    for method in [name for name, asked in reckoning.items() if asked]:
        if training.pretraining is not None:
            faults.append(
                f"{where}pretraining cannot go with {method}, which takes an update for steps on "
                "the task alone; remove one"
            )
        if training.learning_rates:
            faults.append(
                f"{where}learning_rates cannot go with {method}, which reckons with one rate; "
                "remove one"
            )
    if training.pretraining is not None and plan.privacy.subject is not None:
        faults.append(
            f"{where}pretraining looks at every subject without the noise of privacy.subject; "
            "remove one"
        )
    if training.pretraining is not None and training.pretraining.rounds > plan.rounds:
        faults.append(
            f"{where}pretraining.rounds is {training.pretraining.rounds}, and the plan has "
            f"{plan.rounds}; lower it"
        )
    return faults


def _against_statistics(plan: Plan) -> list[str]:
    """What cannot go with what sites tell of their subjects beside the weights, or without."""
    training, faults = plan.training, []
    fair = training.fairness
    if fair is not None and fair.attribute not in plan.task.groups:
        faults.append(
            f"training: fairness needs {fair.attribute!r} among task.groups; name it there, so "
            "that the sites know it of their subjects and the evaluation shows the gap"
        )
    told = {"alignment": training.alignment is not None, "fairness by dro": training.is_dro}
    for what in [name for name, asked in told.items() if asked]:
        where = f"training: {what} sends a mean over the site's subjects, "
        if plan.aggregation.normalise != "none" or training.scaffold:
            other = "scaffold" if training.scaffold else "aggregation.normalise"
            faults.append(f"{where}which is no sum of local steps as {other} takes it; remove one")
        if plan.aggregation.fairness_q > 0:
            faults.append(
                f"{where}and aggregation.fairness_q would weigh it by the loss; remove one"
            )
        if plan.compression.feedback:
            faults.append(
                f"{where}whole each time, so that feedback would count twice what was left of it; "
                "remove feedback, and stages that leave values out"
            )
    if plan.task.metrics.memorisation > 0 and plan.privacy.subject is not None:
        faults.append(
            "task.metrics: memorisation counts those trained on without the noise of "
            "privacy.subject; remove one"
        )
    return faults
