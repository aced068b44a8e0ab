"""The listener for gateways: the same ASGI application as the web's, under uvicorn, behind mutual TLS.

`python -m opsmap.link`. uvicorn verifies the client certificate against the Gateway CA and stops reading when a
consumer falls behind; Daphne does neither, so it serves people only. The consumer learns the peer from
`scope["extensions"]["tls"]` (ASGI TLS extension), which nothing but this module fills: a header never counts.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from opsmap.link_tls import RenewedContext
from opsmap_daemon.door import Door, Dropped, collect_dead_connections_soon
from opsmap_protocol import MAX_FRAME_BYTES

_DROPS_BETWEEN_SWEEPS = 100


class _Sweeper:
    """Collects what is left of connections that the door has dropped, before much of it gathers.

    More than `collect_dead_connections_soon` does by itself in a process as large as this one: there, 10,000
    connections without a word left 350 MB.
    """

    def __init__(self) -> None:
        self._drops = 0

    def __call__(self, reason: Dropped) -> None:
        self._drops += 1
        if self._drops % _DROPS_BETWEEN_SWEEPS == 0:
            gc.collect()


class LinkConfig(uvicorn.Config):
    """uvicorn's configuration, and the door at which gateways come in."""

    door: Door


class PeerCertificateProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, which also hands the verified peer certificate to the application.

    And the ways to admit the peer at the door, once the application knows who it is, and to throw it out at once.
    """

    config: LinkConfig

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        door = self.config.door
        application, der = self.app, transport.get_extra_info("ssl_object").getpeercert(binary_form=True)

        async def with_peer(scope: Any, receive: Any, send: Any) -> None:
            scope["extensions"]["tls"] = {"client_cert_chain": [ssl.DER_cert_to_PEM_cert(der)] if der else []}
            scope["extensions"]["opsmap.link"] = {"admit": partial(door.admit, transport), "abort": transport.abort}
            await application(scope, receive, send)

        self.app = with_peer

    def keepalive_timeout(self) -> None:
        """The peer is gone without a word: nobody is left to take leave of, which TLS would do for half a minute."""
        super().keepalive_timeout()
        self.transport.abort()


class LinkServer(uvicorn.Server):
    """Listens at its door, and says goodbye to gateways before it stops: they look for another server at once."""

    config: LinkConfig

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await super().serve(sockets=[self.config.door])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # What is below needs Django, which is set up by now.
        from apps.gateways.consumers import say_goodbye

        await say_goodbye("the link server is stopped")
        await super().shutdown(sockets)


def make_server(host: str, port: int, pki_dir: Path) -> LinkServer:
    """A uvicorn server for gateways, not started yet.

    Raises:
        OSError: the address cannot be had, or a file not be read.
    """
    config = LinkConfig(
        "opsmap.asgi:application",
        host=host,
        port=port,
        ws=PeerCertificateProtocol,
        ws_max_size=MAX_FRAME_BYTES,
        ws_per_message_deflate=False,
        # A gateway whose link is half open is noticed within 10 s.
        ws_ping_interval=5,
        ws_ping_timeout=5,
        lifespan="off",
        proxy_headers=False,
        log_config=None,
        timeout_graceful_shutdown=5,
    )
    config.load()
    config.ssl = RenewedContext.of(pki_dir)
    # uvicorn decides by these whether it serves TLS at all.
    config.ssl_certfile = pki_dir / "leaf" / "backend.crt"
    config.ssl_keyfile = pki_dir / "leaf" / "backend.key"
    config.door = Door(host, port, on_drop=_Sweeper())
    return LinkServer(config)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opsmap.settings")
    import django
    from django.conf import settings

    django.setup()
    from apps.gateways.exceptions import PkiError
    from apps.gateways.sealing import current_signer

    host, port = settings.LINK_BIND
    try:
        current_signer(settings.PKI_DIR / "leaf")
        server = make_server(host, port, settings.PKI_DIR)
    except (OSError, ssl.SSLError, PkiError) as error:
        sys.exit(f"The link server cannot begin, with the certificates in {settings.PKI_DIR}: {error}")
    collect_dead_connections_soon()
    server.run()


if __name__ == "__main__":
    main()
