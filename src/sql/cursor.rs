//! Walks over tokens for the small hand-made readers.

use std::ops::Range;

use super::lexer::{Kind, Token, stored};

/// A name as written: folded, cut to what PostgreSQL stores, with its qualifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The schema, if it was written. A database before it is dropped.
    pub schema: Option<String>,
    /// The name itself.
    pub name: String,
    /// The bytes of the whole in the text.
    pub span: Range<usize>,
}

#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) text: &'a str,
    pub(super) tokens: &'a [Token],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str, tokens: &'a [Token]) -> Self {
        Self { text, tokens, at: 0 }
    }

    pub(super) fn at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    pub(super) fn token(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    /// The unquoted word here, folded.
    pub(super) fn word(&self) -> Option<&'a str> {
        self.word_ahead(0)
    }

    pub(super) fn word_ahead(&self, ahead: usize) -> Option<&'a str> {
        match self.tokens.get(self.at + ahead) {
            Some(Token { kind: Kind::Word(word), .. }) => Some(word),
            _ => None,
        }
    }

    /// Whether the symbol or operator `symbol` is `ahead` tokens from here.
    pub(super) fn symbol_ahead(&self, ahead: usize, symbol: &str) -> bool {
        self.tokens.get(self.at + ahead).is_some_and(|token| {
            token.kind == Kind::Symbol && self.text.get(token.span()) == Some(symbol)
        })
    }

    pub(super) fn eat_symbol(&mut self, symbol: &str) -> bool {
        let eaten = self.symbol_ahead(0, symbol);
        self.at += usize::from(eaten);
        eaten
    }

    pub(super) fn eat(&mut self, word: &str) -> bool {
        let eaten = self.word() == Some(word);
        self.at += usize::from(eaten);
        eaten
    }

    /// Eats all of `words`, or nothing.
    pub(super) fn eat_all(&mut self, words: &[&str]) -> bool {
        let eaten = (0..).zip(words).all(|(ahead, word)| self.word_ahead(ahead) == Some(*word));
        self.at += if eaten { words.len() } else { 0 };
        eaten
    }

    pub(super) fn eat_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.eat(word))
    }

    /// The bytes of the text.
    pub(super) fn slice(&self, range: Range<usize>) -> &'a str {
        self.text.get(range).unwrap_or_default()
    }

    /// An identifier, quoted or not, as stored.
    pub(super) fn ident(&mut self) -> Option<String> {
        let name = match &self.token()?.kind {
            Kind::Word(name) | Kind::Quoted(name) => stored(name.clone()),
            _ => return None,
        };
        self.at += 1;
        Some(name)
    }

    /// `name`, `schema.name` or `database.schema.name`.
    pub(super) fn name(&mut self) -> Option<Name> {
        let start = self.token()?.start;
        let mut parts = vec![self.ident()?];
        while self.symbol_ahead(0, ".") {
            self.at += 1;
            parts.push(self.ident()?);
        }
        let end = self.tokens.get(self.at.checked_sub(1)?)?.end;
        let name = parts.pop()?;
        (parts.len() < 3).then(|| Name { schema: parts.pop(), name, span: start..end })
    }

    /// A string constant of known value.
    pub(super) fn string(&mut self) -> Option<&'a str> {
        let Kind::String(value) = &self.token()?.kind else { return None };
        self.at += 1;
        Some(value)
    }

    /// Here stands `(`: moves behind its `)` and gives the tokens between them.
    pub(super) fn parenthesized(&mut self) -> Option<&'a [Token]> {
        if !self.symbol_ahead(0, "(") {
            return None;
        }
        let start = self.at + 1;
        let mut depth = 0_usize;
        while !self.at_end() {
            if self.symbol_ahead(0, "(") || self.symbol_ahead(0, "[") {
                depth += 1;
            } else if self.symbol_ahead(0, ")") || self.symbol_ahead(0, "]") {
                depth = depth.checked_sub(1)?;
            }
            self.at += 1;
            if depth == 0 {
                return self.tokens.get(start..self.at - 1);
            }
        }
        None
    }

    /// `(a, b, …)` of plain identifiers.
    pub(super) fn ident_list(&mut self) -> Option<Vec<String>> {
        let inside = self.parenthesized()?;
        let mut cursor = Cursor::new(self.text, inside);
        let mut names = vec![cursor.ident()?];
        while cursor.eat_symbol(",") {
            names.push(cursor.ident()?);
        }
        cursor.at_end().then_some(names)
    }
}

/// The parts of `tokens` between the commas that are in no parentheses.
pub(super) fn comma_parts<'a>(text: &str, tokens: &'a [Token]) -> Vec<&'a [Token]> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (index, token) in tokens.iter().enumerate() {
        if token.kind != Kind::Symbol {
            continue;
        }
        match &text[token.span()] {
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "," if depth == 0 => {
                parts.push(&tokens[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[start..]);
    parts
}
