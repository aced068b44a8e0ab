"""Whom everybody trusts, as it is told to gateways and agents: the root, and the intermediates below it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from apps.gateways.exceptions import PkiError
from apps.gateways.pki.authorities import INTERMEDIATES, read_root, read_trusted
from opsmap_protocol.enums import PeerRole
from opsmap_trust.certificates import encode_certificate

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Anchors:
    """DER in base64; of each branch the intermediate that issues first."""

    stamp: _Stamp
    root: str
    backend: list[str]
    gateway: list[str]
    agent: list[str]


_known: dict[Path, Anchors] = {}


def current_anchors(pki_dir: Path) -> Anchors:
    """Read once, and again when the files change: the same object means that nothing has.

    Raises:
        PkiError: they cannot be read, and never could.
    """
    known = _known.get(pki_dir)
    try:
        stamp = _stamp(pki_dir / "ca")
        if known is not None and known.stamp == stamp:
            return known
        _known[pki_dir] = anchors = _read(pki_dir / "ca", stamp)
    except PkiError:
        if known is None:
            raise
        return known
    return anchors


def _stamp(ca_folder: Path) -> _Stamp:
    stats = []
    for name in ("root", *INTERMEDIATES):
        path = ca_folder / f"{name}.crt"
        try:
            found = path.stat()
        except OSError as error:
            raise PkiError(f"{path}: {error.strerror}") from None
        stats.append((found.st_mtime_ns, found.st_ino, found.st_size))
    return tuple(stats)


def _read(ca_folder: Path, stamp: _Stamp) -> Anchors:
    branches = {
        role: [encode_certificate(each) for each in read_trusted(ca_folder, role)]
        for role in (PeerRole.BACKEND, PeerRole.GATEWAY, PeerRole.AGENT)
    }
    return Anchors(
        stamp,
        encode_certificate(read_root(ca_folder)),
        branches[PeerRole.BACKEND],
        branches[PeerRole.GATEWAY],
        branches[PeerRole.AGENT],
    )
