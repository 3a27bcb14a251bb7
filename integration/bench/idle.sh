#!/usr/bin/env bash
# Memory that clients cost that are connected and do nothing.
# IDLE_CLIENTS (1000) and FORESHARD (target/release/foreshard) can be set.
set -euo pipefail
idle_clients=${IDLE_CLIENTS:-1000}
ulimit -n "$(ulimit -Hn)"

. "$(dirname "$0")/setup.sh"

resident() { # memory of a process in kB
  sed -nE 's/^VmRSS:[[:space:]]+([0-9]+) kB/\1/p' "/proc/$1/status"
}

connected() { # $1: port: clients that are connected, by the system's table of sockets
  awk -v port="$(printf ':%04X$' "$1")" '$2 ~ port && $4 == "01"' /proc/net/tcp | wc -l
}

printf 'SELECT 1;\n\\sleep 20 s\n' >"$work/idle.sql"
for target in "foreshard $foreshard_port $foreshard_pid" "PgBouncer $pgbouncer_port $pgbouncer_pid"; do
  read -r name port pid <<<"$target"
  before=$(resident "$pid")
  pgbench -n -h 127.0.0.1 -p "$port" -U postgres -f "$work/idle.sql" -c "$idle_clients" -j 1 -t 1 bench \
    >"$work/idle.log" 2>&1 &
  pgbench_pid=$!
  for try in $(seq 100); do
    [ "$(connected "$port")" -ge "$idle_clients" ] && break
    sleep 0.2
  done
  [ "$(connected "$port")" -ge "$idle_clients" ] || fail "the clients do not connect to $name" "$work/idle.log"
  sleep 2
  after=$(resident "$pid")
  kill "$pgbench_pid"
  wait "$pgbench_pid" 2>/dev/null || true
  awk -v name="$name" -v before="$before" -v after="$after" -v clients="$idle_clients" 'BEGIN {
    printf "%-10s %6.1f MB with %d idle clients, %.1f MB without: %.1f kB a client\n",
      name, after / 1024, clients, before / 1024, (after - before) / clients }'
done
