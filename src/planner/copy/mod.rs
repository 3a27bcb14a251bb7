//! COPY … FROM STDIN into a table of the policy: what each node is told, and which shard each row
//! belongs to.

mod binary;
mod fields;
mod rows;
mod split;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use smallvec::SmallVec;

use crate::ids::GroupId;
use crate::router::CopyIn;
use crate::shard_map::{Column, Directory, KeyType, ShardMap, Table, TableKind};
use crate::sql::{CopyFormat, CopyOptions, Ident, Literal, OtherOption, TableName};
use crate::wire::ServerError;

pub use split::Splitter;

/// How a COPY is spread over nodes.
#[derive(Debug, Clone)]
pub struct CopyInPlan {
    /// The table.
    pub table: TableName,
    /// What each node is sent.
    pub text: String,
    /// How many columns a row has; `None` where the proxy does not know.
    pub column_count: Option<usize>,
    /// 0 for text and CSV, 1 for binary: the format code of CopyInResponse.
    pub format_code: u8,
    /// The rows of a sharded table go to their shards by a [`Splitter`]; `None` for a reference
    /// table: each CopyData goes to every node as it is.
    pub split: Option<SplitBy>,
}

/// What a [`Splitter`] must know.
#[derive(Debug, Clone)]
pub struct SplitBy {
    /// The group whose shards take the rows.
    pub group: GroupId,
    pub(super) key: SmallVec<[KeyField; 2]>,
    pub(super) format: Format,
    /// Which shards hold which keys.
    pub(super) directory: Arc<Directory>,
    pub(super) table: String,
}

/// A column of the key in the rows.
#[derive(Debug, Clone)]
pub(super) struct KeyField {
    pub(super) name: String,
    pub(super) position: usize,
    pub(super) key_type: KeyType,
    /// Trailing blanks may be cut off.
    pub(super) cuts_blanks: bool,
}

/// How rows are written.
#[derive(Debug, Clone)]
pub(super) enum Format {
    Text { delimiter: u8, null: Vec<u8>, header: bool },
    Csv { delimiter: u8, null: Vec<u8>, quote: u8, escape: u8, header: bool },
    Binary,
}

/// Plans a COPY.
///
/// # Errors
/// 0A000 for options that can't be kept over nodes, or an unknown place of the key.
pub fn copy_in(copy: &CopyIn, map: &ShardMap) -> Result<CopyInPlan, ServerError> {
    let options = &copy.statement.options;
    let Some(table) = map.table(&copy.table) else {
        return Err(unknown_columns(&copy.table));
    };
    let known = || table.columns.iter().filter(|c| !c.generated).map(|c| c.name.clone());
    let columns: Vec<String> = copy.statement.columns.clone().unwrap_or_else(|| known().collect());
    let column_count = (!columns.is_empty()).then_some(columns.len());
    let format_code = u8::from(options.format == CopyFormat::Binary);
    let key: &[String] = match &table.kind {
        TableKind::Sharded { key, .. } => key,
        TableKind::Reference => &[],
    };
    let types = match &table.kind {
        TableKind::Sharded { group, .. } => map.groups()[group.index()].key.as_slice(),
        TableKind::Reference => &[],
    };
    if let Some(option) = options.others.iter().find(|option| !keeps(option, key, types)) {
        return Err(ServerError::refused(
            format!("COPY with {} is not supported for \"{}\"", option.name, copy.table.name),
            "The proxy could not keep it exactly when it spreads the rows over nodes.",
            "Leave it out, or use another format.",
        ));
    }
    let TableKind::Sharded { group, key } = &table.kind else {
        check_copies(copy, table, &columns)?;
        let text = copy.text.trim().to_owned();
        let table = copy.table.clone();
        return Ok(CopyInPlan { table, text, column_count, format_code, split: None });
    };
    if columns.is_empty() {
        return Err(unknown_columns(&copy.table));
    }
    let mut fields = SmallVec::new();
    for (name, key_type) in key.iter().zip(&map.groups()[group.index()].key) {
        let Some(position) = columns.iter().position(|column| column == name) else {
            return Err(ServerError::refused(
                format!("COPY into \"{}\" needs the shard key column \"{name}\"", copy.table.name),
                "Without it, where the rows belong can't be told.",
                format!("Add \"{name}\" to the column list."),
            ));
        };
        let column = table.columns.iter().find(|column| column.name == *name);
        let text = column.is_some_and(|column| column.type_oid == TEXT_OID);
        let cuts_blanks = *key_type == KeyType::Text && !text;
        fields.push(KeyField { name: name.clone(), position, key_type: *key_type, cuts_blanks });
    }
    let split = SplitBy {
        group: *group,
        key: fields,
        format: format(options)?,
        directory: Arc::clone(map.directory(*group)),
        table: copy.table.name.clone(),
    };
    let text = text(copy, options);
    let table = copy.table.clone();
    Ok(CopyInPlan { table, text, column_count, format_code, split: Some(split) })
}

/// `pg_type.oid` of text, which has no length.
const TEXT_OID: u32 = 25;

fn unknown_columns(table: &TableName) -> ServerError {
    ServerError::refused(
        format!("the columns of \"{}\" are not known", table.name),
        "The table does not exist, or was not created through the proxy.",
        "Write a column list.",
    )
}

/// Each node's copy of a reference table must get the same.
fn check_copies(copy: &CopyIn, table: &Table, columns: &[String]) -> Result<(), ServerError> {
    let options = &copy.statement.options;
    if options.filter.as_deref().is_some_and(crate::router::varies) {
        return Err(ServerError::refused(
            format!("this WHERE in a COPY into \"{}\" is not supported", copy.table.name),
            "It could take other rows on each node.",
            "Use a condition of columns and constants.",
        ));
    }
    let varies = |column: &&Column| {
        let default = column.default.as_deref();
        default.is_some_and(crate::router::varies) && !columns.contains(&column.name)
    };
    if let Some(column) = table.columns.iter().find(varies) {
        return Err(ServerError::refused(
            format!("COPY into \"{}\" needs \"{}\"", copy.table.name, column.name),
            "Its default would be another value on each node.",
            "Give its value in each row.",
        ));
    }
    Ok(())
}

/// Whether an option means the same when rows are split by key.
fn keeps(option: &OtherOption, key: &[String], types: &[KeyType]) -> bool {
    let of_key = option.values.iter().any(|value| key.contains(value) || value == "*");
    let encoding = |value: &String| {
        let plain: String = value.to_ascii_lowercase().replace(['-', '_'], "");
        let utf8 = matches!(plain.as_str(), "utf8" | "unicode" | "sqlascii");
        // A byte below 128 is that character in all of these.
        let safe = ["latin", "iso8859", "win", "koi8", "euc"].iter().any(|p| plain.starts_with(p));
        utf8 || safe && !types.contains(&KeyType::Text)
    };
    match (option.name.as_str(), &option.text) {
        (_, None) | ("FREEZE" | "ON_ERROR" | "LOG_VERBOSITY" | "REJECT_LIMIT" | "DEFAULT", _) => {
            false
        }
        ("FORCE_NULL" | "FORCE_NOT_NULL", _) => key.is_empty() || !of_key,
        ("ENCODING", _) => option.values.iter().all(encoding),
        _ => key.is_empty(),
    }
}

/// The statement for each node: without HEADER, which the splitter takes off.
fn text(copy: &CopyIn, options: &CopyOptions) -> String {
    let columns = copy.statement.columns.as_ref().map(|columns| {
        let columns: Vec<String> = columns.iter().map(|c| Ident::new(c).to_string()).collect();
        format!(" ({})", columns.join(", "))
    });
    let format = match options.format {
        CopyFormat::Text => "text",
        CopyFormat::Csv => "csv",
        CopyFormat::Binary => "binary",
    };
    let values = [
        ("DELIMITER", &options.delimiter),
        ("NULL", &options.null),
        ("QUOTE", &options.quote),
        ("ESCAPE", &options.escape),
    ];
    let given = values.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let others = options.others.iter().filter_map(|option| option.text.clone());
    let filter = options.filter.as_ref().map(|filter| format!(" {filter}")).unwrap_or_default();
    let options: Vec<String> = std::iter::once(format!("FORMAT {format}"))
        .chain(given.map(|(name, value)| format!("{name} {}", Literal(value))))
        .chain(others)
        .collect();
    let columns = columns.unwrap_or_default();
    format!("COPY {}{columns} FROM STDIN WITH ({}){filter}", copy.table, options.join(", "))
}

fn format(options: &CopyOptions) -> Result<Format, ServerError> {
    let null = |default: &str| options.null.as_deref().unwrap_or(default).as_bytes().to_vec();
    let header = options.header;
    Ok(match options.format {
        CopyFormat::Binary => Format::Binary,
        CopyFormat::Text => Format::Text {
            delimiter: one_byte("DELIMITER", options.delimiter.as_ref(), b'\t')?,
            null: null("\\N"),
            header,
        },
        CopyFormat::Csv => {
            let quote = one_byte("QUOTE", options.quote.as_ref(), b'"')?;
            Format::Csv {
                delimiter: one_byte("DELIMITER", options.delimiter.as_ref(), b',')?,
                null: null(""),
                quote,
                escape: one_byte("ESCAPE", options.escape.as_ref(), quote)?,
                header,
            }
        }
    })
}

/// PostgreSQL takes nothing else; it says so itself where the rows are not split.
fn one_byte(name: &str, value: Option<&String>, default: u8) -> Result<u8, ServerError> {
    match value.map(String::as_bytes) {
        None => Ok(default),
        Some([byte]) if !matches!(byte, b'\r' | b'\n' | b'\\' | b'.') || name != "DELIMITER" => {
            Ok(*byte)
        }
        Some(_) => Err(ServerError::refused(
            format!("COPY {name} must be a single one-byte character"),
            "It is longer, or has a meaning of its own.",
            "Choose another character.",
        )),
    }
}
