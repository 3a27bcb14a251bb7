INSERT INTO countries VALUES ('de', 'Deutschland', 84000000), ('fr', 'France', 68000000),
  ('jp', '日本', 124000000), ('pt', 'Portugal', NULL), ('xx', 'Nowhere', 0);
INSERT INTO settings SELECT 's' || i, jsonb_build_object('n', i, 'on', i % 2 = 0),
  CASE WHEN i % 3 = 0 THEN i END FROM generate_series(1, 20) i;
INSERT INTO tenants SELECT i,
  (ARRAY['Ärzte', 'zebra', 'Apple', 'apple', 'Öl & Co', 'Ünder', 'éclair', '東京', 'o''Neil', ''])[1 + i % 10]
    || CASE WHEN i > 30 THEN i::text ELSE '' END,
  (ARRAY['de', 'fr', 'jp', 'pt', NULL, 'zz'])[1 + i % 6], CASE i % 7 WHEN 0 THEN NULL ELSE i % 2 = 0 END,
  date '2020-01-01' + i * 17, CASE WHEN i % 5 > 0 THEN (i * 7 % 100) / 10.0 END
  FROM generate_series(1, 60) i;
INSERT INTO orders SELECT t, t * 100 + n,
  (ARRAY['new', 'paid', 'shipped', 'returned', NULL])[1 + (t * 3 + n) % 5],
  timestamp '2024-01-01' + ((t * 37 + n * 11) % 400) * interval '1 day' + n * interval '7 minutes',
  CASE WHEN n % 3 > 0 THEN timestamptz '2024-02-01 12:00+00' + ((t * 13 + n) % 90) * interval '5 hours' END,
  CASE WHEN (t + n) % 9 > 0 THEN ((t * 7919 + n * 104729) % 100000) / 100.0 END,
  CASE WHEN n % 4 > 0 THEN (t % 8) / 8.0 END,
  CASE n % 4 WHEN 0 THEN NULL WHEN 1 THEN '{}' ELSE ARRAY['t' || t % 3, 'x,"y', NULL] END,
  CASE WHEN n % 5 > 0 THEN 'note ' || chr(65 + (t * n % 26)::int) || ' ' || n END
  FROM generate_series(1, 60) t, generate_series(1, (t % 9)::int) n;
INSERT INTO items SELECT o.tenant_id, o.id, l, 'sku-' || (o.id * l % 17), (o.id + l) % 6,
  (o.id * l % 1000) / 8.0, jsonb_build_object('color', (ARRAY['red', 'blue', NULL])[1 + (o.id + l) % 3], 'n', l)
  FROM orders o, generate_series(1, (o.id % 4)::int) l;
INSERT INTO users SELECT 'user' || i || '@example.' || (ARRAY['com', 'de', 'jp'])[1 + i % 3],
  CASE WHEN i % 6 > 0 THEN (ARRAY['Ada', 'bob', 'Çelik', 'дима', 'Zoë'])[1 + i % 5] || ' ' || i END,
  date '1950-01-01' + i * 301, CASE WHEN i % 4 > 0 THEN i % 60 END, i * 13 % 40,
  CASE WHEN i % 2 = 0 THEN decode(md5(i::text), 'hex') END FROM generate_series(1, 80) i;
INSERT INTO sales.visits SELECT email, timestamptz '2024-05-01 00:00+00' + n * interval '11 hours' + score * interval '1 minute',
  '/p/' || (score + n) % 12, n * interval '1.5 seconds' FROM users, generate_series(1, score % 5) n;
INSERT INTO events SELECT md5(i::text)::uuid, (ARRAY['click', 'view', 'buy'])[1 + i % 3],
  CASE WHEN i % 5 > 0 THEN (1 + i % 60) * 100 + 1 END, jsonb_build_object('i', i, 'deep', jsonb_build_array(i, NULL, 'ü')),
  i / 4.0, i % 30 FROM generate_series(1, 150) i;
