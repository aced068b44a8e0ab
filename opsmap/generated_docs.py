"""The pages of `docs/` that are made from the code, so that they cannot drift: `python -m opsmap.generated_docs`.

With `--check` nothing is written, and the exit code says whether a page is out of date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from apps.maps.documents.schema import SCHEMA
from apps.maps.enums import ComponentState
from apps.operations.state_machine import FAILED_OR_STOPPED, TRANSITIONS
from opsmap.agent_configuration_page import SOURCES, agent_configuration_page
from opsmap.natives_page import natives_page
from opsmap.protocol_page import protocol_page
from opsmap.settings.environment import VARIABLES

DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTE = "<!-- Made by `make docs` from {source}. Change that, not this page. -->"


def configuration_page() -> str:
    """Every environment variable, from the table the settings are read by."""
    rows = [
        f"| `{variable.name}` | {_default(variable.default)} | {variable.help} |"
        for variable in sorted(VARIABLES, key=lambda item: item.default is not None)
    ]
    return "\n".join(
        [
            NOTE.format(source="opsmap/settings/environment.py"),
            "",
            "# Configuration",
            "",
            "The web server, the link server, the workers and `manage.py` read these environment variables and nothing",
            "else. They are checked at start: one line for every fault, all at once; nothing starts half configured.",
            "",
            "| variable | default | meaning |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _default(value: str | None) -> str:
    if value is None:
        return "required"
    return f"`{value}`" if value else "empty"


def states_page() -> str:
    """The component state machine, from its table."""
    rows = []
    for trigger, moves in TRANSITIONS.items():
        cells = [_target(moves.get(state), state) for state in ComponentState]
        rows.append(f"| `{trigger}` | {' | '.join(cells)} |")
    return "\n".join(
        [
            NOTE.format(source="apps/operations/state_machine.py"),
            "",
            "# Component states",
            "",
            "A column is the state a component is in, a row what happens to it, a cell where it goes. An empty cell",
            "changes nothing. *failed or stopped* is failed for a component that should be up, and stopped for one",
            "that nobody wants up: the difference between an alarm and a fact.",
            "",
            f"| | {' | '.join(ComponentState.values)} |",
            f"| --- |{' --- |' * len(ComponentState)}",
            *rows,
            "",
            "```mermaid",
            "stateDiagram-v2",
            *_diagram(),
            "```",
            "",
        ]
    )


def _target(target: str | None, state: ComponentState) -> str:
    if target is None or target == state:
        return ""
    return "*failed or stopped*" if target == FAILED_OR_STOPPED else str(target)


def _diagram() -> list[str]:
    """One arrow for each pair of states, labelled with everything that leads from one to the other."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for trigger, moves in TRANSITIONS.items():
        for state, target in moves.items():
            ends = (ComponentState.FAILED, ComponentState.STOPPED) if target == FAILED_OR_STOPPED else (target,)
            for end in ends:
                if end != state:
                    arrows.setdefault((str(state), str(end)), []).append(str(trigger))
    return [f"    {source} --> {end}: {', '.join(triggers)}" for (source, end), triggers in arrows.items()]


def wire_page() -> str:
    """The wire protocol, from its types and golden examples."""
    return "\n\n".join([NOTE.format(source="agent/opsmap_protocol, opsmap/protocol_page.py"), protocol_page()])


def commands_page() -> str:
    """The native commands of agents, from their functions."""
    return "\n\n".join([NOTE.format(source="agent/opsmap_agent/native, opsmap/natives_page.py"), natives_page()])


def agent_page() -> str:
    """The keys of an agent's configuration file, from the classes it is read into."""
    return "\n\n".join(
        [NOTE.format(source=", ".join(f"agent/{source}" for source in SOURCES)), agent_configuration_page()]
    )


def schema_file() -> str:
    """The JSON Schema of documents as it is served, for editors that have the repository and no installation."""
    return json.dumps(SCHEMA, indent=2, ensure_ascii=False) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "agent-configuration.md": agent_page,
    "configuration.md": configuration_page,
    "native-commands.md": commands_page,
    "protocol.md": wire_page,
    "schemas/v1/map-document.json": schema_file,
    "states.md": states_page,
}


def main() -> int:
    is_check = "--check" in sys.argv[1:]
    stale = [name for name, make in PAGES.items() if _read(DOCS / name) != make()]
    for name in stale:
        if is_check:
            print(f"docs/{name} is out of date: run `make docs`", file=sys.stderr)
        else:
            (DOCS / name).write_text(PAGES[name]())
            print(f"docs/{name} written")
    return 1 if is_check and stale else 0


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
