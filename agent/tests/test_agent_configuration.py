"""`agent.yaml`: what loads, what is refused, and the command that checks it."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from opsmap_agent import cli
from opsmap_agent.configuration import Configuration
from opsmap_daemon.configuration import ConfigurationError, load

if TYPE_CHECKING:
    from conftest import Pki

EXAMPLE = Path(__file__).parent / "golden" / "agent.yaml"
MINIMAL = """
gateway: {url: "wss://gateway:8443"}
tls: {cert_file: a.crt, key_file: a.key, ca_file: ca.crt}
"""


def faults_of(path: Path, text: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(path, Configuration)
    return caught.value.faults


def test_reference_example_loads_unchanged() -> None:
    configuration = load(EXAMPLE, Configuration)
    assert configuration.gateway.fallback_urls == [
        "wss://gateway-prod-2.internal:8443",
        "wss://gateway-prod-3.internal:8443",
    ]
    assert configuration.network.bind_interface == "eth1"
    assert configuration.scripts.allowed_extensions == [".sh", ".bash", ".py", ".pl"]
    assert configuration.identity.allowed_runas_users == ["oracle", "postgres", "tomcat", "nginx"]
    assert configuration.detached_execution.log_dir == Path("/var/log/opsmap/detached")
    assert configuration.watchdog.pid_file == Path("/var/run/opsmap/agent.pid")


def test_gateway_and_certificates_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(MINIMAL)
    configuration = load(path, Configuration)
    assert configuration.scripts.allowed_paths == []
    assert configuration.tls.cert_file == tmp_path / "a.crt"


def test_faults_name_line_key_and_expectation(tmp_path: Path) -> None:
    text = MINIMAL + 'network:\n  bind_port: "x"\nscripts:\n  max_output_bytes: 99999999\n  allowed_path: []\n'
    assert faults_of(tmp_path / "agent.yaml", text) == [
        "agent.yaml:5: network.bind_port: expected an integer, found 'x'",
        "agent.yaml:7: scripts.max_output_bytes: expected from 1024 to 1048576, found '99999999'",
        "agent.yaml:8: scripts.allowed_path: unknown key (did you mean 'allowed_paths'?)",
    ]


def test_server_verification_cannot_be_switched_off(tmp_path: Path) -> None:
    text = MINIMAL.replace("ca.crt", "ca.crt, verify_server: false")
    (fault,) = faults_of(tmp_path / "agent.yaml", text)
    assert "verify_server cannot be switched off" in fault


def test_check_config_looks_at_certificates_too(tmp_path: Path, pki: Pki, capsys: pytest.CaptureFixture[str]) -> None:
    leaf = pki.agent("srv-1")
    text = f"""
gateway: {{url: "wss://gateway:8443"}}
tls: {{cert_file: "{leaf.cert}", key_file: "{leaf.key}", ca_file: "{pki.gateway_ca.ca}",
  backend_ca_file: "{pki.backend_ca.ca}"}}
"""
    path = tmp_path / "agent.yaml"
    path.write_text(text)
    assert cli.main(["check-config", "--config", str(path)]) == 0
    assert "fine" in capsys.readouterr().out
    path.write_text(text + "agent: {id: srv-2}\n")
    assert cli.main(["check-config", "--config", str(path)]) == cli.EXIT_CONFIGURATION
    assert "is the certificate of srv-1, but agent.id is srv-2" in capsys.readouterr().err


def test_run_with_a_missing_file_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.yaml"
    assert cli.main(["run", "--config", str(missing)]) == cli.EXIT_CONFIGURATION
    assert capsys.readouterr().err == f"{missing}: cannot be read: No such file or directory\n"


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main([option])
    assert exited.value.code == 0
    assert "opsmap-agent" in capsys.readouterr().out


# What each key does

EFFECTS = {
    "gateway.url": "test_registration_says_who_and_what",
    "gateway.fallback_urls": "test_fallback_gateway_is_used",
    "gateway.sessions": "test_one_session_uses_the_urls_in_their_order",
    "gateway.reconnect.initial_delay_ms": "test_delays_grow_to_the_maximum",
    "gateway.reconnect.max_delay_ms": "test_delays_grow_to_the_maximum",
    "gateway.reconnect.multiplier": "test_delays_grow_to_the_maximum",
    "gateway.reconnect.max_attempts": "test_agent_without_any_gateway_gives_up",
    "gateway.heartbeat_interval_secs": "test_heartbeats_and_ping",
    "gateway.heartbeat_timeout_secs": "test_half_open_connection_is_found_dead",
    "tls.cert_file": "test_check_config_looks_at_certificates_too",
    "tls.key_file": "test_key_of_another_certificate_is_a_fault",
    "tls.ca_file": "test_certificate_of_another_branch_is_refused",
    "tls.backend_ca_file": "test_new_authorities_below_the_root_count",
    "tls.root_ca_file": "test_authorities_of_another_root_do_not_count",
    "tls.verify_server": "test_server_verification_cannot_be_switched_off",
    "tls.verify_hostname": "test_contexts_insist_on_certificates_and_versions",
    "tls.min_version": "test_contexts_insist_on_certificates_and_versions",
    "tls.max_version": "test_tls_max_version_is_what_is_spoken",
    "agent.id": "test_check_config_looks_at_certificates_too",
    "agent.labels": "test_registration_says_who_and_what",
    "network.bind_interface": "test_bind_interface_is_asked_for_its_address_at_each_connection",
    "network.bind_address": "test_bind_address_is_what_the_gateway_sees",
    "network.bind_port": "test_bind_port_is_what_the_gateway_sees",
    "native_commands.*": "test_what_is_switched_off_is_refused",
    "scripts.enabled": "test_scripts_switched_off_refuse_programs_and_scripts",
    "scripts.allowed_paths": "test_outside_is_refused",
    "scripts.allowed_extensions": "test_script_with_another_extension_is_refused",
    "scripts.allowed_commands": "test_allowed_command_by_name_or_path",
    "scripts.default_timeout_secs": "test_sync_commands_end_by_the_default_or_the_longest_time",
    "scripts.max_timeout_secs": "test_sync_commands_end_by_the_default_or_the_longest_time",
    "scripts.max_output_bytes": "test_output_beyond_the_limit_is_counted_and_not_kept",
    "scripts.limits.*": "test_limits_hold",
    "identity.run_as": "test_another_account_than_the_configured_one_is_told",
    "identity.allowed_runas_users": "test_only_listed_users",
    "identity.allowed_runas_groups": "test_only_listed_users",
    "detached_execution.log_dir": "test_unusable_folders_are_told",
    "detached_execution.log_retention_days": "test_old_jobs_are_cleaned_away",
    "detached_execution.cleanup_interval_hours": "test_old_jobs_are_cleaned_away",
    "detached_execution.max_jobs": "test_cap_on_living_jobs",
    "detached_execution.max_log_mb": "test_log_of_a_running_job_is_bounded_and_followed",
    "checks.allowed_hosts": "test_list",
    "buffer.enabled": "test_without_a_buffer_results_wait_all_the_same",
    "buffer.path": "test_two_agents_with_one_folder_are_one_too_many",
    "buffer.max_size_mb": "test_output_goes_and_what_commands_did_stays",
    "buffer.buffer_events": "test_buffer_events_say_what_waits",
    "discovery.on_startup": "test_by_itself_it_tells_only_what_has_changed",
    "discovery.periodic_interval_secs": "test_by_itself_it_tells_only_what_has_changed",
    "discovery.discover.*": "test_what_is_not_discovered_here_is_refused_clearly",
    "watchdog.enabled": "test_watchdog_can_be_switched_off",
    "watchdog.timeout_secs": "test_stuck_agent_executes_itself_anew_and_its_jobs_are_the_same",
    "watchdog.pid_file": "test_pid_file_is_there_while_the_agent_runs",
    "logging.level": "test_level_leaves_out_what_is_below",
    "logging.file": "test_removed_or_moved_file_is_made_anew",
    "logging.max_size_mb": "test_full_files_are_rotated_and_compressed",
    "logging.max_files": "test_former_files_keep_as_they_are_unless_compressed",
    "logging.compress": "test_full_files_are_rotated_and_compressed",
    "logging.format": "test_json_lines_carry_extras_and_exceptions",
    "logging.include_timestamps": "test_what_lines_contain_can_be_chosen",
    "logging.include_target": "test_what_lines_contain_can_be_chosen",
    "logging.include_span": "test_span_is_the_task_that_a_line_was_written_in",
    "metrics.enabled": "test_port_of_the_metrics_that_is_taken_is_no_reason_to_end",
    "metrics.bind": "test_port_of_the_metrics_that_is_taken_is_no_reason_to_end",
}
"""The test of each key's effect; `*` stands for keys that one test goes through."""

WITHOUT_EFFECT = {"agent.version"}
"""Their docstrings say why."""


def keys_of(section: type[Any], prefix: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from keys_of(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def test_each_key_has_a_test_of_its_effect() -> None:
    keys = set(keys_of(Configuration))
    untested = {key for key in keys - WITHOUT_EFFECT if not any(fnmatch(key, known) for known in EFFECTS)}
    assert untested == set()
    assert [known for known in EFFECTS if not any(fnmatch(key, known) for key in keys)] == []


def test_tests_that_show_effects_exist() -> None:
    defined: set[str] = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        defined.update(re.findall(r"^(?:async )?def (test_\w+)\(", file.read_text(), re.MULTILINE))
    assert set(EFFECTS.values()) - defined == set()


def test_one_port_cannot_serve_two_connections(tmp_path: Path) -> None:
    text = MINIMAL.replace('"}', '", fallback_urls: ["wss://other:8443"]}') + "network: {bind_port: 5000}\n"
    (fault,) = faults_of(tmp_path / "agent.yaml", text)
    assert "network.bind_port is one port for several connections" in fault


def test_metrics_are_for_this_machine_and_buffers_for_known_events(tmp_path: Path) -> None:
    text = MINIMAL + "metrics: {bind: '0.0.0.0:9'}\nbuffer: {buffer_events: [metric, commands]}\n"
    assert faults_of(tmp_path / "agent.yaml", text) == [
        "agent.yaml:4: metrics.bind: expected an address of this machine alone, like 127.0.0.1:9091, found '0.0.0.0:9'",
        "agent.yaml:5: buffer.buffer_events[1]: expected one of discovery_result, metric, log, found 'commands'",
    ]
