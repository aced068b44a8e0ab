#!/usr/bin/env bash
# Looks for a Chromium for the browser test and installs one where that is ours to do. Never fails: without a
# browser the test counts as skipped.
set -uo pipefail

for browser in "${OPSMAP_CHROMIUM:-}" chromium chromium-browser google-chrome; do
    if [[ -n $browser ]] && command -v "$browser" >/dev/null; then
        exit 0
    fi
done

if [[ $EUID -eq 0 && -f /etc/debian_version ]] && command -v apt-get >/dev/null; then
    echo "browser: installing chromium for the browser test"
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    options=(-q -o DPkg::Lock::Timeout=60 -o Acquire::Retries=1 -o Acquire::http::Timeout=20)
    if {
        timeout 120 apt-get "${options[@]}" update &&
            timeout 600 apt-get "${options[@]}" install -y --no-install-recommends chromium
    } </dev/null >"$log" 2>&1 && command -v chromium >/dev/null; then
        rm -f "$log"
        exit 0
    fi
    echo "browser: chromium could not be installed (details: $log)"
fi
echo "browser: no Chromium found; the browser test will be skipped. Install the package chromium (or set" \
    "OPSMAP_CHROMIUM=/path/to/it) and run: make test"
exit 0
