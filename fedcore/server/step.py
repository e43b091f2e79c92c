"""One step of federated averaging, as a function: state and updates in, state and figures out.

    sum = Σ_site  weight · min(1, clip_norm / ‖update‖) · update      (per module)
    params ← server_optimizer((sum + noise) / Σ weight)

or, with a robust rule, the sum of what the rule keeps over how many it keeps.

McMahan et al. 2017 (https://arxiv.org/abs/1602.05629) with the clipping and noise of DP-FedAvg,
McMahan et al. 2018 (https://arxiv.org/abs/1710.06963). No I/O and no clock in here.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore import params as flat
from fedcore.aggregation import mean, nova, robust, scaffold, server_opt, statistics, weights
from fedcore.compression import change
from fedcore.compression.chain import chain
from fedcore.compression.codec import Arrays, Codec, Turn
from fedcore.config.learning import Aggregation
from fedcore.config.plan import Plan
from fedcore.errors import ConfigError, UpdateRejected
from fedcore.params import FloatArray, Params
from fedcore.privacy import clipping, gaussian
from fedcore.records import ClientUpdate, DataSummary, Refusal, Reply

_NORM = "norm"

Arrival = tuple[str, Reply | UpdateRejected]
"""A site, and what it sent or why that cannot be read."""


@dataclass(frozen=True)
class ServerState:
    """The global params at the start of ``round_num``, and the server optimiser's state.

    ``clip_norm``: what this round's updates are clipped to, where that adapts; else None, as the
    plan says it. ``at_sites``: the params as the sites have them, where changes in them travel
    coded: they are what is trained from, evaluated and released. None: they are the server's own.
    ``control``: SCAFFOLD's control variate, where the plan has it.
    """

    round_num: int
    params: Params
    optimizer: Params
    clip_norm: float | None = None
    at_sites: Params | None = None
    control: Params = field(default_factory=dict)

    @property
    def shared(self) -> Params:
        """The params that everybody has."""
        return self.params if self.at_sites is None else self.at_sites

    @property
    def public(self) -> Params:
        """What the sites get: those, and the control variate."""
        return scaffold.join(self.shared, self.control)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the round, under names that ``from_arrays`` takes apart again."""
        clip = {} if self.clip_norm is None else {_NORM: np.array([self.clip_norm])}
        parts: dict[str, Mapping[str, NDArray[Any]]] = {
            "params": self.params,
            "optimizer": self.optimizer,
            "at_sites": self.at_sites or {},
            "control": self.control,
            "clip": clip,
        }
        return {f"{part}/{name}": a for part, arrays in parts.items() for name, a in arrays.items()}

    @classmethod
    def from_arrays(cls, round_num: int, arrays: Mapping[str, NDArray[Any]]) -> ServerState:
        """The inverse of ``arrays``."""
        kinds = ("params", "optimizer", "at_sites", "control", "clip")
        parts: dict[str, dict[str, NDArray[Any]]] = {kind: {} for kind in kinds}
        for key, array in arrays.items():
            part, _, name = key.partition("/")
            parts[part][name] = array
        clip_norm = float(parts["clip"][_NORM][0]) if parts["clip"] else None
        at_sites, control = parts["at_sites"] or None, parts["control"]
        return cls(round_num, parts["params"], parts["optimizer"], clip_norm, at_sites, control)


@dataclass(frozen=True)
class Sum:
    """The weighted sum of the usable updates, who is in it, and who is not and why.

    ``weights``: site → module → weight; 0 if the plan's rule left the update out for that module.
    ``within``: how many updates were no longer than the clip norm, where the server clips.
    ``steps``: site → module → how many local steps made the update, where sites tell that.
    ``by_step``: with SCAFFOLD, the sum of the updates by the step.
    """

    total: mean.Sums
    weights: Mapping[str, Mapping[str, float]]
    rejected: Mapping[str, str]
    data: Mapping[str, DataSummary]
    measurements: Mapping[str, Mapping[str, float]]
    within: int = 0
    steps: Mapping[str, nova.Lengths] = field(default_factory=dict)
    by_step: mean.Sums | None = None


def accumulate(plan: Plan, state: ServerState, arrivals: Iterable[Arrival]) -> Sum:
    """Check, clip, weigh and add the arrivals, one at a time, in the order given.

    The caller gives them in site order, so that the sum does not depend on who was first. An
    update that cannot be used is left out with its reason; it never stops the others. A robust
    rule compares the updates with each other, so those are all held in memory till the last one.
    """
    rule = _robust_rule(plan.aggregation)
    clip_norm = _clip_norm(plan, state)
    total, held = mean.start(state.params), dict[str, robust.Contribution]()
    counted: dict[str, Mapping[str, float]] = {}
    rejected: dict[str, str] = {}
    data: dict[str, DataSummary] = {}
    measurements: dict[str, Mapping[str, float]] = {}
    steps: dict[str, nova.Lengths] = {}
    by_step = mean.start(state.params) if plan.training.scaffold else None
    within = 0
    for site, arrival in arrivals:
        try:
            reply, update, norm = _usable(plan, state, arrival)
        except UpdateRejected as error:
            rejected[site] = str(error)
            continue
        scale = clipping.factor(norm, clip_norm)
        within += scale == 1
        if rule is None:
            total = mean.add(total, update, reply.weights, scale=scale)
        else:
            held[site] = robust.Contribution(update, reply.weights, scale)
        counted[site], data[site] = reply.weights, reply.data
        measurements[site], steps[site] = reply.measurements, reply.steps
        if by_step is not None:
            per_step = {module: 1 / reply.steps[module] for module in reply.weights}
            by_step = mean.add(by_step, update, per_step, scale=scale)
    if rule is not None:
        total, kept = robust.aggregate(rule, held)
        counted.update(kept)
    return Sum(total, counted, rejected, data, measurements, within, steps, by_step)


def advance(
    plan: Plan, state: ServerState, summed: Sum, population: int | None = None
) -> ServerState:
    """The state of the next round: noise on the sum, division by the weights, server optimiser.

    What is frozen stays, whatever noise the sum of its module has.
    Where the sites add the noise, the sum came with it. ``population``: how many sites there are
    beside the cohort's, for SCAFFOLD; unset = those of the sum.
    """
    privacy, rule = plan.privacy, plan.aggregation
    sums, clip_norm = summed.total.trained(), _clip_norm(plan, state)
    seeded = privacy.noise_source == "seeded"
    normals = (
        gaussian.seeded_normals(plan.seed, state.round_num) if seeded else gaussian.os_normals()
    )
    noise_is_missing = privacy.noise_multiplier > 0 and not plan.noise_in_shares
    if noise_is_missing and clip_norm is not None:
        # Weights are at most 1 here: a plan with noise and unbounded weights is refused.
        stddev = gaussian.stddev(privacy.noise_multiplier, clip_norm, max_weight=1.0)
        sums = gaussian.add_noise(sums, stddev, normals)
    mean_update = mean.divide(sums, summed.total.weights)
    if _told_in_steps(rule):
        mean_update = nova.scale(mean_update, nova.effective(summed.weights, summed.steps))
    learnt = {n: array for n, array in mean_update.items() if n not in plan.training.statistics}
    params, optimizer_state = _optimizer(rule).apply(state.params, learnt, state.optimizer)
    means = {n: state.params[n] + mean_update[n] for n in mean_update if n not in learnt}
    params = _emphasised(plan, {**params, **means})
    params = {n: state.params[n] if plan.training.freezes(n) else a for n, a in params.items()}
    clip_norm = _adapted(plan, state, summed, normals)
    control = _control(plan, state, summed, population or len(summed.weights))
    following = ServerState(
        state.round_num + 1, params, optimizer_state, clip_norm, control=control
    )
    if not plan.compression.down:
        return following
    codec, turn = _coding_down(plan, state.round_num)
    told = coded_change(plan, state, following)
    return replace(following, at_sites=change.apply(codec, state.shared, told, turn))


def coded_change(plan: Plan, state: ServerState, following: ServerState) -> Arrays:
    """What the sites, which have the shared params of ``state``, are told of those that follow."""
    codec, turn = _coding_down(plan, state.round_num)
    return change.code(codec, state.shared, following.params, turn)


def _coding_down(plan: Plan, round_num: int) -> tuple[Codec, Turn]:
    return chain(**plan.coding("down", round_num)), Turn(plan.seed, round_num, change.SENDER)


def _control(plan: Plan, state: ServerState, summed: Sum, population: int) -> Params:
    if summed.by_step is None:
        return state.control
    sites, rate = summed.total.weights, plan.training.learning_rate  # weights are 1
    return scaffold.of_server(state.control, summed.by_step.arrays, sites, population, rate)


def initial_state(plan: Plan, params: Params) -> ServerState:
    """The state of round 0: of the params that the sites share.

    Raises ConfigError if they share none, or a pattern of ``training.local`` names none.
    """
    adaptive = plan.privacy.adaptive
    clip_norm = None if adaptive is None else adaptive.initial or plan.privacy.clip_norm
    shared = _shared(plan, params)
    at_sites = shared if plan.compression.down else None
    control = scaffold.start(shared) if plan.training.scaffold else {}
    optimizer = _optimizer(plan.aggregation).init(shared)
    return ServerState(0, shared, optimizer, clip_norm, at_sites, control)


def step(plan: Plan, state: ServerState, arrivals: Iterable[Arrival]) -> tuple[ServerState, Sum]:
    """A whole round in memory: the next state, and what went into it."""
    summed = accumulate(plan, state, arrivals)
    return advance(plan, state, summed), summed


def _shared(plan: Plan, params: Params) -> Params:
    way_out = f"correct it; the model's params are: {', '.join(sorted(params))}"
    for pattern in plan.training.local:
        if not fnmatch.filter(params, pattern):
            raise ConfigError(f"training: local: no param's name matches {pattern!r}; {way_out}")
    shared = {name: array for name, array in params.items() if not plan.training.stays(name)}
    if not shared:
        raise ConfigError(f"training: local leaves no param for the sites to share; {way_out}")
    return shared


def _emphasised(plan: Plan, params: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """The params with the groups' weights of group DRO after the round, where the plan has it."""
    fairness = plan.training.fairness
    if fairness is None or not plan.training.is_dro:
        return params
    q = statistics.moved(params[statistics.EMPHASIS], params[statistics.GROUPS], step=fairness.step)
    return {**params, statistics.EMPHASIS: q}


def _told_in_steps(how: Aggregation) -> bool:
    """Whether an update is what one local step did, and the server multiplies by the steps."""
    return how.normalise == "steps" and how.effective_steps is None


def _clip_norm(plan: Plan, state: ServerState) -> float | None:
    """What this round's updates are clipped to; None does not clip."""
    return plan.privacy.clip_norm if plan.privacy.adaptive is None else state.clip_norm


def _adapted(
    plan: Plan, state: ServerState, summed: Sum, normals: gaussian.Normals
) -> float | None:
    """The clip norm of the next round, from a noisy count of the updates within this one's."""
    adaptive, largest = plan.privacy.adaptive, plan.privacy.clip_norm
    if adaptive is None or state.clip_norm is None or largest is None:
        return None
    noise = adaptive.noise_multiplier * clipping.COUNT_SENSITIVITY * float(normals(1)[0])
    following = clipping.adapted(
        state.clip_norm,
        summed.within + noise,
        len(summed.weights),
        quantile=adaptive.quantile,
        learning_rate=adaptive.learning_rate,
    )
    return min(following, largest)


def _optimizer(how: Aggregation) -> server_opt.ServerOptimizer:
    if how.server_optimizer == "sgd":
        return server_opt.sgd(how.server_learning_rate, how.server_momentum)
    return server_opt.adaptive(
        how.server_optimizer,
        how.server_learning_rate,
        momentum=how.server_momentum,
        second_momentum=how.server_second_momentum,
        tau=how.server_tau,
    )


def _robust_rule(how: Aggregation) -> robust.Rule | None:
    """The plan's rule, None for the mean. A plan whose parameters are missing was refused."""
    match how.rule, how.trim, how.byzantine:
        case "mean", _, _:
            return None
        case "median", _, _:
            return robust.median()
        case "trimmed_mean", (int() | float()) as trim, _:
            return robust.trimmed_mean(trim)
        case "krum", _, int() as byzantine:
            return robust.krum(byzantine)
        case "multi_krum", _, int() as byzantine:
            return robust.multi_krum(byzantine)
        case _:
            raise ConfigError(f"aggregation: rule: {how.rule} lacks its parameters")


def _usable(
    plan: Plan, state: ServerState, arrival: Reply | UpdateRejected
) -> tuple[ClientUpdate, Params, float]:
    """The reply, its decoded update and that one's norm. Raises UpdateRejected."""
    reply = _client_update(arrival)
    turn = Turn(plan.seed, state.round_num, reply.site)
    codec = chain(**plan.coding("up", state.round_num))
    update = codec.decode(reply.update, flat.only(state.params, reply.weights), turn)
    _check(plan, state.params, reply, update)
    norm = clipping.l2_norm(update)
    if not math.isfinite(norm):
        raise UpdateRejected("has a NaN or an infinity")
    return reply, update, norm


def _client_update(arrival: Reply | UpdateRejected) -> ClientUpdate:
    match arrival:
        case ClientUpdate():
            return arrival
        case Refusal():
            raise UpdateRejected(f"refused: {arrival.reason}")
        case UpdateRejected():
            raise arrival
        case _:
            raise UpdateRejected(f"sent {type(arrival).__name__} where an update was asked for")


def _check(plan: Plan, params: Params, reply: ClientUpdate, update: Params) -> None:
    problem = flat.problem_with(update, like=params)
    if problem is not None:
        raise UpdateRejected(problem)
    if not update:
        raise UpdateRejected("has no module at all")
    rule = plan.aggregation
    bounded = rule.weights == "uniform" or rule.weight_cap is not None
    bound = weights.UNIFORM if bounded else float(reply.num_examples)
    if rule.fairness_q > 0:
        bound = math.inf  # the loss, of which it is a power, is the site's word
    problem = weights.problem_with(reply.weights, flat.modules(update), bound)
    if problem is None and (_told_in_steps(rule) or plan.training.scaffold):
        problem = nova.problem_with(reply.steps, flat.modules(update))
    if problem is not None:
        raise UpdateRejected(problem)
