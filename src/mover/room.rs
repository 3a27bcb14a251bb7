//! Whether a destination has room for what comes, before anything is copied.
//!
//! The policy may say how much a node's databases may come to. Without that the free space of the
//! disk counts, which PostgreSQL does not know: `df` is run on the node, where the proxy's role may
//! run programs there. Else nobody knows, and the move goes on.

use super::context::MoverContext;
use super::error::MoveError;
use super::lane::Sessions;
use super::look;
use super::session::Session;
use crate::ids::NodeId;
use crate::shard_move::Move;

/// All databases of the node.
const USED: &str = "SELECT sum(pg_database_size(oid))::bigint FROM pg_database";
/// Whether `df` can be run, and where.
const MAY_ASK: &str = "SELECT current_setting('data_directory', true), \
     pg_has_role(current_user, 'pg_execute_server_program', 'MEMBER')";
/// A shard's table with its indexes and long values.
const SIZE: &str = "SELECT pg_total_relation_size($1::oid::regclass)";

/// Refuses a move that a destination has no room for.
pub(super) async fn check(
    context: &MoverContext,
    mv: &Move,
    sessions: &Sessions,
) -> Result<(), MoveError> {
    for node in mv.nodes() {
        let needed = needed(mv, sessions, node).await?;
        if needed > 0 {
            has_room(context, sessions.on(node)?, needed).await?;
        }
    }
    Ok(())
}

/// How many bytes come to a node: of a shard that is split each part gets the same.
async fn needed(mv: &Move, sessions: &Sessions, node: NodeId) -> Result<u64, MoveError> {
    let mut needed = 0;
    for lane in mv.lanes.iter().filter(|lane| lane.target.node == node) {
        let source = sessions.on(lane.source.node)?;
        let parts = mv.lanes.iter().filter(|it| it.source.shard == lane.source.shard).count();
        let parts = u64::try_from(parts.max(1)).unwrap_or(1);
        for table in &lane.tables {
            let oid = look::oid(source, &table.leaf).await?;
            needed += size(source, oid).await? / parts;
        }
    }
    Ok(needed)
}

/// The bytes of a table with its indexes and long values.
pub(super) async fn size(session: &Session, oid: u32) -> Result<u64, MoveError> {
    let rows = session.rows("asking for the size of a table", SIZE, &[&oid]).await?;
    let bytes: i64 = rows.first().map_or(0, |row| row.get(0));
    Ok(u64::try_from(bytes).unwrap_or_default())
}

/// Refuses what a node has no room for, in bytes.
pub(super) async fn has_room(
    context: &MoverContext,
    session: &Session,
    needed: u64,
) -> Result<(), MoveError> {
    let node = &session.node;
    if let Some(limit) = context.config().node_bytes_max.get(node) {
        let rows = session.rows("asking for the size of the databases", USED, &[]).await?;
        let used: i64 = rows.first().map_or(0, |row| row.get(0));
        let used = u64::try_from(used).unwrap_or_default();
        if used.saturating_add(needed) > *limit {
            return Err(MoveError::Refused(format!(
                "node {node} lacks room: about {} come, its databases have {}, and the policy \
                 allows {} (mover.node_bytes_max)",
                shown(needed),
                shown(used),
                shown(*limit)
            )));
        }
        return Ok(());
    }
    let free = if context.config().ask_free_space { free(session).await? } else { None };
    match free {
        Some(free) if needed > free / 10 * 9 => Err(MoveError::Refused(format!(
            "node {node} lacks room: about {} come, and df says that its disk has {} left, of which \
             a tenth stays free: make room there",
            shown(needed),
            shown(free)
        ))),
        Some(_) => Ok(()),
        None => {
            tracing::info!(node, "whether the node has room for a shard is not known");
            Ok(())
        }
    }
}

/// The free bytes of the disk with the data, if they can be asked for.
async fn free(session: &Session) -> Result<Option<u64>, MoveError> {
    let rows = session.rows("asking who may run programs", MAY_ASK, &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (folder, may): (Option<String>, bool) = (row.get(0), row.get(1));
    let Some(folder) = folder.filter(|_| may) else { return Ok(None) };
    // Quoted for the shell, then for SQL.
    let command = format!("df -Pk -- '{}'", folder.replace('\'', r"'\''"));
    let sql = format!(
        "BEGIN; CREATE TEMPORARY TABLE foreshard_df (line text) ON COMMIT DROP; \
         COPY pg_temp.foreshard_df FROM PROGRAM {}",
        crate::sql::Literal(&command)
    );
    if let Err(error) = session.run("asking for the free space", &sql).await {
        tracing::info!(error = error.story(), "df could not be run");
        session.run("rolling back", "ROLLBACK").await?;
        return Ok(None);
    }
    let lines =
        session.rows("reading the free space", "SELECT line FROM pg_temp.foreshard_df", &[]);
    let lines: Vec<String> = lines.await?.iter().map(|row| row.get(0)).collect();
    session.run("rolling back", "ROLLBACK").await?;
    Ok(available(&lines))
}

/// The bytes that `df -Pk` calls available.
fn available(lines: &[String]) -> Option<u64> {
    let kib: u64 = lines.get(1)?.split_whitespace().nth(3)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Bytes for people.
pub(super) fn shown(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::{available, shown};

    #[test]
    fn the_fourth_word_of_the_second_line_is_what_is_available() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let df = "Filesystem 1024-blocks Used Available Capacity Mounted on\n\
             /dev/sda1 1000 400 600 40% /var/lib";
        assert_eq!(available(&lines(df)), Some(600 * 1024));
        assert_eq!(available(&lines("df: no such file")), None);
        assert_eq!(available(&[]), None);
    }

    #[test]
    fn bytes_are_shown_with_two_digits_at_least() {
        let cases = [(42, "42 bytes"), (81_920, "81 kB"), (12_345_678, "12 MB")];
        for (bytes, text) in cases {
            assert_eq!(shown(bytes), text);
        }
        assert_eq!(shown(20_000_000_000), "20 GB");
    }
}
