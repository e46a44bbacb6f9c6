# shellcheck shell=bash
# Restarts that succeed.

# The server of the example zero_downtime. More settings from standard input.
web_service() {
  { cat <<'UNIT'
[Service]
Type=notify
ExecStart=/srv/bin/zero_downtime serve --listen 127.0.0.1:8080 --socket ${RUNTIME_DIRECTORY}/restart.sock
ExecReload=/srv/bin/restarter restart --socket ${RUNTIME_DIRECTORY}/restart.sock
RuntimeDirectory=web
Restart=on-failure
Environment=RUST_LOG=info
UNIT
    cat; } | add_unit web.service
}

case_start() {
  install_unit restarter.service
  start restarter.service
  is ActiveState "$(show ActiveState)" active
  contains greeting "$(ask 7000)" "pid $(show MainPID) generation 0"
  is "what systemd warns of" "$(warnings)" ""
  # One process that the kernel ends for memory takes no other one with it.
  is OOMPolicy "$(in_box systemctl show --value -p OOMPolicy restarter)" continue
  in_box systemctl stop restarter
  is Result "$(show Result)" success
}

case_shipped_units_are_understood() {
  install_unit restarter.service restarter.socket socket-activation.service socket-activation-web.socket socket-activation-admin.socket
  local said
  said=$(in_box sh -c 'systemd-analyze verify --man=no restarter.service restarter.socket socket-activation.service 2>&1' || true)
  is "what systemd-analyze verify says" "$said" ""
}

# Twenty reloads while clients count what they lose.
load_and_reload() {
  local old new _ load
  start web.service
  old=$(show MainPID)
  in_box /srv/bin/zero_downtime load --to 127.0.0.1:8080 --connections 8 --seconds 600 >"$out/load" 2>&1 &
  load=$!
  for _ in $(seq 20); do
    sleep 0.1
    reload
    replaced "$old"
    await 20 "it takes over" takes_over /run/web/restart.sock
    new=$(show MainPID)
    old=$new
  done
  contains "the answer" "$(in_box /srv/bin/restarter status --socket /run/web/restart.sock)" "process $old, generation 20"
  # The clients let their last requests end.
  in_box pkill -INT -f 'zero_downtime [l]oad'
  wait "$load" || die "requests have failed: $(cat "$out/load")"
  tail -n 1 "$out/load"
  await 20 "the old processes end" processes_are 1
}

case_reload_under_load_by_socket() {
  web_service </dev/null
  load_and_reload
}

case_reload_under_load_by_signal() {
  web_service <<'UNIT'
ExecReload=
ExecReload=kill -USR1 $MAINPID
UNIT
  load_and_reload
}

case_notify_reload_under_load() {
  web_service <<'UNIT'
Type=notify-reload
ReloadSignal=SIGUSR1
ExecReload=
UNIT
  load_and_reload
}

case_notify_reload_by_the_drop_in() {
  install_unit restarter.service
  install_unit notify-reload.conf
  in_box sh -c 'cd /run/systemd/system; mkdir restarter.service.d; mv notify-reload.conf restarter.service.d'
  start restarter.service
  is Type "$(show Type)" notify-reload
  local old
  old=$(show MainPID)
  reload
  # It has waited for the end of the restart.
  property_is_not MainPID "$old" || die "reload has returned before the new main process"
  replaced "$old"
  contains greeting "$(ask 7000)" "pid $(show MainPID) generation 1"
}

# 200 restarts in a row, each asked for as soon as the one before has ended. systemd holds the same number of processes, descriptors of
# the service stay as they were, and no start limit is touched.
case_200_restarts_back_to_back() {
  install_unit restarter.service
  start restarter.service
  local before after
  before=$(in_box sh -c 'ls "/proc/$1/fd" | wc -l' - "$(show MainPID)")
  in_box sh -euc 'for i in $(seq 200); do /srv/bin/restarter restart --socket /run/restarter/restart.sock >/dev/null; done'
  contains greeting "$(ask 7000)" "pid $(show MainPID) generation 200"
  expect_untouched "$(show MainPID)"
  await 20 "the old processes end" processes_are 1
  after=$(in_box sh -c 'ls "/proc/$1/fd" | wc -l' - "$(show MainPID)")
  # A successor has its line to the predecessor, and the pidfd of that.
  [ "$after" -le $((before + 2)) ] || die "$before descriptors were open in the first process, and $after in the last"
}

# The unit does not become active with the new process before it is ready, and tells how far that is.
case_progress_is_the_status() {
  install_unit socket-activation.service socket-activation-web.socket socket-activation-admin.socket
  start socket-activation.service
  in_box mkfifo -m 644 /srv/go
  release socket_activation <<'RELEASE'
#!/bin/sh
read -r _ </srv/go
exec /opt/pollflip/socket_activation "$@"
RELEASE
  local old
  old=$(show MainPID)
  in_box systemctl reload --no-block socket-activation
  await 20 "the unit is reloading" reloads
  await 20 "the status" property_is StatusText restarting
  is MainPID "$(show MainPID)" "$old"
  in_box sh -c 'echo >/srv/go'
  replaced "$old"
  is StatusText "$(show StatusText)" ""
}

# A successor that needs longer than TimeoutStartSec is given the time of its ready timeout.
case_a_slow_successor_is_waited_for() {
  install_unit restarter.service
  add_unit restarter.service.d/short.conf <<'UNIT'
[Service]
TimeoutStartSec=2
UNIT
  start restarter.service
  release restarter <<'RELEASE'
#!/bin/sh
[ "$1" = restart ] || sleep 5
exec /opt/pollflip/restarter "$@"
RELEASE
  local old
  old=$(show MainPID)
  reload || die "reload: exit status $?, $(show StatusText)"
  replaced "$old"
}

# The watchdog waits for the successor as it did for the old process, which the successor must be able to see.
case_the_watchdog_is_the_successors_too() {
  web_service <<<'WatchdogSec=60'
  start web.service
  local old environment
  old=$(show MainPID)
  reload
  replaced "$old"
  environment=$(in_box sh -c 'tr "\0" "\n" <"/proc/$1/environ" | grep WATCHDOG' - "$(show MainPID)")
  is "what the successor knows of the watchdog" "$environment" WATCHDOG_USEC=60000000
}

# Each step with its number, the time and the pids, for whoever reads up on a restart; nothing of one that succeeds at the level of warnings.
case_the_journal_tells_of_each_step() {
  install_unit restarter.service
  add_unit restarter.service.d/log.conf <<<$'[Service]\nEnvironment=RUST_LOG=info'
  start restarter.service
  reload
  local new step
  new=$(show MainPID)
  for step in "starting /srv/bin/restarter" "process $new is getting ready" "process $new has taken over" "final, process $new serves"; do
    await 20 "the journal has '$step'" journal_matches "INFO +pollflip\] process [0-9]+, generation 0 → 1, restart 1 after [0-9.]+ ms: $step"
  done
  [[ $(journal) != *WARN* && $(journal) != *ERROR* ]] || die "there is something to warn of: $(journal)"
}

# The socket unit beside the service, which it is not needed for: the same listener over a restart and a crash.
case_the_socket_unit_of_the_service() {
  install_unit restarter.service restarter.socket
  add_unit restarter.service.d/socket.conf <<<$'[Unit]\nRequires=restarter.socket\nAfter=restarter.socket'
  start restarter.socket
  unit=restarter.service
  contains greeting "$(ask 7000)" "generation 0"
  local old
  old=$(show MainPID)
  reload
  replaced "$old"
  contains greeting "$(ask 7000)" "pid $(show MainPID) generation 1"
  in_box systemctl kill --kill-whom=main --signal=ABRT restarter
  contains "the answer to who came in between" "$(ask 7000)" "generation 0"
  is NRestarts "$(show NRestarts)" 1
}
