"""Commands as another user: who may be, refused by the agent and by a real sudo, and how they begin."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from opsmap_agent.commands.refusals import NotStartedError, RejectedError
from opsmap_agent.configuration import Configuration, RunAs
from opsmap_agent.rules import runas
from opsmap_agent.rules.policy import Policy
from opsmap_protocol.messages import CancelCommand
from opsmap_protocol.specs import AsyncMode, ExecuteCommand

if TYPE_CHECKING:
    from conftest import OpenHost

_PACKAGING = Path(__file__).parents[1] / "packaging"
_DRIVER = Path(__file__).with_name("testing_run_as.py")
_USERS = {"opsmap": 7001, "db": 7002, "web": 7003, "stranger": 7004, "other": 7005}
_GROUPS = {"opsmap-runas": (7010, "db,web,other"), "webadmin": (7011, "web,other")}


# By the agent alone


def resolve(configuration: Configuration, user: str, identity: RunAs, **fields: Any) -> None:
    Policy(replace(configuration, identity=identity)).resolve(ExecuteCommand("true", run_as_user=user, **fields))


def test_only_listed_users(agent_configuration: Configuration) -> None:
    for identity in (RunAs(), RunAs(allowed_runas_users=["daemon"], allowed_runas_groups=["daemon", "no-such-group"])):
        with pytest.raises(RejectedError, match=r"'nobody' is not allowed by identity\.allowed_runas_users or"):
            resolve(agent_configuration, "nobody", identity)


def test_root_is_never_allowed(agent_configuration: Configuration, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 2)
    with pytest.raises(RejectedError, match="'root' is root: nothing runs as root"):
        resolve(agent_configuration, "root", RunAs(allowed_runas_users=["root"]))


def test_unknown_user(agent_configuration: Configuration) -> None:
    with pytest.raises(NotStartedError, match="the user 'no-such-user' does not exist"):
        resolve(agent_configuration, "no-such-user", RunAs(allowed_runas_users=["no-such-user"]))


def test_own_user_needs_no_sudo(agent_configuration: Configuration) -> None:
    program = Policy(agent_configuration).resolve(ExecuteCommand("true", run_as_user=getpass.getuser()))
    assert program.run_as_user is None


def test_loader_variables_are_refused(agent_configuration: Configuration) -> None:
    for name in ("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "BASH_ENV", "ENV", "IFS", "PERL5LIB", "BASH_FUNC_a%%"):
        with pytest.raises(RejectedError, match="makes programs load other code; refused for another user"):
            resolve(agent_configuration, "nobody", RunAs(allowed_runas_users=["nobody"]), env={name: "x"})


@pytest.mark.parametrize("missing", ["sudo", "helper"])
def test_missing_parts_are_told_at_once(
    agent_configuration: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    (tmp_path / "sudo").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "sudo").chmod(0o755)
    monkeypatch.setattr(runas, "_SUDO_PATH", str(tmp_path) if missing == "helper" else "/none")
    monkeypatch.setattr(runas, "HELPER", str(tmp_path / "none"))
    expected = "needs sudo, which is not installed" if missing == "sudo" else "needs .*none, which is not installed"
    with pytest.raises(NotStartedError, match=expected):
        resolve(agent_configuration, "nobody", RunAs(allowed_runas_users=["nobody"]))


def test_missing_rule_is_told_at_once(
    agent_configuration: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    sudo.chmod(0o755)
    monkeypatch.setattr(runas, "_SUDO_PATH", str(tmp_path))
    monkeypatch.setattr(runas, "HELPER", str(sudo))
    with pytest.raises(NotStartedError, match=r"sudo does not let the agent run .*: a password"):
        resolve(agent_configuration, "nobody", RunAs(allowed_runas_users=["nobody"]))


# With a real sudo


def why_not() -> str | None:
    """Why the tests with a real sudo cannot run here."""
    if os.geteuid() != 0:
        return "a host with users and rules of its own needs root"
    if shutil.which("sudo") is None or shutil.which("unshare") is None:
        return "sudo or unshare is not installed"
    if not os.access("/usr/bin/python3", os.X_OK):
        return "there is no /usr/bin/python3, which every user could run"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        return "this machine lets nobody make a mount namespace"
    return None


@pytest.fixture(scope="module")
def host() -> Iterator[Path]:
    """A folder with all that differs on a host with the agent's package: mounted over the real files by `on_host`."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    # Not below the folder of pytest, which nobody but its user may enter.
    with tempfile.TemporaryDirectory(prefix="opsmap-host-") as name:
        Path(name).chmod(0o755)
        _furnish(Path(name))
        yield Path(name)


def _furnish(folder: Path) -> None:
    users = [f"{name}:x:{uid}:{uid}::/var:/bin/sh\n" for name, uid in _USERS.items()]
    groups = [f"{name}:x:{uid}:\n" for name, uid in _USERS.items()]
    groups += [f"{name}:x:{gid}:{members}\n" for name, (gid, members) in _GROUPS.items()]
    shadow = [f"{name}:*:19000:0:99999:7:::\n" for name in _USERS]
    for name, lines, mode in (("passwd", users, 0o644), ("group", groups, 0o644), ("shadow", shadow, 0o600)):
        path = folder / name
        path.write_text(Path("/etc", name).read_text() + "".join(lines))
        path.chmod(mode)
    rules = folder / "sudoers.d"
    rules.mkdir(mode=0o755)
    shutil.copy(_PACKAGING / "sudoers.d" / "opsmap-agent", rules / "opsmap-agent")
    (rules / "opsmap-agent").chmod(0o440)
    helper = folder / "lib" / "opsmap-agent"
    (helper / "bin").mkdir(parents=True)
    for made in (helper, helper / "bin"):
        made.chmod(0o755)
    (helper / "bin" / "python3").symlink_to("/usr/bin/python3")
    shutil.copy(_PACKAGING / "run_as.py", helper / "run-as")
    (helper / "run-as").chmod(0o755)
    for name in ("scripts", "jobs"):
        (folder / name).mkdir(mode=0o755)
        os.chown(folder / name, _USERS["opsmap"], _USERS["opsmap"])


_MOUNT = """
set -e
umask 022
mount --make-rprivate /
for name in passwd group shadow sudoers.d; do mount --bind "$1/$name" "/etc/$name"; done
mount -t tmpfs none /usr/lib/opsmap-agent 2>/dev/null || { mount -t tmpfs none /mnt; mkdir -p /mnt/up /mnt/work
  mount -t overlay overlay -o lowerdir=/usr/lib,upperdir=/mnt/up,workdir=/mnt/work /usr/lib
  mkdir -p /usr/lib/opsmap-agent; }
cp -a "$1/lib/opsmap-agent/." /usr/lib/opsmap-agent/
folder=$1; shift
exec "$@"
"""


def on_host(host: Path, *orders: Any) -> list[dict[str, Any]]:
    """What becomes of commands that the user opsmap runs there."""
    driver = [sys.executable, str(_DRIVER), str(host)]
    done = subprocess.run(
        ["unshare", "--mount", "/bin/sh", "-c", _MOUNT, "sh", str(host), *driver],
        input=json.dumps(orders),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def script(content: str, user: str, **fields: Any) -> list[Any]:
    return ["script", {"content": content, "run_as_user": user, **fields}, 10]


def test_allowed_user_works(host: Path) -> None:
    shown = (
        "id -un; id -Gn; echo $HOME $USER $A; env | sort; ulimit -n; nice; ls /proc/self/fd | wc -l; cat; pwd; exit 4"
    )
    by_list, by_group, execute, job = on_host(
        host,
        script(shown, "db", env={"A": "b c"}, working_dir="/usr"),
        script("id -un", "web"),
        ["execute", {"path": "id", "args": ["-u"], "run_as_user": "db"}, 10],
        ["job", {"content": "#!/usr/bin/python3\nimport os, sys; print(os.getuid(), sys.argv); sys.exit(7)",
                 "args": ["x y"], "run_as_user": "db"}, 10],
    )  # fmt: skip
    lines = by_list["stdout"].splitlines()
    assert by_list["exit_code"] == 4, by_list
    assert lines[:3] == ["db", "db opsmap-runas", "/var db b c"]
    names = {line.partition("=")[0] for line in lines[3:-5]}
    assert names <= {"A", "HOME", "LANG", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHELL", "TZ", "USER", "_"}, names
    assert lines[-4:] == ["55", str(os.nice(0) + 3), "4", "/usr"], "limits, no descriptor but the usual, no input"
    assert by_group["stdout"] == "web\n"
    assert execute["stdout"] == f"{_USERS['db']}\n"
    assert (job["exit_code"], job["stdout"]) == (7, f"{_USERS['db']} ['inline-script', 'x y']\n")


def test_script_that_only_the_agent_can_read_runs_as_another_user(host: Path) -> None:
    path = host / "scripts" / "tool.sh"
    path.write_text("#!/bin/sh\nid -un; echo $0 $1\n")
    path.chmod(0o700)
    os.chown(path, _USERS["opsmap"], _USERS["opsmap"])
    answer = on_host(host, ["script", {"path": str(path), "args": ["x"], "run_as_user": "db"}, 10])[0]
    assert answer["stdout"] == f"db\n{path} x\n"


def test_others_are_refused_by_the_agent_and_by_sudo(host: Path) -> None:
    helper = "/usr/lib/opsmap-agent/run-as"
    by_agent, by_rule, unknown, *by_sudo = on_host(
        host,
        script("id", "nobody"),
        script("id", "stranger"),
        script("id", "gone"),
        *(
            ["plain", {"argv": ["sudo", "-n", *argv]}, 10]
            for argv in (
                ["-u", "root", "--", helper, "run", "/usr/bin/id"],
                ["-u", "#0", "--", helper, "run", "/usr/bin/id"],
                ["--", helper, "run", "/usr/bin/id"],
                ["-u", "stranger", "--", helper, "run", "/usr/bin/id"],
                ["-u", "db", "--", "/usr/bin/id"],
                ["-u", "db", "-g", "root", "--", helper, "run", "/usr/bin/id"],
                ["-u", "db", "LD_PRELOAD=/x", helper, "run", "/usr/bin/id"],
                ["-u", "db", "-E", helper, "run", "/usr/bin/id"],
                ["-u", "db", "-s"],
                ["-u", "db", "--", helper, "install"],
            )
        ),
    )
    assert by_agent["outcome"] == "rejected"
    assert by_rule["outcome"] == "not_started"
    assert "sudo does not let the agent run commands as 'stranger'" in by_rule["refused"]
    assert "the user 'gone' does not exist" in unknown["refused"]
    for answer in by_sudo:
        assert (answer["exit_code"], answer["stdout"]) == (1, ""), answer
        assert "sudo: " in answer["stderr"], answer


def test_root_in_the_group_is_refused_all_the_same(host: Path) -> None:
    group = host / "group"
    before = group.read_text()
    group.write_text(before.replace("opsmap-runas:x:7010:", "opsmap-runas:x:7010:root,"))
    try:
        argv = ["sudo", "-n", "-u", "root", "--", "/usr/lib/opsmap-agent/run-as", "run", "/usr/bin/id"]
        answer = on_host(host, ["plain", {"argv": argv}, 10])[0]
    finally:
        group.write_text(before)
    assert (answer["exit_code"], answer["stdout"]) == (1, "")


def test_time_limit_ends_another_users_command(host: Path) -> None:
    marker = f"31.{os.getpid()}"  # Nobody else sleeps just that long.
    answer = on_host(host, ["script", {"content": f"echo begun; sleep {marker}", "run_as_user": "db"}, 0.7])[0]
    assert (answer["timed_out"], answer["stdout"]) == (True, "begun\n")
    assert subprocess.run(["pgrep", "-f", marker], capture_output=True, check=False).stdout == b""


async def test_cancelled_job_of_another_user_is_ended_by_that_user(
    open_host: OpenHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here sudo and its helper are played: what they are asked for is what counts."""
    asked: list[tuple[str, int, signal.Signals]] = []

    def signal_group_of(user: str, group: int, number: signal.Signals) -> bool:
        asked.append((user, group, number))
        os.killpg(group, number)
        return True

    monkeypatch.setattr("opsmap_agent.jobs.job.signal_group_of", signal_group_of)
    monkeypatch.setattr(runas.OtherUsers, "check", lambda self, user: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    async with open_host() as host:
        spec = ExecuteCommand("sleep", ["60"], run_as_user="db")
        request = await host.gateway.command(spec, AsyncMode())
        pid = (await host.gateway.body("async_started", request))["pid"]
        await host.gateway.tell(CancelCommand("srv-1", request))
        status = await host.gateway.body("async_status", request)
    assert (status["status"], status["exit_code"]) == ("cancelled", 143)
    assert asked == [("db", pid, signal.SIGTERM)]


def test_helper_refuses_what_it_is_not_for() -> None:
    for line in ("", "run", "run id", "signal HUP 5", "signal KILL 1", "signal KILL x", "run /bin/true"):
        done = subprocess.run(
            [sys.executable, str(_PACKAGING / "run_as.py"), *line.split()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr[:8]) == (126, "run-as: ")
