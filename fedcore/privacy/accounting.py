"""What a run spends: privacy events as data, their epsilon, and what it means in plain words.

Events say what was released and nothing of how it is accounted for (the split of dp-accounting's
``dp_event.py``). An event that is not understood raises: it never counts as nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from fedcore.errors import PermanentError

Unit = Literal["site", "subject"]

ORDERS: list[float] = [*range(2, 65), 96, 128, 256, 512, 1024]
"""The Rényi orders tried: whole ones, whose sums are finite. Where units are sampled, dp-accounting
gives up on some fractional ones."""

_PLD_FROM = 0.3


@dataclass(frozen=True)
class _Reading:
    """What a unit's epsilon speaks of, in words."""

    protected: str
    neighbours: str
    assumed: str
    open: str


_IN_SHARES = _Reading(
    protected="one site's whole contribution to every round",
    neighbours="replaced by zeros (zero-out adjacency)",
    assumed="every site clipped its update, kept its weight within its bound and drew its share of "
    "the noise from the operating system's entropy; of a sum over n sites, whoever knows the "
    "shares of c of them sees noise of (n − c)/threshold times the variance. The noise is whole "
    "numbers on a fixed-point grid, whose rounding is counted; nothing is claimed from sampling "
    "the cohort",
    open="who took part, how many subjects a site has, the sum of the weights by module, and the "
    "sites' evaluation counts. The server need not be trusted with a sum: it sees none without "
    "noise",
)

_READINGS: Mapping[Unit, _Reading] = {
    "site": _Reading(
        protected="one site's whole contribution to every round",
        neighbours="replaced by zeros (zero-out adjacency)",
        assumed="every update was clipped, no weight was above its bound, and the noise came from "
        "the operating system's entropy and is known to nobody; it is proved for real numbers, not "
        "for floating point, and claims nothing from sampling the cohort",
        open="who took part, which modalities a site has, the weights, and the sites' metrics. The "
        "server is trusted: it sees the sum, or each update, before the noise",
    ),
    "subject": _Reading(
        protected="all that one subject's scans add to every round, at the site where they lie",
        neighbours="added or removed (add-or-remove-one adjacency)",
        assumed="all scans of a person are one subject, at one site; each subject's gradient was "
        "clipped in every step, and a step's subjects and noise were drawn by chance that stays at "
        "the site; it is proved for real numbers, not for floating point",
        open="how many subjects and which modalities a site has, the sites' metrics and evaluation "
        "counts, what is computed from a subject before training, and the choice of the plan by "
        "earlier results. The server need not be trusted: the noise is added at the site",
    ),
}


@dataclass(frozen=True)
class GaussianEvent:
    """``count`` releases of a sum with noise of ``noise_multiplier`` × the unit's sensitivity.

    ``sampling_rate``: each unit is in each sum with this probability, drawn anew and known to
    nobody (Poisson); 1.0 = every unit is in every sum.
    """

    noise_multiplier: float
    count: int = 1
    unit: Unit = "site"
    sampling_rate: float = 1.0

    def __post_init__(self) -> None:
        if not self.noise_multiplier >= 0:
            raise ValueError(f"noise_multiplier is {self.noise_multiplier}; it must be >= 0")
        if self.count < 0:
            raise ValueError(f"count is {self.count}; it must be >= 0")
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(f"sampling_rate is {self.sampling_rate}; it must lie in (0, 1]")


def epsilon(events: Sequence[GaussianEvent], delta: float) -> float:
    """The smallest epsilon known for which all events together are (epsilon, ``delta``)-DP.

    Neighbouring relation: for subjects add-or-remove-one, for sites zero-out (dp-accounting's
    ``REPLACE_SPECIAL``: the site's contribution is replaced by zeros). Infinity if any release had
    no noise; 0.0 if there was none.

    Gaussian releases without sampling compose, also adaptively, to one Gaussian of multiplier
    (Σ count/σ²)^-½ (Dong et al. 2022, https://arxiv.org/abs/1905.02383), whose epsilon
    dp-accounting computes in closed form (Balle & Wang 2018, https://arxiv.org/abs/1805.06530).
    That is exact, so no accountant can be tighter. With sampling it is dp-accounting's PLD
    accountant, which rounds up (Doroshenko et al. 2022, https://arxiv.org/abs/2207.04380); below
    noise of 0.3, where PLD takes minutes and no guarantee is left anyway, its RDP accountant,
    which lies above.

    Raises PermanentError for events of another kind or of mixed units, ValueError for a delta
    outside (0, 1).

    >>> round(epsilon([GaussianEvent(noise_multiplier=1.0, count=5)], delta=1e-5), 2)
    11.48
    >>> epsilon([GaussianEvent(noise_multiplier=0.0)], delta=1e-5)
    inf
    """
    spent = _spent(events, delta)
    if not spent:
        return 0.0
    if any(event.noise_multiplier == 0 for event in spent):
        return math.inf
    if all(event.sampling_rate == 1 for event in spent):
        # Here, not above: the import takes 2 s, and without noise nobody needs it.
        from dp_accounting import get_epsilon_gaussian

        precision = math.hypot(*(math.sqrt(e.count) / e.noise_multiplier for e in spent))
        return float(get_epsilon_gaussian(1 / precision, delta))
    return _epsilon_sampled(tuple(spent), delta)


def epsilon_rdp(
    events: Sequence[GaussianEvent], delta: float, orders: Sequence[float] = ORDERS
) -> float:
    """The same by Rényi differential privacy: larger, and from the sum of one figure an event.

    Mironov et al. 2019 (https://arxiv.org/abs/1908.10530), at the best of ``orders``. Raises as
    ``epsilon``.
    """
    spent = _spent(events, delta)
    if not spent:
        return 0.0
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant(orders=list(orders), neighboring_relation=_relation(spent))
    return float(_composed(accountant, spent).get_epsilon(delta))


def epsilon_adaptive(
    blocks: Sequence[Sequence[GaussianEvent]], delta: float, allowed: float
) -> float:
    """What studies spend together of an ``allowed`` epsilon where nobody knew the next one before.

    Each block is a study, whose events were fixed before it began; which study is next, and with
    how much noise, may depend on everything that the earlier ones showed (fully adaptive
    composition). Whoever stops before this exceeds ``allowed`` (a privacy filter) keeps
    (allowed, ``delta``)-DP over all of them:

    - Sites: Gaussian releases without sampling, whose 1/σ² add up (Smith and Thakurta 2022,
      https://arxiv.org/abs/2210.17520). Exact; where sites are sampled, nothing is claimed from it.
    - Subjects, one study: its own ``epsilon``, as it was fixed before anything was released.
    - Subjects, several: Rényi differential privacy at the one order that ``allowed`` and ``delta``
      decide on (Feldman and Zrnic 2021, https://arxiv.org/abs/2008.11193).

    That the rule for one study goes before the other harms nothing: which of them holds for the
    first is settled before it begins. If it is above the Rényi bound, no second is ever let in.
    Raises as ``epsilon``.
    """
    events = [event for block in blocks for event in block]
    if len(blocks) <= 1:
        return epsilon(events, delta)
    if _understood(events)[0].unit == "site":
        return epsilon([replace(event, sampling_rate=1.0) for event in events], delta)
    return epsilon_rdp(events, delta, [_order(allowed, delta)])


def by_unit(events: Sequence[GaussianEvent], delta: float) -> dict[Unit, float]:
    """The ``epsilon`` of each unit that the events speak of."""
    units = dict.fromkeys(event.unit for event in events)
    return {unit: epsilon([e for e in events if e.unit == unit], delta) for unit in units}


def calibrate(
    epsilon_allowed: float,
    delta: float,
    *,
    count: int,
    sampling_rate: float = 1.0,
    unit: Unit = "site",
) -> float:
    """The smallest noise_multiplier with which ``count`` releases spend no more than that epsilon.

    Rounded up to four digits, so that a plan can name it and ``epsilon`` is never above. Raises
    ValueError for an epsilon that is not above 0, and as ``epsilon``.

    >>> calibrate(8.0, 1e-5, count=10)
    1.899
    """
    if not 0 < epsilon_allowed < math.inf:
        raise ValueError(f"epsilon is {epsilon_allowed}; it must be above 0")

    def spends(noise_multiplier: float) -> float:
        return epsilon([GaussianEvent(noise_multiplier, count, unit, sampling_rate)], delta)

    def spends_at_most(noise_multiplier: float) -> float:
        return epsilon_rdp([GaussianEvent(noise_multiplier, count, unit, sampling_rate)], delta)

    near = _noise(spends_at_most, epsilon_allowed, 1.0)  # cheap, and a little above
    found = _noise(spends, epsilon_allowed, near)
    scale = 10.0 ** (3 - math.floor(math.log10(found)))  # four digits
    steps = math.ceil(found * scale)
    while spends(steps / scale) > epsilon_allowed:
        steps += 1
    return steps / scale


def statement(events: Sequence[GaussianEvent], delta: float, *, in_shares: bool = False) -> str:
    """What the privacy of a run protects, against whom, and what not: for people who decide.

    Unit, delta, neighbouring relation and assumptions are all named. ``in_shares``: the sites add
    the noise that hides a site. Raises as ``epsilon``.
    """
    value, count = epsilon(events, delta), sum(event.count for event in events)
    if count == 0:
        return "No formal guarantee: no noisy sum was recorded."
    if math.isinf(value):
        return (
            "No formal guarantee: at least one round added no noise to its sum, so epsilon is "
            "infinite. The scans stay at the sites, but the released params may reveal what they "
            "show."
        )
    unit = events[0].unit
    reading = _IN_SHARES if in_shares and unit == "site" else _READINGS[unit]
    weak = " An epsilon above 10 bounds very little." if value > 10 else ""
    rates = sorted({event.sampling_rate for event in events if event.sampling_rate < 1})
    drawn = (
        f", each over subjects drawn with probability {', '.join(f'{rate:g}' for rate in rates)}"
        if rates
        else ""
    )
    return (
        f"Differential privacy with epsilon = {value:.3g} at delta = {delta:g}, over {count} noisy "
        f"{'sum' if count == 1 else 'sums'}{drawn}.{weak} The unit is one {unit}: "
        f"{reading.protected} is protected. Were it {reading.neighbours}, the probability of "
        "anything that can be concluded from all released params would change by a factor of at "
        f"most exp(epsilon), and by delta. This assumes that {reading.assumed}. It is about this "
        "run alone: what the same data released before or elsewhere adds to it. Not protected: "
        f"{reading.open}."
    )


def _understood(events: Sequence[GaussianEvent]) -> Sequence[GaussianEvent]:
    for event in events:
        if not isinstance(event, GaussianEvent):
            raise PermanentError(
                f"cannot account for {event!r}: only GaussianEvent is understood, and an event "
                "left out would make epsilon too small"
            )
    if len({event.unit for event in events}) > 1:
        raise PermanentError("events of different units do not add up: account for each unit alone")
    return events


def _spent(events: Sequence[GaussianEvent], delta: float) -> list[GaussianEvent]:
    """What released anything, equal events as one: they compose faster, and to the same bits."""
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}; it must lie in (0, 1)")
    counts: dict[GaussianEvent, int] = {}
    for event in _understood(events):
        one = replace(event, count=1)
        counts[one] = counts.get(one, 0) + event.count
    return [replace(one, count=count) for one, count in counts.items() if count > 0]


def _relation(events: Sequence[GaussianEvent]) -> Any:
    from dp_accounting import NeighboringRelation

    of = {
        "site": NeighboringRelation.REPLACE_SPECIAL,
        "subject": NeighboringRelation.ADD_OR_REMOVE_ONE,
    }
    return of[events[0].unit]


def _composed(accountant: Any, events: Sequence[GaussianEvent]) -> Any:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent

    for event in events:
        released = GaussianDpEvent(event.noise_multiplier)
        if event.sampling_rate < 1:
            released = PoissonSampledDpEvent(event.sampling_rate, released)
        accountant.compose(released, event.count)
    return accountant


@lru_cache(maxsize=256)
def _epsilon_sampled(events: tuple[GaussianEvent, ...], delta: float) -> float:
    """Seconds of work: kept, because a run asks for the same round after round."""
    if min(event.noise_multiplier for event in events) < _PLD_FROM:
        return epsilon_rdp(events, delta)
    from dp_accounting import pld

    return float(_composed(pld.PLDAccountant(_relation(events)), events).get_epsilon(delta))


def _order(allowed: float, delta: float) -> float:
    """The Rényi order at which ``allowed`` holds most Gaussian releases: a function of the budget
    alone.

    Order α turns a Rényi divergence ρ into epsilon = ρ + log(1 − 1/α) − log(δα)/(α − 1) (Canonne
    et al. 2020, https://arxiv.org/abs/2004.00010, proposition 12), and a Gaussian one is α/2σ².
    """

    def room(order: float) -> float:
        lost = math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
        return (allowed - lost) / order

    return max(ORDERS, key=room)


def _noise(spends: Callable[[float], float], allowed: float, guess: float) -> float:
    """The noise_multiplier at which ``spends``, which falls with it, is about ``allowed``."""
    from scipy.optimize import brentq

    def over(log_noise: float) -> float:
        return math.log(max(spends(math.exp(log_noise)), 1e-12) / allowed)

    high = math.log(guess)
    while over(high) > 0:
        high += 0.3
    low = high - 0.3
    while over(low) <= 0:
        low, high = low - 0.3, low
    return math.exp(brentq(over, low, high, xtol=1e-5))
