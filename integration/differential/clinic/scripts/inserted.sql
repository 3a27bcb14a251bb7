INSERT INTO stock (clinic_id, drug_id, amount) VALUES (6, 6, 1) ON CONFLICT (clinic_id, drug_id) DO UPDATE SET amount = 2 RETURNING (xmax = 0) AS inserted, amount;
INSERT INTO stock (clinic_id, drug_id, amount) VALUES (6, 3, 1) ON CONFLICT (clinic_id, drug_id) DO UPDATE SET amount = 2 RETURNING *, (xmax = 0) AS inserted;
INSERT INTO stock (clinic_id, drug_id, amount) VALUES (6, 6, 1), (7, 1, 4), (8, 8, 3), (8, 9, 3), (10, 10, 1), (11, 2, 3), (21, 5, 0) ON CONFLICT (clinic_id, drug_id) DO UPDATE SET amount = excluded.amount RETURNING clinic_id, drug_id, touched, (xmax = 0) AS inserted;
INSERT INTO tallies AS t SELECT clinic_id, 'visits ' || urgency, count(*) FROM visits GROUP BY clinic_id, urgency HAVING clinic_id < 9 ON CONFLICT (clinic_id, what) DO UPDATE SET n = t.n + excluded.n WHERE t.n > 2 RETURNING t.clinic_id, t.what, t.n, xmax = 0;
INSERT INTO tallies AS t SELECT clinic_id, 'visits ' || urgency, count(*) FROM visits GROUP BY clinic_id, urgency ON CONFLICT (clinic_id, what) DO UPDATE SET n = t.n + excluded.n WHERE t.n > 2 RETURNING t.clinic_id, t.what, t.n, xmax = 0;
INSERT INTO badges (id, clinic_id, holder) VALUES ('00000000-0000-0000-0000-0000000000aa', 1, 'x') ON CONFLICT (id) DO UPDATE SET holder = badges.holder || excluded.holder RETURNING holder, xmax = 0 AS fresh;
INSERT INTO badges (id, clinic_id, holder) VALUES ('00000000-0000-0000-0000-0000000000aa', 1, 'x') ON CONFLICT (id) DO UPDATE SET holder = badges.holder || excluded.holder RETURNING holder, xmax = 0 AS fresh;
INSERT INTO drugs VALUES (1, 'again', 1, 'a', NULL) ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING name, (xmax = 0);
INSERT INTO public.tallies (clinic_id, what, n) VALUES (3, 'x', 1), (4, 'x', 2) RETURNING what, CASE WHEN xmax = 0 THEN 'new' ELSE 'old' END;
BEGIN;
INSERT INTO tallies (clinic_id, what, n) VALUES (3, 'x', 1), (5, 'x', 2), (3, 'y', 7) ON CONFLICT (clinic_id, what) DO UPDATE SET n = tallies.n + (SELECT count(*) FROM drugs) RETURNING clinic_id, what, n, xmax::text = '0';
SELECT sum(n) FROM tallies WHERE what IN ('x', 'y');
ROLLBACK;
INSERT INTO visits (clinic_id, id, patient_id, amount) VALUES (4, 904, 2, -1) ON CONFLICT DO NOTHING RETURNING xmax;
INSERT INTO visits (clinic_id, id, patient_id) VALUES (4, 905, 99) RETURNING xmax;
INSERT INTO visits (clinic_id, id, patient_id) VALUES (4, 906, 1), (9, 907, 2) ON CONFLICT (clinic_id, patient_id) WHERE state = 'open' DO UPDATE SET minutes = 7 RETURNING clinic_id, id, state, urgency, minutes, (xmax = 0);
INSERT INTO bills (clinic_id, id, net) VALUES (4, 800, 10), (5, 800, 10) ON CONFLICT (clinic_id, id) DO UPDATE SET net = bills.net + 1 RETURNING gross, rate, (xmax = 0);
INSERT INTO bills (clinic_id, id, net) VALUES (4, 800, 10), (6, 800, 10) ON CONFLICT (clinic_id, id) DO UPDATE SET net = bills.net + 1 RETURNING gross, rate, (xmax = 0);
INSERT INTO patients (clinic_id, id, last) VALUES (2, 1, 'Upd'), (2, 60, 'New') ON CONFLICT (clinic_id, id) DO UPDATE SET last = excluded.last RETURNING full_name, meta, (xmax <> 0) AS updated;
-- parameters: 12 | a
INSERT INTO tallies (clinic_id, what) VALUES ($1, $2) ON CONFLICT (clinic_id, what) DO UPDATE SET n = tallies.n + 1 RETURNING n, (xmax = 0) AS inserted;
-- parameters: 12 | a
INSERT INTO tallies (clinic_id, what) VALUES ($1, $2) ON CONFLICT (clinic_id, what) DO UPDATE SET n = tallies.n + 1 RETURNING n, (xmax = 0) AS inserted;
-- parameters: 13 | b | 14
INSERT INTO tallies (clinic_id, what) VALUES ($1, $2), ($3, $2) ON CONFLICT (clinic_id, what) DO UPDATE SET n = tallies.n + 1 RETURNING clinic_id, n, (xmax = 0) AS inserted;
INSERT INTO depots VALUES ('north', 1, 'N'), ('mars', 1, 'M'), ('west', 9, 'W') ON CONFLICT (region, id) DO UPDATE SET name = excluded.name RETURNING region, name, (xmax = 0) AS inserted;
INSERT INTO samples VALUES ('2025-01-03', 1, 1), ('2030-01-01', 1, 2) ON CONFLICT (day, probe) DO UPDATE SET value = samples.value + 1 RETURNING day, (xmax = 0);
SELECT count(*), sum(amount), sum(touched) FROM stock;
SELECT count(*), sum(n) FROM tallies;
