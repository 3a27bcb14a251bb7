//! Many streams of rows in an order → one: values of the types whose order is known here exactly as
//! PostgreSQL has it, read from their binary form.

use std::cmp::Ordering;

use crate::wire::Reader;

/// A value that rows are ordered by; values of one type only are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SortValue {
    /// NULL, whose place the direction says.
    Null,
    /// Numbers, dates and times without fractions.
    Integer(i128),
    /// Floating point, in PostgreSQL's order: -0 is 0, NaN is above all.
    Float(OrderedFloat),
    /// `numeric`
    Numeric(Numeric),
    /// What is compared byte by byte.
    Bytes(Vec<u8>),
}

/// A type whose order is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortType {
    /// `boolean`, `smallint`, `integer`, `bigint`, `date`, `time`, `timestamp`, `timestamptz`: of so
    /// many bytes.
    Signed(usize),
    /// `oid`
    Oid,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric`
    Numeric,
    /// `interval`
    Interval,
    /// `uuid`, `bytea`
    Bytes,
    /// `text`, `varchar`: only in the collations that compare bytes.
    Text,
    /// `character`, likewise: blanks at the end don't count.
    Padded,
}

impl SortType {
    /// The order of a type, by `pg_type.oid`.
    pub fn of(type_oid: u32) -> Option<Self> {
        Some(match type_oid {
            16 => Self::Signed(1),
            21 => Self::Signed(2),
            23 | 1082 => Self::Signed(4),
            20 | 1083 | 1114 | 1184 => Self::Signed(8),
            26 => Self::Oid,
            700 => Self::Float4,
            701 => Self::Float8,
            1700 => Self::Numeric,
            1186 => Self::Interval,
            17 | 2950 => Self::Bytes,
            25 | 1043 => Self::Text,
            1042 => Self::Padded,
            _ => return None,
        })
    }

    /// Whether its order depends on a collation.
    pub fn is_collated(self) -> bool {
        matches!(self, Self::Text | Self::Padded)
    }

    /// Reads a value's binary form; `None` if it is none of this type.
    pub fn read(self, value: Option<&[u8]>) -> Option<SortValue> {
        let Some(bytes) = value else { return Some(SortValue::Null) };
        Some(match self {
            Self::Signed(len) => {
                let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
                let start = if negative && len > 1 { -1 } else { 0 };
                let value = |all: i128, byte: &u8| all << 8 | i128::from(*byte);
                (bytes.len() == len).then_some(())?;
                SortValue::Integer(bytes.iter().fold(start, value))
            }
            Self::Oid => SortValue::Integer(u32::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Float4 => {
                let value = f32::from_be_bytes(bytes.try_into().ok()?);
                SortValue::Float(OrderedFloat(value.into()))
            }
            Self::Float8 => {
                SortValue::Float(OrderedFloat(f64::from_be_bytes(bytes.try_into().ok()?)))
            }
            Self::Numeric => SortValue::Numeric(Numeric::read(bytes)?),
            Self::Interval => SortValue::Integer(interval(bytes)?),
            Self::Bytes | Self::Text => SortValue::Bytes(bytes.to_vec()),
            Self::Padded => {
                let kept = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |at| at + 1);
                SortValue::Bytes(bytes[..kept].to_vec())
            }
        })
    }
}

/// The order of two values of one type, NULL not among them.
fn compare(a: &SortValue, b: &SortValue) -> Ordering {
    match (a, b) {
        (SortValue::Integer(a), SortValue::Integer(b)) => a.cmp(b),
        (SortValue::Float(a), SortValue::Float(b)) => a.cmp(b),
        (SortValue::Numeric(a), SortValue::Numeric(b)) => a.cmp(b),
        (SortValue::Bytes(a), SortValue::Bytes(b)) => a.cmp(b),
        _ => Ordering::Equal,
    }
}

/// The order of two rows by their values, each descending or not, with NULL first or last.
pub fn compare_rows(
    a: &[SortValue],
    b: &[SortValue],
    directions: impl IntoIterator<Item = (bool, bool)>,
) -> Ordering {
    for ((a, b), (descending, nulls_first)) in a.iter().zip(b).zip(directions) {
        let null = if nulls_first { Ordering::Less } else { Ordering::Greater };
        let order = match (a, b) {
            (SortValue::Null, SortValue::Null) => Ordering::Equal,
            (SortValue::Null, _) => null,
            (_, SortValue::Null) => null.reverse(),
            (a, b) if descending => compare(b, a),
            (a, b) => compare(a, b),
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Months of 30 days, days of 24 hours, in microseconds, as PostgreSQL compares intervals.
fn interval(bytes: &[u8]) -> Option<i128> {
    let mut reader = Reader::new(bytes);
    let high = i128::from(reader.i32().ok()?);
    let low = i128::from(reader.u32().ok()?);
    let (days, months) = (i128::from(reader.i32().ok()?), i128::from(reader.i32().ok()?));
    reader.end().ok()?;
    Some((months * 30 + days) * 86_400_000_000 + (high << 32 | low))
}

/// A number in PostgreSQL's order of floating point.
#[derive(Debug, Clone, Copy)]
pub struct OrderedFloat(f64);

impl Ord for OrderedFloat {
    fn cmp(&self, other: &Self) -> Ordering {
        let nan = self.0.is_nan().cmp(&other.0.is_nan());
        self.0.partial_cmp(&other.0).unwrap_or(nan)
    }
}

impl PartialOrd for OrderedFloat {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OrderedFloat {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for OrderedFloat {}

/// A `numeric`: digits to the base 10,000.
/// <https://www.postgresql.org/docs/15/datatype-numeric.html>, `numeric_send` in `numeric.c`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numeric {
    /// -2 for -Infinity, -1, 0 or 1 for the sign of a number, 2 for Infinity, 3 for NaN.
    class: i8,
    /// The power of 10,000 of the first digit.
    weight: i16,
    digits: Vec<i16>,
}

impl Numeric {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (count, weight) = (reader.i16().ok()?, reader.i16().ok()?);
        let sign = reader.i16().ok()?.cast_unsigned();
        let _scale = reader.i16().ok()?;
        let mut digits = Vec::new();
        for _ in 0..count {
            digits.push(reader.i16().ok()?);
        }
        reader.end().ok()?;
        // Zeros at the end tell of the scale only.
        digits.truncate(digits.iter().rposition(|digit| *digit != 0).map_or(0, |at| at + 1));
        let class = match sign {
            0xc000 => 3,
            0xd000 => 2,
            0xf000 => -2,
            _ if digits.is_empty() => 0,
            0x4000 => -1,
            _ => 1,
        };
        Some(Self { class, weight: if class.abs() == 1 { weight } else { 0 }, digits })
    }
}

impl Ord for Numeric {
    fn cmp(&self, other: &Self) -> Ordering {
        let size = self.weight.cmp(&other.weight).then_with(|| self.digits.cmp(&other.digits));
        self.class.cmp(&other.class).then(if self.class < 0 { size.reverse() } else { size })
    }
}

impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;
    use std::slice::from_ref;

    use super::{SortType, SortValue, compare_rows};

    fn numeric(weight: i16, sign: u16, digits: &[i16]) -> SortValue {
        let mut bytes = i16::try_from(digits.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(weight.to_be_bytes());
        bytes.extend(sign.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(digits.iter().flat_map(|digit| digit.to_be_bytes()));
        SortType::Numeric.read(Some(&bytes)).unwrap()
    }

    fn float(value: f64) -> SortValue {
        SortType::Float8.read(Some(&value.to_be_bytes())).unwrap()
    }

    fn int(value: i32) -> SortValue {
        SortType::Signed(4).read(Some(&value.to_be_bytes())).unwrap()
    }

    /// Each is below the next.
    fn rises(values: &[SortValue]) {
        for (at, a) in values.iter().enumerate() {
            for (other, b) in values.iter().enumerate() {
                let order = compare_rows(from_ref(a), from_ref(b), [(false, false)]);
                assert_eq!(order, at.cmp(&other), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn values_are_in_the_order_of_their_types() {
        rises(&[int(i32::MIN), int(-2), int(-1), int(0), int(1), int(i32::MAX), SortValue::Null]);
        let (low, high) = (f64::NEG_INFINITY, f64::INFINITY);
        rises(&[float(low), float(-1.5), float(0.0), float(1e-300), float(high), float(f64::NAN)]);
        assert_eq!(float(-0.0), float(0.0));
        assert_eq!(float(f64::NAN), float(-f64::NAN));
        rises(&[
            numeric(0, 0xf000, &[]),
            numeric(1, 0x4000, &[1, 2]),
            numeric(0, 0x4000, &[9999]),
            numeric(-1, 0x4000, &[5000]),
            numeric(0, 0, &[]),
            numeric(-2, 0, &[1]),
            numeric(-1, 0, &[5000]),
            numeric(0, 0, &[1]),
            numeric(0, 0, &[1, 1]),
            numeric(0, 0, &[2]),
            numeric(3, 0, &[1]),
            numeric(0, 0xd000, &[]),
            numeric(0, 0xc000, &[]),
        ]);
        assert_eq!(numeric(0, 0, &[1, 0]), numeric(0, 0, &[1]));
        let bool = |value: u8| SortType::Signed(1).read(Some(&[value])).unwrap();
        rises(&[bool(0), bool(1)]);
        let oid = |value: u32| SortType::Oid.read(Some(&value.to_be_bytes())).unwrap();
        rises(&[oid(1), oid(u32::MAX)]);
    }

    #[test]
    fn an_interval_counts_months_as_30_days() {
        let interval = |months: i32, days: i32, micros: i64| {
            let mut bytes = micros.to_be_bytes().to_vec();
            bytes.extend(days.to_be_bytes());
            bytes.extend(months.to_be_bytes());
            SortType::Interval.read(Some(&bytes)).unwrap()
        };
        assert_eq!(interval(1, 0, 0), interval(0, 30, 0));
        assert_eq!(interval(0, 1, 0), interval(0, 0, 86_400_000_000));
        rises(&[interval(-1, 0, 0), interval(0, 0, -1), interval(0, 0, 0), interval(1, -29, 0)]);
    }

    #[test]
    fn directions_hold_for_each_value_and_null_goes_where_it_is_told() {
        let row = |a: Option<i32>, b: i32| [a.map_or(SortValue::Null, int), int(b)];
        let order = |a: [SortValue; 2], b: [SortValue; 2], first| {
            compare_rows(&a, &b, [first, (true, true)])
        };
        let (up, down_last) = ((false, false), (true, false));
        assert_eq!(order(row(Some(1), 5), row(Some(2), 1), up), Ordering::Less);
        assert_eq!(order(row(Some(1), 5), row(Some(2), 1), down_last), Ordering::Greater);
        assert_eq!(order(row(Some(1), 5), row(Some(1), 9), up), Ordering::Greater);
        assert_eq!(order(row(None, 1), row(Some(1), 1), down_last), Ordering::Greater);
        assert_eq!(order(row(None, 1), row(Some(1), 1), (true, true)), Ordering::Less);
        assert_eq!(order(row(None, 1), row(None, 1), up), Ordering::Equal);
    }

    #[test]
    fn what_is_no_value_of_the_type_is_not_read() {
        for bytes in [&b""[..], b"\0", b"12345678901234567890"] {
            for of in [23, 701, 1700, 1186, 26] {
                assert_eq!(SortType::of(of).unwrap().read(Some(bytes)), None, "{of}");
            }
        }
        assert_eq!(SortType::of(3802), None);
    }
}
