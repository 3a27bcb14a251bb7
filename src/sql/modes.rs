//! Settings of a transaction that a text asks for by `current_setting()`.

use super::cursor::Cursor;
use super::lexer::{Kind, Strings, tokens};
use super::quote::Literal;

/// What the transactions of the proxy's own have other values of than the client's.
pub const MODES: [&str; 4] =
    ["transaction_isolation", "transaction_read_only", "transaction_deferrable", "lock_timeout"];

/// What stands before the name of a mode where it is asked for instead.
pub const OF_CLIENT: &str = "foreshard.client_";

/// A setting is asked for by a name that is not written there.
#[derive(Debug, PartialEq, Eq)]
pub struct ComputedName;

/// Whether a text may ask for settings at all.
pub fn asks_settings(text: &str) -> bool {
    text.to_ascii_lowercase().contains("current_setting")
}

/// The text asking for settings of ours in the place of [`MODES`]; `None` if it asks for none of them.
///
/// # Errors
/// It may ask for one of them, by a name that it computes.
pub fn modes_of_client(text: &str) -> Result<Option<String>, ComputedName> {
    if !asks_settings(text) {
        return Ok(None);
    }
    let tokens = tokens(text, Strings::Standard);
    let mut cursor = Cursor::new(text, &tokens);
    let (mut out, mut done) = (String::new(), 0);
    while let Some(token) = cursor.token() {
        let named = matches!(&token.kind, Kind::Word(name) | Kind::Quoted(name) if name == "current_setting");
        cursor.at += 1;
        if !named || !cursor.symbol_ahead(0, "(") {
            continue;
        }
        // PostgreSQL writes the texts of views with the cast.
        let cast = cursor.symbol_ahead(2, "::") && cursor.word_ahead(3) == Some("text");
        let behind = if cast { 4 } else { 2 };
        let ends = cursor.symbol_ahead(behind, ")") || cursor.symbol_ahead(behind, ",");
        let name = tokens.get(cursor.at + 1).filter(|_| ends);
        let Some((Kind::String(setting), name)) = name.map(|name| (&name.kind, name)) else {
            return Err(ComputedName);
        };
        if let Some(mode) = MODES.iter().find(|mode| mode.eq_ignore_ascii_case(setting)) {
            out.push_str(text.get(done..name.start).unwrap_or_default());
            out.push_str(&Literal(&format!("{OF_CLIENT}{mode}")).to_string());
            done = name.end;
        }
    }
    out.push_str(text.get(done..).unwrap_or_default());
    Ok((done > 0).then_some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_asked_for_under_another_name() {
        let told = |text: &str| modes_of_client(text);
        assert_eq!(told("SELECT current_setting('app.x'), 'current_setting'"), Ok(None));
        let wanted = "SELECT Current_Setting('foreshard.client_lock_timeout' , true), \
            pg_catalog.\"current_setting\" ('foreshard.client_transaction_isolation') FROM t";
        let text = "SELECT Current_Setting('lock_timeout' , true), \
            pg_catalog.\"current_setting\" ('Transaction_Isolation') FROM t";
        assert_eq!(told(text), Ok(Some(wanted.to_owned())));
        let (view, wanted) =
            ("'transaction_read_only'::text", "'foreshard.client_transaction_read_only'::text");
        let call = |name: &str| format!("SELECT current_setting({name}, true)");
        assert_eq!(told(&call(view)), Ok(Some(call(wanted))));
        assert_eq!(told(&call("'app.x'::text")), Ok(None));
        for computed in ["$1", "name", "'transaction' || '_isolation'", "'a'::text || 'b'"] {
            assert_eq!(told(&format!("SELECT current_setting({computed})")), Err(ComputedName));
        }
    }
}
