//! What the tests of logging in need: certificates, a client of bytes, nodes that ask for passwords.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test binary compiles its own copy and uses a part of it"
)]

mod certificates;
mod guarded;
mod raw;

pub use certificates::{Authority, private};
pub use guarded::{Guarded, SERVICE, by, log_in, server_tls, story};
pub use raw::Raw;
