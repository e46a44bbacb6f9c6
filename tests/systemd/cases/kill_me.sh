# shellcheck shell=bash
# The demonstration in a unit, which is the shipped one as it is. Its clients are outside of the unit.

# demonstrate WANTED OPTION…: its line begins like that.
demonstrate() {
  local wanted=$1 line
  shift
  line=$(in_box /srv/bin/kill_me --unit kill_me "$@") || die "$line"
  echo "$line"
  contains "what the clients saw" "$line" "$wanted"
}

case_kill_me_loses_nobody() {
  good_release kill_me
  install_unit kill_me.service
  start kill_me.service
  demonstrate "kills=15 restarts=5 connections=200 refused=0 cut=0 wrong=0 " --kills 15 --restarts 5 --connections 200
  await 20 "it serves" property_is ActiveState active
  is "how often it was started again" "$(show NRestarts)" 15
  # A listener, a name, and the ends of the queues of one process.
  await 20 "nothing is left of the processes before" property_is NFileDescriptorStore 6
}

# Those that end on their own, and those that end in the middle of a restart.
case_kill_me_loses_nobody_to_poison_and_in_restarts() {
  good_release kill_me
  install_unit kill_me.service
  start kill_me.service
  demonstrate "kills=0 restarts=0 poisoned=2 killed_in_restart=8 connections=50 refused=0 cut=0 wrong=0 " \
    --kills 0 --restarts 0 --poison 2 --during 8 --connections 50
  await 20 "it serves" property_is ActiveState active
}

# A successor is the main process before it has turned its loop: what it has must be held all the same.
case_kill_me_loses_nobody_to_a_kill_just_after_a_restart() {
  good_release kill_me
  install_unit kill_me.service
  add_unit kill_me.service.d/busy.conf <<<'[Service]
ExecStart=
ExecStart=/srv/bin/kill_me serve --busy 0.3 --socket ${RUNTIME_DIRECTORY}/restart.sock'
  start kill_me.service
  demonstrate "kills=8 restarts=8 connections=20 refused=0 cut=0 wrong=0 " --kills 8 --restarts 8 --connections 20
  await 20 "it serves" property_is ActiveState active
}
