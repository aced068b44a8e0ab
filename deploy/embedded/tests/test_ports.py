"""Ports: the usual ones, the remembered ones, a clear line for a taken one, free ones on request."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded import ports
from deploy.embedded.errors import PortTakenError
from deploy.embedded.tests.running import Embedded


@pytest.fixture
def taken() -> Iterator[int]:
    """A port somebody listens on: we."""
    with socket.create_server((ports.HOST, 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def free() -> int:
    with socket.create_server((ports.HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def test_usual_ports() -> None:
    assert ports.DEFAULTS == {"web": 8000, "link": 9443, "gateway": 8443, "door": 8444}
    assert ports.FIRST_DEMONSTRATION_PORT == 17100


def test_free_ports_are_chosen_once_and_remembered(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    names = ("postgres-orders", "redis-cache")
    first = ports.choose(path, demonstration=names, web_port=None, is_any_free=True)
    assert set(first) == {*ports.DEFAULTS, *names}
    assert len(set(first.values())) == len(first)
    assert ports.choose(path, demonstration=names, web_port=None, is_any_free=True) == first


def test_a_taken_port_is_replaced_when_any_will_do(tmp_path: Path, taken: int) -> None:
    path = tmp_path / "ports.json"
    ports.write_json(path, {"web": taken, "link": taken, "gateway": taken})
    chosen = ports.choose(path, demonstration=(), web_port=None, is_any_free=True)
    assert taken not in chosen.values()
    assert len(set(chosen.values())) == len(ports.DEFAULTS)


def test_a_taken_port_is_named_with_who_has_it_and_what_to_do(tmp_path: Path, taken: int, free: int) -> None:
    path = tmp_path / "ports.json"
    ports.write_json(path, {"link": taken, "gateway": free})
    with pytest.raises(PortTakenError) as caught:
        ports.choose(path, demonstration=(), web_port=taken, is_any_free=False)
    web, link = str(caught.value).splitlines()
    assert f"Port {taken} (web) is taken by" in web
    assert f"pid {os.getpid()}" in web
    assert "make run WEB_PORT=" in web
    assert f"Port {taken} (link)" in link
    assert "make run FREE_PORTS=1" in link


def test_an_asked_for_web_port_is_never_replaced(tmp_path: Path, taken: int) -> None:
    with pytest.raises(PortTakenError):
        ports.choose(tmp_path / "ports.json", demonstration=(), web_port=taken, is_any_free=True)


def test_run_ends_with_2_and_the_line(embedded: Embedded, taken: int) -> None:
    done = embedded.run("run", "--no-demo", "--web-port", str(taken))
    assert done.returncode == 2
    assert f"Port {taken} (web) is taken by" in done.stdout
    assert not (embedded.state / "postgres").exists()


@pytest.mark.parametrize("text", ["0", "65536", "http", "-1"])
def test_a_port_that_is_none(embedded: Embedded, text: str) -> None:
    done = embedded.run("run", f"--web-port={text}")
    assert done.returncode == 2
    assert "expected a port between 1 and 65535" in done.stderr
