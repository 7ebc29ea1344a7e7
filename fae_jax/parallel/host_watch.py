"""A run of several hosts ends on all of them when one is gone, and says which, instead of waiting for it.

Every host keeps a connection to host 0 and a word goes both ways every few seconds. Host i is lost

    at once                  when its connection breaks, as it does when its process is killed
    after `limit` seconds    without a word, as when its machine or network is gone
    when it says so          with its own reason, when it failed

and host 0 passes that on. A lost host leaves the others inside a collective, where no exception reaches them, so the
watch ends their processes itself. JAX's own heartbeats stay behind it as a backstop.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence

import jax

from fae_jax.files.progress import say
from fae_jax.parallel.ending import end_now, on_ending
from fae_jax.parallel.hosts import gather_text

PATIENCE = 3.0  # seconds a host gets to fail by itself, when another one has


def _addresses() -> list[str]:
    """Where this machine may be reached, likeliest first; which of them works is tried."""
    addresses = [socket.gethostname()]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: asks which address the default route leaves by
        addresses.append(probe.getsockname()[0])
    return [*addresses, "127.0.0.1"]


def _send(connection: socket.socket, **message: object) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(message).encode() + b"\n")


class _Peer:
    """One connection: who is at the other end, and when it was last heard."""

    def __init__(self, connection: socket.socket, number: int = -1):
        self.connection, self.number = connection, number
        self.heard, self.left, self._buffer = time.monotonic(), False, b""

    def read(self) -> list[dict] | None:
        """Messages that have come; None when the connection is broken."""
        try:
            data = self.connection.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        self.heard = time.monotonic()
        *whole, self._buffer = (self._buffer + data).split(b"\n")
        messages = []
        for line in whole:
            with contextlib.suppress(ValueError):
                messages.append(json.loads(line))
        return messages


class HostWatch:
    """This host's part of the watch, in a thread of its own.

    Args:
      number: this host's number.
      names: all hosts' names, by number.
      limit: seconds without a word after which a host is lost.
      token: that hosts of this run know, and nobody else.
      server: host 0's listening socket; None on the others.
      addresses, port: where it listens.
      end: called with the message when a host is lost; does not return in a run.
    """

    def __init__(
        self,
        *,
        number: int,
        names: list[str],
        limit: float,
        token: str,
        server: socket.socket | None = None,
        addresses: Sequence[str] = (),
        port: int = 0,
        end: Callable[[str], object] = end_now,
    ):
        self._number, self._names, self._limit, self._token, self._end = number, names, limit, token, end
        self._selector, self._peers = selectors.DefaultSelector(), dict[int, _Peer]()
        self._leaving = False
        self.lost: str | None = None  # the message about the host that is lost, once one is
        self._server = server
        self._begun = self._beaten = time.monotonic()
        if server is not None:
            server.setblocking(False)
            self._selector.register(server, selectors.EVENT_READ, None)
        else:
            self._add(_Peer(self._connect(addresses, port), 0))
        self._thread = threading.Thread(target=self._run, name="fae-host-watch", daemon=True)
        self._thread.start()

    def leave(self, reason: str | None = None) -> None:
        """Says goodbye, so that the end of this process is no surprise; with a reason, that the run has failed."""
        if self.lost is not None:
            return  # the others know already
        self._leaving = True
        for peer in list(self._peers.values()):
            _send(peer.connection, left=self._number, reason=reason)
        if reason is not None and self._server is not None:
            self._drain()

    def _connect(self, addresses: Sequence[str], port: int) -> socket.socket:
        for address in addresses:
            with contextlib.suppress(OSError):
                connection = socket.create_connection((address, port), timeout=5)
                with contextlib.ExitStack() as unless_known:
                    unless_known.callback(connection.close)
                    _send(connection, host=self._number, token=self._token)
                    if connection.recv(1) == b"\n":  # host 0 knows the token
                        unless_known.pop_all()
                        return connection
        raise ConnectionError(f"host 0 ({self._names[0]}) cannot be reached at {', '.join(addresses)}, port {port}")

    def _add(self, peer: _Peer) -> None:
        peer.connection.setblocking(False)
        self._peers[peer.number] = peer
        self._selector.register(peer.connection, selectors.EVENT_READ, peer)

    def _run(self) -> None:
        pause = self._limit / 6
        while self.lost is None:
            for key, _ in self._selector.select(timeout=min(pause, 1.0)):
                if key.data is None:
                    self._welcome()
                else:
                    self._hear(key.data)
            now = time.monotonic()
            if now - self._beaten >= pause:
                self._beaten = now
                for peer in list(self._peers.values()):
                    _send(peer.connection, alive=self._number)
            self._look(now)

    def _welcome(self) -> None:
        """Takes in a host that connects and knows the token."""
        assert self._server is not None
        with contextlib.suppress(OSError, ValueError, KeyError):
            connection, _ = self._server.accept()
            connection.settimeout(5)
            with contextlib.ExitStack() as unless_known:
                unless_known.callback(connection.close)
                peer = _Peer(connection)
                (hello,) = peer.read() or [{}]
                if secrets.compare_digest(str(hello["token"]), self._token):
                    connection.sendall(b"\n")
                    peer.number = int(hello["host"])
                    self._add(peer)
                    unless_known.pop_all()

    def _hear(self, peer: _Peer) -> None:
        messages = peer.read()
        if messages is None:
            self._selector.unregister(peer.connection)
            if not peer.left:
                self._lose(f"{self._name(peer.number)} is gone: its process ended without a message")
            return
        for message in messages:
            if "lost" in message:
                self._lose(str(message["lost"]), told=True)
            elif "left" in message:
                peer.left = True
                if message.get("reason"):
                    time.sleep(PATIENCE)  # what stopped it may well stop this host too, by itself
                    self._lose(f"{self._name(peer.number)} failed: {message['reason']}")

    def _look(self, now: float) -> None:
        """Looks for hosts that have gone quiet, or never came."""
        for peer in list(self._peers.values()):
            if not peer.left and now - peer.heard > self._limit:
                self._lose(f"{self._name(peer.number)} has sent nothing for {self._limit:.0f} s")
        if self._server is not None and now - self._begun > self._limit:
            for number in range(1, len(self._names)):
                if number not in self._peers:
                    self._lose(f"{self._name(number)} did not reach host 0 in {self._limit:.0f} s")

    def _name(self, number: int) -> str:
        return f"host {number} of {len(self._names)} ({self._names[number]})"

    def _lose(self, message: str, told: bool = False) -> None:
        if self._leaving or self.lost is not None:
            return
        if not told:
            message += "; the run ends on all hosts; the same command continues from the last checkpoint"
        self.lost = message
        if self._server is not None:
            for peer in list(self._peers.values()):
                _send(peer.connection, lost=message)
            self._drain()
        self._end(message)

    def _drain(self) -> None:
        """Host 0 stays until the others have read its last message, two seconds at most."""
        deadline = time.monotonic() + 2.0
        for peer in list(self._peers.values()):
            with contextlib.suppress(OSError):
                peer.connection.shutdown(socket.SHUT_WR)
                peer.connection.setblocking(True)
                while (left := deadline - time.monotonic()) > 0:
                    peer.connection.settimeout(left)
                    if not peer.connection.recv(65536):
                        break


def watch_hosts(limit: float) -> HostWatch | None:
    """Begins the watch on every host of the run; None where there is one.

    Raises:
      ConnectionError: this host cannot reach host 0.
    """
    if jax.process_count() == 1:
        return None
    number = jax.process_index()
    about: dict[str, object] = {"name": socket.gethostname()}
    server = None
    if number == 0:
        server = socket.create_server(("", 0), backlog=jax.process_count())
        about |= {"addresses": _addresses(), "port": server.getsockname()[1], "token": secrets.token_hex(16)}
    hosts = [json.loads(text) for text in gather_text(json.dumps(about))]
    first = hosts[0]
    watch = HostWatch(
        number=number,
        names=[host["name"] for host in hosts],
        limit=limit,
        token=first["token"],
        server=server,
        addresses=first["addresses"],
        port=first["port"],
    )
    on_ending(watch.leave)
    if number == 0:
        say(f"run: {len(hosts)} hosts, {jax.device_count()} devices")
    return watch
