#!/bin/sh
# Stands between the agent and one detached command: claims the job, runs the command, keeps its exit code on disk.
#
#   shim.sh JOB_FOLDER WORKING_DIR SETSID CHECKED COMMAND [ARGUMENT...]
#
# The agent starts it through setsid(1), which forks, so it is a session of its own, a child of init and out of reach of
# whatever happens to the agent. It inherits four descriptors: 0, the standard input of the command; 7, the file that was
# checked under the path CHECKED, if that is not empty, to see that it is still the one to be run; 8, a pipe to say that
# the command begins; and 9, the lock of the job, held until this process ends: whoever can take that lock knows that
# nobody is running the job.
#
# Records in the job folder, one line each:
#   claim   PID START_TIME BOOT_ID of this shim. Only its creator may run the command; on disk before the command begins.
#   pid     PID START_TIME BOOT_ID of the command. Not synced: after a crash of the host it would mean nothing.
#   exit    exit code of the command, 128 + N if signal N ended it.
# Each is one small write that ends in a newline: a record without it was cut short and counts as absent. Syncing a new
# file makes its folders' entries durable with it on the journaling file systems of Linux, so one sync a record is enough.
# START_TIME is field 22 of /proc/PID/stat: with the boot id it tells a process from a later one with the same number.

job=$1 workdir=$2 setsid=$3 checked=$4
shift 4

# The command may have been given a PATH of its own; the tools used here must not come from it.
tools="/usr/sbin:/usr/bin:/sbin:/bin:$PATH"

# A handler and not '': ignored signals would stay ignored in the command, handled ones return to their default there.
trap : HUP INT TERM

identity() {
    read -r pid rest </proc/self/stat
    read -r boot_id </proc/sys/kernel/random/boot_id
    # Field 2 is the program's name in parentheses and may hold spaces: count from behind it.
    rest=${rest##*) }
    # shellcheck disable=SC2086  # splitting into fields is the point
    set -- $rest
    shift 19
    printf '%s %s %s\n' "$pid" "$1" "$boot_id"
}

set -C
identity >"$job/claim" || exit 125
set +C
PATH=$tools sync "$job/claim" || exit 125

(
    cd "$workdir" || exit 125
    unset OLDPWD SHLVL
    if [ -n "$checked" ] && ! [ "$checked" -ef /proc/self/fd/7 ]; then
        printf '%s was replaced after it was checked\n' "$checked"
        exit 125
    fi
    identity >"$job/pid" || exit 125
    # An agent that died meanwhile hears nothing. The command begins all the same: a SIGPIPE here would end this shell
    # before it, and pass for the command's own end.
    trap : PIPE
    printf 'started\n' >&8 2>/dev/null
    exec "$setsid" "$@" 7<&- 8>&- 9>&-
) >>"$job/output.log" 2>&1
code=$?

printf '%s\n' "$code" >"$job/exit" && PATH=$tools sync "$job/exit"
