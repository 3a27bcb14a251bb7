#!/usr/bin/env bash
# PostgreSQL's regression SQL with most of its tables sharded or copied to three nodes, statement by
# statement beside one PostgreSQL. Prints counts a file: the same, differing, refused, tables that differ.
#
# run.sh [NAME…]: these files only. FORESHARD (target/release/foreshard) and WORK (a cache of source and
# results; default target/regress) can be set. Needs Python 3.10 and psycopg 3.
set -euo pipefail
cd "$(dirname "$0")/../../.."

foreshard=$(realpath "${FORESHARD:-target/release/foreshard}")
source integration/regress/source.sh
python3 -c 'import psycopg' 2>/dev/null || fail "psycopg is not installed: pip install 'psycopg[binary]'"
PG_BINARIES=$bin python3 integration/regress/sharded/compare.py "$foreshard" "$work" "$work/sharded" "$@"
