"""Reading a scan back out of one site's update: what works unprotected, and fails on the protected.

The worst case for the site: one subject, one step. Of a fully connected layer the update is then
rank one, ΔW = −η g xᵀ and Δb = −η g, so that the input is a quotient of the two (Phong et al. 2018,
https://eprint.iacr.org/2017/715; Geiping et al. 2020, https://arxiv.org/abs/2003.14053, Prop. 3.1).
For other networks the input is searched whose gradient is the one seen (Zhu et al. 2019,
https://arxiv.org/abs/1906.08935).

Scans look alike, so a reconstruction is judged by what differs from the average scan, and against
strangers' scans: it says something if it is more like its own than like those. If it says nothing,
its own scan's place among the others is a fair draw, from the first to the last.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from scipy import stats
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from fedcore.config.learning import Training
from fedcore.params import Params, modules, subtract
from fedcore.privacy import clipping, fixed_point, gaussian, noise_shares, secagg
from fedcore.training.local import train
from fedcore.training.state import get_params

Image = NDArray[np.float64]
Attack = Callable[[nn.Module, Params, int], Image]
"""(the global model, what is seen of an update, the label) → the scan, up to its scale."""
Protect = Callable[[Params, int], Params]
"""(a site's update, a number of its own) → what the reader gets to see."""

SIDE, CLASSES, CLIP_NORM = 20, 3, 1.0
TRAINING = Training(epochs=1, batch_size=1, optimizer="sgd", learning_rate=0.1)


def scans(count: int, seed: int) -> NDArray[np.float32]:
    """Slices through heads, (count, SIDE, SIDE), that differ in outline, lesions and texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    images = []
    for _ in range(count):
        a, b = rng.uniform(0.6, 0.95, size=2)
        image = 0.5 * ((x / a) ** 2 + (y / b) ** 2 < 1)
        for centre in rng.uniform(-0.5, 0.5, size=(4, 2)):
            spread = rng.uniform(0.02, 0.1)
            bump = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / spread)
            image = image + rng.uniform(-0.5, 0.5) * bump
        images.append(image + 0.05 * rng.normal(size=image.shape))
    return np.array(images, np.float32)


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(SIDE * SIDE, 64), nn.ReLU(), nn.Linear(64, CLASSES)
    )


def convolutions() -> nn.Module:
    """Zhu et al.'s: sigmoids, and weights wide enough that they bend."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 12, 5, padding=2, stride=2), nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, padding=2, stride=2), nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, padding=2), nn.Sigmoid(),
        nn.Flatten(), nn.Linear(12 * (SIDE // 4) ** 2, CLASSES),
    )  # fmt: skip
    for parameter in net.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return net


def update_of(model: nn.Module, image: NDArray[np.float32], label: int) -> Params:
    """A site's clipped update after training on this one subject."""
    example = TensorDataset(torch.from_numpy(image)[None, None], torch.tensor([label]))
    local = train(model, example, cross_entropy, TRAINING, seed=0).params
    update = subtract(local, get_params(model))
    factor = np.float32(clipping.factor(clipping.l2_norm(update), CLIP_NORM))
    return {name: factor * array for name, array in update.items()}


def quotient(model: nn.Module, update: Params, label: int) -> Image:
    """ΔW / Δb of the first layer, over all units at once by least squares."""
    weight, bias = (update[name].astype(np.float64) for name in ("1.weight", "1.bias"))
    return np.asarray(bias @ weight / (bias @ bias)).reshape(SIDE, SIDE)


def rank_one(model: nn.Module, update: Params, label: int) -> Image:
    """The same from ΔW alone: its first right singular vector, with the sign that Δb says."""
    weight, bias = (update[name].astype(np.float64) for name in ("1.weight", "1.bias"))
    left, _, right = np.linalg.svd(weight, full_matrices=False)
    return np.asarray(np.sign(left[:, 0] @ bias) * right[0]).reshape(SIDE, SIDE)


def search(model: nn.Module, update: Params, label: int) -> Image:
    """Deep leakage from gradients: the input whose gradient points where the update does.

    The angle and not the distance (Geiping et al. 2020, eq. 4), as clipping hides the length.
    """
    torch.manual_seed(1)
    model = copy.deepcopy(model).double()  # float32 cannot tell the last angles apart
    names, params = zip(*model.named_parameters(), strict=True)
    seen = torch.cat([torch.from_numpy(-np.asarray(update[name])).flatten() for name in names])
    guess = torch.randn(1, 1, SIDE, SIDE, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [guess], max_iter=300, max_eval=200, history_size=50, line_search_fn="strong_wolfe",
        tolerance_grad=1e-12, tolerance_change=1e-14,
    )  # fmt: skip

    def angle() -> torch.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model(guess), torch.tensor([label]))
        gradients = torch.autograd.grad(loss, params, create_graph=True)
        made = torch.cat([gradient.flatten() for gradient in gradients])
        distance: torch.Tensor = 1 - torch.cosine_similarity(made, seen, dim=0)
        distance.backward()
        return distance

    optimizer.step(angle)
    return guess.detach().numpy().reshape(SIDE, SIDE)


ATTACKS = {"quotient": (quotient, perceptron), "rank one": (rank_one, perceptron),
           "search": (search, convolutions)}  # fmt: skip
each_attack = pytest.mark.parametrize(("attack", "network"), ATTACKS.values(), ids=ATTACKS)


def noisy(update: Params, number: int) -> Params:
    """With the noise of one round, noise_multiplier 1: what the global params show of one site."""
    normals = gaussian.seeded_normals(7, number)
    stddev = gaussian.stddev(1.0, CLIP_NORM, max_weight=1.0)
    wide = {name: array.astype(np.float64) for name, array in update.items()}
    return {k: v.astype(np.float32) for k, v in gaussian.add_noise(wide, stddev, normals).items()}


GRID = fixed_point.grid(bits=20, bound=CLIP_NORM, summands=3, noise=1 << 20)


def in_fixed_point(update: Params, number: int) -> Params:
    """The words that are masked, without their masks: this alone protects nothing."""
    return read(words_of(update, bytes(32)), update)


def with_its_share(update: Params, number: int, noise_multiplier: float = 1.0) -> Params:
    """The words that are masked where the sites add the noise: with this one's share alone, a third
    of the sum's."""
    words, size = words_of(update, bytes(32)), sum(array.size for array in update.values())
    unit = noise_shares.sensitivity(GRID.largest, size)
    share = noise_shares.stddev(noise_multiplier, unit, threshold=3)
    noise_shares.add(words[:size], share, number.to_bytes(32, "big"))
    return read(words, update)


def masked(update: Params, number: int) -> Params:
    """Behind the masks of a round of three sites, read as if there were none."""
    context, sites = secagg.context_of("run", number), ("east", "north", "west")
    secrets = {s: secagg.Secrets.from_seed(f"{s} {number:029}".encode(), context) for s in sites}
    identity = Ed25519PrivateKey.from_private_bytes(bytes(32))
    roster = [secagg.advertise_keys(s, secrets[s], identity, context) for s in sites]
    terms = secagg.agree(roster, context, threshold=2)
    words = words_of(update, secrets["north"].rounding_key)
    return read(secagg.masked_input(words, "north", secrets["north"], sites, terms), update)


def words_of(update: Params, key: bytes) -> fixed_point.Words:
    weights = dict.fromkeys(modules(update), 1.0)
    return fixed_point.flatten(update, weights, update, GRID, key)


def read(words: fixed_point.Words, like: Params) -> Params:
    sums, _ = fixed_point.unflatten(words, like, GRID)
    return {name: array.astype(np.float32) for name, array in sums.items()}


SECRETS = scans(30, seed=1)
STRANGERS = scans(400, seed=2)
AVERAGE = np.stack([np.ones(SIDE * SIDE), STRANGERS.mean(axis=0).ravel()])


def likeness(one: Image, other: NDArray[np.float32]) -> float:
    """Pearson's correlation of what tells two scans from the average scan, whatever their scale."""
    details = []
    for image in (one.ravel(), other.ravel()):
        share, *_ = np.linalg.lstsq(AVERAGE.T, image, rcond=None)
        details.append(image - share @ AVERAGE)
    return float(np.corrcoef(*details)[0, 1])


def place(reconstruction: Image, secret: NDArray[np.float32]) -> float:
    """The share of scans, this and strangers', that it resembles at least as much as this one."""
    own = likeness(reconstruction, secret)
    others = [likeness(reconstruction, stranger) for stranger in STRANGERS]
    return (1 + sum(other >= own for other in others)) / (1 + len(others))


def is_chance(places: list[float]) -> bool:
    """Whether these places could be fair draws (Kolmogorov–Smirnov, at 0.1 %)."""
    return bool(stats.kstest(places, "uniform").pvalue > 0.001)


@each_attack
def test_unprotected_the_scan_is_read_back(
    attack: Attack, network: Callable[[], nn.Module]
) -> None:
    model = network()
    for number, secret in enumerate(SECRETS[:5]):
        label = number % CLASSES
        found = attack(model, update_of(model, secret, label), label)
        assert likeness(found, secret) > 0.95
        assert place(found, secret) == 1 / (1 + len(STRANGERS)), "and like no other"


PROTECTED = [
    pytest.param(*ATTACKS[name], protect, id=f"{name}-{protect.__name__}")
    for protect in (noisy, masked, with_its_share)
    for name in ATTACKS
    if (name, protect) != ("search", with_its_share)  # 20 s for what "search-noisy" shows
]


@pytest.mark.parametrize(("attack", "network", "protect"), PROTECTED)
def test_protected_it_resembles_its_own_scan_no_more_than_a_strangers(
    attack: Attack, network: Callable[[], nn.Module], protect: Protect
) -> None:
    model = network()
    places = []
    for number, secret in enumerate(SECRETS[: 8 if attack is search else None]):
        label = number % CLASSES
        seen = protect(update_of(model, secret, label), number)
        places.append(place(attack(model, seen, label), secret))
    assert is_chance(places)


def test_it_is_the_mask_that_protects() -> None:
    model = perceptron()
    for number, secret in enumerate(SECRETS[:5]):
        seen = in_fixed_point(update_of(model, secret, 0), number)
        assert likeness(quotient(model, seen, 0), secret) > 0.95


def test_it_is_the_noise_that_protects_and_not_that_there_is_some() -> None:
    model = perceptron()
    for number, secret in enumerate(SECRETS[:5]):
        seen = with_its_share(update_of(model, secret, 0), number, noise_multiplier=1e-5)
        assert likeness(rank_one(model, seen, 0), secret) > 0.95


def test_of_few_sites_the_sum_itself_says_something() -> None:
    """What masks do not hide: a unit that one site's subject alone excites shows that subject.

    Against this there are more sites, more subjects and steps, and noise.
    """
    model = perceptron()
    three = [update_of(model, secret, number) for number, secret in enumerate(SECRETS[:3])]
    total = {name: sum(update[name] for update in three) for name in three[0]}
    units = total["1.weight"] / np.where(total["1.bias"] == 0, np.inf, total["1.bias"])[:, None]
    best = [max(likeness(unit, secret) for unit in units if unit.any()) for secret in SECRETS]
    assert max(best[:3]) > 0.95 > max(best[3:])


def test_chance_can_be_missed() -> None:
    """The yardstick itself: a reconstruction with little of the scan in it is told from chance."""
    rng = np.random.default_rng(0)
    faint = [secret + rng.normal(size=secret.shape) for secret in SECRETS[:12]]
    places = [place(image, secret) for image, secret in zip(faint, SECRETS[:12], strict=True)]
    assert max(likeness(i, s) for i, s in zip(faint, SECRETS[:12], strict=True)) < 0.3
    assert not is_chance(places)
