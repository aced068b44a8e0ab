"""A world in which everything can go wrong: processes run by `tests.chaos.daemon`, each link through the network."""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, unquote

import psutil
import psycopg

from deploy.embedded.process import ProcessSpec
from deploy.embedded.services import DATABASE_URL
from tests.chaos.checker import Excuse, Row
from tests.chaos.clock import ClockOffset
from tests.chaos.daemon import BACKEND_ROLES, Settings, clock_of, triggers_of
from tests.chaos.ledger import Ledger, write_program
from tests.chaos.network import Network, Side
from tests.chaos.shim import write_shim
from tests.chaos.triggers import Triggers
from tests.smoke.rest import Rest
from tests.world import World, WorldProcess

_AGENT_SETTINGS = {"gateway": {"heartbeat_interval_secs": 2.0, "heartbeat_timeout_secs": 2.0}}
_GATEWAY_SETTINGS = {"backend_connection": {"heartbeat_interval_secs": 2}}
_SERVICES = frozenset({"postgres", "valkey"})

_ROWS = """\
SELECT a.agent_id, coalesce(c.idempotency_key, b.idempotency_key), c.state, c.exit_code, c.not_after, c.finished_at,
       c.sent_at IS NOT NULL
FROM gateways_command c
JOIN gateways_agent a ON a.id = c.agent_id
LEFT JOIN gateways_broadcast b ON b.id = c.broadcast_id
WHERE c.idempotency_key IS NOT NULL OR b.idempotency_key IS NOT NULL"""


@dataclass(frozen=True, slots=True)
class Death:
    """The agent of a host, or a shim there, died between these moments (`time.time`)."""

    host: str
    excuse: Excuse
    since: float
    until: float


class Site:
    """Use it in a `with` statement. Names of processes are those of the world.

    Args:
        plant: a fault to build into the product, see plants.py.
        delivery_s: how long a command may be on its way; the product's own minute makes trials about lateness long.
    """

    def __init__(self, *, seed: int, agents: int, plant: str | None = None, delivery_s: float | None = None) -> None:
        self._plant = plant
        self._delivery_s = delivery_s
        self.world = World(
            gateways=2,
            agents=agents,
            wrap=self._wrap,
            agent_settings=_AGENT_SETTINGS,
            gateway_settings=_GATEWAY_SETTINGS,
        )
        self.folder = self.world.folder / "chaos"
        # Agents and their commands run as whoever runs this; PostgreSQL's account only has to pass.
        self.folder.mkdir(mode=0o711)
        self.hosts = self.world.host_ids
        self.program = self.folder / "run"
        write_program(self.program)
        self.ledgers = {host: Ledger(self.folder / host) for host in self.hosts}
        self.deaths: list[Death] = []
        self.network = Network(random.Random(seed))
        self._has_meddlers = False
        self._prepare_network()

    def __enter__(self) -> Site:
        try:
            self.world.start()
        except BaseException:
            self._close_network_and(self.world.abandon)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_network_and(self.world.abandon)

    def process(self, name: str) -> WorldProcess:
        return self.world.processes()[name]

    def triggers(self, name: str) -> Triggers:
        return triggers_of(self.folder / name)

    def clock(self, name: str) -> ClockOffset:
        return clock_of(self.folder / name)

    def rest(self) -> Rest:
        return self.world.rest()

    def jobs(self, host: str) -> list[Path]:
        """The folders of the jobs of a host, the oldest first."""
        folder = self.world.state.agent_configuration(host).parent / "detached"
        return sorted(folder.glob("job_*"), key=lambda job: job.stat().st_ctime)

    def live_shims(self, host: str) -> list[psutil.Process]:
        """The shims of the host that live, by the claims that they made."""
        found = []
        for job in self.jobs(host):
            try:
                process = psutil.Process(int((job / "claim").read_text(encoding="ascii").split()[0]))
                if str(job) in process.cmdline():
                    found.append(process)
            except (FileNotFoundError, IndexError, psutil.NoSuchProcess):
                continue
        return found

    def does_database_answer(self) -> bool:
        """PostgreSQL that lost a process ends all connections and recovers for a moment."""
        try:
            with self.world.database() as database:
                database.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def rows(self) -> tuple[dict[tuple[str, str], Row], datetime]:
        """Every command of the trials by host and key, and the time at which this was so."""
        with self.world.database() as database:
            (now,) = database.execute("SELECT now()").fetchone() or (None,)
            found = database.execute(_ROWS).fetchall()
        assert isinstance(now, datetime)
        rows = {(host, key.rpartition(":")[2]): Row(*facts) for host, key, *facts in found}
        return rows, now

    def runs(self) -> dict[tuple[str, str], int]:
        return {(host, key): count for host, ledger in self.ledgers.items() for key, count in ledger.runs().items()}

    def keep_logs(self, where: Path) -> None:
        where.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.world.logs, where, dirs_exist_ok=True)

    # How processes are run

    def _wrap(self, spec: ProcessSpec) -> ProcessSpec:
        if spec.name in _SERVICES or spec.name == "initdb":
            return spec
        if spec.name in self.world.gateway_ids:
            # The certificates are there now, and nobody can be reached by these links before.
            self._put_meddlers()
        folder = self.folder / spec.name
        role = self._role(spec.name)
        settings = Settings(role, str(folder), self._plant, self._shim(spec.name), self._delivery_s)
        path = folder / "settings.json"
        settings.save(path)
        environment = dict(spec.environment)
        if role == "agent":
            environment["HOME"] = str(folder)
        if role in BACKEND_ROLES:
            environment[DATABASE_URL] = self._database_url(spec.name, environment[DATABASE_URL])
        return replace(
            spec, argv=(sys.executable, "-m", "tests.chaos.daemon", str(path), *spec.argv), environment=environment
        )

    def _role(self, name: str) -> str:
        if name in self.hosts:
            return "agent"
        return "gateway" if name in self.world.gateway_ids else name

    def _shim(self, name: str) -> str | None:
        if name not in self.hosts:
            return None
        path = self.folder / name / "shim.sh"
        triggers = self.folder / name / "triggers"
        triggers.mkdir(parents=True, exist_ok=True)
        write_shim(path, triggers)
        return str(path)

    # The network

    def _prepare_network(self) -> None:
        for gateway in self.world.gateway_ids:
            self.world.link_urls[gateway] = self.network.add_link(gateway, "link")
        for host in self.hosts:
            self.world.gateway_urls[host] = [self.network.add_link(host, gateway) for gateway in self.world.gateway_ids]

    def _put_meddlers(self) -> None:
        if self._has_meddlers:
            return
        self._has_meddlers = True
        leaf, ca = self.world.state.pki / "leaf", self.world.state.pki / "ca"
        for gateway in self.world.gateway_ids:
            self.network.put_meddler(
                gateway,
                "link",
                self.world.ports["link"],
                plays_server=Side(leaf / "backend", ca / "gateway.crt"),
                plays_client=Side(leaf / gateway, ca / "backend.crt"),
            )
            for host in self.hosts:
                self.network.put_meddler(
                    host,
                    gateway,
                    self.world.ports[gateway],
                    plays_server=Side(leaf / gateway, ca / "agent.crt"),
                    plays_client=Side(leaf / f"agent-{host}", ca / "gateway.crt"),
                )

    def _database_url(self, name: str, url: str) -> str:
        """Each process has a relay of its own, so that a lost answer hits the one that is meant."""
        base, _, sockets = url.partition("?host=")
        folder = self.world.folder / "pg" / name
        if name not in self.network.databases:
            self.network.add_database(name, folder, Path(unquote(sockets)))
        return f"{base}?host={quote(str(folder))}"

    def _close_network_and(self, remove: Callable[[], None]) -> None:
        try:
            self.network.close()
        finally:
            remove()


def wait_until(condition: Callable[[], bool], timeout_s: float, poll_s: float = 0.02) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_s)
    return True


def all_ended(rows: Iterable[Row]) -> bool:
    return all(row.finished_at is not None and row.state != "unknown" for row in rows)
