"""The params that a run begins with: the plan's own, and what it takes from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedcore import params as flat
from fedcore.config.plan import Plan
from fedcore.errors import BlobError, ConfigError
from fedcore.models.initial import build_model
from fedcore.params import Params
from fedcore.store import blobs
from fedcore.training.state import get_params


def initial_params(plan: Plan) -> Params:
    """Those of the model under the plan's seed, with ``training.start`` in their place.

    Raises ConfigError where the file is not there, is not what the digest says, or holds other
    params than the plan takes from it.
    """
    own, start = get_params(build_model(plan)), plan.training.start
    if start is None:
        return own
    where = f"training: start: {start.file}"
    try:
        given, _ = blobs.unpack(Path(start.file).read_bytes())
    except (OSError, BlobError) as error:
        raise ConfigError(f"{where} cannot be read: {error}") from error
    wanted = {name for name in own if start.takes(name)}
    if set(given) != wanted:
        name = min(set(given) ^ wanted)
        what = "lacks" if name in wanted else "also holds"
        raise ConfigError(f"{where} {what} {name!r}; correct start.params, or import it anew")
    problem = flat.problem_with({n: given.get(n, own[n]) for n in own}, own)
    if problem is not None:
        raise ConfigError(f"{where} {problem}; it belongs to another model")
    local = sorted(name for name in wanted if plan.training.stays(name))
    if local:
        raise ConfigError(f"{where} holds {local[0]!r}, which stays at the sites (training.local)")
    if not all(np.isfinite(array).all() for array in given.values()):
        raise ConfigError(f"{where} holds a NaN or an infinity")
    if flat.digest(given) != start.digest:
        raise ConfigError(f"{where} has the digest {flat.digest(given)}, and the plan another")
    return {**own, **given}
