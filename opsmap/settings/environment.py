"""The `OPSMAP_*` variables: one table that the settings read, the start validates and the documentation prints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit


class InvalidValueError(ValueError):
    """What a variable should have been; the sentence continues "OPSMAP_X: expected"."""


def _text(value: str) -> str:
    return value


def _switch(value: str) -> bool:
    if value not in {"0", "1"}:
        raise InvalidValueError("0 or 1")
    return value == "1"


def _names(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


def _path(value: str) -> Path:
    return Path(value).absolute()


def _bind(value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidValueError("host:port")
    return host, int(port)


def _log_level(value: str) -> str:
    if value.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise InvalidValueError("debug, info, warning or error")
    return value.upper()


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise InvalidValueError("a whole number from 1 on")
    return int(value)


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SHORTEST_LIFE, _LONGEST_LIFE = timedelta(seconds=10), timedelta(days=5 * 365)


def _life(value: str) -> timedelta:
    """How long a certificate lives: `365d`, `12h`, `90m`, `60s`."""
    number, unit = value[:-1], value[-1:]
    if unit in _UNITS and number.isdecimal() and number.isascii() and len(number) < 10:
        life = timedelta(seconds=int(number) * _UNITS[unit])
        if _SHORTEST_LIFE <= life <= _LONGEST_LIFE:
            return life
    raise InvalidValueError("a time from 10s to 1825d, with the unit s, m, h or d")


def _split_url(value: str) -> SplitResult:
    """Raises InvalidValueError without the value: `urlsplit` quotes what may be a password."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise InvalidValueError("a URL with a port between 1 and 65535") from None
    return parts


def _redis_url(value: str) -> str:
    if _split_url(value).scheme not in {"redis", "rediss", "unix"}:
        raise InvalidValueError("redis://host:port/0, rediss://… or unix:///path?db=0")
    return value


def _database(value: str) -> dict[str, Any]:
    """A Django database entry. A socket folder travels as `?host=/folder`, as libpq writes it."""
    parts = _split_url(value)
    name = unquote(parts.path.lstrip("/"))
    if parts.scheme not in {"postgresql", "postgres"} or not name:
        raise InvalidValueError("postgresql://user:password@host:port/name or …@/name?host=/socket/folder")
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    host = query.pop("host", None) or unquote(parts.hostname or "")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": query.pop("port", None) or (str(parts.port) if parts.port else ""),
        "OPTIONS": query,
    }


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable. `default` is what an unset one means; None makes it required."""

    name: str
    parse: Callable[[str], Any]
    default: str | None
    help: str


VARIABLES = (
    Variable("OPSMAP_DATABASE_URL", _database, None, "PostgreSQL 15 or later."),
    Variable("OPSMAP_REDIS_URL", _redis_url, None, "Redis 6 or later, or Valkey. May be flushed at any moment."),
    Variable("OPSMAP_SECRET_KEY", _text, None, "Signs sessions and tokens; at least 32 characters; keep it secret."),
    Variable("OPSMAP_DEBUG", _switch, "0", "1 shows error details in the browser. Never in production."),
    Variable("OPSMAP_ALLOWED_HOSTS", _names, "localhost,127.0.0.1", "Host names this installation answers to."),
    Variable(
        "OPSMAP_CSRF_TRUSTED_ORIGINS",
        _names,
        "",
        "Origins of an HTTPS proxy, such as https://ops.example.com.",
    ),
    Variable(
        "OPSMAP_SECURE_COOKIES",
        _switch,
        "0",
        "1 when people come by HTTPS only: cookies are sent nowhere else.",
    ),
    Variable(
        "OPSMAP_PKI_DIR",
        _path,
        ".opsmap/pki",
        "Certificates and their authorities; web, link server and workers need the same.",
    ),
    Variable("OPSMAP_LINK_BIND", _bind, "127.0.0.1:9443", "Where gateways connect (mutual TLS)."),
    Variable(
        "OPSMAP_LINK_HOSTS",
        _names,
        "localhost,127.0.0.1,::1",
        "Names and addresses by which gateways reach the link server: they are in its certificate.",
    ),
    Variable(
        "OPSMAP_CERTIFICATE_LIFE",
        _life,
        "365d",
        "Of the certificates of gateways, agents and the link server; they are renewed after two thirds of it.",
    ),
    Variable("OPSMAP_SIGNER_LIFE", _life, "90d", "Of the key that commands are sealed with; renewed likewise."),
    Variable("OPSMAP_DB_POOL_SIZE", _count, "16", "The most database connections of one process."),
    Variable("OPSMAP_LOG_LEVEL", _log_level, "info", "debug, info, warning or error."),
)

MIN_SECRET_KEY_LENGTH = 32


def read_environment(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The parsed values by variable name, and one line for each fault.

    An unknown name that starts with OPSMAP_ is no fault: the supervisor and the tests have variables of their own.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    for variable in VARIABLES:
        raw = environ.get(variable.name) or variable.default
        if raw is None:
            faults.append(f"{variable.name} is not set. {variable.help}")
            continue
        try:
            values[variable.name] = variable.parse(raw)
        except InvalidValueError as error:
            faults.append(f"{variable.name}: expected {error}, found {_shown(variable, raw)}")
    secret = values.get("OPSMAP_SECRET_KEY")
    if secret is not None and len(secret) < MIN_SECRET_KEY_LENGTH:
        faults.append(f"OPSMAP_SECRET_KEY: expected at least {MIN_SECRET_KEY_LENGTH} characters, found {len(secret)}")
    return values, faults


def _shown(variable: Variable, raw: str) -> str:
    """The value as found, but never a password: a mistyped URL may have one anywhere."""
    return "something else (not shown: it may have a password in it)" if "URL" in variable.name else repr(raw)


def require_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The values, or the end of the process with one line per fault."""
    values, faults = read_environment(environ)
    if faults:
        sys.exit("\n".join(["OpsMap cannot start:", *(f"  {fault}" for fault in faults)]))
    return values
