"""psycopg 3 through the proxy: every step must give what PostgreSQL gives."""

import datetime
import decimal
import sys
import threading

import psycopg
import psycopg_pool

dsn = sys.argv[1]

with psycopg.connect(dsn, autocommit=True) as c:
    c.execute("CREATE TABLE py (id int PRIMARY KEY, note text, tags text[], amount numeric(20,5), at timestamptz, raw bytea, doc jsonb)")
    at = datetime.datetime(2024, 2, 29, 12, 30, 1, 123456, tzinfo=datetime.timezone.utc)
    row = (1, "it's ünïcode", ["a", 'b"c', None], decimal.Decimal("12345678901234.56789"), at, b"\x00\xff", '{"a": [1, null]}')
    c.execute("INSERT INTO py VALUES (%s, %s, %s, %s, %s, %s, %s)", row)
    # Prepared statements, text and binary, the same statement often.
    for binary in (False, True):
        with c.cursor(binary=binary) as cur:
            for _ in range(8):
                cur.execute("SELECT * FROM py WHERE id = %s", (1,), prepare=True)
                got = cur.fetchone()
                assert got[:6] == row[:6], got
                assert got[6] == {"a": [1, None]}, got

    # The driver deallocates by SQL what it has prepared by the protocol.
    c.prepared_max = 2
    for text in ("1", "2", "3", "4", "1", "2", "3"):
        got = c.execute(f"SELECT {text}::int + %s", (1,), prepare=True).fetchone()
        assert got == (int(text) + 1,), got
    c.execute("DEALLOCATE ALL")
    c.prepared_max = 100

    # Transactions, savepoints, errors.
    with c.transaction():
        c.execute("INSERT INTO py (id) VALUES (2)")
        try:
            with c.transaction():
                c.execute("INSERT INTO py (id) VALUES (2)")
            raise AssertionError("a double key")
        except psycopg.errors.UniqueViolation as error:
            assert error.sqlstate == "23505" and error.diag.constraint_name == "py_pkey", error.diag
            assert error.diag.table_name == "py"
    try:
        c.execute("SELECT nothing FROM py")
        raise AssertionError("no such column")
    except psycopg.errors.UndefinedColumn as error:
        assert error.diag.statement_position == "8", error.diag.statement_position
    try:
        with c.transaction():
            c.execute("DELETE FROM py")
            raise ValueError
    except ValueError:
        pass
    assert c.execute("SELECT count(*) FROM py").fetchone() == (2,)

    # A pipeline, and many rows at once.
    with c.pipeline():
        cursors = [c.execute("SELECT %s::int * 2", (n,)) for n in range(50)]
        assert [cur.fetchone()[0] for cur in cursors] == [2 * n for n in range(50)]
    with c.cursor() as cur:
        cur.executemany("INSERT INTO py (id, note) VALUES (%s, %s)", [(n, f"n{n}") for n in range(10, 110)])
        assert cur.rowcount == 100

    # COPY both ways, text and binary.
    with c.cursor() as cur:
        with cur.copy("COPY py (id, note) FROM STDIN") as copy:
            for n in range(1000, 3000):
                copy.write_row((n, f"copied\t{n}"))
        with cur.copy("COPY (SELECT id, note FROM py WHERE id >= 1000 ORDER BY id) TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            rows = list(copy.rows())
        assert len(rows) == 2000 and rows[0] == (1000, "copied\t1000"), rows[:2]
        try:
            with cur.copy("COPY py (id) FROM STDIN") as copy:
                copy.write("nonsense\n")
            raise AssertionError("COPY of nonsense")
        except psycopg.errors.InvalidTextRepresentation:
            pass

    # A cursor of the server, and a result that streams.
    with c.transaction(), c.cursor(name="held") as cur:
        cur.itersize = 100
        cur.execute("SELECT id FROM py WHERE id >= 1000 ORDER BY id")
        assert sum(1 for _ in cur) == 2000

    # The same over rows of several nodes, of one, and beside writes: it describes the cursor as a portal.
    c.execute("CREATE TABLE IF NOT EXISTS sharded (id bigint PRIMARY KEY)")
    c.execute("INSERT INTO sharded SELECT generate_series(100001, 100040)")
    for where, found in (("id > 100000 ORDER BY id", 40), ("id = 100007", 1), ("id < 0", 0)):
        for hold in (False, True):
            for binary in (False, True):
                with c.transaction(), c.cursor(name='Of "Ours"', withhold=hold) as cur:
                    c.execute("UPDATE sharded SET id = id WHERE id > 100000")
                    cur.execute(f"SELECT id, 'x' AS word FROM sharded WHERE {where}", binary=binary)
                    assert [(column.name, column.type_code) for column in cur.description] == [("id", 20), ("word", 25)]
                    rows = cur.fetchmany(3) + cur.fetchall()
                    assert len(rows) == found and all(row[1] == "x" for row in rows), (where, rows)
    with c.transaction(), c.cursor(name="back", scrollable=True) as cur:
        cur.execute("SELECT id FROM sharded WHERE id > 100000 ORDER BY id")
        cur.scroll(39)
        assert cur.fetchone() == (100040,)
        cur.scroll(0, mode="absolute")
        assert cur.fetchone() == (100001,)

    # LISTEN and NOTIFY.
    with psycopg.connect(dsn, autocommit=True) as other:
        c.execute("LISTEN py_news")
        other.execute("SELECT pg_notify('py_news', 'hello')")
        note = next(c.notifies(timeout=20))
        assert (note.channel, note.payload) == ("py_news", "hello"), note
        c.execute("UNLISTEN *")

    # Settings and notices follow the session.
    c.execute("SET application_name = 'psycopg test'")
    notices = []
    c.add_notice_handler(lambda diag: notices.append(diag.message_primary))
    c.execute("DO $$ BEGIN RAISE NOTICE 'told'; END $$")
    assert notices == ["told"], notices
    assert c.execute("SHOW application_name").fetchone() == ("psycopg test",)

# A libpq of PostgreSQL 18 can insist on protocol 3.2, which has longer cancel keys.
if psycopg.pq.version() >= 180000:
    for version in ("3.0", "3.2", "latest"):
        newest = {"min_protocol_version": version, "max_protocol_version": version}
        with psycopg.connect(dsn, autocommit=True, **newest) as c:
            timer = threading.Timer(0.5, c.cancel_safe)
            timer.start()
            try:
                c.execute("SELECT pg_sleep(60)")
                raise AssertionError("not cancelled")
            except psycopg.errors.QueryCanceled:
                pass
            timer.join()
            assert c.execute("SELECT 1").fetchone() == (1,)
else:
    print("libpq is older than PostgreSQL 18", file=sys.stderr)

# A pool.
with psycopg_pool.ConnectionPool(dsn, min_size=2, max_size=4, open=True) as pool:
    pool.wait(timeout=30)
    for n in range(40):
        with pool.connection() as pooled:
            assert pooled.execute("SELECT %s::int", (n,)).fetchone() == (n,)
print("ok")
