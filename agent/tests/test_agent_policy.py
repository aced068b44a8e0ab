"""What a configuration lets the backend run, and the reasons it gives for the rest."""

from __future__ import annotations

import getpass
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from opsmap_agent.configuration import Configuration, NativeCommands, RunAs
from opsmap_agent.policy import Policy, Program
from opsmap_agent.refusals import NotStartedError, RejectedError
from opsmap_protocol.enums import ServiceAction
from opsmap_protocol.specs import ExecuteCommand, ScriptCommand, ServiceControlCommand

OTHER_USER = "nobody"


@pytest.fixture
def configuration(agent_configuration: Configuration) -> Configuration:
    return agent_configuration


@pytest.fixture
def sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sudo that is only found, first on PATH."""
    path = script_file(tmp_path / "bin" / "sudo", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    return path


def script_file(path: Path, text: str = "#!/bin/sh\necho hello\n", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def resolve(configuration: Configuration, spec: Any, **scripts: Any) -> Program:
    if scripts:
        configuration = replace(configuration, scripts=replace(configuration.scripts, **scripts))
    return Policy(configuration).resolve(spec, Path("/job"))


def test_program_is_found_on_path(configuration: Configuration) -> None:
    program = resolve(configuration, ExecuteCommand("sleep", ["5"]))
    assert program.argv[0].endswith("/sleep")
    assert program.argv[0].startswith("/")
    assert (program.argv[1:], program.working_dir) == (["5"], "/")


def test_environment_is_four_variables_and_what_was_given(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPSMAP_SECRET", "hunter2")
    monkeypatch.setenv("LANG", "C.UTF-8")
    program = resolve(configuration, ExecuteCommand("sleep", env={"COLOUR": "blue"}))
    assert set(program.env) <= {"PATH", "HOME", "LANG", "TZ", "COLOUR"}
    assert (program.env["COLOUR"], program.env["LANG"]) == ("blue", "C.UTF-8")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no-such-program", "no program 'no-such-program' on PATH"),
        ("/no/such/program", "the program /no/such/program does not exist"),
        ("/etc/passwd", "permission denied: /etc/passwd is not executable"),
        ("/usr/bin", "/usr/bin is a folder, not a program"),
        ("bin/true", "neither an absolute path nor a bare name"),
        ("", "no proper name"),
    ],
)
def test_program_that_cannot_begin(configuration: Configuration, path: str, reason: str) -> None:
    with pytest.raises(NotStartedError, match=reason):
        resolve(configuration, ExecuteCommand(path))


def test_missing_interpreter_is_told_as_such(configuration: Configuration, tmp_path: Path) -> None:
    path = script_file(tmp_path / "tool", "#!/opt/none/python\n")
    with pytest.raises(NotStartedError, match=r"the interpreter /opt/none/python that .*tool asks for does not exist"):
        resolve(configuration, ExecuteCommand(str(path)))


@pytest.mark.parametrize("folder", ["/no/such/folder", "relative", "/etc/passwd"])
def test_working_directory_must_be_one(configuration: Configuration, folder: str) -> None:
    with pytest.raises(NotStartedError, match="the working directory"):
        resolve(configuration, ExecuteCommand("true", working_dir=folder))


def test_scripts_switched_off_refuse_programs_and_scripts(configuration: Configuration) -> None:
    for spec in (ExecuteCommand("true"), ScriptCommand(content="true")):
        with pytest.raises(RejectedError, match=r"scripts\.enabled is false"):
            resolve(configuration, spec, enabled=False)


@pytest.mark.parametrize("entry", ["sleep", "/bin/sleep", "/usr/bin/sleep"])
def test_allowed_command_by_name_or_path(configuration: Configuration, entry: str) -> None:
    assert resolve(configuration, ExecuteCommand("sleep"), allowed_commands=[entry]).argv
    with pytest.raises(RejectedError, match=r"'true' is not in scripts\.allowed_commands"):
        resolve(configuration, ExecuteCommand("true"), allowed_commands=[entry])


def test_allowed_name_is_not_any_file_of_that_name(configuration: Configuration, tmp_path: Path) -> None:
    impostor = script_file(tmp_path / "sleep")
    with pytest.raises(RejectedError, match="allowed_commands"):
        resolve(configuration, ExecuteCommand(str(impostor)), allowed_commands=["sleep"])


def test_own_path_of_a_command_does_not_widen_the_list(configuration: Configuration, tmp_path: Path) -> None:
    script_file(tmp_path / "sleep")
    spec = ExecuteCommand("sleep", env={"PATH": str(tmp_path)})
    assert resolve(configuration, spec).argv == [str(tmp_path / "sleep")]
    with pytest.raises(RejectedError, match="allowed_commands"):
        resolve(configuration, spec, allowed_commands=["sleep"])


def test_inline_script_needs_an_allowed_interpreter(configuration: Configuration) -> None:
    spec = ScriptCommand(content="#!/usr/bin/env python3\nprint(1)\n")
    program = resolve(configuration, spec)
    assert program.argv[0].endswith("/python3")
    assert program.argv[1] == "/job/script"
    with pytest.raises(RejectedError, match="allowed_commands"):
        resolve(configuration, spec, allowed_commands=["sh"])


def test_inline_script_is_for_sh_unless_it_says_otherwise(configuration: Configuration) -> None:
    assert Path(resolve(configuration, ScriptCommand(content="echo 1")).argv[0]).name == "sh"
    with pytest.raises(NotStartedError, match="names no interpreter"):
        resolve(configuration, ScriptCommand(content="#! \n"))


def test_script_file_inside_runs(configuration: Configuration, tmp_path: Path) -> None:
    path = script_file(tmp_path / "scripts" / "clear.sh")
    assert resolve(configuration, ScriptCommand(path=str(path), args=["-x"])).argv == [str(path), "-x"]
    path.chmod(0o644)
    program = resolve(configuration, ScriptCommand(path=str(path)))
    assert [Path(part).name for part in program.argv] == ["sh", "clear.sh"]


def test_script_outside_is_refused_also_through_a_link(configuration: Configuration, tmp_path: Path) -> None:
    outside = script_file(tmp_path / "elsewhere" / "evil.sh")
    link = tmp_path / "scripts" / "good.sh"
    link.symlink_to(outside)
    dots = tmp_path / "scripts" / ".." / "elsewhere" / "evil.sh"
    for given in (outside, link, dots):
        with pytest.raises(RejectedError, match=r"is outside of scripts\.allowed_paths"):
            resolve(configuration, ScriptCommand(path=str(given)))


def test_script_with_another_extension_is_refused(configuration: Configuration, tmp_path: Path) -> None:
    path = script_file(tmp_path / "scripts" / "tool.rb")
    with pytest.raises(RejectedError, match=r"is not in scripts\.allowed_extensions"):
        resolve(configuration, ScriptCommand(path=str(path)))
    assert resolve(configuration, ScriptCommand(path=str(path)), allowed_extensions=[]).argv


def test_script_is_content_or_path(configuration: Configuration, tmp_path: Path) -> None:
    for spec in (ScriptCommand(), ScriptCommand(content="true", path="/x.sh")):
        with pytest.raises(RejectedError, match="either as content or as path"):
            resolve(configuration, spec)
    with pytest.raises(NotStartedError, match="does not exist"):
        resolve(configuration, ScriptCommand(path=str(tmp_path / "scripts" / "none.sh")))


def test_other_user_only_from_the_list(configuration: Configuration) -> None:
    with pytest.raises(RejectedError, match=r"running as 'nobody' is not allowed by identity\.allowed_runas_users"):
        resolve(configuration, ExecuteCommand("true", run_as_user=OTHER_USER))


def test_other_user_through_sudo(configuration: Configuration, sudo: Path) -> None:
    configuration = replace(configuration, identity=RunAs(allowed_runas_users=[OTHER_USER, "no-such-user"]))
    program = resolve(configuration, ExecuteCommand("id", ["-un"], env={"A": "1"}, run_as_user=OTHER_USER))
    assert program.argv[:6] == [str(sudo), "-n", "-u", OTHER_USER, "--preserve-env=A", "--"]
    assert [Path(program.argv[6]).name, *program.argv[7:]] == ["id", "-un"]
    with pytest.raises(NotStartedError, match="the user 'no-such-user' does not exist"):
        resolve(configuration, ExecuteCommand("id", run_as_user="no-such-user"))


def test_own_user_needs_no_sudo(configuration: Configuration) -> None:
    assert resolve(configuration, ExecuteCommand("true", run_as_user=getpass.getuser())).run_as_user is None


def test_sudo_missing_is_told(configuration: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = script_file(tmp_path / "bin" / "tool")
    monkeypatch.setenv("PATH", str(program.parent))
    configuration = replace(configuration, identity=RunAs(allowed_runas_users=[OTHER_USER]))
    with pytest.raises(NotStartedError, match="needs sudo, which is not installed"):
        resolve(configuration, ExecuteCommand("tool", run_as_user=OTHER_USER))


@pytest.mark.usefixtures("sudo")
def test_inline_script_of_another_user_goes_in_by_stdin(configuration: Configuration) -> None:
    configuration = replace(configuration, identity=RunAs(allowed_runas_users=[OTHER_USER]))
    program = resolve(configuration, ScriptCommand(content="id", args=["x"], run_as_user=OTHER_USER))
    assert program.is_script_stdin
    assert program.argv[-2:] == ["-s", "x"]
    with pytest.raises(RejectedError, match="cannot run as another user"):
        resolve(configuration, ScriptCommand(content="1", interpreter="awk", run_as_user=OTHER_USER))


def test_service_control_has_its_own_switch(configuration: Configuration, tmp_path: Path) -> None:
    spec = ServiceControlCommand("nginx", ServiceAction.RESTART)
    off = replace(configuration, native_commands=NativeCommands(service_control=False))
    with pytest.raises(RejectedError, match=r"native_commands\.service_control is false"):
        resolve(off, spec)


def test_service_name_cannot_be_an_option(
    configuration: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl = script_file(tmp_path / "bin" / "systemctl")
    monkeypatch.setenv("PATH", str(systemctl.parent))
    spec = ServiceControlCommand("app@1.service", ServiceAction.START)
    assert resolve(configuration, spec).argv == [str(systemctl), "start", "app@1.service"]
    with pytest.raises(RejectedError, match="is not the name of a service"):
        resolve(configuration, ServiceControlCommand("--root=/", ServiceAction.START))


def test_nul_is_refused(configuration: Configuration) -> None:
    for spec in (ExecuteCommand("true", ["a\0b"]), ExecuteCommand("true", env={"A=B": "1"})):
        with pytest.raises(RejectedError, match="NUL"):
            resolve(configuration, spec)


def test_inline_script_is_readable_by_its_owner_only(configuration: Configuration, tmp_path: Path) -> None:
    program = Policy(configuration).resolve(ScriptCommand(content="echo geheim é"), tmp_path / "job")
    program.write_script()
    path = tmp_path / "job" / "script"
    assert path.read_text() == "echo geheim é"
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    program.remove_script()
    assert not path.parent.exists()
