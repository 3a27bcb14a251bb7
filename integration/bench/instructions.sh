#!/usr/bin/env bash
# Instructions a query outside of the kernel, counted by callgrind: steadier than any time. Of
# foreshard those of the threads that serve clients: what it forecasts meanwhile is no query's.
# FORESHARD (target/release/foreshard), CLIENTS (4) and QUERIES of each (2000) can be set.
set -euo pipefail
clients=${CLIENTS:-4}
queries=${QUERIES:-2000}

folder=$(mktemp -d "${TMPDIR:-/tmp}/foreshard-callgrind.XXXXXX")
chmod 777 "$folder"
under="valgrind -q --tool=callgrind --separate-threads=yes --instr-atstart=no --callgrind-out-file=$folder/%p"
. "$(dirname "$0")/setup.sh"
trap 'stop; rm -rf "$folder"' EXIT

run() { # $1: mode, $2: port, $3: database, $4: queries a client
  pgbench -n -h 127.0.0.1 -p "$2" -U postgres -f "$work/select.sql" -M "$1" -c "$clients" -j 1 \
    -t "$4" "$3" >"$work/pgbench.log" 2>&1 || fail "pgbench -M $1 failed" "$work/pgbench.log"
}

# $1: mode, $2: port, $3: database, $4: process, $5: what is in the threads that count, then the user
# that it runs under
count() {
  local pid=$4
  run "$1" "$2" "$3" 500
  "${@:6}" callgrind_control -i on "$pid" >/dev/null 2>&1
  run "$1" "$2" "$3" "$queries"
  "${@:6}" callgrind_control -i off "$pid" >/dev/null 2>&1
  "${@:6}" callgrind_control -d "$pid" >/dev/null 2>&1
  grep -l "$5" "$folder/$pid".*-* | xargs \
    awk -v all=$((clients * queries)) '/^totals:/ { sum += $2 } END { printf "%.0f\n", sum / all }'
  rm -f "$folder/$pid".*-*
}

printf '%-9s %12s %12s\n' protocol foreshard PgBouncer
for mode in simple extended prepared; do
  database=bench
  [ "$mode" != prepared ] || database=$prepared_database
  ours=$(count "$mode" "$foreshard_port" bench "$foreshard_pid" ClientSession)
  theirs=$(count "$mode" "$pgbouncer_port" "$database" "$pgbouncer_pid" totals "${as_user[@]}")
  printf '%-9s %12s %12s\n' "$mode" "$ours" "$theirs"
done
