"""The watch of hosts: who is lost, how soon it is known, and that everybody hears of it."""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from fae_jax.parallel import host_watch
from fae_jax.parallel.host_watch import HostWatch

NAMES = ["alpha", "beta", "gamma"]


class Hosts:
    """Three hosts in this process; `ended` holds (host, message) as the watch would end them."""

    def __init__(self, limit: float):
        self.ended: queue.Queue[tuple[int, str]] = queue.Queue()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.watches = [self._make(0, limit, server=self.server)]
        self.watches += [self._make(number, limit) for number in (1, 2)]

    def _make(self, number: int, limit: float, **options: object) -> HostWatch:
        def end(message: str) -> None:
            self.ended.put((number, message))

        where = {"addresses": ["256.0.0.1", "127.0.0.1"], "port": self.server.getsockname()[1]}
        return HostWatch(number=number, names=NAMES, limit=limit, token="t", end=end, **where, **options)

    def kill(self, number: int) -> None:
        """Closes its connections, as the kernel does."""
        for peer in list(self.watches[number]._peers.values()):
            with contextlib.suppress(OSError):
                peer.connection.shutdown(socket.SHUT_RDWR)

    def heard(self, count: int, timeout: float) -> dict[int, str]:
        return dict(self.ended.get(timeout=timeout) for _ in range(count))


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    monkeypatch.setattr(host_watch, "PATIENCE", 0.2)
    made = Hosts(limit=1.5)
    deadline = time.monotonic() + 5
    while len(made.watches[0]._peers) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    yield made
    for watch in made.watches:
        watch._leaving, watch.lost = True, "over"  # ends its thread
    for watch in made.watches:
        watch._thread.join()
        watch._selector.close()
        for peer in watch._peers.values():
            peer.connection.close()
    made.server.close()


def test_a_killed_host_is_known_at_once_by_all(hosts: Hosts):
    begun = time.monotonic()
    hosts.watches[2]._leaving = True  # it ends without telling itself so
    hosts.kill(2)
    told = hosts.heard(2, timeout=4)
    assert time.monotonic() - begun < 4
    assert set(told) == {0, 1} and len(set(told.values())) == 1
    assert told[1].startswith("host 2 of 3 (gamma) is gone: its process ended without a message; the run ends on all")


def test_the_first_host_is_missed_too(hosts: Hosts):
    hosts.watches[0]._leaving = True
    hosts.kill(0)
    told = hosts.heard(2, timeout=4)
    assert set(told) == {1, 2} and all(message.startswith("host 0 of 3 (alpha) is gone") for message in told.values())


def test_a_host_that_goes_quiet_is_lost_after_the_limit(hosts: Hosts, monkeypatch: pytest.MonkeyPatch):
    quiet = hosts.watches[1]
    whole = host_watch._send

    def send(connection: socket.socket, **message: object) -> None:
        if message.get("alive") != 1:
            whole(connection, **message)

    monkeypatch.setattr(host_watch, "_send", send)
    quiet._leaving = True
    begun = time.monotonic()
    told = hosts.heard(2, timeout=6)
    assert 1.0 < time.monotonic() - begun < 6
    assert told[0].startswith("host 1 of 3 (beta) has sent nothing for 2 s") and told[2] == told[0]


def test_a_host_that_fails_gives_its_reason_and_one_that_is_done_is_not_missed(hosts: Hosts):
    hosts.watches[1].leave()
    time.sleep(0.1)
    hosts.kill(1)
    with pytest.raises(queue.Empty):
        hosts.ended.get(timeout=0.5)
    hosts.watches[2].leave("the images are gone")
    assert hosts.heard(1, timeout=3)[0].startswith("host 2 of 3 (gamma) failed: the images are gone;")
    with pytest.raises(queue.Empty):
        hosts.ended.get(timeout=0.3)  # neither the one that left nor the one that failed ends a second time


def test_strangers_are_not_let_in(hosts: Hosts):
    port = hosts.server.getsockname()[1]
    with pytest.raises(ConnectionError, match=r"host 0 \(alpha\) cannot be reached at 127.0.0.1"):
        HostWatch(number=1, names=NAMES, limit=1.5, token="guess", addresses=["127.0.0.1"], port=port)
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        time.sleep(0.2)
    assert hosts.watches[0].lost is None and threading.active_count() >= 3


def test_a_host_that_never_comes_is_named():
    server = socket.create_server(("127.0.0.1", 0))
    told: queue.Queue[str] = queue.Queue()

    watch = HostWatch(number=0, names=NAMES, limit=0.5, token="t", server=server, end=told.put)
    assert told.get(timeout=3).startswith("host 1 of 3 (beta) did not reach host 0 in 0 s")
    watch._thread.join()
    watch._selector.close()
    server.close()
