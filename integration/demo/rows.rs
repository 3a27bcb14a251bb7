//! The rows of the shop: the same at each run, in the text format of COPY.

use std::fmt::Write;

use bytes::{Bytes, BytesMut};

/// Tenants.
pub(crate) const TENANTS: u64 = 100;
/// Orders of each tenant.
pub(crate) const ORDERS: u64 = 2_500;
/// Items of each order.
pub(crate) const ITEMS: u64 = 3;
/// Ids of items from here on are made by the load.
pub(crate) const LIVE_ITEMS_FROM: u64 = 10_000_000;
/// Ids of a tenant's orders begin at its own id times this.
pub(crate) const ORDER_STRIDE: u64 = 10_000;

/// Bytes that are sent at once.
const CHUNK_BYTES: usize = 256 << 10;
const STATUSES: [&str; 4] = ["paid", "packed", "sent", "returned"];

/// Rows of all tables that are loaded.
pub(crate) fn total() -> u64 {
    TENANTS + TENANTS * ORDERS * (1 + ITEMS)
}

/// `tenants (id, name, plan_id)`.
pub(crate) fn tenants() -> impl Iterator<Item = Bytes> {
    chunks(1..=TENANTS, |tenant, out| {
        writeln!(out, "{tenant}\ttenant {tenant}\t{}", 1 + tenant % 3).ok();
    })
}

/// `orders (tenant_id, id, customer, status, amount_cents, placed_at)`.
pub(crate) fn orders() -> impl Iterator<Item = Bytes> {
    chunks(order_ids(), |(tenant, order), out| {
        let dice = mixed(order);
        let status = STATUSES[usize::try_from(dice % 4).unwrap_or_default()];
        let (month, day, minute) = (1 + dice % 12, 1 + dice % 28, dice % 60);
        writeln!(
            out,
            "{tenant}\t{order}\tcustomer {}\t{status}\t{}\t2025-{month:02}-{day:02} 12:{minute:02}:00",
            dice % 1_000,
            100 + dice % 90_000,
        ).ok();
    })
}

/// `order_items (tenant_id, id, order_id, product, quantity, price_cents)`.
pub(crate) fn order_items() -> impl Iterator<Item = Bytes> {
    let ids = order_ids().flat_map(|(tenant, order)| (0..ITEMS).map(move |n| (tenant, order, n)));
    chunks(ids, |(tenant, order, n), out| {
        let id = order * ITEMS + n;
        let dice = mixed(id);
        let (product, quantity) = (dice % 5_000, 1 + dice % 9);
        let price = 100 + dice % 20_000;
        writeln!(out, "{tenant}\t{id}\t{order}\tproduct {product}\t{quantity}\t{price}").ok();
    })
}

fn order_ids() -> impl Iterator<Item = (u64, u64)> {
    // Tenant by tenant would heat one node after the other: order by order over all tenants.
    (1..=ORDERS).flat_map(|n| (1..=TENANTS).map(move |tenant| (tenant, tenant * ORDER_STRIDE + n)))
}

/// Lines of many rows, put together to chunks.
fn chunks<T>(
    rows: impl Iterator<Item = T>,
    write: impl Fn(T, &mut BytesMut),
) -> impl Iterator<Item = Bytes> {
    let mut rows = rows.peekable();
    std::iter::from_fn(move || {
        rows.peek()?;
        let mut out = BytesMut::with_capacity(CHUNK_BYTES + 200);
        while out.len() < CHUNK_BYTES {
            let Some(row) = rows.next() else { break };
            write(row, &mut out);
        }
        Some(out.freeze())
    })
}

/// A number without pattern for each number: splitmix64 (Steele, Lea and Flood, 2014).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
