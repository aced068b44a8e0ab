"""Reading YAML into dataclasses: every kind of value, and every kind of fault."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from opsmap_daemon.configuration import (
    RULE,
    ConfigurationError,
    at_least,
    between,
    listen_address,
    load,
    not_empty,
    setting,
    split_address,
    websocket_url,
)


@dataclass(frozen=True, kw_only=True)
class Network:
    bind_port: int = setting(0, rule=between(0, 65_535))
    hosts: list[str] = field(default_factory=list, metadata={RULE: not_empty})
    ratio: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Owner:
    name: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    owner: Owner
    network: Network = field(default_factory=Network)
    labels: dict[str, str] = field(default_factory=dict)
    level: Literal["low", "1.2"] = "low"
    is_on: bool = True
    file: Path | None = None
    limit: int | None = setting(None, rule=at_least(1))

    def __post_init__(self) -> None:
        if self.limit is not None and self.is_on:
            raise ValueError("limit needs is_on: false")


@dataclass
class Sampler:
    """Loads a text, or tells its faults without the name of the file."""

    folder: Path

    def load(self, text: str) -> Sample:
        file = self.folder / "sample.yaml"
        file.write_text(text)
        return load(file, Sample)

    def faults(self, text: str) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            self.load(text)
        return [fault.removeprefix("sample.yaml:") for fault in caught.value.faults]


@pytest.fixture
def sampler(tmp_path: Path) -> Sampler:
    return Sampler(tmp_path)


def test_defaults(sampler: Sampler) -> None:
    assert sampler.load("owner: {name: x}") == Sample(owner=Owner(name="x"))


def test_every_kind_of_value(sampler: Sampler) -> None:
    text = """\
owner:
  name: "7"
network:
  bind_port: 8_443
  hosts: [a, &b bb, *b]
  ratio: 2
labels: {tier: data}
level: 1.2
is_on: false
file: sub/f.txt
limit: 0x10
"""
    assert sampler.load(text) == Sample(
        owner=Owner(name="7"),
        network=Network(bind_port=8443, hosts=["a", "bb", "bb"], ratio=2.0),
        labels={"tier": "data"},
        level="1.2",
        is_on=False,
        file=sampler.folder / "sub" / "f.txt",
        limit=16,
    )


def test_empty_values_mean_absent_ones(sampler: Sampler) -> None:
    assert sampler.load("owner: {name: x}\nnetwork:\nlabels:\nlevel:\nfile: ~\n") == Sample(owner=Owner(name="x"))


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ["1: owner.name: is required"]),
        ("owner:\n", ["1: owner.name: is required"]),
        ("- owner", ["1: expected keys with values, found a list", "1: owner.name: is required"]),
        ("owner: {name: 7}", ["1: owner.name: expected a string, found '7'"]),
        ("owner: {name: [a]}", ["1: owner.name: expected a string, found a list"]),
        ("owner: {name: {a: b}}", ["1: owner.name: expected a string, found keys with values"]),
        ("owner: {name: x, nmae: y}", ["1: owner.nmae: unknown key (did you mean 'name'?)"]),
        ("owner: {name: x}\nzzz: 1", ["2: zzz: unknown key"]),
        ("owner: {name: x}\nowner: {name: y}", ["2: owner: given twice"]),
        ("owner: {name: x}\nis_on: yes", ["2: is_on: expected true or false, found 'yes'"]),
        ("owner: {name: x}\nis_on: 1", ["2: is_on: expected true or false, found '1'"]),
        ("owner: {name: x}\nlevel: high", ["2: level: expected one of low, 1.2, found 'high'"]),
        ("owner: {name: x}\nlabels: {a: 1}", ["2: labels.a: expected a string, found '1'"]),
        ("owner: {name: x}\nlimit: 2", ["1: limit needs is_on: false"]),
        ("owner: {name: x}\nlimit: 0", ["2: limit: expected at least 1, found '0'"]),
        ("owner: [", ["1: not valid YAML: expected the node content, but found '<stream end>'"]),
        ("owner: {name: x}\n---\nowner: {}", ["2: not valid YAML: but found another document"]),
        ("owner: *nobody", ["1: not valid YAML: found undefined alias 'nobody'"]),
        (
            "owner: {name: x}\nnetwork:\n\n  bind_port: true\n  ratio: much\n  hosts:\n    - a\n    - ' '\n    - 3\n",
            [
                "4: network.bind_port: expected an integer, found 'true'",
                "5: network.ratio: expected a number, found 'much'",
                "8: network.hosts[1]: expected a text that is not empty, found ' '",
                "9: network.hosts[2]: expected a string, found '3'",
            ],
        ),
        (
            "owner: {name: x}\nnetwork: {bind_port: 65536, hosts: a}",
            [
                "2: network.bind_port: expected from 0 to 65535, found '65536'",
                "2: network.hosts: expected a list, found 'a'",
            ],
        ),
    ],
)
def test_faults(sampler: Sampler, text: str, faults: list[str]) -> None:
    assert sampler.faults(text) == faults


def test_unreadable_files_are_faults(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name, reason in [("absent.yaml", "No such file or directory"), ("binary.yaml", "not UTF-8 text")]:
        with pytest.raises(ConfigurationError, match=reason):
            load(tmp_path / name, Sample)


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:8443", ("127.0.0.1", 8443)), ("[::1]:0", ("::1", 0)), ("localhost:65535", ("localhost", 65535))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address
    assert listen_address(text) is None


@pytest.mark.parametrize("text", ["", "8443", ":8443", "host:", "host:x", "host:65536", "::1:8443", "host:-1", "h:²"])
def test_bad_addresses(text: str) -> None:
    assert listen_address(text) == "an address like 127.0.0.1:8443"


@pytest.mark.parametrize("url", ["wss://host", "wss://host:8443", "wss://[::1]:1/agent/", "wss://10.0.0.1/x"])
def test_urls(url: str) -> None:
    assert websocket_url(url) is None


@pytest.mark.parametrize(
    "url",
    ["", "host", "ws://host", "https://host", "wss://", "wss://h:99999", "wss://h:x", "wss://u@h", "wss://h/?q=1"],
)
def test_bad_urls(url: Any) -> None:
    assert websocket_url(url) == "a URL like wss://host:port"
