"""Replies that a site did not send, or not now: refused before anything in them is parsed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import toy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore.client.loop import Client
from fedcore.errors import ConfigError, UpdateRejected
from fedcore.records import ClientUpdate, TrainOrder
from fedcore.server import orders
from fedcore.server.run import open_run
from fedcore.store import envelope
from fedcore.store.exchange import Exchange
from fedcore.store.identity import endorse, roll, sign_reply
from fedcore.store.memory import MemoryStore

REPLY_KEY = "replies/north/run-1/000000.safetensors"
PUBLIC = {site: envelope.public_text(key) for site, key in toy.IDENTITIES.items()}
NORTH, EAST = toy.IDENTITIES["north"], toy.IDENTITIES["east"]


class Site:
    """North, and the order it answers; ``server`` is the exchange of one that wants signatures."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        run = toy.open_toy(self.store, toy.plan())
        self.order: TrainOrder = next(
            order for order in orders.train_orders(run, 0) if order.site == "north"
        )
        self.client = Client(
            toy.policy("north"),
            Exchange(self.store),
            toy.site_store("north"),
            partner=toy.partner("north"),
        )
        update = toy.answer(self.client, "run-1", 0)
        assert isinstance(update, ClientUpdate)
        self.update = update
        self.server = self.accepting()

    def accepting(self, *more: str, revoked: tuple[str, ...] = (), **fields: object) -> Exchange:
        listed = {**{site: [key] for site, key in PUBLIC.items()}}
        listed["north"] += more
        return Exchange(self.store, roll(listed, revoked, **fields))  # type: ignore[arg-type]

    def rejected(self, server: Exchange | None = None) -> str:
        with pytest.raises(UpdateRejected) as caught:
            (server or self.server).reply(self.order)
        return str(caught.value)


@pytest.fixture
def site() -> Site:
    return Site()


def test_signed_by_the_site_it_counts(site: Site) -> None:
    site.client.send(site.update)
    reply, size = site.server.reply(site.order)
    assert isinstance(reply, ClientUpdate)
    assert size == len(site.store.get(REPLY_KEY))


def test_unsigned_where_the_federation_lists_identities(site: Site) -> None:
    Exchange(site.store).put_reply(site.update)
    assert "site north: its reply is not signed" in site.rejected()
    assert "FEDCORE_IDENTITY" in site.rejected()


def test_unsigned_counts_where_none_is_listed(site: Site) -> None:
    Exchange(site.store).put_reply(site.update)
    others = {name: [key] for name, key in PUBLIC.items() if name != "north"}
    Exchange(site.store, roll(others)).reply(site.order)


def test_signed_by_another_sites_key(site: Site) -> None:
    site.server.put_reply(site.update, EAST)
    assert f"signed by {PUBLIC['east']}, which is no identity of it" in site.rejected()


def test_under_anothers_name_with_ones_own_signature(site: Site) -> None:
    """Somebody puts the accepted public key over a signature made with another one."""
    site.server.put_reply(site.update, EAST)
    forged = bytearray(site.store.get(REPLY_KEY))
    forged[8:40] = NORTH.public_key().public_bytes_raw()
    site.store.put(REPLY_KEY, bytes(forged))
    assert "changed after" in site.rejected()


@pytest.mark.parametrize("at", [50, 100, 140, -1], ids=["head", "signature", "header", "array"])
def test_changed_after_signing(site: Site, at: int) -> None:
    site.client.send(site.update)
    changed = bytearray(site.store.get(REPLY_KEY))
    changed[at] ^= 1
    site.store.put(REPLY_KEY, bytes(changed))
    assert "changed after" in site.rejected()


def test_cut_within_the_frame(site: Site) -> None:
    site.client.send(site.update)
    site.store.put(REPLY_KEY, site.store.get(REPLY_KEY)[:100])
    assert "not signed" in site.rejected()


def test_a_signature_for_another_purpose_is_none(site: Site) -> None:
    """An order's or a rotation's signature by the same key does not pass for a reply's."""
    site.client.send(site.update)
    blob = site.store.get(REPLY_KEY)
    sealed = envelope.seal(b"{}", NORTH)
    site.store.put(REPLY_KEY, blob[:72] + sealed[-64:] + blob[136:])
    assert "changed after" in site.rejected()


def test_replayed_from_another_order(site: Site) -> None:
    """The same place and number, but another run of that name: its nonce differs."""
    site.server.put_reply(site.update, NORTH)
    other = replace(site.order, nonce="another run")
    with pytest.raises(UpdateRejected, match="another order of this number"):
        site.server.reply(other)
    site.store.put("replies/north/run-1/000001.safetensors", site.store.get(REPLY_KEY))
    with pytest.raises(UpdateRejected, match="to another order"):
        site.server.reply(replace(site.order, seq=1))


def test_a_refusal_of_what_was_no_order_may_name_none(site: Site) -> None:
    from fedcore.records import Refusal

    site.client.send(Refusal("north", "run-1", 0, "", "the order is unsigned or malformed"))
    assert isinstance(site.server.reply(site.order)[0], Refusal)


def test_revoked(site: Site) -> None:
    new = Ed25519PrivateKey.generate()
    server = site.accepting(envelope.public_text(new), revoked=(PUBLIC["north"],))
    site.client.send(site.update)
    assert f"signed by {PUBLIC['north']}, which is revoked" in site.rejected(server)
    site.store.delete(REPLY_KEY)
    server.put_reply(site.update, new)
    server.reply(site.order)


def test_a_site_of_which_all_are_revoked_is_told_so_at_once(site: Site) -> None:
    with pytest.raises(ConfigError, match="site north: every identity"):
        site.accepting(revoked=(PUBLIC["north"],))


def test_rotation(site: Site) -> None:
    new, newest = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    chain = [endorse(new, newest.public_key()), endorse(NORTH, new.public_key())]
    site.server.put_reply(site.update, newest)
    assert "no identity of it" in site.rejected()
    site.accepting(rotations=chain).reply(site.order)


def test_a_stolen_key_endorses_nothing_once_it_is_revoked(site: Site) -> None:
    thief = Ed25519PrivateKey.generate()
    statement = endorse(NORTH, thief.public_key())
    site.server.put_reply(site.update, thief)
    good = envelope.public_text(Ed25519PrivateKey.generate())
    server = site.accepting(good, revoked=(PUBLIC["north"],), rotations=[statement])
    assert "no identity of it" in site.rejected(server)


def test_a_rotation_that_the_old_key_did_not_sign(site: Site) -> None:
    new = Ed25519PrivateKey.generate()
    old, successor, _ = endorse(NORTH, new.public_key()).split(":")
    *_, signature = endorse(new, NORTH.public_key()).split(":")
    for statement in (f"{old}:{successor}:{signature}", "nonsense", ""):
        with pytest.raises(ConfigError, match="did not sign it"):
            site.accepting(rotations=[statement])


def test_a_key_endorsed_for_one_site_is_no_other_sites(site: Site) -> None:
    server = site.accepting(rotations=[endorse(EAST, Ed25519PrivateKey.generate().public_key())])
    assert len(server.identities["east"]) == 2
    assert len(server.identities["north"]) == 1


def test_two_runs_of_one_id_are_told_apart() -> None:
    """Where the exchange was emptied, the sites' ledgers still refuse what was not asked then."""
    nonces = set()
    for _ in range(2):
        run = open_run(
            Exchange(MemoryStore()), toy.plan(), toy.SITES, "run-1", toy.KEY,
            created="", initial=lambda: toy.get_params(toy.build_model(toy.plan())),
        )  # fmt: skip
        nonces.add(run.nonce)
        (first, *_) = orders.train_orders(run, 0)
        assert first.nonce == run.nonce
        assert len(bytes.fromhex(run.nonce)) == 16
    assert len(nonces) == 2


def test_signing_says_the_same_again() -> None:
    assert sign_reply(b"x", NORTH) == sign_reply(b"x", NORTH)
