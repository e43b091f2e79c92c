"""What of the server's rule, and of whom it waits for, cannot go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedcore.config.rules.compression import stages

if TYPE_CHECKING:
    from fedcore.config.learning import Aggregation
    from fedcore.config.plan import Plan


def check(plan: Plan) -> list[str]:
    """Each fault of the plan that is of this kind, as one sentence."""
    cohort, how, faults = plan.cohort, plan.aggregation, []
    if how.weights == "uniform" and how.weight_cap is not None:
        faults.append("aggregation: weight_cap has no effect with weights: uniform; remove it")
    if cohort.size is not None and cohort.min_clients > cohort.size:
        faults.append(
            f"cohort: min_clients {cohort.min_clients} can never be reached by a cohort of "
            f"{cohort.size}; lower min_clients or raise size"
        )
    return [
        *faults,
        *_without_effect_on_the_server(how),
        *_against_robust_rules(plan),
        *_against_normalising(plan),
        *_against_fair_sites(plan),
    ]


def _without_effect_on_the_server(how: Aggregation) -> list[str]:
    """Settings of a server optimiser that the one chosen does not have."""
    idle = {
        "sgd": ("server_second_momentum", "server_tau"),
        "adagrad": ("server_second_momentum",),
    }.get(how.server_optimizer, ())
    fields = type(how).model_fields
    return [
        f"aggregation: {name} has no effect with server_optimizer: {how.server_optimizer}; "
        "remove it"
        for name in idle
        if getattr(how, name) != fields[name].default
    ]


def _against_robust_rules(plan: Plan) -> list[str]:
    """What cannot go with a rule that leaves updates out, or would do nothing."""
    how, where = plan.aggregation, "aggregation: "
    faults = []
    wanted = {"trimmed_mean": "trim", "krum": "byzantine", "multi_krum": "byzantine"}
    for field in ("trim", "byzantine"):
        given, needed = getattr(how, field) is not None, wanted.get(how.rule) == field
        if given and not needed:
            faults.append(f"{where}{field} has no effect with rule: {how.rule}; remove it")
        if needed and not given:
            faults.append(f"{where}rule: {how.rule} needs {field}, for how many sites may lie")
    if how.rule == "mean":
        return faults
    if how.weights != "uniform":
        faults.append(
            f"{where}rule: {how.rule} counts every site the same, because a site that lies would "
            "lie about its weight too; set weights: uniform"
        )
    if plan.cohort.min_clients < how.fewest:
        faults.append(
            f"{where}rule: {how.rule} as set needs {how.fewest} updates to leave any out; set "
            f"cohort.min_clients to {how.fewest} or more"
        )
    sparse = [stage.stage for stage in stages(plan, "up") if stage.stage == "top_k"]
    if sparse and how.rule in ("median", "trimmed_mean"):
        faults.append(
            f"{where}rule: {how.rule} of updates with most values left out by top_k is 0 almost "
            "everywhere; use another rule, or quantise without top_k"
        )
    if plan.privacy.noise_multiplier > 0:
        faults.append(
            f"{where}how far one site can move a {how.rule} is not bounded by clip_norm, to which "
            "the noise is scaled; use rule: mean, or remove the noise"
        )
    if plan.secure_aggregation.mode != "none":
        faults.append(
            f"{where}rule: {how.rule} cannot go with secure_aggregation: a sum behind masks shows "
            "no single update, so no rule can leave one out; use rule: mean, or mode: none"
        )
    return faults


def _against_normalising(plan: Plan) -> list[str]:
    """What cannot go with updates by the local step (FedNova), or would do nothing."""
    how, where = plan.aggregation, "aggregation: "
    if how.normalise == "none":
        idle = how.effective_steps is not None
        told = f"{where}effective_steps has no effect without normalise: steps; remove it"
        return [told] if idle else []
    faults = []
    if plan.training.optimizer != "sgd":
        faults.append(
            f"{where}normalise: steps needs training.optimizer: sgd, because with "
            f"{plan.training.optimizer} no number says how much each step weighs; use sgd"
        )
    if plan.privacy.subject is not None:
        faults.append(
            f"{where}normalise has no effect with privacy.subject, where every site takes as many "
            "steps; remove it"
        )
    if how.effective_steps is not None:
        return faults
    unset = f"{where}normalise: steps without effective_steps multiplies by the sites' mean steps, "
    if plan.privacy.noise_multiplier > 0:
        faults.append(f"{unset}which no noise protects; set effective_steps, or remove the noise")
    if plan.secure_aggregation.mode != "none":
        faults.append(f"{unset}which secure_aggregation keeps from the server; set effective_steps")
    if how.rule != "mean":
        faults.append(
            f"{unset}which one site that lies moves as far as it likes, whatever the rule: "
            f"{how.rule} leaves out; set effective_steps"
        )
    return faults


def _against_fair_sites(plan: Plan) -> list[str]:
    """What cannot go with weights that follow from the sites' losses (q-FedAvg)."""
    how = plan.aggregation
    if how.fairness_q == 0:
        return []
    where, faults = "aggregation: fairness_q ", []
    if plan.training.optimizer != "sgd":
        faults.append(
            f"{where}needs training.optimizer: sgd, because it reckons an update by its learning "
            f"rate, which says little of a step of {plan.training.optimizer}; use sgd"
        )
    if how.rule != "mean":
        faults.append(
            f"{where}weighs the sites by what they say of their loss, and rule: {how.rule} counts "
            "every site the same; use rule: mean"
        )
    if how.normalise != "none" or plan.training.scaffold:
        other = "training.scaffold" if plan.training.scaffold else "normalise"
        faults.append(f"{where}shortens updates, and {other} reckons with their length; remove one")
    if plan.privacy.noise_multiplier > 0 or plan.privacy.subject is not None:
        faults.append(
            f"{where}needs weights without a bound, which no noise protects; remove the noise, or "
            "fairness_q"
        )
    if plan.secure_aggregation.mode != "none":
        faults.append(
            f"{where}needs weights without a bound, and secure_aggregation needs one; use mode: "
            "none"
        )
    if how.weight_cap is not None:
        faults.append(f"{where}has weights without a bound; remove weight_cap")
    return faults
