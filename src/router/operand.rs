//! A constant or parameter of a statement → a value of a shard-key column.

use super::{Params, PlainLiteral};
use crate::shard_map::{KeyType, KeyValue};
use crate::sql::{Constant, ConstantValue};

/// What a constant is to a key column.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Operand {
    /// A value of the column's type.
    Value(KeyValue),
    /// No row can have it.
    NoRow,
    /// PostgreSQL will refuse the statement, on any node.
    Invalid,
    /// What it is as a value of the column can't be told here.
    Unknown(&'static str),
}

/// Why a date or time is not read here.
const UNREAD: &str = "its form is not plainly 2026-01-31, or for a time 2026-01-31 12:00:00+00";

const NUMBER: &str = "it is a number";

/// How a constant meets a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// `column = constant`
    Compare,
    /// It is stored in the column.
    Store,
}

/// Reads `constant` for a column of `key_type`. `alone` tells of a parameter whether all its uses in
/// the statement are with key columns of this type, so that PostgreSQL infers this type for it.
pub(super) fn read(
    constant: &Constant,
    key_type: KeyType,
    used: Use,
    params: &Params<'_>,
    alone: impl Fn(u16) -> bool,
) -> Operand {
    let cast = match &constant.cast {
        None => None,
        Some(name) => match KeyType::from_name(name) {
            Some(cast) if cast.compares_with(key_type) => Some(cast),
            _ => return Operand::Unknown("it is cast to another type"),
        },
    };
    match (&constant.value, used) {
        (ConstantValue::Null, Use::Compare) => Operand::NoRow,
        (ConstantValue::Null, Use::Store) => Operand::Value(KeyValue::Null),
        (ConstantValue::LookedUp { .. }, _) => Operand::Unknown("it is looked up"),
        (ConstantValue::Bool(_), _) => Operand::Unknown("it is a Boolean"),
        (ConstantValue::String(text), _) => string(text, cast.unwrap_or(key_type)),
        (ConstantValue::Integer(digits), _) => integer(digits, key_type, cast, used),
        (ConstantValue::Decimal(_), _) => Operand::Unknown(NUMBER),
        (ConstantValue::Param(number), _) if !params.literals.is_empty() => {
            match params.literals.get(usize::from(*number).wrapping_sub(1)) {
                Some(PlainLiteral::String(text)) => string(text, cast.unwrap_or(key_type)),
                Some(PlainLiteral::Integer(digits)) => integer(digits, key_type, cast, used),
                None => Operand::Unknown("there is no such literal"),
            }
        }
        (ConstantValue::Param(number), _) => {
            let given = Given { number: *number, cast, alone: alone(*number) };
            param(&given, key_type, used, params)
        }
    }
}

fn string(text: &str, read_as: KeyType) -> Operand {
    match read_as.parse(text.as_bytes()) {
        Ok(value) => Operand::Value(value),
        Err(_) if read_as.reads_all() => Operand::Invalid,
        Err(_) => Operand::Unknown(UNREAD),
    }
}

fn integer(digits: &str, key_type: KeyType, cast: Option<KeyType>, used: Use) -> Operand {
    if !key_type.is_integer() {
        return Operand::Unknown(NUMBER);
    }
    if let Some(cast) = cast {
        return cast.parse(digits.as_bytes()).map_or(Operand::Invalid, Operand::Value);
    }
    match (key_type.parse(digits.as_bytes()), used) {
        (Ok(value), _) => Operand::Value(value),
        // Compared as the wider type that the literal has.
        (Err(_), Use::Compare) => Operand::NoRow,
        (Err(_), Use::Store) => Operand::Invalid,
    }
}

/// A parameter in a statement.
struct Given {
    number: u16,
    cast: Option<KeyType>,
    alone: bool,
}

fn param(given: &Given, key_type: KeyType, used: Use, params: &Params<'_>) -> Operand {
    let index = usize::from(given.number).saturating_sub(1);
    let text = match params.formats {
        [] => true,
        [one] => *one == 0,
        many => many.get(index).copied().unwrap_or(0) == 0,
    };
    let declared = match params.types.get(index).copied().unwrap_or(0) {
        0 if given.alone => given.cast.unwrap_or(key_type),
        // Inferred from elsewhere, as any type that casts to this one: only where all agree.
        0 if text && given.cast.is_some() && key_type != KeyType::Text => key_type,
        0 => return Operand::Unknown("its parameter is used for something else, too"),
        oid => match KeyType::from_oid(oid) {
            Some(declared) if declared.compares_with(key_type) => declared,
            _ => return Operand::Unknown("its parameter was declared with another type"),
        },
    };
    let read = match params.values.get(index) {
        // A Bind with too few values is refused by PostgreSQL.
        None => return Operand::Invalid,
        Some(None) if used == Use::Compare => return Operand::NoRow,
        Some(None) => return Operand::Value(KeyValue::Null),
        Some(Some(bytes)) if text => declared.parse(bytes),
        Some(Some(bytes)) => declared.from_binary(bytes),
    };
    match read {
        Ok(value) => Operand::Value(value),
        Err(_) if !declared.reads_all() => Operand::Unknown(UNREAD),
        Err(_) if given.alone || params.types.get(index).is_some_and(|oid| *oid != 0) => {
            Operand::Invalid
        }
        Err(_) => Operand::Unknown("its parameter is used for something else, too"),
    }
}
