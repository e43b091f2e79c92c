"""What a plan may not combine: each fault as one sentence that says why, and the way out."""

from __future__ import annotations

from itertools import pairwise
from operator import gt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedcore.config.coding import CodingStage
    from fedcore.config.learning import Aggregation
    from fedcore.config.plan import Plan


def illegal_combinations(plan: Plan) -> list[str]:
    """What may not be combined, each fault as one sentence that says why and the way out."""
    faults = []
    private = plan.privacy.noise_multiplier > 0
    if private and plan.privacy.clip_norm is None:
        faults.append(
            "privacy: noise_multiplier without clip_norm protects nothing, because noise is scaled "
            "to the clipped norm; set clip_norm or remove the noise"
        )
    faults += _against_noise_in_shares(plan)
    faults += _against_adaptive_clipping(plan)
    unbounded = plan.aggregation.weights == "examples" and plan.aggregation.weight_cap is None
    if private and unbounded:
        faults.append(
            "aggregation: unbounded weights with noise make the sensitivity unbounded; use "
            "weights: uniform, or set weight_cap"
        )
    if plan.aggregation.weights == "uniform" and plan.aggregation.weight_cap is not None:
        faults.append("aggregation: weight_cap has no effect with weights: uniform; remove it")
    if plan.cohort.size is not None and plan.cohort.min_clients > plan.cohort.size:
        faults.append(
            f"cohort: min_clients {plan.cohort.min_clients} can never be reached by a cohort of "
            f"{plan.cohort.size}; lower min_clients or raise size"
        )
    if plan.gates.max_group_gap is not None and not plan.task.groups:
        faults.append("gates: max_group_gap needs task.groups to compare; name them or remove it")
    if plan.training.mixed_precision and plan.training.device == "cpu":
        faults.append("training: mixed_precision is for GPUs; remove it or set device: auto")
    if plan.training.local_epochs > 0 and not plan.training.local:
        faults.append(
            "training: local_epochs has no effect without training.local, the params that it is "
            "for; name them, or remove it"
        )
    return [
        *faults,
        *_against_the_other_task(plan),
        *_without_images(plan),
        *_against_patches(plan),
        *_without_effect_on_the_server(plan.aggregation),
        *_against_compression(plan),
        *_against_robust_rules(plan),
        *_against_normalising(plan),
        *_against_scaffold(plan),
        *_against_other_starts_and_rates(plan),
        *_against_statistics(plan),
        *_against_fair_sites(plan),
        *_against_subject_privacy(plan),
        *_against_secure_aggregation(plan),
        *_against_hidden_statistics(plan),
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


_ORDER = {"low_rank": 0, "subsample": 0, "top_k": 1, "float16": 2, "quantise": 2}
"""Stages in the order in which they make sense: fewer values first, then fewer bits of each."""


def _against_compression(plan: Plan) -> list[str]:
    """Stages that cannot follow each other, or lose for ever what they leave out."""
    how, where = plan.compression, "compression: "
    faults = []
    chains = {"up": how.up, "down": how.down}
    if how.last is not None:
        chains |= {"last.up": how.last.up or [], "last.down": how.last.down or []}
    for way, stages in chains.items():
        for one, other in pairwise(stage.stage for stage in stages):
            if _ORDER[one] >= _ORDER[other]:
                faults.append(
                    f"{where}{way}: {other} cannot follow {one}; first low_rank or subsample, then "
                    "top_k, then float16 or quantise, one of each at most"
                )
    names = {way: [stage.stage for stage in _stages(plan, way)] for way in ("up", "down")}
    leaving_out = [name for name in names["up"] if _ORDER[name] < 2]
    if leaving_out and not how.feedback:
        faults.append(
            f"{where}{leaving_out[0]} on the way up loses for ever what it leaves out; set "
            "feedback: true, so that it is sent later"
        )
    if how.feedback and not how.up:
        faults.append(f"{where}feedback has no effect without stages in up; remove it")
    if "low_rank" in names["down"]:
        faults.append(
            f"{where}low_rank cannot go down, because products of matrices differ from machine to "
            "machine, and all sites must come to the same params; use top_k or quantise"
        )
    if how.last is not None:
        if not how.down and how.last.down:
            faults.append(
                f"{where}last.down is of the changes in the params, and without stages in down the "
                "params travel whole; remove it"
            )
        if how.last.rounds > plan.rounds:
            faults.append(
                f"{where}last.rounds is {how.last.rounds}, and the plan has {plan.rounds}; lower it"
            )
    return faults


def _stages(plan: Plan, way: str) -> list[CodingStage]:
    """Every stage of that way, in whichever round."""
    last = plan.compression.last
    return [*getattr(plan.compression, way), *((getattr(last, way) if last else None) or [])]


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
    sparse = [stage.stage for stage in _stages(plan, "up") if stage.stage == "top_k"]
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
    lossy = [stage.stage for stage in _stages(plan, "up") if stage.stage != "subsample"]
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
