# shellcheck shell=bash
# A real systemd in namespaces of its own, over a throw-away overlay of a root file system: this machine's, or a tree with another
# systemd. Nothing of it outlives `box_down`. Needs root, cgroup v2, util-linux and iproute2.
#
#   box_up ROOT BIND     boots; BIND is a directory that is seen inside as /opt/pollflip, read-only
#   in_box COMMAND…      runs a command inside
#   box_down             powers off, and removes all that was made

BOX_DIR=
BOX_CGROUP=
BOX_TOP=
BOX_LEADER=

# Why there can be no box on this machine, or nothing.
box_obstacle() {
  [ "$(id -u)" = 0 ] || { echo "it needs root"; return; }
  local tool
  for tool in unshare nsenter pivot_root setpriv ip systemctl; do
    command -v "$tool" >/dev/null || { echo "$tool is missing (apt-get install systemd iproute2 util-linux)"; return; }
  done
  [ -n "$(box_cgroups)" ] || { echo "there is no writable cgroup v2"; return; }
  # All that box_init needs of the kernel.
  local said
  said=$(unshare --fork --pid --mount --uts --ipc --net --cgroup --propagation private sh -euc '
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/new
    mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/new
    mount -t proc proc /mnt/new/proc
    mount -t sysfs -o ro sysfs /mnt/new/sys
    mount -t cgroup2 cgroup2 /mnt/new/sys/fs/cgroup' 2>&1) ||
    echo "the kernel refuses namespaces or mounts (in a container? it needs to be a privileged one): $said"
}

# Where cgroup v2 is, alone or beside v1.
box_cgroups() {
  local dir
  for dir in /sys/fs/cgroup /sys/fs/cgroup/unified; do
    if [ -f "$dir/cgroup.procs" ] && [ -f "$dir/cgroup.controllers" ] && [ -w "$dir" ]; then echo "$dir"; return; fi
  done
}

box_up() {
  local root=$1 bind=$2
  BOX_DIR=$(mktemp -d /run/pollflip-box.XXXXXX)
  BOX_CGROUP=$(box_cgroups)/${BOX_DIR##*/}
  mkdir "$BOX_CGROUP"
  (
    export root bind BOX_DIR BOX_CGROUP
    inside="$(declare -f box_init); box_init"
    export inside
    # Whatever happens to this script, the kernel takes the box down with it. Its group has nobody but those inside: what is outside could not
    # be moved from there, and would keep systemd from setting limits.
    exec setpriv --pdeathsig KILL unshare --fork --kill-child=SIGKILL --pid --mount --uts --ipc --net --propagation private \
      bash -euc 'echo 0 >"$BOX_CGROUP/cgroup.procs"; exec unshare --cgroup bash -euc "$inside"'
  ) >"$BOX_DIR/console" 2>&1 </dev/null &
  BOX_TOP=$!
  local deadline=$((SECONDS + 60))
  while [ $SECONDS -lt $deadline ] && [ -d "/proc/$BOX_TOP" ]; do
    BOX_LEADER=$(box_leader)
    # Its socket is there when it is ready to be asked.
    if [ -n "$BOX_LEADER" ] && in_box systemctl is-active --quiet basic.target 2>/dev/null; then
      # Until here on the console, where it can be read if the box does not come up.
      in_box systemctl log-target journal
      return 0
    fi
    sleep 0.1
  done
  echo "the box did not come up; its console:"
  tail -n 30 "$BOX_DIR/console"
  return 1
}

# The process that is PID 1 inside, once it has become systemd.
box_leader() {
  local pid=$BOX_TOP
  while [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != systemd ]; do
    pid=$(cut -d ' ' -f 1 "/proc/$pid/task/$pid/children" 2>/dev/null) || return 0
    [ -n "$pid" ] || return 0
  done
  echo "$pid"
}

# Runs inside the new namespaces, in a shell of its own, and becomes systemd. Nothing of the machine outside can be written to from it.
box_init() {
  local new=$BOX_DIR/root name
  mount -t tmpfs -o mode=755 tmpfs "$BOX_DIR"
  mkdir "$BOX_DIR/upper" "$BOX_DIR/work" "$new"
  mount -t overlay overlay -o "lowerdir=$root,upperdir=$BOX_DIR/upper,workdir=$BOX_DIR/work" "$new"
  mount -t proc proc "$new/proc"
  # Or systemd-sysctl would set what is the whole machine's.
  mount --bind "$new/proc/sys" "$new/proc/sys"
  mount -o remount,ro,bind "$new/proc/sys"
  mount -t sysfs -o ro sysfs "$new/sys"
  mount -t cgroup2 cgroup2 "$new/sys/fs/cgroup"
  mount -t tmpfs -o mode=755 tmpfs "$new/run"
  mount -t tmpfs -o mode=1777 tmpfs "$new/tmp"
  mount -t tmpfs -o mode=755 tmpfs "$new/dev"
  for name in null zero full random urandom tty; do
    touch "$new/dev/$name"
    mount --bind "/dev/$name" "$new/dev/$name"
  done
  mkdir "$new/dev/shm" "$new/dev/pts"
  mount -t tmpfs -o mode=1777 tmpfs "$new/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts "$new/dev/pts"
  ln -s pts/ptmx "$new/dev/ptmx"
  ip link set lo up
  mkdir -p "$new/opt/pollflip" "$new/run/systemd/system"
  mount --bind "$bind" "$new/opt/pollflip"
  mount -o remount,ro,bind "$new/opt/pollflip"
  cd "$new" || exit
  mkdir -p mnt
  pivot_root . mnt
  umount -l /mnt
  exec env -i container=pollflip PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --log-target=console --show-status=false --unit=basic.target
}

# Nothing that is asked of the box takes so long, unless it hangs.
in_box() {
  timeout 300 nsenter --target "$BOX_LEADER" --mount --uts --ipc --net --pid --cgroup --root --wd -- "$@"
}

box_down() {
  [ -n "$BOX_DIR" ] || return 0
  if [ -n "$BOX_LEADER" ]; then in_box systemctl poweroff --force >/dev/null 2>&1 || true; fi
  if [ -n "$BOX_TOP" ]; then
    local deadline=$((SECONDS + 10))
    while [ $SECONDS -lt $deadline ] && [ -d "/proc/$BOX_TOP" ]; do sleep 0.05; done
    # Its child is the PID 1 inside: with it everything in the box ends.
    kill -KILL "$BOX_TOP" 2>/dev/null || true
    wait "$BOX_TOP" 2>/dev/null || true
  fi
  if [ -f "$BOX_CGROUP/cgroup.kill" ]; then echo 1 >"$BOX_CGROUP/cgroup.kill" || true; fi
  local _
  for _ in $(seq 50); do
    find "$BOX_CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null || true
    [ -d "$BOX_CGROUP" ] || break
    sleep 0.1
  done
  rm -rf "$BOX_DIR"
  BOX_DIR='' BOX_CGROUP='' BOX_TOP='' BOX_LEADER=''
}
