//! PostgreSQL's own tokens (`src/backend/parser/scan.l`), with byte positions; never fails, never
//! recurses. Reads with `standard_conforming_strings = on`.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// An unquoted identifier or keyword, folded to lower case but not cut.
    Word(String),
    /// A `"quoted"` identifier, without its quotes.
    Quoted(String),
    /// A string constant of known value: `'…'`, `E'…'`, `$$…$$`.
    String(String),
    /// A constant whose value is not derived: `U&'…'`, `B'…'`, `X'…'`, `N'…'`.
    Opaque,
    /// Digits only.
    Integer,
    /// A number with a point or an exponent.
    Decimal,
    /// `$1`
    Param(u16),
    /// An operator, or one of `( ) [ ] , ; . : :: := .. =>`.
    Symbol,
    /// What versions of PostgreSQL read in different ways, or not derived: `1abc`, `U&"…"`.
    Odd,
    /// Not PostgreSQL: a string or comment that never ends, a stray character.
    Bad,
}

/// A token and its bytes in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token {
    /// Its bytes in the text.
    pub(super) fn span(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// The longest identifier that PostgreSQL keeps, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// The identifier as PostgreSQL stores it: cut to 63 bytes.
pub(super) fn stored(mut name: String) -> String {
    if name.len() > NAME_BYTES_MAX {
        name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
    }
    name
}

/// All tokens of `text`, without white space and comments.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0 };
    let mut tokens = Vec::with_capacity(text.len() / 5);
    loop {
        let closed = lexer.skip_blank();
        let start = lexer.at;
        if !closed {
            tokens.push(Token { kind: Kind::Bad, start, end: text.len() });
            return tokens;
        }
        let Some(kind) = lexer.next_kind() else { return tokens };
        tokens.push(Token { kind, start, end: lexer.at });
    }
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)
}

fn starts_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn in_name(byte: u8) -> bool {
    starts_name(byte) || byte.is_ascii_digit() || byte == b'$'
}

fn in_operator(byte: u8) -> bool {
    b"~!@#^&|`?+-*/%<>=".contains(&byte)
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Skips white space and comments; false where a comment never ends.
    fn skip_blank(&mut self) -> bool {
        loop {
            if self.at < self.bytes.len() && is_blank(self.peek(0)) {
                self.at += 1;
            } else if self.bytes[self.at..].starts_with(b"--") {
                self.skip_line();
            } else if self.bytes[self.at..].starts_with(b"/*") {
                if !self.skip_comment() {
                    return false;
                }
            } else {
                return true;
            }
        }
    }

    fn skip_line(&mut self) {
        while self.at < self.bytes.len() && !matches!(self.peek(0), b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// Comments nest.
    fn skip_comment(&mut self) -> bool {
        let start = self.at;
        let mut depth = 0_usize;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return true;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.at = start;
        false
    }

    /// The token at `at`, which moves past it; `None` at the end.
    fn next_kind(&mut self) -> Option<Kind> {
        let byte = *self.bytes.get(self.at)?;
        let quote_after = |ahead: usize| self.peek(ahead) == b'\'';
        Some(match byte {
            b'\'' => self.string(0, false),
            b'e' | b'E' if quote_after(1) => self.string(1, true),
            b'b' | b'B' | b'x' | b'X' | b'n' | b'N' if quote_after(1) => {
                opaque(&self.string(1, false))
            }
            b'u' | b'U' if self.peek(1) == b'&' && quote_after(2) => opaque(&self.string(2, false)),
            b'u' | b'U' if self.peek(1) == b'&' && self.peek(2) == b'"' => {
                self.at += 2;
                if self.quoted() == Kind::Bad { Kind::Bad } else { Kind::Odd }
            }
            b'"' => self.quoted(),
            b'$' => self.dollar(),
            b'0'..=b'9' => self.number(),
            b'.' if self.peek(1).is_ascii_digit() => self.number(),
            _ if starts_name(byte) => self.word(),
            _ if in_operator(byte) => self.operator(),
            _ => self.punctuation(),
        })
    }

    fn word(&mut self) -> Kind {
        let start = self.at;
        while self.at < self.bytes.len() && in_name(self.peek(0)) {
            self.at += 1;
        }
        Kind::Word(self.text[start..self.at].to_ascii_lowercase())
    }

    fn quoted(&mut self) -> Kind {
        self.at += 1;
        let mut name = String::new();
        loop {
            let Some(length) = memchr::memchr(b'"', &self.bytes[self.at..]) else {
                self.at = self.bytes.len();
                return Kind::Bad;
            };
            name.push_str(&self.text[self.at..self.at + length]);
            self.at += length + 1;
            if self.peek(0) != b'"' {
                return if name.is_empty() { Kind::Bad } else { Kind::Quoted(name) };
            }
            name.push('"');
            self.at += 1;
        }
    }

    /// A string whose opening quote is `prefix` bytes ahead; continued on later lines as SQL has it.
    fn string(&mut self, prefix: usize, escapes: bool) -> Kind {
        self.at += prefix;
        let mut value = Vec::new();
        let mut known = true;
        loop {
            self.at += 1;
            match self.string_part(&mut value, escapes) {
                Some(part_known) => known &= part_known,
                None => return Kind::Bad,
            }
            let end = self.at;
            if !self.continues() {
                self.at = end;
                break;
            }
        }
        match String::from_utf8(value) {
            Ok(value) if known => Kind::String(value),
            _ => Kind::Opaque,
        }
    }

    /// Up to and with the closing quote; whether the value is known, `None` if it never ends.
    fn string_part(&mut self, value: &mut Vec<u8>, escapes: bool) -> Option<bool> {
        let mut known = true;
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            match byte {
                b'\'' if self.peek(0) == b'\'' => {
                    value.push(b'\'');
                    self.at += 1;
                }
                b'\'' => return Some(known),
                b'\\' if escapes => known &= self.escape(value)?,
                _ => value.push(byte),
            }
        }
    }

    /// After a backslash; whether the value is known.
    fn escape(&mut self, value: &mut Vec<u8>) -> Option<bool> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        value.push(match byte {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            // Octal, hexadecimal and Unicode escapes: not derived.
            b'0'..=b'7' | b'x' | b'u' | b'U' => return Some(false),
            other => other,
        });
        Some(true)
    }

    /// Whether a string goes on after white space with a line break in it; moves to its quote.
    fn continues(&mut self) -> bool {
        let mut line_broken = false;
        while self.at < self.bytes.len() {
            match self.peek(0) {
                b'\n' | b'\r' => {
                    line_broken = true;
                    self.at += 1;
                }
                b'-' if self.peek(1) == b'-' => self.skip_line(),
                byte if is_blank(byte) => self.at += 1,
                byte => return byte == b'\'' && line_broken,
            }
        }
        false
    }

    /// `$1`, or a dollar-quoted string.
    fn dollar(&mut self) -> Kind {
        let start = self.at;
        self.at += 1;
        if self.peek(0).is_ascii_digit() {
            while self.peek(0).is_ascii_digit() {
                self.at += 1;
            }
            return self.text[start + 1..self.at].parse().map_or(Kind::Bad, Kind::Param);
        }
        let mut end = self.at;
        while end < self.bytes.len() && in_name(self.bytes[end]) && self.bytes[end] != b'$' {
            end += 1;
        }
        if self.bytes.get(end) != Some(&b'$') {
            return Kind::Bad;
        }
        let tag = &self.text[start..=end];
        let body = end + 1;
        if let Some(length) = memchr::memmem::find(&self.bytes[body..], tag.as_bytes()) {
            self.at = body + length + tag.len();
            Kind::String(self.text[body..body + length].to_owned())
        } else {
            self.at = self.bytes.len();
            Kind::Bad
        }
    }

    fn number(&mut self) -> Kind {
        let mut kind = Kind::Integer;
        self.digits();
        if self.peek(0) == b'.' && self.peek(1) != b'.' {
            kind = Kind::Decimal;
            self.at += 1;
            self.digits();
        }
        if matches!(self.peek(0), b'e' | b'E') {
            let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
            if self.peek(1 + sign).is_ascii_digit() {
                kind = Kind::Decimal;
                self.at += 1 + sign;
                self.digits();
            }
        }
        if starts_name(self.peek(0)) {
            // `1abc`: two tokens to version 15, an error to 16, a number to neither or both (`0x1f`).
            self.word();
            kind = Kind::Odd;
        }
        kind
    }

    fn digits(&mut self) {
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
    }

    /// The longest run of operator characters, less what `scan.l` gives back.
    fn operator(&mut self) -> Kind {
        let start = self.at;
        while self.at < self.bytes.len() && in_operator(self.peek(0)) {
            let rest = &self.bytes[self.at..];
            if self.at > start && (rest.starts_with(b"--") || rest.starts_with(b"/*")) {
                break;
            }
            self.at += 1;
        }
        let run = &self.bytes[start..self.at];
        if !run.iter().any(|byte| b"~!@#^&|`?%".contains(byte)) {
            while self.at - start > 1 && matches!(self.bytes[self.at - 1], b'+' | b'-') {
                self.at -= 1;
            }
        }
        Kind::Symbol
    }

    fn punctuation(&mut self) -> Kind {
        let pair = (self.peek(0), self.peek(1));
        self.at += match pair {
            (b':', b':' | b'=') | (b'.', b'.') => 2,
            (b'(' | b')' | b'[' | b']' | b',' | b';' | b'.' | b':', _) => 1,
            _ => {
                self.at += self.text[self.at..].chars().next().map_or(1, char::len_utf8);
                return Kind::Bad;
            }
        };
        Kind::Symbol
    }
}

/// A string that is one, but whose value is not derived.
fn opaque(string: &Kind) -> Kind {
    if *string == Kind::Bad { Kind::Bad } else { Kind::Opaque }
}

#[cfg(test)]
mod tests {
    use super::{Kind, tokens};

    fn texts(sql: &str) -> Vec<&str> {
        tokens(sql).iter().map(|token| &sql[token.span()]).collect()
    }

    #[test]
    fn operators_end_where_postgresql_ends_them() {
        assert_eq!(texts("a=-1"), ["a", "=", "-", "1"]);
        assert_eq!(texts("a=@ 5"), ["a", "=@", "5"]);
        assert_eq!(texts("a<--1\n-2"), ["a", "<", "-", "2"]);
        assert_eq!(texts("a@-1"), ["a", "@-", "1"]);
        assert_eq!(texts("a*/*x*/b"), ["a", "*", "b"]);
        assert_eq!(texts("a::int[1:2]"), ["a", "::", "int", "[", "1", ":", "2", "]"]);
        assert_eq!(texts("f(a=>1)"), ["f", "(", "a", "=>", "1", ")"]);
    }

    #[test]
    fn strings_have_the_values_that_postgresql_gives_them() {
        let value = |sql: &str| tokens(sql).remove(0).kind;
        let string = |value: &str| Kind::String(value.to_owned());
        assert_eq!(value(r"'x\'"), string(r"x\"));
        assert_eq!(value("'it''s'"), string("it's"));
        assert_eq!(value(r"E'a\'b\n'"), string("a'b\n"));
        assert_eq!(value(r"E'\x41'"), Kind::Opaque);
        assert_eq!(value("'a' -- c\n 'b'"), string("ab"));
        assert_eq!(value("'a' 'b'"), string("a"));
        assert_eq!(value("$x$ $$ ' $x$"), string(" $$ ' "));
        assert_eq!(value("U&'\\0041'"), Kind::Opaque);
        assert_eq!(value("'never"), Kind::Bad);
        assert_eq!(value("0x1F"), Kind::Odd);
        assert_eq!(value("1e3"), Kind::Decimal);
        assert_eq!(value("$12"), Kind::Param(12));
        assert_eq!(value("\"A\"\"b\""), Kind::Quoted("A\"b".to_owned()));
        assert_eq!(value("ÄB"), Kind::Word("Äb".to_owned()));
    }

    #[test]
    fn comments_nest_and_hide_what_they_hold() {
        assert_eq!(texts("a /* /* b */ c */ d -- e\nf"), ["a", "d", "f"]);
        assert_eq!(tokens("a /* b")[1].kind, Kind::Bad);
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_tokens_in_order_and_inside_it(sql in "\\PC*|[a-z'\"$/*\\-\\\\ \n(),;.:0-9]*") {
            let mut end = 0;
            for token in tokens(&sql) {
                assert!(token.start >= end && token.end <= sql.len() && token.end > token.start);
                assert!(sql.get(token.span()).is_some());
                end = token.end;
            }
        }
    }
}
