"""Completion checks: is what a job was started for true now? Details are those of the reference, 4.3."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from opsmap_agent.checks.http_probe import HttpAnswer
from opsmap_agent.checks.probes import Prober
from opsmap_agent.commands.refusals import RefusalError
from opsmap_protocol.checks import (
    CHECK_TIMEOUT_S,
    AllOf,
    AnyOf,
    CheckResult,
    CompletionCheck,
    CustomCommand,
    FileExists,
    HttpHealthy,
    PortOpen,
    ProcessRunning,
    ProcessStopped,
    ServiceStatusIs,
)
from opsmap_protocol.codec import to_plain
from opsmap_protocol.enums import ServiceState

_logger = logging.getLogger(__name__)

_SHOWN_OUTPUT = 1024
"""How many characters of a custom command's output go into its details."""

Answer = tuple[bool, dict[str, Any]]
"""Whether a check passed, and its details."""


def waits_for_start(check: CompletionCheck | None) -> bool:
    """Whether this check waits for something to be up: how a start is told from a stop."""
    match check:
        case ProcessRunning() | HttpHealthy() | CustomCommand():
            return True
        case ServiceStatusIs():
            return check.expected_status is ServiceState.RUNNING
        case PortOpen():
            return check.should_be_open
        case FileExists():
            return check.should_exist
        case AllOf() | AnyOf():
            return any(waits_for_start(part) for part in check.checks)
        case _:
            return False


class CheckRunner:
    def __init__(self, prober: Prober, timeout_s: float = CHECK_TIMEOUT_S) -> None:
        self._prober = prober
        self._timeout_s = timeout_s

    async def evaluate(self, check: CompletionCheck) -> CheckResult:
        """The answer within 10 s: the parts of `all` and `any` are asked at the same time, each with that limit."""
        is_composed = isinstance(check, (AllOf, AnyOf))
        try:
            async with asyncio.timeout(None if is_composed else self._timeout_s):
                passed, details = await self._ask(check)
        except TimeoutError:
            passed, details = False, {"error": f"no answer within {self._timeout_s:g} s"}
        except RefusalError as refusal:
            passed, details = False, {"error": str(refusal)}
        except Exception as error:
            # A fault of ours in one check fails that check, not the job, whose process may be fine.
            _logger.exception("completion check %s", check.type)
            passed, details = False, {"error": f"internal error of the agent: {error!r}"}
        return CheckResult(check.type, passed, details, datetime.now(UTC))

    async def _ask(self, check: CompletionCheck) -> Answer:
        match check:
            case ProcessRunning():
                return await self._process_running(check)
            case ProcessStopped():
                return await self._process_stopped(check)
            case ServiceStatusIs():
                return await self._service_status(check)
            case HttpHealthy():
                return await self._http_healthy(check)
            case FileExists():
                exists = await self._prober.file_exists(check.path)
                details = {"path": check.path, "should_exist": check.should_exist, "exists": exists}
                return exists == check.should_exist, details
            case PortOpen():
                return await self._port_open(check)
            case CustomCommand():
                return await self._custom_command(check)
            case AllOf():
                results = await self._ask_each(check.checks)
                return all(result.passed for result in results), {"sub_checks": to_plain(results)}
            case AnyOf():
                results = await self._ask_each(check.checks)
                return any(result.passed for result in results), {"sub_checks": to_plain(results)}

    async def _ask_each(self, checks: Sequence[CompletionCheck]) -> list[CheckResult]:
        return list(await asyncio.gather(*(self.evaluate(part) for part in checks)))

    async def _process_running(self, check: ProcessRunning) -> Answer:
        found = await self._prober.processes.named(check.process_name)
        is_port_open = True
        if check.listening_port is not None:
            is_port_open = (await self._prober.port("localhost", check.listening_port)).is_open
        return bool(found) and is_port_open, {
            "process_name": check.process_name,
            "process_found": bool(found),
            "pid": found[0].pid if found else None,
            "listening_port": check.listening_port,
            "port_open": is_port_open,
        }

    async def _process_stopped(self, check: ProcessStopped) -> Answer:
        found = await self._prober.processes.named(check.process_name)
        return not found, {
            "process_name": check.process_name,
            "still_running": bool(found),
            "pid": found[0].pid if found else None,
        }

    async def _service_status(self, check: ServiceStatusIs) -> Answer:
        service = await self._prober.service(check.service_name, self._timeout_s)
        details: dict[str, Any] = {
            "service": check.service_name,
            "expected": check.expected_status.value,
            "actual": service.status.value,
        }
        if service.error is not None:
            details["error"] = service.error
        return service.status is check.expected_status, details

    async def _http_healthy(self, check: HttpHealthy) -> Answer:
        details: dict[str, Any] = {"url": check.url, "expected_status": check.expected_status}
        answer = await self._prober.http(check.url)
        if not isinstance(answer, HttpAnswer):
            return False, details | {"error": answer}
        details["result"] = {"status": answer.status, "latency_ms": answer.latency_ms}
        if check.body_contains is not None:
            details["body_matches"] = check.body_contains in answer.body
        return answer.status == check.expected_status and details.get("body_matches", True), details

    async def _port_open(self, check: PortOpen) -> Answer:
        answer = await self._prober.port(check.host, check.port)
        return answer.is_open == check.should_be_open, {
            "host": check.host,
            "port": check.port,
            "should_be_open": check.should_be_open,
            "is_open": answer.is_open,
        }

    async def _custom_command(self, check: CustomCommand) -> Answer:
        result = await self._prober.command(check.command, check.args, self._timeout_s)
        return result.exit_code == check.expected_exit_code and not result.timed_out, {
            "command": check.command,
            "expected_exit_code": check.expected_exit_code,
            "result": {
                "exit_code": result.exit_code,
                "timed_out": result.timed_out,
                "duration_ms": result.duration_ms,
                "stdout": result.stdout[-_SHOWN_OUTPUT:],
                "stderr": result.stderr[-_SHOWN_OUTPUT:],
            },
        }
