"""SCAFFOLD's rounds are the paper's, with variates that a kill does not lose."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
import toy
from faults import FaultyStore, Killed
from torch.nn.functional import cross_entropy

from fedcore.aggregation import scaffold
from fedcore.client.learner import Learner
from fedcore.client.personal import Personal
from fedcore.config.plan import Plan
from fedcore.data.site import SiteData
from fedcore.errors import OrderRefused
from fedcore.params import digest, nbytes
from fedcore.records import ClientUpdate, TrainOrder
from fedcore.server import orders
from fedcore.server.run import Run, load_state
from fedcore.store import blobs
from fedcore.store.api import Store
from fedcore.store.memory import MemoryStore
from fedcore.training.state import get_params, load_params

RATE, STEPS = 0.05, 3
KEPT = "derivatives/fedcore/personal/"
FIELDS = {"optimizer": "sgd", "learning_rate": RATE, "batch_size": 64, "epochs": STEPS}


def plan(**fields: object) -> Plan:
    """Full batches, so that an epoch is a step and no order shows."""
    return toy.plan(
        rounds=3,
        privacy={},
        aggregation={"weights": "uniform"},
        training={**FIELDS, "scaffold": True, **fields},
    )


def play(what: Plan, data: Mapping[str, Store], store: Store | None = None, **how: object) -> Run:
    store = store or MemoryStore()
    run = toy.open_toy(store, what)
    toy.play(run, toy.InlineLauncher(store, data, **how))
    return run


def kept(store: Store) -> dict[str, np.ndarray]:
    """The site's control variate after its last round."""
    *_, last = store.list(KEPT)
    return scaffold.split(blobs.unpack(store.get(last))[0])[1]


@pytest.mark.parametrize("present", [toy.SITES, ("east", "north")])
def test_three_rounds_are_those_of_algorithm_1(present: tuple[str, ...]) -> None:
    """Option II, in float64 beside it; N is three, also where one site is never there."""
    what, data = plan(), toy.site_stores()
    run = play(what, data, absent=frozenset(toy.SITES) - set(present))
    module = toy.build_model(what).double()
    names = [name for name, _ in module.named_parameters()]
    x = {name: p.detach().clone() for name, p in module.named_parameters()}
    c = {name: torch.zeros_like(array) for name, array in x.items()}
    own = {site: dict(c) for site in toy.SITES}
    for _ in range(3):
        moved, changed = {}, {}
        for site in present:
            table = toy.dataset(SiteData(what.task, data[site], what.purpose))["train"]
            inputs, target = table.tensors
            y = dict(x)
            for _ in range(STEPS):
                load_params(module, {name: array.numpy() for name, array in y.items()})
                loss = cross_entropy(module(inputs.double()), target)
                gradients = torch.autograd.grad(loss, list(module.parameters()))
                for name, g in zip(names, gradients, strict=True):
                    y[name] = y[name] - RATE * (g - own[site][name] + c[name])
            plus = {n: own[site][n] - c[n] + (x[n] - y[n]) / (STEPS * RATE) for n in names}
            moved[site] = {n: y[n] - x[n] for n in names}
            changed[site] = {n: plus[n] - own[site][n] for n in names}
            own[site] = plus
        x = {n: x[n] + sum(moved[s][n] for s in present) / len(present) for n in names}
        c = {n: c[n] + sum(changed[s][n] for s in present) / len(toy.SITES) for n in names}
    state = load_state(run, 3)
    for name in names:
        np.testing.assert_allclose(state.params[name], x[name], atol=1e-5)
        np.testing.assert_allclose(state.control[name], c[name], atol=1e-5)
        for site in present:
            np.testing.assert_allclose(kept(data[site])[name], own[site][name], atol=1e-5)
    if present == toy.SITES:
        mean = np.mean([kept(data[site])["head.bias"] for site in present], axis=0)
        np.testing.assert_allclose(state.control["head.bias"], mean, atol=1e-5)


def test_it_reaches_the_optimum_that_fedavg_misses() -> None:
    """½ h (x − c)², ten steps a round: the drift is what FedAvg converges to."""
    curves = {"east": (1.0, 4.0), "north": (4.0, -1.0), "west": (0.5, 3.0)}
    optimum = sum(h * c for h, c in curves.values()) / sum(h for h, _ in curves.values())

    def after(rounds: int, *, corrected: bool) -> float:
        x = {"w": np.zeros(1, np.float32)}
        c = scaffold.start(x)
        own = {site: scaffold.start(x) for site in curves}
        for _ in range(rounds):
            total = np.zeros(1)
            for site, (h, centre) in curves.items():
                y = x["w"].astype(np.float64)
                for _ in range(10):
                    y = y - 0.05 * (h * (y - centre) - own[site]["w"] + c["w"])
                update = {"w": (y - x["w"]).astype(np.float32)}
                total += update["w"]
                if corrected:
                    own[site] = scaffold.of_site(own[site], c, update, {"w": 10.0}, 0.05)
            x = {"w": (x["w"] + total / 3).astype(np.float32)}
            if corrected:
                c = scaffold.of_server(c, {"w": total / 10}, {"w": 3.0}, 3, 0.05)
        return float(x["w"][0])

    assert after(100, corrected=True) == pytest.approx(optimum, abs=1e-3)
    assert abs(after(100, corrected=False) - optimum) > 0.1


@pytest.mark.parametrize("before", [True, False])
def test_killed_as_it_writes_its_variate_a_site_goes_on_as_if_it_was_not(before: bool) -> None:
    what = plan(local=["head.bias"])
    undisturbed = toy.site_stores()
    wanted = play(what, undisturbed)
    counting = FaultyStore(toy.site_store("north"), -1)
    play(what, {**toy.site_stores(), "north": counting})
    writes = [n for n, told in enumerate(counting.operations) if told.startswith(f"create {KEPT}")]
    assert len(writes) == 3
    for at in writes:
        store, data = MemoryStore(), toy.site_stores()
        with pytest.raises(Killed):
            play(what, {**data, "north": FaultyStore(data["north"], at, before=before)}, store)
        run = play(what, data, store)
        assert digest(load_state(run, 3).public) == digest(load_state(wanted, 3).public)
        assert digest(kept(data["north"])) == digest(kept(undisturbed["north"]))


def test_what_travels() -> None:
    """Down the variate doubles the params; up goes the update alone."""
    runs = [play(plan(scaffold=on), toy.site_stores()) for on in (True, False)]
    size = 4 * sum(array.size for array in get_params(toy.build_model(plan())).values())
    for run, copies in zip(runs, (2, 1), strict=True):
        order = orders.train_orders(run, 1)[0]
        down, _ = run.exchange.params(run.run_id, 1, order.params_digest)
        reply, _ = run.exchange.reply(order)
        assert isinstance(reply, ClientUpdate)
        assert (nbytes(down), nbytes(reply.update)) == (copies * size, size)


def test_a_variate_of_other_shapes_is_refused() -> None:
    what, bucket = plan(), toy.site_store("north")
    params = get_params(toy.build_model(what))
    order = TrainOrder("run-1", "north", 0, 0, what.digest, "")
    personal, learner = Personal(bucket, order), Learner(what, bucket, min_cell=5)
    for control in (None, {}, {**params, "head.bias": np.zeros(7, np.float32)}):
        with pytest.raises(OrderRefused, match="control variate"):
            learner.train(order, "", params, personal=personal, control=control)
