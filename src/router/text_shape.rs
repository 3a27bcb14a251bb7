//! Texts that differ only in their literals, as simple protocol clients write them, share one
//! analysis: the shape of a text has a parameter in the place of each plain literal.
//!
//! Only what is certain to be a whole literal of a known value is replaced. A text with anything
//! that would need a real lexer to tell (quoted identifiers, comments, dollar quotes, escapes, more
//! than one statement) has no shape, and is analysed as it is. Each text of the simple protocol is
//! read here, so that a byte costs a few instructions, and nothing is allocated.

use smallvec::SmallVec;

/// Literals of one text at the most.
const LITERALS_MAX: usize = 32;
/// Longer texts have no shape: they are data.
const TEXT_BYTES_MAX: usize = 2_048;

/// A literal as it stands in its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainLiteral<'a> {
    /// A string, without its quotes; nothing in it is escaped.
    String(&'a str),
    /// Digits.
    Integer(&'a str),
}

/// The literals of a text, in order.
pub type PlainLiterals<'a> = SmallVec<[PlainLiteral<'a>; 4]>;

/// A text with its plain literals taken out; one for many texts, so that its memory is reused.
#[derive(Debug, Default)]
pub struct TextShape {
    text: String,
}

impl TextShape {
    /// The text that was read last, with `$1`, `$2` … in the place of the literals.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Makes it the shape of `text`, all ASCII, and tells the literals; `None` if there is none, or
    /// something that isn't plain.
    pub fn read<'a>(&mut self, text: &'a str) -> Option<PlainLiterals<'a>> {
        let bytes = text.as_bytes();
        if bytes.len() > TEXT_BYTES_MAX {
            return None;
        }
        self.text.clear();
        let mut literals = PlainLiterals::new();
        let (mut at, mut copied) = (0, 0);
        while let Some(passed) = first_special(&bytes[at..]) {
            at += passed;
            let end = match kind_of(bytes[at]) {
                Kind::Digit if at > 0 && in_word(bytes[at - 1]) => {
                    at += 1;
                    continue;
                }
                Kind::Digit => integer_end(bytes, at)?,
                Kind::Quote => string_end(bytes, at)?,
                Kind::Comment if !matches!(bytes.get(at + 1), Some(b'-' | b'*')) => {
                    at += 1;
                    continue;
                }
                Kind::End if bytes[at + 1..].trim_ascii().is_empty() => break,
                _ => return None,
            };
            literals.push(match bytes[at] {
                b'\'' => PlainLiteral::String(&text[at + 1..end - 1]),
                _ => PlainLiteral::Integer(&text[at..end]),
            });
            self.text.push_str(&text[copied..at]);
            self.push_number(literals.len())?;
            (at, copied) = (end, end);
        }
        if literals.is_empty() {
            return None;
        }
        self.text.push_str(&text[copied..]);
        Some(literals)
    }

    /// Appends the parameter of this number; `None` if it is too high.
    fn push_number(&mut self, number: usize) -> Option<()> {
        let number = u8::try_from(number).ok().filter(|it| usize::from(*it) <= LITERALS_MAX)?;
        self.text.push('$');
        if number >= 10 {
            self.text.push(char::from(b'0' + number / 10));
        }
        self.text.push(char::from(b'0' + number % 10));
        Some(())
    }
}

/// What a byte outside of literals and words begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Nothing: blanks, operators, brackets.
    Between,
    Word,
    /// What follows is looked at, this first: a number, unless it stands in a word.
    Digit,
    Quote,
    /// A comment perhaps.
    Comment,
    /// A semicolon.
    End,
    /// What is left to the analysis of the whole text.
    Odd,
}

/// The kind of each byte.
const KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Odd; 256];
    let mut byte = 0;
    while byte < 128 {
        kinds[byte as usize] = kind(byte);
        byte += 1;
    }
    kinds
};

const fn kind(byte: u8) -> Kind {
    match byte {
        b'"' | b'$' | b'\\' | 0 | 0x80.. => Kind::Odd,
        b';' => Kind::End,
        b'-' | b'/' => Kind::Comment,
        b'\'' => Kind::Quote,
        b'0'..=b'9' => Kind::Digit,
        b'A'..=b'Z' | b'a'..=b'z' | b'_' => Kind::Word,
        _ => Kind::Between,
    }
}

/// Whether a byte is neither of a word nor between words. Comparisons without branches, which the
/// compiler does for many bytes at once.
#[expect(
    clippy::needless_bitwise_bool,
    reason = "a branch for each byte costs several times as much"
)]
const fn is_special(byte: u8) -> bool {
    let odd = (byte >= 0x80) | (byte == 0) | (byte == b'"') | (byte == b'$') | (byte == b'\\');
    let end = (byte == b';') | (byte == b'-') | (byte == b'/') | (byte == b'\'');
    odd | end | (byte.wrapping_sub(b'0') < 10)
}

/// Where the first byte stands that is neither of a word nor between words. Most are, so sixteen are
/// looked at together.
fn first_special(bytes: &[u8]) -> Option<usize> {
    let (groups, rest) = bytes.as_chunks::<16>();
    for (index, group) in groups.iter().enumerate() {
        if group.iter().fold(false, |any, byte| any | is_special(*byte)) {
            let within = group.iter().position(|byte| is_special(*byte));
            return within.map(|within| index * 16 + within);
        }
    }
    let within = rest.iter().position(|byte| is_special(*byte));
    within.map(|within| groups.len() * 16 + within)
}

/// The end of the string literal that begins at `start`; `None` unless it is a plain one.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let plain_before = start == 0 || !in_word(bytes[start - 1]) && bytes[start - 1] != b'&';
    let end = start + 1 + memchr::memchr2(b'\'', b'\\', &bytes[start + 1..])?;
    // Bytes beyond ASCII are left to the analysis of the whole text: what is stored for them
    // depends on the session's encoding.
    let plain = bytes[start + 1..end].iter().all(|byte| byte.is_ascii() && *byte != 0);
    let alone = bytes.get(end + 1).is_none_or(|after| *after != b'\'' && !in_word(*after));
    (plain_before && plain && bytes[end] == b'\'' && alone).then_some(end + 1)
}

/// The end of the whole number that begins at `start`; `None` unless it is a plain one.
fn integer_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut end = start + 1;
    while bytes.get(end).is_some_and(u8::is_ascii_digit) {
        end += 1;
    }
    let before = start.checked_sub(1).map_or(b' ', |at| bytes[at]);
    let after = bytes.get(end).copied().unwrap_or(b' ');
    if in_word(after) || before == b'.' || after == b'.' {
        return None;
    }
    Some(end)
}

fn kind_of(byte: u8) -> Kind {
    KINDS[usize::from(byte)]
}

fn in_word(byte: u8) -> bool {
    matches!(kind_of(byte), Kind::Word | Kind::Digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Option<(String, Vec<String>)> {
        let mut shape = TextShape::default();
        shape.read("SELECT 'what was read before'");
        let literals = shape.read(text)?;
        let literals = literals.iter().map(|literal| match literal {
            PlainLiteral::String(text) => format!("'{text}'"),
            PlainLiteral::Integer(digits) => (*digits).to_owned(),
        });
        Some((shape.text().to_owned(), literals.collect()))
    }

    #[test]
    fn special_are_the_bytes_of_neither_words_nor_what_is_between() {
        for byte in 0..=255 {
            assert_eq!(is_special(byte), kind_of(byte) > Kind::Word, "{byte}");
        }
    }

    #[test]
    fn plain_literals_are_taken_out() {
        let cases: [(&str, &str, &[&str]); 6] = [
            ("SELECT v FROM t1 WHERE id = 42", "SELECT v FROM t1 WHERE id = $1", &["42"]),
            ("SELECT 'a' , 7", "SELECT $1 , $2", &["'a'", "7"]),
            ("SELECT 1 ; ", "SELECT $1 ; ", &["1"]),
            ("SELECT v WHERE id=5 AND n=''", "SELECT v WHERE id=$1 AND n=$2", &["5", "''"]),
            (
                "UPDATE t SET v = v + 1 WHERE id = -3",
                "UPDATE t SET v = v + $1 WHERE id = -$2",
                &["1", "3"],
            ),
            (
                "VALUES ('it is -- no /* comment; $1 \"')",
                "VALUES ($1)",
                &["'it is -- no /* comment; $1 \"'"],
            ),
        ];
        for (text, shaped, literals) in cases {
            let found = shape(text).unwrap();
            assert_eq!(
                (found.0.as_str(), found.1),
                (shaped, literals.iter().map(|l| (*l).to_owned()).collect())
            );
        }
    }

    #[test]
    fn what_is_not_plain_has_no_shape() {
        for text in [
            "SELECT 1 -- no",
            "SELECT 1 /* no */",
            "SELECT \"a\" WHERE id = 1",
            "SELECT E'a'",
            "SELECT U&'a'",
            "SELECT 'it''s'",
            "SELECT 'a\\'",
            "SELECT 'ä'",
            "SELECT 1; SELECT 2",
            "SELECT $1, 2",
            "SELECT 1.5",
            "SELECT .5",
            "SELECT 1e3",
            "SELECT 0x10",
            "SELECT 1_000",
            "SELECT 'a",
            "SELECT a FROM t",
        ] {
            assert_eq!(shape(text), None, "{text}");
        }
    }

    #[test]
    fn there_are_as_many_literals_as_parameters_and_no_end_of_them() {
        let listed = |count: usize| format!("VALUES ({})", vec!["7"; count].join(", "));
        let (text, literals) = shape(&listed(LITERALS_MAX)).unwrap();
        assert_eq!(literals.len(), LITERALS_MAX);
        assert!(text.contains("$9, $10, $11, "), "{text}");
        assert!(text.ends_with(", $31, $32)"), "{text}");
        assert_eq!(shape(&listed(LITERALS_MAX + 1)), None);
    }
}
