# shellcheck shell=bash
# Units and environments in which systemd does not listen.

# other_unit: a service of the type that is the default, in which nobody listens. More settings from standard input.
other_unit() {
  { cat <<'UNIT'
[Service]
ExecStart=/srv/bin/socket_activation --socket ${RUNTIME_DIRECTORY}/restart.sock
ExecReload=/srv/bin/restarter restart --socket ${RUNTIME_DIRECTORY}/restart.sock
RuntimeDirectory=other
UNIT
    cat; } | add_unit other.service
  start other.service
  # Of such a type it counts as started before it serves.
  await 20 "it serves" serves
}

serves() {
  [[ $(ask 8001 2>/dev/null) == "web pid "* ]]
}

# refuses_and_serves_on WHY: a restart would be the end of the service, so that none is begun, by whatever way it is asked for.
refuses_and_serves_on() {
  local old text status=0
  old=$(show MainPID)
  text=$(in_box /srv/bin/restarter restart --socket /run/other/restart.sock 2>&1) || status=$?
  is "the exit status of restart" "$status" 5
  contains "what it prints" "$text" "$1"
  in_box kill -USR1 "$old"
  await 20 "the journal says that it is in vain" journal_contains "the restart signal does nothing: $1"
  is web "$(ask 8001)" "web pid $old generation 0"
  expect_untouched "$old"
  is "the number of processes" "$(processes)" 1
}

# It cannot be seen from inside that a unit says NotifyAccess=none in so many words, but that there is nobody to notify.
case_no_notify_access() {
  other_unit <<<''
  await 20 "a warning that names the setting" journal_contains NotifyAccess=main
  refuses_and_serves_on "systemd takes no notifications from this service"
}

case_notify_access_none() {
  other_unit <<<'NotifyAccess=none'
  await 20 "a warning that names the setting" journal_contains NotifyAccess=main
  refuses_and_serves_on "systemd takes no notifications from this service"
}

# With nothing but a wrong address it is the same.
case_notify_socket_of_garbage_without_a_pid_file() {
  other_unit <<'UNIT'
ExecStart=
ExecStart=/usr/bin/env NOTIFY_SOCKET=garbage /srv/bin/socket_activation --socket ${RUNTIME_DIRECTORY}/restart.sock
UNIT
  await 20 "a warning that names the address" journal_contains garbage
  refuses_and_serves_on "systemd takes no notifications from this service"
}

# Type=notify makes it NotifyAccess=main.
case_type_notify_without_notify_access() {
  other_unit <<<'Type=notify'
  local old
  old=$(show MainPID)
  reload
  replaced "$old"
  [[ $(journal) != *NotifyAccess* ]] || die "a warning: $(journal)"
}

# A pid file names the new main process too, and systemd reads it when the old one has ended.
case_a_pid_file_in_the_place_of_notify_access() {
  other_unit <<'UNIT'
Type=exec
PIDFile=/run/other/pid
ExecStart=
ExecStart=/srv/bin/socket_activation --socket ${RUNTIME_DIRECTORY}/restart.sock --pid-file ${RUNTIME_DIRECTORY}/pid
UNIT
  local old _
  for _ in 1 2 3; do
    old=$(show MainPID)
    reload
    replaced "$old"
    contains web "$(ask 8001)" "web pid $(show MainPID)"
  done
}

# The service is there as long as one of its processes is (250), which cannot be seen from inside, and so is no remedy by itself.
case_exit_type_cgroup_in_the_place_of_notify_access() {
  other_unit <<<'ExitType=cgroup'
  refuses_and_serves_on "systemd takes no notifications from this service"
}

case_exit_type_cgroup_with_notify_access() {
  other_unit <<UNIT
ExitType=cgroup
NotifyAccess=main
$(exec_stop)
UNIT
  local old
  old=$(show MainPID)
  reload
  replaced "$old"
  is web "$(ask 8001)" "web pid $(show MainPID) generation 1"
  await 20 "the old process ends" processes_are 1
  in_box systemctl stop other
  is Result "$(show Result)" success
}

# The messages of a process that systemd does not know are thrown away, and it is started in vain.
case_a_wrapper_that_does_not_exec() {
  other_unit <<'UNIT'
Type=exec
NotifyAccess=main
ExecStart=
ExecStart=/bin/sh -c '/srv/bin/socket_activation --socket "$RUNTIME_DIRECTORY/restart.sock"; exit'
UNIT
  await 20 "a warning that names the setting" journal_contains NotifyAccess=all
}

# notify_socket ADDRESS: serves on, over restarts, where the address leads nowhere. systemd is told by the pid file instead.
notify_socket() {
  other_unit <<UNIT
Type=exec
PIDFile=/run/other/pid
ExecStart=
ExecStart=/usr/bin/env NOTIFY_SOCKET=$1 /srv/bin/socket_activation --socket \${RUNTIME_DIRECTORY}/restart.sock --pid-file \${RUNTIME_DIRECTORY}/pid
UNIT
  local old
  await 20 "a warning that names the address" journal_contains "$1"
  old=$(show MainPID)
  reload
  replaced "$old"
  is web "$(ask 8001)" "web pid $(show MainPID) generation 1"
}

case_notify_socket_of_garbage() { notify_socket garbage; }

case_notify_socket_that_is_gone() { notify_socket /run/gone/notify; }

case_notify_socket_of_garbage_abstract() { notify_socket @nobody/is/here; }

case_notify_socket_too_long() { notify_socket "/$(printf 'x%.0s' $(seq 200))"; }

# Numbers of a PID namespace of its own mean other processes to systemd, which would take one of those for the main one, and stop that.
case_a_pid_namespace_of_its_own() {
  other_unit <<'UNIT'
Type=notify
NotifyAccess=all
ExecStart=
ExecStart=/usr/bin/unshare --pid --fork --kill-child --mount-proc sh -c '/srv/bin/socket_activation --socket ${RUNTIME_DIRECTORY}/restart.sock & exec sleep 100000'
UNIT
  await 20 "a warning that says why" journal_contains "in another PID namespace than systemd"
  local old text status=0
  old=$(show MainPID)
  text=$(in_box /srv/bin/restarter restart --socket /run/other/restart.sock 2>&1) || status=$?
  is "the exit status of restart" "$status" 5
  contains "what it prints" "$text" "in another PID namespace than systemd"
  expect_untouched "$old"
  contains web "$(ask 8001)" "generation 0"
}
