"""From the environment to a client."""

from __future__ import annotations

from fedcore.client.loop import Client
from fedcore.config import policy as policies
from fedcore.settings import Keys as KeySettings
from fedcore.settings import client_settings
from fedcore.store.connect import Keys, open_store
from fedcore.store.exchange import Exchange
from fedcore.store.patient import PatientStore


def connect() -> Client:
    """The client that the environment describes. Raises ConfigError that names each variable.

    It waits for its stores from the first moment on: it may be started in the middle of an outage.
    """
    settings = client_settings()
    exchange, data = (
        PatientStore(open_store(place, keys=_plain(keys)), trusted=True)
        for place, keys in (
            (settings.exchange, settings.exchange_keys),
            (settings.data, settings.data_keys),
        )
    )
    return Client(policies.load(settings.policy), Exchange(exchange), data)


def _plain(keys: KeySettings | None) -> Keys | None:
    if keys is None:
        return None
    return Keys(keys.access_key, keys.secret_key.get_secret_value())
