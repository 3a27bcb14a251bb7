"""PostgreSQL's regression SQL, statement by statement: through a proxy whose policy shards most tables, and
on one PostgreSQL. compare.py FORESHARD WORK OUT [NAME…]"""

import collections
import json
import os
import re
import signal
import sys
import tempfile
import time
import traceback

from answers import error, is_ordered, plain, rounded, shown
from nodes import Connection, Dropped, Hang, Nodes
from policy import build
from split import Item, split

os.environ.update(PGTZ="PST8PDT", PGDATESTYLE="Postgres, MDY")
FIRST_PORT = 28500

# What differs between nodes, or is the proxy's to show otherwise.
CATALOG = re.compile(
    r"(?i)\b(pg_\w+|information_schema|tableoid|ctid|[xc]m(in|ax)|regclass|relname|txid_\w+|oid)\b|explain"
)
RANDOM = re.compile(r"(?i)random\(|clock_timestamp|tablesample|\bnow\(\)|current_timestamp|'now'")
# No statements for a session: they name files of the server, or the database.
LEFT_OUT = re.compile(
    r"(?i)(explain|vacuum|reindex|cluster|load|(create|drop|alter) database|(create|drop) tablespace|alter system)\b"
)
NOT_IN_BLOCK = re.compile(
    r"(?i)(begin|start|commit|rollback|end|vacuum|create\s+(unique\s+)?index\s+concurr|drop index concurr|discard|set)\b"
)
DEFINES = re.compile(
    r"(?is)(?:create\s+(?:unlogged\s+)?table\s+(?:if\s+not\s+exists\s+)?|alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?"
    r"|create\s+unique\s+index\s.*?\son\s+(?:only\s+)?|create\s+(?:or\s+replace\s+)?rule\s.*?\sto\s+"
    r"|create\s+(?:constraint\s+)?trigger\s.*?\son\s+)([a-z_0-9.]+)"
)
WRITTEN = re.compile(r"(?i)\b(?:into|update|from|copy)\s+(?:only\s+)?([a-z_0-9.]+)")
# Files that need what others define.
BEFORE = {"select": ["create_misc"], "join": ["create_misc"], "select_views": ["create_view"]}
# Copies of tables that cursors are read from.
SECOND = re.compile(r"CREATE TABLE (onek2|tenk2) AS SELECT \* FROM (\w+)$")


class File:
    """One file, both ways."""

    def __init__(self, name, home, nodes, work):
        self.name, self.home, self.nodes, self.work = name, home, nodes, work
        self.source = f"{work}/source/src/test/regress"
        self.count, self.notes = collections.Counter(), []
        # Tables that are not what the proxy shards; those that differ already.
        self.also_home, self.different = set(), set()

    def items(self, name, variables):
        with open(f"{self.source}/sql/{name}.sql", encoding="utf8", errors="surrogateescape") as file:
            return split(file.read(), variables)

    def run(self, foreshard, out):
        before = ["test_setup"] + BEFORE.get(self.name, [])
        everything = (item for name in [*before, self.name] for item in self.items(name, {}))
        statements = [item.text for item in everything if item.kind == "sql"]
        policy, self.sharded, self.reference = build(statements, self.home)
        self.nodes.clean()
        server = self.nodes.serve(foreshard, policy, f"{out}/{self.name}.proxy.log")
        self.proxy = self.single = None
        try:
            self.proxy, self.single = Connection(self.nodes.proxy_port), Connection(self.nodes.ports[3])
            for name in before:
                self.file(name, False)
            self.file(self.name, True)
            self.revive()
            for table in sorted(self.sharded | self.reference):
                self.table(table, "at the end")
        finally:
            for connection in filter(None, (self.proxy, self.single)):
                connection.close()
            server.terminate()
            server.wait(30)

    def file(self, name, judged):
        variables = {"abs_srcdir": self.source, "libdir": f"{self.work}/lib", "dlsuffix": ".so"}
        variables |= {f"{lib}lib": f"{self.work}/lib/{lib}.so" for lib in ("regress", "autoinc", "refint")}
        variables["abs_builddir"] = self.nodes.folder
        skipping = []
        for item in self.items(name, variables):
            if item.kind == "sql":
                if not any(skipping):
                    self.statement(item, variables, judged, name)
            elif not self.meta(item.text.split(), variables, skipping):
                return

    def meta(self, words, variables, skipping):
        """psql's own commands; whether the file goes on."""
        match words:
            case ["\\if", name, *_]:
                value = variables.get(name.lstrip(":"))
                skipping.append(value not in ("t", "true", "on", "1"))
            case ["\\else"] if skipping:
                skipping[-1] = not skipping[-1]
            case ["\\endif"] if skipping:
                skipping.pop()
            case _ if any(skipping):
                pass
            case ["\\quit"]:
                return False
            case ["\\set", name, *values] if values:
                resolved = lambda it: (
                    variables.get(it.strip(":'"), it.strip("'")) if it[0] == ":" else it.strip("'")
                )
                joined = " ".join(values) if name == "sql" else "".join(map(resolved, values))
                variables[name] = joined
            case ["\\unset", name, *_]:
                variables.pop(name, None)
            case ["\\c" | "\\connect", *where]:
                if where and where[0] != "-" and where[0][0] != "'":
                    return False
                user = where[1] if len(where) > 1 and where[1] != "-" else None
                self.proxy, self.single = self.proxy.again(user), self.single.again(user)
        return True

    def revive(self):
        self.proxy, self.single = self.proxy.again(), self.single.again()

    def note(self, kind, text):
        self.count[kind] += 1
        self.notes.append(f"[{kind}] {text}")

    def sent(self, item):
        """The statement and the data that are sent for it; None if it is left out."""
        sql, data = item.text, item.data
        second = SECOND.match(sql)
        if second:
            # What cursors read without an order has the file's one then.
            for connection in (self.proxy, self.single):
                connection.run(f"CREATE TABLE {second[1]} (LIKE {second[2]})")
            with open(f"{self.source}/data/{second[2].removesuffix('1')}.data", "rb") as file:
                return f"COPY {second[1]} FROM STDIN", file.read()
        copied = re.match(r"(?is)copy\s+(.*?)\s+from\s+'([^']+)'(.*)$", sql)
        if copied and os.path.exists(copied[2]):
            with open(copied[2], "rb") as file:
                return f"COPY {copied[1]} FROM STDIN {copied[3]}", file.read()
        if LEFT_OUT.match(sql.lstrip("( \n")) or re.match(r"(?is)copy\b.*\b(to|from)\s+'", sql):
            return None
        return sql, data

    def statement(self, item, variables, judged, name):
        found = self.sent(item)
        if not found:
            return
        (sql, data), place = found, f"{name}:{item.line}"
        in_block = not self.single.is_idle()
        try:
            proxy = self.proxy.run(sql, data)
        except (Hang, Dropped) as fault:
            self.lost(fault, sql, data, place)
            return
        notices, ours = list(self.proxy.notices), error(proxy)
        if ours and ours[1] == "0A000":
            self.refused((sql, data), place, (ours, in_block), judged)
            return
        try:
            single = self.single.run(sql, data)
        except Dropped:
            self.note("grave", f"{place} only PostgreSQL dropped it: {sql}")
            self.revive()
            return
        self.keep(item, single, variables, judged, name)
        if judged:
            self.judge((sql, place), (proxy, single), notices)

    def keep(self, item, single, variables, judged, name):
        """\\gset and \\gexec."""
        if not item.end or error(single) or single[-1][0] != "rows":
            return
        columns, rows = single[-1][1:3]
        if item.end.startswith("\\gset") and len(rows) == 1:
            prefix = item.end[5:].strip()
            variables.update(
                {prefix + column[0]: (value or b"").decode() for column, value in zip(columns, rows[0])}
            )
        if item.end.startswith("\\gexec"):
            for value in (value for row in rows for value in row if value):
                self.statement(Item("sql", value.decode(), item.line), variables, judged, name)

    def lost(self, fault, sql, data, place):
        try:
            self.note("grave", f"{place} {fault!r}: {sql}\n   single {shown(self.single.run(sql, data))}")
        except Dropped:
            self.count["both dropped"] += 1
        self.revive()

    def refused(self, statement, place, told, judged):
        """What is refused changes nothing on the other side either."""
        (sql, data), (ours, in_block) = statement, told
        undone = not in_block and not NOT_IN_BLOCK.match(sql.lstrip("( \n"))
        if undone:
            self.single.run("BEGIN")
        theirs = error(self.single.run(sql, data))
        if undone:
            self.single.run("ROLLBACK")
        elif in_block and not theirs:
            self.single.run("SELECT 1/0")
        if theirs:
            self.count["same" if theirs[1] == "0A000" else "refused, an error anyway"] += judged
            return
        if judged:
            self.note("refused", f"{place} {sql}\n      {' | '.join(ours[2:])}")
        defined = DEFINES.match(sql)
        if defined:
            also = re.findall(r"(?i)(?:inherits\s*\(\s*|references\s+|like\s+)(\w+)", sql)
            names = {defined[1].lower(), *map(str.lower, also)}
            self.also_home |= names & (self.sharded | self.reference)

    def judge(self, what, answers, notices):
        (sql, place), (proxy, single) = what, answers
        ordered, ours, theirs = is_ordered(sql), error(proxy), error(single)
        both = f"{place} {sql}\n   proxy  {shown(proxy)}\n   single {shown(single)}"
        if plain(proxy, ordered) == plain(single, ordered):
            self.count["same"] += 1
            if ours and ours[2:4] != theirs[2:4]:
                self.note("another message", both)
            elif notices != self.single.notices:
                self.note("other notices", f"{both}\n   proxy  {notices}\n   single {self.single.notices}")
        elif plain(proxy, False) == plain(single, False):
            self.note("another order", both)
        elif not ours and not theirs and rounded(proxy) == rounded(single):
            self.note("rounding", both)
        elif CATALOG.search(sql):
            self.note("catalog", both)
        else:
            self.note("random" if RANDOM.search(sql) else "DIFFERENT", both)
        if self.proxy.status() != self.single.status():
            self.note("DIFFERENT", f"{place} the block's state after {sql}")
            self.proxy.run("ROLLBACK")
            self.single.run("ROLLBACK")
        if re.match(r"(?i)\s*(insert|update|delete|merge|copy|with)\b", sql):
            for table in sorted({table.lower() for table in WRITTEN.findall(sql)}):
                if table in self.sharded or table in self.reference:
                    self.table(table, f"{place} after {sql[:600]}")

    def table(self, table, where):
        """Whether a table has the same rows."""
        if not self.single.is_idle() or table in self.different:
            return
        try:
            single = self.single.run(f"SELECT * FROM {table}")
            if error(single):
                return
            proxy = self.proxy.run(f"SELECT * FROM {table}")
        except (Hang, Dropped) as fault:
            self.note("grave", f"{where} SELECT * FROM {table}: {fault!r}")
            self.revive()
            return
        if plain(proxy, False) != plain(single, False):
            self.different.add(table)
            self.note("TABLE", f"{table}, {where}\n   proxy  {shown(proxy)}\n   single {shown(single)}")


def compared(name, nodes, paths):
    """A file, again where statements on tables are refused that an application would not shard."""
    (foreshard, work, out), home = paths, {"person", "road"}
    for _ in range(4):
        file = File(name, set(home), nodes, work)
        try:
            file.run(foreshard, out)
        except Exception:
            file.note("grave", traceback.format_exc())
        if file.also_home <= home:
            break
        home |= file.also_home
    with open(f"{out}/{name}.txt", "w", encoding="utf8", errors="replace") as report:
        report.write(
            f"sharded {sorted(file.sharded)}\nreference {sorted(file.reference)}\nhome {sorted(home)}\n"
        )
        report.write("\n".join([json.dumps(file.count), *file.notes, ""]))
    return file


def main():
    foreshard, work, out, *names = sys.argv[1:]
    # The nodes are stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.makedirs(out, exist_ok=True)
    if not names:
        with open(f"{work}/source/src/test/regress/parallel_schedule", encoding="utf8") as schedule:
            names = [name for line in schedule if line.startswith("test:") for name in line.split()[1:]]
    total = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="foreshard-sharded.") as folder:
        binaries = os.environ["PG_BINARIES"]
        nodes = Nodes(folder, binaries, FIRST_PORT)
        try:
            nodes.start()
            for name in names:
                started = time.time()
                file = compared(name, nodes, (foreshard, work, out))
                total += file.count
                tables = f"{len(file.sharded)} sharded, {len(file.reference)} reference"
                print(f"{name}: {dict(file.count)}; {tables}; {time.time() - started:.0f} s", flush=True)
        finally:
            nodes.stop()
    print(f"\nall of it: {dict(total)}")
    print(f"what differs, and what is refused: {out}/NAME.txt")


main()
