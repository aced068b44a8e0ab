"""PostgreSQL and Valkey for one run: our own, started at once, or the external ones the environment names."""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.embedded import postgres, valkey
from deploy.embedded.binaries import Binaries
from deploy.embedded.leftovers import Record
from deploy.embedded.output import Output
from deploy.embedded.placement import Placement, place
from deploy.embedded.process import Child, ProcessSpec
from deploy.embedded.state import StateFolder
from deploy.embedded.supervisor import Supervisor

DATABASE_URL = "OPSMAP_DATABASE_URL"
REDIS_URL = "OPSMAP_REDIS_URL"
SECRET_KEY = "OPSMAP_SECRET_KEY"  # noqa: S105 - a name
NAMES = (valkey.NAME, postgres.SETUP_NAME, postgres.NAME)
POLL_S = 0.02
SLOW_AFTER_S = 10.0


@dataclass(frozen=True)
class Services:
    """Starts what is not external; `environment` is what a client of both needs."""

    state: StateFolder
    supervisor: Supervisor
    record: Record
    output: Output
    given: Mapping[str, str]

    async def start(self) -> Mapping[str, str]:
        """Start both and wait until they answer; returns the whole environment for a backend process."""
        client = {SECRET_KEY: self.given.get(SECRET_KEY) or self.state.secret("secret_key")}
        has_database, has_redis = bool(self.given.get(DATABASE_URL)), bool(self.given.get(REDIS_URL))
        if not (has_database and has_redis):
            placement = place(self.state, Binaries.installed(), environment=self.given)
            self.record.use_temporary(placement.temporary)
            if placement.note:
                self.output.say(placement.note)
            starts = []
            if not has_database:
                cluster, is_password_new = self._cluster(placement)
                client[DATABASE_URL] = cluster.url()
                starts.append(self._start_postgres(cluster, is_password_new=is_password_new))
            if not has_redis:
                broker = self._broker(placement)
                client[REDIS_URL] = broker.url()
                starts.append(self._start_valkey(broker))
            await asyncio.gather(*starts)
        # A PGPORT or PGUSER of the caller is meant for servers of theirs.
        kept = {name: value for name, value in self.given.items() if has_database or not name.startswith("PG")}
        return kept | client

    def _cluster(self, placement: Placement) -> tuple[postgres.Cluster, bool]:
        is_password_new = not (self.state.path / "postgres.password").exists()
        return postgres.Cluster(
            binaries=placement.binaries.postgres_bin,
            data=placement.postgres,
            sockets=placement.sockets,
            client_authentication=placement.home / "pg_hba.conf",
            account=placement.account,
            password=self.state.secret("postgres.password"),
        ), is_password_new

    def _broker(self, placement: Placement) -> valkey.Valkey:
        return valkey.Valkey(
            server=placement.binaries.valkey_server,
            data=placement.valkey,
            sockets=placement.sockets,
            account=placement.account,
            # Nothing outlives the server, so neither does its password.
            password=secrets.token_urlsafe(36),
        )

    async def _start_postgres(self, cluster: postgres.Cluster, *, is_password_new: bool) -> None:
        await postgres.prepare(cluster, is_password_new=is_password_new, run=self._run_setup, say=self.output.say)
        # Its lock beside an old socket names a pid, which a stranger may have by now.
        for leftover in cluster.sockets.glob(".s.PGSQL.*"):
            leftover.unlink()
        server = self.supervisor.start_service(cluster.server())
        patience = asyncio.get_running_loop().time() + SLOW_AFTER_S
        while not cluster.is_ready(server.pid):
            if asyncio.get_running_loop().time() > patience:
                self.output.say("PostgreSQL is still starting (it recovers after a crash).")
                patience += SLOW_AFTER_S
            await self._pause(server)

    async def _run_setup(self, spec: ProcessSpec) -> int:
        """Its lines are no news unless it fails."""
        code = await self.supervisor.run_once(spec)
        if code != 0:
            for line in self.output.tail(spec.name):
                self.output.warn(f"    {line}")
        return code

    async def _start_valkey(self, broker: valkey.Valkey) -> None:
        valkey.prepare(broker)
        server = self.supervisor.start_service(broker.process())
        while not await broker.is_ready():
            await self._pause(server)

    async def _pause(self, server: Child) -> None:
        if server.has_ended:
            raise await self.supervisor.failure
        await asyncio.sleep(POLL_S)


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """For what is no part of the backend: gateways, agents, and the commands they run."""
    return {name: value for name, value in environment.items() if name not in {DATABASE_URL, REDIS_URL, SECRET_KEY}}
