"""Mounted file systems. How full they are is the business of health checks; here it would be news each time."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from opsmap_agent.discovery.findings import Finding, Found, clean, cut_to, key_of, without_nulls

_MAX_FILESYSTEMS = 500
_NOT_STORAGE = {"squashfs", "overlay", "nsfs", "ramfs", "fuse.lxcfs", "autofs", "binfmt_misc", "erofs"}
_REMOTE = ("nfs", "cifs", "smb", "ceph", "gluster", "fuse.", "9p", "afs", "lustre", "beegfs")
"""Asking one whose server is away could take for ever."""


def discover_filesystems() -> Found:
    """Those that hold data, by mount point; `total_gb` only of those on this host."""
    findings: dict[str, Finding] = {}
    for mounted in psutil.disk_partitions(all=True):
        is_remote = mounted.fstype.startswith(_REMOTE)
        if mounted.fstype in _NOT_STORAGE or not (
            is_remote or mounted.device.startswith("/") or mounted.fstype == "zfs"
        ):
            continue
        # A file that is mounted over (as containers do with /etc/hosts) holds nothing of its own.
        if not is_remote and not Path(mounted.mountpoint).is_dir():
            continue
        finding = without_nulls(
            key=key_of(mounted.mountpoint),
            mount=clean(mounted.mountpoint),
            device=clean(mounted.device),
            fs_type=clean(mounted.fstype),
            is_read_only="ro" in mounted.opts.split(","),
            is_remote=is_remote,
            total_gb=None if is_remote else _total_gb(mounted.mountpoint),
        )
        # Mounted twice at one place, the last one is what is seen.
        findings[finding["key"]] = finding
    return cut_to(findings.values(), _MAX_FILESYSTEMS, "file systems")


def _total_gb(mount: str) -> float | None:
    try:
        found = os.statvfs(mount)
    except OSError:
        return None
    return round(found.f_blocks * found.f_frsize / 1e9, 1)
