"""The same migrations through a proxy and on one PostgreSQL: both have the same tables and rows after each."""

import subprocess

import psycopg

CATALOG = """SELECT c.relname, array(SELECT conname || ' ' || convalidated || ' ' || pg_get_constraintdef(oid)
    FROM pg_constraint WHERE conrelid = c.oid ORDER BY conname)::text
  FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1"""
TYPES = """SELECT t.typname, array_agg(e.enumlabel ORDER BY e.enumsortorder)::text
  FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid GROUP BY 1 ORDER BY 1"""


def psql(url, command):
    done = subprocess.run(["psql", "-X", "-c", command, url], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def state(url):
    """What psql says of each table, its constraints, its rows, and the enums."""
    with psycopg.connect(url, autocommit=True) as connection:
        tables = connection.execute(CATALOG).fetchall()
        found = {"types": connection.execute(TYPES).fetchall(), "relations": psql(url, "\\d")}
        for name, constraints in tables:
            rows = connection.execute(f"SELECT to_jsonb(t) - 'applied' FROM \"{name}\" t").fetchall()
            found[name] = (psql(url, f'\\d+ "{name}"'), constraints, sorted(map(repr, rows)))
    return found


def compare(proxy, plain, where):
    """Says where they differ, and fails then."""
    ours, theirs = state(proxy), state(plain)
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            raise AssertionError(f"{where}: {name}\nproxy: {ours.get(name)}\nplain: {theirs.get(name)}")
