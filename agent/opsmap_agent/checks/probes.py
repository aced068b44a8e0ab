"""Looking at the host: ports, URLs, processes, services, files, and programs that answer by their exit code.

What completion checks, health checks, and native commands share. Each probe answers; none raises because of what it
finds, only `RefusalError` when it may not look. The caller sets the time limit.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from concurrent.futures import Executor
from dataclasses import dataclass

from opsmap_agent.checks.http_probe import HttpAnswer, HttpError, get, open_stream
from opsmap_agent.commands.sync import ProcessResult, SyncRunner
from opsmap_agent.host import systemd
from opsmap_agent.host.process_table import ProcessTable
from opsmap_agent.rules.policy import Policy
from opsmap_agent.rules.reach import Reach
from opsmap_daemon import tls
from opsmap_protocol.enums import ServiceState
from opsmap_protocol.specs import ExecuteCommand


@dataclass(frozen=True, slots=True)
class PortAnswer:
    is_open: bool
    latency_ms: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """`error` says why the state is unknown."""

    name: str
    status: ServiceState
    pid: int | None = None
    enabled: bool = False
    description: str = ""
    error: str | None = None


class Prober:
    """`executor` takes what blocks: the file system and the process table. `reach` says where it may connect to."""

    def __init__(self, policy: Policy, runner: SyncRunner, executor: Executor, reach: Reach) -> None:
        self._policy = policy
        self._runner = runner
        self._executor = executor
        self._reach = reach
        self.processes = ProcessTable(executor)

    async def port(self, host: str, port: int) -> PortAnswer:
        begun = time.monotonic()
        try:
            _, writer = await open_stream(host, port, self._reach)
        except OSError as error:
            return PortAnswer(False, _elapsed_ms(begun), describe(error))
        writer.transport.abort()
        return PortAnswer(True, _elapsed_ms(begun))

    async def http(self, url: str, *, method: str = "GET", is_verified: bool = True) -> HttpAnswer | str:
        """The answer, or why there is none. Without `is_verified` any certificate will do."""
        try:
            return await get(url, self._reach, method=method, is_verified=is_verified)
        except HttpError as error:
            return str(error)
        except OSError as error:
            return describe(error)

    async def file_exists(self, path: str) -> bool:
        return await asyncio.get_running_loop().run_in_executor(self._executor, os.path.exists, path)

    async def command(self, command: str, args: list[str], timeout_s: float) -> ProcessResult:
        """Runs a program as a sync command would be run, under the same rules.

        Raises:
            RefusalError: it may not or cannot run.
        """
        loop = asyncio.get_running_loop()
        spec = ExecuteCommand(path=command, args=args)
        program = await loop.run_in_executor(self._executor, self._policy.resolve, spec)
        return await self._runner.run(program, timeout_s)

    async def service(self, name: str, timeout_s: float) -> ServiceAnswer:
        """What systemd says about a service.

        Raises:
            RejectedError: that is not the name of a service.
        """
        try:
            async with asyncio.timeout(timeout_s):
                service = await systemd.get_service(name)
        except systemd.SystemdError as error:
            return ServiceAnswer(name, ServiceState.UNKNOWN, error=str(error))
        except TimeoutError:
            return ServiceAnswer(name, ServiceState.UNKNOWN, error=f"systemd did not answer within {timeout_s:g} s")
        return ServiceAnswer(name, service.state, service.pid, service.is_enabled, service.description)


def describe(error: OSError) -> str:
    """A failed connection in a few words, without the address that asyncio repeats."""
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {tls.describe(error)}"
    if error.errno is None or error.errno < 0:  # several addresses failed, or the name has none
        return error.strerror or str(error)
    return os.strerror(error.errno).lower()


def _elapsed_ms(begun: float) -> float:
    return round((time.monotonic() - begun) * 1000, 2)
