"""A journal that is damaged, deleted or held by another agent."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opsmap_agent.agent import Agent
from opsmap_agent.journal.file import NAME, set_damaged_aside
from opsmap_agent.journal.journal import Journal
from opsmap_agent.upkeep.instance import StartError
from opsmap_protocol.enums import CommandOutcome
from opsmap_protocol.messages import CommandResult
from opsmap_protocol.specs import NativeCommand

if TYPE_CHECKING:
    from conftest import OpenHost


async def fill(folder: Path) -> str:
    """A journal with something in it; its incarnation."""
    journal = await Journal.open(folder)
    for number in range(50):
        await journal.record(CommandResult(f"r-{number}", True, CommandOutcome.SUCCEEDED, result="x" * 2_000))
    await journal.close()
    return journal.incarnation


def break_pages(path: Path) -> None:
    """Some bytes in the head of each page, as a broken disk or a stray write does it."""
    data = bytearray(path.read_bytes())
    draw = random.Random(1)  # noqa: S311 - nothing secret
    for page in range(4096, len(data), 4096):
        data[page : page + 16] = draw.randbytes(16)
    path.write_bytes(data)


def leave_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace_by_text(path: Path) -> None:
    path.write_text("this is no database " * 100)


@pytest.mark.parametrize("damage", [break_pages, leave_half, replace_by_text])
async def test_damaged_journal_is_set_aside_and_a_new_one_begins(
    tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    before = await fill(tmp_path)
    assert callable(damage)
    damage(tmp_path / NAME)
    journal = await Journal.open(tmp_path)
    assert journal.incarnation != before
    assert journal.last_seq == 0
    await journal.record(CommandResult("r", True, CommandOutcome.SUCCEEDED))
    await journal.close()
    assert len(list(tmp_path.glob("journal.damaged-*.sqlite3"))) == 1
    assert "the journal is damaged (" in caplog.text


async def test_sound_journal_stays(tmp_path: Path) -> None:
    before = await fill(tmp_path)
    assert set_damaged_aside(tmp_path) is None
    journal = await Journal.open(tmp_path)
    assert journal.incarnation == before
    await journal.close()


async def test_journal_that_is_locked_is_not_damaged(tmp_path: Path) -> None:
    await fill(tmp_path)
    holder = sqlite3.connect(tmp_path / NAME)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    assert set_damaged_aside(tmp_path) is None
    holder.close()


async def test_damaged_journals_do_not_pile_up(tmp_path: Path) -> None:
    for _ in range(6):
        (tmp_path / NAME).write_text("this is no database " * 100)
        set_damaged_aside(tmp_path)
    assert len(list(tmp_path.glob("journal.damaged-*"))) == 3


async def test_deleted_journal_is_a_new_incarnation_that_the_backend_hears_of(open_host: OpenHost) -> None:
    async with open_host() as host:
        first = host.gateway.presence["incarnation"]
        await host.gateway.run(NativeCommand("uptime"))
        await host.stop()
        for path in host.configuration.buffer.path.glob("journal*"):
            path.unlink()
        host.gateway.forget()
        presence = await host.start_again()
        assert presence["incarnation"] != first
        assert (presence["first_seq"], presence["last_seq"]) == (1, 0)
        assert (await host.gateway.run(NativeCommand("uptime")))["success"]


async def test_two_agents_with_one_folder_are_one_too_many(open_host: OpenHost) -> None:
    async with open_host() as host:
        with pytest.raises(StartError, match="another agent is running with"):
            await Agent(host.configuration).run()
        assert (await host.gateway.run(NativeCommand("uptime")))["success"], "the first one goes on"
