"""Identity from its first day to its last, in real processes: tokens, certificates, rotations, revocation.

All certificates live so short that they change while the tests run.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.rotation import rotate, rotating_world
from deploy.embedded.ports import HOST, LINK, WEB, free_ports
from opsmap_daemon.enrolment import EXIT_REFUSED, as_yaml
from tests.world import World

pytestmark = pytest.mark.processes

LIFE_S = 30
ROTATIONS = 3
WAIT_S = 30.0
REVOCATION_S = 10.0


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with rotating_world(agents=2, gateways=1, life_s=LIFE_S) as world:
        yield world


class Site:
    """A new zone: its gateway and its one host, with a folder each."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.rest = world.rest()
        self.ports = dict(zip(("agents", "door"), free_ports(2), strict=True))
        self.link_url = f"wss://{HOST}:{world.ports[LINK]}"
        self.gateway_url = f"wss://localhost:{self.ports['agents']}"

    def token(self, role: str, **fields: object) -> str:
        return str(self.rest.post("/enrolment-tokens", {"role": role, **fields})["token"])

    def enroll_gateway(self, token: str, *extra: str) -> subprocess.CompletedProcess[str]:
        backend = f"http://{HOST}:{self.world.ports[WEB]}"
        given = ("--backend", backend, "--id", "gw-new", "--hostname", "localhost", "--link", self.link_url, *extra)
        return self._enroll("gateway", token, given)

    def enroll_agent(self, token: str, *extra: str) -> subprocess.CompletedProcess[str]:
        door = f"wss://localhost:{self.ports['door']}"
        given = ("--gateway", door, "--id", "srv-new", "--connect-to", self.gateway_url, *extra)
        return self._enroll("agent", token, given)

    def configure(self) -> None:
        """What the files that enrolment has written lack to run beside others on one machine."""
        gateway = self._config("gateway")
        text = gateway.read_text().replace('"0.0.0.0:8443"', f'"{HOST}:{self.ports["agents"]}"')
        opened = f'enabled: true\n    bind_address: "{HOST}:{self.ports["door"]}"'
        folder = self.folder / "state"
        gateway.write_text(
            text.replace("enabled: false", opened)
            + as_yaml(
                {
                    "metrics": {"enabled": False},
                    "agent_registry": {"persistence": {"file": folder / "registry.json"}},
                    "buffer": {"path": folder / "gateway"},
                }
            )
        )

    def configure_agent(self) -> None:
        folder = self.folder / "state"
        own = {"buffer": {"path": folder / "agent"}, "detached_execution": {"log_dir": folder / "jobs"}}
        with self._config("agent").open("a") as stream:
            stream.write(as_yaml(own) + f"watchdog:\n  pid_file: {folder / 'agent.pid'}\n")

    @contextmanager
    def running(self, role: str) -> Iterator[Path]:
        """The daemon until the end of the block; its log."""
        log = self.folder / f"{role}.log"
        with log.open("ab") as stream:
            arguments = [_program(role), "run", "--config", str(self._config(role))]
            process = subprocess.Popen(arguments, stdout=stream, stderr=subprocess.STDOUT)
        try:
            yield log
        finally:
            process.terminate()
            process.wait(WAIT_S)

    def _enroll(self, role: str, token: str, given: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        arguments = [_program(role), "enroll", *given, "--token-file", "-", "--config", str(self._config(role))]
        return subprocess.run(arguments, input=token, capture_output=True, text=True, check=False, timeout=WAIT_S)

    def _config(self, role: str) -> Path:
        return self.folder / f"{role}.yaml"


def _program(role: str) -> str:
    return str(Path(sys.executable).with_name(f"opsmap-{role}"))


def until_says(log: Path, text: str, timeout_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while text not in log.read_text():
        assert time.monotonic() < deadline, f"{text!r} is not in\n{log.read_text()}"
        time.sleep(0.05)


def test_from_tokens_to_a_command_and_to_revocation(world: World, tmp_path: Path) -> None:
    site = Site(world, tmp_path)
    for_gateway = site.token("gateway", zone="lab")
    done = site.enroll_gateway(for_gateway)
    assert (done.returncode, "enrolled as gateway gw-new" in done.stdout) == (0, True), done
    assert for_gateway not in done.stdout + done.stderr

    again = site.enroll_gateway(for_gateway, "--force")
    assert again.returncode == EXIT_REFUSED, again
    assert "token" in again.stderr

    site.configure()
    with site.running("gateway") as gateway_log:
        until_says(gateway_log, "connected to the backend")
        for_agent = site.token("agent", namePattern="srv-*", maxUses=1)
        wrong_role = site.enroll_agent(site.token("gateway"))
        assert wrong_role.returncode == EXIT_REFUSED, wrong_role
        done = site.enroll_agent(for_agent)
        assert (done.returncode, "enrolled as agent srv-new" in done.stdout) == (0, True), done
        replayed = site.enroll_agent(for_agent, "--force")
        assert replayed.returncode == EXIT_REFUSED, replayed
        assert for_agent not in gateway_log.read_text() + replayed.stderr

        site.configure_agent()
        with site.running("agent") as agent_log:
            world.wait_online(["srv-new"])
            row = world.row_ids["srv-new"]
            body = {"command": {"type": "native", "name": "uptime", "params": {}}}
            assert site.rest.post(f"/agents/{row}/commands?wait=10", body)["state"] == "succeeded"

            site.rest.post(f"/agents/{row}/revoke", {"reason": "the host was sold"})
            until_says(agent_log, "our certificate was revoked (the host was sold)", REVOCATION_S)
            assert "srv-new" not in world.online()
        with site.running("agent") as agent_log:
            # Nobody lets it in again, and it does not ask twice.
            deadline = time.monotonic() + WAIT_S
            while agent_log.read_text().count("was revoked") < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert agent_log.read_text().count("was revoked") == 2
            assert "srv-new" not in world.online()


def test_rotations_fail_no_command(world: World) -> None:
    """The measurement is `make bench-rotation`, with more of everything."""
    figures = rotate(world, ROTATIONS, max_s=3 * LIFE_S)
    assert int(str(figures["rotations"])) >= ROTATIONS, figures
    assert int(str(figures["commands"])) > 20, figures
    assert figures["failed"] == 0, figures
