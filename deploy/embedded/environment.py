"""Makes or updates `.venv` from the locked requirements; run by `environment.sh`, isolated, standard library only.

A stamp with the hash of everything that decides means that a repeated run asks no network and takes no time. pip
installs uv and setuptools (hashes required), uv installs the rest (hashes required), setuptools builds the agent's
distribution in place, so that nothing is ever installed that the lock files do not name.
"""

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
LOCATION = VENV / "opsmap-location"
LOG = VENV / "install.log"
BOOTSTRAP = "bootstrap.txt"
AGENT = ROOT / "agent"
# What `dev` holds besides `base`: a dev environment serves `make run` as well.
INCLUDED_IN = {"base": ("base", "dev"), "dev": ("dev",)}

# How pip and uv reach an index is the caller's business; where and what they install is ours.
KEPT_PIP = re.compile(
    r"PIP_(INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|CERT|CLIENT_CERT|PROXY|TRUSTED_HOST|CONFIG_FILE"
    r"|CACHE_DIR|DEFAULT_TIMEOUT|TIMEOUT|RETRIES|KEYRING_PROVIDER|DISABLE_PIP_VERSION_CHECK)"
)
KEPT_UV = re.compile(
    r"UV_(INDEX.*|DEFAULT_INDEX|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|OFFLINE|CACHE_DIR|HTTP_.*|NATIVE_TLS|SYSTEM_CERTS"
    r"|INSECURE_HOST|KEYRING_PROVIDER|LINK_MODE|CONCURRENT_.*)"
)
DROPPED = re.compile(r"(PIP|UV|CONDA)_.*|VIRTUAL_ENV|PYTHONHOME|PYTHONPATH")
NETWORK_FAULT = re.compile(
    r"name resolution|dns error|failed to lookup|unreachable|timed out|connection (refused|reset|error|aborted)"
    r"|error sending request|could not connect|failed to establish|failed to fetch|proxyerror|network",
    re.IGNORECASE,
)


class InstallError(Exception):
    """The environment cannot be made; the message is one line."""


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in INCLUDED_IN:
        print("usage: environment.sh base|dev", file=sys.stderr)
        return 2
    kind = arguments[0]
    if _is_current(kind):
        return 0
    began = time.monotonic()
    try:
        with _lock():
            if not _is_current(kind):
                _install(kind)
                _say(f"ready ({time.monotonic() - began:.0f} s)")
    except InstallError as error:
        print(f"opsmap: {error}", file=sys.stderr)
        return 1
    return 0


def _install(kind: str) -> None:
    environment = _environment()
    _make_venv(environment)
    for stamp in VENV.glob(".opsmap-*"):
        stamp.unlink()
    LOG.write_text("", encoding="utf-8")
    requirements = f"requirements/{kind}.txt"
    _say(f"installing {requirements}")
    pip = (str(VENV_PYTHON), "-m", "pip")
    if subprocess.run(
        (*pip, "--version"), env=environment, capture_output=True, stdin=subprocess.DEVNULL, check=False
    ).returncode:
        _run((str(VENV_PYTHON), "-m", "ensurepip"), environment)
    _run((*pip, "install", "--no-input", "--require-hashes", "-r", f"requirements/{BOOTSTRAP}"), environment)
    uv = (str(VENV / "bin" / "uv"), "pip", "install", "--python", str(VENV_PYTHON))
    environment = _with_index(environment, pip)
    _run((*uv, "--require-hashes", "-r", requirements), environment)
    if (AGENT / "pyproject.toml").exists():
        # Without isolation the build uses the setuptools installed above, by hash, and not whatever an index has today.
        # "compat" means a plain path entry, which type checkers follow too.
        editable = (
            "--no-deps",
            "--no-build-isolation",
            "--config-settings",
            "editable_mode=compat",
            "-e",
            "agent",
        )
        _run((*uv, *editable), environment)
    (VENV / f".opsmap-{kind}").write_text(_digest(kind), encoding="ascii")


def _make_venv(environment: Mapping[str, str]) -> None:
    """Leave a working environment of this interpreter's version.

    One that cannot run is made anew, and so is one that was moved: its programs name the old place.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    is_moved = LOCATION.exists() and LOCATION.read_text(encoding="utf-8") != str(ROOT)
    if not is_moved and _venv_version(environment) == version:
        return
    try:
        import venv  # noqa: F401
        from ensurepip import version as _  # noqa: F401
    except ImportError:
        raise InstallError(
            f"Python {version} is here without its venv module. On Debian or Ubuntu: apt install python{version}-venv"
        ) from None
    _say(f"creating .venv with Python {sys.version.split()[0]}")
    done = subprocess.run(
        # We may run on the environment that is about to be replaced.
        (getattr(sys, "_base_executable", sys.executable), "-I", "-m", "venv", "--clear", str(VENV)),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise InstallError(f"Python {version} cannot create .venv: {_last_line(done.stdout)}")
    LOCATION.write_text(str(ROOT), encoding="utf-8")


def _venv_version(environment: Mapping[str, str]) -> str | None:
    try:
        done = subprocess.run(
            (str(VENV_PYTHON), "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def _run(argv: tuple[str, ...], environment: Mapping[str, str]) -> None:
    """Run a step of the installation; its output goes to the log, and into one line if it fails."""
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(argv)}\n{done.stdout}\n")
    if done.returncode == 0:
        return
    shown = LOG.relative_to(ROOT)
    if NETWORK_FAULT.search(done.stdout):
        raise InstallError(f"The packages cannot be downloaded: no answer from the package index. Details: {shown}")
    raise InstallError(f"The packages cannot be installed: {_last_line(done.stdout)} Details: {shown}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message."


def _environment() -> dict[str, str]:
    """The caller's environment without what would send packages elsewhere (PIP_USER, UV_SYSTEM_PYTHON, …)."""

    def is_kept(name: str) -> bool:
        return not DROPPED.fullmatch(name) or bool(KEPT_PIP.fullmatch(name) or KEPT_UV.fullmatch(name))

    kept = {name: value for name, value in os.environ.items() if is_kept(name)}
    return kept | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "UV_NO_PROGRESS": "1", "PYTHONUTF8": "1"}


def _with_index(environment: Mapping[str, str], pip: tuple[str, ...]) -> dict[str, str]:
    """uv does not read pip's configuration: whoever uses a mirror with pip means it here too."""
    if any(name in environment for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL")):
        return dict(environment)
    mirror = (
        environment.get("PIP_INDEX_URL")
        or subprocess.run(
            (*pip, "config", "get", "global.index-url"),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        ).stdout.strip()
    )
    extra = {"UV_DEFAULT_INDEX": mirror} if mirror else {}
    certificates = environment.get("PIP_CERT")
    if certificates and "SSL_CERT_FILE" not in environment:
        extra["SSL_CERT_FILE"] = certificates
    return {**environment, **extra}


def _is_current(kind: str) -> bool:
    return any(_stamp(included) == _digest(included) for included in INCLUDED_IN[kind])


def _stamp(kind: str) -> str | None:
    try:
        return (VENV / f".opsmap-{kind}").read_text(encoding="ascii")
    except FileNotFoundError:
        return None


def _digest(kind: str) -> str:
    """Of everything that decides what is installed, including where: a moved checkout has broken scripts."""
    digest = hashlib.sha256(f"{ROOT}\n{sys.version_info[:2]}\n".encode())
    for path in (
        ROOT / "requirements" / BOOTSTRAP,
        ROOT / "requirements" / f"{kind}.txt",
        AGENT / "pyproject.toml",
    ):
        digest.update(path.read_bytes() if path.exists() else b"-")
    return digest.hexdigest()


@contextmanager
def _lock() -> Iterator[None]:
    """One installation at a time: `make run` and `make test` may be started together."""
    descriptor = os.open(ROOT / ".venv.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _say(text: str) -> None:
    print(f"environment: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
