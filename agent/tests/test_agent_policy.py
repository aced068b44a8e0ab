"""What a configuration lets the backend run, and the reasons it gives for the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from opsmap_agent.commands.refusals import NotStartedError, RejectedError
from opsmap_agent.configuration import Configuration, NativeCommands, ProcessLimits
from opsmap_agent.rules.policy import Policy
from opsmap_agent.rules.program import Program
from opsmap_protocol.enums import ServiceAction
from opsmap_protocol.specs import ExecuteCommand, ScriptCommand, ServiceControlCommand


@pytest.fixture
def configuration(agent_configuration: Configuration) -> Configuration:
    return agent_configuration


def script_file(path: Path, text: str = "#!/bin/sh\necho hello\n", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def resolve(configuration: Configuration, spec: Any, **scripts: Any) -> Program:
    if scripts:
        configuration = replace(configuration, scripts=replace(configuration.scripts, **scripts))
    return Policy(configuration).resolve(spec)


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
    assert program.input == b"#!/usr/bin/env python3\nprint(1)\n"
    with pytest.raises(RejectedError, match="allowed_commands"):
        resolve(configuration, spec, allowed_commands=["sh"])


def test_inline_script_is_for_sh_unless_it_says_otherwise(configuration: Configuration) -> None:
    assert Path(resolve(configuration, ScriptCommand(content="echo 1")).argv[0]).name == "sh"
    with pytest.raises(NotStartedError, match="names no interpreter"):
        resolve(configuration, ScriptCommand(content="#! \n"))


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
    for name in ("reboot.target", "systemd-poweroff", "emergency.service", "tmp.mount"):
        with pytest.raises(RejectedError, match=r"would end this host|but not a service"):
            resolve(configuration, ServiceControlCommand(name, ServiceAction.START))


def test_nul_is_refused(configuration: Configuration) -> None:
    for spec in (ExecuteCommand("true", ["a\0b"]), ExecuteCommand("true", env={"A=B": "1"})):
        with pytest.raises(RejectedError, match="NUL"):
            resolve(configuration, spec)


@pytest.mark.parametrize("name", ["LD_PRELOAD", "BASH_ENV", "IFS", "PYTHONPATH", "BASH_FUNC_x%%", "GLIBC_TUNABLES"])
def test_loader_variables_cannot_get_around_the_list(configuration: Configuration, name: str) -> None:
    spec = ExecuteCommand("true", env={name: "/x"})
    assert resolve(configuration, spec).env[name] == "/x"
    with pytest.raises(RejectedError, match="makes programs load other code; refused because"):
        resolve(configuration, spec, allowed_commands=["true"])


def test_limits_come_before_the_command(configuration: Configuration) -> None:
    limits = ProcessLimits(max_memory_mb=64, max_open_files=20, nice=5)
    argv = resolve(configuration, ExecuteCommand("true"), limits=limits).argv
    assert [Path(part).name for part in argv] == ["prlimit", "--as=67108864", "--nofile=20", "nice", "-n", "5", "true"]
    assert len(resolve(configuration, ExecuteCommand("true")).argv) == 1
