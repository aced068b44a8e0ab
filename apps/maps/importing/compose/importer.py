"""A Compose file to documents and a report."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from apps.maps.documents.schema import SCHEMA_ID
from apps.maps.importing.compose import fields
from apps.maps.importing.compose.commands import DEFAULT_WAIT_MS, Project, project_name, service_commands, stop_wait_ms
from apps.maps.importing.compose.fields import Port
from apps.maps.importing.compose.healthchecks import Health, declared_test, guessed_health, health_of
from apps.maps.importing.compose.project import ComposeOptions, ComposeProject, Service, read_project
from apps.maps.importing.drafts import GROUPS, DraftComponent, ImportResult, finish
from apps.maps.importing.names import Names
from apps.maps.importing.report import Report
from apps.maps.importing.technologies import recognize_image

_NOT_OF_A_MAP = {
    "volumes": "storage stays with Docker",
    "networks": "networks stay with Docker",
    "secrets": "secrets stay with Docker",
    "configs": "configuration stays with Docker",
    "environment": "Docker Compose goes on giving it to the container",
    "env_file": "Docker Compose goes on giving it to the container",
    "command": "Docker Compose goes on applying it",
    "entrypoint": "Docker Compose goes on applying it",
    "labels": "labels of containers are for other tools",
    "logging": "logging stays with Docker",
    "expose": "only published ports can be seen from the host",
    "restart": "Docker goes on restarting it by itself; OpsMap restarts nothing unasked",
    "develop": "only for developing",
    "version": "has no meaning any more",
}
_HANDLED = {
    *("image", "container_name", "depends_on", "healthcheck", "ports", "profiles", "links", "volumes_from"),
    *("extends", "stop_grace_period", "scale"),
}
_CONDITIONS = {fields.STARTED, fields.HEALTHY, fields.COMPLETED}
_LOCAL_PORT = re.compile(r"(?:localhost|127\.0\.0\.1):(\d{1,5})\b")
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PROJECT_VARIABLE, _PROFILES_VARIABLE = "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"
_WEB_PORTS = {80, 443, 8080, 8443}


def import_compose(content: str, options: ComposeOptions, *, schema_url: str = SCHEMA_ID) -> ImportResult:
    """The Map of a Compose project.

    Commands run `docker compose` in the project's folder on its host, so that everything a Map has no words for
    (volumes, networks, environment) goes on having its effect.
    """
    report = Report()
    project = read_project(content, options, report)
    if project.faults:
        return ImportResult([], report, project.faults)
    return _Import(project, options, report).result(schema_url)


class _Import:
    def __init__(self, project: ComposeProject, options: ComposeOptions, report: Report) -> None:
        self._options, self._report, self._document = options, report, project.document
        self._names = Names()
        self._profiles = {*options.profiles, *options.environment.get(_PROFILES_VARIABLE, "").split(",")}
        self._name = self._project_name()
        self._place = self._on_host()
        self._services = {name: service for name, service in project.services.items() if self._is_in_use(service)}
        self._known = project.services
        self._jobs = self._services_waited_for_to_end()

    def result(self, schema_url: str) -> ImportResult:
        if not self._services:
            fault = self._document.fault(("services",), found="no service in use", expected="profiles that have one")
            return ImportResult([], self._report, [fault])
        drafts = [self._draft(service) for service in self._services.values()]
        self._tell_of_the_rest()
        title = self._options.name or self._name
        text = f"Imported from {self._options.file} of the Docker Compose project {self._name}."
        return finish(title, text, drafts, self._report, file=self._options.file, schema_url=schema_url)

    def _project_name(self) -> str:
        declared = self._document.data.get("name")
        line = self._document.positions.get(("name",), (0, 0))[0]
        if self._options.project:
            return project_name(self._options.project)
        if _PROJECT_VARIABLE in self._options.environment:
            return project_name(self._options.environment[_PROJECT_VARIABLE])
        if isinstance(declared, str) and declared and project_name(declared) == declared:
            self._report.taken(line, "", "name", f"the project is {declared}")
            return declared
        guess = project_name(posixpath.basename(self._options.folder.rstrip("/")))
        self._report.guessed(line, "", "name", f"the project's name is not said: {guess}")
        return guess

    def _on_host(self) -> Project:
        folder = self._options.folder.rstrip("/")
        if not folder:
            folder = f"/opt/{self._name}"
            self._report.guessed(0, "", "workingDir", f"the project's folder on its host is not said: {folder}")
        if not self._options.host:
            self._report.left_out(0, "", "host", "the host is not said: nothing can be run until components have one")
        # Docker Compose finds the name in the file or takes the folder's by itself.
        found = (self._document.data.get("name"), self._options.environment.get(_PROJECT_VARIABLE))
        is_found = self._name in found or posixpath.basename(folder) == self._name
        return Project(folder, self._options.file, "" if is_found else self._name)

    def _is_in_use(self, service: Service) -> bool:
        profiles = fields.texts(service.keys.get("profiles"))
        if profiles and not {"*", *profiles} & self._profiles:
            text = f"only started with the profile {' or '.join(profiles)}, which is not in use"
            self._report.left_out(service.line("profiles"), service.name, "profiles", text)
            return False
        if fields.replicas(service.keys) == 0:
            self._report.left_out(service.line("deploy"), service.name, "replicas", "none of it is to run")
            return False
        return True

    def _services_waited_for_to_end(self) -> set[str]:
        return {
            wait.service
            for service in self._services.values()
            for wait in fields.waits(service.keys.get("depends_on"))
            if wait.condition == fields.COMPLETED
        }

    def _draft(self, service: Service) -> DraftComponent:
        name = self._names.name_for(service.name)
        draft = DraftComponent(name, service.line())
        if name != service.name:
            self._report.guessed(service.line(), service.name, "name", f"components are named otherwise: {name}")
        ports = self._ports(service)
        container = self._container(service)
        is_job = service.name in self._jobs
        health = None if is_job else self._health(service, ports, container)
        draft.labels = {"compose-project": self._name, "compose-service": service.name}
        draft.spec = self._what_it_is(service, ports, is_job=is_job)
        draft.spec |= {"host": self._options.host} if self._options.host else {}
        grace = fields.milliseconds(service.keys.get("stop_grace_period"))
        draft.spec["commands"] = service_commands(
            self._place,
            service.name,
            container,
            is_job=is_job,
            start_wait_ms=max(health.start_wait_ms if health else 0, DEFAULT_WAIT_MS),
            stop_wait_ms=stop_wait_ms(grace),
        )
        if health:
            draft.spec["healthcheck"] = health.check
        self._depend(service, draft)
        self._tell_of_other_keys(service)
        return draft

    def _what_it_is(self, service: Service, ports: list[Port], *, is_job: bool) -> dict[str, Any]:
        image = str(service.keys.get("image") or "")
        line = service.line("image" if image else "build")
        found = recognize_image(image)
        component_type = "batch" if is_job else found.component_type
        if is_job:
            self._report.guessed(line, service.name, "type", "batch: others wait for it to end")
        elif found.technology is None:
            if any(port.published in _WEB_PORTS for port in ports):
                component_type = "web"
            what = f"the image {image} is not known" if image else "it is built and has no image that says what it is"
            self._report.guessed(line, service.name, "type", f"{component_type}: {what}")
        else:
            version = f" {found.version}" if found.version else ", the image says no version"
            self._report.taken(line, service.name, "technology", f"{found.technology}{version}, {component_type}")
        spec: dict[str, Any] = {"type": component_type, "group": GROUPS.get(component_type, "services")}
        if image:
            spec["description"] = f"Container of {image[:300]}."
        technology = found.as_spec()
        return {**spec, **({"technology": technology} if technology else {})}

    def _container(self, service: Service) -> str:
        declared = service.keys.get("container_name")
        count = fields.replicas(service.keys)
        if count and count > 1:
            text = f"one component for its {count} containers; its status is that of the first"
            self._report.guessed(service.line("deploy"), service.name, "replicas", text)
        if isinstance(declared, str) and _CONTAINER.fullmatch(declared):
            self._report.taken(service.line("container_name"), service.name, "container_name", declared)
            return declared
        guess = f"{self._name}-{service.name}-1"
        self._report.guessed(service.line(), service.name, "container_name", f"as Docker Compose 2 names it: {guess}")
        return guess

    def _ports(self, service: Service) -> list[Port]:
        found: list[Port] = []
        for item in fields.ports(service.keys.get("ports")):
            if isinstance(item, str):
                self._report.left_out(service.line("ports"), service.name, "ports", f"no port: {item}")
            elif item.published is None:
                text = f"{item.target}: Docker chooses the host's port anew each time"
                self._report.left_out(service.line("ports"), service.name, "ports", text)
            else:
                found.append(item)
        if service.keys.get("network_mode") == "host" and not found:
            test = declared_test(service.keys.get("healthcheck"))
            self._report.guessed(service.line("network_mode"), service.name, "ports", "its ports are the host's own")
            found = [Port(port, port) for port in _ports_named_in(test)]
        return found

    def _health(self, service: Service, ports: list[Port], container: str) -> Health:
        declared = service.keys.get("healthcheck")
        test = declared_test(declared)
        line = service.line("healthcheck")
        if test is None or not isinstance(declared, dict):
            health = guessed_health(ports, container)
            if isinstance(declared, dict):
                why = "it is switched off" if declared.get("disable") or declared.get("test") else "it has no test"
                self._report.left_out(line, service.name, "healthcheck", why)
            self._report.guessed(service.line(health.key), service.name, "healthcheck", health.text)
            return health
        health = health_of(declared, test, service.name, ports, self._place)
        tell = self._report.taken if health.is_exact else self._report.guessed
        tell(line, service.name, "healthcheck", health.text)
        if "start_period" in declared:
            text = "OpsMap waits for the first good answer after a start instead"
            self._report.left_out(service.line("healthcheck", "start_period"), service.name, "start_period", text)
        return health

    def _depend(self, service: Service, draft: DraftComponent) -> None:
        for wait in fields.waits(service.keys.get("depends_on")):
            line = service.line("depends_on", wait.service)
            if not self._is_there(service, wait.service, "depends_on", line):
                continue
            is_strong = wait.is_required and wait.condition != fields.COMPLETED
            draft.needs(self._names.name_for(wait.service), is_strong=is_strong, line=line)
            self._tell_of_wait(service, wait, line)
        for key, name in fields.implied_waits(service.keys):
            line = service.line(key)
            if self._is_there(service, name, key, line):
                draft.needs(self._names.name_for(name), is_strong=True, line=line)
                self._report.guessed(line, service.name, key, f"{name} must run first, as {key} says")

    def _is_there(self, service: Service, name: str, key: str, line: int) -> bool:
        if name in self._services and name != service.name:
            return True
        why = "is not in use" if name in self._known else "is no service of this project"
        self._report.left_out(line, service.name, key, f"{name} {'is itself' if name == service.name else why}")
        return False

    def _tell_of_wait(self, service: Service, wait: fields.Wait, line: int) -> None:
        if wait.condition == fields.COMPLETED:
            text = f"weak: {wait.service} must have ended well, it does not stay running"
            self._report.guessed(line, service.name, "depends_on", text)
        elif wait.condition not in _CONDITIONS:
            text = f"the condition {wait.condition[:60]} is not known: {wait.service} must be running"
            self._report.guessed(line, service.name, "depends_on", text)
        elif not wait.is_required:
            self._report.guessed(line, service.name, "depends_on", f"weak: it does without {wait.service}, too")
        else:
            healthy = " and healthy" if wait.condition == fields.HEALTHY else ""
            self._report.taken(line, service.name, "depends_on", f"{wait.service} must be running{healthy}")
        if wait.restarts:
            text = f"is not restarted with {wait.service} unless an operation is asked to"
            self._report.left_out(line, service.name, "depends_on.restart", text)

    def _tell_of_other_keys(self, service: Service) -> None:
        if fields.milliseconds(service.keys.get("stop_grace_period")):
            self._report.taken(
                service.line("stop_grace_period"), service.name, "stop_grace_period", "Docker waits so long"
            )
        for key in service.keys:
            if key in _HANDLED or key.startswith("x-"):
                continue
            if key == "deploy":
                self._tell_of_deploy(service)
            elif key not in {"network_mode", "pid", "ipc"}:
                text = "it is built by hand or by CI, not by OpsMap" if key == "build" else _reason(key)
                self._report.left_out(service.line(key), service.name, key, text)

    def _tell_of_deploy(self, service: Service) -> None:
        deploy = service.keys["deploy"]
        for key in deploy if isinstance(deploy, dict) else ():
            if key != "replicas":
                self._report.left_out(service.line("deploy", key), service.name, f"deploy.{key}", "stays with Docker")

    def _tell_of_the_rest(self) -> None:
        for key in self._document.data:
            if key in {"services", "name", "include"} or key.startswith("x-"):
                continue
            line = self._document.positions.get((key,), (1, 1))[0]
            self._report.left_out(line, "", key, _reason(key))


def _reason(key: str) -> str:
    return _NOT_OF_A_MAP.get(key, "Docker Compose goes on applying it")


def _ports_named_in(test: list[str] | str | None) -> list[int]:
    """Ports that a test asks by number on this machine: those of a service that shares the host's network."""
    text = test if isinstance(test, str) else " ".join(test or [])
    return [int(digits) for digits in _LOCAL_PORT.findall(text[:2_000]) if 0 < int(digits) <= 65_535]


__all__ = ["ComposeOptions", "import_compose"]
