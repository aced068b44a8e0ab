#!/usr/bin/env bash
# Installs the small tools that tests compare the agent with or build packages with, where that is ours to do. Never
# fails: tests without their tool count as skipped, and say which package it is in.
set -uo pipefail

# command=package
wanted=(dbus-daemon=dbus ip=iproute2 ps=procps rpmbuild=rpm sudo=sudo systemd-analyze=systemd)

missing=()
for tool in "${wanted[@]}"; do
    command -v "${tool%%=*}" >/dev/null || missing+=("${tool#*=}")
done
[[ ${#missing[@]} -eq 0 ]] && exit 0

if [[ $EUID -eq 0 && -f /etc/debian_version ]] && command -v apt-get >/dev/null; then
    echo "tools: installing ${missing[*]} for the tests"
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    options=(-q -o DPkg::Lock::Timeout=60 -o Acquire::Retries=1 -o Acquire::http::Timeout=20)
    if {
        timeout 120 apt-get "${options[@]}" update &&
            timeout 300 apt-get "${options[@]}" install -y --no-install-recommends "${missing[@]}"
    } </dev/null >"$log" 2>&1; then
        rm -f "$log"
        exit 0
    fi
    echo "tools: they could not be installed (details: $log)"
fi
echo "tools: without the packages ${missing[*]} some tests will be skipped"
exit 0
