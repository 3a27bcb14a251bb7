"""Statements that sqlsmith makes up, through a proxy whose policy shards the tables and on one PostgreSQL.

smith.py FORESHARD OUT COUNT SEED: counts on the standard output, what differs in OUT/SEED.txt; the exit code is
1 where an answer is wrong or a client was dropped."""

import collections
import os
import re
import signal
import subprocess
import sys
import tempfile

from answers import error, is_ordered, plain, rounded, shown
from nodes import Connection, Dropped, Hang, Nodes
from split import split

FIRST_PORT = 28510
FOLDER = os.path.dirname(os.path.abspath(__file__))
POLICY = """groups:
  shop: {key: bigint, shards: 6, tables: {accounts: id, orders: account_id, lines: account_id}}
  days: {key: date, method: range, split_at: [2026-03-01, 2026-06-01], tables: {days: day}}
  places: {key: text, method: list, values: [[eu, uk], [us]], default: true, tables: {places: region}}
  pairs: {key: [integer, text], shards: 4, tables: {pairs: [a, b]}}
reference_tables: [plans]"""
TABLES = ("plans", "accounts", "orders", "lines", "days", "places", "pairs", "notes")
# Functions that say something of the moment, the session, the server or its objects: sqlsmith does not see them,
# but for those that it needs itself.
OF_SERVER = (
    "pg_|txid_|inet_|has_|row_security|ts_|to_reg|current_|format_type|obj_|col_|shobj|version"
    "|(schema|database|table|query|cursor)_to_"
)
NEEDED = (
    "version|current_database|pg_(my_temp_schema|is_other_temp_schema|has_role|relation_is_updatable)"
    "|has_(table|any_column)_privilege"
)
HIDDEN = f"""DELETE FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname !~ '^({NEEDED})$'
  AND (provolatile = 'v' OR provolatile = 's' AND (pronargs = 0 OR proname ~ '^({OF_SERVER})'))"""
LEFT_OUT = re.compile(rf"\b({NEEDED})\(")
# Ways of one PostgreSQL to run a statement. What gives other rows by them has no one answer.
WAYS = (
    "",
    "enable_hashjoin = off; SET enable_hashagg = off",
    "enable_mergejoin = off; SET enable_nestloop = off; SET enable_sort = off",
    "enable_seqscan = off; SET enable_material = off; SET enable_memoize = off",
)
WRITES = re.compile(r"(?is)\s*(insert|update|delete|merge|with\b.*\b(insert\s+into|update|delete\s+from)\s)")
LIMIT = re.compile(r"(?i)\blimit \d+")
LOCKS = re.compile(r"(?i)\bfor\s+(no\s+key\s+)?(update|key\s+share|share)\b")
ONE_ROW = re.compile(r"\(select (\w+) from ([\w.]+) limit 1\b")
SECONDS = 3


def statements(port, count, seed):
    """What sqlsmith makes of the catalog of a database, with all rows in samples of tables, and an order where
    it takes one row."""
    target = f"host=127.0.0.1 port={port} user=postgres dbname=smith"
    words = ["sqlsmith", f"--target={target}", f"--seed={seed}", f"--max-queries={count}"]
    made = subprocess.run([*words, "--dry-run", "--exclude-catalog"], capture_output=True, check=True)
    text = re.sub(r"(tablesample (?:system|bernoulli)) \([\d.]+\)", r"\1 (100)", made.stdout.decode())
    text = ONE_ROW.sub(r'(select \1 from \2 order by \1::text collate "C" limit 1', text)
    text = text.replace("pg_catalog.pg_my_temp_schema()", "cast(0 as oid)")
    return [item.text for item in split(text, {}) if item.kind == "sql"]


def read(name):
    with open(f"{FOLDER}/{name}", encoding="utf8") as file:
        return file.read()


class Side:
    """One database that statements are run in; each leaves it as it was."""

    def __init__(self, port, database="regression"):
        self.port, self.database, self.connection = port, database, None
        self.revive()

    def revive(self):
        if self.connection:
            self.connection.close()
        self.connection = Connection(self.port, self.database)
        self.connection.run(f"SET statement_timeout = '{SECONDS}s'")

    def told(self, sql, data=None):
        answers = self.connection.run(sql, data)
        if error(answers):
            raise RuntimeError(f"{self.database}: {sql}: {answers}")
        return answers

    def fill(self, rows):
        self.told(f"TRUNCATE {', '.join(TABLES)}")
        for table in TABLES:
            self.told(f"COPY {table} FROM STDIN", rows[table])

    def rows(self):
        """The rows of each table, in their order in it."""
        return {table: b"".join(row[0] for row in self.told(f"COPY {table} TO STDOUT")[0][2]) for table in TABLES}

    def run(self, sql, writes):
        """The answers, and the tables' rows behind a write, which is taken back."""
        if writes:
            self.told("BEGIN")
        try:
            answers = self.connection.run(sql)
            if not writes or error(answers):
                return answers, None
            return answers, {table: sorted(data.split(b"\n")) for table, data in self.rows().items()}
        finally:
            if writes:
                self.connection.run("ROLLBACK")


def same(one, other, ordered):
    return one[1] == other[1] and plain(one[0], ordered) == plain(other[0], ordered)


def almost(one, other):
    """The same but for the last digits of floating-point numbers."""
    return one[1] == other[1] and not error(one[0]) and not error(other[0]) and rounded(one[0]) == rounded(other[0])


def without_modifiers(outcome):
    """A type's modifier may be what PostgreSQL's planner makes of an expression: COALESCE(x, NULL) is x."""
    columns = lambda it: [(name, kind) for name, kind, _ in it]
    answers = [("rows", columns(it[1]), *it[2:]) if it[0] == "rows" else it for it in outcome[0]]
    return answers, outcome[1]


class Smith:
    """The sides, and what came of the statements."""

    def __init__(self, proxy, single, other):
        self.proxy, self.single, self.other = proxy, single, other
        self.count, self.notes = collections.Counter(), []

    def note(self, kind, at, sql, answers=()):
        self.count[kind] += 1
        if kind not in ("same rows", "same error"):
            names = ("proxy ", "single")
            both = "".join(f"\n   {name} {shown(it)}" for name, it in zip(names, answers))
            self.notes.append(f"[{kind}] {at} {sql}{both}\n")

    def statement(self, at, sql):
        if LEFT_OUT.search(sql):
            self.note("left out: asks the server", at, sql)
            return
        # Locks are let go of again; a third of the writes stands alone and is undone by writing the rows again.
        writes = bool(WRITES.match(sql))
        in_block = writes and at % 3 > 0
        single = self.single.run(sql, writes or bool(LOCKS.search(sql)))
        failed = error(single[0])
        if failed and failed[1] == "57014":
            self.note("left out: takes too long", at, sql)
            return
        try:
            proxy = self.proxy.run(sql, in_block) if in_block or not writes else self.alone(sql)
        except (Dropped, Hang) as fault:
            self.note("dropped", at, sql, ([("error", repr(fault))], single[0]))
            self.proxy.revive()
            return
        kind = self.kind(sql, writes, proxy, single)
        self.note(kind, at, sql, (proxy[0], single[0]))

    def alone(self, sql):
        """A write outside of a block."""
        answers = self.proxy.connection.run(sql)
        if error(answers):
            return answers, None
        rows = {table: sorted(data.split(b"\n")) for table, data in self.proxy.rows().items()}
        self.proxy.fill(self.filled)
        return answers, rows

    def kind(self, sql, writes, proxy, single):
        ordered = is_ordered(sql)
        ours, theirs = error(proxy[0]), error(single[0])
        if same(proxy, single, ordered):
            return "same error" if ours else "same rows"
        if ours and ours[1] == "57014":
            return "left out: takes too long"
        if ours and ours[1] == "0A000":
            return "refused, an error anyway" if theirs else "refused"
        if not self.has_one_answer(sql, writes, single, ordered):
            return "left out: no one answer"
        if ours and theirs:
            return "another SQLSTATE"
        if same(without_modifiers(proxy), without_modifiers(single), ordered):
            return "another type modifier"
        if almost(proxy, single):
            return "rounding"
        if ours:
            return "an error only here"
        if LIMIT.search(sql) and not theirs and self.same_without_limits(sql, writes):
            return "left out: LIMIT of rows in no order"
        return "WRONG"

    def has_one_answer(self, sql, writes, single, ordered):
        """Whether PostgreSQL says the same with the rows in another order, whatever way it runs it."""
        for way in WAYS:
            self.other.told(f"SET {way}" if way else "RESET ALL")
            self.other.told(f"SET statement_timeout = '{5 * SECONDS}s'")
            found = self.other.run(sql, writes)
            self.other.told("RESET ALL")
            if not same(found, single, ordered) and not almost(found, single):
                return False
        return True

    def same_without_limits(self, sql, writes):
        text = LIMIT.sub("", sql)
        proxy, single = (side.run(text, writes) for side in (self.proxy, self.single))
        return not error(single[0]) and (same(proxy, single, is_ordered(text)) or almost(proxy, single))


def prepare(nodes):
    """The databases with their tables and rows; then the sides."""
    postgres = Connection(nodes.ports[3], "postgres")
    for database in ("smith", "other"):
        postgres.run(f"CREATE DATABASE {database} TEMPLATE template0")
    postgres.close()
    sides = [Side(nodes.proxy_port), Side(nodes.ports[3]), Side(nodes.ports[3], "other")]
    for side in [*sides, Side(nodes.ports[3], "smith")]:
        for item in split(read("smith.sql"), {}):
            side.told(item.text)
        if side.database == "smith":
            side.told("SET allow_system_table_mods = on")
            side.told(HIDDEN)
            side.connection.close()
    for item in split(read("smith_rows.sql"), {}):
        sides[1].told(item.text)
    smith = Smith(*sides)
    smith.filled = {table: data.decode() for table, data in sides[1].rows().items()}
    sides[0].fill(smith.filled)
    sides[2].fill({table: "\n".join([*reversed(data.split("\n")[:-1]), ""]) for table, data in smith.filled.items()})
    for side in sides:
        side.told("ANALYZE")
    return smith


def main():
    foreshard, out, count, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    # The nodes are stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.makedirs(out, exist_ok=True)
    server = smith = None
    with tempfile.TemporaryDirectory(prefix="foreshard-smith.") as folder:
        nodes = Nodes(folder, os.environ["PG_BINARIES"], FIRST_PORT)
        try:
            nodes.start()
            nodes.clean()
            server = nodes.serve(foreshard, POLICY, f"{out}/{seed}.proxy.log")
            smith = prepare(nodes)
            for at, sql in enumerate(statements(nodes.ports[3], count, seed)):
                smith.statement(at, sql)
        finally:
            if server:
                server.terminate()
                server.wait(30)
            nodes.stop()
            if smith:
                with open(f"{out}/{seed}.txt", "w", encoding="utf8", errors="replace") as report:
                    report.write("\n".join(smith.notes))
    print(f"seed {seed}, {sum(smith.count.values())} statements")
    for kind, number in smith.count.most_common():
        print(f"{number:7} {kind}")
    print(f"what is not the same: {out}/{seed}.txt")
    sys.exit(1 if smith.count["WRONG"] or smith.count["dropped"] else 0)


main()
