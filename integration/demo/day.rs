//! The rhythm of the day, and the scripts that make pgbench follow it.

use std::fmt::Write;

use crate::rows::{ITEMS, LIVE_ITEMS_FROM, ORDER_STRIDE, ORDERS, TENANTS};
use crate::screen::now_unix_ms;

/// The length of a day; `day_ms` of `config/demo.yaml`.
pub(crate) const DAY_MS: u64 = 40_000;
/// When in the day the rush is at its height.
pub(crate) const RUSH_MS: u64 = 20_000;
/// The rush is a bell curve of this standard deviation.
const RUSH_WIDTH_MS: u64 = 4_500;
/// Before and after the height, the time that counts as rush.
pub(crate) const RUSH_HALF_MS: u64 = 8_000;

/// pgbench's clients.
pub(crate) const CLIENTS: u64 = 8;
/// Transactions a second in the quiet hours.
const QUIET_RATE: u64 = 40;
/// Transactions a second that the rush adds at its height, where nothing is measured yet.
const FIRST_RUSH_RATE: u64 = 200;
/// Bounds of that rate, whatever was measured.
const RUSH_RATES: std::ops::RangeInclusive<f64> = 50.0..=2_000.0;
/// The load of the hot node at the height, as a multiple of what a node can bear.
const RUSH_OVERLOAD: f64 = 2.0;
/// Of a thousand transactions at the height of the rush, those of the hot tenants.
const HOT_PER_MILLE: u64 = 850;

/// A rhythm with its hot tenants.
#[derive(Debug, Clone)]
pub(crate) struct Day {
    /// When a day began.
    pub(crate) origin_unix_ms: u64,
    pub(crate) hot_tenants: Vec<i64>,
    /// Transactions a second that the rush adds at its height.
    pub(crate) rush_rate: u64,
}

impl Day {
    /// A day whose rush will be at its height in `ms`, with the same rates on any machine.
    pub(crate) fn trial(hot_tenants: Vec<i64>, ms: u64) -> Self {
        Self { origin_unix_ms: peak_in(ms), hot_tenants, rush_rate: FIRST_RUSH_RATE }
    }

    /// The next trial, whose rush will be at its height in `ms`, at the rate that the last suggests;
    /// `None` if that came near enough to what is wanted.
    pub(crate) fn next_trial(&self, busy: f64, capacity: f64, ms: u64) -> Option<Self> {
        let missed = busy / (RUSH_OVERLOAD * capacity);
        let near = (0.7..1.4).contains(&missed);
        (!near).then(|| self.clone().overloading(busy, capacity, peak_in(ms)))
    }

    /// A day whose rush overloads the hot node, whose load was `busy` at the height of this one.
    pub(crate) fn overloading(self, busy: f64, capacity: f64, origin_unix_ms: u64) -> Self {
        let rate = f64::from(u32::try_from(QUIET_RATE + self.rush_rate).unwrap_or(u32::MAX));
        let quiet = f64::from(u32::try_from(QUIET_RATE).unwrap_or(u32::MAX));
        let wanted = rate * RUSH_OVERLOAD * capacity / busy - quiet;
        let rush_rate = wanted.clamp(*RUSH_RATES.start(), *RUSH_RATES.end());
        // Within the bounds above.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let rush_rate = rush_rate.round() as u64;
        Self { origin_unix_ms, rush_rate, ..self }
    }

    /// The number of the day since `first_unix_ms`, from 1, and how far it is.
    pub(crate) fn at(&self, unix_ms: u64, first_unix_ms: u64) -> (u64, u64) {
        let day = |at: u64| at.saturating_sub(self.origin_unix_ms) / DAY_MS;
        let phase = unix_ms.saturating_sub(self.origin_unix_ms) % DAY_MS;
        (1 + day(unix_ms) - day(first_unix_ms), phase)
    }

    /// One transaction of the shop. Its first statement also brings the time, by which the next one
    /// knows how far the day is.
    pub(crate) fn shop_script(&self) -> String {
        let mut cases = String::new();
        for (index, tenant) in self.hot_tenants.iter().enumerate() {
            write!(cases, " WHEN :pick = {} THEN {tenant}", index + 1).ok();
        }
        let (origin, hot) = (self.origin_unix_ms, self.hot_tenants.len());
        format!(
            "\
\\set phase (:now_ms - {origin}) % {DAY_MS}
\\set rush exp(-0.5 * pow((:phase - {RUSH_MS}) / {RUSH_WIDTH_MS}.0, 2))
\\set tenant random(1, {TENANTS})
\\set dice random(1, 1000)
\\if :dice <= {HOT_PER_MILLE} * :rush
\\set pick random(1, {hot})
\\set tenant CASE{cases} END
\\endif
\\set order_id :tenant * {ORDER_STRIDE} + random(1, {ORDERS})
\\set count :count + 1
\\set item_id {LIVE_ITEMS_FROM} * (:client_id + 1) + :count
BEGIN;
SELECT p.name AS plan, count(*) AS orders, sum(o.amount_cents) AS revenue,
  (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms
  FROM orders o JOIN tenants t ON t.id = o.tenant_id JOIN plans p ON p.id = t.plan_id
  WHERE o.tenant_id = :tenant AND t.id = :tenant GROUP BY p.name \\gset
UPDATE orders SET version = version + 1 WHERE tenant_id = :tenant AND id = :order_id;
INSERT INTO order_items (tenant_id, id, order_id, product, quantity, price_cents)
  VALUES (:tenant, :item_id, :order_id, 'live', 1, 100);
COMMIT;
"
        )
    }

    /// The pause between transactions, a script of its own so that pgbench's times of transactions
    /// do not hold it. As many of one run as of the other.
    pub(crate) fn pause_script(&self) -> String {
        let rate = format!("({QUIET_RATE} + {} * :rush)", self.rush_rate);
        format!("\\set pause_us int(1000000.0 * {CLIENTS} / {rate})\n\\sleep :pause_us us\n")
    }

    /// What the scripts' variables are at the beginning. Ids of items count from `first_item` on.
    pub(crate) fn variables(first_item: u64) -> [String; 3] {
        [format!("now_ms={}", now_unix_ms()), "rush=0".to_owned(), format!("count={first_item}")]
    }
}

const _: () = assert!((TENANTS + 1) * ORDER_STRIDE * ITEMS < LIVE_ITEMS_FROM);

/// When a day began whose rush will be at its height in `ms`.
fn peak_in(ms: u64) -> u64 {
    now_unix_ms() + ms - RUSH_MS - DAY_MS
}
