//! Which rows of two copies of a table differ: checksums of buckets of rows, then the rows of the
//! buckets that differ. Needs memory for a few thousand rows at the most.

use std::collections::BTreeMap;

use super::error::MoveError;
use super::session::Session;

/// How many buckets the rows are dealt to, by their identity; a power of two.
const BUCKETS: u32 = 1_024;
/// Most rows that are looked at one by one.
const ROWS_MAX: i64 = 20_000;
/// Most rows that are named.
pub(super) const NAMED_MAX: usize = 10;
/// Longest name of a row, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// One copy of a table, as its session sees it.
#[derive(Clone, Copy)]
pub(super) struct Copy<'a> {
    pub(super) session: &'a Session,
    /// As it stands in FROM.
    pub(super) table: &'a str,
    /// Whether the rows of its partitions are meant.
    pub(super) parts: bool,
    /// The columns that are compared, as a list.
    pub(super) columns: &'a str,
    /// Those of them that name a row, as a list.
    pub(super) identity: &'a str,
    /// Which rows are compared.
    pub(super) condition: &'a str,
}

/// Rows and checksum of each bucket. Equal if the copies are, whatever the order of their rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sums(BTreeMap<i32, (i64, String)>);

impl Sums {
    /// How many rows there are.
    pub(super) fn rows(&self) -> u64 {
        let rows: i64 = self.0.values().map(|(rows, _)| rows).sum();
        u64::try_from(rows).unwrap_or_default()
    }

    /// The buckets that differ.
    pub(super) fn differing(&self, other: &Self) -> Vec<i32> {
        let differs = |bucket: &&i32| self.0.get(*bucket) != other.0.get(*bucket);
        let mut buckets: Vec<i32> =
            self.0.keys().chain(other.0.keys()).filter(differs).copied().collect();
        buckets.sort_unstable();
        buckets.dedup();
        buckets
    }
}

impl Copy<'_> {
    /// The bucket of a row.
    fn bucket(&self) -> String {
        let mask = BUCKETS - 1;
        format!("(hashtextextended(ROW({})::text COLLATE \"C\", 0) & {mask})::int", self.identity)
    }

    /// A condition that holds for the rows of these buckets.
    pub(super) fn in_buckets(&self, buckets: &[i32]) -> String {
        let list: Vec<String> = buckets.iter().map(ToString::to_string).collect();
        format!("{} IN ({})", self.bucket(), list.join(", "))
    }

    /// A row's text means the same in every session of the mover; the same text, the same hash.
    fn hashed(&self) -> String {
        format!(
            "SELECT {} AS bucket, ROW({})::text AS name, \
             hashtextextended(ROW({})::text COLLATE \"C\", 0) AS hash FROM {}{} WHERE {}",
            self.bucket(),
            self.identity,
            self.columns,
            if self.parts { "" } else { "ONLY " },
            self.table,
            self.condition
        )
    }

    /// Works through all rows.
    pub(super) async fn sums(&self) -> Result<Sums, MoveError> {
        let sql = format!(
            "SELECT bucket, count(*), sum(hash)::text || ' ' || bit_xor(hash)::text \
             FROM ({}) AS hashed GROUP BY bucket",
            self.hashed()
        );
        let rows = self.session.client.query(&sql, &[]).await;
        let rows = rows.map_err(self.session.failed("summing up a table"))?;
        Ok(Sums(rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()))
    }

    /// The rows of some buckets: name and hash, and how often.
    async fn rows(&self, buckets: &[i32]) -> Result<BTreeMap<(String, i64), i64>, MoveError> {
        let sql = format!(
            "SELECT name, hash, count(*) FROM ({}) AS hashed WHERE bucket = ANY ($1) GROUP BY 1, 2",
            self.hashed()
        );
        let rows = self.session.client.query(&sql, &[&buckets]).await;
        let rows = rows.map_err(self.session.failed("looking for rows that differ"))?;
        Ok(rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect())
    }
}

/// Names some rows that are not the same in both copies, whose sums are given.
pub(super) async fn name_rows(
    (here, here_sums): (&Copy<'_>, &Sums),
    (there, there_sums): (&Copy<'_>, &Sums),
) -> Result<Vec<String>, MoveError> {
    let count = |sums: &Sums, bucket: &i32| sums.0.get(bucket).map_or(0, |(rows, _)| *rows);
    let mut left = ROWS_MAX;
    let mut buckets = here_sums.differing(there_sums);
    buckets.retain(|bucket| {
        let rows = count(here_sums, bucket) + count(there_sums, bucket);
        let fits = rows <= left;
        left -= if fits { rows } else { 0 };
        fits
    });
    if buckets.is_empty() {
        return Ok(Vec::new());
    }
    let ours = here.rows(&buckets).await?;
    let theirs = there.rows(&buckets).await?;
    let mut found: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for (row, count) in &ours {
        found.entry(&row.0).or_default().0 +=
            count - theirs.get(row).copied().unwrap_or(0).min(*count);
    }
    for (row, count) in &theirs {
        found.entry(&row.0).or_default().1 +=
            count - ours.get(row).copied().unwrap_or(0).min(*count);
    }
    let (here, there) = (&here.session.node, &there.session.node);
    let named = found.into_iter().filter_map(|(name, surplus)| {
        let name = shortened(name);
        match surplus {
            (0, 0) => None,
            (_, 0) => Some(format!("{name} is on {here} only")),
            (0, _) => Some(format!("{name} is on {there} only")),
            _ => Some(format!("{name} differs")),
        }
    });
    Ok(named.take(NAMED_MAX).collect())
}

fn shortened(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    format!("{}…", &name[..name.floor_char_boundary(NAME_BYTES_MAX)])
}

#[cfg(test)]
mod tests {
    use super::{Sums, shortened};

    fn sums(buckets: &[(i32, i64, &str)]) -> Sums {
        Sums(buckets.iter().map(|(b, rows, sum)| (*b, (*rows, (*sum).to_owned()))).collect())
    }

    #[test]
    fn a_bucket_that_one_side_lacks_or_sums_up_otherwise_differs() {
        let here = sums(&[(1, 2, "a"), (2, 1, "b"), (3, 1, "c")]);
        let there = sums(&[(1, 2, "a"), (2, 1, "x"), (9, 4, "d")]);
        assert_eq!(here.differing(&there), [2, 3, 9]);
        assert_eq!(here.differing(&here), [] as [i32; 0]);
        assert_eq!((here.rows(), there.rows()), (4, 7));
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(shortened("(1,2)"), "(1,2)");
        let cut = shortened(&"ü".repeat(150));
        assert!(cut.len() < 210 && cut.ends_with('…'), "{cut}");
    }
}
