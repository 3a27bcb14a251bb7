//! COPY, read by hand: the grammar lacks half of its options.

use super::cursor::{Cursor, Name, comma_parts};
use super::lexer::{Kind, Token};

/// A COPY statement.
#[derive(Debug, Clone)]
pub struct CopyStatement {
    /// The table; `None` for `COPY (query) TO`.
    pub table: Option<Name>,
    /// The column list; `None` where it was not written.
    pub columns: Option<Vec<String>>,
    /// The query of `COPY (query) TO`, where it can be read.
    pub query: Option<Box<super::Query>>,
    /// FROM; else TO.
    pub from: bool,
    /// The bytes of what is behind FROM or TO, up to the options.
    pub target: std::ops::Range<usize>,
    /// STDIN or STDOUT; else a file or program of the server.
    pub by_client: bool,
    /// Its options.
    pub options: CopyOptions,
}

/// How the rows of a COPY are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CopyFormat {
    /// Tabs and backslashes.
    #[default]
    Text,
    /// Quotes.
    Csv,
    /// Lengths.
    Binary,
}

/// The options of a COPY.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// FORMAT
    pub format: CopyFormat,
    /// HEADER
    pub header: bool,
    /// DELIMITER
    pub delimiter: Option<String>,
    /// NULL
    pub null: Option<String>,
    /// QUOTE
    pub quote: Option<String>,
    /// ESCAPE
    pub escape: Option<String>,
    /// Options besides these.
    pub others: Vec<OtherOption>,
    /// WHERE with its condition, as written.
    pub filter: Option<String>,
}

/// An option whose meaning is left to PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherOption {
    /// Its name, in upper case.
    pub name: String,
    /// Its identifiers and strings, as stored.
    pub values: Vec<String>,
    /// As written among the options in parentheses; `None` for the form of before version 9.0.
    pub text: Option<String>,
}

/// Reads a COPY statement with the word COPY; `None` if it can't be read.
pub(super) fn read(text: &str, tokens: &[Token]) -> Option<CopyStatement> {
    let mut cursor = Cursor::new(text, tokens);
    cursor.at = 1;
    let mut options = CopyOptions::default();
    if cursor.word() == Some("binary") && cursor.word_ahead(1) != Some("from") {
        cursor.at += 1;
        options.format = CopyFormat::Binary;
    }
    let (mut table, mut columns, mut query) = (None, None, None);
    if cursor.symbol_ahead(0, "(") {
        let inside = cursor.parenthesized()?;
        query = super::parse::query(text, inside).ok().map(Box::new);
    } else {
        table = Some(cursor.name()?);
        if cursor.symbol_ahead(0, "(") {
            columns = Some(cursor.ident_list()?);
        }
    }
    let from = cursor.eat("from");
    if !from && !cursor.eat("to") {
        return None;
    }
    let start = cursor.token()?.start;
    let by_client = cursor.eat(if from { "stdin" } else { "stdout" });
    if !by_client {
        cursor.eat("program");
        cursor.string()?;
    }
    let target = start..tokens.get(cursor.at - 1)?.end;
    if cursor.eat_all(&["using", "delimiters"]) {
        options.delimiter = Some(cursor.string()?.to_owned());
    }
    cursor.eat("with");
    if cursor.symbol_ahead(0, "(") {
        for part in comma_parts(text, cursor.parenthesized()?) {
            option(&mut Cursor::new(text, part), &mut options)?;
        }
    } else {
        old_options(&mut cursor, &mut options)?;
    }
    if cursor.eat("where") {
        let span = tokens.get(cursor.at - 1)?.start..tokens.last()?.end;
        options.filter = text.get(span).map(str::to_owned);
        cursor.at = tokens.len();
    }
    cursor.at_end().then_some(CopyStatement {
        table,
        columns,
        query,
        from,
        target,
        by_client,
        options,
    })
}

/// `(FORMAT csv, HEADER true, …)`
fn option(cursor: &mut Cursor<'_>, options: &mut CopyOptions) -> Option<()> {
    let name = cursor.ident()?;
    match name.as_str() {
        "format" => {
            options.format = match word_or_string(cursor)?.as_str() {
                "text" => CopyFormat::Text,
                "csv" => CopyFormat::Csv,
                "binary" => CopyFormat::Binary,
                _ => return None,
            }
        }
        "header" if cursor.at_end() => options.header = true,
        "header" => {
            if let Some(header) = header(cursor)? {
                options.header = header;
            } else {
                options.others.push(other(cursor, "HEADER MATCH".to_owned()));
            }
        }
        "delimiter" => options.delimiter = Some(cursor.string()?.to_owned()),
        "null" => options.null = Some(cursor.string()?.to_owned()),
        "quote" => options.quote = Some(cursor.string()?.to_owned()),
        "escape" => options.escape = Some(cursor.string()?.to_owned()),
        name => options.others.push(other(cursor, name.to_ascii_uppercase())),
    }
    cursor.at_end().then_some(())
}

/// All of the option that the cursor is in.
fn other(cursor: &mut Cursor<'_>, name: String) -> OtherOption {
    cursor.at = cursor.tokens.len();
    let value = |token: &Token| match &token.kind {
        Kind::Word(value) | Kind::Quoted(value) | Kind::String(value) => Some(value.clone()),
        _ => None,
    };
    let values = cursor.tokens.iter().skip(1).filter_map(value).collect();
    let span = cursor.tokens.first().zip(cursor.tokens.last()).map(|(a, b)| a.start..b.end);
    let text = span.and_then(|span| cursor.text.get(span)).map(str::to_owned);
    OtherOption { name, values, text }
}

/// A Boolean; `None` inside for MATCH.
#[expect(clippy::option_option, reason = "unreadable, a Boolean and MATCH are three things")]
fn header(cursor: &mut Cursor<'_>) -> Option<Option<bool>> {
    let token = cursor.token()?;
    let written = match &token.kind {
        Kind::Word(word) | Kind::String(word) => word.to_ascii_lowercase(),
        _ => cursor.text[token.span()].to_owned(),
    };
    cursor.at += 1;
    Some(match written.as_str() {
        "true" | "on" | "1" => Some(true),
        "false" | "off" | "0" => Some(false),
        "match" => None,
        _ => return None,
    })
}

fn word_or_string(cursor: &mut Cursor<'_>) -> Option<String> {
    match &cursor.token()?.kind {
        Kind::Word(word) | Kind::String(word) | Kind::Quoted(word) => {
            cursor.at += 1;
            Some(word.clone())
        }
        _ => None,
    }
}

/// The options of before version 9.0: `BINARY`, `CSV HEADER`, `DELIMITER AS '…'`, …
fn old_options(cursor: &mut Cursor<'_>, options: &mut CopyOptions) -> Option<()> {
    loop {
        let value = |cursor: &mut Cursor<'_>| {
            cursor.eat("as");
            cursor.string().map(str::to_owned)
        };
        match cursor.word() {
            None | Some("where") => return Some(()),
            Some(word) => {
                cursor.at += 1;
                match word {
                    "binary" => options.format = CopyFormat::Binary,
                    "csv" => options.format = CopyFormat::Csv,
                    "header" => options.header = true,
                    "delimiter" => options.delimiter = Some(value(cursor)?),
                    "null" => options.null = Some(value(cursor)?),
                    "quote" => options.quote = Some(value(cursor)?),
                    "escape" => options.escape = Some(value(cursor)?),
                    other => {
                        let name = other.to_ascii_uppercase();
                        options.others.push(OtherOption { name, values: Vec::new(), text: None });
                        while !cursor.at_end() && cursor.word() != Some("where") {
                            cursor.at += 1;
                        }
                    }
                }
            }
        }
    }
}
