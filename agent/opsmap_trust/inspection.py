"""Looking into certificates from a process that must not load what it takes: a short-lived child does it.

python -m opsmap_trust.inspection AUTHORITIES.pem   < certificates, one a line   > one JSON answer a line
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from opsmap_protocol.errors import InvalidIdentityError
from opsmap_trust.apart import run_apart


@dataclass(frozen=True, slots=True)
class CertifiedKey:
    """A public key and what its certificate says. `key_id` is the certificate's SHA-256, in hexadecimal.

    `serial`, also in hexadecimal, is what `authority` (the SHA-256 of its key) revokes the certificate by.
    """

    key_id: str
    public_bytes: bytes
    uri: str
    not_before: datetime
    not_after: datetime
    serial: str = ""
    authority: str = ""

    def is_current(self, now: datetime) -> bool:
        return self.not_before <= now <= self.not_after


async def inspect_apart(certificates: Sequence[str], authorities: Path) -> list[CertifiedKey | InvalidIdentityError]:
    """What `inspect_certificate` says of each, from a child process.

    Raises:
        OSError: the child cannot be started.
        InvalidIdentityError: the child failed as a whole, for instance because `authorities` cannot be read.
    """
    # Base64 has no spaces and is ASCII: what has, or is not, stays one line that is no certificate.
    lines = "".join(f"{''.join(each.split())}\n" for each in certificates).encode("ascii", "replace")
    answer = await run_apart("opsmap_trust.inspection", (str(authorities),), lines)
    answers = [_from_json(line) for line in answer.splitlines()]
    if len(answers) != len(certificates):
        raise InvalidIdentityError(f"{len(certificates)} certificates were asked about, {len(answers)} answered")
    return answers


def _from_json(line: str) -> CertifiedKey | InvalidIdentityError:
    data = json.loads(line)
    if "error" in data:
        return InvalidIdentityError(data["error"])
    return CertifiedKey(
        key_id=data["key_id"],
        public_bytes=bytes.fromhex(data["public_bytes"]),
        uri=data["uri"],
        not_before=datetime.fromisoformat(data["not_before"]),
        not_after=datetime.fromisoformat(data["not_after"]),
        serial=data["serial"],
        authority=data["authority"],
    )


def _to_json(key: CertifiedKey) -> str:
    return json.dumps(
        {
            "key_id": key.key_id,
            "public_bytes": key.public_bytes.hex(),
            "uri": key.uri,
            "not_before": key.not_before.isoformat(),
            "not_after": key.not_after.isoformat(),
            "serial": key.serial,
            "authority": key.authority,
        }
    )


def main() -> None:
    from opsmap_trust import certificates

    try:
        authorities = certificates.read_authorities(Path(sys.argv[1]))
    except (OSError, ValueError) as error:
        sys.exit(f"{sys.argv[1]}: {error}")
    for line in sys.stdin:
        try:
            print(_to_json(certificates.inspect_certificate(line.strip(), authorities)))
        except InvalidIdentityError as error:
            print(json.dumps({"error": str(error)}))


if __name__ == "__main__":
    main()
