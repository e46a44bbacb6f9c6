# shellcheck shell=bash
# The service under a guard: the main PID stays.

# The unit of examples/guard, as it is but for the place of the programs.
guard_unit() {
  release pollflip <"$PROGRAMS/../pollflip"
  sed 's,/usr/local/bin/,/srv/bin/,g' "$here/../../examples/guard/systemd/restarter.service" | add_unit restarter.service
}

case_guard_keeps_the_main_pid() {
  guard_unit
  start restarter.service
  local main
  main=$(show MainPID)
  for _ in $(seq 20); do
    reload
    expect_untouched "$main"
  done
  contains "the answer" "$(in_box /srv/bin/pollflip status /run/restarter/restart.sock)" "generation 20"
  await 20 "the old processes end" processes_are 2
  is "what systemd warns of" "$(warnings)" ""
  in_box systemctl stop restarter
  is Result "$(show Result)" success
}

# With `mixed` the guard alone is told, and what a generation has to finish is finished.
case_guard_lets_connections_end() {
  guard_unit
  start restarter.service
  reload
  # It says no more until the service has been told.
  in_box bash -c 'exec 3<>/dev/tcp/127.0.0.1/7000; read -r _ <&3; echo begun; until [ -e /run/told ]; do sleep 0.05; done
    echo hello >&3; read -r line <&3; echo "got $line"' >"$out/client" &
  local client=$!
  await 20 "a client" grep -q begun "$out/client"
  in_box systemctl stop --no-block restarter
  await 20 "the service is told" journal_contains "waiting for 1 connections"
  in_box touch /run/told
  await 30 "the client is served to its end" grep -q "got hello" "$out/client"
  wait "$client"
  await 20 "the unit ends" property_is ActiveState inactive
  is Result "$(show Result)" success
}

case_guard_ends_as_the_service_did() {
  guard_unit
  start restarter.service
  reload
  reload
  local last
  last=$(in_box /srv/bin/pollflip status /run/restarter/restart.sock --json | sed 's/.*"pid":\([0-9]*\).*/\1/')
  in_box kill -ABRT "$last"
  await 20 "systemd tells how" journal_matches 'Main process exited, code=(killed|dumped), status=6/ABRT'
  await 20 "it is started again" property_is NRestarts 1
  await 20 "it serves again" property_is ActiveState active
}
