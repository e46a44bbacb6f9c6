#!/bin/sh
# Deploys on one host after the other, and stops at the first that fails.
#
# usage: roll.sh NEW HOST...
program=/usr/local/bin/echo-server
socket=/run/echo/restart.sock
new=$1
shift
for host in "$@"; do
    echo "== $host"
    scp -q "$new" "$host:/var/tmp/echo-server.new" &&
        scp -q "$(dirname "$0")/deploy.sh" "$host:/var/tmp/deploy.sh" &&
        ssh "$host" sh /var/tmp/deploy.sh /var/tmp/echo-server.new "$program" "$socket" || {
        echo "stopped at $host (status $?): it has the old file and serves, and so do those after it" >&2
        exit 1
    }
done
