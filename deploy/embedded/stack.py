"""The table of what `make run` runs besides PostgreSQL and Valkey, and in which order it starts and stops."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.embedded.configuration import AGENTS
from deploy.embedded.ports import GATEWAY, HOST, LINK, WEB
from deploy.embedded.process import ProcessSpec
from deploy.embedded.services import without_secrets
from deploy.embedded.state import StateFolder

ROOT = Path(__file__).resolve().parent.parent.parent
BOOTSTRAP = "bootstrap"
AGENT_NAMES = tuple(agent.id for agent in AGENTS)
# Stopped from left to right, each group at once.
STOP_ORDER: tuple[tuple[str, ...], ...] = (
    (BOOTSTRAP, *AGENT_NAMES),
    ("gateway",),
    ("worker", "beat"),
    ("link", "web"),
)
NAMES = tuple(name for group in STOP_ORDER for name in group)

# What comes every second or two and says nothing: the supervisor's own questions, Celery's timetable. Kept in the logs.
ROUTINE = re.compile(r'"GET /healthz"|Sending due task|celery\.worker\.strategy: Task \S+ received')


@dataclass(frozen=True)
class Daemon:
    """A process of the stack, and what comes before it: bootstrap's success, a listener on the port of that name."""

    spec: ProcessSpec
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stack:
    """One installation: the process specifications for its state folder, ports and backend environment."""

    state: StateFolder
    ports: Mapping[str, int]
    environment: Mapping[str, str]

    def bootstrap(self, *, has_demonstration: bool) -> ProcessSpec:
        """Migrations, development PKI, the first organization; with the demonstration also its Map."""
        documents = ("--documents", str(self.state.documents)) if has_demonstration else ()
        return self._backend(
            BOOTSTRAP,
            "manage.py",
            "bootstrap",
            "--pki",
            str(self.state.pki),
            *documents,
            "--credentials",
            str(self.state.credentials),
        )

    def daemons(self) -> tuple[Daemon, ...]:
        """In starting order.

        Loading Django takes two seconds of a core, so web and link do it while bootstrap does. Nobody asks them
        anything before it has ended; link can do so only if an earlier run has left its certificate. The background
        work comes last: on two cores it would keep the page waiting.
        """
        has_certificate = (self.state.pki / "leaf" / "backend.crt").exists()
        schedule = self.state.path / "celerybeat-schedule"
        return (
            Daemon(self._web()),
            Daemon(self._backend("link", "-m", "opsmap.link"), after=() if has_certificate else (BOOTSTRAP,)),
            Daemon(self._edge("gateway", "opsmap-gateway", self.state.gateway_configuration), after=(BOOTSTRAP, LINK)),
            *(
                Daemon(self._edge(name, "opsmap-agent", self.state.agent_configuration(name)), after=(GATEWAY,))
                for name in AGENT_NAMES
            ),
            Daemon(
                self._celery("worker", "--pool=threads", "--concurrency=4", "--without-gossip", "--without-mingle"),
                after=(BOOTSTRAP, WEB),
            ),
            Daemon(self._celery("beat", f"--schedule={schedule}"), after=(BOOTSTRAP, WEB)),
        )

    def _web(self) -> ProcessSpec:
        argv = ("-m", "daphne", "-v", "0", "-b", HOST, "-p", str(self.ports[WEB]), "opsmap.asgi:application")
        return replace(self._backend("web", *argv), is_line_shown=_is_news)

    def _backend(self, name: str, *arguments: str) -> ProcessSpec:
        hosts = self.environment.get("OPSMAP_ALLOWED_HOSTS")
        environment = {
            **self.environment,
            # Whatever else it answers to, this supervisor asks it for its health.
            **({"OPSMAP_ALLOWED_HOSTS": f"{hosts},{HOST}"} if hosts else {}),
            "OPSMAP_PKI_DIR": str(self.state.pki),
            "OPSMAP_LINK_BIND": f"{HOST}:{self.ports[LINK]}",
            "PYTHONUNBUFFERED": "1",
        }
        return ProcessSpec(name, (sys.executable, *arguments), environment, cwd=ROOT)

    def _celery(self, role: str, *arguments: str) -> ProcessSpec:
        base = self._backend(role, "-m", "celery", "--quiet", "-A", "opsmap", role, *arguments, "--loglevel=INFO")
        # Whoever starts this as root knows it.
        environment = {**base.environment, "PYTHONWARNINGS": "ignore::UserWarning:celery.platforms"}
        return replace(base, environment=environment, is_line_shown=_is_news)

    def _edge(self, name: str, program: str, configuration: Path) -> ProcessSpec:
        environment = {**without_secrets(self.environment), "PYTHONUNBUFFERED": "1"}
        script = Path(sys.executable).with_name(program)
        return ProcessSpec(name, (str(script), "run", "--config", str(configuration)), environment, cwd=ROOT)


def _is_news(line: str) -> bool:
    return ROUTINE.search(line) is None
