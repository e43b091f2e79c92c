"""From the environment to a client."""

from __future__ import annotations

from fedcore.client.loop import Client
from fedcore.config import policy as policies
from fedcore.settings import Keys as KeySettings
from fedcore.settings import client_settings
from fedcore.store.connect import Keys, open_store
from fedcore.store.exchange import Exchange


def connect() -> Client:
    """The client that the environment describes. Raises ConfigError that names each variable."""
    settings = client_settings()
    exchange = open_store(settings.exchange, keys=_plain(settings.exchange_keys))
    data = open_store(settings.data, keys=_plain(settings.data_keys))
    return Client(policies.load(settings.policy), Exchange(exchange), data)


def _plain(keys: KeySettings | None) -> Keys | None:
    if keys is None:
        return None
    return Keys(keys.access_key, keys.secret_key.get_secret_value())
