import stat
from pathlib import Path

import pytest

from fedcore.errors import ConfigError
from fedcore.local.credentials import identities, keep


def test_credentials_are_kept_and_added_to(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    first = keep(path, ["north"])
    second = keep(path, ["south", "north"])
    assert {name: second[name] for name in first} == first
    assert keep(path, ["south"])["south"] == second["south"]
    secrets = [keys.secret_key for keys in second.values()]
    assert len(set(secrets)) == 4
    assert min(map(len, secrets)) >= 40


def test_only_the_owner_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.touch(0o644)
    path.write_text("{}")
    keep(path, ["north"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["admin", "server"])
def test_a_site_cannot_take_the_servers_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        keep(tmp_path / "credentials.json", ["north", name])


def test_a_site_is_granted_its_own_and_no_more(tmp_path: Path) -> None:
    made = identities(keep(tmp_path / "credentials.json", ["north"]))["identities"]
    actions = {identity["name"]: identity["actions"] for identity in made}
    assert actions["north"] == [
        "Read:fedcore-site-north",
        "Write:fedcore-site-north",
        "List:fedcore-site-north",
        "Read:fedcore-exchange/params/*",
        "Read:fedcore-exchange/orders/north/*",
        "Read:fedcore-exchange/replies/north/*",
        "Write:fedcore-exchange/replies/north/*",
    ]
    assert all(action.endswith(":fedcore-exchange") for action in actions["server"])
