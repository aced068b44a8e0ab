"""The command `opsmap-gateway`, most of it as a real process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opsmap_gateway import cli
from opsmap_protocol.messages import GatewayRegistered

if TYPE_CHECKING:
    from conftest import Dial, Listen, Pki, Registration, ScriptedServer, Wire

PROGRAM = "import sys; from opsmap_gateway.cli import main; sys.exit(main())"


def write_configuration(folder: Path, pki: Pki, *, gateway_id: str = "gw-1", port: int = 0, backend: int = 1) -> Path:
    leaf = pki.gateway("gw-1")
    file = folder / "gateway.yaml"
    file.write_text(f"""\
gateway: {{id: {gateway_id}, zone: test}}
agent_server:
  bind_address: 127.0.0.1:{port}
  tls: {{cert_file: {leaf.cert}, key_file: {leaf.key}, client_ca_file: {pki.agent_ca.ca}}}
backend_connection:
  url: wss://localhost:{backend}
  tls: {{cert_file: {leaf.cert}, key_file: {leaf.key}, ca_file: {pki.backend_ca.ca}}}
agent_registry:
  persistence: {{file: registry.json}}
buffer: {{path: buffer}}
metrics: {{bind_address: "127.0.0.1:0"}}
""")
    return file


def test_check_config_accepts(tmp_path: Path, pki: Pki, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_configuration(tmp_path, pki)
    assert cli.main(["check-config", "--config", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: the configuration and its certificates are fine\n"


def test_check_config_tells_faults_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("gateway: {id: gw-1}\n")
    assert cli.main(["check-config", "--config", str(file)]) == cli.EXIT_CONFIGURATION
    assert "gateway.yaml:1: gateway.zone: is required\n" in capsys.readouterr().err


def test_check_config_tells_faults_of_the_certificates(
    tmp_path: Path, pki: Pki, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_configuration(tmp_path, pki, gateway_id="gw-2")
    assert cli.main(["check-config", "--config", str(file)]) == cli.EXIT_CONFIGURATION
    expected = f"{pki.gateway('gw-1').cert}: is the certificate of gw-1, but gateway.id is gw-2\n"
    assert capsys.readouterr().err == expected * 2


def test_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gateway.yaml"
    assert cli.main(["run", "--config", str(file)]) == cli.EXIT_CONFIGURATION
    assert capsys.readouterr().err == f"{file}: cannot be read: No such file or directory\n"


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["--version"], 0), ([], 2), (["run", "-x"], 2)])
def test_usage(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == code
    captured = capsys.readouterr()
    assert "opsmap-gateway" in captured.out + captured.err


async def start(file: Path) -> asyncio.subprocess.Process:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-c", PROGRAM, "run", "--config", str(file)),
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_stops_it_in_order(tmp_path: Path, pki: Pki, listen: Listen, number: signal.Signals) -> None:
    async with listen(pki.backend(), pki.gateway_ca.ca) as backend:
        process = await start(write_configuration(tmp_path, pki, backend=backend.port))
        link = await backend.accept()
        await link.next("gateway_register")
        process.send_signal(number)
        assert await link.close_code() == 1001
        _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert f"stopping on {number.name}" in errors.decode()
    assert (tmp_path / "registry.json").exists()


async def test_agents_hear_that_it_stops_and_it_waits_for_what_is_on_its_way(
    tmp_path: Path, pki: Pki, listen: Listen, dial: Dial, free_port: int, registration: Registration
) -> None:
    async with listen(pki.backend(), pki.gateway_ca.ca) as backend:
        process = await start(write_configuration(tmp_path, pki, port=free_port, backend=backend.port))
        link = await welcomed(backend)
        async with dial(f"wss://localhost:{free_port}/agent/", pki.agent("srv-1"), pki.gateway_ca.ca) as agent:
            await agent.send(registration("srv-1"))
            await agent.next("registered")
            await link.next("agent_online")
            process.send_signal(signal.SIGTERM)
            await link.next("goaway")
            await agent.next("goaway")
            await agent.send('{"type":"events","agent_id":"srv-1","token":"t","incarnation":"i-1","events":[]}')
            await link.next("events")
            assert await link.close_code() == 1001
            assert await agent.close_code() == 1001
        await process.communicate()
    assert process.returncode == 0


async def test_second_signal_ends_it_at_once(
    tmp_path: Path, pki: Pki, listen: Listen, dial: Dial, free_port: int, registration: Registration
) -> None:
    async with listen(pki.backend(), pki.gateway_ca.ca) as backend:
        process = await start(write_configuration(tmp_path, pki, port=free_port, backend=backend.port))
        link = await welcomed(backend)
        async with dial(f"wss://localhost:{free_port}/agent/", pki.agent("srv-1"), pki.gateway_ca.ca) as agent:
            await agent.send(registration("srv-1"))
            await agent.next("registered")
            process.send_signal(signal.SIGTERM)
            await agent.next("goaway")
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(5):
                await process.communicate()
        assert process.returncode == -signal.SIGTERM
        await link.close_code()


async def welcomed(backend: ScriptedServer) -> Wire:
    """The gateway's connection to a backend that takes it."""
    link = await backend.accept()
    await link.next("gateway_register")
    await link.send(GatewayRegistered(session_id="link-1"))
    return link


async def test_address_in_use_is_one_line(tmp_path: Path, pki: Pki, listen: Listen) -> None:
    async with listen(pki.backend(), pki.gateway_ca.ca) as occupant:
        process = await start(write_configuration(tmp_path, pki, port=occupant.port))
        _, errors = await process.communicate()
    assert process.returncode == cli.EXIT_FAILURE
    assert "cannot start: " in errors.decode()
    assert "Address already in use" in errors.decode()
    assert "Traceback" not in errors.decode()
