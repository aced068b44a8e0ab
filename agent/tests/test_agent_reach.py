"""Where an agent connects to when a check or command tells it: never to the credentials of its own cloud machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from opsmap_agent.checks.completion import CheckRunner
from opsmap_agent.checks.health import ProbeAsker
from opsmap_agent.checks.probes import Prober
from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.commands.sync import SyncRunner
from opsmap_agent.configuration import Checks, Configuration
from opsmap_agent.rules.policy import Policy
from opsmap_agent.rules.reach import Reach, as_address, embedded
from opsmap_daemon.configuration import ConfigurationError, load
from opsmap_protocol.checks import HealthCheck, HttpHealthy, HttpProbe, PortOpen, TcpProbe
from opsmap_protocol.enums import HealthStatus
from opsmap_protocol.specs import NativeCommand

if TYPE_CHECKING:
    from conftest import OpenHost

METADATA = "169.254.169.254"


class Resolver:
    """A resolver that gives each question the next of its answers; what it was asked is in `asked`."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return list(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])


@pytest.mark.parametrize(
    "host",
    [
        METADATA,
        "169.254.170.2",
        "[::ffff:169.254.169.254]",
        "::ffff:a9fe:a9fe",
        "::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "fd00:0ec2:0:0::0254",
        "fd20:ce::254",
        "100.100.100.200",
        "168.63.129.16",
        # The spellings below are read by the system's resolver.
        "2852039166",
        "0xA9FEA9FE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.16689662",
        "0xa9.0xfe.0xa9.0xfe",
        "00251.254.0xa9.254",
    ],
)
async def test_metadata_is_closed_in_every_spelling(host: str) -> None:
    for reach in (Reach(), Reach(["*"]), Reach(["0.0.0.0/0", "::/0", "169.254.1.1"])):
        with pytest.raises(RejectedError, match=r"is refused: clouds keep the credentials"):
            await reach.addresses(host, 80)


@pytest.mark.parametrize("answer", [METADATA, "::ffff:169.254.169.254", "fd00:ec2::254", "fe80::1%eth0"])
async def test_metadata_is_closed_by_any_name(answer: str) -> None:
    for allowed in ([], ["metadata.example"], ["*"]):
        with pytest.raises(RejectedError, match=r"connecting to metadata\.example \(.*\) is refused: clouds"):
            await Reach(allowed, Resolver([answer])).addresses("metadata.example", 80)


@pytest.mark.parametrize("entry", [METADATA, "169.254.169.0/24", "169.254.0.0/16"])
async def test_metadata_is_open_to_an_entry_of_its_own(entry: str) -> None:
    assert await Reach([entry]).addresses(METADATA, 80) == [METADATA]
    assert await Reach([entry], Resolver([METADATA])).addresses("md.example", 80) == [METADATA]
    mapped = "::ffff:169.254.169.254"
    assert await Reach([entry]).addresses(mapped, 80) == [mapped]


async def test_of_several_addresses_the_closed_ones_are_left_out() -> None:
    assert await Reach([], Resolver([METADATA, "10.0.0.1"])).addresses("x.example", 80) == ["10.0.0.1"]


async def test_everything_else_is_open_without_a_list() -> None:
    for host in ("127.0.0.1", "10.1.2.3", "::1", "2001:db8::1", "100.100.100.201", "169.253.1.1"):
        assert await Reach().addresses(host, 80) == [host]
    assert await Reach().addresses("LOCALHOST.", 80) == ["127.0.0.1", "::1"]


@pytest.mark.parametrize(
    ("allowed", "host", "addresses", "is_allowed"),
    [
        (["*.example.com"], "db.EXAMPLE.com.", ["10.0.0.1"], True),
        (["*.example.com"], "example.com", ["10.0.0.1"], False),
        (["*.example.com"], "db.example.com.evil.net", ["10.0.0.1"], False),
        (["db?.example.com"], "db1.example.com", ["10.0.0.1"], True),
        (["10.0.0.0/8"], "anything.net", ["10.9.9.9"], True),
        (["10.0.0.0/8"], "anything.net", ["11.0.0.1"], False),
        (["10.0.0.0/8"], "10.1.1.1", [], True),
        (["10.0.0.0/8"], "::ffff:10.1.1.1", [], True),
        (["2001:db8::/32"], "2001:db8::5", [], True),
        (["10.0.0.5"], "10.0.0.6", [], False),
        (["*.example.com"], "localhost", [], False),
        (["localhost"], "localhost", [], True),
        (["127.0.0.0/8"], "localhost", [], True),
        (["localhost"], "127.0.0.1", [], False),
    ],
)
async def test_list(allowed: list[str], host: str, addresses: list[str], is_allowed: bool) -> None:
    reach = Reach(allowed, Resolver(addresses))
    if is_allowed:
        assert await reach.addresses(host, 80)
        return
    with pytest.raises(RejectedError, match=r"is not allowed by checks\.allowed_hosts"):
        await reach.addresses(host, 80)


def test_what_an_address_stands_for() -> None:
    for text, inside in (("::ffff:1.2.3.4", "1.2.3.4"), ("2002:102:304::", "1.2.3.4"), ("64:ff9b::1.2.3.4", "1.2.3.4")):
        address = as_address(text)
        assert address is not None
        assert [str(each) for each in embedded(address)][1:] == [inside]
    for text in ("::1", "2001:db8::1", "1.2.3.4"):
        address = as_address(text)
        assert address is not None
        assert len(embedded(address)) == 1


# Connections


@asynccontextmanager
async def server(answer: bytes = b"HTTP/1.1 200 OK\r\n\r\nUP") -> AsyncIterator[tuple[int, list[str]]]:
    """Answers everybody on 127.0.0.1; gives its port, and a list that fills with the Host headers it hears."""
    heard: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            heard.append(head.partition("Host: ")[2].partition("\r\n")[0])
            writer.write(answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            heard.append("")
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], heard


def prober(configuration: Configuration, reach: Reach, executor: ThreadPoolExecutor) -> Prober:
    return Prober(Policy(configuration), SyncRunner(executor, 1000), executor, reach)


async def test_name_is_looked_up_once_and_its_address_connected_to(
    agent_configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the first answer is harmless, the second would be the metadata service."""
    asked: list[Any] = []
    lookup = socket.getaddrinfo

    def rebinding(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        if host != "rebind.example":
            return lookup(host, port, *rest, **options)
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else METADATA
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    async with server() as (port, heard):
        with ThreadPoolExecutor(1) as executor:
            looking = prober(agent_configuration, Reach(), executor)
            answer = await looking.http(f"http://rebind.example:{port}/health")
            assert not isinstance(answer, str)
            assert (answer.status, answer.body) == (200, "UP")
            assert heard == [f"rebind.example:{port}"], "the server hears the name, as before"
            assert asked == ["rebind.example"]
            with pytest.raises(RejectedError, match=r"rebind\.example \(169\.254\.169\.254\) is refused"):
                await looking.http(f"http://rebind.example:{port}/health")
            with pytest.raises(RejectedError, match="is refused"):
                await looking.port("rebind.example", port)


async def test_redirects_are_not_followed(agent_configuration: Configuration) -> None:
    redirect = f"HTTP/1.1 302 Found\r\nLocation: http://{METADATA}/\r\nContent-Length: 0\r\n\r\n".encode()
    async with server(redirect) as (port, _):
        with ThreadPoolExecutor(1) as executor:
            answer = await prober(agent_configuration, Reach(), executor).http(f"http://127.0.0.1:{port}/")
            assert not isinstance(answer, str)
            assert answer.status == 302


async def test_checks_that_are_not_allowed_say_so(agent_configuration: Configuration) -> None:
    with ThreadPoolExecutor(1) as executor:
        looking = prober(agent_configuration, Reach(["*.example.com"]), executor)
        for check in (HttpHealthy("http://127.0.0.1:1/"), PortOpen(1, host="127.0.0.1")):
            result = await CheckRunner(looking).evaluate(check)
            assert not result.passed
            assert "not allowed by checks.allowed_hosts" in result.details["error"]
        for probe in (HttpProbe(f"http://{METADATA}/latest/meta-data/"), TcpProbe(80, host=METADATA)):
            status, details = await ProbeAsker(looking).ask(HealthCheck("c", probe), True)
            assert status is HealthStatus.UNHEALTHY
            assert "is refused: clouds keep the credentials" in details["error"]


async def test_native_commands_keep_to_it_too(open_host: OpenHost) -> None:
    async with open_host(checks=Checks(["127.0.0.1"])) as host:
        for name, params in (
            ("port_check", {"host": METADATA, "port": 80}),
            ("http_check", {"url": f"http://{METADATA}/", "insecure": True}),
            ("http_check", {"url": "http://127.0.0.2:1/"}),
        ):
            refused = await host.gateway.run(NativeCommand(name, params))
            assert refused["outcome"] == "rejected", refused
        async with server() as (port, _):
            seen = await host.gateway.run(NativeCommand("port_check", {"host": "127.0.0.1", "port": port}))
            assert seen["result"]["reachable"]


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "http://example.com", "example.com:80", "1.2.3.4.5", "a b"])
def test_entries_that_can_match_nothing_are_faults(tmp_path: Path, entry: str) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(f'checks: {{allowed_hosts: ["*.ok.example", "10.0.0.0/8", "fd00::/8", "localhost", "{entry}"]}}\n')
    with pytest.raises(ConfigurationError) as caught:
        load(file, Configuration)
    assert [fault for fault in caught.value.faults if "allowed_hosts" in fault] == [
        fault for fault in caught.value.faults if entry in fault
    ]
    assert any(entry in fault for fault in caught.value.faults)
