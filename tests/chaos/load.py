"""The commands of one trial: a mix of everything a host may be asked, sent by a client that does not give up."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tests.chaos import ledger
from tests.chaos.site import Site
from tests.smoke.errors import LostAnswerError, RefusedError
from tests.smoke.rest import Rest

_RETRY_S = 0.25
_PATIENCE_S = 25.0
_CLIENTS = 8


@dataclass(slots=True)
class Asked:
    """One command that somebody asked for; `is_accepted` once the API has answered 2xx."""

    key: str
    host: str
    exit_code: int
    asked_at: float
    is_accepted: bool = False
    is_cancelled: bool = False
    trial: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    is_job: bool
    seconds: float
    exit_code: int


KINDS = (
    Kind(is_job=False, seconds=0, exit_code=0),
    Kind(is_job=True, seconds=0, exit_code=0),
    Kind(is_job=False, seconds=0.2, exit_code=0),
    Kind(is_job=True, seconds=0.2, exit_code=0),
    Kind(is_job=False, seconds=0, exit_code=3),
    Kind(is_job=True, seconds=0, exit_code=3),
    Kind(is_job=True, seconds=1.0, exit_code=0),
)


class Clients:
    """The connections to the API, shared by all trials of a site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.asked: list[Asked] = []
        self._pool = ThreadPoolExecutor(_CLIENTS, "client")
        self._posts: list[Future[None]] = []
        self._local = threading.local()
        self._number = itertools.count()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def wait(self) -> None:
        """Until every request was accepted or given up. A fault of ours in one of them is raised."""
        for post in self._posts:
            post.result()

    @property
    def rest(self) -> Rest:
        if not hasattr(self._local, "rest"):
            self._local.rest = self.site.rest()
        rest: Rest = self._local.rest
        return rest

    def load(self, trial: str, draw: random.Random) -> Load:
        return Load(self, trial, draw)

    def submit(self, asked: list[Asked], path: str, body: dict[str, Any]) -> None:
        """One request; what it asks for has one key."""
        self.asked += asked
        self._posts.append(self._pool.submit(self._post_until_accepted, asked, path, body))

    def new_key(self, trial: str) -> str:
        return f"{trial}.{next(self._number)}"

    def _post_until_accepted(self, asked: list[Asked], path: str, body: dict[str, Any]) -> None:
        """As a careful client does: the same request again, with the same key, until there is an answer."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            try:
                answer = self.rest.post(path, body, idempotency_key=asked[0].key)
            except (LostAnswerError, RefusedError):
                time.sleep(_RETRY_S)
                continue
            for each in asked:
                each.is_accepted = True
            if asked[0].is_cancelled:
                self._cancel(answer["id"])
            return

    def _cancel(self, command_id: str) -> None:
        try:
            self.rest.post(f"/commands/{command_id}/cancel", {})
        except (LostAnswerError, RefusedError):
            return  # A wish: whether it came through shows in the row, and either is allowed.


class Load:
    """The commands of one trial."""

    def __init__(self, clients: Clients, trial: str, draw: random.Random) -> None:
        self._clients = clients
        self._trial = trial
        self._draw = draw
        self.asked: list[Asked] = []

    def send(self, host: str, kinds: Sequence[Kind], *, cancels: float = 0.0) -> None:
        """Ask for one command of each kind, in any order; `cancels` is the share that is cancelled right away."""
        for kind in self._draw.sample(kinds, len(kinds)):
            self._send_one(host, kind, is_cancelled=self._draw.random() < cancels)

    def has_been_accepted(self) -> bool:
        return all(each.is_accepted for each in self.asked)

    def _send_one(self, host: str, kind: Kind, *, is_cancelled: bool) -> None:
        key = self._clients.new_key(self._trial)
        asked = Asked(key, host, kind.exit_code, time.time(), is_cancelled=is_cancelled, trial=self._trial)
        self.asked.append(asked)
        path = f"/agents/{self._clients.site.world.row_ids[host]}/commands"
        self._clients.submit([asked], path, self._body(key, kind))

    def broadcast(self, hosts: list[str]) -> None:
        """Ask all these hosts for the same at once."""
        key, kind = self._clients.new_key(self._trial), self._draw.choice(KINDS)
        asked = [Asked(key, host, kind.exit_code, time.time(), trial=self._trial) for host in hosts]
        self.asked += asked
        ids = [self._clients.site.world.row_ids[host] for host in hosts]
        self._clients.submit(asked, "/broadcasts", {**self._body(key, kind), "filter": {"agentIds": ids}})

    def _body(self, key: str, kind: Kind) -> dict[str, Any]:
        execution = (
            {"type": "async", "poll_interval_ms": 500, "max_wait_ms": 20_000}
            if kind.is_job
            else {"type": "sync", "timeout_ms": 10_000}
        )
        program = self._clients.site.program
        spec = ledger.command(program, key, seconds=kind.seconds, exit_code=kind.exit_code)
        return {"command": spec, "execution": execution, "timeoutMs": 20_000}
