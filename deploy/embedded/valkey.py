"""Valkey: broker and channel layer, on a unix socket, by password, in memory only (PostgreSQL has the truth)."""

import asyncio
import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from deploy.embedded.account import Account, make_private_folder
from deploy.embedded.process import ProcessSpec

NAME = "valkey"
SOCKET_NAME = "valkey.sock"
MAX_MEMORY = "256mb"


@dataclass(frozen=True)
class Valkey:
    """Where it is, who runs it, and how a client signs in."""

    server: Path
    data: Path
    sockets: Path
    account: Account | None
    password: str

    @property
    def socket(self) -> Path:
        return self.sockets / SOCKET_NAME

    def url(self) -> str:
        return f"unix://:{quote(self.password)}@{quote(str(self.socket))}?db=0"

    def process(self) -> ProcessSpec:
        return ProcessSpec(
            name=NAME,
            # The configuration comes on standard input: the password is in no file and on no command line.
            argv=(str(self.server), "-"),
            environment={"LC_ALL": "C", "TZ": "UTC"},
            cwd=self.data,
            account=self.account,
            stdin=self.configuration().encode("ascii"),
            is_line_shown=lambda line: False,
        )

    def configuration(self) -> str:
        return "\n".join(
            (
                "port 0",
                f"unixsocket {self.socket}",
                "unixsocketperm 700",
                f"requirepass {self.password}",
                "protected-mode yes",
                'save ""',
                "appendonly no",
                f"maxmemory {MAX_MEMORY}",
                # A full broker refuses loudly; evicting would drop queued tasks in silence.
                "maxmemory-policy noeviction",
                "loglevel notice",
                "",
            )
        )

    async def is_ready(self) -> bool:
        """Whether it answers PING to somebody who knows the password."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.socket))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        try:
            writer.write(f"AUTH {self.password}\r\nPING\r\n".encode("ascii"))
            answer = await reader.readuntil(b"+PONG\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        return answer.startswith(b"+OK")


def prepare(valkey: Valkey) -> None:
    """An empty folder of the right owner: nothing in it is worth keeping."""
    if valkey.data.exists():
        shutil.rmtree(valkey.data)
    make_private_folder(valkey.data, valkey.account)
