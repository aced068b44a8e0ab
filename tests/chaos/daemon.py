"""`python -m tests.chaos.daemon SETTINGS.json PROGRAM...`: one process of the product, with steps that can go wrong.

PROGRAM is what would have been run: an interpreter with `-m module` or a script, and its arguments. The product itself
is unchanged; what the steps are is in steps.py, what can be planted in it in plants.py.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from tests.chaos.clock import ClockOffset, shift_django, shift_python
from tests.chaos.hooks import install, replace, watch_database_commits, watch_journal_commits
from tests.chaos.plants import PLANTS
from tests.chaos.steps import AGENT_JOURNAL_STEPS, STEPS
from tests.chaos.triggers import Triggers

BACKEND_ROLES = frozenset({"web", "link", "worker", "beat"})


@dataclass(frozen=True, slots=True)
class Settings:
    """What one process is run with. `plant` names a fault to build in, `shim` one to use instead of the product's."""

    role: str
    folder: str
    plant: str | None = None
    shim: str | None = None
    delivery_s: float | None = None

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def triggers_of(folder: Path) -> Triggers:
    return Triggers(folder / "triggers")


def clock_of(folder: Path) -> ClockOffset:
    return ClockOffset(folder / "clock")


def main() -> None:
    settings = Settings(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    folder = Path(settings.folder)
    _prepare(settings, triggers_of(folder), clock_of(folder))
    _run(sys.argv[2:])


def _prepare(settings: Settings, triggers: Triggers, clock: ClockOffset) -> None:
    if settings.role in BACKEND_ROLES:
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opsmap.settings")
        import django

        django.setup()
        shift_django(clock)
        watch_database_commits()
    else:
        # Before anything of the daemon is imported: it takes the name `datetime` with it.
        shift_python(clock)
    install([step for step in STEPS if step.role == settings.role], triggers.reach)
    if settings.role == "agent":
        watch_journal_commits(triggers.reach, AGENT_JOURNAL_STEPS)
    if settings.role == "web" and settings.delivery_s is not None:
        delivery_time = timedelta(seconds=settings.delivery_s)
        replace("apps.gateways.actions.requests:DELIVERY_TIME", lambda _: delivery_time)
    if settings.shim is not None:
        from opsmap_agent.jobs import launcher

        launcher.SHIM = settings.shim
    if settings.plant is not None:
        plant = PLANTS[settings.plant]
        if plant.role == settings.role:
            plant.build_in()


def _run(program: list[str]) -> None:
    """As the interpreter itself would have run it."""
    interpreter, *rest = program
    if Path(interpreter).name.startswith("python"):
        interpreter, *rest = rest
    if interpreter == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [interpreter, *rest]
        sys.path[0] = str(Path(interpreter).parent)
        runpy.run_path(interpreter, run_name="__main__")


if __name__ == "__main__":
    main()
