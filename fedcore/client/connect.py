"""From the environment to a client."""

from __future__ import annotations

import logging
from pathlib import Path

from fedcore.client.loop import Client
from fedcore.client.secure import Partner
from fedcore.config import policy as policies
from fedcore.config.policy import Policy
from fedcore.errors import ConfigError
from fedcore.settings import client_settings
from fedcore.store.connect import keys_of, open_store
from fedcore.store.envelope import load_key
from fedcore.store.exchange import Exchange
from fedcore.store.identity import roll
from fedcore.store.patient import PatientStore

log = logging.getLogger("fedcore.client")


def connect() -> Client:
    """The client that the environment describes. Raises ConfigError that names each variable.

    It waits for its stores from the first moment on: it may be started in the middle of an outage.
    """
    settings = client_settings()
    exchange, data = (
        PatientStore(open_store(place, keys=keys_of(keys)), trusted=True)
        for place, keys in (
            (settings.exchange, settings.exchange_keys),
            (settings.data, settings.data_keys),
        )
    )
    policy = policies.load(settings.policy)
    partner = _partner(policy, settings.identity)
    return Client(policy, Exchange(exchange), data, partner=partner, drill=settings.drill)


def _partner(policy: Policy, path: Path | None) -> Partner | None:
    """The site's identity and its peers'. None where there is no key: nothing is signed then."""
    peers = roll(policy.peers, policy.revoked, policy.rotations)
    if path is None or not path.exists():
        # A Job's Secret need not hold one, so this is no error where nobody asks for a signature.
        log.warning("no identity at FEDCORE_IDENTITY (%s): replies are not signed", path)
        return None
    identity = load_key(path)
    public = identity.public_key()
    if public.public_bytes_raw() in peers.revoked:
        raise ConfigError(
            f"{path}: the policy says that this identity is revoked; make another with `fedcore "
            "keys create`"
        )
    return Partner(identity, {**peers.accepted, policy.site: [public]})
