# Sourced by the launchers in this folder: where downloads are kept, and how a missing tool is had.
# FIRN_TEST_CACHE names the folder for jars and binaries; it may be deleted at any time.

cache_dir() {
  local dir=${FIRN_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/firn-tests}
  mkdir -p "$dir"
  (cd "$dir" && pwd)
}

# need COMMAND PACKAGE: make sure that COMMAND is on the path. Root on Debian gets PACKAGE by apt-get,
# everyone else is told what to install.
need() {
  command -v "$1" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing $2 (for $1)" >&2
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$2"; } >&2 \
      && command -v "$1" >/dev/null && return
  fi
  echo "$1 is missing: install it (Debian: $2) and run this again" >&2
  exit 3
}

# alive FILE: print the process id kept in FILE if that process still runs and is the one we started.
# The file holds "pid start-time", so that a recycled process id is never taken for ours.
alive() {
  local pid began now
  [ -f "$1" ] && read -r pid began <"$1" || return 1
  now=$(started "$pid") && [ "$now" = "$began" ] && echo "$pid"
}

# started PID: the kernel's start time of a process, in clock ticks since boot.
started() {
  local stat
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  stat=${stat##*) }
  set -- $stat
  echo "${20}"
}

# remember PID FILE: keep a process for `alive`.
remember() { echo "$1 $(started "$1")" >"$2"; }

# finish FILE SECONDS: SIGTERM, then SIGKILL to what still runs after SECONDS.
finish() {
  local pid
  pid=$(alive "$1") || { rm -f "$1"; return 0; }
  kill "$pid"
  for _ in $(seq $(($2 * 10))); do alive "$1" >/dev/null || break; sleep 0.1; done
  pid=$(alive "$1") && kill -9 "$pid"
  rm -f "$1"
}
