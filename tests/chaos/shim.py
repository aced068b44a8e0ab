"""A copy of the agent's shim that can be killed between its lines. The product's own file stays as it is."""

from __future__ import annotations

import shlex
from pathlib import Path

from opsmap_agent.jobs import launcher

STEPS = {
    "shim-before-claim": ("set -C\n", "before"),
    "shim-after-claim": ('PATH=$tools sync "$job/claim" || exit 125\n', "after"),
    "shim-after-command": ("code=$?\n", "after"),
    "shim-after-exit-record": ('printf \'%s\\n\' "$code" >"$job/exit" && PATH=$tools sync "$job/exit"\n', "after"),
}
"""Each step and the line of shim.sh that it stands beside; that line must be there exactly once."""


def write_shim(path: Path, triggers: Path) -> None:
    """A shim that kills itself where a file of the step's name lies in `triggers`.

    Raises:
        ValueError: shim.sh has no such line any more.
    """
    text = Path(launcher.SHIM).read_text(encoding="utf-8")
    for step, (line, place) in STEPS.items():
        if text.count(line) != 1:
            raise ValueError(f"{step}: shim.sh has {text.count(line)} lines {line!r}")
        armed = shlex.quote(str(triggers / step))
        fired = shlex.quote(str(triggers / f"{step}.fired"))
        shot = f"[ -e {armed} ] && PATH=$tools mv {armed} {fired} 2>/dev/null && kill -9 $$\n"
        text = text.replace(line, shot + line if place == "before" else line + shot)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
