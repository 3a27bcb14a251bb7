# Starts one PostgreSQL node, foreshard and PgBouncer, with a table of rows to read; sourced by the
# benchmarks beside it. Leaves ports and processes in variables, and stops all at the end.
# $under, if set, is a command that both proxies run under.

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. integration/bench/common.sh
foreshard=${FORESHARD:-target/release/foreshard}
rows=100000

work=$(mktemp -d "${TMPDIR:-/tmp}/foreshard-bench.XXXXXX")
chmod 755 "$work"
foreshard_pid=
pgbouncer_pid=
stop() {
  [ -z "$pgbouncer_pid" ] || kill "$pgbouncer_pid" 2>/dev/null || true
  if [ -n "$foreshard_pid" ]; then
    kill "$foreshard_pid" 2>/dev/null || true
    wait "$foreshard_pid" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap stop EXIT

sql() { psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -U postgres -p "$1" bench -Atc "$2"; }

cat >"$work/policy.yaml" <<'YAML'
database: bench
groups:
  accounts: { key: integer, shards: 16, tables: { pgbench_accounts: aid } }
placement: { mode: "off" }
YAML
foreshard_port=$(free_port 17432)
${under:-} "$foreshard" dev --nodes 1 --port "$foreshard_port" --data "$work/data" --policy "$work/policy.yaml" \
  >"$work/foreshard.log" 2>&1 &
foreshard_pid=$!
wait_for foreshard "$work/foreshard.log" sql "$foreshard_port" 'SELECT 1'
node_port=$(sed -nE 's/.*"n1": ([0-9]+).*/\1/p' "$work/data/nodes.json")

sql "$foreshard_port" "CREATE TABLE pgbench_accounts (aid integer PRIMARY KEY, bid integer, abalance integer, filler char(84))"
# Rows go in directly: PostgreSQL itself puts each into its partition.
sql "$node_port" "INSERT INTO pgbench_accounts SELECT aid, 1, 0, '' FROM generate_series(1, $rows) aid"
sql "$node_port" "VACUUM ANALYZE pgbench_accounts"
[ "$(sql "$foreshard_port" 'SELECT abalance FROM pgbench_accounts WHERE aid = 4711')" = 0 ] ||
  fail "the rows do not arrive through foreshard"

# Prepared statements work in PgBouncer's transaction pooling from 1.21 on; before, they need its
# session pooling, which is marked in the table.
pgbouncer_version=$(pgbouncer --version | sed -nE 's/^PgBouncer ([0-9]+\.[0-9]+).*/\1/p')
prepared_database=bench
prepared_note=
extra=
if [ "$(printf '%s\n1.21\n' "$pgbouncer_version" | sort -V | head -n 1)" = 1.21 ]; then
  extra='max_prepared_statements = 100'
else
  prepared_database=bench_session
  prepared_note='*'
fi
pgbouncer_port=$(free_port $((foreshard_port + 20)))
mkdir "$work/pgbouncer"
cat >"$work/pgbouncer/pgbouncer.ini" <<INI
[databases]
bench = host=127.0.0.1 port=$node_port dbname=bench pool_mode=transaction
bench_session = host=127.0.0.1 port=$node_port dbname=bench pool_mode=session pool_size=100
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $pgbouncer_port
unix_socket_dir =
auth_type = any
default_pool_size = 40
max_client_conn = 2000
ignore_startup_parameters = extra_float_digits
pidfile = $work/pgbouncer/pid
logfile = $work/pgbouncer/log
log_connections = 0
log_disconnections = 0
$extra
INI
# auth_type any needs a user to log in to the node with.
sed -i -E '/^bench/s/$/ user=postgres/' "$work/pgbouncer/pgbouncer.ini"
as_user=()
if [ "$(id -u)" = 0 ]; then
  user=postgres
  id postgres >/dev/null 2>&1 || user=nobody
  chown -R "$user" "$work/pgbouncer"
  as_user=(runuser -u "$user" --)
fi
"${as_user[@]}" ${under:-} pgbouncer -q "$work/pgbouncer/pgbouncer.ini" >"$work/pgbouncer.out" 2>&1 &
wait_for PgBouncer "$work/pgbouncer/log" sql "$pgbouncer_port" 'SELECT 1'
pgbouncer_pid=$(cat "$work/pgbouncer/pid")

cat >"$work/select.sql" <<SQL
\\set aid random(1, $rows)
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
SQL

