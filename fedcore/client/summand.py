"""What a site adds to a sum of which the server sees no summand: its update, or its statistics."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from fedcore import params as flat
from fedcore import seeds
from fedcore.config import counting
from fedcore.config.plan import Plan
from fedcore.evaluation import tally
from fedcore.params import Params
from fedcore.privacy.division import Division, Parts, division, whole_numbers
from fedcore.privacy.secagg.secrets import derive
from fedcore.records import (
    ClientUpdate,
    DataSummary,
    Evaluation,
    SealedEvaluation,
    SealedUpdate,
    TrainOrder,
)


class Summand(Protocol):
    """``make`` does the work; it is called once the sites agreed on keys."""

    def division(self, sites: int) -> Division:
        """How the vector travels where so many sites take part."""

    def modules(self) -> tuple[str, ...]:
        """The modules whose means the sum gives, in order; none where it is of something else."""

    def held(self) -> frozenset[str]:
        """Those of them that this site trains."""

    def make(
        self, divided: Division, only: frozenset[str], /
    ) -> tuple[Parts, SealedUpdate | SealedEvaluation]:
        """Its parts, of modules ``only`` these, and the reply that they leave in, with all that may
        be told beside them."""


@dataclass(frozen=True)
class UpdateSummand:
    """The weighed update of a round.

    ``params``: those to train from, coded as the update is; ``change``: what the round before
    changed in them, coded too, where the plan's choice of what to encrypt rests on it. ``secret``:
    ``private.training_key``, of which this site's share of the noise is drawn, where the plan has
    the sites add it.
    """

    plan: Plan
    order: TrainOrder
    params: Params
    change: Params | None
    train: Callable[[], ClientUpdate]
    secret: Callable[[], bytes]
    holds: Callable[[], frozenset[str]]

    def division(self, sites: int) -> Division:
        fields = self.plan.division_of_updates()
        return division(self.params, sites=sites, change=self.change, **fields)

    def modules(self) -> tuple[str, ...]:
        return flat.modules(self.params)

    def held(self) -> frozenset[str]:
        return self.holds()

    def make(self, divided: Division, only: frozenset[str], /) -> tuple[Parts, SealedUpdate]:
        update = self.train()
        # What counts as held is what the others were told.
        sent = flat.only(update.update, only & self.held())
        weights = {module: update.weights[module] for module in flat.modules(sent)}
        key = rounding_key(self.plan, self.order)
        noise_key = None
        if self.plan.noise_in_shares:
            noise_key = derive(self.secret(), "share of noise")
        parts = divided.divide(sent, weights, self.params, key, noise_key)
        return parts, _cover(update)


@dataclass(frozen=True)
class StatisticsSummand:
    """The statistics of an evaluation: counts, so that their words are exact."""

    plan: Plan
    evaluate: Callable[[], Evaluation]

    def division(self, sites: int) -> Division:
        return whole_numbers(tally.LARGEST, sites)

    def modules(self) -> tuple[str, ...]:
        return ()

    def held(self) -> frozenset[str]:
        return frozenset()

    def make(self, _divided: Division, _only: frozenset[str], /) -> tuple[Parts, SealedEvaluation]:
        task, evaluation = self.plan.task, self.evaluate()
        words = tally.words(evaluation.statistics, counting.layout(task))
        return Parts(masked=words), _cover_of_statistics(evaluation)


def rounding_key(plan: Plan, order: TrainOrder) -> bytes:
    """The 32 bytes that rounding draws from.

    They are no secret, so that a round done again gives the same sum: what hides the update are
    the masks.
    """
    number = seeds.derive(plan.seed, "rounding", order.site, order.round_num)
    return hashlib.sha256(str(number).encode()).digest()


def _cover(update: ClientUpdate) -> SealedUpdate:
    """The reply around the update: nothing of what the site has or learnt.

    ``epsilon_spent`` follows from the plan.
    """
    kept = {
        name: value
        for name, value in update.measurements.items()
        if name.startswith("seconds.") or name in ("bytes_down", "epsilon_spent")
    }
    said = (update.site, update.run_id, update.seq, update.order_digest)
    return SealedUpdate(*said, {}, data=without_modalities(update.data), measurements=kept)


def _cover_of_statistics(evaluation: Evaluation) -> SealedEvaluation:
    """The reply around the statistics: how the export deviates, and nothing of the subjects."""
    said = (evaluation.site, evaluation.run_id, evaluation.seq, evaluation.order_digest)
    data = replace(without_modalities(evaluation.data), num_subjects=0)
    return SealedEvaluation(*said, {}, data=data, measurements=evaluation.measurements)


def without_modalities(data: DataSummary) -> DataSummary:
    """What may be told where nobody is to know which site has which scanner."""
    return replace(data, modalities={})
