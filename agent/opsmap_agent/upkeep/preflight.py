"""What the agent would find when it starts: looked at beforehand, by `opsmap-agent check-config`.

Nothing is changed by looking. A fault keeps the agent, or a part of it, from working; a warning will, or may.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath

from opsmap_agent.configuration import Configuration
from opsmap_agent.host import clock_state
from opsmap_agent.host import description as host
from opsmap_agent.identity.certificates import own_validity
from opsmap_agent.rules.runas import HELPER
from opsmap_daemon import tls

_SUDO_TIMEOUT_S = 10.0
_LATE_SHARE_OF_LIFE = 0.1
_FEW_DAYS = timedelta(days=7)
_OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH
_BUILT_AFTER = datetime(2026, 1, 1, tzinfo=UTC)
"""No host can run this agent before it was written: a clock that says so is wrong."""


@dataclass(frozen=True, slots=True)
class Findings:
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Account:
    """Whose rights the agent will have: those of `identity.run_as`, else those of whoever checks."""

    name: str
    uid: int
    groups: frozenset[int]

    def may(self, path: Path, rights: int) -> bool:
        """`rights` as in `os.access`, by owner, group and mode alone."""
        if self.uid == 0:
            return True
        found = path.stat()
        if found.st_uid == self.uid:
            return found.st_mode >> 6 & rights == rights
        if found.st_gid in self.groups:
            return found.st_mode >> 3 & rights == rights
        return found.st_mode & rights == rights


def look_around(configuration: Configuration, now: datetime | None = None) -> Findings:
    """Everything at once, in the order of the file."""
    findings = Findings()
    account = _account(configuration)
    if account is None:
        findings.faults.append(f"identity.run_as: there is no user {configuration.identity.run_as!r} on this host")
    else:
        findings.faults.extend(_folder_faults(configuration, account))
        findings.faults.extend(_key_faults(configuration, account))
        findings.faults.extend(_script_faults(configuration, account))
        _look_at_run_as(configuration, account, findings)
    findings.warnings.extend(_network_warnings(configuration))
    _look_at_certificates(configuration, findings, now or datetime.now(UTC))
    findings.warnings.extend(_script_warnings(configuration))
    _look_at_clock(findings, now or datetime.now(UTC))
    return findings


def _account(configuration: Configuration) -> _Account | None:
    name = configuration.identity.run_as
    try:
        entry = pwd.getpwuid(os.geteuid()) if name is None else pwd.getpwnam(name)
    except KeyError:
        return None if name is not None else _Account(str(os.geteuid()), os.geteuid(), frozenset(os.getgroups()))
    return _Account(entry.pw_name, entry.pw_uid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)))


def _folder_faults(configuration: Configuration, account: _Account) -> Iterator[str]:
    wanted: dict[str, Path | None] = {
        "detached_execution.log_dir": configuration.detached_execution.log_dir,
        "buffer.path": configuration.buffer.path,
        "watchdog.pid_file": configuration.watchdog.pid_file and configuration.watchdog.pid_file.parent,
        "logging.file": configuration.logging.file and configuration.logging.file.parent,
    }
    for key, folder in wanted.items():
        if folder is None:
            continue
        fault = _why_not_usable(folder, account)
        if fault is not None:
            yield f"{key}: {fault}"


def _why_not_usable(folder: Path, account: _Account) -> str | None:
    """Why the account can neither use a folder nor make it."""
    try:
        if folder.exists():
            if not folder.is_dir():
                return f"{folder} is not a folder"
            return None if account.may(folder, os.W_OK | os.X_OK) else f"{account.name} cannot write to {folder}"
        nearest = next(parent for parent in folder.parents if parent.exists())
        if account.may(nearest, os.W_OK | os.X_OK):
            return None
        return f"{folder} is not there, and {account.name} cannot make it in {nearest}"
    except OSError as error:
        return f"{folder} cannot be looked at: {error.strerror}"


def _key_faults(configuration: Configuration, account: _Account) -> Iterator[str]:
    key = configuration.tls.key_file
    mode = key.stat().st_mode
    if mode & stat.S_IRWXO:
        yield f"tls.key_file: everybody on this host can use {key}: chmod 600 it, and enrol the host anew"
    for name, path in (("key_file", key), ("cert_file", configuration.tls.cert_file)):
        if not account.may(path, os.R_OK):
            yield f"tls.{name}: {account.name} cannot read {path}"


def _look_at_certificates(configuration: Configuration, findings: Findings, now: datetime) -> None:
    files = configuration.tls
    own = own_validity(files)
    if _ends_soon(own, now):
        findings.warnings.append(
            f"tls.cert_file: {files.cert_file} ends in {_days(own.ends - now)}, and was not renewed"
        )
    authorities = {
        "ca_file": files.ca_file,
        "backend_ca_file": files.backend_ca_file,
        "root_ca_file": files.root_ca_file,
    }
    for key, path in authorities.items():
        if path is None:
            continue
        try:
            validity = tls.authority_validity(path)
        except tls.TlsError as error:
            findings.faults.append(f"tls.{key}: {error}")
            continue
        if validity.ends < now:
            findings.faults.append(f"tls.{key}: the authority in {path} ended on {validity.ends:%Y-%m-%d}")
        elif _ends_soon(validity, now):
            findings.warnings.append(f"tls.{key}: the authority in {path} ends in {_days(validity.ends - now)}")
    if files.root_ca_file is None:
        findings.warnings.append("tls.root_ca_file: none, so authorities that are renewed have to be brought by hand")


def _ends_soon(validity: tls.Validity, now: datetime) -> bool:
    return validity.ends - now < min(_FEW_DAYS, timedelta(seconds=validity.life_s * _LATE_SHARE_OF_LIFE))


def _look_at_run_as(configuration: Configuration, account: _Account, findings: Findings) -> None:
    identity = configuration.identity
    if not identity.allowed_runas_users and not identity.allowed_runas_groups:
        return
    sudo = shutil.which("sudo")
    if sudo is None:
        findings.faults.append("identity: running commands as other users needs sudo, which is not installed")
    if not os.access(HELPER, os.X_OK):
        findings.faults.append(f"identity: running commands as other users needs {HELPER}, which is not installed")
        sudo = None
    for name in identity.allowed_runas_users:
        if not _is_known(name):
            findings.warnings.append(f"identity.allowed_runas_users: there is no user {name!r} on this host")
        elif pwd.getpwnam(name).pw_uid == 0:
            findings.faults.append(f"identity.allowed_runas_users: {name!r} is root, and nothing is run as root")
        elif sudo is not None and not _is_granted(sudo, account, name):
            findings.faults.append(
                f"identity.allowed_runas_users: sudo does not let {account.name} run commands as {name!r}: is that user"
                " in the group opsmap-runas, and the rule of the package in /etc/sudoers.d?"
            )


def _is_granted(sudo: str, account: _Account, user: str) -> bool:
    other = () if account.uid == os.geteuid() else ("-U", account.name)
    try:
        asked = subprocess.run(
            [sudo, "-n", "-l", *other, "-u", user, "--", HELPER, "run"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SUDO_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def _is_known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _script_faults(configuration: Configuration, account: _Account) -> Iterator[str]:
    """Folders whose scripts will all be refused, because others could swap what is in them."""
    for path in configuration.scripts.allowed_paths:
        if not path.is_dir():
            continue
        for folder in (path, *path.parents):
            found = folder.stat()
            is_sticky = bool(found.st_mode & stat.S_ISVTX) and folder != path
            if found.st_uid not in (0, account.uid):
                yield f"scripts.allowed_paths: {folder} belongs to user {found.st_uid}, neither root nor {account.name}"
            elif found.st_mode & _OTHERS_CAN_WRITE and not is_sticky:
                yield f"scripts.allowed_paths: {folder} is writable by its group or others"


def _script_warnings(configuration: Configuration) -> Iterator[str]:
    for path in configuration.scripts.allowed_paths:
        if not path.is_dir():
            yield f"scripts.allowed_paths: {path} is not there"
        elif Path(os.path.realpath(path)) != PurePath(path):
            yield f"scripts.allowed_paths: {path} is a link; name {os.path.realpath(path)}"


def _network_warnings(configuration: Configuration) -> Iterator[str]:
    network = configuration.network
    if network.bind_interface is not None and host.interface_address(network.bind_interface) is None:
        yield f"network.bind_interface: {network.bind_interface} has no address now"
    if network.bind_address is not None and network.bind_address not in host.own_addresses():
        yield f"network.bind_address: {network.bind_address} is not an address of this host now"


def _look_at_clock(findings: Findings, now: datetime) -> None:
    if now < _BUILT_AFTER:
        findings.faults.append(f"this host's clock says {now:%Y-%m-%d}: every command will be refused")
    elif clock_state.is_synchronized() is False:
        findings.warnings.append("nothing keeps this host's clock right (chrony or systemd-timesyncd would)")


def _days(span: timedelta) -> str:
    return f"{span.days} days" if span >= timedelta(days=2) else f"{int(span.total_seconds() // 3600)} hours"
