"""Clipping: one site's update is scaled down, as a whole, to an L2 norm of at most ``clip_norm``.

The norm is over all modules together ("flat clipping" of DP-FedAvg, McMahan et al. 2018,
https://arxiv.org/abs/1710.06963), so it bounds the whole contribution of the site.

>>> import numpy as np
>>> norm = l2_norm({"a": np.array([3.0], np.float32), "b": np.array([4.0], np.float32)})
>>> norm, factor(norm, clip_norm=1.0), factor(norm, clip_norm=10.0)
(5.0, 0.2, 1.0)
"""

from __future__ import annotations

import math

import numpy as np

from fedcore.params import BLOCK, Params, blocks


def l2_norm(update: Params) -> float:
    """The L2 norm of all values together, in float64. Of float32 arrays it is **finite if and
    only if every value is**: this is the check for NaN and infinities, and costs no second pass.

    Squares are summed pairwise within blocks and blocks in name order (no BLAS): the same bits
    for the same update on any machine.
    """
    squares = np.empty(BLOCK)
    total = 0.0
    with np.errstate(invalid="ignore"):  # a NaN is the answer here, not a surprise
        for name in sorted(update):
            for block in blocks(update[name]):
                values = squares[: block.size]
                values[:] = block
                values *= values
                total += float(np.add.reduce(values))
    return math.sqrt(total)


def factor(norm: float, clip_norm: float | None) -> float:
    """min(1, clip_norm / norm): what to scale an update of this norm with. None does not clip.

    Raises ValueError for a norm that is not finite: such an update has no place in a sum.
    """
    if not math.isfinite(norm):
        raise ValueError(f"the norm is {norm}: the update holds a NaN or an infinity")
    return 1.0 if clip_norm is None or norm <= clip_norm else clip_norm / norm


def adapted(
    clip_norm: float, within: float, count: int, *, quantile: float, learning_rate: float
) -> float:
    """The clip norm of the next round: C · exp(−η (b − γ)), with b the share of updates within C.

    γ is the ``quantile`` of update norms that C comes to, η the ``learning_rate`` (Andrew et al.
    2021, https://arxiv.org/abs/1905.03871, eq. 2). ``within``: how many of ``count`` are,
    with noise.

    >>> adapted(1.0, within=4, count=4, quantile=0.5, learning_rate=0.2)  # all of them: too large
    0.9048374180359595
    >>> adapted(1.0, within=2, count=4, quantile=0.5, learning_rate=0.2)
    1.0
    """
    return clip_norm * math.exp(-learning_rate * (within / count - quantile))


COUNT_SENSITIVITY = 0.5
"""By how much one site moves the count of updates within the norm, counted as ±½ from half of the
sites: a site that is replaced by zeros adds 0 (Andrew et al. 2021, section 2.2)."""
