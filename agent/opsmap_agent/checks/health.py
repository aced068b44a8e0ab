"""Health checks at the edge: repeated probes of which only the changes are reported.

One success means healthy. Trouble must repeat `failure_threshold` times, but the repetitions come quickly: after a
first failure the probe is asked again within 300 ms, so that a threshold filters noise without delaying the news.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from opsmap_agent.checks.http_probe import HttpAnswer
from opsmap_agent.checks.probes import Prober
from opsmap_agent.commands.refusals import RefusalError
from opsmap_agent.journal.committer import CommitError
from opsmap_agent.journal.journal import Journal
from opsmap_protocol import codec
from opsmap_protocol.checks import (
    CommandProbe,
    FileProbe,
    HealthCheck,
    HttpProbe,
    ProcessProbe,
    ServiceProbe,
    TcpProbe,
)
from opsmap_protocol.enums import HealthStatus, ServiceState
from opsmap_protocol.errors import ProtocolError
from opsmap_protocol.messages import ConfigUpdate, HealthChanged, RemoteSettings

_logger = logging.getLogger(__name__)

_CONFIRM_AFTER_S = 0.3
_RESYNC_INTERVAL_S = 600.0
_MAX_PROBES_AT_ONCE = 32
_MAX_CHECKS = 2_000
_JITTER = 0.1
_MAX_INTERVAL_MS = 24 * 3600 * 1000
_MAX_TIMEOUT_MS = 60 * 1000
_MIN_PAUSE_S = 0.01
"""An interval of zero must not become a loop that never rests."""

_SHARED_VIEW_S = 2.0
"""Routine checks of processes may share a view of the host this old; whoever was poked wants the truth now."""

_SHOWN_TEXT = 512
_SETTING = "config_update"
_DEGRADED_SERVICES = {ServiceState.STARTING, ServiceState.STOPPING}

Finding = tuple[HealthStatus, dict[str, Any]]
Ask = Callable[[HealthCheck, bool], Awaitable[Finding]]
"""Asks a probe; the flag says whether it must be fresh."""

Report = Callable[[HealthChanged], Awaitable[None]]


class HealthMonitor:
    """Runs the checks of the newest `config_update`, as tasks of `group`; also before the backend has answered."""

    def __init__(
        self,
        *,
        journal: Journal,
        prober: Prober,
        group: asyncio.TaskGroup,
        on_settings: Callable[[RemoteSettings], None] = lambda settings: None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._journal = journal
        self._on_settings = on_settings
        self._asker = ProbeAsker(prober)
        self._group = group
        self._draw = draw
        self._checks: dict[str, RepeatedCheck] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._issued_at: datetime | None = None
        """When the backend wrote the checks in force; kept with them in the journal."""

    @property
    def check_count(self) -> int:
        return len(self._checks)

    async def load(self) -> None:
        """Begin with the checks of the agent's former life."""
        frame = await self._journal.load_setting(_SETTING)
        if frame is None:
            return
        try:
            self._apply(codec.decode(frame, ConfigUpdate))
        except ProtocolError as error:
            _logger.warning("the health checks of an older version wait for the backend to send them again: %s", error)

    async def configure(self, update: ConfigUpdate, frame: str) -> bool:
        """Replace the set of checks; False for an older one than that in force, which a gateway may have held back.

        Those that stay the same go on undisturbed and keep their conclusions.

        Raises:
            CommitError: it cannot be kept, and is not obeyed.
        """
        if self._issued_at is not None and update.issued_at < self._issued_at:
            return False
        # Before it is written: another session may bring an older one meanwhile.
        before, self._issued_at = self._issued_at, update.issued_at
        try:
            await self._journal.save_setting(_SETTING, frame)
        except CommitError:
            self._issued_at = before
            raise
        self._apply(update)
        return True

    async def resync_regularly(self) -> None:
        while True:
            # Agents that came back together must not tell everything together for ever after.
            await asyncio.sleep(_RESYNC_INTERVAL_S * _varied(self._draw()))
            await self.resync()

    async def resync(self) -> None:
        """Tell every conclusion again: the backend may have lost some, or never had them."""
        known = [check.conclusion for check in self._checks.values() if check.conclusion is not None]
        if known:
            await self._journal.record(*known)

    def poke(self, check_id: str) -> None:
        """Something happened to what this check looks at: ask now. Unknown ids are components without a check.

        What was concluded before no longer counts and is not told again: in the order of the journal, whatever
        follows the end of a job was seen after it. An old "healthy" that follows a stop would look like a start, and
        the next answer like a failure.
        """
        check = self._checks.get(check_id)
        if check is not None:
            check.poke()

    def _apply(self, update: ConfigUpdate) -> None:
        self._issued_at = update.issued_at
        self._on_settings(update.settings)
        wanted = {check.check_id: check for check in update.health_checks[:_MAX_CHECKS]}
        if len(update.health_checks) > _MAX_CHECKS:
            _logger.error(
                "only %d of %d health checks are run: there are too many", _MAX_CHECKS, len(update.health_checks)
            )
        for check_id, running in list(self._checks.items()):
            if wanted.get(check_id) == running.check:
                del wanted[check_id]
            else:
                self._tasks.pop(check_id).cancel()
                del self._checks[check_id]
        for check_id, check in wanted.items():
            repeated = RepeatedCheck(check, self._asker.ask, self._journal.record, self._draw)
            self._checks[check_id] = repeated
            self._tasks[check_id] = self._group.create_task(repeated.run(), name=f"health {check_id}")
        _logger.info("%d health checks, revision %s", len(self._checks), update.revision)


class RepeatedCheck:
    """One health check: when to ask, and what the answers mean together."""

    def __init__(self, check: HealthCheck, ask: Ask, report: Report, draw: Callable[[], float]) -> None:
        self.check = check
        self.conclusion: HealthChanged | None = None
        self._ask = ask
        self._report = report
        self._draw = draw
        self._failures = 0
        self._poked = asyncio.Event()

    def poke(self) -> None:
        self.conclusion = None
        self._failures = 0
        self._poked.set()

    async def run(self) -> None:
        is_urgent = False
        # Checks that come in one update begin together; the first pause spreads them over their interval.
        pace = self._draw()
        while True:
            self._poked.clear()
            status, details = await self._ask(self.check, is_urgent)
            if not self._poked.is_set():
                # Otherwise it was asked before what happened, and would tell of a world that is gone.
                await self._conclude(status, details)
            is_urgent = await self._pause(pace)
            pace = _varied(self._draw())

    async def _conclude(self, status: HealthStatus, details: dict[str, Any]) -> None:
        self._failures = 0 if status is HealthStatus.HEALTHY else self._failures + 1
        if self._is_unconfirmed() or (self.conclusion is not None and self.conclusion.status is status):
            return
        self.conclusion = HealthChanged(self.check.check_id, status, details, datetime.now(UTC))
        _logger.info("health of %s: %s", self.check.check_id, status)
        await self._report(self.conclusion)

    def _is_unconfirmed(self) -> bool:
        return 0 < self._failures < self.check.failure_threshold

    async def _pause(self, pace: float) -> bool:
        """Wait for the next turn, `pace` times the interval. Whether the next answer must be fresh."""
        interval_s = max(min(self.check.interval_ms, _MAX_INTERVAL_MS) / 1000 * pace, _MIN_PAUSE_S)
        is_confirming = self._is_unconfirmed()
        try:
            async with asyncio.timeout(min(interval_s, _CONFIRM_AFTER_S) if is_confirming else interval_s):
                await self._poked.wait()
        except TimeoutError:
            return is_confirming
        return True


class ProbeAsker:
    """Asks one probe once, within its time limit, and says what the answer means."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        # 500 checks that begin together must not open 500 connections at once.
        self._turns = asyncio.Semaphore(_MAX_PROBES_AT_ONCE)

    async def ask(self, check: HealthCheck, must_be_fresh: bool) -> Finding:
        timeout_s = min(check.timeout_ms, _MAX_TIMEOUT_MS) / 1000
        async with self._turns:
            try:
                async with asyncio.timeout(timeout_s):
                    return await self._look(check, must_be_fresh, timeout_s)
            except TimeoutError:
                return HealthStatus.UNHEALTHY, {"error": f"no answer within {timeout_s:g} s"}
            except RefusalError as refusal:
                return HealthStatus.UNHEALTHY, {"error": str(refusal)}
            except Exception as error:
                # A fault of ours in one check must not end the agent, and with it every other check.
                _logger.exception("health check %s", check.check_id)
                return HealthStatus.UNHEALTHY, {"error": f"internal error of the agent: {error!r}"}

    async def _look(self, check: HealthCheck, must_be_fresh: bool, timeout_s: float) -> Finding:
        match check.probe:
            case HttpProbe() as probe:
                return await self._http(probe)
            case TcpProbe() as probe:
                port = await self._prober.port(probe.host, probe.port)
                details: dict[str, Any] = {"host": probe.host, "port": probe.port, "latency_ms": port.latency_ms}
                return _verdict(port.is_open), details | ({"error": port.error} if port.error else {})
            case ProcessProbe() as probe:
                age_s = 0.0 if must_be_fresh else _SHARED_VIEW_S
                found = await self._prober.processes.named(probe.process_name, age_s)
                pids = [entry.pid for entry in found]
                return _verdict(bool(found)), {"process_name": probe.process_name, "pids": pids[:20]}
            case ServiceProbe() as probe:
                return await self._service(probe, timeout_s)
            case CommandProbe() as probe:
                return await self._command(probe, timeout_s)
            case FileProbe() as probe:
                exists = await self._prober.file_exists(probe.path)
                details = {"path": probe.path, "should_exist": probe.should_exist, "exists": exists}
                return _verdict(exists == probe.should_exist), details

    async def _http(self, probe: HttpProbe) -> Finding:
        answer = await self._prober.http(probe.url)
        if not isinstance(answer, HttpAnswer):
            return HealthStatus.UNHEALTHY, {"url": probe.url, "error": answer}
        details = {"url": probe.url, "status": answer.status, "latency_ms": answer.latency_ms}
        if answer.status != probe.expected_status:
            details["expected_status"] = probe.expected_status
            details["body"] = answer.body[:_SHOWN_TEXT]
            return HealthStatus.DEGRADED, details
        if probe.body_contains is not None and probe.body_contains not in answer.body:
            details["error"] = f"the body does not contain {probe.body_contains!r}"
            details["body"] = answer.body[:_SHOWN_TEXT]
            return HealthStatus.DEGRADED, details
        return HealthStatus.HEALTHY, details

    async def _service(self, probe: ServiceProbe, timeout_s: float) -> Finding:
        service = await self._prober.service(probe.service_name, timeout_s)
        details = {"service": probe.service_name, "actual": service.status.value}
        if service.error is not None:
            details["error"] = service.error
        if service.status in _DEGRADED_SERVICES:
            return HealthStatus.DEGRADED, details
        return _verdict(service.status is ServiceState.RUNNING), details

    async def _command(self, probe: CommandProbe, timeout_s: float) -> Finding:
        result = await self._prober.command(probe.command, probe.args, timeout_s)
        details = {
            "command": probe.command,
            "exit_code": result.exit_code,
            "expected_exit_code": probe.expected_exit_code,
            "output": (result.stdout or result.stderr)[-_SHOWN_TEXT:],
        }
        return _verdict(result.exit_code == probe.expected_exit_code and not result.timed_out), details


def _varied(drawn: float) -> float:
    """A factor around 1 from a number between 0 and 1."""
    return 1 + _JITTER * (2 * drawn - 1)


def _verdict(is_well: bool) -> HealthStatus:
    return HealthStatus.HEALTHY if is_well else HealthStatus.UNHEALTHY
