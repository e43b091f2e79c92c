"""What sites tell of their data beside the weights: params that no gradient moves.

Each site sets them to what it found on its own training subjects, and the mean over the sites,
weighted as the other params, is then what is true of all of them together. So whatever protects or
codes an update (clipping, noise, masks, encryption) does so with these, and the server needs no
second channel. Its optimiser leaves them alone: momentum has no place in a mean.

``moments`` (1 + F, 1 + F): E[z zᵀ] of z = (1, features), see ``training.alignment``.
``groups`` (2, G): the share of each group among the subjects, and that times its mean loss.
``emphasis`` (G,): the groups' weights of group DRO. The server's own, which no site trains.

**Group DRO** (Sagawa et al. 2020, Algorithm 1, https://arxiv.org/abs/1911.08731) minimises the
largest of the groups' losses: max over q of Σ_g q_g ℓ_g, with q moved by exponentiated gradients::

    q_g ← q_g exp(η ℓ_g) / Σ_h q_h exp(η ℓ_h)

Here ℓ_g is the group's loss over all sites, once a round, of the params that the round begins
from. A subject of group g counts q_g / share_g at every site, so that the sum over the sites is
Σ_g q_g ℓ_g, whoever has which group.

>>> told = np.array([[0.75, 0.25], [0.75 * 0.5, 0.25 * 1.5]], np.float32)
>>> q = moved(np.array([0.5, 0.5], np.float32), told, step=float(np.log(3)))
>>> q, factors(q, told)
(array([0.25, 0.75], dtype=float32), array([0.33333334, 3.        ], dtype=float32))
"""

from __future__ import annotations

import numpy as np

from fedcore.params import FloatArray

MOMENTS, GROUPS, EMPHASIS = "moments", "groups", "emphasis"

MOST = 10.0
"""No subject counts more than this many times."""


def moved(emphasis: FloatArray, groups: FloatArray, step: float) -> FloatArray:
    """q after a round. A group whose loss nobody told counts as having the others' mean loss."""
    share, total = groups.astype(np.float64)
    known = share > 0
    if not known.any():
        return emphasis
    losses = np.full(len(share), total[known].sum() / share[known].sum())
    losses[known] = total[known] / share[known]
    raised = np.log(np.maximum(emphasis.astype(np.float64), 1e-12)) + step * losses
    q = np.exp(raised - raised.max())
    following: FloatArray = (q / q.sum()).astype(np.float32)
    return following


def factors(emphasis: FloatArray, groups: FloatArray) -> FloatArray:
    """How often a subject of each group counts: q / share, at most ``MOST``; 1 where no share is
    known."""
    share = np.where(groups[0] > 0, groups[0], emphasis)
    ratio: FloatArray = np.minimum(emphasis / np.maximum(share, 1e-12), MOST).astype(np.float32)
    return ratio
