//! Named tasks that a stop drains: every task of the proxy is spawned here. And the places where a
//! test can make the process die.

mod aside;
mod clock;
mod failpoint;
mod growing;
mod stopped;
mod tasks;

pub use aside::{Apart, apart, aside};
pub use clock::now_unix_ms;
pub use failpoint::{
    BACK_FAILPOINTS, COMMIT_FAILPOINTS, CONCURRENT_FAILPOINTS, Failpoints, IMPORT_FAILPOINTS,
    JOIN_FAILPOINTS, MOVE_FAILPOINTS, RESHARD_FAILPOINTS, RESUME_FAILPOINTS, Reached,
};
pub use growing::Growing;
pub use stopped::Stopped;
pub use tasks::Tasks;
