"""A site's part of the protocol (Bonawitz et al. 2017, Figure 4), one function a message.

A site answers each of these **once** per secrets, with one content: the caller's ledger sees to
that. What the server says is checked, and refused with OrderRefused where no honest server says it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedcore.errors import OrderRefused
from fedcore.privacy.secagg import masks, shares, signing
from fedcore.privacy.secagg.masks import Words
from fedcore.privacy.secagg.messages import Revealed, SiteKeys
from fedcore.privacy.secagg.secrets import Secrets, commitment, public
from fedcore.privacy.secagg.terms import Terms, agree

Identities = Mapping[str, Sequence[Ed25519PublicKey]]
"""Site → the public identities accepted for it. Revoked ones are not among them."""


def advertise_keys(
    site: str, secrets: Secrets, identity: Ed25519PrivateKey, context: bytes
) -> SiteKeys:
    """Round 0: the public keys, signed."""
    return signing.sign_keys(_public_keys(site, secrets, context), identity, context)


def check_roster(
    roster: Sequence[SiteKeys],
    site: str,
    secrets: Secrets,
    identities: Identities,
    context: bytes,
    threshold: int,
    neighbours: int | None = None,
) -> Terms:
    """The terms of the round, if the roster is one that this site may share its secrets with.

    Raises OrderRefused if a key is not signed by an accepted identity of its site, a site is there
    twice, own keys are absent or altered, fewer than ``threshold`` sites take part or the threshold
    is not more than half of them.
    """
    if len(roster) < threshold:
        raise OrderRefused(f"the roster has {len(roster)} sites, fewer than the {threshold} needed")
    for keys in roster:
        if not signing.keys_signed(keys, identities.get(keys.site, ()), context):
            raise OrderRefused(
                f"the keys of {keys.site} are not signed by an identity accepted for it; if the "
                "site has a new identity, add it to the policy's peers"
            )
    mine = _public_keys(site, secrets, context)
    own = [replace(keys, signature=b"") for keys in roster if keys.site == site]
    if not own or any(keys != mine for keys in own):
        raise OrderRefused(f"the roster does not hold the keys that {site} advertised")
    try:
        return agree(roster, context, threshold, neighbours)
    except ValueError as error:
        raise OrderRefused(f"the roster is refused: {error}") from None


def share_keys(site: str, secrets: Secrets, terms: Terms) -> dict[str, bytes]:
    """Round 1: for each neighbour **and for the site itself** its shares of both secrets, sealed.

    The own share returns with the others in the inbox: the server passes it on like any other.
    Fresh randomness: keep the result, and send no other. Raises OrderRefused for a peer's key with
    which no secret can be agreed.
    """
    mask_shares = shares.split(secrets.mask_secret, site, terms)
    self_shares = shares.split(secrets.self_secret, site, terms)
    sealed = {}
    for peer in terms.graph.holders(site):
        try:
            sealed[peer] = shares.seal(
                mask_shares[peer], self_shares[peer], site, peer, secrets, terms
            )
        except ValueError as error:
            raise OrderRefused(f"the channel key of {peer} cannot be used: {error}") from None
    return sealed


def check_inbox(site: str, secrets: Secrets, inbox: Mapping[str, bytes], terms: Terms) -> None:
    """Whether the shares that came for this site are what their senders sealed for it.

    ``inbox``: ciphertexts by sender. Raises OrderRefused naming the sender whose shares were
    altered, the own ones missing, or shares of fewer than the neighbourhood's threshold.
    """
    _opened(site, secrets, inbox, inbox, terms)


def masked_input(
    vector: Words,
    site: str,
    secrets: Secrets,
    senders: Collection[str],
    terms: Terms,
    on_step: Callable[[], None] | None = None,
) -> Words:
    """Round 2: the vector behind its masks, in place: Σ ± pair masks + self mask, modulo 2^word.

    ``senders`` (U2): whose shares came; only neighbours among them count. Raises OrderRefused for
    fewer than the neighbourhood's threshold, this site included.
    """
    peers = sorted(set(senders) & terms.graph.of(site))
    _enough([*peers, site], terms.graph.threshold, "shared keys with this site")
    pairs = []
    for peer in peers:
        try:
            pairs.append(masks.pair_mask(secrets.mask, site, peer, terms))
        except ValueError as error:
            raise OrderRefused(f"the mask key of {peer} cannot be used: {error}") from None
    masks.add(vector, [*pairs, masks.self_mask(secrets.self_secret, site, terms)], on_step)
    return vector


def check_consistency(
    identity: Ed25519PrivateKey, survivors: Collection[str], terms: Terms
) -> bytes:
    """Round 3: a signature over the survivors (and, by the terms, the roster)."""
    return signing.sign_survivors(survivors, identity, terms)


def check_signatures(
    survivors: Collection[str],
    signatures: Mapping[str, bytes],
    identities: Identities,
    terms: Terms,
) -> None:
    """Round 4, before anything is revealed: at least ``threshold`` survivors signed these same
    survivors under these same terms.

    With a threshold t above half of the honest sites no two sets can get that far (t > n/2, all
    honest; with c sites on the server's side, t > (n + c)/2). Raises OrderRefused.
    """
    for signer, signature in sorted(signatures.items()):
        if signer not in survivors:
            raise OrderRefused(f"{signer} signed, but is not among the survivors")
        accepted = identities.get(signer, ())
        if not signing.survivors_signed(survivors, signature, accepted, terms):
            raise OrderRefused(f"{signer} did not sign these survivors: the server equivocates")
    _enough(list(signatures), terms.threshold, "signed the survivors")


def unmask(
    site: str,
    secrets: Secrets,
    inbox: Mapping[str, bytes],
    senders: Collection[str],
    survivors: Collection[str],
    terms: Terms,
) -> Revealed:
    """Round 4: a share of each surviving neighbour's self-mask secret, and of each dropped one's
    mask secret; of no site both.

    Call ``check_signatures`` first. Raises OrderRefused if a survivor is no sender, this site is
    no survivor, fewer than the threshold survive, or shares were altered.
    """
    if strangers := set(survivors) - set(senders):
        raise OrderRefused(f"{min(strangers)} survives without having shared keys")
    if unknown := set(senders) - set(terms.keys):
        raise OrderRefused(f"{min(unknown)} shared keys without being in the roster")
    if site not in survivors:
        raise OrderRefused(f"{site} is not among the survivors: nothing of its sum is revealed")
    _enough(survivors, terms.threshold, "survive")
    near = set(terms.graph.holders(site))
    _enough(near & set(survivors), terms.graph.threshold, "survive near this site")
    opened = _opened(site, secrets, inbox, near & set(senders), terms)
    return Revealed(
        self_shares={peer: both[1] for peer, both in opened.items() if peer in survivors},
        mask_shares={peer: both[0] for peer, both in opened.items() if peer not in survivors},
    )


def _public_keys(site: str, secrets: Secrets, context: bytes) -> SiteKeys:
    """What the site advertises, not signed yet."""
    committed = commitment(secrets.self_secret, site, context)
    return SiteKeys(site, public(secrets.channel), public(secrets.mask), committed, signature=b"")


def _opened(
    site: str, secrets: Secrets, inbox: Mapping[str, bytes], senders: Collection[str], terms: Terms
) -> dict[str, tuple[bytes, bytes]]:
    """(mask share, self share) by sender."""
    near = set(terms.graph.holders(site))
    if site not in inbox:
        raise OrderRefused(f"the shares that {site} sealed for itself are not in its inbox")
    opened = {}
    for sender in sorted(senders):
        if sender not in near or sender not in inbox:
            raise OrderRefused(f"shares of {sender}: none came, or {site} is not to hold any")
        try:
            opened[sender] = shares.unseal(inbox[sender], sender, site, secrets, terms)
        except ValueError as error:
            raise OrderRefused(f"the shares of {sender} cannot be opened: {error}") from None
    _enough(opened, terms.graph.threshold, "shared keys with this site")
    return opened


def _enough(sites: Collection[str], wanted: int, what: str) -> None:
    if len(sites) < wanted:
        raise OrderRefused(
            f"{len(sites)} sites {what}, and {wanted} are needed: no honest server goes on then"
        )
