"""The one story of the smoke run, step by step. Every figure is what somebody at the client would have measured."""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psutil

from tests.processes import is_alive
from tests.smoke.errors import SmokeError
from tests.smoke.rest import Rest
from tests.smoke.stack import Stack
from tests.smoke.waiting import until

MAP = "trading-platform"
DATABASE = "postgresql"
DATA_AGENT, APPLICATION_AGENT = "srv-data-01", "srv-app-01"
COMMANDS = 50
OPERATION_TIMEOUT_S = 45.0
DETECT_TIMEOUT_S = 10.0
AGENT_BACK_TIMEOUT_S = 15.0


class Scenario:
    """Runs against one stack. `step` names what is being done, `figures` collects what was measured."""

    def __init__(self, stack: Stack) -> None:
        self.step = "prepare"
        self.figures: dict[str, float] = {}
        self._stack = stack
        self._began = time.monotonic()
        self._rest: Rest | None = None
        self._map_id = ""
        self._ids: dict[str, str] = {}
        self._running: dict[str, psutil.Process] = {}

    def run(self) -> None:
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            ("bring the stack up", self._bring_up),
            ("sign in", self._sign_in),
            ("find the Map", self._find_map),
            ("start the Map", self._start_map),
            ("run commands on an agent", self._run_commands),
            ("kill a database", self._kill_database),
            ("preview the repair", self._preview_repair),
            ("repair the branch", self._repair),
            ("kill an agent", self._kill_agent),
            ("stop the Map", self._stop_map),
            ("stop the stack", self._stop_stack),
            ("remove its files", self._stack.remove),
        )
        for self.step, take in steps:
            self.say(self.step)
            take()

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:6.1f} s] {text}", file=sys.stderr, flush=True)

    # Steps

    def _bring_up(self) -> None:
        with self._measured("ready_s"):
            ready = self._stack.start()
        self._rest = Rest("127.0.0.1", ready["ports"]["web"])
        survivors = self._stack.survivors()
        # Else the checks that nothing is left could not fail.
        _expect(len(survivors) >= 9, f"at least 9 processes of the stack, found {len(survivors)}")

    def _sign_in(self) -> None:
        credentials = self._stack.credentials()
        token = self._api.post("/auth/tokens", {**_only(credentials, "email", "password"), "name": "smoke"})
        self._api.token = token["token"]
        session = self._api.get("/auth/session")
        _expect(session["user"]["email"] == credentials["email"], f"a session of {credentials['email']}")

    def _find_map(self) -> None:
        found = [each for each in self._api.get("/maps")["results"] if each["slug"] == MAP]
        _expect(len(found) == 1, f"one Map '{MAP}', found {len(found)}")
        self._map_id = found[0]["id"]
        view = self._view()
        self._ids = {component["name"]: component["id"] for component in view["components"]}
        _expect(len(self._ids) >= 12, f"at least 12 components, found {len(self._ids)}")
        _expect(len(view["groups"]) == 4, f"4 groups, found {len(view['groups'])}")
        offline = [each["name"] for each in view["components"] if not (each["agent"] and each["agent"]["isOnline"])]
        _expect(not offline, f"an agent online for every component, none for {offline}")

    def _start_map(self) -> None:
        _expect(not self._stack.demonstration(), "nothing of the demonstration runs before it is started")
        with self._measured("start_map_s"):
            operation = self._operate("start")
            self._wait_for_states("running", timeout_s=OPERATION_TIMEOUT_S)
        finished = self._finish(operation)
        self._check_order(finished)
        self._running = self._processes()

    def _run_commands(self) -> None:
        agent = self._agent_id(DATA_AGENT)
        durations = []
        for _ in range(COMMANDS):
            began = time.perf_counter()
            self._uptime(agent)
            durations.append((time.perf_counter() - began) * 1000)
        self._record("command_ms_p50", statistics.median(durations))

    def _kill_database(self) -> None:
        with self._measured("detect_ms"):
            os.kill(self._running[DATABASE].pid, signal.SIGKILL)
            until(
                lambda: self._states()[DATABASE] == "failed",
                timeout_s=DETECT_TIMEOUT_S,
                what=f"the Map shows {DATABASE} as failed",
                poll_s=0.02,
            )

    def _preview_repair(self) -> None:
        branch = self._branch()
        untouched = set(self._ids) - branch
        _expect(
            len(branch) > 3 and len(untouched) > 3,
            f"a branch that is neither all nor nothing: {sorted(branch)}",
        )
        before = self._processes(untouched)
        plan = self._api.post(f"/maps/{self._map_id}/operations", {"kind": "repair", "components": [], "dryRun": True})
        _expect(plan["isExecutable"], f"a plan that can be executed; problems: {plan['problems']}")
        planned = {step["component"]["name"] for step in plan["steps"]}
        _expect(planned == branch, f"steps for {sorted(branch)}, found {sorted(planned)}")
        listed = {component["name"] for component in plan["untouched"]}
        _expect(listed == untouched, f"{sorted(untouched)} as untouched, found {sorted(listed)}")
        _expect(self._processes(untouched) == before, "a dry run that touches no process")
        _expect(self._stack.component(DATABASE) is None, "a dry run that starts nothing")

    def _repair(self) -> None:
        branch = self._branch()
        with self._measured("repair_s"):
            operation = self._operate("repair")
            self._finish(operation)
            self._wait_for_states("running", timeout_s=OPERATION_TIMEOUT_S)
        now = self._processes()
        moved = {name for name in self._ids if now[name] != self._running[name]}
        _expect(moved == branch, f"new processes for exactly {sorted(branch)}, found {sorted(moved)}")
        self._running = now

    def _kill_agent(self) -> None:
        old = self._stack.agent(APPLICATION_AGENT)
        if old is None:
            raise SmokeError(f"no process of the agent {APPLICATION_AGENT}")
        agent = self._agent_id(APPLICATION_AGENT)
        os.kill(old.pid, signal.SIGKILL)
        until(lambda: not is_alive(old), timeout_s=2, what="the agent is dead")
        _expect(self._processes() == self._running, "every process of the application outlives its agent")
        new = until(
            lambda: self._stack.agent(APPLICATION_AGENT),
            timeout_s=AGENT_BACK_TIMEOUT_S,
            what="the supervisor starts the agent again",
        )
        _expect(new != old, "another process for the agent")
        until(lambda: self._is_online(agent), timeout_s=AGENT_BACK_TIMEOUT_S, what="the new agent is online")
        self._uptime(agent)
        self._wait_for_states("running", timeout_s=AGENT_BACK_TIMEOUT_S)
        _expect(
            self._processes() == self._running,
            "the same processes of the application after the agent is back",
        )
        # Written by a process that the killed agent launched: the new one has found it again.
        log = self._api.get(f"/components/{self._ids['trading-api']}/log?bytes=16384")
        _expect("listening on" in log["text"], f"the log of trading-api, found {log['text'][-200:]!r}")

    def _stop_map(self) -> None:
        operation = self._operate("stop")
        self._finish(operation)
        self._wait_for_states("stopped", timeout_s=OPERATION_TIMEOUT_S)
        until(
            lambda: not any(is_alive(process) for process in self._running.values()),
            timeout_s=3,
            what="the processes that were started have ended",
        )
        until(
            lambda: not self._stack.demonstration(),
            timeout_s=3,
            what="no process of the demonstration is left",
        )

    def _stop_stack(self) -> None:
        self._api.close()
        self._stack.stop()

    # What the steps are made of

    @property
    def _api(self) -> Rest:
        assert self._rest is not None
        return self._rest

    def _view(self) -> Any:
        return self._api.get(f"/maps/{self._map_id}")

    def _states(self) -> dict[str, str]:
        return {component["name"]: component["state"] for component in self._view()["components"]}

    def _wait_for_states(self, wanted: str, *, timeout_s: float) -> None:
        states: dict[str, str] = {}

        def are_reached() -> bool:
            nonlocal states
            states = self._states()
            return set(states.values()) == {wanted}

        try:
            until(are_reached, timeout_s=timeout_s, what=f"every component is {wanted}")
        except SmokeError as error:
            rest = {name: state for name, state in states.items() if state != wanted}
            raise SmokeError(f"{error}; still {rest}") from error

    def _branch(self) -> set[str]:
        """The database and all that needs it, directly or not: worked out here, to compare with what OpsMap says."""
        names = {identifier: name for name, identifier in self._ids.items()}
        needed_by: dict[str, set[str]] = {}
        for dependency in self._view()["dependencies"]:
            if dependency["kind"] == "strong":
                needed_by.setdefault(names[dependency["to"]], set()).add(names[dependency["from"]])
        branch, ahead = {DATABASE}, [DATABASE]
        while ahead:
            found = needed_by.get(ahead.pop(), set()) - branch
            branch |= found
            ahead += found
        return branch

    def _processes(self, names: set[str] | None = None) -> dict[str, psutil.Process]:
        """The live process of each component; it is a failure if one has none."""
        found = {name: self._stack.component(name) for name in names or self._ids}
        missing = [name for name, process in found.items() if process is None]
        _expect(not missing, f"a process for every component, none for {missing}")
        return {name: process for name, process in found.items() if process is not None}

    def _operate(self, kind: str) -> str:
        body = {"kind": kind, "components": [], "dryRun": False, "reason": "smoke"}
        return str(self._api.post(f"/maps/{self._map_id}/operations", body)["id"])

    def _finish(self, operation_id: str) -> Any:
        """Wait until the operation is over; it must have succeeded."""

        def over() -> Any:
            operation = self._api.get(f"/operations/{operation_id}")
            return operation if operation["state"] != "running" else None

        operation = until(over, timeout_s=OPERATION_TIMEOUT_S, what="the operation is over", poll_s=0.1)
        if operation["state"] != "succeeded":
            steps = [
                f"{step['action']} {step['component']['name']}: {step['state']} {step['detail'] or ''}".strip()
                for step in operation["steps"]
                if step["state"] != "succeeded"
            ]
            raise SmokeError(f"the operation {operation['state']}: {'; '.join(steps)}")
        return operation

    def _check_order(self, operation: Any) -> None:
        """No component was started before everything that it needs was up."""
        steps = {step["component"]["id"]: step for step in operation["steps"]}
        names = {identifier: name for name, identifier in self._ids.items()}
        for dependency in self._view()["dependencies"]:
            first, then = steps[dependency["to"]], steps[dependency["from"]]
            pair = f"{names[dependency['from']]} after {names[dependency['to']]}"
            _expect(_time(first["finishedAt"]) <= _time(then["startedAt"]), f"the start of {pair}")

    def _agent_id(self, name: str) -> str:
        found = [agent["id"] for agent in self._api.get("/agents")["results"] if agent["agentId"] == name]
        _expect(len(found) == 1, f"one agent '{name}', found {len(found)}")
        return str(found[0])

    def _is_online(self, agent_id: str) -> bool:
        return any(agent["id"] == agent_id and agent["isOnline"] for agent in self._api.get("/agents")["results"])

    def _uptime(self, agent_id: str) -> None:
        """One native command from the call to its stored result."""
        command = self._api.post(
            f"/agents/{agent_id}/commands?wait=5",
            {"command": {"type": "native", "name": "uptime", "params": {}}, "timeoutMs": 5000},
        )
        deadline = time.monotonic() + 10
        while command["finishedAt"] is None and time.monotonic() < deadline:
            command = self._api.get(f"/commands/{command['id']}?wait=5")
        _expect(command["state"] == "succeeded", f"uptime succeeds, found {command['state']}: {command['detail']}")
        _expect(bool(command["result"]), "a result of uptime")

    @contextmanager
    def _measured(self, figure: str) -> Iterator[None]:
        """Record how long the body took, in the unit that the figure's name ends with."""
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self._record(figure, seconds * 1000 if figure.endswith("_ms") else seconds)

    def _record(self, figure: str, value: float) -> None:
        self.figures[figure] = round(value, 1 if "_ms" in figure else 2)
        self.say(f"  {figure} = {self.figures[figure]}")


def _expect(is_so: bool, expectation: str) -> None:
    if not is_so:
        raise SmokeError(f"expected {expectation}")


def _only(values: dict[str, str], *names: str) -> dict[str, str]:
    return {name: values[name] for name in names}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
