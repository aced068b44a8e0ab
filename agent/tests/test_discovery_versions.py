"""Versions without running anything: packages, archives, folders."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from opsmap_agent.discovery.catalogue import recognise
from opsmap_agent.discovery.packages import find_versions, read_rpm_header, upstream
from opsmap_agent.discovery.procfs import HostView
from opsmap_agent.discovery.technologies import discover_technologies
from opsmap_agent.discovery.versions import (
    java_release,
    python_distribution,
    version_in_archive,
    version_in_path,
)

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="there is no dpkg to compare with")
needs_rpm = pytest.mark.skipif(
    shutil.which("rpm") is None or shutil.which("rpmbuild") is None,
    reason="there is no rpm and rpmbuild to try it with",
)


@needs_dpkg
def test_versions_are_those_of_dpkg() -> None:
    files = [path for name in ("bash", "sed", "tar", "gzip") if (path := shutil.which(name))]
    found = find_versions([*files, "/nowhere/nothing", "relative"])
    for path in files:
        owner = ""
        for spelling in (path, path.removeprefix("/usr")):
            search = subprocess.run(["dpkg-query", "-S", spelling], capture_output=True, text=True)
            owner = owner or search.stdout.partition(":")[0]
        shown = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", owner], capture_output=True, text=True).stdout
        assert found[path] == upstream(shown)
    assert set(found) == set(files)


SPEC = """
Name: opsmap-example
Version: 3.2.1
Release: 4
Summary: A package to be found
License: Apache-2.0
BuildArch: noarch
%description
A package to be found.
%install
mkdir -p %{buildroot}/usr/sbin
echo x > %{buildroot}/usr/sbin/exampled
%files
/usr/sbin/exampled
"""


@needs_rpm
def test_versions_are_those_of_rpm(tmp_path: Path) -> None:
    root, spec = tmp_path / "root", tmp_path / "example.spec"
    root.mkdir()
    spec.write_text(SPEC)
    environment = os.environ | {"HOME": str(tmp_path)}
    build = ["rpmbuild", "-bb", "--define", f"_topdir {tmp_path}/build", str(spec)]
    subprocess.run(build, check=True, capture_output=True, env=environment)
    [package] = (tmp_path / "build").rglob("*.rpm")
    database = ["--root", str(root), "--define", "_db_backend sqlite", "--dbpath", "/var/lib/rpm"]
    install = ["rpm", *database, "-i", "--nodeps", "--noscripts", str(package)]
    subprocess.run(install, check=True, capture_output=True, env=environment)
    assert (root / "var/lib/rpm/rpmdb.sqlite").exists()
    assert find_versions(["/usr/sbin/exampled", "/usr/sbin/other"], root) == {"/usr/sbin/exampled": "3.2.1"}


def test_versions_are_those_of_apk(tmp_path: Path) -> None:
    database = tmp_path / "lib/apk/db/installed"
    database.parent.mkdir(parents=True)
    database.write_text("P:nginx\nV:1.26.2-r4\nF:usr/sbin\nR:nginx\n\nP:redis\nV:7.2.5-r1\nF:usr/bin\nR:redis-server\n")
    found = find_versions(["/usr/sbin/nginx", "/usr/bin/redis-server"], tmp_path)
    assert found == {"/usr/sbin/nginx": "1.26.2", "/usr/bin/redis-server": "7.2.5"}


def test_a_host_without_package_databases_has_no_versions(tmp_path: Path) -> None:
    assert find_versions(["/usr/sbin/nginx"], tmp_path) == {}
    assert find_versions([]) == {}


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, b"SQLite format 3\0" + b"\0" * 4080])
def test_a_damaged_database_is_no_database(tmp_path: Path, damage: bytes) -> None:
    for place in ("var/lib/rpm/rpmdb.sqlite", "lib/apk/db/installed", "var/lib/dpkg/status"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(damage)
    (tmp_path / "var/lib/dpkg/info").mkdir()
    (tmp_path / "var/lib/dpkg/info/nginx.list").write_bytes(b"/.\n/usr/sbin/nginx\n")
    assert find_versions(["/usr/sbin/nginx"], tmp_path) == {}


def test_a_damaged_rpm_header_is_refused() -> None:
    with pytest.raises(Exception, match="unpack"):
        read_rpm_header(b"\xff" * 100)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1:9.2p1-2+deb12u3", "9.2p1"),
        ("16.4-1.pgdg120+1", "16.4"),
        ("2.4.62-1~deb12u2", "2.4.62"),
        ("5.7.0", "5.7.0"),
        ("1.26.2-r4", "1.26.2"),
    ],
)
def test_a_version_is_that_of_the_authors(version: str, expected: str) -> None:
    assert upstream(version) == expected


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        ("/opt/prometheus-2.45.0.linux-amd64/prometheus", "prometheus", "2.45.0"),
        ("/root/.nvm/versions/node/v18.1.0/bin/node", "node", "18.1.0"),
        ("/opt/redis-7.2/redis-server", "redis", "7.2"),
        ("/usr/bin/node", "node", None),
        ("/opt/app-1.2.3/bin/python", "python", None),
        ("", "python", None),
    ],
)
def test_a_path_may_say_the_version(path: str, name: str, expected: str | None) -> None:
    assert version_in_path(path, name) == expected


def test_an_archive_says_its_version(tmp_path: Path) -> None:
    path = tmp_path / "jenkins.war"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\nJenkins-Version: 2.462.1\r\n")
    assert version_in_archive(str(path)) == "2.462.1"


def test_what_is_no_archive_has_no_version(tmp_path: Path) -> None:
    fifo, text = tmp_path / "x.jar", tmp_path / "y.jar"
    os.mkfifo(fifo)
    text.write_text("no archive")
    for path in (fifo, text, tmp_path / "none.jar", tmp_path):
        assert version_in_archive(str(path)) is None


def test_a_java_folder_says_its_version(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "release").write_text('IMPLEMENTOR="Debian"\nJAVA_VERSION="17.0.12"\n')
    assert java_release(str(tmp_path / "bin/java")) == "17.0.12"
    assert java_release("/java") is None
    assert java_release("") is None


def test_a_python_environment_says_the_version_of_its_packages() -> None:
    """That of this very environment, which pytest runs in."""
    script = Path(sys.executable).parent / "pytest"
    assert python_distribution([sys.executable, str(script)], "pytest") == pytest.__version__
    assert python_distribution([sys.executable], "no-such-package") is None
    assert python_distribution(["python", "relative"], "pytest") is None


def test_a_program_that_was_replaced_has_no_version(tmp_path: Path) -> None:
    """After an upgrade the package says the new version, and the old one runs on."""
    folder = tmp_path / "100"
    (folder / "fd").mkdir(parents=True)
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text("")
    (tmp_path / "net/udp").write_text("")
    (folder / "stat").write_text("100 (nginx) S 1 1 1 0")
    (folder / "cmdline").write_bytes(b"/usr/sbin/nginx\0")
    (folder / "exe").symlink_to("/usr/sbin/nginx (deleted)")
    [found] = discover_technologies(HostView(tmp_path), lambda paths: dict.fromkeys(paths, "1.26.2")).findings
    assert (found["name"], found["is_replaced"], found.get("version")) == ("nginx", True, None)
    (folder / "exe").unlink()
    (folder / "exe").symlink_to("/usr/sbin/nginx")
    [found] = discover_technologies(HostView(tmp_path), lambda paths: dict.fromkeys(paths, "1.26.2")).findings
    assert (found["version"], found["version_from"]) == ("1.26.2", "package")


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("java -cp /opt/kafka/libs/kafka_2.13-3.7.0.jar:/x.jar kafka.Kafka c.properties", "3.7.0"),
        ("beam.smp -W w -- -pa /usr/lib/rabbitmq/lib/rabbitmq_server-3.12.1/ebin", "3.12.1"),
        ("puma 6.4.2 (tcp://0.0.0.0:3000) [app]", "6.4.2"),
        ("java -cp /zk/lib/zookeeper-3.8.4.jar org.apache.zookeeper.server.ZooKeeperServerMain", "3.8.4"),
    ],
)
def test_a_command_line_may_say_the_version(line: str, version: str) -> None:
    technology = recognise([line.partition(" ")[0]], line)
    assert technology is not None
    found = re.search(technology.version, line)
    assert found is not None
    assert found[1] == version
