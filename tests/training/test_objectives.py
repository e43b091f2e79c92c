import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.training.objectives import proximal

vectors = st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3)


@settings(max_examples=50, deadline=None)
@given(vectors, vectors, st.floats(0.01, 10))
def test_value_and_gradient_are_those_of_the_formula(
    here: list[float], there: list[float], mu: float
) -> None:
    w = {"a": torch.tensor(here[:1], requires_grad=True),
         "b": torch.tensor(here[1:], requires_grad=True)}  # fmt: skip
    w_global = {"a": torch.tensor(there[:1]), "b": torch.tensor(there[1:])}
    value = proximal(mu)(w, w_global)
    value.backward()
    difference = np.subtract(here, there)
    np.testing.assert_allclose(value.item(), mu / 2 * difference @ difference, rtol=1e-5, atol=1e-6)
    gradient = torch.cat([w["a"].grad, w["b"].grad])  # type: ignore[list-item]
    np.testing.assert_allclose(gradient.numpy(), mu * difference, rtol=1e-5, atol=1e-6)
