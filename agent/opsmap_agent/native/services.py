"""Services of the host, through systemd."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from opsmap_agent.host import systemd
from opsmap_agent.native.bounds import Cut, bounded
from opsmap_agent.native.registry import NativeCommandError, NativeContext, native
from opsmap_protocol.enums import ServiceAction

_STATUS_S = 10.0
_CONTROL_S = 60.0


class ServiceStatus(TypedDict):
    name: str
    status: str
    pid: int | None
    enabled: bool
    description: str
    error: str | None


class ListedService(TypedDict):
    name: str
    status: str
    enabled: bool
    description: str


class ServiceChange(TypedDict):
    success: bool
    message: str


@native("service_status", limit_s=_STATUS_S)
async def service_status(context: NativeContext, *, name: str) -> ServiceStatus:
    """How a service is: `running`, `stopped`, `starting`, `stopping`, `failed` or `unknown`.

    If it is unknown, `error` says why: there is no such service, or no systemd.
    """
    answer = await context.prober.service(name, _STATUS_S - 1)
    return {
        "name": answer.name,
        "status": answer.status.value,
        "pid": answer.pid,
        "enabled": answer.enabled,
        "description": answer.description,
        "error": answer.error,
    }


@native("service_list", switches=("service_status", "service_list"), limit_s=20)
async def service_list(context: NativeContext) -> list[ListedService] | Cut[ListedService]:
    """All services, by the names of their units; those that never ran are `stopped`."""
    try:
        services = await systemd.list_services()
    except systemd.SystemdError as error:
        raise NativeCommandError(str(error)) from None
    return bounded(_described(services), "services")


@native("service_start", switches=("service_control",), limit_s=_CONTROL_S, changes_host=True)
async def service_start(context: NativeContext, *, name: str) -> ServiceChange:
    """Start a service and wait until systemd calls it started. One that runs stays as it is.

    What systemd does not allow to the agent's user is refused by systemd. If the time ends first, systemd goes on.
    """
    return await _control(name, ServiceAction.START, "started")


@native("service_stop", switches=("service_control",), limit_s=_CONTROL_S, changes_host=True)
async def service_stop(context: NativeContext, *, name: str) -> ServiceChange:
    """Stop a service and wait until it has stopped. The agent's own is refused."""
    return await _control(name, ServiceAction.STOP, "stopped")


@native("service_restart", switches=("service_control",), limit_s=_CONTROL_S, changes_host=True)
async def service_restart(context: NativeContext, *, name: str) -> ServiceChange:
    """Stop a service, start it again, and wait for both; one that does not run is started."""
    return await _control(name, ServiceAction.RESTART, "restarted")


def _described(services: list[systemd.Service]) -> Iterator[ListedService]:
    for service in services:
        yield {
            "name": service.name,
            "status": service.state.value,
            "enabled": service.is_enabled,
            "description": service.description,
        }


async def _control(name: str, action: ServiceAction, done: str) -> ServiceChange:
    try:
        service = await systemd.control_service(name, action)
    except systemd.SystemdError as error:
        message = f"{name} was not {done}: {error}"
        raise NativeCommandError(message, {"success": False, "message": message}) from None
    return {"success": True, "message": f"{service.name} was {done} and is {service.state.value}"}
