// node-postgres through the proxy: every step must give what PostgreSQL gives.
'use strict';
const assert = require('assert');
const { Client, Pool } = require('pg');
const { from, to } = require('pg-copy-streams');
const { pipeline } = require('stream/promises');
const { Readable } = require('stream');

const connectionString = process.argv[2];

async function main() {
  const c = new Client({ connectionString });
  await c.connect();
  await c.query('CREATE TABLE js (id int PRIMARY KEY, note text, tags text[], amount numeric, at timestamptz, raw bytea, doc jsonb)');
  const at = new Date('2024-02-29T12:30:01.123Z');
  const row = [1, "it's ünïcode", ['a', 'b"c', null], '12345678901234.56789', at, Buffer.from([0, 255]), { a: [1, null] }];
  await c.query('INSERT INTO js VALUES ($1, $2, $3, $4, $5, $6, $7)', row);
  for (let round = 0; round < 5; round++) {
    const { rows, fields } = await c.query({ name: 'by-id', text: 'SELECT * FROM js WHERE id = $1', values: [1] });
    assert.deepStrictEqual(Object.values(rows[0]), row);
    assert.strictEqual(fields[3].dataTypeID, 1700);
  }
  const binary = await c.query({ text: 'SELECT id FROM js WHERE id = $1', values: [1], binary: true });
  assert.strictEqual(binary.rows[0].id, 1);

  // Several statements in one text; transactions; errors.
  const several = await c.query("SELECT 1 AS a; INSERT INTO js (id) VALUES (2); SELECT count(*)::int AS n FROM js");
  assert.deepStrictEqual(several.map((r) => r.command), ['SELECT', 'INSERT', 'SELECT']);
  assert.strictEqual(several[2].rows[0].n, 2);
  await c.query('BEGIN');
  await c.query('INSERT INTO js (id) VALUES (3)');
  await assert.rejects(c.query('INSERT INTO js (id) VALUES (3)'), { code: '23505', constraint: 'js_pkey', table: 'js' });
  await assert.rejects(c.query('SELECT 1'), { code: '25P02' });
  await c.query('ROLLBACK');
  await assert.rejects(c.query('SELECT nothing FROM js'), { code: '42703', position: '8' });
  assert.strictEqual((await c.query('SELECT count(*)::int AS n FROM js')).rows[0].n, 2);

  // COPY both ways.
  const lines = Array.from({ length: 2000 }, (_, n) => `${1000 + n}\tnote ${n}\n`);
  await pipeline(Readable.from(lines), c.query(from('COPY js (id, note) FROM STDIN')));
  let bytes = 0;
  for await (const chunk of c.query(to('COPY (SELECT note FROM js WHERE id >= 1000 ORDER BY id) TO STDOUT'))) bytes += chunk.length;
  assert.strictEqual(bytes, lines.reduce((sum, line) => sum + line.length - 5, 0));

  // Notifications, notices.
  const other = new Client({ connectionString });
  await other.connect();
  const heard = new Promise((resolve) => c.once('notification', resolve));
  await c.query('LISTEN js_news');
  await other.query("SELECT pg_notify('js_news', 'hello')");
  assert.strictEqual((await heard).payload, 'hello');
  const noticed = new Promise((resolve) => other.once('notice', resolve));
  await other.query("DO $$ BEGIN RAISE NOTICE 'told'; END $$");
  assert.strictEqual((await noticed).message, 'told');
  await other.end();
  await c.end();

  // A pool, with statements at the same time.
  const pool = new Pool({ connectionString, max: 4 });
  const sums = await Promise.all(Array.from({ length: 60 }, (_, n) => pool.query('SELECT $1::int * 2 AS x', [n])));
  assert.deepStrictEqual(sums.map((r) => r.rows[0].x), Array.from({ length: 60 }, (_, n) => 2 * n));
  await pool.end();
  console.log('ok');
}

main().catch((error) => { console.error(error); process.exit(1); });
