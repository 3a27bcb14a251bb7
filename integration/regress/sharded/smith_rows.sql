-- The rows, by arithmetic: each run has the same ones.
INSERT INTO plans SELECT n, 'plan ' || n, n * 9.99, CASE WHEN n % 3 > 0 THEN ARRAY['t' || n, NULL] END
  FROM generate_series(1, 7) n;
INSERT INTO accounts
  SELECT n, nullif(n % 8, 0), left(md5(n::text), 6), '1990-01-01'::date + n::int * 37,
    CASE n % 3 WHEN 0 THEN NULL ELSE n % 3 = 1 END, n / 8.0, CASE WHEN n % 5 > 0 THEN md5('u' || n)::uuid END
  FROM generate_series(1, 24) n;
INSERT INTO orders
  SELECT n % 24 + 1, n / 24, CASE WHEN n % 7 > 0 THEN n * 1.25 END, '2026-01-01Z'::timestamptz + n * interval '7 h',
    (ARRAY['new', 'paid', 'sent', NULL])[n % 4 + 1], CASE WHEN n % 6 > 0 THEN jsonb_build_object('n', n % 9, 'l', ARRAY[n, 2]) END
  FROM generate_series(0, 39) n;
INSERT INTO lines
  SELECT n % 24 + 1, n / 24 % 2, n / 40, (n % 16) / 4.0, CASE WHEN n % 4 > 0 THEN md5('l' || n) END, n * interval '95 min'
  FROM generate_series(0, 39) n;
INSERT INTO days
  SELECT '2026-01-01'::date + n * 11, n % 5, CASE WHEN n % 4 > 0 THEN n::bigint * 1000000007 END,
    '2026-01-01'::timestamp + n * interval '5 h', '00:00'::time + n * interval '41 min', ARRAY[n, n % 3, NULL]
  FROM generate_series(0, 29) n;
INSERT INTO places
  SELECT (ARRAY['eu', 'uk', 'us', 'cn', 'za'])[n % 5 + 1], 'c' || n, point(n, n / 4.0), CASE WHEN n % 3 > 0 THEN ('10.0.0.' || n)::inet END,
    decode(md5(n::text), 'hex'), int4range(n, n + 5)
  FROM generate_series(0, 19) n;
INSERT INTO pairs
  SELECT n % 6, 'b' || n, CASE WHEN n % 5 > 0 THEN n * n END, CASE WHEN n % 3 > 0 THEN ('<x>' || n || '</x>')::xml END, n::bit(8)
  FROM generate_series(0, 24) n;
INSERT INTO notes SELECT n, n % 9, md5('n' || n), '2026-02-01Z'::timestamptz + n * interval '1 day' FROM generate_series(1, 15) n;
