# shellcheck shell=bash
# Stops, and what is still being done then.

# talks NAME: a connection of that name to the service, whose process it stays with for some seconds after the unit has begun to stop, and
# then wants an answer.
talks() {
  in_box timeout 60 bash -c '
    exec 3<>/dev/tcp/127.0.0.1/7000; IFS= read -r line <&3; echo "$line" >"/srv/$1.greeting"
    until [ "$(systemctl show --value -p ActiveState restarter)" = deactivating ]; do sleep 0.05; done
    sleep 8; echo still here >&3; IFS= read -r line <&3; [ "$line" = "still here" ]' - "$1" &
  await 20 "client $1 is connected" in_box test -s "/srv/$1.greeting"
}

# A drain takes longer than TimeoutStopSec, which is a limit for silence only.
silent_for_five_seconds() {
  add_unit restarter.service.d/short.conf <<'UNIT'
[Service]
TimeoutStopSec=5
UNIT
}

case_a_long_drain_is_waited_for() {
  install_unit restarter.service
  silent_for_five_seconds
  start restarter.service
  talks one
  local client=$!
  in_box systemctl stop restarter
  wait "$client" || die "the connection was cut off"
  is Result "$(show Result)" success
}

# The same in a process that systemd has not started, beside nothing and beside an older one that is still at work.
case_a_long_drain_after_reloads_is_waited_for() {
  install_unit restarter.service
  silent_for_five_seconds
  start restarter.service
  reload
  reload
  await 20 "the old processes end" processes_are 1
  talks one
  local client=$!
  in_box systemctl stop restarter
  wait "$client" || die "the connection was cut off"
  is Result "$(show Result)" success
  is "the number of processes" "$(processes)" 0
}

case_drains_of_two_generations_are_waited_for() {
  install_unit restarter.service
  silent_for_five_seconds
  start restarter.service
  talks old
  local old=$! new
  reload
  talks new
  new=$!
  contains "the greeting of the old process" "$(in_box cat /srv/old.greeting)" "generation 0"
  contains "the greeting of the new process" "$(in_box cat /srv/new.greeting)" "generation 1"
  in_box systemctl stop restarter
  wait "$old" || die "the connection of the old process was cut off"
  wait "$new" || die "the connection of the new process was cut off"
  is Result "$(show Result)" success
}

# systemd learns of it when the old process has ended as well, and starts the service afresh: also with Restart=on-failure.
case_a_crash_while_the_old_process_still_works() {
  install_unit restarter.service
  start restarter.service
  in_box timeout 60 bash -c '
    exec 3<>/dev/tcp/127.0.0.1/7000; read -r _ <&3; touch /srv/connected
    until [ -e /srv/crashed ]; do sleep 0.05; done
    echo still here >&3; read -r line <&3; [ "$line" = "still here" ]' &
  local client=$! new
  await 20 "the client is connected" in_box test -e /srv/connected
  reload
  new=$(show MainPID)
  in_box kill -ABRT "$new"
  await 20 "the journal says so" journal_contains "process $new, which had taken over, was killed by SIGABRT"
  in_box touch /srv/crashed
  wait "$client" || die "the connection was cut off"
  await 20 "it is started again" property_is NRestarts 1
  await 20 "the unit is active" property_is ActiveState active
  contains greeting "$(ask 7000)" "pid $(show MainPID) generation 0"
}

# A program that ends by itself while a restart is under way calls that one off. That the reload is over, and that the service ends, are two
# messages, and systemd goes by the last one.
case_a_stop_of_its_own_in_the_middle_of_a_reload_is_seen() {
  install_unit restarter.service
  start restarter.service
  local pid
  pid=$(show MainPID)
  in_box timeout 60 bash -c '
    exec 3<>/dev/tcp/127.0.0.1/7000; IFS= read -r _ <&3; touch /srv/connected
    until [ -e /srv/seen ]; do sleep 0.05; done' &
  local client=$!
  await 20 "the client is connected" in_box test -e /srv/connected
  printf '#!/bin/sh\nexec sleep 60\n' | release restarter
  in_box kill -USR1 "$pid"
  await 20 "the unit is reloading" reloads
  in_box kill -TERM "$pid"
  await 20 "the unit is deactivating" property_is ActiveState deactivating
  in_box touch /srv/seen
  wait "$client"
  await 20 "the unit has ended" property_is ActiveState inactive
  is Result "$(show Result)" success
}

# systemd does not listen to the new process before the commit.
case_a_stop_on_probation_is_seen_after_the_commit() {
  install_unit restarter.service
  add_unit restarter.service.d/probation.conf <<'UNIT'
[Service]
ExecStart=
ExecStart=/srv/bin/restarter --listen 127.0.0.1:7000 --socket ${RUNTIME_DIRECTORY}/restart.sock --probation 3
UNIT
  start restarter.service
  in_box kill -USR1 "$(show MainPID)"
  in_box timeout 60 bash -c '
    until exec 3<>/dev/tcp/127.0.0.1/7000; read -r _ pid _ generation <&3; [ "$generation" = 1 ]; do sleep 0.05; done
    echo "$pid" >/srv/new.tmp; mv /srv/new.tmp /srv/new
    until [ -e /srv/seen ]; do sleep 0.05; done' &
  local client=$! new
  await 20 "the new process serves" in_box test -e /srv/new
  new=$(in_box cat /srv/new)
  in_box kill -TERM "$new"
  await 20 "it is the main process" property_is MainPID "$new"
  await 20 "the unit is deactivating" property_is ActiveState deactivating
  in_box touch /srv/seen
  wait "$client"
  await 20 "the unit has ended" property_is ActiveState inactive
}
