#!/usr/bin/env bash
# PostgreSQL's own regression suite, direct and through foreshard: one home node, no policy, default
# pool mode. Prints how many files give the same output, and which do not.
#
# FORESHARD (target/release/foreshard), WORK (a cache of source and results; default
# target/regress), SCHEDULE (a file of test names; default PostgreSQL's parallel schedule) and
# MODES ("direct proxy") can be set. With MODES=proxy the direct results of the last run are used.
set -euo pipefail
cd "$(dirname "$0")/../.."

foreshard=$(realpath "${FORESHARD:-target/release/foreshard}")
modes=${MODES:-direct proxy}
source integration/regress/source.sh

pg_regress=$(ls -d "$bin"/../lib/pgxs/src/test/regress/pg_regress) || fail "pg_regress is not installed"

owner=
as_owner=()
if [ "$(id -u)" = 0 ]; then
  owner=postgres
  as_owner=(runuser -u postgres --)
fi

# Server, folder and proxy of one mode live in one temporary folder.
run=$(mktemp -d "${TMPDIR:-/tmp}/foreshard-regress.XXXXXX")
chmod 755 "$run"
proxy_pid=
stop() {
  if [ -n "$proxy_pid" ]; then
    kill "$proxy_pid" 2>/dev/null || true
    wait "$proxy_pid" 2>/dev/null || true
    proxy_pid=
  fi
  if [ -f "$run/node/postmaster.pid" ]; then
    "${as_owner[@]}" "$bin/pg_ctl" -D "$run/node" -m immediate stop >/dev/null 2>&1 || true
  fi
  rm -rf "$run/node" "$run/catalog"
}
trap 'stop; rm -rf "$run"' EXIT

free_port() { # the first free one of 127.0.0.1 from $1 upwards
  local port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
  echo "$port"
}

wait_for() { # $1: port, $2: log
  local try
  for try in $(seq 300); do
    psql -X -h 127.0.0.1 -U postgres -p "$1" -Atc 'SELECT 1' postgres >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  fail "nothing answers at port $1" "$2"
}

start_node() {
  mkdir -p "$run/node"
  chmod 700 "$run/node"
  [ -z "$owner" ] || chown "$owner" "$run/node"
  "${as_owner[@]}" "$bin/initdb" -D "$run/node" -U postgres -A trust -N --locale=C --encoding=UTF8 \
    >"$run/initdb.log" 2>&1 || fail "initdb" "$run/initdb.log"
  cat >>"$run/node/postgresql.conf" <<CONF
port = $node_port
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
max_connections = 120
max_prepared_transactions = 10
wal_level = logical
log_autovacuum_min_duration = 0
log_checkpoints = on
max_stack_depth = '2MB'
CONF
  "${as_owner[@]}" "$bin/pg_ctl" -D "$run/node" -l "$run/node/log" -w start >/dev/null ||
    fail "the node does not start" "$run/node/log"
  local sql="psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -U postgres -p $node_port"
  $sql -c 'CREATE DATABASE regression TEMPLATE template0' postgres
  local setting
  for setting in "lc_messages TO 'C'" "lc_monetary TO 'C'" "lc_numeric TO 'C'" "lc_time TO 'C'" \
    "bytea_output TO 'hex'" "timezone_abbreviations TO 'Default'"; do
    $sql -c "ALTER DATABASE regression SET $setting" postgres
  done
}

start_proxy() {
  cat >"$run/foreshard.yaml" <<YAML
frontend: { listen: "127.0.0.1:$proxy_port" }
admin_listen: 127.0.0.1:$admin_port
data_folder: $run/catalog
authentication: trust
nodes: [{ name: n1, host: 127.0.0.1, port: $node_port, user: postgres }]
${BACKEND:-}
policy: { database: regression, placement: { mode: "off" } }
YAML
  "$foreshard" serve --config "$run/foreshard.yaml" >"$work/proxy.log" 2>&1 &
  proxy_pid=$!
  wait_for "$proxy_port" "$work/proxy.log"
}

suite() { # $1: mode
  local mode=$1 port
  node_port=$(free_port 25432)
  proxy_port=$(free_port $((node_port + 1)))
  admin_port=$(free_port $((proxy_port + 1)))
  start_node
  port=$node_port
  if [ "$mode" = proxy ]; then
    start_proxy
    port=$proxy_port
  fi
  rm -rf "${work:?}/$mode"
  mkdir -p "$work/$mode"
  [ -z "$owner" ] || chown -R "$owner" "$work/$mode"
  chmod 777 "$work/$mode"
  echo "running the suite: $mode"
  (
    cd "$work/$mode"
    ulimit -c 0
    timeout "${LIMIT:-1500}" "${as_owner[@]}" "$pg_regress" --inputdir="$work/source/src/test/regress" --outputdir="$work/$mode" \
      --bindir="$bin" --dlpath="$work/lib" --use-existing --dbname=regression \
      --host=127.0.0.1 --port="$port" --user=postgres --max-concurrent-tests=20 \
      --schedule="${SCHEDULE:-$work/source/src/test/regress/parallel_schedule}"
  ) >"$work/$mode.log" 2>&1 || true
  cp "$run/node/log" "$work/$mode.node.log" || true
  stop
}

# pg_regress runs as another user: it must be able to come here.
folder=$work
while [ "$folder" != / ]; do
  [ -z "$owner" ] || "${as_owner[@]}" test -x "$folder" || chmod o+x "$folder"
  folder=$(dirname "$folder")
done

for mode in $modes; do suite "$mode"; done

# Same: byte for byte what the direct run gave, or, where PostgreSQL itself knows several right
# outputs, one that the suite accepts.
passed() { # $1: mode, $2: name
  grep -Eq "^(test| +) *$2 +\.\.\. ok" "$work/$1.log"
}
same=0
total=0
differ=()
for result in "$work"/direct/results/*.out; do
  name=$(basename "$result" .out)
  total=$((total + 1))
  if cmp -s "$result" "$work/proxy/results/$name.out" || { passed direct "$name" && passed proxy "$name"; }; then
    same=$((same + 1))
  else
    differ+=("$name")
  fi
done
echo "$same of $total files give the same output through foreshard as direct"
for name in "${differ[@]}"; do
  lines=$(diff "$work/direct/results/$name.out" "$work/proxy/results/$name.out" 2>/dev/null | grep -c '^[<>]' || true)
  echo "  differs: $name ($lines lines)"
done
