INSERT INTO products SELECT 'SKU' || i, (ARRAY['Chair','Desk','Lamp','Shelf'])[1 + i % 4] || ' ' || i, i * 499, CASE WHEN i % 3 = 0 THEN '{sale}' WHEN i % 3 = 1 THEN '{new,sale}' ELSE '{}' END::text[] FROM generate_series(1, 12) i;
INSERT INTO feature_flags VALUES ('beta', '{1,5,9,33}', 12.5), ('dark', '{}', 100), ('search', '{2,3}', NULL);
INSERT INTO schema_migrations VALUES ('20240101000000'), ('20240201000000');
INSERT INTO tenants SELECT i, 'tenant-' || i, (ARRAY['Acme','Globex','Initech','Umbrella','Çınar'])[1 + i % 5] || ' ' || i, (ARRAY['free','pro','free','enterprise'])[1 + i % 4],
  jsonb_build_object('seats', i % 7, 'flags', jsonb_build_array('a' || i % 3, 'b'), 'billing', CASE WHEN i % 2 = 0 THEN jsonb_build_object('vat', 'DE' || i, 'net', i * 1.5) END),
  (ARRAY['de','us','jp',NULL])[1 + i % 4], timestamptz '2024-01-01 00:00+00' + i * interval '31 hours' FROM generate_series(1, 36) i;
INSERT INTO users (tenant_id, id, email, name, role, invited_by, last_login, prefs, deleted_at)
  SELECT t, t * 100 + n, 'u' || n || '@t' || t || '.test', CASE WHEN n <> 4 THEN (ARRAY['Ann','Ben','Cid','Dee','Éva'])[n] || t END, CASE n WHEN 1 THEN 'owner' WHEN 2 THEN 'admin' ELSE 'member' END,
  CASE WHEN n > 1 THEN t * 100 + n / 2 END, CASE WHEN (t + n) % 4 > 0 THEN timestamptz '2024-03-01 00:00+00' + (t * 17 + n * 5) * interval '1 hour' END,
  CASE WHEN n % 2 = 1 THEN jsonb_build_object('lang', (ARRAY['de','en','fr'])[1 + t % 3], 'n', n) END, CASE WHEN (t * n) % 9 = 8 THEN timestamptz '2024-06-01 00:00+00' END
  FROM generate_series(1, 36) t, generate_series(1, (t % 5 + 1)::int) n;
INSERT INTO orders SELECT tenant_id, id * 10 + o, id, (ARRAY['draft','paid','shipped','paid','refunded'])[1 + (id + o) % 5]::order_status, (id * 37 + o * 991) % 20000,
  (ARRAY['EUR','USD','GBP'])[1 + (tenant_id % 3)::int], CASE WHEN (id + o) % 5 > 0 THEN timestamp '2024-02-01 09:00' + ((id * 13 + o * 29) % 3000) * interval '47 minutes' END,
  (ARRAY['{}','{gift}','{gift,rush}','{b2b}'])[1 + (id + o) % 4]::text[], CASE WHEN o = 1 THEN jsonb_build_object('coupon', 'C' || id % 4, 'utm', jsonb_build_object('src', (ARRAY['ads','mail'])[1 + (id % 2)::int])) END
  FROM users, generate_series(1, (id % 4)::int) o;
INSERT INTO order_items (tenant_id, order_id, line_no, sku, qty, price_cents)
  SELECT tenant_id, id, l, 'SKU' || 1 + (id + l) % 12, 1 + (id * l) % 5, (1 + (id + l) % 12) * 499 FROM orders, generate_series(1, (1 + id % 3)::int) l;
INSERT INTO events SELECT 1 + i % 36, md5('e' || i)::uuid, (ARRAY['login','view','click','purchase','logout'])[1 + i % 5],
  jsonb_build_object('path', '/p/' || i % 7, 'ms', i * 13 % 900, 'user', (1 + i % 36) * 100 + 1, 'tags', jsonb_build_array(i % 3, 'x')), timestamptz '2024-03-10 00:00+00' + i * interval '37 minutes',
  CASE WHEN i % 4 > 0 THEN i % 60 * interval '11 seconds' END FROM generate_series(1, 400) i;
INSERT INTO articles SELECT t, n, (ARRAY['How to shard','Scaling writes','Backups that work','On call notes'])[1 + (t + n) % 4], (ARRAY['The quick database moved its shards','Never lose a row','Restore, then verify'])[1 + (t * n) % 3] || ' ' || t,
  CASE WHEN (t + n) % 5 > 0 THEN (t + n) % 5 > 1 END, t * 1.25 + n FROM generate_series(1, 36) t, generate_series(1, (t % 3)::int) n;
INSERT INTO subscriptions SELECT t, n, daterange(date '2024-01-01' + (t * 5 + n * 60)::int, CASE WHEN n < 3 THEN date '2024-01-01' + (t * 5 + n * 60 + 55)::int END), int4range(1, (2 + t % 9)::int), (t * n * 19.99)::numeric(12,2)
  FROM generate_series(1, 36) t, generate_series(1, (1 + t % 3)::int) n;
INSERT INTO tokens SELECT t, decode(md5('t' || t || n), 'hex'), ('192.168.' || t || '.' || n)::inet, ARRAY['read', CASE WHEN n = 1 THEN 'write' END], timestamptz '2024-07-01 00:00+00' + t * interval '1 day', n FROM generate_series(1, 36) t, generate_series(1, 2) n;
