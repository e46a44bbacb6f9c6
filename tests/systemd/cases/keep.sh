# shellcheck shell=bash
# A service that is killed, and comes back with its connections: the drop-in of examples/systemd, as it is.

# keep_unit [LINE…]: a unit of the example that keeps, with the drop-in and these lines besides.
keep_unit() {
  good_release comes_back
  add_unit comes_back.service <<<'[Service]
Type=notify
ExecStart=/srv/bin/comes_back 127.0.0.1:7001
ExecReload=kill -USR1 $MAINPID'
  add_unit comes_back.service.d/keep.conf <"$here/../../examples/systemd/keep.conf"
  printf '%s\n' "$@" | add_unit comes_back.service.d/more.conf
}

# A client of which each answer is the sum of all it has sent; after each the service is ended by a command with the main PID behind it.
sums() {
  in_box timeout 200 bash -c '
    exec 3<>/dev/tcp/127.0.0.1/7001
    sum=0 last=0
    for number in $(seq "$1"); do
      sum=$((sum + number))
      echo "$number" >&3
      IFS= read -r -t 20 got <&3 || { echo "cut off at $number"; exit 1; }
      [ "$got" = "$sum" ] || { echo "told $got in the place of $sum"; exit 1; }
      until main=$(systemctl show --value -p MainPID comes_back.service); [ "$main" != 0 ] && [ "$main" != "$last" ]; do sleep 0.01; done
      $2 "$main"
      last=$main
    done
    echo "all is well"' - "$@"
}

case_keep_comes_back_from_kill_9() {
  keep_unit
  start comes_back.service
  is "what a client sees of 20 kills" "$(sums 20 'kill -KILL')" "all is well"
  await 20 "it is started again" property_is NRestarts 20
  await 20 "it serves" property_is ActiveState active
}

# In order, or by its end.
case_keep_comes_back_from_reloads_and_aborts() {
  keep_unit
  start comes_back.service
  is "what a client sees of aborts" "$(sums 5 'kill -ABRT')" "all is well"
  await 20 "it serves" property_is ActiveState active
  local main
  for _ in 1 2 3; do
    main=$(show MainPID)
    reload
    await 20 "a new main process" property_is_not MainPID "$main"
    await 20 "the unit is active" property_is ActiveState active
    # Of that process the successor is killed: what it was handed over is held of it alone.
    is "what a client sees" "$(sums 2 'kill -KILL')" "all is well"
    await 20 "it serves" property_is ActiveState active
  done
  [[ $(warnings) != *"reception only permitted"* ]] || die "somebody says something to whom systemd does not listen: $(warnings)"
  # A listener, a name, and the ends of the queues of one process.
  await 20 "nothing is left of the processes before" property_is NFileDescriptorStore 6
}

case_keep_ends_with_the_unit() {
  keep_unit
  start comes_back.service
  in_box bash -c 'exec 3<>/dev/tcp/127.0.0.1/7001; echo 1 >&3; read -r _ <&3; echo begun; read -r -t 60 _ <&3; echo "over $?"' >"$out/client" &
  await 20 "a client" grep -q begun "$out/client"
  in_box systemctl stop comes_back
  await 20 "its end is seen" grep -q "over 1" "$out/client"
  wait
  is "what is held" "$(show NFileDescriptorStore)" 0
}

# A UDP group comes back with its mark. systemd ends earlier generations when the main process has ended.
case_keep_has_a_udp_group() {
  good_release udp_flows
  add_unit udp_flows.service <<<'[Service]
Type=notify
ExecStart=/srv/bin/udp_flows serve --listen 127.0.0.1:7002 --socket /run/udp_flows.sock --keep
ExecReload=kill -USR1 $MAINPID'
  add_unit udp_flows.service.d/keep.conf <"$here/../../examples/systemd/keep.conf"
  start udp_flows.service
  # The sockets of the group, its memory file, and the ends of the queues.
  await 20 "all of it is held" property_is NFileDescriptorStore 13
  local main
  main=$(show MainPID)
  reload
  await 20 "a new main process" property_is_not MainPID "$main"
  await 20 "the unit is active" property_is ActiveState active
  for _ in 1 2 3; do
    main=$(show MainPID)
    # A flow begins, and goes on after the kill with the mark that it was given: the server has it still, and does not know the flow.
    is "what a client sees" "$(in_box timeout 60 bash -c '
      exec 3<>/dev/udp/127.0.0.1/7002
      first() { head -c 1 <&3 | od -An -tu1 | tr -d " "; }
      printf "\x01\0\0\0\x07\0\0\0\x01\0\0\0\0" >&3
      begun=$(first)
      kill -KILL "$1"
      printf "\x$(printf %x $((begun / 16 * 16 + 2)))\0\0\0\x07\0\0\0\x02\0\0\0\0" >&3
      told=$(first)
      [ $((begun / 16)) = $((told / 16)) ] && echo "kind $((begun % 16)), then $((told % 16))"' - "$main")" "kind 1, then 4"
    await 20 "a new main process" property_is_not MainPID "$main"
    await 20 "the unit is active" property_is ActiveState active
    await 20 "the same is held" property_is NFileDescriptorStore 13
  done
}

# As the guide says: the limit of starts ends what is held, too.
case_keep_does_not_outlive_the_start_limit() {
  keep_unit "[Unit]" "StartLimitBurst=3"
  start comes_back.service
  contains "what a client sees of a fourth start" "$(sums 5 'kill -KILL' || true)" "cut off"
  await 20 "it has failed" property_is ActiveState failed
  is "what is held" "$(show NFileDescriptorStore)" 0
}
