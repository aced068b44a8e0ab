"""Discovery by a whole agent: a real look at this host, told by the session in use."""

from __future__ import annotations

import socket
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from opsmap_agent.configuration import DiscoverKinds, Discovery
from opsmap_protocol.messages import Discover
from opsmap_protocol.specs import NativeCommand

if TYPE_CHECKING:
    from conftest import Host, OpenHost

AGENT_ID = "srv-1"


async def discovery(host: Host, index: int = 0) -> dict[str, Any]:
    await host.gateway.until(lambda: len(host.gateway.discoveries) > index, 60)
    return host.gateway.discoveries[index]


def ports_of(found: dict[str, Any]) -> set[int]:
    return {each["port"] for each in found["findings"].get("ports", [])}


async def test_the_backend_asks_and_hears_what_is_here(open_host: OpenHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with open_host() as host:
            await host.gateway.tell(Discover(AGENT_ID, "d-1", []))
            found = await discovery(host)
            assert (found["discovery_id"], found.get("base_id")) == ("d-1", None)
            assert server.getsockname()[1] in ports_of(found)
            assert set(found["findings"]) | set(found["faults"]) >= {"processes", "ports", "services", "filesystems"}
            assert "discovery" in host.gateway.registration["capabilities"]


async def test_what_is_not_discovered_here_is_refused_clearly(open_host: OpenHost) -> None:
    async with open_host(discovery=Discovery(on_startup=False, discover=DiscoverKinds(ports=False))) as host:
        await host.gateway.tell(Discover(AGENT_ID, "d-1", ["ports"]))
        await host.gateway.until(lambda: bool(host.gateway.replies))
        (error,) = host.gateway.replies
        assert (error["code"], error["about"]) == ("not_available", "d-1")
        assert error["reason"] == "none of ports is discovered here"


async def test_after_a_restart_only_what_has_changed_is_told(open_host: OpenHost) -> None:
    only_ports = DiscoverKinds(**{each.name: each.name == "ports" for each in fields(DiscoverKinds)})
    async with open_host(discovery=Discovery(True, 3600, only_ports)) as host:
        await host.gateway.tell(Discover(AGENT_ID, "d-1", []))
        first = await discovery(host)
        await host.stop()
        host.gateway.discoveries.clear()
        with socket.create_server(("127.0.0.1", 0)) as server:
            await host.start_again()
            await host.gateway.tell(Discover(AGENT_ID, "d-2", []))
            second = await discovery(host)
            assert second["base_id"] == first["discovery_id"] == "d-1"
            assert server.getsockname()[1] in ports_of(second)
            assert len(second["findings"]["ports"]) < len(first["findings"]["ports"]) + 1


async def test_commands_are_answered_while_the_host_is_looked_at(open_host: OpenHost) -> None:
    async with open_host() as host:
        await host.gateway.tell(Discover(AGENT_ID, "d-1", []))
        result = await host.gateway.run(NativeCommand("uptime"))
        assert result["success"]
        assert host.gateway.discoveries == []
        assert (await discovery(host))["discovery_id"] == "d-1"
