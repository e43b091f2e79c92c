"""q-FedAvg: sites whose loss is larger pull more (Li et al. 2020, Algorithm 2,
https://arxiv.org/abs/1905.10497).

The objective is Σ_k p_k F_k^{q+1} / (q+1), with F_k the loss of site k before the round: q = 0 is
FedAvg, a large q looks at the worst site alone. With L = 1/η for the local rate η, Δ_k = −L ·
update_k and h_k = q F_k^{q−1} ‖Δ_k‖² + L F_k^q, the server goes ::

    w ← w − Σ_k p_k F_k^q Δ_k / Σ_k p_k h_k

which is a weighted mean: a site multiplies its update by ``factor``, its weight p_k by ``gain`` ::

    gain = h_k / L = F_k^q + q F_k^{q−1} ‖update_k‖² / η        factor = F_k^q / gain

>>> factor, gain = fair(loss=2.0, norm=1.0, q=1.0, learning_rate=0.5)
>>> factor, gain  # 2 / (2 + 1 / 0.5), and the denominator
(0.5, 4.0)
>>> fair(loss=2.0, norm=1.0, q=0.0, learning_rate=0.5)
(1.0, 1.0)
"""

from __future__ import annotations

_SMALLEST = 1e-10
"""Of a loss: 0 to a negative power is none."""


def fair(*, loss: float, norm: float, q: float, learning_rate: float) -> tuple[float, float]:
    """What the update is multiplied by, in (0, 1], and the weight beside p_k, above 0.

    ``loss``: of the params before the round, at least 0. ``norm``: of the update. Raises ValueError
    for a loss below 0, of which there is no power.
    """
    if loss < 0:
        raise ValueError(f"the loss is {loss}, and q-FedAvg takes powers of it; it must be >= 0")
    loss = max(loss, _SMALLEST)
    gain = loss**q + q * loss ** (q - 1) * norm**2 / learning_rate
    return loss**q / gain, gain
