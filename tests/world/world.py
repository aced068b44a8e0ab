"""The world: which processes there are, how they find each other, and in which order they start and stop."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from deploy.embedded import postgres, valkey
from deploy.embedded.ports import GATEWAY, HOST, LINK, WEB, free_ports
from deploy.embedded.process import ProcessSpec
from deploy.embedded.services import DATABASE_URL, REDIS_URL, SECRET_KEY, without_secrets
from deploy.embedded.stack import ROOT, Stack
from deploy.embedded.state import StateFolder
from tests.guard import Guard
from tests.processes import Kin, describe
from tests.smoke.rest import Rest
from tests.world import configuration
from tests.world.configuration import Settings
from tests.world.process import POLL_S, IsReady, WorldError, WorldProcess, Wrap
from tests.world.services import Services

ONLINE_TIMEOUT_S = 60.0
HALF_LABEL = "half"
"""Every agent has it, `a` or `b` in turn: something to select by."""


class World:
    """One installation. A `with` statement starts it, stops and removes it; or do so by `start`, `stop` and `abandon`.

    Args:
        gateways: how many, of one zone: `gateway-1`, `gateway-2`, …
        agents: how many hosts: `host-001`, …; each holds sessions to the gateways as its configuration says.
        agents_per_process: 1 runs the program `opsmap-agent` for each; more put so many agents into one process of
            `bench.fleet`, which is named `fleet-1`, … and found in `agents`.
        wrap: changes what is run, at each start of each process.
        agent_settings, gateway_settings: keys on top of the usual configuration files.
        journals: where the agents' journals are, instead of their own folders; for example on another file system.
        parent: where the temporary folder is made. A short path: it holds Unix sockets.
        backend_environment: variables for web, link server, worker and beat.
    """

    def __init__(
        self,
        *,
        gateways: int = 2,
        agents: int = 4,
        agents_per_process: int = 1,
        wrap: Wrap | None = None,
        agent_settings: Settings | None = None,
        gateway_settings: Settings | None = None,
        journals: Path | None = None,
        parent: Path | None = None,
        backend_environment: Mapping[str, str] | None = None,
    ) -> None:
        self.gateway_ids = [f"gateway-{number}" for number in range(1, gateways + 1)]
        self.host_ids = [f"host-{number:03}" for number in range(1, agents + 1)]
        self.folder = Path(tempfile.mkdtemp(prefix="opsmap-world-", dir=parent))
        if os.geteuid() == 0:
            # PostgreSQL's account has to get through; it cannot list what is in it.
            self.folder.chmod(0o711)
        self.state = StateFolder.create(self.folder / "state")
        self.logs = self.folder / "logs"
        self.logs.mkdir()
        names = [WEB, LINK, *self.gateway_ids]
        self.ports: dict[str, int] = dict(zip(names, free_ports(len(names)), strict=True))
        self.link_urls = {name: configuration.default_link_url(self.ports) for name in self.gateway_ids}
        """Where each gateway finds the link server. Change it, and it counts from the gateway's next start on."""
        urls = [configuration.default_gateway_url(self.ports, name) for name in self.gateway_ids]
        self.gateway_urls = {name: list(urls) for name in self.host_ids}
        """Where each agent finds its gateways; likewise."""
        self.agent_settings: Settings = agent_settings or {}
        self.gateway_settings: Settings = gateway_settings or {}
        self.token = ""
        """The owner's, for the REST API."""
        self.organization_id = ""
        self.row_ids: dict[str, str] = {}
        """The id in the API of each host, known once it is online."""

        self._wrap = wrap
        self._journals = journals or self.state.path / "journals"
        self._backend_environment = backend_environment or {}
        self._kin = Kin(self.folder)
        self._guard: Guard | None = None
        self._clients: list[Rest] = []
        self._services = Services.at(self.state, self.logs / "initdb.log")
        self.environment: Mapping[str, str] = self._make_environment()
        """Of a backend process: database, broker, secret key, certificates, addresses."""

        self.postgres = self._process(postgres.NAME, self._services.postgres, self._services.is_postgres_ready)
        self.valkey = self._process(valkey.NAME, self._services.valkey, self._services.is_valkey_ready)
        self.web = self._backend("web", self._does_web_answer)
        self.link = self._backend("link", lambda process: _is_listening(self.ports[LINK]))
        self.worker = self._backend("worker", lambda process: " ready." in process.log_text())
        self.beat = self._backend("beat", lambda process: "beat: Starting" in process.log_text())
        self.gateways = {name: self._gateway(name) for name in self.gateway_ids}
        groups = [self.host_ids[at : at + agents_per_process] for at in range(0, agents, agents_per_process)]
        if agents_per_process == 1:
            self.agents = {name: self._agent(name) for name in self.host_ids}
        else:
            self.agents = {f"fleet-{number}": self._fleet(number, group) for number, group in enumerate(groups, 1)}

    # Its life

    def __enter__(self) -> World:
        try:
            self.start()
        except BaseException:
            self._give_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._give_up()
            return
        try:
            self.stop()
        finally:
            self.abandon()

    def start(self) -> None:
        """Everything, until every agent is online."""
        self._guard = Guard(self._kin, self.folder)
        self._start_all((self.postgres, self.valkey))
        self._prepare()
        self._start_all((self.web, self.link))
        self._start_all(self.gateways.values())
        self._start_all((*self.agents.values(), self.worker, self.beat))
        self.wait_online()

    def processes(self) -> dict[str, WorldProcess]:
        """All by name, in the order in which they stop."""
        backend = (self.worker, self.beat, self.link, self.web, self.valkey, self.postgres)
        return {each.name: each for each in (*self.agents.values(), *self.gateways.values(), *backend)}

    def stop(self) -> None:
        """End all in order; raises WorldError if then anything is left that belonged to it.

        Detached jobs outlive their agents by design: whoever starts any waits for their end first.
        """
        for group in (self.agents.values(), self.gateways.values(), (self.worker, self.beat), (self.link, self.web)):
            _terminate_all(group)
        _terminate_all((self.valkey, self.postgres))
        self._dismiss_guard()
        if left := [describe(process) for process in self._kin.survivors()]:
            raise WorldError(f"processes are left: {'; '.join(left)}")

    def abandon(self) -> None:
        """End everything at once, whatever state it is in, and remove its files."""
        for client in self._clients:
            client.close()
        for process in self.processes().values():
            process.resume()
        self.postgres.terminate()
        for process in self.processes().values():
            process.kill()
        self._dismiss_guard()
        self._kin.kill()
        self._remove()

    def keep_logs(self) -> Path:
        """Copy the logs to where they outlive the world; the new folder."""
        kept = Path(tempfile.mkdtemp(prefix="opsmap-world-logs-"))
        shutil.copytree(self.logs, kept, dirs_exist_ok=True)
        return kept

    # Its use

    def rest(self, *, timeout_s: float = 15.0) -> Rest:
        """A client of its own connection, with the owner's token; closed with the world if nobody did before."""
        client = Rest(HOST, self.ports[WEB], timeout_s=timeout_s)
        client.token = self.token
        self._clients.append(client)
        return client

    def database(self) -> psycopg.Connection[Any]:
        """A connection of its own, which commits each statement."""
        return psycopg.connect(self.environment[DATABASE_URL], autocommit=True)

    def online(self) -> set[str]:
        """The hosts that the backend has a session with."""
        with self.database() as database:
            rows = database.execute("SELECT id, agent_id, session_id FROM gateways_agent").fetchall()
        self.row_ids.update({agent_id: str(row_id) for row_id, agent_id, _ in rows})
        return {agent_id for _, agent_id, session_id in rows if session_id is not None}

    def wait_online(self, hosts: Iterable[str] | None = None, *, timeout_s: float = ONLINE_TIMEOUT_S) -> None:
        """Until these hosts, or all, are online. Raises WorldError if that takes too long."""
        wanted = set(self.host_ids if hosts is None else hosts)
        deadline = time.monotonic() + timeout_s
        while missing := wanted - self.online():
            if time.monotonic() > deadline:
                names = ", ".join(sorted(missing)[:10])
                raise WorldError(f"{len(missing)} not online after {timeout_s:g} s: {names}\n{self.link.log_tail()}")
            time.sleep(POLL_S * 5)

    # What it consists of

    def _process(self, name: str, make_spec: Callable[[], ProcessSpec], is_ready: IsReady) -> WorldProcess:
        def wrapped() -> ProcessSpec:
            spec = make_spec()
            return self._wrap(spec) if self._wrap else spec

        log = self.logs / f"{name}.log"
        return WorldProcess(name, wrapped, is_ready, log=log, environment=self._kin.environment)

    def _backend(self, name: str, is_ready: IsReady) -> WorldProcess:
        return self._process(name, lambda: self._spec_of_stack(name), is_ready)

    def _gateway(self, name: str) -> WorldProcess:
        def make_spec() -> ProcessSpec:
            path = configuration.write_gateway(
                self.state, name, ports=self.ports, link_url=self.link_urls[name], settings=self.gateway_settings
            )
            return _with_configuration(self._spec_of_stack("gateway"), name, path)

        return self._process(name, make_spec, lambda process: _is_listening(self.ports[name]))

    def _agent(self, name: str) -> WorldProcess:
        def make_spec() -> ProcessSpec:
            any_agent = next(each.spec for each in self._stack.daemons() if each.spec.argv[0].endswith("opsmap-agent"))
            return _with_configuration(any_agent, name, self._write_agent(name))

        return self._process(name, make_spec, lambda process: self._holds_journal(process, [name]))

    def _fleet(self, number: int, hosts: list[str]) -> WorldProcess:
        name = f"fleet-{number}"

        def make_spec() -> ProcessSpec:
            paths = [str(self._write_agent(host)) for host in hosts]
            argv = (sys.executable, "-m", "bench.fleet", *paths)
            return ProcessSpec(name, argv, without_secrets(self.environment), cwd=ROOT)

        return self._process(name, make_spec, lambda process: self._holds_journal(process, hosts))

    @property
    def _stack(self) -> Stack:
        return Stack(self.state, {**self.ports, GATEWAY: 0}, self.environment)

    def _spec_of_stack(self, name: str) -> ProcessSpec:
        return next(each.spec for each in self._stack.daemons() if each.spec.name == name)

    def _write_agent(self, name: str) -> Path:
        half = "ab"[self.host_ids.index(name) % 2]
        return configuration.write_agent(
            self.state,
            name,
            labels={"environment": "world", HALF_LABEL: half},
            gateway_urls=self.gateway_urls[name],
            journals=self._journals,
            settings=self.agent_settings,
        )

    def _make_environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPSMAP_", "PG"))}
        return {
            **kept,
            DATABASE_URL: self._services.cluster.url(),
            REDIS_URL: self._services.broker.url(),
            SECRET_KEY: self.state.secret("secret_key"),
            **self._backend_environment,
        }

    # How it starts and ends

    def _give_up(self) -> None:
        print(f"The logs of the world that failed are kept: {self.keep_logs()}", file=sys.stderr)
        self.abandon()

    def _prepare(self) -> None:
        wanted = {"pki": str(self.state.pki), "gateways": self.gateway_ids, "agents": self.host_ids}
        done = subprocess.run(
            [sys.executable, "-m", "tests.world.prepare"],
            input=json.dumps(wanted),
            cwd=ROOT,
            env={**self.environment, **self._kin.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise WorldError(f"the database cannot be filled:\n{done.stderr}")
        answer = json.loads(done.stdout)
        self.token, self.organization_id = answer["token"], answer["organization"]

    def _start_all(self, processes: Iterable[WorldProcess]) -> None:
        """All at once, then each until it is ready."""
        starting = list(processes)
        for process in starting:
            process.start(wait=False)
        for process in starting:
            process.wait_ready()

    def _does_web_answer(self, process: WorldProcess) -> bool:
        connection = HTTPConnection(HOST, self.ports[WEB], timeout=5)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (HTTPException, OSError):
            return False
        finally:
            connection.close()

    def _holds_journal(self, process: WorldProcess, hosts: list[str]) -> bool:
        """Each agent writes its process's number into a file once it has its journal to itself."""
        files = [self.state.agent_configuration(host).with_name("agent.pid") for host in hosts]
        return all(file.exists() and file.read_text(encoding="ascii").strip() == str(process.pid) for file in files)

    def _dismiss_guard(self) -> None:
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None

    def _remove(self) -> None:
        journals = (self._journals / host for host in self.host_ids)
        for folder in (*self._services.placement.temporary, *journals, self.folder):
            if folder.exists():
                shutil.rmtree(folder)


def _with_configuration(spec: ProcessSpec, name: str, path: Path) -> ProcessSpec:
    program, *_ = spec.argv
    return replace(spec, name=name, argv=(program, "run", "--config", str(path)))


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _terminate_all(processes: Iterable[WorldProcess]) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(WorldProcess.terminate, processes))
