"""asyncpg through the proxy: it prepares everything, and speaks binary only."""

import asyncio
import datetime
import decimal
import sys
import uuid

import asyncpg

dsn = sys.argv[1]


async def main():
    c = await asyncpg.connect(dsn)
    await c.execute("CREATE TABLE apg (id bigint PRIMARY KEY, amount numeric, at timestamp, day date, u uuid, ns int[], doc jsonb, ok bool, f float8)")
    row = (7, decimal.Decimal("-0.000123"), datetime.datetime(1999, 12, 31, 23, 59, 59, 999999), datetime.date(2024, 2, 29), uuid.uuid4(), [1, None, 3], '{"k": "v"}', True, 1.5e300)
    await c.execute("INSERT INTO apg VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)", *row)
    for _ in range(5):
        got = tuple(await c.fetchrow("SELECT * FROM apg WHERE id = $1", 7))
        assert got == row, got
    statement = await c.prepare("SELECT id FROM apg WHERE u = $1 OR id = ANY($2::bigint[])")
    assert [p.name for p in statement.get_parameters()] == ["uuid", "int8[]"]
    assert await statement.fetchval(row[4], []) == 7

    # Many parameter sets in one exchange.
    await c.executemany("INSERT INTO apg (id) VALUES ($1)", [(n,) for n in range(100, 400)])
    assert await c.fetchval("SELECT count(*) FROM apg") == 301

    # Transactions, nested ones, errors, isolation.
    try:
        async with c.transaction(isolation="serializable"):
            await c.execute("INSERT INTO apg (id) VALUES (1)")
            try:
                async with c.transaction():
                    await c.execute("INSERT INTO apg (id) VALUES (1)")
            except asyncpg.UniqueViolationError as error:
                assert error.constraint_name == "apg_pkey"
            assert await c.fetchval("SHOW transaction_isolation") == "serializable"
            raise ValueError
    except ValueError:
        pass
    assert await c.fetchval("SELECT count(*) FROM apg WHERE id = 1") == 0
    try:
        await c.fetch("SELECT 1/0")
        raise AssertionError("a division by zero")
    except asyncpg.DivisionByZeroError:
        pass

    # Portals in steps, COPY in binary.
    async with c.transaction():
        seen = [record["g"] async for record in c.cursor("SELECT g FROM generate_series(1, 500) g", prefetch=37)]
    assert seen == list(range(1, 501))
    copied = await c.copy_records_to_table("apg", columns=["id", "amount"], records=[(n, decimal.Decimal(n)) for n in range(1000, 2000)])
    assert copied == "COPY 1000", copied

    # Notifications.
    heard = asyncio.get_running_loop().create_future()
    await c.add_listener("apg_news", lambda _c, _pid, channel, payload: heard.set_result((channel, payload)))
    other = await asyncpg.connect(dsn)
    await other.execute("NOTIFY apg_news, 'x'")
    assert await asyncio.wait_for(heard, 20) == ("apg_news", "x")

    # A statement that is given up is cancelled, and the connection goes on.
    try:
        await other.fetch("SELECT pg_sleep(60)", timeout=0.3)
        raise AssertionError("too long")
    except asyncio.TimeoutError:
        pass
    assert await other.fetchval("SELECT 5") == 5
    await other.close()
    await c.close()

    # A pool, which resets what it takes back.
    async with asyncpg.create_pool(dsn, min_size=2, max_size=5) as pool:
        async def work(n):
            async with pool.acquire() as pooled:
                await pooled.execute(f"SET work_mem = '{64 + n}kB'")
                assert await pooled.fetchval("SELECT $1::int", n) == n
                return await pooled.fetchval("SHOW work_mem")
        shown = await asyncio.gather(*(work(n) for n in range(40)))
        assert shown == [f"{64 + n}kB" for n in range(40)], shown


asyncio.run(main())
print("ok")
