"""Where `python -m deploy.embedded` begins; `cli` is the command line."""

import signal
import sys

# Until the supervisor listens to it itself, Ctrl-C just ends this, without a traceback from wherever it has come to.
signal.signal(signal.SIGINT, signal.SIG_DFL)

if __name__ == "__main__":
    from deploy.embedded.cli import main

    sys.exit(main(sys.argv[1:]))
