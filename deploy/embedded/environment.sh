#!/usr/bin/env bash
# Makes or updates .venv: environment.sh base|dev. Picks the interpreter; environment.py does the rest.
# PYTHON=… chooses another interpreter. Nothing here needs more than bash and Python 3.11.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# What the caller's shell has set for another project must not reach this environment.
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV

is_new_enough() {
    # A name can exist and not run: a shim of a version manager, an environment whose interpreter is gone.
    [[ $("$1" -I -c 'import sys; print(sys.version_info >= (3, 11))' </dev/null 2>/dev/null) == True ]]
}

if [[ -n ${PYTHON:-} ]]; then
    candidates=("$PYTHON")
else
    candidates=(.venv/bin/python python3.13 python3.12 python3.11 python3)
fi
for candidate in "${candidates[@]}"; do
    if is_new_enough "$candidate"; then
        exec "$candidate" -I deploy/embedded/environment.py "$@"
    fi
done
if [[ -n ${PYTHON:-} ]]; then
    echo "opsmap: PYTHON=$PYTHON is not Python 3.11 or later." >&2
else
    echo "opsmap: Python 3.11 or later is needed: install it, or name it with PYTHON=/path/to/python3.12." >&2
fi
exit 1
