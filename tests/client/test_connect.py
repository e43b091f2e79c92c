"""From the environment to a client: whose identity it signs with, and whose it accepts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toy

from fedcore.client import connect as connecting
from fedcore.config import federation as federations
from fedcore.errors import ConfigError
from fedcore.records import Refusal, TrainOrder
from fedcore.server.connect import client_environment
from fedcore.store.envelope import create_key, public_text
from fedcore.store.exchange import Exchange
from fedcore.store.filesystem import FilesystemStore
from fedcore.store.identity import roll


class Hospital:
    """A site's files, and its environment as a federation file of ``launch: process`` gives it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch
        for name in ("exchange", "data"):
            (folder / name).mkdir()
        self.identity = create_key(folder / "north.pem")
        self.public = public_text(self.identity)
        self.exchange = FilesystemStore(folder / "exchange")

    def policy(self, **fields: object) -> None:
        policy = toy.policy("north").model_dump(mode="json") | fields
        (self.folder / "policy.yaml").write_text(json.dumps(policy))

    def enter(self, **fields: object) -> None:
        site = {"data": {"folder": "data"}, "policy": "policy.yaml", "identity": "north.pem"}
        path = self.folder / "federation.yaml"
        path.write_text(json.dumps({
            "exchange": {"folder": "exchange"}, "signing_key": "server.pem",
            "sites": {"north": site | fields},
        }))  # fmt: skip
        federation = federations.load(path)
        told = client_environment(federation, "north", federation.sites["north"])
        for name, value in told.items():
            self._monkeypatch.setenv(name, value)


@pytest.fixture
def hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    return Hospital(tmp_path, monkeypatch)


def refuse(hospital: Hospital) -> None:
    """Let the client of the environment answer what is no order."""
    hospital.exchange.put("orders/north/run-1/000000.json", b"no order")
    client = connecting.connect()
    reply = toy.answer(client, "run-1", 0)
    assert isinstance(reply, Refusal)
    client.send(reply)


def test_it_signs_with_the_identity_of_its_environment(hospital: Hospital) -> None:
    hospital.policy()
    hospital.enter()
    refuse(hospital)
    order = TrainOrder("run-1", "north", 0, 0, "", "")
    wanting = Exchange(hospital.exchange, roll({"north": [hospital.public]}))
    assert isinstance(wanting.reply(order)[0], Refusal)


@pytest.mark.parametrize("identity", [None, "elsewhere.pem"])
def test_without_one_it_says_so_and_goes_on(
    hospital: Hospital, caplog: pytest.LogCaptureFixture, identity: str | None
) -> None:
    hospital.policy()
    hospital.enter(identity=identity)
    refuse(hospital)
    assert "no identity at FEDCORE_IDENTITY" in caplog.text


def test_its_own_policy_may_revoke_it(hospital: Hospital) -> None:
    hospital.policy(revoked=[hospital.public])
    hospital.enter()
    with pytest.raises(ConfigError, match="this identity is revoked"):
        connecting.connect()


def test_peers_are_checked_when_the_policy_is_read(hospital: Hospital) -> None:
    hospital.policy(peers={"east": ["no key"]})
    hospital.enter()
    with pytest.raises(ConfigError, match="'no key' is not a base64 Ed25519 key"):
        connecting.connect()
