//! Texts that differ only in their literals, as simple protocol clients write them, share one
//! analysis: the shape of a text has a parameter in the place of each plain literal.
//!
//! Only what is certain to be a whole literal of a known value is replaced. A text with anything
//! that would need a real lexer to tell (quoted identifiers, comments, dollar quotes, escapes, more
//! than one statement) has no shape, and is analysed as it is.

use crate::sql::ConstantValue;

/// Literals of one text at the most.
const LITERALS_MAX: usize = 32;
/// Longer texts have no shape: they are data.
const TEXT_BYTES_MAX: usize = 2_048;

/// A text with its plain literals taken out.
#[derive(Debug, PartialEq, Eq)]
pub struct TextShape {
    /// The text, with `$1`, `$2` … in the place of the literals.
    pub text: String,
    /// The literals, in order.
    pub literals: Vec<ConstantValue>,
}

impl TextShape {
    /// The shape of `text`; `None` if it has no literal, or something that isn't plain.
    pub fn of(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() > TEXT_BYTES_MAX {
            return None;
        }
        let mut shape = Self { text: String::with_capacity(text.len() + 8), literals: Vec::new() };
        let (mut at, mut copied) = (0, 0);
        while let Some(byte) = bytes.get(at) {
            let end = match byte {
                b';' if bytes[at + 1..].trim_ascii().is_empty() => break,
                b'"' | b'$' | b'\\' | b';' | 0 | 0x80.. => return None,
                b'-' | b'/' if matches!(bytes.get(at + 1), Some(b'-' | b'*')) => return None,
                b'\'' => Some(string_end(text, at)?),
                b'0'..=b'9' => Some(integer_end(bytes, at)?),
                b'A'..=b'Z' | b'a'..=b'z' | b'_' => {
                    at = word_end(bytes, at);
                    continue;
                }
                _ => None,
            };
            let Some(end) = end else {
                at += 1;
                continue;
            };
            shape.text.push_str(&text[copied..at]);
            shape.literals.push(match byte {
                b'\'' => ConstantValue::String(text[at + 1..end - 1].to_owned()),
                _ => ConstantValue::Integer(text[at..end].to_owned()),
            });
            if shape.literals.len() > LITERALS_MAX {
                return None;
            }
            shape.text.push('$');
            shape.text.push_str(&shape.literals.len().to_string());
            (at, copied) = (end, end);
        }
        shape.text.push_str(&text[copied..]);
        (!shape.literals.is_empty()).then_some(shape)
    }
}

/// The end of the string literal that begins at `start`; `None` unless it is a plain one.
fn string_end(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
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
    let end = start + bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let before = start.checked_sub(1).map_or(b' ', |at| bytes[at]);
    let after = bytes.get(end).copied().unwrap_or(b' ');
    if in_word(after) || before == b'.' || after == b'.' {
        return None;
    }
    Some(end)
}

fn word_end(bytes: &[u8], start: usize) -> usize {
    start + bytes[start..].iter().take_while(|byte| in_word(**byte)).count()
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Option<(String, Vec<String>)> {
        let shape = TextShape::of(text)?;
        let literals = shape.literals.iter().map(|literal| match literal {
            ConstantValue::String(text) => format!("'{text}'"),
            ConstantValue::Integer(digits) => digits.clone(),
            other => format!("{other:?}"),
        });
        Some((shape.text, literals.collect()))
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
}
