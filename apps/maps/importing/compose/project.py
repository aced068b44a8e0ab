"""The services of a Compose project after `include` and `extends`, before anything is decided about them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.maps.documents.faults import DocumentFault
from apps.maps.documents.hints import with_hint
from apps.maps.documents.reading import RawDocument, RefusedError, SourceFile, shown
from apps.maps.importing.compose.fields import texts
from apps.maps.importing.compose.interpolation import interpolate
from apps.maps.importing.compose.reading import read_compose
from apps.maps.importing.report import Report

MAX_SERVICES = 2_000
MAX_FILES = 50
_MAX_EXTENDS = 20
_SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

# What a Map takes of a service. Variables elsewhere matter to Docker alone.
_TAKEN = (
    *("image", "build", "container_name", "depends_on", "healthcheck", "ports", "profiles", "deploy", "scale"),
    *("links", "volumes_from", "network_mode", "pid", "ipc", "stop_grace_period"),
)
_LISTS = {"ports", "expose", "links", "volumes_from", "profiles", "external_links", "volumes", "env_file", "depends_on"}


@dataclass(frozen=True, slots=True)
class ComposeOptions:
    """What the file itself cannot say.

    `host` is where the project runs, `folder` its folder there, `file` the file's name in it. `files` are the other
    files that it includes or extends, by their path relative to it. `environment` are the variables of its `.env`.
    `profiles` are those that are in use; `*` is all of them.
    """

    host: str = ""
    name: str = ""
    project: str = ""
    folder: str = ""
    file: str = "docker-compose.yml"
    files: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()


@dataclass(slots=True)
class Service:
    """One service: its keys after `extends`, and where each stands in the file that has the service."""

    name: str
    document: RawDocument
    keys: dict[str, Any]

    def line(self, *keys: str | int) -> int:
        """The line of a key of it, or the nearest above."""
        place: tuple[str | int, ...] = ("services", self.name, *keys)
        while place not in self.document.positions and place:
            place = place[:-1]
        return self.document.positions.get(place, (1, 1))[0]


@dataclass(slots=True)
class ComposeProject:
    document: RawDocument
    services: dict[str, Service]
    faults: list[DocumentFault]


def read_project(content: str, options: ComposeOptions, report: Report) -> ComposeProject:
    """All services of the file and of those it includes, or every fault that keeps it from being read."""
    try:
        document = read_compose(SourceFile(options.file, content))
    except RefusedError as error:
        return ComposeProject(RawDocument(options.file, {}), {}, [error.fault(options.file)])
    reader = _Reader(options, report)
    reader.add(document)
    if not reader.services and not reader.faults:
        expected = "at least one service"
        reader.faults.append(document.fault(("services",), found="no service", expected=expected))
    if len(reader.services) > MAX_SERVICES:
        found = f"{len(reader.services)} services"
        reader.faults.append(document.fault(("services",), found=found, expected=f"at most {MAX_SERVICES} services"))
    return ComposeProject(document, {} if reader.faults else reader.resolved(), reader.faults)


class _Reader:
    def __init__(self, options: ComposeOptions, report: Report) -> None:
        self._options, self._report = options, report
        self._files: dict[str, RawDocument | None] = {}
        self.services: dict[str, Service] = {}
        self.faults: list[DocumentFault] = []

    def add(self, document: RawDocument) -> None:
        """The services of a file, after those of the files that it includes."""
        self._include(document)
        services = document.data.get("services")
        if services is None:
            return
        if not isinstance(services, dict):
            self.faults.append(document.fault(("services",), found=shown(services), expected="a mapping of services"))
            return
        for name, keys in services.items():
            place = ("services", name)
            if not isinstance(keys, dict):
                self.faults.append(document.fault(place, found=shown(keys), expected="a mapping"))
                continue
            if not _SERVICE_NAME.fullmatch(name):
                # Docker Compose takes no other; one that begins with '-' would be an option of its commands.
                expected = "a name that Docker Compose takes"
                self.faults.append(document.fault(place, found=shown(name), expected=expected))
                continue
            self.services[name] = Service(name, document, keys)

    def _include(self, document: RawDocument) -> None:
        for index, item in enumerate(texts_of_include(document.data.get("include"))):
            line = document.positions.get(("include", index), (1, 1))[0]
            for path in item:
                included = self._file(document, path)
                if included is None:
                    text = f"{path} is included but was not given: send it in options.files"
                    self._report.left_out(line, path, "include", text)
                else:
                    self._report.taken(line, path, "include", "its services are part of the Map")
                    self.add(included)

    def _file(self, document: RawDocument, path: str) -> RawDocument | None:
        """A file beside another. None if it was not given, or is being read already: a ring of includes ends there."""
        full = posixpath.normpath(posixpath.join(posixpath.dirname(document.file), path))
        if full in self._files:
            return None
        content = self._options.files.get(full, self._options.files.get(path))
        if content is None or len(self._files) >= MAX_FILES:
            return None
        try:
            self._files[full] = read_compose(SourceFile(full, content))
        except RefusedError as error:
            self.faults.append(error.fault(full))
            self._files[full] = None
        return self._files[full]

    def resolved(self) -> dict[str, Service]:
        """The services with what they extend, and with the values of variables."""
        resolved = {}
        for name, service in self.services.items():
            keys = self._extended(service, [name])
            resolved[name] = Service(name, service.document, self._interpolated(service, keys))
        return resolved if not self.faults else {}

    def _extended(self, service: Service, chain: list[str]) -> dict[str, Any]:
        declared = service.keys.get("extends")
        if declared is None:
            return service.keys
        wanted, path = (declared, None) if isinstance(declared, str) else (None, None)
        if isinstance(declared, dict):
            wanted, path = declared.get("service"), declared.get("file")
        base = self._base(service, str(wanted), str(path) if path else None, chain)
        if base is None:
            return service.keys
        above = self._extended(base, [*chain, base.name])
        return _merged(above, {key: value for key, value in service.keys.items() if key != "extends"})

    def _base(self, service: Service, name: str, path: str | None, chain: list[str]) -> Service | None:
        where = ("services", service.name, "extends")
        if (path is None and name in chain) or len(chain) > _MAX_EXTENDS:
            found = f"a cycle: {' → '.join([*chain, name])}"
            self.faults.append(service.document.fault(where, found=found, expected="a service that does not extend it"))
            return None
        document = service.document
        if path is not None and posixpath.normpath(path) != posixpath.basename(document.file):
            full = posixpath.normpath(posixpath.join(posixpath.dirname(document.file), path))
            found_file = self._files.get(full) or self._file(document, path)
            if found_file is None:
                text = f"extends {name} of {path}, which was not given: send it in options.files"
                self._report.left_out(service.line("extends"), service.name, "extends", text)
                return None
            document = found_file
        services = document.data.get("services")
        keys = services.get(name) if isinstance(services, dict) else None
        if not isinstance(keys, dict):
            known = services if isinstance(services, dict) else {}
            fault = service.document.fault(
                where, found=shown(name), expected=with_hint(f"a service of {document.file}", name, known)
            )
            self.faults.append(fault)
            return None
        if len(chain) == 1:
            text = f"with the keys of {name}{f' of {path}' if path else ''}"
            self._report.taken(service.line("extends"), service.name, "extends", text)
        return Service(name, document, keys)

    def _interpolated(self, service: Service, keys: dict[str, Any]) -> dict[str, Any]:
        return {
            key: self._replaced(service, key, value) if key in _TAKEN else value
            for key, value in keys.items()
            if value is not None
        }

    def _replaced(self, service: Service, key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._replaced(service, key, item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._replaced(service, key, item) for item in value]
        if not isinstance(value, str) or "$" not in value:
            return value
        result = interpolate(value, self._options.environment)
        line = service.line(key)
        for name, default in result.defaults.items():
            self._report.guessed(line, service.name, key, f"${name} is not set here: its default {default!r} is taken")
        for name in result.missing:
            text = f"${name} is not set here and has no default: send it in options.environment"
            self._report.left_out(line, service.name, key, text)
        return result.text


def texts_of_include(value: Any) -> list[list[str]]:
    """The paths of each entry of `include`, in its short and long forms."""
    items = value if isinstance(value, list) else []
    return [texts(item.get("path")) if isinstance(item, dict) else texts(item) for item in items]


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """What extends wins; mappings are merged, and lists that only grow are put one behind the other."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[key] = _merged(below, value)
        elif isinstance(below, list) and isinstance(value, list) and key in _LISTS:
            merged[key] = [*below, *(item for item in value if item not in below)]
        else:
            merged[key] = value
    return merged
