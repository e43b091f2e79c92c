"""From the environment to a client."""

from __future__ import annotations

from fedcore.client.loop import Client
from fedcore.config import policy as policies
from fedcore.settings import client_settings
from fedcore.store.connect import keys_of, open_store
from fedcore.store.exchange import Exchange
from fedcore.store.patient import PatientStore


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
    return Client(policies.load(settings.policy), Exchange(exchange), data)
