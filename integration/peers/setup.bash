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

# need_go: make sure that `go` is one that fetches whatever version a module asks for by itself, as Go does since 1.21 unless a
# distribution has switched that off. An older one (Debian 12 has 1.19) fetches a new one as a module, once, into the cache.
need_go() {
  need go golang-go
  export GOTOOLCHAIN=${GOTOOLCHAIN:-auto}
  local version
  version=$(go env GOVERSION)
  [ "$(printf '%s\n' "$version" go1.21 | sort -V | head -n 1)" = go1.21 ] && return
  local here wanted
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  wanted=$(sed -n 's/^go //p' "$here/../clients/go/go.mod")
  echo "$version is too old, fetching go$wanted" >&2
  fetch_go "$wanted"
}

# fetch_go VERSION: put that version of Go, from the module proxy, first on the path.
fetch_go() {
  local folder from part
  folder=$(cache_dir)/go-$1
  if [ ! -x "$folder/bin/go" ]; then
    from=$(cd / && go mod download -json "golang.org/toolchain@v0.0.1-go$1.$(go env GOOS)-$(go env GOARCH)" | sed -n 's/^.*"Dir": "\(.*\)".*$/\1/p')
    [ -d "$from" ] || { echo "go$1 could not be fetched: install it and run this again" >&2; exit 3; }
    rm -rf "$folder.new"
    cp -r "$from" "$folder.new"
    chmod -R u+w "$folder.new"
    # A module has no executable files, and no other modules' go.mod.
    for part in src src/cmd; do
      [ ! -f "$folder.new/$part/_go.mod" ] || mv "$folder.new/$part/_go.mod" "$folder.new/$part/go.mod"
    done
    find "$folder.new/bin" "$folder.new/pkg/tool" -type f -exec chmod +x {} +
    mv "$folder.new" "$folder"
  fi
  PATH=$folder/bin:$PATH
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
