# shellcheck shell=bash
# Restarts that fail, and processes that end when they should not.

reload_fails() {
  if reload; then die "reload has succeeded"; fi
}

# expect_still_here OLD WHY: the old process serves on, and the status says why.
expect_still_here() {
  expect_untouched "$1"
  contains StatusText "$(show StatusText)" "$2"
  contains greeting "$(ask 7000)" "pid $1 generation 0"
  await 20 "nothing is left of the attempt" processes_are 1
}

# As a new version that does not work: `restart` is answered by the old one's own program.
failing_release() {
  { echo '#!/bin/sh'; echo '[ "$1" != restart ] || exec /opt/pollflip/restarter "$@"'; cat; } | release restarter
}

# As one that never gets ready.
hanging_release() {
  failing_release <<<'exec sleep 1000'
}

# Asks for a restart and waits until the successor, which hangs, is there. By then the command that sends the signal has been there;
# a unit that is stopped while it still is would be called failed for its end.
reload_to_one_that_hangs() {
  in_box systemctl reload --no-block restarter
  await 20 "the successor is there" runs 'sleep 1000'
  await 20 "the command that sends the signal ends" property_is ControlPID 0
}

# runs COMMAND: one of the unit's processes is that.
runs() {
  in_box sh -c '
    while read -r pid; do [ "$(cat "/proc/$pid/cmdline" 2>/dev/null | tr "\0" " ")" = "$2 " ] && exit 0; done <"/sys/fs/cgroup$1/cgroup.procs"
    exit 1' - "$(show ControlGroup)" "$1"
}

case_a_new_version_that_exits() {
  install_unit restarter.service
  start restarter.service
  failing_release <<<'exit 3'
  local old
  old=$(show MainPID)
  reload_fails
  expect_still_here "$old" "the successor exited with status 3 before it was ready"
  await 20 "the journal says why" journal_contains "exited with status 3"
  # And the one after it works.
  good_release restarter
  reload
  replaced "$old"
  is StatusText "$(show StatusText)" ""
}

case_a_new_version_that_crashes() {
  install_unit restarter.service
  start restarter.service
  failing_release <<<'kill -SEGV $$'
  local old
  old=$(show MainPID)
  reload_fails
  expect_still_here "$old" "was killed by SIGSEGV"
}

case_a_new_version_that_is_no_program() {
  install_unit restarter.service
  by_signal
  start restarter.service
  release restarter <<<'this is no program'
  local old
  old=$(show MainPID)
  reload
  await 20 "the status says why" property_contains StatusText "could not start /srv/bin/restarter"
  expect_still_here "$old" "could not start"
}

# By notify-reload it does not fail the reload: the service has answered, and serves on. The status says what happened.
case_notify_reload_to_a_new_version_that_exits() {
  install_unit restarter.service
  add_unit restarter.service.d/reload.conf <"$here/../../examples/systemd/notify-reload.conf"
  start restarter.service
  failing_release <<<'exit 3'
  local old
  old=$(show MainPID)
  reload || die "reload has failed with exit status $?"
  expect_still_here "$old" "exited with status 3"
}

# A signal that comes in vain is answered too: systemd waits for that, and would call the reload timed out.
case_notify_reload_that_is_refused() {
  install_unit restarter.service
  add_unit restarter.service.d/reload.conf <"$here/../../examples/systemd/notify-reload.conf"
  add_unit restarter.service.d/short.conf <<'UNIT'
[Service]
TimeoutStartSec=10
UNIT
  start restarter.service
  # More generations than may be at work, each with a client.
  in_box timeout 120 bash -c '
    for number in $(seq 51); do
      exec {connection}<>/dev/tcp/127.0.0.1/7000; read -r _ <&"$connection"
      /srv/bin/restarter restart --socket /run/restarter/restart.sock >/dev/null || exit
    done
    touch /srv/many; until [ -e /srv/seen ]; do sleep 0.05; done' &
  local client=$! old
  await 60 "there are 52 generations" in_box test -e /srv/many
  old=$(show MainPID)
  reload || die "reload has failed with exit status $?"
  is MainPID "$(show MainPID)" "$old"
  contains "the status" "$(show StatusText)" "51 earlier generations still finish their work"
  in_box touch /srv/seen
  wait "$client"
}

# stopped: the unit ends soon, with all that was in it, and stays down.
stopped() {
  local begun=$SECONDS
  in_box systemctl stop restarter
  [ $((SECONDS - begun)) -lt 10 ] || die "the stop took $((SECONDS - begun)) s"
  is "the number of processes" "$(processes)" 0
  is NRestarts "$(show NRestarts)" 0
}

by_signal() {
  add_unit restarter.service.d/signal.conf <<'UNIT'
[Service]
ExecReload=
ExecReload=kill -USR1 $MAINPID
UNIT
}

case_stop_during_a_restart() {
  install_unit restarter.service
  by_signal
  start restarter.service
  stop_during_a_restart
}

# The same of a process that systemd has not started.
case_stop_during_a_second_restart() {
  install_unit restarter.service
  by_signal
  start restarter.service
  local old
  old=$(show MainPID)
  reload
  await 20 "a new main process" property_is_not MainPID "$old"
  replaced "$old"
  await 20 "the old process ends" processes_are 1
  stop_during_a_restart
}

stop_during_a_restart() {
  hanging_release
  reload_to_one_that_hangs
  await 20 "the unit is reloading" reloads
  stopped
  is ActiveState "$(show ActiveState)" inactive
  is Result "$(show Result)" success
}

# systemd ends the waiting command too, and calls the unit failed for it.
case_stop_while_a_reload_waits() {
  install_unit restarter.service
  start restarter.service
  hanging_release
  in_box systemctl reload --no-block restarter
  await 20 "the successor is there" runs 'sleep 1000'
  stopped
  is ActiveState "$(show ActiveState)" failed
  is "how the main process ended" "$(show ExecMainStatus)" 0
}

# The old process ends alone; what is started meanwhile does not outlive it.
case_the_old_process_is_told_to_stop_during_a_restart() {
  install_unit restarter.service
  by_signal
  start restarter.service
  hanging_release
  reload_to_one_that_hangs
  in_box systemctl kill --kill-whom=main --signal=TERM restarter
  await 20 "the unit ends" property_is ActiveState inactive
  is Result "$(show Result)" success
  is "the number of processes" "$(processes)" 0
}

# With a probation the old process is the main one until it is over, and serves again.
case_crash_right_after_ready_on_probation() {
  install_unit restarter.service
  add_unit restarter.service.d/probation.conf <<'UNIT'
[Service]
ExecStart=
ExecStart=/srv/bin/restarter --listen 127.0.0.1:7000 --socket ${RUNTIME_DIRECTORY}/restart.sock --probation 60
UNIT
  start restarter.service
  local old reload new
  old=$(show MainPID)
  reload &
  reload=$!
  await 20 "the successor serves" serves_generation 1
  new=$(ask 7000)
  new=${new#pid }
  is MainPID "$(show MainPID)" "$old"
  in_box kill -ABRT "${new%% *}"
  if wait "$reload"; then die "reload has succeeded"; fi
  expect_still_here "$old" "the successor was killed by SIGABRT on probation"
}

case_probation_that_is_passed() {
  install_unit restarter.service
  add_unit restarter.service.d/probation.conf <<'UNIT'
[Service]
ExecStart=
ExecStart=/srv/bin/restarter --listen 127.0.0.1:7000 --socket ${RUNTIME_DIRECTORY}/restart.sock --probation 1
UNIT
  start restarter.service
  local old
  old=$(show MainPID)
  reload
  replaced "$old"
  contains greeting "$(ask 7000)" "pid $(show MainPID) generation 1"
}

# The old process is killed while its successor starts: systemd has nothing but the rest of a unit, and starts it afresh.
case_the_old_process_is_killed_during_a_restart() {
  install_unit restarter.service
  by_signal
  start restarter.service
  hanging_release
  reload_to_one_that_hangs
  good_release restarter
  in_box systemctl kill --kill-whom=main --signal=KILL restarter
  await 20 "it is started again" property_is NRestarts 1
  await 20 "the unit is active" property_is ActiveState active
  contains greeting "$(ask 7000)" "pid $(show MainPID) generation 0"
  await 20 "nothing is left of the attempt" processes_are 1
}

case_a_crash_is_restarted_by_systemd() {
  install_unit restarter.service
  start restarter.service
  reload
  in_box systemctl kill --kill-whom=main --signal=ABRT restarter
  await 20 "it is started again" property_is NRestarts 1
  await 20 "the unit is active" property_is ActiveState active
  contains greeting "$(ask 7000)" "pid $(show MainPID) generation 0"
}

on_probation() {
  install_unit restarter.service
  add_unit restarter.service.d/probation.conf <<'UNIT'
[Service]
ExecReload=
ExecReload=kill -USR1 $MAINPID
ExecStart=
ExecStart=/srv/bin/restarter --listen 127.0.0.1:7000 --socket ${RUNTIME_DIRECTORY}/restart.sock --probation 60
UNIT
  add_unit restarter.service.d/more.conf
  start restarter.service
  in_box systemctl reload --no-block restarter
  await 20 "the successor serves" serves_generation 1
  await 20 "the command that sends the signal ends" property_is ControlPID 0
}

serves_generation() {
  [[ $(ask 7000) == *"generation $1" ]]
}

# The successor of that generation, or a first process that systemd has started since it had started so many.
serves_after() {
  serves_generation $(($1 + 1)) || { property_is NRestarts $(($2 + 1)) && serves_generation 0; }
}

# systemd does not know the successor yet: for it the service has crashed, and is started again.
case_the_old_process_is_killed_on_probation() {
  on_probation </dev/null
  in_box systemctl kill --kill-whom=main --signal=KILL restarter
  await 20 "it is started again" property_is NRestarts 1
  await 20 "the unit is active" property_is ActiveState active
  contains greeting "$(ask 7000)" "pid $(show MainPID) generation 0"
  await 20 "nothing is left of the attempt" processes_are 1
}

# A unit that lives as long as one of its processes, and listens to each: the successor can name itself. Which of the two systemd hears of
# first, that or the end of its main process, is chance: after the end it ends the unit as well. It serves in both cases, by the successor
# or afresh. And it may have taken in the successor and still remember the end: then it ends the unit at the next restart.
case_the_old_process_is_killed_on_probation_with_exit_type_cgroup() {
  on_probation <<'UNIT'
[Service]
ExitType=cgroup
NotifyAccess=all
UNIT
  local old answer generation restarts
  old=$(show MainPID)
  in_box systemctl kill --kill-whom=main --signal=KILL restarter
  await 20 "a new main process" property_is_not MainPID "$old"
  await 20 "the unit is active" property_is ActiveState active
  answer=$(ask 7000)
  generation=${answer##* }
  is "the answer" "$answer" "pid $(show MainPID) generation $generation"
  # Either the successor of that restart, or the first process after a start by systemd.
  restarts=$(show NRestarts)
  is "restarts by systemd and generation" "$restarts $generation" "$((1 - generation)) $generation"
  in_box systemctl reload --no-block restarter
  await 20 "the next one serves" serves_after "$generation" "$restarts"
}

# What a deploy script goes by.
case_exit_statuses_of_the_restart_command() {
  install_unit restarter.service
  start restarter.service
  local socket="--socket /run/restarter/restart.sock" text
  # status_of WANTED ARGUMENTS…
  status_of() {
    local wanted=$1 status=0
    shift
    text=$(in_box /opt/pollflip/restarter "$@" 2>&1) || status=$?
    is "the exit status of 'restarter $*' ($text)" "$status" "$wanted"
  }
  # shellcheck disable=SC2086
  {
    status_of 0 restart $socket
    # Progress goes to standard error, and comes before it.
    is "the last that it prints" "${text##*$'\n'}" "$(show MainPID)"
    status_of 64 restart --nonsense
    status_of 3 restart --socket /run/restarter/nobody.sock
    failing_release <<<'exit 3'
    status_of 1 restart $socket
    contains "what it prints" "$text" "exited with status 3"
    status_of 0 status $socket
    contains "the status" "$text" "exited with status 3"
    hanging_release
    status_of 4 restart $socket --wait 0.5
    status_of 2 restart $socket
    contains "what it prints" "$text" "under way"
  }
}
