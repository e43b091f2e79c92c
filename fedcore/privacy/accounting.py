"""What a run spends: privacy events as data, their epsilon, and what it means in plain words.

Events say what was released and nothing of how it is accounted for (the split of dp-accounting's
``dp_event.py``). An event that is not understood raises: it never counts as nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fedcore.errors import PermanentError

Unit = Literal["site", "subject"]

ORDERS = [*(1 + x / 4 for x in range(4, 40)), *range(11, 65), 96, 128, 256, 512, 1024]
"""The Rényi orders tried. Those below 2 do not converge in dp-accounting with sampled units."""

_PLD_FROM = 0.3

_PROTECTED = {
    "site": "one site's whole contribution to every round",
    "subject": "all that one subject's data adds to every round",
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
    if min(event.noise_multiplier for event in spent) < _PLD_FROM:
        return epsilon_rdp(spent, delta)
    from dp_accounting import pld

    return float(_composed(pld.PLDAccountant(_relation(spent)), spent).get_epsilon(delta))


def epsilon_rdp(events: Sequence[GaussianEvent], delta: float) -> float:
    """The same by Rényi differential privacy: larger, and the sum of one figure an event.

    Mironov et al. 2019 (https://arxiv.org/abs/1908.10530); over ``ORDERS``. Raises as ``epsilon``.
    """
    spent = _spent(events, delta)
    if not spent:
        return 0.0
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant(orders=ORDERS, neighboring_relation=_relation(spent))
    return float(_composed(accountant, spent).get_epsilon(delta))


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

    def enough(noise_multiplier: float) -> bool:
        event = GaussianEvent(noise_multiplier, count, unit, sampling_rate)
        return epsilon([event], delta) <= epsilon_allowed

    high = 1.0
    while not enough(high):
        high *= 2
    low = high / 2
    while enough(low):
        low, high = low / 2, low
    scale = 10.0 ** (3 - math.floor(math.log10(high)))  # four digits
    least, most = math.floor(low * scale), math.ceil(high * scale)
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if enough(middle / scale) else (middle, most)
    return most / scale


def statement(events: Sequence[GaussianEvent], delta: float) -> str:
    """What the privacy of a run protects, against whom, and what not: for people who decide."""
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
    weak = " An epsilon above 10 bounds very little." if value > 10 else ""
    return (
        f"Differential privacy with epsilon = {value:.3g} at delta = {delta:g}, over {count} noisy "
        f"{'sum' if count == 1 else 'sums'}.{weak} The unit is one {unit}: {_PROTECTED[unit]} is "
        "protected. Were it replaced by zeros (zero-out adjacency), the probability of anything "
        "that can be concluded from all released params would change by a factor of at most "
        "exp(epsilon), and by delta. "
        "This assumes that every update was clipped, that no weight was above its bound, and that "
        "the noise came from the operating system's entropy and is known to nobody; it is proved "
        "for real numbers, not for floating point, and claims nothing from sampling the cohort. "
        "Not protected: who took part, which modalities a site has, the weights, and the sites' "
        "metrics. The server is trusted: it sees each update before the noise."
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
