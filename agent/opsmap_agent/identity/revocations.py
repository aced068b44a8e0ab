"""Keys of the backend that were revoked before their time: what its revocation lists said, kept for ever.

A list comes with `trust`, from a gateway that may be hostile; it proves itself. Its number only grows: a gateway cannot
bring back an older one, also not after a restart of the agent.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from opsmap_agent.journal.committer import CommitError
from opsmap_agent.journal.journal import Journal
from opsmap_protocol.errors import InvalidIdentityError
from opsmap_trust.apart import RevocationList, inspect_revocations
from opsmap_trust.inspection import CertifiedKey

_logger = logging.getLogger(__name__)

_SETTING = "revocations"
_MAX_CHARACTERS = 256 * 1024
_MAX_AUTHORITIES = 8
"""A Backend CA is made anew every few years; the lists of the last ones count beside that of the present one."""


class RevocationsError(Exception):
    """A revocation list that does not count; the message says why."""


class Revocations:
    """Without a journal, in tests and before `load`, it forgets with the process."""

    def __init__(self) -> None:
        self._lists: dict[str, RevocationList] = {}
        self._journal: Journal | None = None
        self._newest = ""

    async def load(self, journal: Journal) -> None:
        """Remember what was known, and keep in the journal what comes. Raises CommitError."""
        kept = await journal.load_setting(_SETTING)
        for entry in json.loads(kept) if kept else []:
            known = RevocationList(entry["authority"], entry["number"], frozenset(entry["serials"]))
            self._lists[known.authority] = known
        self._journal = journal

    def is_news(self, crl: str) -> bool:
        """Whether it is another text than the last one that counted: looking into it costs a process."""
        return crl != self._newest

    async def take(self, crl: str, authorities: Path) -> None:
        """Let a list count.

        Raises:
            RevocationsError: it does not.
        """
        if len(crl) > _MAX_CHARACTERS:
            raise RevocationsError(f"a revocation list of {len(crl)} characters is not looked at")
        try:
            found = await inspect_revocations(crl, authorities)
        except (InvalidIdentityError, OSError, ValueError) as error:
            raise RevocationsError(str(error)) from None
        known = self._lists.get(found.authority)
        if known is not None and found.number < known.number:
            raise RevocationsError(f"revocation list {found.number} is older than {known.number}, which is known here")
        self._newest = crl
        if found == known:
            return
        self._lists.pop(found.authority, None)
        self._lists[found.authority] = found
        while len(self._lists) > _MAX_AUTHORITIES:
            del self._lists[next(iter(self._lists))]
        _logger.info("revocation list %d counts from now on, with %d entries", found.number, len(found.serials))
        await self._keep()

    def names(self, key: CertifiedKey) -> bool:
        """Whether the certificate of this key was revoked."""
        known = self._lists.get(key.authority)
        return known is not None and key.serial in known.serials

    async def _keep(self) -> None:
        entries = [
            {"authority": each.authority, "number": each.number, "serials": sorted(each.serials)}
            for each in self._lists.values()
        ]
        if self._journal is None:
            return
        try:
            await self._journal.save_setting(_SETTING, json.dumps(entries))
        except CommitError as error:
            _logger.error("the revocation list counts, but a restart will forget it: %s", error)
