"""Who trains which modules: told by the sites to each other, and not to the server.

A sum is by module, so that of a module which one site alone trained it is that site's update. So
the sites seal to each other which modules they train; a site leaves out of its vector a module that
fewer than ``FEWEST`` of those it heard of train, and helps to open no sum that could hold such a
one, because others dropped out since.

**Why that is enough.** A site sends module m only if it heard of ``FEWEST`` that train it. Who
helps to open a sum knows the survivors' holdings, or refuses. If some of them train m, but fewer
than ``FEWEST``, it refuses too; unless those it heard of and all of the roster that it heard
nothing of are fewer than ``FEWEST``, for then nobody can have sent m. **What the server could still
do**: not pass on to one site what another told it, so that the first leaves out what the second
sends. Over the complete graph of masks it gains nothing: what a site tells comes with its shares,
and without those the masks of the two do not cancel. Over a sparse graph, and with encryption
alone, the server is trusted to pass on what is said.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

from cryptography.exceptions import InvalidTag

from fedcore.errors import OrderRefused
from fedcore.privacy.secagg.messages import HOLDINGS_BYTES
from fedcore.privacy.secagg.secrets import Secrets, frame
from fedcore.privacy.secagg.shares import channel
from fedcore.privacy.secagg.terms import Terms

FEWEST = 2
"""Sites over which a module's sum is opened at least."""

_NONCE = 12

Known = Mapping[str, frozenset[str]]
"""Site → the modules that it trains."""


def seal_holdings(
    held: Collection[str], modules: Sequence[str], site: str, secrets: Secrets, terms: Terms
) -> dict[str, bytes]:
    """For each other site of the roster, which of ``modules`` this one trains.

    Raises OrderRefused for a peer's key with which no secret can be agreed, and for more modules
    than a message holds.
    """
    if len(modules) > 8 * HOLDINGS_BYTES:
        raise OrderRefused(f"the model has {len(modules)} modules, more than {8 * HOLDINGS_BYTES}")
    bits = sum(1 << place for place, name in enumerate(modules) if name in held)
    sealed = {}
    for peer in sorted(set(terms.keys) - {site}):
        nonce = os.urandom(_NONCE)
        try:
            cipher = channel(secrets, site, peer, terms)
        except ValueError as error:
            raise OrderRefused(f"the channel key of {peer} cannot be used: {error}") from None
        text = bits.to_bytes(HOLDINGS_BYTES, "little")
        sealed[peer] = nonce + cipher.encrypt(nonce, text, _ends(site, peer, terms))
    return sealed


def open_holdings(
    inbox: Mapping[str, bytes], modules: Sequence[str], site: str, secrets: Secrets, terms: Terms
) -> dict[str, frozenset[str]]:
    """By sender, the modules that it trains. Raises OrderRefused where one was altered."""
    opened = {}
    for sender, sealed in inbox.items():
        if sender not in terms.keys or sender == site:
            raise OrderRefused(f"{sender} cannot have told this site which modules it trains")
        try:
            cipher = channel(secrets, site, sender, terms)
            text = cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], _ends(sender, site, terms))
        except (InvalidTag, ValueError):
            raise OrderRefused(f"what {sender} trains cannot be opened: it was altered") from None
        bits = int.from_bytes(text, "little")
        opened[sender] = frozenset(name for n, name in enumerate(modules) if bits >> n & 1)
    return opened


def shared_by_enough(known: Known) -> frozenset[str]:
    """The modules that at least ``FEWEST`` of the sites train.

    >>> shared_by_enough({"a": frozenset({"head", "pet"}), "b": frozenset({"head"})})
    frozenset({'head'})
    """
    every = frozenset[str]().union(*known.values())
    return frozenset(m for m in every if _count(m, known, known) >= FEWEST)


def check_survivors(known: Known, survivors: Collection[str], terms: Terms) -> None:
    """Raises OrderRefused where the survivors' sum may hold a module of fewer than ``FEWEST``."""
    if strangers := set(survivors) - set(known):
        raise OrderRefused(f"{min(strangers)} survives without having told which modules it trains")
    unknown = len(set(terms.keys) - set(known))
    for module in frozenset[str]().union(*known.values()):
        among = _count(module, known, survivors)
        if 0 < among < FEWEST <= _count(module, known, known) + unknown:
            raise OrderRefused("the sum may show one site's update of a module: others dropped out")


def _count(module: str, known: Known, sites: Collection[str]) -> int:
    return sum(module in known[site] for site in sites)


def _ends(sender: str, to: str, terms: Terms) -> bytes:
    return frame("holdings", terms.digest, sender, to)
