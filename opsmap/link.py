"""The listener for gateways: the same ASGI application as the web's, under uvicorn, behind mutual TLS.

`python -m opsmap.link`. uvicorn verifies the client certificate against the Gateway CA and stops reading when a
consumer falls behind; Daphne does neither, so it serves people only. The consumer learns the peer from
`scope["extensions"]["tls"]` (ASGI TLS extension), which nothing but this module fills: a header never counts.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from opsmap_protocol import MAX_FRAME_BYTES


class PeerCertificateProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, which also hands the verified peer certificate to the application."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        application, der = self.app, transport.get_extra_info("ssl_object").getpeercert(binary_form=True)

        async def with_peer(scope: Any, receive: Any, send: Any) -> None:
            scope["extensions"]["tls"] = {"client_cert_chain": [ssl.DER_cert_to_PEM_cert(der)] if der else []}
            await application(scope, receive, send)

        self.app = with_peer


def tls_context(pki_dir: Path) -> ssl.SSLContext:
    """Requires a client certificate signed by the Gateway CA itself: a branch of our PKI, not all of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pki_dir / "leaf" / "backend.crt", pki_dir / "leaf" / "backend.key")
    context.load_verify_locations(pki_dir / "ca" / "gateway.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    # The Gateway CA is an intermediate: trust it as it stands, without its root above it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def make_server(host: str, port: int, pki_dir: Path) -> uvicorn.Server:
    """A uvicorn server for gateways, not started yet."""
    config = uvicorn.Config(
        "opsmap.asgi:application",
        host=host,
        port=port,
        ws=PeerCertificateProtocol,
        ws_max_size=MAX_FRAME_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=10,
        ws_ping_timeout=20,
        lifespan="off",
        proxy_headers=False,
        log_config=None,
        timeout_graceful_shutdown=5,
    )
    config.load()
    config.ssl = tls_context(pki_dir)
    # uvicorn decides by these whether it serves TLS at all.
    config.ssl_certfile = pki_dir / "leaf" / "backend.crt"
    config.ssl_keyfile = pki_dir / "leaf" / "backend.key"
    return uvicorn.Server(config)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opsmap.settings")
    import django
    from django.conf import settings

    django.setup()
    host, port = settings.LINK_BIND
    try:
        server = make_server(host, port, settings.PKI_DIR)
    except (OSError, ssl.SSLError) as error:
        sys.exit(f"The link server cannot use the certificates in {settings.PKI_DIR}: {error}")
    server.run()


if __name__ == "__main__":
    main()
