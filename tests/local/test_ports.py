import socket

from fedcore.local.ports import LOOPBACK, choose, is_free


def test_chosen_ports_are_distinct_and_free() -> None:
    chosen = choose(20)
    assert len(set(chosen)) == 20
    assert all(map(is_free, chosen))


def test_chosen_ports_are_not_lent_to_outgoing_connections() -> None:
    assert max(choose(200)) < 32768


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        assert not is_free(server.getsockname()[1])
