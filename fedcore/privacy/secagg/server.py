"""The server's part: check what the sites say, and take the masks off the sum."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedcore.errors import QuorumNotReached, UpdateRejected
from fedcore.privacy.secagg import masks, shares, signing
from fedcore.privacy.secagg.masks import Mask, Words
from fedcore.privacy.secagg.messages import Revealed, SiteKeys
from fedcore.privacy.secagg.secrets import commitment, mask_key, public
from fedcore.privacy.secagg.terms import Terms


def check_keys(
    keys: SiteKeys, site: str, accepted: Sequence[Ed25519PublicKey], context: bytes
) -> SiteKeys:
    """The keys, if ``site`` advertised them: the other sites would refuse a roster with others.

    Raises UpdateRejected.
    """
    if keys.site != site:
        raise UpdateRejected(f"{site} sent keys of {keys.site}")
    if not signing.keys_signed(keys, accepted, context):
        raise UpdateRejected(f"the keys of {site} are not signed by an identity accepted for it")
    return keys


def check_signature(
    signature: bytes,
    site: str,
    survivors: Collection[str],
    accepted: Sequence[Ed25519PublicKey],
    terms: Terms,
) -> bytes:
    """The signature, if it is this site's over the survivors. Raises UpdateRejected."""
    if not signing.survivors_signed(survivors, signature, accepted, terms):
        raise UpdateRejected(f"{site} did not sign the survivors that it was told")
    return signature


def shortage(
    senders: Collection[str], survivors: Collection[str], remaining: Collection[str], terms: Terms
) -> str | None:
    """Why the sum over ``survivors`` could not be unmasked by the sites ``remaining``, or None.

    For the server, before it asks: when the masked inputs are in, ``remaining`` are the survivors.
    """
    if len(remaining) < terms.threshold:
        return f"{len(remaining)} sites remain, and {terms.threshold} are needed"
    present = set(remaining)
    short = [
        owner
        for owner in _to_open(senders, survivors, terms)
        if len(present.intersection(terms.graph.holders(owner))) < terms.graph.threshold
    ]
    if not short:
        return None
    return f"too few sites hold shares of the secrets of {', '.join(short)}"


def unmask_sum(
    total: Words,
    senders: Collection[str],
    survivors: Collection[str],
    revealed: Mapping[str, Revealed],
    terms: Terms,
    on_step: Callable[[], None] | None = None,
) -> Words:
    """The plain sum: ``total``, Σ masked inputs of the survivors, in place without its masks.

    ``revealed``: by the site that sent it. The survivors' self masks go, and what the survivors
    added for senders that dropped out. A secret is recognised by what its site advertised, so wrong
    shares are found, and passed over while the right ones suffice. ``total`` changes only when all
    secrets are there. Raises QuorumNotReached naming whose secret has too few shares, and
    UpdateRejected naming whose shares do not fit.
    """
    if len(revealed) < terms.threshold:
        raise QuorumNotReached(
            f"{len(revealed)} sites revealed shares, and {terms.threshold} are needed"
        )
    masks_to_remove = [
        mask
        for owner in _to_open(senders, survivors, terms)
        for mask in _masks_of(owner, survivors, revealed, terms)
    ]
    masks.add(total, [masks.opposite(mask) for mask in masks_to_remove], on_step)
    return total


def _to_open(senders: Collection[str], survivors: Collection[str], terms: Terms) -> list[str]:
    """Whose secret is needed: a survivor's, and a dropped sender's to whom a survivor is near."""
    present = set(survivors)
    return sorted(s for s in senders if s in present or terms.graph.of(s) & present)


def _masks_of(
    owner: str, survivors: Collection[str], revealed: Mapping[str, Revealed], terms: Terms
) -> list[Mask]:
    """The masks in the sum that the owner's revealed secret gives."""
    if owner in survivors:
        told = {holder: said.self_shares.get(owner) for holder, said in revealed.items()}
        committed = terms.keys[owner].self_commitment
        secret = _opened(
            told, owner, terms, lambda s: commitment(s, owner, terms.context) == committed
        )
        return [masks.self_mask(secret, owner, terms)]
    told = {holder: said.mask_shares.get(owner) for holder, said in revealed.items()}
    advertised = terms.keys[owner].mask_key
    secret = _opened(told, owner, terms, lambda s: public(mask_key(s, terms.context)) == advertised)
    private = mask_key(secret, terms.context)
    near = sorted(terms.graph.of(owner) & set(survivors))
    # The survivors hold the other ends of these pairs, so their signs are the opposite ones.
    return [masks.opposite(masks.pair_mask(private, owner, peer, terms)) for peer in near]


def _opened(
    told: Mapping[str, bytes | None], owner: str, terms: Terms, right: Callable[[bytes], bool]
) -> bytes:
    """The owner's secret from what its holders told."""
    holders = set(terms.graph.holders(owner))
    usable = {h: share for h, share in told.items() if share is not None and h in holders}
    if len(usable) < terms.graph.threshold:
        raise QuorumNotReached(
            f"the secret of {owner} needs {terms.graph.threshold} shares, and {len(usable)} of its "
            "holders revealed one; the round can be begun anew"
        )
    secret = shares.reconstruct(usable, owner, terms, right)
    if secret is None:
        raise UpdateRejected(
            f"the shares of the secret of {owner} do not fit what it advertised: {owner} shared "
            f"wrong ones, or one of {', '.join(sorted(usable))} altered its own"
        )
    return secret
