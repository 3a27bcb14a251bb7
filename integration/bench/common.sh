# What the scripts that start a proxy to put load on it share; sourced by them.

fail() {
  echo "$(basename "$0"): $1" >&2
  [ -z "${2:-}" ] || tail -n 20 "$2" >&2
  exit 1
}

# PostgreSQL's client programs, also where the distribution does not put them on PATH.
PATH=$PATH:$(printf '%s:' /usr/lib/postgresql/*/bin)/usr/sbin
command -v pgbench >/dev/null || fail "pgbench is not installed"

free_port() { # the first free one of 127.0.0.1 from $1 upwards
  local port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
  echo "$port"
}

wait_for() { # $1: what, $2: its log, then a command that succeeds once it is there
  local what=$1 log=$2 try
  shift 2
  for try in $(seq 300); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  fail "$what does not start" "$log"
}
