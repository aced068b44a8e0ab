"""`clean` removes what OpsMap made, all of that and nothing else, also right after a crash."""

from deploy.embedded.tests.running import Embedded, none_alive


def test_it_removes_only_what_it_made(embedded: Embedded) -> None:
    assert embedded.services("true").returncode == 0
    mine = embedded.state / "notes.txt"
    mine.write_text("keep", encoding="ascii")

    assert embedded.run("clean").returncode == 2
    assert (embedded.state / "postgres.password").exists()
    assert embedded.run("clean", "--yes").returncode == 0

    assert list(embedded.state.iterdir()) == [mine]
    mine.unlink()


def test_it_refuses_while_opsmap_runs(embedded: Embedded) -> None:
    embedded.start_sleeping()
    assert embedded.run("clean", "--yes").returncode == 3
    assert (embedded.state / "postgres.password").exists()


def test_right_after_kill_9_it_waits_for_the_old_server(embedded: Embedded) -> None:
    process, below = embedded.start_sleeping()
    process.kill()
    done = embedded.run("clean", "--yes")
    assert done.returncode == 0, done.stderr
    assert none_alive(below)
    assert not embedded.state.exists()


def test_there_may_be_nothing(embedded: Embedded) -> None:
    done = embedded.run("clean")
    assert done.returncode == 0
    assert "There is nothing of OpsMap" in done.stdout
