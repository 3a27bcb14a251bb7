INSERT INTO plans VALUES (1, 'free', 0, '{"seats": 3}'), (2, 'team', 29.90, '{"seats": 20, "sso": false}'),
  (3, 'enterprise', NULL, '{"seats": null, "sso": true}');
INSERT INTO currencies VALUES ('EUR', 'Euro', 1), ('USD', 'Dollar', 1.08), ('JPY', 'Yen', 163.4), ('XXX', NULL, NULL);
INSERT INTO flags SELECT 'f' || i, i % 2 = 0, ARRAY[i, i * 3, i * 5]::bigint[], NULLIF('note ' || i % 4, 'note 0') FROM generate_series(1, 12) i;
INSERT INTO accounts SELECT i, 'Account ' || chr(64 + (i % 26)::int) || i, CASE WHEN i % 5 > 0 THEN 1 + i % 3 END,
  CASE WHEN i % 4 > 0 THEN ROW('Street ' || i, (ARRAY['Berlin','Paris','Tokyo'])[1 + i % 3], lpad(i::text, 5, '0'))::address END,
  timestamptz '2023-01-15 10:00+00' + i * interval '9 days 3 hours',
  jsonb_build_object('theme', (ARRAY['dark','light'])[1 + i % 2], 'beta', i % 3 = 0, 'limits', jsonb_build_object('tasks', i * 10)),
  CASE WHEN i > 10 THEN i / 4 END, (ARRAY['EUR','USD','JPY',NULL])[1 + i % 4] FROM generate_series(1, 40) i;
INSERT INTO members (account_id, id, email, first_name, last_name, roles, last_seen, active)
  SELECT a, md5(a || '/' || n)::uuid, 'm' || n || '@a' || a || '.example', (ARRAY['Ada','Bob','Çelik',NULL,'Zoë'])[1 + (a + n) % 5], 'L' || (a * n) % 11,
  (ARRAY['{admin,owner}','{member}','{}','{member,billing}'])[1 + (a + n) % 4]::text[],
  CASE WHEN n % 3 > 0 THEN timestamptz '2024-03-01 00:00+00' + (a * 7 + n * 13) % 50 * interval '17 hours' END, (a + n) % 6 > 0
  FROM generate_series(1, 40) a, generate_series(1, (a % 6)::int) n;
INSERT INTO projects SELECT a, a * 10 + n, 'Project ' || n || ' of ' || a, CASE WHEN n % 2 = 1 AND a % 6 > 0 THEN md5(a || '/1')::uuid END,
  daterange(date '2024-01-01' + (a * 3 % 60)::int, CASE WHEN n < 3 THEN date '2024-04-01' + (n * 20)::int END), (a * n * 137 % 10000) / 10.0,
  CASE WHEN (a + n) % 7 = 0 THEN timestamptz '2024-06-01 00:00+00' END
  FROM generate_series(1, 40) a, generate_series(1, (a % 4)::int) n;
INSERT INTO tasks SELECT p.account_id, p.id * 100 + n, p.id, (ARRAY['new','active','blocked','done'])[1 + (p.id * 3 + n) % 4]::task_state,
  (ARRAY['Fix the login page','Write documentation','Deploy new servers','Review pull requests','Plan the release'])[1 + (p.id + n) % 5] || ' ' || p.id || '-' || n,
  (p.id + n) % 5, CASE WHEN n % 3 > 0 THEN date '2024-05-01' + ((p.id * 5 + n * 3) % 60)::int END, n * interval '90 minutes',
  CASE n % 4 WHEN 0 THEN NULL WHEN 1 THEN '{}' ELSE (ARRAY['urgent','ui','api','db'])[1 + n % 2 : 2 + n % 3] END,
  CASE WHEN n > 1 THEN p.id * 100 + n / 2 END, n / 8.0 FROM projects p, generate_series(1, (p.id % 7)::int) n;
INSERT INTO comments SELECT account_id, id * 10 + n, id, md5(account_id || '/' || n)::uuid, CASE WHEN n % 3 > 0 THEN 'comment ' || n || ' on ' || title END,
  timestamp '2024-05-01 08:00' + (id % 1000) * interval '61 minutes' + n * interval '5 seconds' FROM tasks, generate_series(1, (id % 3)::int) n;
INSERT INTO jobs SELECT 1 + i % 40, i, (ARRAY['mail','default','report'])[1 + i % 3], (ARRAY['new','done','failed','new','new'])[1 + i % 5], i % 4,
  timestamptz '2024-05-05 00:00+00' + (i * 37 % 500) * interval '1 minute', jsonb_build_object('to', 'user' || i % 9, 'n', i) FROM generate_series(1, 200) i;
INSERT INTO invoices SELECT a, 'INV-' || a || '-' || n, date '2024-01-10' + (a * 11 + n * 31)::int % 150, CASE WHEN (a + n) % 3 > 0 THEN date '2024-02-01' + (a * 11 + n * 31)::int % 150 END,
  (ARRAY['EUR','USD','JPY'])[1 + a % 3], (a * 7907 + n * 3571) % 100000 / 100.0, json_build_object('po', a * n) FROM generate_series(1, 40) a, generate_series(1, (a % 5)::int) n;
INSERT INTO invoice_lines SELECT account_id, number, l, (ARRAY['seat','storage','support'])[l], l * 2 + account_id % 3, (l * 9.99)::numeric::money, round(total / 3, 2)
  FROM invoices, generate_series(1, 3) l WHERE l <= 1 + account_id % 3;
INSERT INTO documents SELECT a, a * 10 + n, jsonb_build_object('title', 'Doc ' || n, 'tags', jsonb_build_array('t' || n, 'shared', a % 3), 'rev', n,
    'author', jsonb_build_object('name', 'N' || a % 4, 'vip', a % 2 = 0), 'items', jsonb_build_array(jsonb_build_object('p', a, 'q', n), jsonb_build_object('p', a + 1, 'q', 0))),
  '<doc id="' || n || '"/>', ('10.' || a || '.0.' || n || '/24')::inet, ('08:00:2b:01:02:' || lpad(a::text, 2, '0'))::macaddr, (a % 256)::int::bit(8),
  decode(md5(a || '-' || n), 'hex') FROM generate_series(1, 40) a, generate_series(1, 1 + (a % 3)::int) n;
INSERT INTO bookings SELECT a, r, tstzrange(timestamptz '2024-05-01 08:00+00' + (a + r * 5) * interval '1 hour', timestamptz '2024-05-01 10:00+00' + (a + r * 5) * interval '1 hour'),
  int4range(r, r + a % 5) FROM generate_series(1, 40) a, generate_series(1, 2) r;
INSERT INTO counters SELECT a, c, a * 3 FROM generate_series(1, 40) a, unnest(ARRAY['views', 'calls']) c WHERE a % 3 > 0;
INSERT INTO devices SELECT o, 'SN' || n, (ARRAY['alpha','beta',NULL])[1 + n % 3], date '2023-06-01' + o * 10 + n FROM generate_series(1, 6) o, generate_series(1, 5) n;
INSERT INTO readings SELECT org, serial, timestamp '2024-05-01' + n * interval '6 hours', CASE WHEN n % 4 > 0 THEN org * 1.5 + n * 0.25 END FROM devices, generate_series(1, 8) n WHERE (org + n) % 5 > 0;
INSERT INTO metrics SELECT d::date, v, CASE WHEN v % 4 > 0 THEN extract(doy FROM d)::int * v END, v / 8.0 FROM generate_series(date '2024-01-05', date '2024-06-20', '3 days') d, generate_series(1, 5) v;
INSERT INTO stores SELECT r, n, initcap(r) || ' store ' || n FROM unnest(ARRAY['eu','uk','us','jp','br','in']) r, generate_series(1, 3) n;
INSERT INTO sales SELECT region, id, d::date, p, (id * 3 + extract(day FROM d)::int + length(p)) % 10, ((id * 37 + extract(doy FROM d)::int * 13 + length(region || p)) % 5000) / 100.0
  FROM stores, generate_series(date '2024-01-01', date '2024-03-31', '9 days') d, unnest(ARRAY['tea','coffee','mate']) p;
INSERT INTO logins SELECT md5('l' || i)::uuid, 1 + i % 40, md5(1 + i % 40 || '/1')::uuid, timestamptz '2024-05-01 00:00+00' + i * interval '3 hours', (ARRAY['firefox','chrome','curl',NULL])[1 + i % 4] FROM generate_series(1, 120) i;
