INSERT INTO drugs SELECT i, 'drug ' || i, i * 1.125, (ARRAY['a','b','c',NULL])[1 + i % 4], CASE WHEN i % 3 > 0 THEN ARRAY['d' || i, 'x' || i % 2] END FROM generate_series(1, 12) i;
INSERT INTO tariffs SELECT c, daterange(date '2025-01-01' + (n * 30), date '2025-01-31' + (n * 30)), n * 10 + length(c) FROM unnest(ARRAY['a','b','c']) c, generate_series(0, 2) n;
INSERT INTO settings SELECT 's' || i, jsonb_build_object('on', i % 2 = 0, 'list', jsonb_build_array(i, i + 1)), i FROM generate_series(1, 9) i;
INSERT INTO clinics SELECT i, 'Clinic ' || i, (ARRAY['Aachen','Bonn','Ärding','berlin',NULL])[1 + i % 5], date '2000-01-01' + (i * 211)::int, CASE WHEN i % 6 > 0 THEN (i * 7) % 40 END,
  CASE WHEN i > 4 THEN i / 3 END, (ARRAY['{}','{er}','{er,icu}','{lab}'])[1 + i % 4]::text[] FROM generate_series(1, 30) i;
INSERT INTO patients (clinic_id, id, first, last, born, code, height, meta) SELECT c, n, (ARRAY['Ann','bob','Çem',NULL])[1 + (c + n) % 4], 'L' || (c * n) % 9, CASE WHEN (c + n) % 5 > 0 THEN date '1950-03-01' + (c * 800 + n * 37)::int END,
  CASE WHEN n % 2 = 0 THEN 'AB' || c * n END, CASE WHEN n % 3 > 0 THEN ROW(150 + n, 150 + n + c % 7)::span END,
  jsonb_build_object('tags', jsonb_build_array('t' || n % 3, 'all'), 'score', c * n % 17, 'addr', jsonb_build_object('zip', lpad((c * 13)::text, 5, '0')))
  FROM generate_series(1, 30) c, generate_series(1, (c % 5)::int) n;
INSERT INTO visits SELECT p.clinic_id, p.id * 10 + v, p.id, (ARRAY['routine','soon','now'])[1 + (p.clinic_id + v) % 3]::urgency,
  tsrange(timestamp '2025-01-01 08:00' + (p.clinic_id * 7 + v * 3) * interval '5 hours', timestamp '2025-01-01 08:00' + (p.clinic_id * 7 + v * 3) * interval '5 hours' + v * interval '35 minutes'),
  timestamp '2025-01-01 08:00' + (p.clinic_id * 7 + v * 3) * interval '5 hours', v * 35, CASE WHEN v % 3 > 0 THEN 1 + (p.clinic_id + v) % 12 END, (v + p.clinic_id) * 0.375,
  CASE WHEN v = 1 THEN 'open' WHEN v = 2 THEN 'done' ELSE 'lost' END FROM patients p, generate_series(1, (1 + p.id % 3)::int) v;
INSERT INTO bills (clinic_id, id, patient_id, net, rate, issued, paid) SELECT c, n, CASE WHEN n % 4 > 0 THEN n % 3 + 1 END, (c * 977 + n * 331) % 5000 / 10.0, (ARRAY[0.19, 0.07, 0])[1 + n % 3],
  date '2025-01-01' + (c * 3 + n * 11)::int % 90, (c + n) % 3 = 0 FROM generate_series(1, 30) c, generate_series(1, (c % 6)::int) n;
INSERT INTO stock SELECT c, d, (c * d * 7) % 50 FROM generate_series(1, 30) c, generate_series(1, 12) d WHERE (c + d) % 4 = 0;
INSERT INTO shifts SELECT c, 'nurse ' || n, int4multirange(int4range(n, n + 3), int4range(n + 10, n + 10 + (c % 4)::int)), ARRAY[n * 1.5, NULL, c] FROM generate_series(1, 30) c, generate_series(1, 2) n;
INSERT INTO secrets SELECT c, n, (ARRAY['ann','bob'])[1 + (c + n) % 2], 'secret ' || c * n FROM generate_series(1, 30) c, generate_series(1, 3) n;
INSERT INTO samples SELECT d::date, p, CASE WHEN p % 4 > 0 THEN sin(p) * extract(doy FROM d) END, (extract(doy FROM d)::int % 16)::bit(4) FROM generate_series(date '2025-01-03', date '2025-04-02', '2 days') d, generate_series(1, 4) p;
INSERT INTO depots SELECT r, n, initcap(r) || n, point(n, length(r)) FROM unnest(ARRAY['north','east','south','west','center']) r, generate_series(1, 3) n;
INSERT INTO parcels SELECT r, n, n % 4, n * 0.25, timestamptz '2025-02-01 00:00+00' + n * interval '7 hours', jsonb_build_array(jsonb_build_object('at', n, 'by', r), jsonb_build_object('at', n + 2, 'by', 'x'))
  FROM unnest(ARRAY['north','east','south','west','center']) r, generate_series(1, 20) n;
INSERT INTO badges SELECT md5('b' || i)::uuid, 1 + i % 30, 'H' || i % 7, CASE WHEN i % 5 > 0 THEN timestamptz '2025-06-01 00:00+00' + i * interval '13 hours' END FROM generate_series(1, 90) i;
ANALYZE;
