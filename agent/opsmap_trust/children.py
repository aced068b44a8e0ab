"""Short-lived children of the daemons: what is large, or comes from strangers, is done by a process that ends."""

from __future__ import annotations

import sys
from pathlib import Path

_FOLDER = str(Path(__file__).resolve().parent.parent)
"""Where our packages are. In a zipapp, no child would look there by itself."""

_MAIN = """\
import runpy, sys
module, folder = sys.argv[1:3]
sys.path.insert(0, folder)
del sys.argv[1:3]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def child_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of ours in this Python, whatever the environment says."""
    return [sys.executable, "-I", "-c", _MAIN, module, _FOLDER, *arguments]
