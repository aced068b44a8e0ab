"""Steps in running code: they fire once, where they say, and the table of them fits the product of today."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsmap_agent.jobs import launcher
from tests.chaos import hooks, plants, shim, steps
from tests.chaos.faults import catalogue
from tests.chaos.hooks import Step, TargetMissingError, Where, install
from tests.chaos.triggers import Deed, Shot, Triggers

MODULE = "apps.chaos_target"
"""A name below `apps`, as the product's own modules have, so that copies of names in it are found too."""


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    target = types.ModuleType(MODULE)
    exec(  # noqa: S102  # a module of the product in four lines
        "def work(x): return x + 1\n"
        "async def wait(x): return x + 2\n"
        "class Thing:\n    def method(self, x): return x + 3\n"
        "    @classmethod\n    def made(cls, x): return (cls.__name__, x)\n",
        target.__dict__,
    )
    sys.modules[MODULE] = target
    yield target
    del sys.modules[MODULE]


def step(attribute: str, where: Where, name: str = "step", **rest: object) -> Step:
    return Step(name, "web", f"{MODULE}:{attribute}", where, **rest)


async def test_functions_methods_and_coroutines_pass_their_steps(module: types.ModuleType) -> None:
    reached: list[str] = []
    install(
        [
            step("work", Where.ENTER, "in"),
            step("work", Where.RETURN, "out"),
            step("wait", Where.RETURN, "waited"),
            step("Thing.method", Where.ENTER, "method"),
            step("Thing.made", Where.ENTER, "made"),
        ],
        reached.append,
    )
    assert module.work(1) == 2
    assert await module.wait(1) == 3
    assert module.Thing().method(1) == 4
    assert module.Thing.made(1) == ("Thing", 1)
    assert reached == ["in", "out", "waited", "method", "made"]


def test_a_step_applies_to_some_calls(module: types.ModuleType) -> None:
    reached: list[str] = []
    install([step("work", Where.ENTER, applies=lambda x: x > 1)], reached.append)
    module.work(1)
    module.work(2)
    assert reached == ["step"]


def test_what_was_imported_before_is_replaced_too(module: types.ModuleType) -> None:
    user = types.ModuleType("apps.chaos_user")
    user.work = module.work
    sys.modules[user.__name__] = user
    reached: list[str] = []
    try:
        install([step("work", Where.ENTER)], reached.append)
        user.work(1)
    finally:
        del sys.modules[user.__name__]
    assert reached == ["step"]


@pytest.mark.parametrize("target", [f"{MODULE}:gone", f"{MODULE}:Thing.gone", "apps.no_such_module:work"])
def test_a_step_that_is_not_there_any_more_is_an_error(module: types.ModuleType, target: str) -> None:
    with pytest.raises(TargetMissingError):
        install([Step("step", "web", target, Where.ENTER)], lambda name: None)


@pytest.mark.django_db(transaction=True)
def test_commits_pass_their_steps(module: types.ModuleType) -> None:
    from django.db import transaction
    from django.db.backends.base.base import BaseDatabaseWrapper

    def work() -> None:
        with transaction.atomic():
            reached.append("inside")
        reached.append("done")

    reached: list[str] = []
    module.work = work
    original = BaseDatabaseWrapper._commit
    try:
        hooks.watch_database_commits()
        install(
            [step("work", Where.BEFORE_COMMIT, "before"), step("work", Where.AFTER_COMMIT, "after")], reached.append
        )
        with transaction.atomic():
            pass  # of somebody else
        module.work()
    finally:
        BaseDatabaseWrapper._commit = original
    assert reached == ["inside", "before", "after", "done"]


@pytest.mark.parametrize("each", [*steps.STEPS, *steps.AGENT_JOURNAL_STEPS], ids=lambda each: each.name)
def test_every_step_is_in_the_product(each: Step) -> None:
    hooks._find(each.target)


@pytest.mark.parametrize("name", sorted(plants.PLANTS))
def test_every_plant_can_be_built_in(name: str) -> None:
    program = f"import django; django.setup(); from tests.chaos.plants import PLANTS; PLANTS[{name!r}].build_in()"
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "opsmap.settings"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_the_shim_can_be_killed_at_each_step_and_is_else_unchanged(tmp_path: Path) -> None:
    shim.write_shim(tmp_path / "shim.sh", tmp_path)
    ours = (tmp_path / "shim.sh").read_text(encoding="utf-8").splitlines()
    product = Path(launcher.SHIM).read_text(encoding="utf-8").splitlines()
    assert [line for line in ours if "kill -9" not in line] == product
    assert len(ours) - len([line for line in ours if "kill -9" not in line]) == len(shim.STEPS)


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len(catalogue()) > 70


def test_a_trigger_fires_once(tmp_path: Path) -> None:
    triggers = Triggers(tmp_path)
    triggers.reach("step")
    triggers.arm("step", Shot(Deed.PAUSE, skip=1, seconds=0))
    triggers.reach("step")
    assert not triggers.has_fired("step")
    triggers.reach("other")
    triggers.reach("step")
    assert triggers.has_fired("step")
    assert json.loads((tmp_path / "step.fired").read_text())["deed"] == Deed.PAUSE
    triggers.arm("step", Shot(Deed.PAUSE, seconds=0))
    assert not triggers.has_fired("step")
    triggers.disarm("step")
    triggers.reach("step")
    assert not triggers.has_fired("step")


def test_a_trigger_kills(tmp_path: Path) -> None:
    Triggers(tmp_path).arm("step")
    program = f"from tests.chaos.triggers import Triggers; Triggers(__import__('pathlib').Path({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", f"{program}.reach('step'); print('alive')"], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b""
