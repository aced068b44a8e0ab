"""The child process of `apart.py`: answers one question and ends. Everything heavy is loaded here alone."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from opsmap_protocol.errors import InvalidIdentityError
from opsmap_trust import chains, requests, revocations
from opsmap_trust.certificates import encode_certificate, read_authorities


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Raises InvalidIdentityError."""
    match question["question"]:
        case "make_key":
            return asdict(requests.new_key(question["kind"]))
        case "accept_chain":
            root = None if question["root"] is None else chains.read_root(Path(question["root"]))
            accepted = chains.accept_chain(
                question["chain"],
                question["key"],
                uri=question["uri"],
                root=root,
                authorities=question["authorities"],
            )
            times = {"not_before": accepted.not_before.isoformat(), "not_after": accepted.not_after.isoformat()}
            return {**asdict(accepted), **times}
        case "check_authorities":
            root = chains.read_root(Path(question["root"]))
            if question["named"] != encode_certificate(root):
                raise InvalidIdentityError("the root is another one than the one known here")
            return {"authorities": chains.below_root(question["authorities"], root)}
        case "inspect_revocations":
            found = revocations.inspect_revocations(question["crl"], read_authorities(Path(question["authorities"])))
            return {**asdict(found), "serials": sorted(found.serials)}
    raise InvalidIdentityError(f"unknown question {question['question']!r}")


def main() -> None:
    try:
        print(json.dumps(answer(json.load(sys.stdin))))
    except (InvalidIdentityError, OSError, ValueError) as error:
        print(json.dumps({"error": str(error)}))


if __name__ == "__main__":
    main()
