"""Error feedback: what coding lost of an update is added to the next one.

Seide et al. 2014 (https://www.isca-archive.org/interspeech_2014/seide14_interspeech.html);
Karimireddy et al. 2019 (https://arxiv.org/abs/1901.09847), Algorithm 2. What was sent over all
rounds and what is left add up to the updates, so that nothing is lost, only late.
"""

from __future__ import annotations

from fedcore.params import FloatArray, Params


def with_rest(update: Params, rest: Params) -> dict[str, FloatArray]:
    """The update and what is left over of the rounds before, of the params that it has."""
    return {name: array + rest[name] if name in rest else array for name, array in update.items()}


def rest_of(wanted: Params, sent: Params, rest: Params) -> dict[str, FloatArray]:
    """What is left over now that of ``wanted`` was ``sent``; of other params, what was left."""
    return {**rest, **{name: wanted[name] - sent[name] for name in wanted}}
