"""A certificate and its key are replaced as one, also if the process dies at any of the steps."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from opsmap_daemon.files import beside, folder_locked, write_whole
from opsmap_daemon.pair import Pair
from testing_pki import Leaf, Pki

DYING = """
import json, os, signal, sys
from pathlib import Path
from opsmap_daemon.files import beside
from opsmap_daemon.pair import Pair

cert, key, chain, new_key = map(Path, sys.argv[1:])
pair, old, new = Pair(cert, key), (cert.read_text(), key.read_text()), (chain.read_text(), new_key.read_text())

def die_at(steps):
    def dying(call):
        def step(*arguments, **keywords):
            nonlocal steps
            if steps == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            steps -= 1
            return call(*arguments, **keywords)
        return step
    for name in ("open", "fsync", "replace", "unlink"):
        setattr(os, name, dying(getattr(os, name)))
    pair.replace(*new)
    os._exit(0)

for steps in range(100):
    for path, text in zip((cert, key), old):
        path.write_text(text)
        beside(path).unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        die_at(steps)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    pair.recover()
    now = (cert.read_text(), key.read_text())
    is_clean = not beside(cert).exists() and not beside(key).exists()
    which = "new" if now == new else "old" if now == old else "neither"
    print(json.dumps([status, pair.is_usable() and is_clean, which]))
    if status == 0:
        break
"""
"""Makes the replacement again and again, each time dying one call of the system later; says what was recovered."""


@pytest.fixture
def former(pki: Pki, tmp_path: Path) -> Pair:
    copied = pki.copy_of(pki.agent("former"), tmp_path)
    return Pair(copied.cert, copied.key)


@pytest.fixture
def following(pki: Pki) -> Leaf:
    return pki.agent("following")


def content(pair: Pair) -> tuple[str, str]:
    return pair.cert.read_text(), pair.key.read_text()


def test_a_pair_is_usable_after_death_at_each_step(former: Pair, following: Leaf) -> None:
    arguments = [sys.executable, "-c", DYING, former.cert, former.key, following.cert, following.key]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    assert {status for status, _, _ in lives[:-1]} == {-9}
    assert lives[-1][0] == 0, "in the end nobody dies"
    assert all(is_usable for _, is_usable, _ in lives)
    # Once the new one counts, it counts: no later death brings the old one back.
    seen = [which for _, _, which in lives]
    assert seen == sorted(seen, key=["old", "new"].index)
    assert min(seen.count("old"), seen.count("new")) >= 3, "there is something to recover"


def test_recovery_without_an_interrupted_renewal_changes_nothing(former: Pair) -> None:
    before = content(former)
    assert not former.recover()
    assert content(former) == before


def test_half_a_renewal_of_another_key_is_dropped(former: Pair, following: Leaf, pki: Pki) -> None:
    before = content(former)
    beside(former.cert).write_text(following.cert.read_text())
    beside(former.key).write_text(pki.agent("third").key.read_text())
    assert not former.recover()
    assert content(former) == before
    assert not beside(former.key).exists()


def test_a_key_is_for_its_owner_alone_whatever_was_there(former: Pair, following: Leaf) -> None:
    former.key.chmod(0o644)
    former.replace(following.cert.read_text(), following.key.read_text())
    assert former.key.stat().st_mode & 0o777 == 0o600


def test_behind_a_link_the_file_itself_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "ca.crt"
    link.symlink_to("real/ca.crt")
    write_whole(link, "one", 0o644)
    write_whole(link, "two", 0o644)
    assert link.is_symlink()
    assert (tmp_path / "real" / "ca.crt").read_text() == "two"


def test_a_folder_that_is_gone_leaves_the_pair_as_it_was(former: Pair, following: Leaf, tmp_path: Path) -> None:
    before = content(former)
    lost = Pair(tmp_path / "absent" / "agent.crt", former.key)
    with pytest.raises(FileNotFoundError):
        lost.replace(following.cert.read_text(), following.key.read_text())
    assert content(former) == before


def test_somebody_who_recovers_waits_for_a_replacement_that_is_under_way(former: Pair, following: Leaf) -> None:
    """Else it would take half a pair for what a crash has left, and throw it away."""
    looking = threading.Event()
    recovered: list[bool] = []

    def look() -> None:
        looking.set()
        recovered.append(former.recover())

    with folder_locked(former.cert.parent):
        beside(former.key).write_text(following.key.read_text())
        other = threading.Thread(target=look)
        other.start()
        looking.wait()
        other.join(0.1)
        assert recovered == []
        assert beside(former.key).exists()
    other.join()
    assert recovered == [False]


def test_where_nothing_can_be_written_is_known_before(former: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    former.check_replaceable()
    # Root may write everywhere: what the system would say to another account is put into its mouth.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="files in it cannot be replaced"):
        former.check_replaceable()
