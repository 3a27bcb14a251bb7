#!/usr/bin/env bash
# Puts all kinds of load on a foreshard, for a profile of it: train.sh PROGRAM.
set -euo pipefail
program=$1
cd "$(dirname "$0")/../.."
. integration/bench/common.sh

work=$(mktemp -d "${TMPDIR:-/tmp}/foreshard-train.XXXXXX")
chmod 755 "$work"
pid=
stop() {
  if [ -n "$pid" ]; then
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap stop EXIT

cat >"$work/policy.yaml" <<'YAML'
database: bench
groups:
  bank: { key: integer, shards: 12, tables: { accounts: aid, history: aid } }
reference_tables: [branches]
placement: { mode: advise }
YAML
port=$(free_port 18432)
"$program" dev --nodes 3 --port "$port" --data "$work/data" --policy "$work/policy.yaml" \
  >"$work/foreshard.log" 2>&1 &
pid=$!
run() { psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -U postgres -p "$port" bench "$@" >/dev/null; }
wait_for foreshard "$work/foreshard.log" run -c 'SELECT 1'

run <<'SQL'
CREATE TABLE accounts (aid integer PRIMARY KEY, bid integer, abalance integer, filler char(84));
CREATE TABLE history (aid integer, at timestamptz, delta integer, note text);
CREATE TABLE branches (bid integer PRIMARY KEY, name text);
CREATE TABLE journal (id integer, note text);
INSERT INTO branches SELECT i, 'branch ' || i FROM generate_series(1, 20) i;
INSERT INTO journal SELECT i, 'note ' || i FROM generate_series(1, 200) i;
SQL
seq 1 20000 | awk '{ print $1 "\t" $1 % 20 + 1 "\t0\tx" }' | run -c 'COPY accounts FROM STDIN'

cat >"$work/point.sql" <<'SQL'
\set aid random(1, 20000)
SELECT abalance FROM accounts WHERE aid = :aid;
SQL
cat >"$work/change.sql" <<'SQL'
\set aid random(1, 20000)
\set other random(1, 20000)
\set delta random(-50, 50)
BEGIN;
UPDATE accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM accounts WHERE aid = :aid;
INSERT INTO history VALUES (:aid, now(), :delta, 'a note'), (:other, now(), 0, 'another');
END;
SELECT b.name FROM accounts a JOIN branches b USING (bid) WHERE aid = :aid;
SELECT note FROM journal WHERE id = :delta;
SQL
cat >"$work/over.sql" <<'SQL'
\set bid random(1, 20)
\set low random(1, 19000)
SELECT * FROM accounts WHERE aid IN (:low, :low + 7, :low + 77);
SELECT aid FROM accounts WHERE bid = :bid ORDER BY aid LIMIT 10;
SELECT bid, count(*), sum(abalance) FROM accounts WHERE aid BETWEEN :low AND :low + 500 GROUP BY bid;
SELECT a.aid, h.delta FROM accounts a JOIN history h ON h.delta = a.bid WHERE a.aid < 20 ORDER BY 1, 2 LIMIT 5;
UPDATE accounts SET abalance = 0 WHERE bid = :bid AND aid BETWEEN :low AND :low + 20;
SQL
bench() { # $1: what, $2: protocol, $3: clients, $4: seconds
  pgbench -n -h 127.0.0.1 -p "$port" -U postgres -f "$work/$1.sql" -M "$2" -c "$3" -j 1 -T "$4" bench \
    >"$work/pgbench.log" 2>&1 || fail "pgbench -M $2 -f $1.sql failed" "$work/pgbench.log"
}
for mode in simple extended prepared; do
  for clients in 8 64; do
    bench point "$mode" "$clients" 2
  done
  bench change "$mode" 8 2
  bench over "$mode" 4 2
done
run -c 'COPY accounts TO STDOUT' -c 'TABLE accounts'
kill "$pid"
wait "$pid" || fail "foreshard ended badly" "$work/foreshard.log"
pid=
