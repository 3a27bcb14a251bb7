//! Few rows as parameters of the statement that merges them, so that no temporary table is made: that
//! would write to the home node's system catalog each time.

use std::fmt::Write;

use super::reduce::REDUCED_TABLE;
use crate::sql::Ident;

/// A column of the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// `pg_type.oid`
    pub type_oid: u32,
    /// The type as SQL, without a modifier: the values have been through that.
    pub type_name: String,
}

/// A statement that merges rows, to which they are given as parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InPlace {
    /// What gives the rows on a node: here their names and collations come from it.
    pub select: String,
    /// What reads them from [`REDUCED_TABLE`].
    pub merge: String,
    /// Their columns, of which there is one at least.
    pub columns: Vec<Given>,
}

/// The most values that are given as parameters; PostgreSQL takes 65,535.
pub const GIVEN_VALUES_MAX: usize = 4_000;
/// The most bytes of them.
pub const GIVEN_BYTES_MAX: usize = 256 * 1024;

impl InPlace {
    /// The statement for so many rows, each with a parameter for each column.
    pub fn text(&self, rows: usize) -> String {
        let mut text = format!(
            "WITH {} AS (SELECT * FROM ({}) AS none WHERE false",
            Ident::new(REDUCED_TABLE),
            self.select
        );
        if rows > 0 {
            self.put_rows(rows, &mut text);
        }
        text.push_str(") ");
        text.push_str(&self.merge);
        text
    }

    fn put_rows(&self, rows: usize, text: &mut String) {
        let names: Vec<String> = (1..=self.columns.len()).map(|at| format!("c{at}")).collect();
        let cast = |(name, column): (&String, &Given)| format!("{name}::{}", column.type_name);
        let casts: Vec<String> = names.iter().zip(&self.columns).map(cast).collect();
        // Writing to a string does not fail.
        let _written = write!(text, " UNION ALL SELECT {} FROM (VALUES ", casts.join(", "));
        for row in 0..rows {
            text.push_str(if row == 0 { "(" } else { ", (" });
            for column in 0..self.columns.len() {
                let number = row * self.columns.len() + column + 1;
                let _written = write!(text, "{}${number}", if column == 0 { "" } else { ", " });
            }
            text.push(')');
        }
        let _written = write!(text, ") AS given ({})", names.join(", "));
    }

    /// The types of the parameters for so many rows.
    pub fn types(&self, rows: usize) -> Vec<u32> {
        let row = self.columns.iter().map(|column| column.type_oid);
        row.cycle().take(rows * self.columns.len()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_place() -> InPlace {
        let given = |type_oid, type_name: &str| Given { type_oid, type_name: type_name.to_owned() };
        InPlace {
            select: "SELECT a AS a, count(*) AS \"part 0\" FROM t GROUP BY a".to_owned(),
            merge: "SELECT a, sum(\"part 0\") FROM \"foreshard 0\" GROUP BY a".to_owned(),
            columns: vec![given(1043, "character varying"), given(20, "bigint")],
        }
    }

    #[test]
    fn each_value_is_a_parameter() {
        let text = in_place().text(2);
        let expected = "WITH \"foreshard 0\" AS (SELECT * FROM (SELECT a AS a, count(*) AS \"part 0\" \
             FROM t GROUP BY a) AS none WHERE false UNION ALL SELECT c1::character varying, \
             c2::bigint FROM (VALUES ($1, $2), ($3, $4)) AS given (c1, c2)) \
             SELECT a, sum(\"part 0\") FROM \"foreshard 0\" GROUP BY a";
        assert_eq!(text, expected);
        assert_eq!(in_place().types(2), [1043, 20, 1043, 20]);
    }

    #[test]
    fn no_rows_need_no_values() {
        let text = in_place().text(0);
        assert!(text.contains("WHERE false) SELECT"), "{text}");
        assert!(in_place().types(0).is_empty());
    }
}
