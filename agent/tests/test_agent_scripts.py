"""Scripts and allowed programs: what was checked is what runs, and nobody's trick with names changes that."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from opsmap_agent.commands.refusals import NotStartedError, RefusalError, RejectedError
from opsmap_agent.commands.sync import SyncRunner
from opsmap_agent.configuration import Configuration
from opsmap_agent.host.process_table import ProcessEntry, is_named
from opsmap_agent.host.processes import wait_for_end
from opsmap_agent.jobs.folder import JobFolder
from opsmap_agent.jobs.launcher import launch
from opsmap_agent.rules import policy, scripts
from opsmap_agent.rules.policy import Policy
from opsmap_agent.rules.program import Program
from opsmap_protocol.specs import AsyncMode, ScriptCommand

if TYPE_CHECKING:
    from conftest import OpenHost

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")
SOMEBODY = 12345
"""A user that is neither root nor us."""


@pytest.fixture
def folder(agent_configuration: Configuration) -> Path:
    return agent_configuration.scripts.allowed_paths[0]


@pytest.fixture
def runner() -> Iterator[SyncRunner]:
    with ThreadPoolExecutor(2) as executor:
        yield SyncRunner(executor, 100_000)


Run = Callable[..., Program]


@pytest.fixture
def resolve(agent_configuration: Configuration) -> Run:
    def resolve_(spec: Any, **changed: Any) -> Program:
        configuration = replace(agent_configuration, scripts=replace(agent_configuration.scripts, **changed))
        return Policy(configuration).resolve(spec)

    return resolve_


def write(path: Path, text: str, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def of(path: Path, *args: str) -> ScriptCommand:
    return ScriptCommand(path=str(path), args=list(args))


# A script does not notice how it is run

SHELL = """#!/bin/sh
# a comment
. "$(dirname "$0")/beside.sh"
echo "$0|$1|$2|$(cat)|4|$beside"
exit 3
garbage that is never parsed (((
"""
BASH = """#!/bin/bash -eu
folder="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
. "$folder/beside.sh"
[[ "${BASH_SOURCE[0]}" == "$0" ]] && echo "$0|$1|$2|$(cat)|$LINENO|$beside"
exit 3
"""
PYTHON = """#!/usr/bin/python3
# -*- coding: utf-8 -*-
from __future__ import annotations
import beside, sys, inspect
line = inspect.currentframe().f_lineno
print(sys.argv[0], *sys.argv[1:], sys.stdin.read(), line, beside.beside, sep="|")
assert __file__ == sys.argv[0] and __name__ == "__main__"
sys.exit(3)
"""
PERL = """#!/usr/bin/perl -w
use FindBin; use lib $FindBin::Bin;
die "not main" if caller;
our $beside; require "$FindBin::Bin/beside.pl";
print join("|", $0, @ARGV, join("", <STDIN>), __LINE__, $beside), "\\n";
print STDERR __FILE__, <DATA>;
exit 3;
__DATA__
data
"""


@pytest.mark.parametrize(
    ("name", "text", "beside", "line"),
    [
        ("tool.sh", SHELL, ("beside.sh", "beside=found\n"), 4),
        ("tool.bash", BASH, ("beside.sh", "beside=found\n"), 4),
        ("tool.py", PYTHON, ("beside.py", "beside = 'found'\n"), 5),
        ("tool.pl", PERL, ("beside.pl", "our $beside = 'found'; 1;\n"), 5),
    ],
)
@pytest.mark.parametrize("mode", [0o755, 0o600])
async def test_script_finds_its_name_its_neighbours_and_no_input(
    resolve: Run, runner: SyncRunner, folder: Path, name: str, text: str, beside: tuple[str, str], line: int, mode: int
) -> None:
    script = write(folder / "a dir" / name, text, mode)
    write(folder / "a dir" / beside[0], beside[1])
    result = await runner.run(resolve(of(script, "x y", "$z")), 10)
    assert (result.exit_code, result.stdout) == (3, f"{script}|x y|$z||{line}|found\n"), result.stderr


async def test_inline_scripts_in_several_languages(resolve: Run, runner: SyncRunner) -> None:
    for content, expected in (
        ("echo $1; cat", "x\n"),
        ("#!/bin/bash\nset -euo pipefail\necho ${1^^}", "X\n"),
        ("#!/usr/bin/env python3\nimport sys; print(sys.argv[1], sys.stdin.read())", "x \n"),
        ("#!/usr/bin/env -S perl -w\nprint shift, <STDIN>", "x"),
        ("#!/usr/bin/awk -f\nBEGIN { print ARGV[1] }", "x\n"),
        ("", ""),
    ):
        result = await runner.run(resolve(ScriptCommand(content=content, args=["x"])), 10)
        assert (result.exit_code, result.stdout) == (0, expected), result


async def test_errors_of_a_script_are_its_exit_code(resolve: Run, runner: SyncRunner) -> None:
    for content in ("if then", "#!/usr/bin/env python3\n1/0", "#!/usr/bin/perl\ndie 'x'", "#!/bin/bash\nset -e\nfalse"):
        assert (await runner.run(resolve(ScriptCommand(content=content)), 10)).exit_code not in (0, -1)


async def test_program_that_is_no_text_runs_by_its_path(resolve: Run, runner: SyncRunner, folder: Path) -> None:
    binary = folder / "echo"
    shutil.copy("/bin/echo", binary)
    program = resolve(of(binary, "hello"), allowed_extensions=[])
    assert program.argv == [str(binary), "hello"]
    assert (await runner.run(program, 5)).stdout == "hello\n"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("/usr/bin/python3", "trading.py"), "trading"),
        (("/bin/sh", "-c", ". /proc/self/fd/0", "/opt/trading.sh", "x"), "trading.sh"),
        (("/usr/bin/perl", "-w", "/proc/self/fd/0", "/opt/trading.pl"), "trading.pl"),
    ],
)
def test_running_script_is_still_found_by_its_name(arguments: tuple[str, ...], name: str) -> None:
    assert is_named(ProcessEntry(1, "x", arguments), name)


def test_running_python_script_is_found_by_its_name(resolve: Run, folder: Path) -> None:
    argv = resolve(of(write(folder / "trading.py", "pass"))).argv
    assert is_named(ProcessEntry(1, "python3", tuple(argv)), "trading.py")
    assert not is_named(ProcessEntry(1, "python3", ("/usr/bin/tail", "-f", "trading.py")), "trading.py")


# Tricks with names


def refused(resolve: Run, path: Path | str, reason: str, **changed: Any) -> None:
    with pytest.raises(RejectedError, match=reason):
        resolve(ScriptCommand(path=str(path)), **changed)


def test_links_are_not_followed(resolve: Run, folder: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "elsewhere" / "evil.sh", "echo evil")
    (folder / "file.sh").symlink_to(outside)
    (folder / "sub").symlink_to(outside.parent)
    (folder / "inside.sh").symlink_to(write(folder / "real.sh", "echo fine"))
    refused(resolve, folder / "file.sh", "is a link, and links are not followed here")
    refused(resolve, folder / "sub" / "evil.sh", "is a link, and links are not followed here")
    refused(resolve, folder / "inside.sh", "is a link, and links are not followed here")


def test_allowed_folder_itself_may_be_a_link(resolve: Run, folder: Path, tmp_path: Path) -> None:
    script = write(folder / "tool.sh", "true")
    (tmp_path / "alias").symlink_to(folder)
    for given in (tmp_path / "alias" / "tool.sh", script):
        assert str(script) in resolve(of(given), allowed_paths=[tmp_path / "alias"]).argv


@pytest.mark.parametrize("given", ["../elsewhere/evil.sh", "sub/../tool.sh", "../scripts/tool.sh"])
def test_dots_are_refused(resolve: Run, folder: Path, tmp_path: Path, given: str) -> None:
    write(tmp_path / "elsewhere" / "evil.sh", "echo evil")
    write(folder / "tool.sh", "true")
    refused(resolve, f"{folder}/{given}", r"has '\.\.' in its path")


def test_outside_is_refused(resolve: Run, folder: Path, tmp_path: Path) -> None:
    refused(resolve, write(tmp_path / "evil.sh", "true"), r"is outside of scripts\.allowed_paths")
    refused(resolve, write(tmp_path / "scripts2" / "evil.sh", "true"), r"is outside of scripts\.allowed_paths")
    refused(resolve, folder, r"is outside of scripts\.allowed_paths")
    refused(resolve, "tool.sh", "is not an absolute path")
    refused(resolve, f"{folder}/a\0b.sh", "is not an absolute path")


@pytest.mark.parametrize(("mode", "who"), [(0o775, "group"), (0o757, "others"), (0o666, "others")])
def test_what_others_may_write_is_refused(resolve: Run, folder: Path, mode: int, who: str) -> None:
    script = write(folder / "sub" / "tool.sh", "true", mode)
    refused(resolve, script, r"tool\.sh is writable by its group or others")
    script.chmod(0o700)
    script.parent.chmod(mode | 0o111)
    refused(resolve, script, r"the folder .*sub is writable by its group or others")
    script.parent.chmod(0o1777)
    refused(resolve, script, r"the folder .*sub is writable by its group or others")
    script.parent.chmod(0o755)
    folder.chmod(mode | 0o111)
    refused(resolve, script, r"the folder .*scripts is writable by its group or others")


@as_root
def test_what_belongs_to_somebody_else_is_refused(resolve: Run, folder: Path) -> None:
    script = write(folder / "sub" / "tool.sh", "true")
    os.chown(script, SOMEBODY, SOMEBODY)
    refused(resolve, script, f"belongs to user {SOMEBODY}, neither root nor the agent's own user")
    os.chown(script, 0, 0)
    os.chown(script.parent, SOMEBODY, SOMEBODY)
    refused(resolve, script, f"sub belongs to user {SOMEBODY}")


def test_second_name_of_a_file_is_refused(
    resolve: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = write(folder / "tool.sh", "true")
    os.link(script, tmp_path / "elsewhere.sh")
    if os.geteuid() == 0:
        # To root's files only root can make links: shown with the file of an agent that is not root.
        os.chown(script, SOMEBODY, SOMEBODY)
        monkeypatch.setattr("opsmap_agent.rules.trusted._check_folder", lambda *_, **__: None)
        monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    refused(resolve, script, r"has 2 names \(hard links\)")


def test_only_regular_files(resolve: Run, folder: Path) -> None:
    os.mkfifo(folder / "pipe.sh")
    (folder / "folder.sh").mkdir()
    refused(resolve, folder / "pipe.sh", "is not a regular file")
    refused(resolve, folder / "folder.sh", "is not a regular file")
    with pytest.raises(NotStartedError, match=r"none\.sh does not exist"):
        resolve(of(folder / "none.sh"))
    with pytest.raises(NotStartedError, match="is not a folder"):
        resolve(of(write(folder / "file", "true") / "x.sh"))


def test_size_of_a_script_is_bounded(resolve: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "_MAX_SCRIPT_BYTES", 1000)
    write(folder / "tool.sh", "#" * 1000)
    assert resolve(of(folder / "tool.sh"))
    refused(resolve, write(folder / "tool.sh", "#" * 1001), "is larger than")


def test_missing_interpreter_of_a_script_is_told(resolve: Run, folder: Path) -> None:
    with pytest.raises(NotStartedError, match=r"the interpreter /opt/none/sh that .*tool\.sh asks for does not exist"):
        resolve(of(write(folder / "tool.sh", "#!/opt/none/sh\n")))


# Replaced between check and run


def swap(path: Path, text: str) -> None:
    """Another file under the same name, as `mv` does it."""
    write(path.with_suffix(".new"), text).rename(path)


def rewrite(path: Path, text: str) -> None:
    """Other content in the same file."""
    path.write_text(text)


CHECKED = "#!/bin/sh\necho checked\n"
BY_PATH = "#!/bin/bash\necho checked ${BASH_SOURCE[0]##*/}\n"


async def run_detached(program: Program, folder: JobFolder) -> str:
    launched = await asyncio.to_thread(launch, program, folder)
    await wait_for_end(launched.shim)
    return folder.log_path.read_text()


@pytest.mark.parametrize("replace_it", [swap, rewrite])
@pytest.mark.parametrize("is_detached", [False, True])
async def test_replaced_script_does_not_run(
    resolve: Run,
    runner: SyncRunner,
    folder: Path,
    tmp_path: Path,
    replace_it: Callable[[Path, str], None],
    is_detached: bool,
) -> None:
    script = write(folder / "tool.sh", CHECKED)
    program = resolve(of(script))
    replace_it(script, "#!/bin/sh\necho evil\n")
    if is_detached:
        assert await run_detached(program, JobFolder(tmp_path / "job")) == "checked\n"
    else:
        assert (await runner.run(program, 5)).stdout == "checked\n"


@pytest.mark.parametrize("replace_it", [swap, rewrite])
async def test_script_that_runs_by_its_path_is_compared_again(
    resolve: Run, runner: SyncRunner, folder: Path, tmp_path: Path, replace_it: Callable[[Path, str], None]
) -> None:
    script = write(folder / "tool.sh", BY_PATH)
    program = resolve(of(script))
    assert (await runner.run(program, 5)).stdout == "checked tool.sh\n"
    assert await run_detached(program, JobFolder(tmp_path / "first")) == "checked tool.sh\n"
    replace_it(script, "#!/bin/sh\necho evil\n")
    with pytest.raises(RejectedError, match=r"tool\.sh was replaced after it was checked"):
        await runner.run(program, 5)
    with pytest.raises(RejectedError, match=r"tool\.sh was replaced after it was checked"):
        await asyncio.to_thread(launch, program, JobFolder(tmp_path / "job"))
    script.unlink()
    with pytest.raises(RejectedError, match=r"tool\.sh went away"):
        await runner.run(program, 5)


async def test_shim_compares_at_the_last_moment(
    resolve: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = write(folder / "tool.sh", BY_PATH)
    program = resolve(of(script))
    spawn = os.posix_spawn

    def swap_and_spawn(*arguments: Any, **options: Any) -> int:
        swap(script, "#!/bin/sh\necho evil\n")
        return spawn(*arguments, **options)

    monkeypatch.setattr(os, "posix_spawn", swap_and_spawn)
    job = JobFolder(tmp_path / "job")
    with pytest.raises(RefusalError, match=r"tool\.sh was replaced after it was checked"):
        await asyncio.to_thread(launch, program, job)
    assert "evil" not in job.log_path.read_text()


async def test_script_swapped_all_the_time_runs_checked_or_not_at_all(resolve: Run, folder: Path) -> None:
    """A race without a hook: whatever is opened is a whole file that was under that name, of an allowed kind."""
    script = write(folder / "tool.sh", CHECKED)
    evil = write(folder.parent / "evil.sh", "#!/bin/sh\necho evil\n")
    is_over = asyncio.Event()

    def keep_swapping() -> None:
        while not is_over.is_set():
            link = folder / "link"
            link.symlink_to(evil)
            link.rename(script)
            swap(script, CHECKED)

    swapping = asyncio.create_task(asyncio.to_thread(keep_swapping))
    outcomes = set()
    for _ in range(300):
        try:
            outcomes.add((await asyncio.to_thread(resolve, of(script))).input)
        except RejectedError as refusal:
            outcomes.add(str(refusal).encode())
    is_over.set()
    await swapping
    assert not any(b"evil" in (outcome or b"") for outcome in outcomes)
    assert any(b"checked" in (outcome or b"") for outcome in outcomes)


async def test_script_replaced_between_check_and_run_of_an_agent(
    open_host: OpenHost, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = write(folder / "tool.sh", CHECKED)
    resolve = policy.Policy.resolve

    def resolve_then_swap(self: Policy, spec: Any) -> Program:
        program = resolve(self, spec)
        swap(script, "#!/bin/sh\necho evil\n")
        return program

    monkeypatch.setattr(policy.Policy, "resolve", resolve_then_swap)
    async with open_host() as host:
        assert (await host.gateway.run(of(script)))["result"]["stdout"] == "checked\n"
        write(script, CHECKED)
        request = await host.gateway.command(of(script), AsyncMode())
        assert (await host.gateway.body("async_status", request))["log_tail"] == "checked\n"
