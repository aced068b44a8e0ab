"""The world itself: it comes up, its processes can be ended and started, and nothing of it is left."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.embedded.stack import ROOT
from tests.processes import Kin, is_alive
from tests.world import World, WorldError
from tests.world.configuration import merged

pytestmark = pytest.mark.processes

OWNER = """
import os, sys
from tests.world import World
world = World(gateways=1, agents=0)
world.start()
print(world.folder, *[process.pid for process in world.processes().values()], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(gateways=1, agents=1) as world:
        yield world
        world.stop()
    assert not world.folder.exists()


def test_the_agent_carries_out_a_command(world: World) -> None:
    rest = world.rest()
    body = {"command": {"type": "native", "name": "uptime", "params": {}}}
    assert rest.post(f"/agents/{world.row_ids['host-001']}/commands?wait=10", body)["state"] == "succeeded"


def test_a_killed_server_is_back_with_its_data(world: World) -> None:
    before = world.postgres.pid
    world.postgres.kill()
    assert world.postgres.returncode == -9
    world.postgres.start()
    assert world.postgres.pid != before
    with world.database() as database:
        assert database.execute("SELECT count(*) FROM gateways_gateway").fetchone() == (1,)


def test_a_frozen_process_is_alive_and_goes_on(world: World) -> None:
    gateway = world.gateways["gateway-1"]
    gateway.pause()
    assert gateway.is_alive
    assert psutil.Process(gateway.pid).status() == psutil.STATUS_STOPPED
    gateway.resume()
    assert psutil.Process(gateway.pid).status() != psutil.STATUS_STOPPED


def test_a_process_that_cannot_start_says_why(world: World) -> None:
    agent = world.agents["host-001"]
    agent.kill()
    world.agent_settings = {"buffer": {"no_such_key": 1}}
    with pytest.raises(WorldError, match="no_such_key"):
        agent.start()
    world.agent_settings = {}
    agent.start()
    with pytest.raises(WorldError, match="already runs"):
        agent.start()


def test_nothing_is_left_when_the_owner_is_killed() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    folder, *pids = owner.stdout.readline().split()
    processes = [psutil.Process(int(pid)) for pid in pids]
    assert len(processes) == 7
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 20
    while any(is_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        assert not [process for process in processes if is_alive(process)]
    finally:
        Kin(Path(folder)).kill()
        subprocess.run(["rm", "-r", "--", folder], check=True)


def test_settings_are_merged_at_every_depth() -> None:
    assert merged({"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"c": [2]}, "e": 3}) == {
        "a": {"b": 1, "c": [2]},
        "d": 2,
        "e": 3,
    }
