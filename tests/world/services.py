"""PostgreSQL and Valkey of a world: those of `make run`, each as a process that may be killed and started again."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

import redis

from deploy.embedded import postgres, valkey
from deploy.embedded.binaries import Binaries
from deploy.embedded.placement import Placement, place
from deploy.embedded.process import ProcessSpec
from deploy.embedded.state import StateFolder
from tests.world.process import WorldProcess


@dataclass(frozen=True)
class Services:
    """Where they are. `place` is what both specifications are made from."""

    placement: Placement
    cluster: postgres.Cluster
    broker: valkey.Valkey
    setup_log: Path

    @classmethod
    def at(cls, state: StateFolder, setup_log: Path) -> Services:
        placement = place(state, Binaries.installed(), environment=os.environ)
        cluster = postgres.Cluster(
            binaries=placement.binaries.postgres_bin,
            data=placement.postgres,
            sockets=placement.sockets,
            client_authentication=placement.home / "pg_hba.conf",
            account=placement.account,
            password=state.secret("postgres.password"),
        )
        broker = valkey.Valkey(
            server=placement.binaries.valkey_server,
            data=placement.valkey,
            sockets=placement.sockets,
            account=placement.account,
            password=secrets.token_urlsafe(36),
        )
        return cls(placement, cluster, broker, setup_log)

    def postgres(self) -> ProcessSpec:
        """Makes the cluster on the first start, and clears away what a killed server has left on later ones."""
        asyncio.run(postgres.prepare(self.cluster, is_password_new=False, run=self._run_setup, say=self._say))
        for leftover in self.cluster.sockets.glob(".s.PGSQL.*"):
            leftover.unlink()
        return self.cluster.server()

    def is_postgres_ready(self, process: WorldProcess) -> bool:
        return self.cluster.is_ready(process.pid)

    def valkey(self) -> ProcessSpec:
        valkey.prepare(self.broker)
        self.broker.socket.unlink(missing_ok=True)
        return self.broker.process()

    def is_valkey_ready(self, process: WorldProcess) -> bool:
        with redis.Redis.from_url(self.broker.url()) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    async def _run_setup(self, spec: ProcessSpec) -> int:
        account = spec.account
        with self.setup_log.open("ab") as log:
            done = subprocess.run(
                spec.argv,
                input=spec.stdin,
                cwd=spec.cwd,
                env=dict(spec.environment),
                stdout=log,
                stderr=subprocess.STDOUT,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                check=False,
            )
        return done.returncode

    def _say(self, text: str) -> None:
        with self.setup_log.open("a", encoding="utf-8") as log:
            log.write(f"{text}\n")
