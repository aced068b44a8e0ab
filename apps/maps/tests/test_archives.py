"""Documents as a zip file and back: every byte, and nothing that an archive should not bring."""

from __future__ import annotations

import zipfile
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.maps.documents import archives
from apps.maps.documents.archives import from_zip, path_fault, to_zip
from apps.maps.documents.reading import MAX_DOCUMENT_BYTES, SourceFile
from apps.maps.tests.factories import trading


def _zip(*entries: tuple[str, bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def _messages(data: bytes) -> list[str]:
    sources, faults = from_zip(data)
    assert sources == []
    return [fault.message for fault in faults]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_every_byte_comes_back(text: str) -> None:
    sources = [SourceFile("map.yaml", text), SourceFile("components/é b.yaml", "\ufeffa: 1\r\n")]
    assert from_zip(to_zip(sources)) == (sources, [])


def test_same_documents_are_the_same_bytes() -> None:
    assert to_zip(trading()) == to_zip(trading())
    assert from_zip(to_zip(trading()))[0] == trading()


def test_folders_and_hidden_files_are_passed_over() -> None:
    data = _zip(
        ("components/", b""), (".git/config", b"\xff"), ("__MACOSX/a", b"\xff"), ("a.yaml", b"a: 1"), (".env", b"")
    )
    assert from_zip(data) == ([SourceFile("a.yaml", "a: 1")], [])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("../a.yaml", b"")], ":1:1: found '../a.yaml', expected a relative path such as components/api.yaml"),
        ([("/etc/passwd", b"")], ":1:1: found '/etc/passwd', expected a relative path"),
        ([("a/../../b", b"")], ":1:1: found 'a/../../b', expected a relative path"),
        ([("x" * 301, b"")], f":1:1: found '{'x' * 300}', expected a path of at most 300 characters"),
        ([("a.yaml", "a: 1".encode("utf-16"))], "a.yaml:1:1: found text in UTF-16, expected text in UTF-8"),
        ([("a.yaml", b"a: 1\nb: \xe9\n")], "a.yaml:2:4: found the byte 0xe9, expected text in UTF-8"),
        ([("a.yaml", b"x" * (MAX_DOCUMENT_BYTES + 1))], "a.yaml:1:1: found a larger file, expected at most 1048576"),
    ],
)
def test_what_an_archive_must_not_bring_is_named(entries: list[tuple[str, bytes]], message: str) -> None:
    [found] = _messages(_zip(*entries))
    assert found.startswith(message)


def test_all_faults_come_at_once() -> None:
    assert len(_messages(_zip(("../a", b""), ("b", b"\xff\xfe"), ("c", b"\xe9"), ("d", b"fine")))) == 3


@pytest.mark.parametrize("data", [b"", b"PK", b"no archive", _zip(("a.yaml", b"a: 1" * 100))[:-30]])
def test_what_is_no_archive_is_said(data: bytes) -> None:
    [message] = _messages(data)
    assert message.endswith("expected a zip file")


def test_damaged_file_is_named() -> None:
    data = bytearray(_zip(("a.yaml", b"a: 1\n" * 100)))
    data[45] ^= 0xFF
    [message] = _messages(bytes(data))
    assert message.startswith("a.yaml:1:1: found ")
    assert message.endswith("expected a whole file")


def test_link_and_encrypted_file_are_refused() -> None:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("a.yaml")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert _messages(buffer.getvalue()) == ["a.yaml:1:1: found a symbolic link, expected a file"]
    data = bytearray(_zip(("a.yaml", b"a: 1")))
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    assert _messages(bytes(data)) == ["a.yaml:1:1: found an encrypted file, expected a file without a password"]


def test_bomb_is_never_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 2_000_000)
    bomb = _zip(*((f"{number}.yaml", b"x" * 1_000_000) for number in range(5)))
    assert len(bomb) < 10_000
    assert _messages(bomb) == [":1:1: found more text, expected at most 2000000 bytes in all"]
    monkeypatch.setattr(archives, "MAX_FILES", 3)
    assert _messages(bomb) == [":1:1: found 5 files, expected at most 3 files"]


@pytest.mark.parametrize("path", ["a.yaml", "components/api.yaml", "Café/ü 1.yml", "...a/b"])
def test_path_that_any_system_has_is_taken(path: str) -> None:
    assert path_fault(path) is None


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "..", "a/../b", ".", "a\\b", "a\nb", "C:a", "a\0", "x" * 301])
def test_other_path_is_not(path: str) -> None:
    assert path_fault(path)
