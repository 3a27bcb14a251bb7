INSERT INTO plans SELECT i, 'plan ' || i, i * 2, NULLIF('n' || i, 'n3') FROM generate_series(1, 6) i;
INSERT INTO settings SELECT 's' || i, i * 3, CASE WHEN i % 3 > 0 THEN 'tenant ' || i END FROM generate_series(1, 8) i;
INSERT INTO journal SELECT i, i % 26, 'did ' || i % 4 FROM generate_series(1, 15) i;
INSERT INTO tenants SELECT i, 'tenant ' || i, CASE WHEN i % 5 > 0 THEN 1 + i % 5 END, i % 7,
  CASE WHEN i % 3 > 0 THEN ARRAY['a', 't' || i % 4] END, date '2024-01-01' + (i % 25)::int FROM generate_series(1, 24) i;
INSERT INTO orders SELECT t, n, (ARRAY['open', 'paid', 'sent'])[1 + (t + n) % 3], t * n * 1.25, date '2024-01-01' + ((t + n * 5) % 25)::int
  FROM generate_series(1, 24) t, generate_series(1, 2 + t % 2) n;
INSERT INTO items SELECT tenant_id, id, l, 'sku-' || (tenant_id + l) % 6, l * 3 FROM orders, generate_series(1, 1 + (tenant_id + id) % 2) l
  WHERE (tenant_id + id) % 4 > 0;
INSERT INTO notes SELECT t, t * 10 + n, CASE WHEN n = 1 THEN 1 END, CASE WHEN t % 6 > 0 THEN 'note ' || t % 5 END
  FROM generate_series(1, 24) t, generate_series(1, 2) n;
INSERT INTO users SELECT t, t * 10 + n, 'u' || t * 10 + n || '@x', (ARRAY['Rome', 'Oslo', 'Bern', NULL])[1 + (t + n) % 4], t % 5
  FROM generate_series(1, 24) t, generate_series(1, 1 + t % 2) n;
INSERT INTO gone SELECT i, 1, 'old' FROM generate_series(1, 5) i;
INSERT INTO parcels SELECT 'p' || i, i, 1 + i % 26, i / 4.0, date '2024-01-01' + i % 25 FROM generate_series(1, 30) i;
INSERT INTO devices SELECT o, 's' || n, (ARRAY['alpha', 'beta', NULL])[1 + n % 3], o * n FROM generate_series(1, 5) o, generate_series(1, 4) n;
INSERT INTO readings SELECT org, serial, n, org + n * 2, date '2024-01-01' + n * 4 FROM devices, generate_series(1, 2) n WHERE (org + n) % 3 > 0;
INSERT INTO metrics SELECT date '2024-01-01' + d, v, d * v, 'm' || (d + v) % 5 FROM generate_series(0, 24) d, generate_series(1, 2) v;
SELECT setval('journal_id_seq', 1000), setval('parcels_id_seq', 1000);
