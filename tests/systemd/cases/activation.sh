# shellcheck shell=bash
# Sockets of systemd.

two_sockets() {
  install_unit socket-activation.service socket-activation-web.socket socket-activation-admin.socket
  [ ! -t 0 ] && add_unit socket-activation.service.d/more.conf
  in_box systemctl daemon-reload
  in_box systemctl start socket-activation-web.socket socket-activation-admin.socket
  unit=socket-activation.service
}

# Both sockets answer, each under its own name, from the main process and in this generation.
expect_both() {
  is web "$(ask 8001)" "web pid $(show MainPID) generation $1"
  is admin "$(ask 8002)" "admin pid $(show MainPID) generation $1"
}

# restarts: once, and the next one may come: until the old process has ended, it may not have said so.
restarts() {
  local old
  old=$(show MainPID)
  reload
  replaced "$old"
  await 20 "the old process ends" processes_are 1
}

# The sockets of the service are those that systemd holds, and no others.
expect_those_of_systemd() {
  local there
  there=$(in_box sh -c 'cat /proc/net/tcp' | awk '$4 == "0A" && $2 ~ /:(1F41|1F42)$/' | wc -l)
  is "the number of listening sockets" "$there" 2
}

case_socket_activation_by_name() {
  two_sockets </dev/null
  property_is ActiveState inactive || die "it runs before anybody connects"
  # The first who connects waits until it serves.
  contains admin "$(ask 8002)" "admin pid"
  expect_both 0
  local generation
  for generation in 1 2 3; do
    restarts
    expect_both "$generation"
  done
  expect_those_of_systemd
  # That it says at each reload; examples/systemd/restarter.service tells what it means.
  is "what systemd warns of" "$(warnings | grep -cE ': Supervising process [0-9]+ which is not our child\.')" 3
  is "what else it warns of" "$(warnings | grep -vE ': Supervising process [0-9]+ which is not our child\.')" ""
}

# By number, in the order of one socket unit; the library reads LISTEN_PID, which a predecessor cannot know.
case_socket_activation_by_listenfd() {
  install_unit socket-activation.service
  add_unit socket-activation.service.d/one.conf <<'UNIT'
[Unit]
Requires=socket-activation.socket
[Service]
Sockets=
Sockets=socket-activation.socket
ExecStart=
ExecStart=/srv/bin/socket_activation --listenfd
UNIT
  in_box sed -i '/^Requires\|^After\|^Sockets/d' /run/systemd/system/socket-activation.service
  add_unit socket-activation.socket <<'UNIT'
[Socket]
ListenStream=127.0.0.1:8001
ListenStream=127.0.0.1:8002
UNIT
  in_box systemctl daemon-reload
  in_box systemctl start socket-activation.socket
  unit=socket-activation.service
  contains web "$(ask 8001)" "web pid"
  expect_both 0
  local generation
  for generation in 1 2 3; do
    restarts
    expect_both "$generation"
  done
  is LISTEN_FDNAMES "$(listen_names)" LISTEN_FDNAMES=socket-activation.socket:socket-activation.socket
  expect_those_of_systemd
}

# Of two socket units, in an order that is systemd's affair: names and numbers stay what they are.
case_socket_activation_by_listenfd_from_two_units() {
  two_sockets <<'UNIT'
[Service]
ExecStart=
ExecStart=/srv/bin/socket_activation --listenfd
UNIT
  local first second names generation
  first=$(ask 8001)
  second=$(ask 8002)
  contains "the answers" "$first, $second" web
  contains "the answers" "$first, $second" admin
  names=$(listen_names)
  contains LISTEN_FDNAMES "$names" web
  contains LISTEN_FDNAMES "$names" admin
  for generation in 1 2 3; do
    restarts
    is "the answer of the one socket" "$(ask 8001)" "${first%% *} pid $(show MainPID) generation $generation"
    is "the answer of the other" "$(ask 8002)" "${second%% *} pid $(show MainPID) generation $generation"
    is LISTEN_FDNAMES "$(listen_names)" "$names"
  done
  expect_those_of_systemd
}

listen_names() {
  in_box sh -c 'tr "\0" "\n" </proc/$1/environ | grep LISTEN_FDNAMES' - "$(show MainPID)"
}

# After restarts, in which the sockets went from process to process, a crash: the next one gets them from systemd again. Who connects
# meanwhile waits.
case_sockets_come_back_after_a_crash() {
  two_sockets <<'UNIT'
[Service]
RestartSec=1
UNIT
  ask 8001 >/dev/null
  local old
  old=$(show MainPID)
  reload
  replaced "$old"
  in_box systemctl kill --kill-whom=main --signal=ABRT "$unit"
  contains "the answer to who came in between" "$(ask 8001)" "generation 0"
  is NRestarts "$(show NRestarts)" 1
  expect_both 0
  old=$(show MainPID)
  reload
  await 20 "a new main process" property_is_not MainPID "$old"
  await 20 "the unit is active" property_is ActiveState active
  expect_both 1
}

# Of two addresses under one name each is found by its address.
case_two_sockets_of_one_name() {
  two_sockets </dev/null
  in_box sed -i 's/FileDescriptorName=.*/FileDescriptorName=web/' /run/systemd/system/socket-activation-admin.socket
  add_unit socket-activation.service.d/more.conf <<'UNIT'
[Service]
ExecStart=
ExecStart=/srv/bin/socket_activation --web 127.0.0.1:8002 --admin 127.0.0.1:9002
UNIT
  in_box systemctl stop socket-activation-admin.socket socket-activation-web.socket
  in_box systemctl daemon-reload
  in_box systemctl start socket-activation-admin.socket socket-activation-web.socket
  start "$unit"
  is web "$(ask 8002)" "web pid $(show MainPID) generation 0"
  is admin "$(ask 9002)" "admin pid $(show MainPID) generation 0"
  local old
  old=$(show MainPID)
  reload
  replaced "$old"
  is web "$(ask 8002)" "web pid $(show MainPID) generation 1"
}

# started_with ASSIGNMENTS…: one service whose environment is changed on the way, as a wrapper might.
started_with() {
  two_sockets <<UNIT
[Service]
Environment=RUST_LOG=info
ExecStart=
ExecStart=/bin/sh -c '$* exec /srv/bin/socket_activation --web 127.0.0.1:9001 --admin 127.0.0.1:9002'
UNIT
  start "$unit"
}

# It serves at its own addresses, in this generation and the next.
expect_own_sockets() {
  local old
  is web "$(ask 9001)" "web pid $(show MainPID) generation 0"
  old=$(show MainPID)
  reload
  replaced "$old"
  is web "$(ask 9001)" "web pid $(show MainPID) generation 1"
  is admin "$(ask 9002)" "admin pid $(show MainPID) generation 1"
}

case_listen_fds_without_names() {
  started_with 'unset LISTEN_FDNAMES; export LISTEN_PID=$$$$;'
  expect_own_sockets
  await 20 "the journal says so" journal_contains 'socket "unknown" was inherited and is not used any more: closed'
}

case_listen_fds_of_one_name_twice() {
  started_with 'export LISTEN_FDNAMES=x:x;'
  expect_own_sockets
  await 20 "the journal says so" journal_contains 'socket "x" was inherited and is not used any more: closed'
}

case_listen_fds_more_than_are_open() {
  started_with 'export LISTEN_FDS=9 LISTEN_FDNAMES=x:x;'
  expect_own_sockets
  await 20 "the journal says so" journal_contains "LISTEN_FDS=9, but descriptor 5 "
}

case_listen_fds_of_garbage() {
  started_with 'export LISTEN_FDS=many LISTEN_FDNAMES=::::;'
  expect_own_sockets
}

case_listen_fds_for_another_process() {
  started_with 'export LISTEN_PID=1;'
  expect_own_sockets
}
