"""An audit in one run: what canaries show of epsilon, of each mechanism, and without its noise.

    python -m studies.audit

A canary is one unit that adds as much as clipping allows, in a direction of its own: a site's
update or a subject's gradient along one coordinate. The mechanisms are those of a real run, and
what is looked at is what they release. Half of the canaries, by chance, add nothing instead. With
the noise switched off in secret, the bound must come out above the claim: else the audit could not
have found that fault, and its silence would say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedcore.config.learning import Training
from fedcore.config.plan import Plan
from fedcore.config.protection import SubjectPrivacy
from fedcore.demo.plan import Choices, plan_of
from fedcore.params import FloatArray
from fedcore.privacy import auditing, fixed_point
from fedcore.privacy.accounting import calibrate
from fedcore.privacy.division import division
from fedcore.records import ClientUpdate, DataSummary
from fedcore.server.step import initial_state, step
from fedcore.training import dpsgd
from studies import results

DELTA, CLIP_NORM = 1e-5, 1.0
Included = NDArray[np.bool_]
Scores = NDArray[np.float64]
Mechanism = Callable[[Included, float], Scores]
"""(who is in, the noise_multiplier) → a score a canary, of what is released: higher is more in."""


@dataclass(frozen=True)
class Row:
    """``claim``: the epsilon of the noise that is promised. ``honest``, ``without_noise``: lower
    bounds, at 95 %. ``ceiling``: the most that so many canaries can show."""

    mechanism: str
    claim: float
    canaries: int
    honest: float
    without_noise: float
    ceiling: float


def by_server(rounds: int = 4) -> Mechanism:
    """Sites' updates through ``server.step``, with the server's noise, over some rounds."""

    def released(included: Included, noise_multiplier: float) -> Scores:
        params = {"head.weight": np.zeros(included.size, np.float32)}
        plan = _plan(noise_multiplier)
        state = initial_state(plan, params)
        for _ in range(rounds):
            state, _ = step(plan, state, _arrivals(included))
        return state.params["head.weight"].astype(float)

    return released


def in_shares() -> Mechanism:
    """Sites' updates on the grid, each with its share of the noise; the masks cancel in the sum."""

    def released(included: Included, noise_multiplier: float) -> Scores:
        size = included.size
        like = {"head.weight": np.zeros(size, np.float32)}
        divided = division(like, mode="masks", bound=CLIP_NORM, sites=size, bits=20,
                           noise_multiplier=noise_multiplier, threshold=size)  # fmt: skip
        total, keys = None, np.random.default_rng()
        for _, sent in _arrivals(included):
            words = divided.divide(sent.update, sent.weights, like, keys.bytes(32), keys.bytes(32))
            total = words.masked if total is None else total + words.masked
        sums, _ = fixed_point.unflatten(total, like, divided.grid)  # type: ignore[arg-type]
        return sums["head.weight"]

    return released


def dp_sgd(steps: int = 3) -> Mechanism:
    """Subjects' gradients through DP-SGD, all of them in every step."""

    def released(included: Included, noise_multiplier: float) -> Scores:
        size = included.size
        model = nn.Linear(size, 1, bias=False)
        nn.init.zeros_(model.weight)
        rows = torch.diag(torch.from_numpy(included.astype(np.float32)))
        data = TensorDataset(rows, torch.zeros(size))
        privacy = SubjectPrivacy(
            clip_norm=CLIP_NORM, noise_multiplier=1.0, sampling_rate=1.0, steps=steps
        ).model_copy(update={"noise_multiplier": noise_multiplier})  # 0, which a plan may not say
        training = Training(batch_size=100, optimizer="sgd", learning_rate=1.0)
        key = np.random.default_rng().bytes(32)
        found = dpsgd.train(model, data, _steep, training, privacy, key=key, seed=0)
        return found.params["weight"].astype(float).ravel()

    return released


def audited(
    mechanism: Mechanism, noise_multiplier: float, canaries: int, seed: int, delta: float = DELTA
) -> float:
    """The lower bound of one run with canaries drawn by this seed."""
    included = np.random.default_rng(seed).random(canaries) < 0.5
    return auditing.audit(mechanism(included, noise_multiplier), included, delta).epsilon


def row(
    name: str, mechanism: Mechanism, claim: float, releases: int, canaries: int, seed: int = 0
) -> Row:
    """One audit with the noise that is claimed, one without."""
    noise = calibrate(claim, DELTA, count=releases)
    honest = audited(mechanism, noise, canaries, seed)
    without = audited(mechanism, 0.0, canaries, seed)
    most = auditing.ceiling(canaries, DELTA)
    return Row(name, claim, canaries, *(round(x, 3) for x in (honest, without, most)))


def main() -> dict[str, Any]:
    """The audits, as rows."""
    rows = [
        row("one site, noise by the server, 4 rounds", by_server(4), 4.0, 4, 5_000),
        row("one site, noise by the server, 1 round", by_server(1), 2.0, 1, 1_000),
        row("one site, noise in shares", in_shares(), 2.0, 1, 1_000),
        row("one subject, DP-SGD, 3 steps", dp_sgd(3), 4.0, 3, 2_000),
    ]
    for one in rows:
        print(one)
    return {"delta": DELTA, "confidence": 0.95, "rows": [asdict(one) for one in rows]}


def _plan(noise_multiplier: float) -> Plan:
    plan = plan_of(Choices(dp="site", epsilon=8.0))
    changed = {"noise_multiplier": noise_multiplier, "clip_norm": CLIP_NORM}
    privacy = plan.privacy.model_copy(update=changed)
    return plan.model_copy(update={"privacy": privacy})


def _arrivals(included: Included) -> Iterator[tuple[str, ClientUpdate]]:
    """Each canary's update: as long as the clip norm along its own axis, or zero."""
    for number in range(included.size):
        value: FloatArray = np.zeros(included.size, np.float32)
        value[number] = CLIP_NORM * included[number]
        site = f"site-{number:06d}"
        yield site, ClientUpdate(site, "audit", 0, "", {"head.weight": value}, {"head": 1.0}, 1,
                                 DataSummary(1))  # fmt: skip


def _steep(outputs: Tensor, _targets: Tensor) -> Tensor:
    """A loss whose gradient is longer than any clip norm, towards the canary's own axis."""
    return -1e3 * outputs.sum()


if __name__ == "__main__":
    results.write("audit", main())
