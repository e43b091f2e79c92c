"""What server and client say to each other, and what the server writes down of it.

The sign, once and for all: ``update = local params − global params``. The pseudo-gradient that a
server optimiser descends is therefore ``−update``, and applying a mean update with learning rate
1 gives plain FedAvg (McMahan et al. 2017, https://arxiv.org/abs/1602.05629).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedcore.params import Params

Split = Literal["train", "validation", "test"]
Statistics = Mapping[str, NDArray[np.float64]]
"""Additive statistics of an evaluation: name → array; two of them merge by addition."""


@dataclass(frozen=True)
class TrainOrder:
    """Train from the params of ``round_num`` and reply with a ClientUpdate.

    ``seq`` counts the orders of this run to this site from 0; it is also the key the order lies
    under, so an order copied elsewhere contradicts itself. ``attempt`` counts those at this round
    that failed before, for secure rounds, whose keys serve one attempt. ``nonce``, in
    every order, was drawn once for the run: another run of the same id has other orders.
    ``previous_digest``: of the params of the round before, where the plan's selective encryption
    rests on what that round changed.
    """

    run_id: str
    site: str
    seq: int
    round_num: int
    plan_digest: str
    params_digest: str
    attempt: int = 0
    nonce: str = ""
    previous_digest: str | None = None
    kind: Literal["train"] = "train"
    split: ClassVar[Split] = "train"

    def names_run(self) -> tuple[str, ...]:
        """What names the run: another one of the same id has another nonce."""
        return (self.run_id, self.nonce, self.plan_digest)

    def names_update(self) -> tuple[str | int, ...]:
        """What names this site's update: the same in every attempt at the round, and no other.

        An update, with whatever noise the site adds, is a function of this and the site's data.
        """
        return (*self.names_run(), self.round_num, self.params_digest)

    def names_attempt(self) -> tuple[str | int, ...]:
        """What names this attempt at this round, the same for every site and no other attempt."""
        place = (self.run_id, self.plan_digest, self.round_num, self.params_digest)
        return (*place, self.attempt, self.nonce)


@dataclass(frozen=True)
class EvalOrder:
    """Evaluate the params of ``round_num`` on one split and reply with an Evaluation.

    With ``onnx_digest``, also compare that export in the exchange with PyTorch, on the site's own
    subjects: real inputs are nowhere else. ``attempt`` counts those at this evaluation that failed
    before, where statistics are summed in secret.
    """

    run_id: str
    site: str
    seq: int
    round_num: int
    plan_digest: str
    params_digest: str
    split: Split = "validation"
    onnx_digest: str | None = None
    attempt: int = 0
    nonce: str = ""
    kind: Literal["evaluate"] = "evaluate"

    def names_attempt(self) -> tuple[str | int, ...]:
        """What names this attempt at this evaluation, and no attempt at a round."""
        place = (self.run_id, self.plan_digest, self.round_num, self.params_digest)
        return (*place, self.attempt, self.nonce, self.kind, self.split)


@dataclass(frozen=True)
class FinishOrder:
    """The run is over: the client ends. No reply."""

    run_id: str
    site: str
    seq: int
    plan_digest: str
    nonce: str = ""
    kind: Literal["finish"] = "finish"


Step = Literal[
    "keys", "roster", "shares", "inbox", "survivors", "consistency", "signatures", "unmask",
    "decrypt", "sum",
]  # fmt: skip
"""The parts of the conversation that an order begins where the server is to see a sum alone.

Sites say ``keys``, ``shares``, ``consistency``, ``unmask`` and ``sum``, beside their reply; the
server passes on ``roster``, ``inbox``, ``survivors``, ``signatures`` and ``decrypt``.
"""


@dataclass(frozen=True)
class Relay:
    """What the server passes on to a site in a secure round: a part of this order and no other."""

    run_id: str
    site: str
    seq: int
    order_digest: str
    step: Step
    body: Mapping[str, Any]
    kind: Literal["relay"] = "relay"


Order = TrainOrder | EvalOrder | FinishOrder


@dataclass(frozen=True)
class DataSummary:
    """What a site used, in counts only, and the shape of one example.

    ``modalities``: how many subjects have each. ``left_out``: reason → how many files or subjects;
    in a reply, of the site's whole data set and not only of the split that was used.
    ``inputs``: name of a model input → its shape without the batch, e.g. ``pet: (1, 40, 48, 40)``.
    """

    num_subjects: int
    modalities: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ClientUpdate:
    """A site's reply to a TrainOrder.

    ``update`` holds float32 arrays of the modules that the site trained, and no others;
    ``weights`` gives each of those modules its weight in the mean (not ``num_examples``).
    """

    site: str
    run_id: str
    seq: int
    order_digest: str
    update: Params
    weights: Mapping[str, float]
    num_examples: int
    data: DataSummary
    measurements: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sealed:
    """A site's part of a sum that is all the server sees: it can read no value of ``arrays``.

    ``data`` and ``measurements`` say nothing of what the site has or learnt.
    """

    site: str
    run_id: str
    seq: int
    order_digest: str
    arrays: Mapping[str, NDArray[Any]]
    data: DataSummary
    measurements: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SealedUpdate(Sealed):
    """A site's reply to a TrainOrder under secure aggregation.

    ``arrays``: ``masked`` (unsigned words) and, with homomorphic encryption, ``encrypted`` and
    ``tag`` (bytes) and ``plain`` (float32).
    """


@dataclass(frozen=True)
class SealedEvaluation(Sealed):
    """A site's reply to an EvalOrder whose statistics are summed behind masks.

    ``arrays``: ``masked`` (uint64 words). Not even how many subjects were evaluated is told
    (``num_subjects`` is 0).
    """


@dataclass(frozen=True)
class Message:
    """What a site says in a secure round, beside its update."""

    site: str
    run_id: str
    seq: int
    order_digest: str
    step: Step
    body: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """A site's reply to an EvalOrder: additive statistics and nothing about one subject."""

    site: str
    run_id: str
    seq: int
    order_digest: str
    statistics: Statistics
    num_examples: int
    data: DataSummary
    measurements: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """A site's reply when it will not do what the order says, or a step of it, and why."""

    site: str
    run_id: str
    seq: int
    order_digest: str
    reason: str
    step: Step | None = None


Reply = ClientUpdate | Evaluation | SealedUpdate | SealedEvaluation | Message | Refusal


@dataclass(frozen=True)
class ClientStatus:
    """How a site's client is.

    ``running``: alive, or on its way (``reason`` says what it waits for), or nobody's business here
    (the site starts its own). ``failed``: ended without the reply; ``reason`` says why in one
    sentence, ``permanent`` that a new start would end the same way.
    """

    state: Literal["running", "failed"]
    reason: str = ""
    permanent: bool = False


@dataclass(frozen=True)
class Survivors:
    """The sites whose updates a round sums. Stored before any noise is drawn for that sum."""

    sites: tuple[str, ...]
    dropped: Mapping[str, str]


@dataclass(frozen=True)
class RoundRecord:
    """What a committed round did. Once this is stored, the round is over for ever.

    ``weights``: site → module → weight, for the sites whose update counted; ``data`` and
    ``measurements`` are what those sites said of themselves, by site.
    ``dropped``: site → reason, for the rest of the cohort.
    ``params_digest``: of the params that the round led to.
    ``seconds``: the server's own, by phase. ``bytes_up``, ``bytes_down``: over all sites.
    """

    run_id: str
    round_num: int
    cohort: tuple[str, ...]
    weights: Mapping[str, Mapping[str, float]]
    dropped: Mapping[str, str]
    params_digest: str
    data: Mapping[str, DataSummary]
    measurements: Mapping[str, Mapping[str, float]]
    bytes_up: int
    bytes_down: int
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class EvaluationRecord:
    """What the sites' statistics of one split add up to, written once.

    ``summary`` is over all sites, ``sites`` by site, both as ``metrics.summarise`` gives them.
    Where the statistics were summed in secret, ``sites`` holds no figures and only says whose are
    in the sum, and ``num_examples`` is empty.
    ``missing``: site → why there is no evaluation of it. ``data``: what the sites said of theirs.
    ``onnx_max_abs_diff``: site → largest deviation of the export there, when it was asked for.
    """

    run_id: str
    round_num: int
    split: Split
    summary: Mapping[str, Any]
    sites: Mapping[str, Mapping[str, Any]]
    num_examples: Mapping[str, int]
    missing: Mapping[str, str]
    onnx_max_abs_diff: Mapping[str, float]
    bytes_up: int
    bytes_down: int
    seconds: Mapping[str, float]
    data: Mapping[str, DataSummary] = field(default_factory=dict)
