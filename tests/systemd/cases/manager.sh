# shellcheck shell=bash
# A systemd that reads its units again, or executes itself again, in the middle of a restart.

# slow_release LAST: a new version that says that it is there, and waits until it is told to go on; then LAST. It is the program itself
# for all else.
slow_release() {
  in_box mkfifo -m 644 /srv/go
  { echo '#!/bin/sh'
    echo '[ "$1" != restart ] && [ "$1" != status ] || exec /opt/pollflip/restarter "$@"'
    echo 'touch /run/restarter/here; read -r _ </srv/go'
    echo "$1"; } | release restarter
}

# begun BY: a restart is under way, asked for by the socket or by a signal, and its successor waits.
begun() {
  slow_release "$2"
  if [ "$1" = signal ]; then
    in_box kill -USR1 "$(show MainPID)"
  else
    in_box /opt/pollflip/restarter restart --socket /run/restarter/restart.sock >"$out/asked" 2>&1 &
    asked=$!
  fi
  await 20 "the successor waits" in_box test -e /run/restarter/here
  await 20 "the status" property_is StatusText restarting
}

# in_the_middle COMMAND: systemctl COMMAND in the middle of a restart that succeeds, of one that fails, and of one whose successor is killed.
in_the_middle() {
  local by how old pid asked status
  for by in socket signal; do
    for how in succeeds fails killed; do
      clean_up
      install_unit restarter.service
      start restarter.service
      old=$(show MainPID)
      if [ $how = succeeds ]; then begun $by 'exec /opt/pollflip/restarter "$@"'; else begun $by 'exit 3'; fi
      in_box systemctl "$1"
      await 20 "systemd answers" in_box systemctl is-active --quiet basic.target
      is MainPID "$(show MainPID)" "$old"
      contains greeting "$(ask 7000)" "pid $old generation 0"
      if [ $how = killed ]; then
        pid=$(in_box sh -c 'grep -vx "$2" "/sys/fs/cgroup$1/cgroup.procs" | head -n 1' - "$(show ControlGroup)" "$old")
        in_box kill -KILL "$pid"
      else
        in_box sh -c 'echo >/srv/go'
      fi
      status=0
      [ $by = signal ] || wait "$asked" || status=$?
      case $how in
        succeeds)
          is "the exit status of restart" $status 0
          replaced "$old"
          await 20 "it takes over" takes_over /run/restarter/restart.sock
          old=$(show MainPID)
          contains greeting "$(ask 7000)" "pid $old generation 1"
          ;;
        fails) expect_attempt_failed "$old" "exited with status 3 before it was ready" ;;
        killed) expect_attempt_failed "$old" "was killed by SIGKILL before it was ready" ;;
      esac
      # And the next one works.
      good_release restarter
      in_box /opt/pollflip/restarter restart --socket /run/restarter/restart.sock >/dev/null
      replaced "$old"
      await 20 "nothing is left of the attempts" processes_are 1
    done
  done
}

# expect_attempt_failed OLD WHY: the one who asked and the status have the reason, and the old process serves.
expect_attempt_failed() {
  if [ "$by" = socket ]; then
    is "the exit status of restart" "$status" 1
    contains "what it prints" "$(cat "$out/asked")" "$2"
  fi
  await 20 "the status says why" property_contains StatusText "$2"
  expect_untouched "$1"
  contains greeting "$(ask 7000)" "pid $1 generation 0"
}

case_daemon_reload_in_the_middle_of_restarts() {
  in_the_middle daemon-reload
}

case_daemon_reexec_in_the_middle_of_restarts() {
  in_the_middle daemon-reexec
}

# A waiting `systemctl reload` may fail by that although the restart does not: a deploy asks for the status before it puts the old file back.
case_daemon_reexec_while_a_reload_waits() {
  install_unit restarter.service
  start restarter.service
  local old status=0 reloading
  old=$(show MainPID)
  slow_release 'exec /opt/pollflip/restarter "$@"'
  reload >"$out/reload" 2>&1 &
  reloading=$!
  await 20 "the successor waits" in_box test -e /run/restarter/here
  in_box systemctl daemon-reexec
  await 20 "systemd answers" in_box systemctl is-active --quiet basic.target
  in_box sh -c 'echo >/srv/go'
  wait "$reloading" || status=$?
  echo "systemctl reload: exit status $status"
  replaced "$old"
  await 20 "it takes over" takes_over /run/restarter/restart.sock
  contains "the answer" "$(in_box /opt/pollflip/restarter status --socket /run/restarter/restart.sock)" "process $(show MainPID), generation 1"
}
