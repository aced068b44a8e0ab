"""What the backend may set on this agent, over what the host's own file says. It can only restrict.

The settings come with the health checks in `config_update` and are kept with them over restarts. What is absent from
the newest update is as the host's file has it. Nothing here can allow a command, a path, a user or a host.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from opsmap_agent.configuration import Configuration
from opsmap_daemon import logs
from opsmap_protocol.messages import RemoteSettings

_logger = logging.getLogger(__name__)

_LEVELS: tuple[logs.Level, ...] = ("debug", "info", "warn", "error")
"""Not `trace`: it writes frames, and commands may carry secrets."""

_HEARTBEAT_S = (5.0, 60.0)
"""More often is a burden to the backend; less often a gateway may take the agent for dead."""

_DISCOVERY_S = (60, 7 * 86_400)
_MAX_NAMES = 200
_SHOWN_NAMES = 10


class SettingsInForce:
    """The host's configuration as the backend has restricted it at this moment.

    Args:
        set_level: how the level of the log is changed.
    """

    def __init__(self, configuration: Configuration, set_level: Callable[[logs.Level], None] = logs.set_level) -> None:
        self._configuration = configuration
        self._set_level = set_level
        self._level: logs.Level = configuration.logging.level
        self._remote = RemoteSettings()
        self._changed = asyncio.Event()
        self.disabled_natives: frozenset[str] = frozenset()
        """Native commands that are off in addition to those of the host's file."""

    def apply(self, settings: RemoteSettings) -> None:
        """Replace all that was set before."""
        if settings == self._remote:
            return
        self._remote = settings
        self.disabled_natives = frozenset(settings.disabled_natives[:_MAX_NAMES])
        self._apply_level(settings.log_level)
        self._changed.set()
        self._changed = asyncio.Event()
        _logger.info("set by the backend: %s", ", ".join(self.describe()) or "nothing")

    @property
    def heartbeat_interval_s(self) -> float:
        own, remote = self._configuration.gateway.heartbeat_interval_secs, self._remote.heartbeat_interval_secs
        return own if remote is None else _between(remote, _HEARTBEAT_S)

    @property
    def discovery_interval_s(self) -> float:
        remote = self._remote.discovery_interval_secs
        return (
            self._configuration.discovery.periodic_interval_secs if remote is None else _between(remote, _DISCOVERY_S)
        )

    async def pause(self, length_s: Callable[[], float]) -> None:
        """Sleep for `length_s`, which is asked again when the settings change meanwhile."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while (left_s := begun + length_s() - loop.time()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                return

    def describe(self) -> list[str]:
        """What is set, one text each."""
        remote, texts = self._remote, []
        if remote.log_level is not None:
            texts.append(f"log level {self._level}")
        if remote.heartbeat_interval_secs is not None:
            texts.append(f"a heartbeat each {self.heartbeat_interval_s:g} s")
        if remote.discovery_interval_secs is not None:
            texts.append(f"a discovery each {self.discovery_interval_s:g} s")
        if self.disabled_natives:
            names = sorted(name[:40] for name in self.disabled_natives)
            more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
            texts.append(f"without {' '.join(names[:_SHOWN_NAMES])}{more}")
        return texts

    def _apply_level(self, wanted: str | None) -> None:
        level = self._configuration.logging.level
        if wanted in _LEVELS:
            level = wanted
        elif wanted is not None:
            _logger.warning(
                "the backend sets the log level %r, which is not one of: %s", wanted[:40], ", ".join(_LEVELS)
            )
        if level != self._level:
            self._level = level
            self._set_level(level)


def _between(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])
