# shellcheck shell=bash
# A unit with a limit of memory, where the kernel ends one of its processes: the other one serves, and systemd leaves it alone.

# limited: the shipped unit with so little memory that one process which wants more is ended. Fails where the box is given no memory to limit,
# which is said.
limited() {
  if ! in_box grep -qw memory /sys/fs/cgroup/cgroup.controllers; then
    echo "skipped: this machine limits the memory of no control group of version 2"
    return 1
  fi
  install_unit restarter.service
  add_unit restarter.service.d/memory.conf <<'UNIT'
[Service]
MemoryMax=60M
MemorySwapMax=0
UNIT
  start restarter.service
}

# connect: a client that wants one more answer when it is told so by /srv/more.
connect() {
  in_box mkfifo -m 600 /srv/more
  in_box timeout 60 bash -c '
    exec 3<>/dev/tcp/127.0.0.1/7000; IFS= read -r line <&3; echo "$line" >/srv/greeting
    read -r _ </srv/more
    echo still here >&3; IFS= read -r line <&3; [ "$line" = "still here" ]' &
  client=$!
  await 20 "the client is connected" in_box test -s /srv/greeting
}

answered() {
  in_box sh -c 'echo >/srv/more'
  wait "$client" || die "the connection was cut off"
}

# systemd has noticed N times that a process was ended for memory.
noticed() {
  [ "$(journal | grep -c 'OOM killer')" -ge "$1" ]
}

case_memory_that_a_new_version_takes() {
  limited || return 0
  local old client text status
  old=$(show MainPID)
  connect
  failing_release <<<'exec tail /dev/zero'
  status=0
  text=$(in_box /opt/pollflip/restarter restart --socket /run/restarter/restart.sock 2>&1) || status=$?
  is "the exit status of restart" "$status" 1
  contains "what it prints" "$text" "was killed by the kernel because memory was short"
  await 20 "systemd notices" noticed 1
  await 20 "nothing is left of the attempt" processes_are 1
  expect_untouched "$old"
  contains "the status" "$(in_box /opt/pollflip/restarter status --socket /run/restarter/restart.sock)" "because memory was short"
  contains greeting "$(ask 7000)" "pid $old generation 0"
  answered
  # And the next one works.
  good_release restarter
  in_box /opt/pollflip/restarter restart --socket /run/restarter/restart.sock >/dev/null
  replaced "$old"
}

# An old process that still drains is ended, and whatever took the memory.
case_memory_that_an_old_process_is_ended_for() {
  limited || return 0
  local old new client
  old=$(show MainPID)
  connect
  in_box /opt/pollflip/restarter restart --socket /run/restarter/restart.sock >/dev/null
  replaced "$old"
  new=$(show MainPID)
  is "the number of processes" "$(processes)" 2
  # Both are as small. This is the one that the kernel ends first.
  in_box sh -c 'echo 1000 >"/proc/$1/oom_score_adj"' - "$old"
  in_box sh -c 'echo $$ >"/sys/fs/cgroup$1/cgroup.procs"; exec tail /dev/zero' - "$(show ControlGroup)" && die "there was memory for that"
  await 20 "the old process is ended" in_box sh -c '! kill -0 "$1" 2>/dev/null' - "$old"
  await 20 "systemd notices" noticed 1
  await 20 "one process is left" processes_are 1
  expect_untouched "$new"
  contains greeting "$(ask 7000)" "pid $new generation 1"
  in_box sh -c 'echo >/srv/more'
  wait "$client" && die "the client of the old process has got an answer"
  # And the next one works.
  in_box /opt/pollflip/restarter restart --socket /run/restarter/restart.sock >/dev/null
  replaced "$new"
}
