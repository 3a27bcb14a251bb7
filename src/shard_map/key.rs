//! Shard-key types and values: from a literal's text or a parameter's bytes to what is hashed.
//!
//! Reads what any supported version of PostgreSQL reads: where an older one would refuse (`0x1f`
//! before 16), it says so itself, on whichever node.

use serde::{Deserialize, Serialize};

use super::time;
use crate::sql::Literal;

/// A type that can be (a column of) a shard key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `text` and `varchar`, of a deterministic collation
    Text,
    /// `uuid`
    Uuid,
    /// `date`
    Date,
    /// `timestamp with time zone`
    Timestamptz,
}

/// A value of a shard-key column, coerced to the column's type. Values of one type order as
/// PostgreSQL orders them, texts as in the C collation; but for NULL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "StoredKey", into = "StoredKey")]
pub enum KeyValue {
    /// SQL NULL; does not take part in the hash.
    Null,
    /// Of any of the integer types: equal values hash alike.
    Int(i64),
    /// In the server's encoding.
    Text(Vec<u8>),
    /// Sixteen bytes, most significant first.
    Uuid([u8; 16]),
    /// Days since 2000-01-01; the ends of the type are the infinities.
    Date(i32),
    /// Microseconds since 2000-01-01 00:00 UTC; the ends of the type are the infinities.
    Timestamp(i64),
}

/// A value in a form for people: of a bound in the catalog, whose texts are UTF-8.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredKey {
    Null,
    Int(i64),
    Text(String),
    Uuid(String),
    Date(String),
    Timestamptz(String),
}

impl TryFrom<StoredKey> for KeyValue {
    type Error = InvalidKey;

    fn try_from(stored: StoredKey) -> Result<Self, InvalidKey> {
        match stored {
            StoredKey::Null => Ok(Self::Null),
            StoredKey::Int(value) => Ok(Self::Int(value)),
            StoredKey::Text(text) => Ok(Self::Text(text.into_bytes())),
            StoredKey::Uuid(text) => KeyType::Uuid.parse(text.as_bytes()),
            StoredKey::Date(text) => KeyType::Date.parse(text.as_bytes()),
            StoredKey::Timestamptz(text) => KeyType::Timestamptz.parse(text.as_bytes()),
        }
    }
}

impl From<KeyValue> for StoredKey {
    fn from(value: KeyValue) -> Self {
        let text = value.text().unwrap_or_default();
        match value {
            KeyValue::Null => Self::Null,
            KeyValue::Int(value) => Self::Int(value),
            KeyValue::Text(_) => Self::Text(text),
            KeyValue::Uuid(_) => Self::Uuid(text),
            KeyValue::Date(_) => Self::Date(text),
            KeyValue::Timestamp(_) => Self::Timestamptz(text),
        }
    }
}

impl KeyValue {
    /// The value's text, as PostgreSQL shows it in the time zone UTC; `None` for NULL.
    pub fn text(&self) -> Option<String> {
        Some(match self {
            Self::Null => return None,
            Self::Int(value) => value.to_string(),
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Uuid(bytes) => {
                let mut text = String::with_capacity(36);
                for (index, byte) in bytes.iter().enumerate() {
                    if matches!(index, 4 | 6 | 8 | 10) {
                        text.push('-');
                    }
                    text.push_str(&format!("{byte:02x}"));
                }
                text
            }
            Self::Date(days) => time::date_text(*days),
            Self::Timestamp(micros) => time::timestamp_text(*micros),
        })
    }

    /// The value as a literal that PostgreSQL reads as one of the column's type.
    pub fn literal(&self) -> String {
        self.text().map_or_else(|| "NULL".to_owned(), |text| Literal(&text).to_string())
    }
}

/// A text or byte string that is not a value of the key's type.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid input syntax for type {type_name}: {input:?}")]
pub struct InvalidKey {
    /// PostgreSQL's name of the type.
    pub type_name: &'static str,
    /// What was given, shortened.
    pub input: String,
}

/// `pg_type.oid` of the types that matter here.
mod oid {
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const TEXT: u32 = 25;
    pub(super) const VARCHAR: u32 = 1043;
    pub(super) const UUID: u32 = 2950;
    pub(super) const DATE: u32 = 1082;
    pub(super) const TIMESTAMPTZ: u32 = 1184;
}

impl KeyType {
    /// By any of PostgreSQL's names, in lower case, without a length.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "smallint" | "int2" => Self::Int2,
            "integer" | "int" | "int4" => Self::Int4,
            "bigint" | "int8" => Self::Int8,
            "text" | "varchar" | "character varying" => Self::Text,
            "uuid" => Self::Uuid,
            "date" => Self::Date,
            "timestamptz" | "timestamp with time zone" => Self::Timestamptz,
            _ => return None,
        })
    }

    /// By `pg_type.oid`.
    pub fn from_oid(oid: u32) -> Option<Self> {
        Some(match oid {
            oid::INT2 => Self::Int2,
            oid::INT4 => Self::Int4,
            oid::INT8 => Self::Int8,
            oid::TEXT | oid::VARCHAR => Self::Text,
            oid::UUID => Self::Uuid,
            oid::DATE => Self::Date,
            oid::TIMESTAMPTZ => Self::Timestamptz,
            _ => return None,
        })
    }

    /// PostgreSQL's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Text => "text",
            Self::Uuid => "uuid",
            Self::Date => "date",
            Self::Timestamptz => "timestamp with time zone",
        }
    }

    /// Whether it is one of the integer types, which compare and hash with each other.
    pub fn is_integer(self) -> bool {
        matches!(self, Self::Int2 | Self::Int4 | Self::Int8)
    }

    /// Whether a value of type `other` equals a value of this type exactly if both hash alike.
    pub fn compares_with(self, other: Self) -> bool {
        self == other || self.is_integer() && other.is_integer()
    }

    /// Whether [`KeyType::parse`] reads every text that PostgreSQL reads. Of dates and times it reads
    /// those forms only that mean the same whatever the session's settings.
    pub fn reads_all(self) -> bool {
        !matches!(self, Self::Date | Self::Timestamptz)
    }

    /// Whether `value` is one of this type and not NULL.
    pub fn has(self, value: &KeyValue) -> bool {
        match value {
            KeyValue::Null => false,
            KeyValue::Int(value) => match self {
                Self::Int2 => i16::try_from(*value).is_ok(),
                Self::Int4 => i32::try_from(*value).is_ok(),
                _ => self == Self::Int8,
            },
            KeyValue::Text(_) => self == Self::Text,
            KeyValue::Uuid(_) => self == Self::Uuid,
            KeyValue::Date(_) => self == Self::Date,
            KeyValue::Timestamp(_) => self == Self::Timestamptz,
        }
    }

    /// Reads a value's text, as the type's input function does.
    ///
    /// # Errors
    /// [`InvalidKey`] where every version of PostgreSQL says so, too, if the type
    /// [reads all](KeyType::reads_all).
    pub fn parse(self, text: &[u8]) -> Result<KeyValue, InvalidKey> {
        let value = match self {
            Self::Int2 => integer(text).filter(|v| i16::try_from(*v).is_ok()).map(KeyValue::Int),
            Self::Int4 => integer(text).filter(|v| i32::try_from(*v).is_ok()).map(KeyValue::Int),
            Self::Int8 => integer(text).map(KeyValue::Int),
            Self::Text => Some(KeyValue::Text(text.to_vec())),
            Self::Uuid => uuid(text).map(KeyValue::Uuid),
            Self::Date => time::date(text).map(KeyValue::Date),
            Self::Timestamptz => time::timestamp(text).map(KeyValue::Timestamp),
        };
        value.ok_or_else(|| self.invalid(text))
    }

    /// Reads a value's binary form, as the type's receive function does, but of any integer's width.
    ///
    /// # Errors
    /// [`InvalidKey`] for a length that the type does not have.
    pub fn from_binary(self, bytes: &[u8]) -> Result<KeyValue, InvalidKey> {
        let value = match self {
            Self::Int2 | Self::Int4 | Self::Int8 => binary_integer(bytes).map(KeyValue::Int),
            Self::Text => Some(KeyValue::Text(bytes.to_vec())),
            Self::Uuid => bytes.try_into().ok().map(KeyValue::Uuid),
            Self::Date => bytes.try_into().ok().map(i32::from_be_bytes).map(KeyValue::Date),
            Self::Timestamptz => {
                bytes.try_into().ok().map(i64::from_be_bytes).map(KeyValue::Timestamp)
            }
        };
        value.ok_or_else(|| self.invalid(bytes))
    }

    fn invalid(self, input: &[u8]) -> InvalidKey {
        let input = String::from_utf8_lossy(&input[..input.len().min(100)]).into_owned();
        InvalidKey { type_name: self.name(), input }
    }
}

fn binary_integer(bytes: &[u8]) -> Option<i64> {
    Some(match bytes.len() {
        2 => i64::from(i16::from_be_bytes(bytes.try_into().ok()?)),
        4 => i64::from(i32::from_be_bytes(bytes.try_into().ok()?)),
        8 => i64::from_be_bytes(bytes.try_into().ok()?),
        _ => return None,
    })
}

/// `pg_strtoint64`, with the hexadecimal, octal and binary forms and underscores of version 16.
fn integer(text: &[u8]) -> Option<i64> {
    if let Some(value) = short_integer(text) {
        return Some(value);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0x09..=0x0d);
    let start = text.iter().position(|byte| !blank(byte))?;
    let end = text.iter().rposition(|byte| !blank(byte))? + 1;
    let (negative, digits) = match &text[start..end] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let (radix, digits) = match digits {
        [b'0', b'x' | b'X', digits @ ..] => (16, digits),
        [b'0', b'o' | b'O', digits @ ..] => (8, digits),
        [b'0', b'b' | b'B', digits @ ..] => (2, digits),
        digits => (10, digits),
    };
    let mut value: i64 = 0;
    let mut digit_seen = false;
    for byte in digits {
        if *byte == b'_' {
            continue;
        }
        let digit = i64::from(char::from(*byte).to_digit(radix)?);
        digit_seen = true;
        value = value.checked_mul(i64::from(radix))?;
        value = if negative { value.checked_sub(digit)? } else { value.checked_add(digit)? };
    }
    digit_seen.then_some(value)
}

/// Digits and nothing else, so few that they can't be too many: what most integers are.
fn short_integer(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0, |value: i64, byte| {
        byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
    })
}

/// `string_to_uuid`: hyphens after any group of four digits, braces round the whole.
fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let mut rest = match text {
        [b'{', inside @ .., b'}'] => inside,
        bare => bare,
    };
    let mut uuid = [0; 16];
    for (index, byte) in uuid.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else { return None };
        let digit = |digit: u8| u8::try_from(char::from(digit).to_digit(16)?).ok();
        *byte = digit(*high)? << 4 | digit(*low)?;
        rest = match after {
            [b'-', after @ ..] if index % 2 == 1 && index < 15 => after,
            after => after,
        };
    }
    rest.is_empty().then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::{KeyType, KeyValue};

    #[test]
    fn integers_are_read_as_postgresql_reads_them() {
        let cases: [(&str, Option<i64>); 16] = [
            ("5", Some(5)),
            (" \t-5\n", Some(-5)),
            ("+007", Some(7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("0x1F", Some(31)),
            ("1_000", Some(1000)),
            ("5.0", None),
            ("1e3", None),
            ("", None),
            ("  ", None),
            ("-", None),
            ("- 5", None),
            ("5a", None),
            ("\u{a0}5", None),
        ];
        for (text, value) in cases {
            let read = KeyType::Int8.parse(text.as_bytes()).ok();
            assert_eq!(read, value.map(KeyValue::Int), "{text:?}");
        }
        assert!(KeyType::Int2.parse(b"32767").is_ok());
        assert!(KeyType::Int2.parse(b"32768").is_err());
        assert!(KeyType::Int4.parse(b"-2147483648").is_ok());
        assert!(KeyType::Int4.parse(b"2147483648").is_err());
    }

    #[test]
    fn every_form_of_a_uuid_is_the_same_uuid() {
        let value =
            KeyValue::Uuid(*b"\xa0\xee\xbc\x99\x9c\x0b\x4e\xf8\xbb\x6d\x6b\xb9\xbd\x38\x0a\x11");
        for text in [
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
        ] {
            assert_eq!(KeyType::Uuid.parse(text.as_bytes()).unwrap(), value, "{text}");
        }
        for text in [
            "",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
            "a0-eebc999c0b4ef8bb6d6bb9bd380a11",
            "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11 ",
        ] {
            assert!(KeyType::Uuid.parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_binary_integer_may_have_any_width() {
        for bytes in [&[0xff, 0xfe][..], &[0xff, 0xff, 0xff, 0xfe], &(-2_i64).to_be_bytes()] {
            assert_eq!(KeyType::Int4.from_binary(bytes), Ok(KeyValue::Int(-2)));
        }
        assert!(KeyType::Int4.from_binary(&[1]).is_err());
        assert!(KeyType::Uuid.from_binary(&[0; 15]).is_err());
    }
}
