"""Runs first in the zipapps, under whatever Python the host calls python3: one clear line instead of a traceback."""

import sys

if not (3, 11) <= sys.version_info[:2] <= (3, 14):
    found = ".".join(str(part) for part in sys.version_info[:2])
    sys.exit(f"opsmap: this needs Python 3.11 to 3.14, and {sys.executable} is {found}")
