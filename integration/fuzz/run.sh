#!/usr/bin/env bash
# Fuzzes what reads bytes of clients and nodes, one target after the other, each for FUZZ_SECONDS (60).
# Finds are kept in artifacts/, what has led to new code in corpus/. TARGETS names some of them.
set -euo pipefail
cd "$(dirname "$0")"
read -ra targets <<<"${TARGETS:-client_bytes node_bytes statement_text statement_route}"

# What cargo-fuzz gives the compiler, without its sanitizers: there is no unsafe code to look at.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1" \
  cargo build --release --target "$host" $(printf -- '--bin %s ' "${targets[@]}")

# The statements of the differential tests are where fuzzing of texts begins.
seeds=$(mktemp -d)
trap 'rm -rf "$seeds"' EXIT
awk -v out="$seeds" 'BEGIN { RS = ";\n" } { printf "%s", $0 > (out "/" ++n); close(out "/" n) }' \
  ../differential/statements/*.sql
for target in "${targets[@]}"; do
  mkdir -p "corpus/$target" artifacts
  echo "== $target"
  extra=()
  case $target in statement_*) extra=("$seeds") ;; esac
  "target/$host/release/$target" -max_total_time="${FUZZ_SECONDS:-60}" -timeout=10 \
    -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 -artifact_prefix="artifacts/$target-" \
    "corpus/$target" "${extra[@]}"
done
echo "no find in ${#targets[@]} targets"
