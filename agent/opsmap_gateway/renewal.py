"""What changes about a gateway's own identity while it runs: its next certificate, and whom it trusts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from opsmap_daemon.configuration import ConfigurationError
from opsmap_daemon.renewal import Question, RenewalError, answer_timeout_s, refused
from opsmap_gateway.credentials import Credentials
from opsmap_protocol.codec import encode
from opsmap_protocol.errors import InvalidIdentityError
from opsmap_protocol.messages import Authorities, GatewayRenewed, RenewalRefused, RenewGateway
from opsmap_trust import apart

_logger = logging.getLogger(__name__)

Answer = GatewayRenewed | RenewalRefused


class Renewal:
    """`renew` asks the backend, `answered` brings its answer.

    Args:
        send: puts a frame on the link; False if the backend is away.
        on_renewed: makes a new link with the new certificate.
    """

    def __init__(
        self,
        *,
        credentials: Credentials,
        send: Callable[[str], Awaitable[bool]],
        on_renewed: Callable[[], Awaitable[None]],
    ) -> None:
        self._credentials = credentials
        self._send = send
        self._on_renewed = on_renewed
        self._question: Question[Answer] = Question()
        self.answered = self._question.answered

    async def renew(self) -> None:
        """Raises RenewalError or OSError: the present certificate stays."""
        identity = self._credentials.identity
        self._credentials.check_replaceable()
        try:
            new = await apart.make_key("p256")
            renewed = await self._ask(RenewGateway(identity.name, new.request))
            accepted = await apart.accept_chain(
                chain=renewed.certificate, key=new.key, uri=identity.uri, root=self._credentials.root, authorities={}
            )
            self._credentials.install(accepted, new.key)
        except (InvalidIdentityError, ConfigurationError) as error:
            raise RenewalError(str(error)) from None
        await self._on_renewed()

    async def _ask(self, request: RenewGateway) -> GatewayRenewed:
        async def send() -> None:
            if not await self._send(encode(request)):
                raise RenewalError("the backend is away")

        answer = await self._question.ask(send, answer_timeout_s(self._credentials.validity))
        if isinstance(answer, RenewalRefused):
            raise refused(answer.code, answer.reason)
        return answer


class Trustees:
    """Whom the backend says that the gateway is to trust, once it is found to be below the root."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._newest: Authorities | None = None
        self._has_news = asyncio.Event()
        self.checked: Authorities | None = None
        """The last ones that count, to be shown to agents that enrol."""

    def tell(self, authorities: Authorities) -> None:
        """What the backend has just said; it is looked at in `run`."""
        self._newest = authorities
        self._has_news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            assert self._newest is not None
            if self._newest != self.checked:
                await self._take(self._newest)

    async def _take(self, authorities: Authorities) -> None:
        root = self._credentials.root
        if root is None:
            # Said at the level of what is usual: so it is until somebody enrols this gateway anew.
            _logger.debug("the backend names its authorities; without root_ca_file they change by hand alone")
            return
        offered = {"backend": authorities.backend, "gateway": authorities.gateway, "agent": authorities.agent}
        try:
            found = await apart.check_authorities(root=root, named=authorities.root, authorities=offered)
            self._credentials.trust(found)
        except (InvalidIdentityError, ConfigurationError, OSError) as error:
            _logger.error("the authorities that the backend names do not count: %s", error)
            return
        self.checked = authorities
