#!/usr/bin/env bash
# pgbench, one row by key, through foreshard, through PgBouncer and direct, in alternating rounds on
# one node. Prints CPU time a query of the proxy, throughput and latency, and their ratios.
#
# SECONDS_A_RUN (4), ROUNDS (3), CLIENTS ("8 64") and FORESHARD (target/release/foreshard) can be set.
set -euo pipefail
seconds_a_run=${SECONDS_A_RUN:-4}
rounds=${ROUNDS:-3}
read -ra client_counts <<<"${CLIENTS:-8 64}"

. "$(dirname "$0")/setup.sh"

ticks() { # CPU time of a process so far, in clock ticks
  sed -E 's/.*\) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'
}

run() { # $1: mode, $2: target, $3: port, $4: database, $5: process of the proxy, or none
  local before=0 after=0 out p99
  [ -z "$5" ] || before=$(ticks "$5")
  out=$(pgbench -n -h 127.0.0.1 -p "$3" -U postgres -f "$work/select.sql" -M "$1" -c "$clients" \
    -j 1 -T "$seconds_a_run" -l --log-prefix="$work/times" "$4" 2>&1) ||
    fail "pgbench -M $1 through $2 failed: $out"
  [ -z "$5" ] || after=$(ticks "$5")
  grep -q 'failed transactions: 0 ' <<<"$out" || fail "pgbench -M $1 through $2 had errors: $out"
  p99=$(cat "$work"/times.* | awk '{ print $3 }' | sort -n |
    awk '{ us[NR] = $1 } END { print us[int(NR * .99)] / 1000 }')
  rm "$work"/times.*
  awk -v key="$clients $1 $2" -v p99="$p99" -v ticks=$((after - before)) \
    -v hz="$(getconf CLK_TCK)" '
    /actually processed/ { count = $6 }
    /latency average/ { latency = $4 }
    /^tps/ { tps = $3 }
    END { print key, count, tps, latency, p99, ticks / hz }' <<<"$out" >>"$work/results"
}

modes=(simple extended prepared)
echo "$rounds rounds of $seconds_a_run s, ${client_counts[*]} clients, ${#modes[@]} protocols, 3 targets"
for round in $(seq "$rounds"); do
  for clients in "${client_counts[@]}"; do
    for mode in "${modes[@]}"; do
      database=bench
      [ "$mode" != prepared ] || database=$prepared_database
      run "$mode" direct "$node_port" bench ""
      run "$mode" pgbouncer "$pgbouncer_port" "$database" "$pgbouncer_pid"
      run "$mode" foreshard "$foreshard_port" bench "$foreshard_pid"
    done
  done
done

awk -v note="$prepared_note" -v version="$pgbouncer_version" -v counts="${client_counts[*]}" '
  {
    key = $1 " " $2 " " $3
    count[key] += $4; tps[key] += $5; latency[key] += $6; p99[key] += $7; cpu[key] += $8; runs[key]++
  }
  function mean(sums, key) { return sums[key] / runs[key] }
  function added(key, direct) { return mean(p99, key) - mean(p99, direct) }
  END {
    n = split(counts, clients, " ")
    split("simple extended prepared", modes, " ")
    split("direct pgbouncer foreshard", targets, " ")
    for (c = 1; c <= n; c++) {
      printf "\n%s clients\n", clients[c]
      printf "%-9s %-10s %10s %11s %10s %14s\n", "protocol", "target", "tps", "latency ms", "p99 ms", "CPU us/query"
      for (m = 1; m <= 3; m++) {
        for (t = 1; t <= 3; t++) {
          key = clients[c] " " modes[m] " " targets[t]
          mark = (key ~ "prepared pgbouncer") ? note : ""
          us = (t == 1) ? "-" : sprintf("%.1f", cpu[key] / count[key] * 1e6)
          printf "%-9s %-10s %10.0f %11.3f %10.3f %14s\n", modes[m], targets[t] mark, mean(tps, key), mean(latency, key), mean(p99, key), us
        }
        f = clients[c] " " modes[m] " foreshard"; p = clients[c] " " modes[m] " pgbouncer"
        d = clients[c] " " modes[m] " direct"
        printf "%-9s foreshard / PgBouncer: CPU a query %.2f, tps %.2f, p99 %.2f, p99 added to direct %.3f / %.3f ms;  / direct: tps %.2f\n", "",
          (cpu[p] > 0) ? (cpu[f] / count[f]) / (cpu[p] / count[p]) : 0, mean(tps, f) / mean(tps, p),
          mean(p99, f) / mean(p99, p), added(f, d), added(p, d), mean(tps, f) / mean(tps, d)
      }
    }
    printf "\nPgBouncer %s, transaction pooling.", version
    if (note != "") printf " * session pooling: this version can not do prepared statements otherwise."
    printf "\n"
  }' "$work/results"
