#!/usr/bin/env bash
# Statements that sqlsmith makes up, over three nodes with sharded tables and on one PostgreSQL. Prints counts:
# same, refused, wrong; fails where an answer is wrong or a client was dropped.
#
# COUNT (2000) statements by SEED (1). FORESHARD (target/release/foreshard) and OUT (where what is not the same is
# written; default target/sqlsmith) can be set. Needs Python 3.10 and psycopg 3.
set -euo pipefail
cd "$(dirname "$0")/../../.."

foreshard=$(realpath "${FORESHARD:-target/release/foreshard}")
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | head -n 1)
PG_BINARIES=$bin python3 integration/regress/sharded/smith.py "$foreshard" "${OUT:-target/sqlsmith}" "${COUNT:-2000}" "${SEED:-1}"
