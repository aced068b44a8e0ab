"""Secrets in command lines and environments, and what has to stay readable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsmap_agent.host.masking import mask_arguments, mask_environment


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("app --password=hunter2 -v", "app --password=*** -v"),
        ("app --password hunter2 -v", "app --password *** -v"),
        ("app --db-pass hunter2", "app --db-pass ***"),
        ("app -Dspring.datasource.password=hunter2 -jar x.jar", "app -Dspring.datasource.password=*** -jar x.jar"),
        ("app --api-key=abc --apiKey abc", "app --api-key=*** --apiKey ***"),
        ("env DB_PASSWORD=hunter2 app", "env DB_PASSWORD=*** app"),
        ("mysql -u root -phunter2 db", "mysql -u root -p*** db"),
        ("/usr/bin/mysqldump -phunter2", "/usr/bin/mysqldump -p***"),
        ("redis-cli -a hunter2 ping", "redis-cli -a *** ping"),
        ("sshpass -p hunter2 ssh host", "sshpass -p *** ssh host"),
        ("psql postgres://app:hunter2@db/x", "psql postgres://app:***@db/x"),
        ("curl -u me:hunter2 https://x", "curl -u me:*** https://x"),
        ("curl https://x/?a=1&token=abc&b=2", "curl https://x/?a=1&token=***&b=2"),
        ("app --client-secret -x", "app --client-secret ***"),
        ("vault --token s.1234", "vault --token ***"),
    ],
)
def test_what_is_masked(line: str, masked: str) -> None:
    assert " ".join(mask_arguments(line.split(" "))) == masked


def test_headers() -> None:
    assert mask_arguments(["curl", "-H", "Authorization: Bearer abc", "-H", "Accept: */*"]) == [
        "curl",
        "-H",
        "Authorization: ***",
        "-H",
        "Accept: */*",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "postgres -D /var/lib/postgresql -p 5432",
        "nginx: worker process",
        "java -Djavax.net.ssl.keyStore=/etc/x.jks -jar app.jar --keyspace=app",
        "kubelet --tls-private-key-file=/etc/kubernetes/key.pem --keepalive 5",
        "app --password-file /run/secrets/x --token-path=/run/x --secret-name app",
        "docker run --user 1000:1000 -p 80:80 image",
        "git log --author=me --key",
        "ssh-agent",
        "sh -c echo hello",
        "",
    ],
)
def test_what_stays(line: str) -> None:
    assert " ".join(mask_arguments(line.split(" "))) == line


def test_environments() -> None:
    masked = mask_environment(
        {
            "DB_PASSWORD": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "PATH": "/bin",
            "DATABASE_URL": "postgres://app:hunter2@db/x",
        }
    )
    assert masked == {
        "DB_PASSWORD": "***",
        "AWS_SECRET_ACCESS_KEY": "***",
        "PATH": "/bin",
        "DATABASE_URL": "postgres://app:***@db/x",
    }


@given(st.lists(st.text(max_size=40), max_size=8))
def test_any_command_line_keeps_its_words(arguments: list[str]) -> None:
    assert len(mask_arguments(arguments)) == len(arguments)


@pytest.mark.parametrize("piece", ["a=", "a:", "://", "?a", "-", "password", "Cookie:", "aA1", "x-token-"])
def test_long_words_take_no_time(piece: str) -> None:
    """No pattern tries one word again and again: 100 kB of each take milliseconds, else this never ends."""
    assert mask_arguments(["app", piece * (100_000 // len(piece))])
