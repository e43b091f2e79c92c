"""A run as the server holds it: nothing in memory that the exchange does not have.

Every stage of a round first looks for what an earlier attempt left in the exchange, and goes on
from there. The order of writes within a round makes a kill harmless at any moment:

1. orders, which hold no clock and no chance: put again, they are the same bytes
2. ``survivors``: whose updates count, before any noise is drawn for their sum
3. ``state`` of the next round, which holds the noisy result: drawn and stored once
4. ``params`` of the next round, a copy of that for the sites, and the change that led to them
5. ``record``: the commit. A round with a record is over for ever
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore import params as flat
from fedcore.config.plan import Plan
from fedcore.errors import ConfigError, NotFound
from fedcore.params import Params
from fedcore.privacy.secagg.client import Identities
from fedcore.records import RoundRecord, Split
from fedcore.server.step import ServerState, initial_state
from fedcore.store.exchange import Exchange


@dataclass(frozen=True)
class RunFile:
    """What a run was opened with; another plan or other sites are another run.

    ``nonce``: hex, drawn once by the operating system, so that two runs of one id differ.
    """

    run_id: str
    plan_digest: str
    population: tuple[str, ...]
    created: str
    nonce: str = ""


@dataclass(frozen=True)
class FailedAttempt:
    """An attempt at a secure round that too many sites left: its keys are spent for ever.

    ``split``: train for the round itself, else of the evaluation of its params.
    """

    round_num: int
    reason: str
    split: Split = "train"


@dataclass(frozen=True)
class Run:
    """A run as the server holds it: all state is in the exchange.

    ``failed``: the failed attempts at secure rounds and evaluations, since every attempt is an
    order of its own; the run is opened anew after one.
    """

    run_id: str
    plan: Plan
    population: tuple[str, ...]
    exchange: Exchange
    signing_key: Ed25519PrivateKey
    failed: tuple[FailedAttempt, ...] = ()
    identities: Identities = field(default_factory=dict)
    nonce: str = ""

    def attempts(self, round_num: int, split: Split = "train") -> int:
        """How many attempts at this round, or at this evaluation, failed before."""
        return sum((tried.round_num, tried.split) == (round_num, split) for tried in self.failed)


def open_run(
    exchange: Exchange,
    plan: Plan,
    population: Sequence[str],
    run_id: str,
    signing_key: Ed25519PrivateKey,
    *,
    created: str,
    initial: Callable[[], Params],
) -> Run:
    """Open the run, or take it up where it stands.

    ``initial`` makes the params of round 0; it is called only if nobody did before. Raises
    ConfigError if the run was opened with another plan or other sites.
    """
    failed = tuple(_failed_attempts(exchange, run_id))
    run = Run(
        run_id, plan, tuple(sorted(population)), exchange, signing_key, failed, exchange.identities
    )
    too_few = plan.cohort.min_clients > len(run.population)
    if too_few or (plan.cohort.size or 0) > len(run.population):
        raise ConfigError(
            f"the plan's cohort (size {plan.cohort.size}, min_clients {plan.cohort.min_clients}) "
            f"is larger than the federation, which has {len(run.population)} sites"
        )
    threshold, everybody = plan.secure_aggregation.threshold, len(run.population)
    unchecked = plan.cohort.size is None  # else the plan was checked against its own cohort
    if threshold and unchecked and not everybody / 2 < threshold <= everybody:
        raise ConfigError(
            f"secure_aggregation: threshold {threshold} for {everybody} sites: more than half and "
            "at most all of them are needed, or two sets of sites could each open a sum"
        )
    found = wanted = RunFile(run_id, plan.digest, run.population, created, secrets.token_hex(16))
    if not exchange.create_record(run_id, "run", wanted):
        found = exchange.record(run_id, "run", RunFile) or wanted
        if (found.plan_digest, found.population) != (wanted.plan_digest, wanted.population):
            raise ConfigError(
                f"run {run_id!r} was opened with another plan or other sites; give the same "
                "ones to resume it, or another run id to start anew"
            )
    run = replace(run, nonce=found.nonce)
    exchange.publish_plan(run_id, plan)
    if exchange.state(run_id, state_name(0)) is None:
        exchange.create_state(run_id, state_name(0), initial_state(plan, initial()).arrays())
    exchange.publish_params(run_id, 0, load_state(run, 0).public)
    return run


def fail_attempt(run: Run, round_num: int, reason: str, split: Split = "train") -> None:
    """Give this attempt at a secure round or evaluation up: the next one has fresh keys."""
    exchange, attempt = run.exchange, FailedAttempt(round_num, reason, split)
    exchange.create_record(run.run_id, _attempt_name(len(run.failed)), attempt)


def _failed_attempts(exchange: Exchange, run_id: str) -> Iterator[FailedAttempt]:
    for number in itertools.count():
        attempt = exchange.record(run_id, _attempt_name(number), FailedAttempt)
        if attempt is None:
            return
        yield attempt


def _attempt_name(number: int) -> str:
    return f"failed/{number:05d}"


def load_state(run: Run, round_num: int) -> ServerState:
    """The state at the start of ``round_num``. Raises NotFound if no round led there yet."""
    arrays = run.exchange.state(run.run_id, state_name(round_num))
    if arrays is None:
        raise NotFound(f"run {run.run_id!r} has not reached round {round_num}")
    return ServerState.from_arrays(round_num, arrays)


def params_digest(run: Run, round_num: int) -> str:
    """The digest of the params at the start of ``round_num``, without reading them if possible."""
    before = record_of(run, round_num - 1) if round_num > 0 else None
    if before is not None:
        return before.params_digest
    return flat.digest(load_state(run, round_num).public)


def record_of(run: Run, round_num: int) -> RoundRecord | None:
    """The round's record, if it was committed."""
    return run.exchange.record(run.run_id, f"rounds/{round_num:05d}/record", RoundRecord)


def state_name(round_num: int) -> str:
    """Where the state at the start of ``round_num`` lies among the run's records."""
    return f"rounds/{round_num:05d}/state"
