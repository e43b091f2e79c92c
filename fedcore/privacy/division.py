"""An update in parts: which of its values travel encrypted, which behind masks, which plain.

The vector is the one of ``fixed_point.flatten``: weight · update for all params in name order, then
the weights by module. Sites and server derive the same division from the plan and the roster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import ConfigError
from fedcore.params import Params, module_of, modules
from fedcore.privacy import fixed_point, noise_shares
from fedcore.privacy.fixed_point import Grid, Values, Words

if TYPE_CHECKING:  # TenSEAL is there only where a plan encrypts
    from fedcore.privacy.ckks import Parameters

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Parts:
    """What of a vector, or of a sum of vectors, travels how. None: nothing travels so.

    ``masked``: words of the grid. ``encrypted``: float64 in [−bound, bound], before encryption.
    ``plain``: float32 (of a sum: float64).
    """

    masked: Words | None = None
    encrypted: Values | None = None
    plain: NDArray[np.floating[Any]] | None = None


@dataclass(frozen=True)
class Division:
    """``selection``: what is encrypted, as a mask over the vector; None: nothing is.

    ``grid`` is that of the masked part, None if there is none.
    """

    bound: float
    grid: Grid | None = None
    parameters: Parameters | None = None
    selection: Mask | None = None

    @property
    def encrypted(self) -> int:
        """How many values are encrypted."""
        return 0 if self.selection is None else int(self.selection.sum())

    def divide(
        self,
        update: Params,
        weights: Mapping[str, float],
        like: Params,
        key: bytes,
        noise_key: bytes | None = None,
    ) -> Parts:
        """The parts of one site's update. ``key``: for the rounding of the masked part;
        ``noise_key``: for this site's share of the noise, where the grid has some.

        Raises ValueError as ``fixed_point.flatten`` does, and without a key for the noise.
        """
        words = None
        if self.grid is not None:
            words = fixed_point.flatten(update, weights, like, self.grid, key)
            if self.grid.noise:
                if noise_key is None:
                    raise ValueError("this site's share of the noise has no key")
                # On every param, those that this site did not train among them; not on the weights.
                params = words[: words.size - len(modules(like))]
                noise_shares.add(params, self.grid.noise, noise_key)
        if self.selection is None:
            return Parts(masked=words)
        from fedcore.privacy import ckks

        vector = _flatten(update, weights, like, self.bound)
        secret, rest = ckks.split(vector, self.selection)
        if words is not None:
            return Parts(masked=words[~self.selection], encrypted=secret)
        return Parts(encrypted=secret, plain=rest.astype(np.float32) if rest.size else None)

    def combine(self, total: Parts, like: Params) -> tuple[dict[str, Values], dict[str, float]]:
        """A sum's parts → (sums by name, weights by module), without what nobody trained.

        Raises ValueError for parts of other lengths.
        """
        if self.selection is None or self.parameters is None or total.encrypted is None:
            if self.grid is None or total.masked is None:
                raise ValueError("a sum without its masked part")
            return fixed_point.unflatten(total.masked, like, self.grid)
        from fedcore.privacy import ckks

        rest: Values = np.zeros(0)
        if self.grid is not None and total.masked is not None:
            rest = fixed_point.decode(total.masked, self.grid)
        elif total.plain is not None:
            rest = np.asarray(total.plain, np.float64)
        vector = ckks.join(total.encrypted, rest, self.selection)
        error = ckks.error_bound(self.parameters, self.parameters.summands)
        return _unflatten(vector, like, self.bound, error)


def division(
    like: Params,
    *,
    mode: str,
    bound: float,
    sites: int,
    bits: int,
    encrypt: Sequence[str] = ("*",),
    share: float = 1.0,
    rest: str = "masked",
    change: Params | None = None,
    noise_multiplier: float = 0.0,
    threshold: int | None = None,
) -> Division:
    """The division for a round among ``sites``, by the fields of a plan's secure_aggregation.

    ``bound``: of a site's value, the clip norm. ``change``: of the global params in the round
    before; the share that changed most is taken for the most revealing (``ckks.select``).
    ``noise_multiplier``: of noise that the sites add behind the masks, enough of it over any
    ``threshold`` sites. Raises ConfigError or ValueError where bits or patterns do not fit, and
    ConfigError where TenSEAL is not installed and has to encrypt.
    """
    grid = fixed_point.grid(bits, bound, sites)
    if noise_multiplier > 0 and threshold is not None:
        share = _share_of_noise(like, grid, noise_multiplier, threshold)
        grid = fixed_point.grid(bits, bound, sites, noise=share)
    if mode == "masks":
        return Division(bound, grid)
    try:
        from fedcore.privacy import ckks
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"secure_aggregation: mode: ckks needs {error.name}, which is not installed here; "
            "install fedcore[ckks], or use mode: masks"
        ) from error
    chosen = ckks.select(like, encrypt, share, change)
    selection = ckks.flat(chosen, len(modules(like)))
    behind_masks = rest == "masked" and not selection.all()
    parameters = ckks.fitting(bound, sites, bits)
    return Division(bound, grid if behind_masks else None, parameters, selection)


def _share_of_noise(like: Params, grid: Grid, noise_multiplier: float, threshold: int) -> int:
    """The standard deviation of one site's share, in units of the grid. Raises ConfigError."""
    dimension = sum(array.size for array in like.values())
    unit = noise_shares.sensitivity(grid.largest, dimension)
    share = noise_shares.stddev(noise_multiplier, unit, threshold)
    if noise_shares.excess(share, threshold, dimension) > noise_shares.NEGLIGIBLE:
        raise ConfigError(
            f"secure_aggregation: {grid.bits} bits are too coarse for noise_by: sites, whose noise "
            "would be counted as finer than it is; set bits higher"
        )
    return share


def whole_numbers(largest: int, sites: int) -> Division:
    """For vectors of whole numbers in [0, ``largest``]: all of it behind masks, and exact.

    Raises ValueError where no word holds their sum over the ``sites``.
    """
    bits = largest.bit_length() + 1
    bound = float((1 << (bits - 1)) - 1)  # so that the grid's step is 1
    return Division(bound, fixed_point.grid(bits, bound, sites))


def _flatten(update: Params, weights: Mapping[str, float], like: Params, bound: float) -> Values:
    """The vector in float64; weights, which lie in [0, 1], are brought to the bound."""
    vector, begin = np.zeros(fixed_point.length(like)), 0
    for name in sorted(like):
        end = begin + like[name].size
        if name in update:
            factor = weights[module_of(name)]
            np.multiply(update[name].reshape(-1), factor, out=vector[begin:end], dtype=np.float64)
        begin = end
    vector[begin:] = [weights.get(module, 0.0) * bound for module in modules(like)]
    return vector


def _unflatten(
    vector: Values, like: Params, bound: float, error: float
) -> tuple[dict[str, Values], dict[str, float]]:
    """The inverse; a weight within twice the ``error`` of 0 is that of a module nobody trained."""
    named = modules(like)
    told = dict(zip(named, vector[vector.size - len(named) :] / bound, strict=True))
    weights = {module: float(w) for module, w in told.items() if w * bound > 2 * error}
    sums, begin = {}, 0
    for name in sorted(like):
        end = begin + like[name].size
        if module_of(name) in weights:
            sums[name] = vector[begin:end].reshape(like[name].shape)
        begin = end
    return sums, weights
