//! Our tokens → the grammar's tokens, less what the grammar misreads or lacks (facts: crates.md §2).
//!
//! Positions are byte offsets on line 1, so that spans need no conversion. Only edits that keep the
//! meaning, as far as routing looks at it, are made here; what the grammar would misread is an error.

use sqlparser::ast::Statement as Ast;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Location, Span, Token as Grammar, TokenWithSpan};

use super::cursor::Cursor;
use super::lacking::{self, Instead};
use super::lexer::{Kind, Token, stored};
use super::merge;

/// What edits removed and the tree does not show.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Removed {
    /// `ONLY`
    pub(super) only: bool,
}

/// How deep parentheses, functions and queries may nest.
const DEPTH_MAX: usize = 200;

/// Parses one statement.
///
/// # Errors
/// Why it could not be read.
pub(super) fn parse(text: &str, tokens: &[Token]) -> Result<(Ast, Removed), String> {
    let (tokens, removed) = translate(text, tokens)?;
    let dialect = PostgreSqlDialect {};
    let mut parser =
        Parser::new(&dialect).with_recursion_limit(DEPTH_MAX).with_tokens_with_locations(tokens);
    let statement = parser.parse_statement().map_err(|error| error.to_string())?;
    match parser.peek_token().token {
        Grammar::EOF => Ok((statement, removed)),
        other => Err(format!("unexpected {other}")),
    }
}

fn translate(text: &str, tokens: &[Token]) -> Result<(Vec<TokenWithSpan>, Removed), String> {
    let mut cursor = Cursor::new(text, tokens);
    let mut out = Vec::with_capacity(tokens.len() + 4);
    let mut removed = Removed::default();
    let has_xml = lacking::has_xml(tokens);
    let join = merge::bare_join(text, tokens).unwrap_or_default();
    while let Some(token) = cursor.token() {
        if !join.is_empty() && cursor.at == join.start {
            push(&mut out, Grammar::LParen, token);
        } else if !join.is_empty() && cursor.at == join.end {
            push(&mut out, Grammar::RParen, token);
        }
        if skip_symbols(&mut cursor) || edit(&mut cursor, &mut out, &mut removed)? {
            continue;
        }
        if lacking::is_odd_any(&cursor) {
            push(&mut out, Grammar::Tilde, token);
            cursor.at += 1;
            continue;
        }
        match lacking::edit(&mut cursor, has_xml) {
            Some(Instead::Nothing) => {}
            Some(Instead::One(grammar)) => push(&mut out, grammar, token),
            None => {
                push(&mut out, grammar_token(text, token)?, token);
                cursor.at += 1;
            }
        }
    }
    Ok((out, removed))
}

fn push(out: &mut Vec<TokenWithSpan>, grammar: Grammar, token: &Token) {
    let location = |offset: usize| Location::new(1, offset as u64 + 1);
    out.push(TokenWithSpan::new(grammar, Span::new(location(token.start), location(token.end))));
}

fn word(text: &str) -> Grammar {
    Grammar::make_word(text, None)
}

/// `(row).*` is the row as far as routing looks at it, so is `row.*` before a cast, and `SET a[1] =` sets `a`.
fn skip_symbols(cursor: &mut Cursor<'_>) -> bool {
    let before = |ahead: usize| cursor.at.checked_sub(ahead).map(|at| Cursor { at, ..*cursor });
    let closed = before(1).is_some_and(|before| before.symbol_ahead(0, ")"));
    let is_name = |before: Cursor<'_>| {
        matches!(before.token().map(|token| &token.kind), Some(Kind::Word(_) | Kind::Quoted(_)))
    };
    let row = before(1).is_some_and(is_name)
        && !before(2).is_some_and(|before| before.symbol_ahead(0, "."))
        && cursor.symbol_ahead(2, "::");
    if (closed || row) && cursor.symbol_ahead(0, ".") && cursor.symbol_ahead(1, "*") {
        cursor.at += 2;
        return true;
    }
    if !cursor.symbol_ahead(0, "[") {
        return false;
    }
    let target = before(2).is_some_and(|b| b.word() == Some("set") || b.symbol_ahead(0, ","));
    let inserted = is_insert_list(cursor);
    if !inserted && (!target || !is_set_list(cursor)) {
        return false;
    }
    let mut after = *cursor;
    while after.symbol_ahead(0, "[") {
        let mut depth = 0_usize;
        while !after.at_end() {
            depth += usize::from(after.symbol_ahead(0, "["));
            depth -= usize::from(after.symbol_ahead(0, "]")).min(depth);
            after.at += 1;
            if depth == 0 {
                break;
            }
        }
    }
    let ends = |symbol| after.symbol_ahead(0, symbol);
    if !(if inserted { ends(",") || ends(")") } else { ends("=") }) {
        return false;
    }
    cursor.at = after.at;
    true
}

/// Whether the cursor stands behind a column of `INSERT INTO t (a[1], b)`.
fn is_insert_list(cursor: &Cursor<'_>) -> bool {
    let at = |at: usize| Cursor { at, ..*cursor };
    let is_name = |here: &Cursor<'_>| {
        let kind = here.token().map(|token| &token.kind);
        matches!(kind, Some(Kind::Word(_) | Kind::Quoted(_))) && here.word() != Some("values")
    };
    let mut open = cursor.at.saturating_sub(1);
    if !is_name(&at(open)) {
        return false;
    }
    while !at(open).symbol_ahead(0, "(") {
        if open == 0 || matches!(at(open).word(), Some("select" | "array")) {
            return false;
        }
        open -= 1;
    }
    let before = (1..=6).map_while(|back| open.checked_sub(back).map(at));
    let mut names = before.take_while(|here| is_name(here) || here.symbol_ahead(0, "."));
    names.any(|here| here.word() == Some("into"))
}

/// Whether the cursor stands in the list of SET, in no parentheses of it.
fn is_set_list(cursor: &Cursor<'_>) -> bool {
    let mut depth = 0_usize;
    for at in (0..cursor.at).rev() {
        let here = Cursor { at, ..*cursor };
        depth += usize::from(here.symbol_ahead(0, ")") || here.symbol_ahead(0, "]"));
        if here.symbol_ahead(0, "(") || here.symbol_ahead(0, "[") {
            let Some(less) = depth.checked_sub(1) else { return false };
            depth = less;
        }
        match here.word().filter(|_| depth == 0) {
            Some("set") => return true,
            Some("where" | "from" | "returning" | "select" | "values") => return false,
            _ => {}
        }
    }
    false
}

/// Types that the grammar does not take before a string.
const TYPES: [&str; 22] = [
    "box",
    "cidr",
    "circle",
    "daterange",
    "inet",
    "int4range",
    "int8range",
    "jsonpath",
    "line",
    "lseg",
    "macaddr",
    "macaddr8",
    "money",
    "numrange",
    "path",
    "point",
    "polygon",
    "tsquery",
    "tsrange",
    "tstzrange",
    "tsvector",
    "xml",
];

/// Whether a cast to a type ends before the cursor.
fn ends_cast(cursor: &Cursor<'_>) -> bool {
    (1..=5).any(|back| {
        let words = cursor.tokens.get(cursor.at.saturating_sub(back) + 1..cursor.at);
        let is_type = |token: &Token| {
            matches!(&token.kind, Kind::Word(_) | Kind::Quoted(_) | Kind::Integer)
                || matches!(&cursor.text[token.span()], "(" | ")" | "." | "[" | "]")
        };
        let from = cursor.at.checked_sub(back).map(|at| Cursor { at, ..*cursor });
        from.is_some_and(|from| from.symbol_ahead(0, "::"))
            && words.is_some_and(|words| words.iter().all(is_type))
    })
}

/// Edits at the cursor, and moves past what it edited; false if nothing is to be edited here.
fn edit(
    cursor: &mut Cursor<'_>,
    out: &mut Vec<TokenWithSpan>,
    removed: &mut Removed,
) -> Result<bool, String> {
    let (Some(here), Some(token)) = (cursor.word(), cursor.token()) else { return Ok(false) };
    let before = cursor.at.checked_sub(1).map(|at| Cursor { at, ..*cursor });
    let after_word = |words: &[&str]| {
        before.and_then(|b| b.word()).is_some_and(|before| words.contains(&before))
    };
    let after_symbol = |symbol| before.is_some_and(|b| b.symbol_ahead(0, symbol));
    if after_word(&["as"]) || after_symbol(".") {
        return Ok(false);
    }
    match here {
        "only" if after_word(&["from", "into", "join", "update", "using"]) || after_symbol(",") => {
            if cursor.symbol_ahead(1, "(") {
                return Err("ONLY (…) is not supported".to_owned());
            }
            removed.only = true;
            cursor.at += 1;
        }
        "table"
            if cursor.at == 0
                || after_word(&["union", "intersect", "except", "all"])
                || after_symbol("(") =>
        {
            for grammar in [word("SELECT"), Grammar::Mul, word("FROM")] {
                push(out, grammar, token);
            }
            cursor.at += 1;
        }
        "isnull" | "notnull" if cursor.at > 0 && !cursor.symbol_ahead(1, "(") => {
            let not = (here == "notnull").then(|| word("NOT"));
            for grammar in std::iter::once(word("IS")).chain(not).chain([word("NULL")]) {
                push(out, grammar, token);
            }
            cursor.at += 1;
        }
        "no" if after_word(&["for"]) && cursor.word_ahead(1) == Some("key") => cursor.at += 2,
        "key" if after_word(&["for"]) && cursor.word_ahead(1) == Some("share") => cursor.at += 1,
        "overriding" if cursor.word_ahead(2) == Some("value") => cursor.at += 3,
        "variadic" if after_symbol("(") || after_symbol(",") => cursor.at += 1,
        "symmetric" if after_word(&["between"]) => cursor.at += 1,
        "conflict" if after_word(&["on"]) && cursor.symbol_ahead(1, "(") => {
            push(out, word("CONFLICT"), token);
            cursor.at += 1;
            skip_conflict_target(cursor);
        }
        _ => return Ok(edit_expression(cursor, out, token)),
    }
    Ok(true)
}

/// The same for what stands in expressions.
fn edit_expression(cursor: &mut Cursor<'_>, out: &mut Vec<TokenWithSpan>, token: &Token) -> bool {
    let before = cursor.at.checked_sub(1).map(|at| Cursor { at, ..*cursor });
    let after_word = |words: &[&str]| {
        before.and_then(|b| b.word()).is_some_and(|before| words.contains(&before))
    };
    match cursor.word().unwrap_or_default() {
        // What it stands behind, or before, is no plain value then.
        "collate" if ends_cast(cursor) => {
            push(out, Grammar::StringConcat, token);
            push(out, Grammar::SingleQuotedString(String::new()), token);
            cursor.at += 1;
            cursor.name();
        }
        "exclude"
            if after_word(&["row", "preceding", "following"])
                && matches!(cursor.word_ahead(1), Some("current" | "group" | "ties" | "no")) =>
        {
            let two = matches!(cursor.word_ahead(1), Some("group" | "ties"));
            cursor.at += if two { 2 } else { 3 };
        }
        "path" if lacking::names_paths(cursor.tokens) => return false,
        name if TYPES.contains(&name) && !before.is_some_and(|b| b.symbol_ahead(0, "::")) => {
            let Some(Token { kind: Kind::String(value), .. }) = cursor.tokens.get(cursor.at + 1)
            else {
                return false;
            };
            push(out, Grammar::SingleQuotedString(value.clone()), token);
            push(out, Grammar::StringConcat, token);
            push(out, Grammar::SingleQuotedString(String::new()), token);
            cursor.at += 2;
        }
        _ => return false,
    }
    true
}

/// `(lower(email)) WHERE active` before DO: says only which index arbitrates.
fn skip_conflict_target(cursor: &mut Cursor<'_>) {
    let start = cursor.at;
    while !cursor.at_end() {
        match cursor.word() {
            Some("do") => return,
            Some("select") => break,
            _ if cursor.symbol_ahead(0, "(") => {
                let inside = cursor.parenthesized().unwrap_or_default();
                if inside.iter().any(|t| t.kind == Kind::Word("select".to_owned())) {
                    break;
                }
            }
            _ => cursor.at += 1,
        }
    }
    cursor.at = start;
}

fn grammar_token(text: &str, token: &Token) -> Result<Grammar, String> {
    let source = &text[token.span()];
    Ok(match &token.kind {
        Kind::Word(name) => Grammar::make_word(&stored(name.clone()), None),
        Kind::Quoted(name) => Grammar::make_word(&stored(name.clone()), Some('"')),
        Kind::String(value) => Grammar::SingleQuotedString(value.clone()),
        Kind::Opaque => Grammar::HexStringLiteral(String::new()),
        Kind::Integer | Kind::Decimal => Grammar::Number(source.to_owned(), false),
        Kind::Param(_) => Grammar::Placeholder(source.to_owned()),
        Kind::Symbol => symbol(source)?,
        Kind::Bad | Kind::Odd => {
            return Err(format!("syntax error at or near \"{}\"", shortened(source)));
        }
    })
}

fn shortened(source: &str) -> &str {
    &source[..source.floor_char_boundary(30)]
}

fn symbol(source: &str) -> Result<Grammar, String> {
    Ok(match source {
        "(" => Grammar::LParen,
        ")" => Grammar::RParen,
        "[" => Grammar::LBracket,
        "]" => Grammar::RBracket,
        "," => Grammar::Comma,
        ";" => Grammar::SemiColon,
        "." => Grammar::Period,
        ":" => Grammar::Colon,
        "::" => Grammar::DoubleColon,
        ":=" => Grammar::Assignment,
        "=>" => Grammar::RArrow,
        ".." => return Err("unexpected ..".to_owned()),
        "=" => Grammar::Eq,
        "<>" | "!=" => Grammar::Neq,
        "<" => Grammar::Lt,
        ">" => Grammar::Gt,
        "<=" => Grammar::LtEq,
        ">=" => Grammar::GtEq,
        "+" => Grammar::Plus,
        "-" => Grammar::Minus,
        "*" => Grammar::Mul,
        "/" => Grammar::Div,
        "%" => Grammar::Mod,
        "^" => Grammar::Caret,
        "||" => Grammar::StringConcat,
        "->" => Grammar::Arrow,
        "->>" => Grammar::LongArrow,
        "#>" => Grammar::HashArrow,
        "#>>" => Grammar::HashLongArrow,
        "@>" => Grammar::AtArrow,
        "<@" => Grammar::ArrowAt,
        "?" => Grammar::Question,
        "?|" => Grammar::QuestionPipe,
        "?&" => Grammar::QuestionAnd,
        "&&" => Grammar::Overlap,
        "~" => Grammar::Tilde,
        "@" => Grammar::AtSign,
        "|/" => Grammar::PGSquareRoot,
        "||/" => Grammar::PGCubeRoot,
        "~*" => Grammar::TildeAsterisk,
        "!~" => Grammar::ExclamationMarkTilde,
        "!~*" => Grammar::ExclamationMarkTildeAsterisk,
        "~~" => Grammar::DoubleTilde,
        "~~*" => Grammar::DoubleTildeAsterisk,
        "!~~" => Grammar::ExclamationMarkDoubleTilde,
        "!~~*" => Grammar::ExclamationMarkDoubleTildeAsterisk,
        "&" => Grammar::Ampersand,
        "|" => Grammar::Pipe,
        "#" => Grammar::Sharp,
        "<<" => Grammar::ShiftLeft,
        ">>" => Grammar::ShiftRight,
        other => Grammar::CustomBinaryOperator(other.to_owned()),
    })
}
