"""The commands by which Docker Compose starts, stops and shows one service, without touching others.

`--no-deps`, because the order is OpsMap's: without it starting one service would start everything below it too.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from dataclasses import dataclass
from typing import Any

_FOUND_BY_ITSELF = {"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"}
_LONG_STOP_MS = 240_000
_MARGIN_MS = 60_000
DEFAULT_WAIT_MS = 300_000


@dataclass(frozen=True, slots=True)
class Project:
    """Where a project is on its host. `name` is that of the project if it is not the folder's."""

    folder: str
    file: str
    name: str = ""

    def line(self, *words: str) -> str:
        """A command line that is run in the project's folder."""
        where = [] if self.file in _FOUND_BY_ITSELF else ["--file", self.file]
        return shlex.join(["docker", "compose", *where, *self._named(), *words])

    def elsewhere(self, *words: str) -> list[str]:
        """The arguments of `docker` that do the same from any folder: health checks have none of their own."""
        return ["compose", "--file", posixpath.join(self.folder, self.file), *self._named(), *words]

    def _named(self) -> list[str]:
        return ["--project-name", self.name] if self.name else []


def project_name(text: str) -> str:
    """The name that Docker Compose makes of a text, such as the name of a folder."""
    return re.sub(r"[^a-z0-9_-]", "", text.lower()).lstrip("_-") or "compose-project"


def service_commands(
    project: Project, service: str, container: str, *, is_job: bool, start_wait_ms: int, stop_wait_ms: int
) -> dict[str, Any]:
    """start, stop, restart and status of one service.

    A job runs in the foreground, in a container of its own: its exit code says how it ended.
    """
    start = ["up", "--detach", "--no-deps", service]
    if is_job:
        start = ["run", "--rm", "--no-deps", "-T", service]
    commands: dict[str, Any] = {
        "start": _command(project, project.line(*start), start_wait_ms),
        "stop": _command(project, project.line("stop", service), stop_wait_ms),
    }
    if not is_job:
        # Compose would restart what depends on it, too, where a file says so.
        commands["restart"] = _command(
            project, project.line("restart", "--no-deps", service), max(start_wait_ms, stop_wait_ms)
        )
        # Fails if the container does not run, unlike `docker compose ps`.
        commands["status"] = {"command": shlex.join(["docker", "container", "top", container])}
    return commands


def _command(project: Project, line: str, wait_ms: int) -> dict[str, Any]:
    command: dict[str, Any] = {"command": line, "workingDir": project.folder}
    if wait_ms > DEFAULT_WAIT_MS:
        command["execution"] = {"mode": "async", "max_wait_ms": min(wait_ms, 86_400_000)}
    return command


def stop_wait_ms(grace_ms: int | None) -> int:
    """How long a stop may take: Docker kills after the grace period by itself."""
    return grace_ms + _MARGIN_MS if grace_ms and grace_ms > _LONG_STOP_MS else DEFAULT_WAIT_MS
