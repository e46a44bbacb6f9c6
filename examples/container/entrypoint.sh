#!/bin/sh
# entrypoint.sh PID_FILE PROGRAM ARGUMENT…: runs a service that writes PID_FILE, and stays as long as the file names a live process.
# SIGTERM and SIGUSR1 go to the process that the file names; a SIGTERM before it names one, to the first. After a SIGTERM, so does one to
# each that comes after it: a process that is told to end while its successor is on probation leaves the service to that one.
set -u
pid_file=$1
shift
# Sets `pid`. The file may come to name another process, and this one end, between two looks: then it is looked at again.
serving() {
    pid=
    while last=$pid && pid=$(cat "$pid_file" 2>/dev/null) && [ "$pid" != "$last" ]; do
        kill -0 "$pid" 2>/dev/null && return 0
    done
    return 1
}
told=
ending=
first=
end() {
    serving || pid=$first
    [ -z "$pid" ] || [ "$pid" = "$told" ] || kill -TERM "$pid"
    told=$pid
}
trap 'ending=1; end' TERM
trap 'serving && kill -USR1 "$pid"' USR1
"$@" &
first=$!
[ -z "$ending" ] || end
# The status of the first process counts if it is the only one. A signal interrupts `wait`, and the shell may learn of the end of that
# process while it deals with the signal: so it is asked once more in the end, and says 127 where it does not know any more.
status=1
has_ended() {
    wait "$first"
    result=$?
    [ "$result" = 127 ] || status=$result
    ! kill -0 "$first" 2>/dev/null
}
until has_ended; do :; done
has_ended
first=
while serving; do
    status=0
    [ -z "$ending" ] || end
    sleep 1 &
    wait $!
done
exit "$status"
