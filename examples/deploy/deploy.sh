#!/bin/sh
# Puts a new version in the place of the old one and restarts the service.
#
# usage: deploy.sh NEW PROGRAM SOCKET [COMMAND...]
#   NEW      the file of the new version
#   PROGRAM  the path by which the service was started
#   SOCKET   its coordination socket
#   COMMAND  restarts it: systemctl reload echo-server; without one: PROGRAM restart --socket SOCKET
#
# Ends with 0 if the new version serves. Otherwise the old file is back, the old version serves, and
# the status is that of COMMAND: 2, for one, says that another restart is under way.
set -u
new=$1 program=$2 socket=$3
shift 3
name=$(basename "$program") directory=$(dirname "$program")
old=$directory/.$name.old
[ $# -gt 0 ] || set -- "$program" restart --socket "$socket"

# One line of JSON. The old program asks: the new one may not even start.
status() { "$old" status --socket "$socket" --json 2>/dev/null; }
generation() { status | sed -n 's/.*"generation":\([0-9]*\).*/\1/p'; }

cp -p "$program" "$old" || exit 70
before=$(generation)
install -m 755 "$new" "$directory/.$name.new" && mv "$directory/.$name.new" "$program" || exit 70

"$@" && exit 0
code=$?

# systemctl can fail although the restart succeeds: it gave up waiting, say. The service knows.
tries=0
while [ $tries -lt 90 ] && status | grep -q '"under_way_ms":[0-9]'; do
    tries=$((tries + 1))
    sleep 1
done
after=$(generation)
if [ "$code" -ne 2 ] && [ "${after:-0}" -gt "${before:-0}" ]; then
    echo "$name: the command ended with $code, but the new version serves (generation $after)" >&2
    exit 0
fi
mv "$old" "$program"
echo "$name: not restarted (status $code); the old file is back" >&2
exit $code
