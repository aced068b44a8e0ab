"""Everything that lies between the processes of a world: a relay and a meddler on each link, a relay before PostgreSQL.

It lives in an event loop of its own in a thread; its methods may be called from any other thread.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.chaos.meddler import Meddler
from tests.chaos.relay import Relay, Streams

T = TypeVar("T")
HOST = "127.0.0.1"
_POSTGRES_SOCKET = ".s.PGSQL.5432"


@dataclass(frozen=True, slots=True)
class Side:
    """Certificates for one end that the meddler plays, and the CA by which he verifies the other end."""

    leaf: Path
    """Without its suffix: `<leaf>.crt` and `<leaf>.key`."""
    peer_ca: Path

    def server(self) -> ssl.SSLContext:
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client(self) -> ssl.SSLContext:
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        certificate, key = (self.leaf.with_name(f"{self.leaf.name}.{suffix}") for suffix in ("crt", "key"))
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(self.peer_ca)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context


class Link:
    """One link with what disturbs it: client → relay → meddler → server. `port` is where the client connects."""

    def __init__(self) -> None:
        self.relay = Relay(self._dial_meddler)
        self.meddler: Meddler | None = None
        self.port = 0
        self._meddler_port = 0

    async def listen(self) -> None:
        self.port = await self.relay.listen_tcp(HOST)

    async def put_meddler(self, meddler: Meddler) -> None:
        """Until then nobody gets through."""
        self._meddler_port = await meddler.listen()
        self.meddler = meddler

    async def close(self) -> None:
        await self.relay.close()
        if self.meddler is not None:
            await self.meddler.close()

    def behave(self) -> None:
        self.relay.thaw()
        self.relay.delay_s = 0.0
        if self.meddler is not None:
            self.meddler.behave()

    async def _dial_meddler(self) -> Streams:
        if not self._meddler_port:
            raise OSError("nobody is behind this link yet")
        return await asyncio.open_connection(HOST, self._meddler_port)


class Network:
    """Links by (client, server), database relays by the name of the process that uses them."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()
        self.links: dict[tuple[str, str], Link] = {}
        self.databases: dict[str, Relay] = {}

    def add_link(self, client: str, server: str) -> str:
        """Returns the URL at which `client` finds `server` from now on."""
        link = self.links[client, server] = Link()
        self._run(link.listen())
        return f"wss://{HOST}:{link.port}"

    def put_meddler(self, client: str, server: str, port: int, *, plays_server: Side, plays_client: Side) -> None:
        """`port` is that of the real server."""
        meddler = Meddler(
            plays_server.server(), plays_client.client(), f"{HOST}:{port}", random.Random(self._draw.random())
        )
        self._run(self.links[client, server].put_meddler(meddler))

    def add_database(self, user: str, folder: Path, server_folder: Path) -> None:
        """A socket in `folder` that leads to the server's, for one process."""
        folder.mkdir(mode=0o700, parents=True)
        target = str(server_folder / _POSTGRES_SOCKET)
        relay = self.databases[user] = Relay(lambda: asyncio.open_unix_connection(target))
        self._run(relay.listen_unix(str(folder / _POSTGRES_SOCKET)))

    def links_of(self, name: str) -> list[Link]:
        """All links that end at this process."""
        return [link for ends, link in self.links.items() if name in ends]

    def do(self, action: Callable[[], None]) -> None:
        """Do something to a relay or a meddler, in the loop to which it belongs."""

        async def act() -> None:
            action()

        self._run(act())

    def behave(self) -> None:
        """Everything as it should be again. Connections that were cut stay cut."""
        self.do(self._behave)

    def close(self) -> None:
        for part in (*self.links.values(), *self.databases.values()):
            self._run(part.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _behave(self) -> None:
        for link in self.links.values():
            link.behave()
        for relay in self.databases.values():
            relay.thaw()
            relay.delay_s = 0.0

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=20)
