"""The program of the documents' commands: `control.py start|stop|status NAME --state DIR --lease FILE`.

Such a command names this file and no environment, so the program finds its package by itself.
"""

import sys
from pathlib import Path

# In place of this file's own folder, whose module names would otherwise stand before everybody else's.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from deploy.demo.commands import main  # noqa: E402  (found through the line above)

if __name__ == "__main__":
    sys.exit(main())
