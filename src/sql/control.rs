//! Statements about the session or its transaction: read from their first words, never by the
//! grammar.

use super::cursor::{Cursor, comma_parts};
use super::lexer::{Kind, Token};
use super::prepared::{self, ExecuteStatement, PrepareStatement};

/// What a statement does to the session or its transaction. Only for a text of one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Nothing: an ordinary statement.
    None,
    /// `BEGIN`, `START TRANSACTION`, with any modes: send the text as it is.
    Begin,
    /// `COMMIT`, `END`; `chain` with `AND CHAIN`.
    Commit {
        /// A transaction with the same modes begins at once.
        chain: bool,
    },
    /// `ROLLBACK`, `ABORT`; `chain` with `AND CHAIN`.
    Rollback {
        /// A transaction with the same modes begins at once.
        chain: bool,
    },
    /// `SAVEPOINT name`: on every node that the transaction has joined, or joins later.
    Savepoint {
        /// Folded.
        name: String,
    },
    /// `RELEASE [SAVEPOINT] name`
    Release {
        /// Folded.
        name: String,
    },
    /// `ROLLBACK TO [SAVEPOINT] name`
    RollbackTo {
        /// Folded.
        name: String,
    },
    /// `SET TRANSACTION …` or `SET CONSTRAINTS …`: holds for the current transaction, on each of its
    /// nodes.
    SetTransaction {
        /// The statement, to replay on a node that joins the transaction later.
        text: String,
    },
    /// `SET [SESSION | LOCAL] name = …`, also `SET TIME ZONE`, `SET NAMES`, `SET ROLE`,
    /// `SET SESSION AUTHORIZATION` and `SET SESSION CHARACTERISTICS` under the names `timezone`,
    /// `client_encoding`, `role`, `session_authorization` and `session characteristics`.
    Set {
        /// Lower case.
        name: String,
        /// Until the end of the transaction only.
        local: bool,
        /// The values, identifiers folded and strings without their quotes; `None` for `DEFAULT`.
        values: Option<Vec<String>>,
        /// The statement, to replay on other server connections.
        text: String,
    },
    /// `RESET name`, or all for `None`.
    Reset {
        /// Lower case, as for [`Control::Set`].
        name: Option<String>,
    },
    /// `SHOW name`, also `SHOW ALL`.
    Show {
        /// Lower case, as for [`Control::Set`].
        name: String,
    },
    /// `DISCARD …`
    Discard(Discard),
    /// `PREPARE name AS …`
    Prepare(Box<PrepareStatement>),
    /// `EXECUTE name …`, also behind EXPLAIN.
    Execute(Box<ExecuteStatement>),
    /// `DEALLOCATE name`, or all for `None`.
    Deallocate {
        /// As stored.
        name: Option<String>,
    },
    /// `LISTEN channel`
    Listen {
        /// Folded.
        channel: String,
    },
    /// `UNLISTEN channel`, or all for `None`.
    Unlisten {
        /// Folded.
        channel: Option<String>,
    },
}

impl Control {
    /// Whether it begins or ends a transaction block, or a part of one.
    pub fn moves_transaction(&self) -> bool {
        matches!(
            self,
            Self::Begin
                | Self::Commit { .. }
                | Self::Rollback { .. }
                | Self::Savepoint { .. }
                | Self::Release { .. }
                | Self::RollbackTo { .. }
        )
    }
}

/// What `DISCARD` throws away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// `ALL`
    All,
    /// `PLANS`
    Plans,
    /// `TEMP`, `TEMPORARY`
    Temp,
    /// `SEQUENCES`
    Sequences,
}

/// Reads a control statement; `None` if it is none, or none that can be read.
pub(super) fn read(text: &str, tokens: &[Token]) -> Option<Control> {
    let mut cursor = Cursor::new(text, tokens);
    let own_text = || {
        let (first, last) = (tokens.first()?, tokens.last()?);
        Some(text[first.start..last.end].to_owned())
    };
    let word = cursor.word()?;
    cursor.at += 1;
    match word {
        "begin" => Some(Control::Begin),
        "start" => cursor.eat("transaction").then_some(Control::Begin),
        "commit" | "end" => ending(&mut cursor).map(|chain| Control::Commit { chain }),
        "rollback" | "abort" => rollback(&mut cursor),
        "savepoint" => last_name(&mut cursor).map(|name| Control::Savepoint { name }),
        "release" => {
            savepoint_word(&mut cursor);
            last_name(&mut cursor).map(|name| Control::Release { name })
        }
        "set" => set(&mut cursor, own_text()?),
        "reset" => {
            let name = setting_name(&mut cursor)?;
            let name = (name != "all").then_some(name);
            cursor.at_end().then_some(Control::Reset { name })
        }
        "show" => {
            let name = setting_name(&mut cursor)?;
            cursor.at_end().then_some(Control::Show { name })
        }
        "discard" => discard(&mut cursor).map(Control::Discard),
        "prepare" | "execute" | "deallocate" => prepared::read(word, &mut cursor),
        "listen" => last_name(&mut cursor).map(|channel| Control::Listen { channel }),
        "unlisten" if cursor.eat_symbol("*") => Some(Control::Unlisten { channel: None }),
        "unlisten" => {
            last_name(&mut cursor).map(|channel| Control::Unlisten { channel: Some(channel) })
        }
        _ => None,
    }
}

/// An identifier that ends the statement.
fn last_name(cursor: &mut Cursor<'_>) -> Option<String> {
    cursor.ident().filter(|_| cursor.at_end())
}

/// `[WORK | TRANSACTION] [AND [NO] CHAIN]`
fn ending(cursor: &mut Cursor<'_>) -> Option<bool> {
    cursor.eat_any(&["work", "transaction"]);
    let chain = cursor.eat_all(&["and", "chain"]);
    if !chain {
        cursor.eat_all(&["and", "no", "chain"]);
    }
    cursor.at_end().then_some(chain)
}

fn rollback(cursor: &mut Cursor<'_>) -> Option<Control> {
    let start = cursor.at;
    cursor.eat_any(&["work", "transaction"]);
    if cursor.eat("to") {
        savepoint_word(cursor);
        return last_name(cursor).map(|name| Control::RollbackTo { name });
    }
    cursor.at = start;
    ending(cursor).map(|chain| Control::Rollback { chain })
}

/// The noise word of `RELEASE SAVEPOINT a`; not the name in `RELEASE savepoint`.
fn savepoint_word(cursor: &mut Cursor<'_>) {
    if cursor.tokens.len() > cursor.at + 1 {
        cursor.eat("savepoint");
    }
}

fn discard(cursor: &mut Cursor<'_>) -> Option<Discard> {
    let what = match cursor.word()? {
        "all" => Discard::All,
        "plans" => Discard::Plans,
        "temp" | "temporary" => Discard::Temp,
        "sequences" => Discard::Sequences,
        _ => return None,
    };
    cursor.at += 1;
    cursor.at_end().then_some(what)
}

/// A setting's name in lower case, also of the forms of more words.
fn setting_name(cursor: &mut Cursor<'_>) -> Option<String> {
    let special: [(&[&str], &str); 4] = [
        (&["time", "zone"], "timezone"),
        (&["session", "authorization"], "session_authorization"),
        (&["session", "characteristics"], "session characteristics"),
        (&["transaction", "isolation", "level"], "transaction_isolation"),
    ];
    if let Some((_, name)) = special.iter().find(|(words, _)| cursor.eat_all(words)) {
        return Some((*name).to_owned());
    }
    let mut name = cursor.ident()?;
    while cursor.eat_symbol(".") {
        name.push('.');
        name.push_str(&cursor.ident()?);
    }
    Some(name.to_ascii_lowercase())
}

fn set(cursor: &mut Cursor<'_>, text: String) -> Option<Control> {
    let local = cursor.eat("local");
    if !local
        && cursor.word() == Some("session")
        && !matches!(cursor.word_ahead(1), Some("authorization" | "characteristics"))
    {
        cursor.at += 1;
    }
    if matches!(cursor.word(), Some("transaction" | "constraints")) {
        return Some(Control::SetTransaction { text });
    }
    if cursor.word() == Some("names") {
        cursor.at += 1;
        let values = values(cursor)?;
        let name = "client_encoding".to_owned();
        return Some(Control::Set { name, local, values, text });
    }
    let name = setting_name(cursor)?;
    let plain = !matches!(
        name.as_str(),
        "timezone" | "session_authorization" | "session characteristics" | "role"
    );
    if !cursor.eat_symbol("=") && !cursor.eat("to") && plain && !name.contains(' ') {
        // `SET XML OPTION …`, `SET SCHEMA 'x'`, `SET x FROM CURRENT`
        return set_special(cursor, &name, local, text);
    }
    if name == "session characteristics" {
        let text_values = Some(vec![text.clone()]);
        return Some(Control::Set { name, local, values: text_values, text });
    }
    let values = values(cursor)?;
    Some(Control::Set { name, local, values, text })
}

/// The forms of SET that have neither `=` nor `TO`.
fn set_special(cursor: &mut Cursor<'_>, name: &str, local: bool, text: String) -> Option<Control> {
    if name != "schema" {
        return None;
    }
    let values = values(cursor)?;
    Some(Control::Set { name: "search_path".to_owned(), local, values, text })
}

/// A list of values to the end; `Some(None)` for DEFAULT.
#[expect(clippy::option_option, reason = "not readable, the default, and a list are three things")]
fn values(cursor: &mut Cursor<'_>) -> Option<Option<Vec<String>>> {
    if cursor.word() == Some("default") && cursor.tokens.len() == cursor.at + 1 {
        return Some(None);
    }
    let mut list = Vec::new();
    for part in comma_parts(cursor.text, &cursor.tokens[cursor.at..]) {
        list.push(match part {
            [
                Token {
                    kind: Kind::Word(value) | Kind::Quoted(value) | Kind::String(value), ..
                },
            ] => value.clone(),
            [only] => cursor.text[only.span()].to_owned(),
            [] => return None,
            [first, .., last] => cursor.text[first.start..last.end].to_owned(),
        });
    }
    Some(Some(list))
}
