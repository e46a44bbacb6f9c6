# shellcheck shell=bash
# What the cases are written with. Every wait has a limit.

# The version of systemd, which `run` sets.
: "${version:=}"
# The unit that `show` and `journal` look at, and when the case began.
unit=
since=

die() {
  echo "FAILED: $*"
  exit 1
}

# await SECONDS WHAT COMMAND…: until the command succeeds.
await() {
  local limit=$1 what=$2 deadline
  shift 2
  deadline=$((SECONDS + limit))
  until "$@"; do
    [ $SECONDS -lt $deadline ] || die "not within $limit s: $what ($*)"
    sleep 0.05
  done
}

# is WHAT FOUND WANTED
is() {
  [ "$2" = "$3" ] || die "$1 is '$2', and should be '$3'"
}

# contains WHAT TEXT PART
contains() {
  [[ $2 == *"$3"* ]] || die "$1 does not contain '$3': $2"
}

show() {
  in_box systemctl show --value -p "$1" "$unit"
}

property_is() {
  [ "$(show "$1")" = "$2" ]
}

property_contains() {
  [[ $(show "$1") == *"$2"* ]]
}

# A restart has begun. Versions after 257 may show the unit as active all the same, if it was asked for by ExecReload=.
reloads() {
  property_is StatusText restarting && { [ "$version" -gt 257 ] || property_is ActiveState reloading; }
}

property_is_not() {
  [ "$(show "$1")" != "$2" ]
}

journal() {
  in_box journalctl --quiet --no-pager -o cat --since "@$since" -u "$unit"
}

journal_contains() {
  [[ $(journal) == *"$1"* ]]
}

journal_matches() {
  journal | grep -qE "$1"
}

# install_unit FILE…: units of examples/systemd, as they are but for the place of the programs.
install_unit() {
  local file
  for file in "$@"; do
    sed 's,/usr/local/bin/,/srv/bin/,' "$here/../../examples/systemd/$file" | in_box tee "/run/systemd/system/$file" >/dev/null
  done
}

# add_unit NAME: a unit or, with a slash in it, a drop-in, from standard input.
add_unit() {
  in_box mkdir -p "$(dirname "/run/systemd/system/$1")"
  in_box tee "/run/systemd/system/$1" >/dev/null
}

# The line of the shipped unit without which systemd kills a service that was reloaded in the place of stopping it.
exec_stop() {
  grep '^ExecStop=' "$here/../../examples/systemd/restarter.service"
}

# warnings: what systemd itself has warned of in this case.
warnings() {
  in_box journalctl --sync
  in_box journalctl --quiet --no-pager -o cat --since "@$since" -p warning _PID=1
}

# release NAME: what stands at /srv/bin/NAME from now on, from standard input; by rename, as a deploy does it.
release() {
  in_box sh -euc 'cat >"/srv/bin/.$1.new"; chmod 755 "/srv/bin/.$1.new"; mv "/srv/bin/.$1.new" "/srv/bin/$1"' - "$1"
}

# The program itself again.
good_release() {
  in_box ln -sfn "/opt/pollflip/$1" "/srv/bin/$1"
}

start() {
  unit=$1
  in_box systemctl daemon-reload
  in_box systemctl start "$unit"
}

reload() {
  in_box systemctl reload "$unit"
}

# ask PORT: what the service answers with on a new connection: one line.
ask() {
  in_box timeout 20 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1" && IFS= read -r line <&3 && echo "$line"' - "$1"
}

# The number of processes in the unit.
processes() {
  local group
  group=$(show ControlGroup)
  # It has none when it has ended.
  [ -n "$group" ] || { echo 0; return; }
  in_box sh -c 'cat "/sys/fs/cgroup$1/cgroup.procs" 2>/dev/null | wc -l' - "$group"
}

processes_are() {
  [ "$(processes)" = "$1" ]
}

# expect_untouched PID: the unit has not noticed anything: active, that main process, never restarted by systemd.
expect_untouched() {
  await 10 "the unit settles" property_is ActiveState active
  is MainPID "$(show MainPID)" "$1"
  is NRestarts "$(show NRestarts)" 0
}

# replaced OLD: a successor is the main process of an active unit that systemd has never restarted.
replaced() {
  await 20 "a new main process" property_is_not MainPID "$1"
  await 20 "the unit is active" property_is ActiveState active
  is NRestarts "$(show NRestarts)" 0
  in_box test -d "/proc/$(show MainPID)" || die "the main process $(show MainPID) is not there"
}

# takes_over SOCKET: the process that answers there is the main process, which has heard by then that it may restart in its turn.
takes_over() {
  in_box /srv/bin/restarter status --socket "$1" | grep -q "process $(show MainPID),"
}

# Between two cases: nothing of the one before.
clean_up() {
  in_box sh -c '
    cd /run/systemd/system
    units=$(ls | grep -E "\.(service|socket)$")
    [ -z "$units" ] || systemctl kill --signal=KILL $units 2>/dev/null
    [ -z "$units" ] || timeout 20 systemctl stop $units 2>/dev/null
    [ -z "$units" ] || systemctl reset-failed $units 2>/dev/null
    rm -rf /run/systemd/system/*
    rm -rf /srv; mkdir -p /srv/bin
    systemctl daemon-reload
    # What it has said is before what is said from now on.
    journalctl --sync'
  since=$EPOCHREALTIME
  local program
  for program in restarter zero_downtime socket_activation; do good_release "$program"; done
}
