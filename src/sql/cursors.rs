//! DECLARE, FETCH, MOVE and CLOSE, read by hand.

use super::cursor::Cursor;
use super::lexer::Token;
use super::statement::Query;

/// `DECLARE … CURSOR FOR …`
#[derive(Debug, Clone)]
pub struct DeclareCursor {
    /// The cursor, as stored.
    pub name: String,
    /// WITH HOLD
    pub hold: bool,
    /// Where its query starts in the text.
    pub start: usize,
    /// Its query.
    pub query: Box<Query>,
}

/// FETCH, MOVE or CLOSE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UseCursor {
    /// The cursor, as stored; `None` for all of them.
    pub name: Option<String>,
    /// CLOSE
    pub closes: bool,
}

/// Reads DECLARE; `None` if its query can't be read.
pub(super) fn declare(text: &str, tokens: &[Token]) -> Option<DeclareCursor> {
    let mut cursor = Cursor::new(text, tokens);
    if !cursor.eat("declare") {
        return None;
    }
    let name = cursor.ident()?;
    while cursor.eat_any(&["binary", "asensitive", "insensitive", "no", "scroll"]) {}
    if !cursor.eat("cursor") {
        return None;
    }
    let hold = cursor.eat_all(&["with", "hold"]);
    cursor.eat_all(&["without", "hold"]);
    if !cursor.eat("for") {
        return None;
    }
    let start = cursor.token()?.start;
    let query = super::parse::query(text, tokens.get(cursor.at..)?).ok()?;
    Some(DeclareCursor { name, hold, start, query: Box::new(query) })
}

/// Reads FETCH, MOVE and CLOSE: the cursor's name comes last.
pub(super) fn used(text: &str, tokens: &[Token]) -> Option<UseCursor> {
    let mut cursor = Cursor::new(text, tokens);
    let closes = cursor.eat("close");
    let all = closes && cursor.word() == Some("all") && tokens.len() == 2;
    cursor.at = tokens.len().checked_sub(1)?;
    let name = if all { None } else { Some(cursor.ident()?) };
    Some(UseCursor { name, closes })
}
