"""The agent's next certificate: asked for by the session in use, with a key that was made for it alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from opsmap_agent.identity.credentials import Credentials
from opsmap_agent.sessions.switchboard import Switchboard
from opsmap_daemon.configuration import ConfigurationError
from opsmap_daemon.renewal import Question, RenewalError, answer_timeout_s, refused
from opsmap_protocol.errors import InvalidIdentityError
from opsmap_protocol.messages import CertificateRefused, CertificateRenewed, RenewCertificate
from opsmap_trust import apart

Answer = CertificateRenewed | CertificateRefused


class Renewal:
    """`renew` asks, `answered` brings the answer from whichever session it came by.

    Args:
        on_renewed: makes new sessions with the new certificate, one after another.
    """

    def __init__(
        self, *, credentials: Credentials, switchboard: Switchboard, on_renewed: Callable[[], Awaitable[None]]
    ) -> None:
        self._credentials = credentials
        self._switchboard = switchboard
        self._on_renewed = on_renewed
        self._question: Question[Answer] = Question()
        self.answered = self._question.answered

    async def renew(self) -> None:
        """Raises RenewalError or OSError: the present certificate stays."""
        identity = self._credentials.identity
        self._credentials.check_replaceable()
        try:
            new = await apart.make_key("ed25519")
            renewed = await self._ask(RenewCertificate(identity.name, "", new.request))
            offered = {"gateway": renewed.gateway_authorities, "backend": renewed.backend_authorities}
            # None at all says nothing about them: what is trusted stays.
            wanted = {name: offered[name] for name in self._credentials.authority_files if offered[name]}
            accepted = await apart.accept_chain(
                chain=renewed.certificate,
                key=new.key,
                uri=identity.uri,
                root=self._credentials.root,
                authorities=wanted,
            )
            self._credentials.install(accepted, new.key)
        except (InvalidIdentityError, ConfigurationError) as error:
            raise RenewalError(str(error)) from None
        await self._on_renewed()

    async def _ask(self, request: RenewCertificate) -> CertificateRenewed:
        session = self._switchboard.in_use
        if session is None:
            raise RenewalError("there is no session with the backend")
        timeout_s = answer_timeout_s(self._credentials.validity)
        answer = await self._question.ask(lambda: session.reply(request), timeout_s)
        if isinstance(answer, CertificateRefused):
            raise refused(answer.code, answer.reason)
        return answer
