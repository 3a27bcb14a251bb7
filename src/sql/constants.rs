//! Expressions of the grammar's tree that are plain columns or constants.

use sqlparser::ast::{
    BinaryOperator, CastKind, DataType, ExactNumberInfo, Expr, TimezoneInfo, UnaryOperator, Value,
};

use super::statement::{ColumnRef, Constant, ConstantValue, Test};

/// The column that `expr` is, in any number of parentheses.
pub(super) fn column(expr: &Expr) -> Option<ColumnRef> {
    let parts = match bare(expr) {
        Expr::Identifier(column) => std::slice::from_ref(column),
        Expr::CompoundIdentifier(parts) => parts.as_slice(),
        _ => return None,
    };
    let name = |part: &sqlparser::ast::Ident| part.value.clone();
    let (column, qualifiers) = parts.split_last()?;
    let (schema, table) = match qualifiers {
        [] => (None, None),
        [table] => (None, Some(name(table))),
        [.., schema, table] => (Some(name(schema)), Some(name(table))),
    };
    Some(ColumnRef { schema, table, column: name(column) })
}

/// The constant that `expr` is, perhaps in one cast to a type that a key can have.
pub(super) fn constant(expr: &Expr) -> Option<Constant> {
    match bare(expr) {
        Expr::Cast {
            kind: CastKind::Cast | CastKind::DoubleColon,
            expr,
            data_type,
            format: None,
        } => cast(value(expr)?, data_type),
        Expr::TypedString(typed) => {
            let Value::SingleQuotedString(text) = &typed.value.value else { return None };
            cast(ConstantValue::String(text.clone()), &typed.data_type)
        }
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            // `-5::int` is -(5::int)
            let inner = constant(expr)?;
            Some(Constant { value: negative(inner.value)?, cast: inner.cast })
        }
        other => Some(Constant { value: value(other)?, cast: None }),
    }
}

fn cast(value: ConstantValue, data_type: &DataType) -> Option<Constant> {
    let name = type_name(data_type)?;
    Some(Constant { value, cast: Some(name.to_owned()) })
}

fn value(expr: &Expr) -> Option<ConstantValue> {
    match bare(expr) {
        Expr::Value(value) => match &value.value {
            Value::Null => Some(ConstantValue::Null),
            Value::Boolean(value) => Some(ConstantValue::Bool(*value)),
            Value::SingleQuotedString(text) => Some(ConstantValue::String(text.clone())),
            Value::Number(digits, _) => Some(match integer(digits) {
                Some(digits) => ConstantValue::Integer(digits),
                None => ConstantValue::Decimal(digits.clone()),
            }),
            Value::Placeholder(number) => {
                number.strip_prefix('$')?.parse().ok().map(ConstantValue::Param)
            }
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => negative(value(expr)?),
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => {
            let number =
                |value: &_| matches!(value, ConstantValue::Integer(_) | ConstantValue::Decimal(_));
            Some(value(expr)?).filter(number)
        }
        _ => None,
    }
}

fn integer(digits: &str) -> Option<String> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.to_owned())
}

fn negative(value: ConstantValue) -> Option<ConstantValue> {
    let flip = |digits: &str| match digits.strip_prefix('-') {
        Some(positive) => positive.to_owned(),
        None => format!("-{digits}"),
    };
    match value {
        ConstantValue::Integer(digits) => Some(ConstantValue::Integer(flip(&digits))),
        ConstantValue::Decimal(digits) => Some(ConstantValue::Decimal(flip(&digits))),
        _ => None,
    }
}

/// PostgreSQL's short name of a type that a key can have, or that is often compared with; `None` for
/// every other, and where it has a length.
fn type_name(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::SmallInt(None) | DataType::Int2(None) => "int2",
        DataType::Int(None) | DataType::Integer(None) | DataType::Int4(None) => "int4",
        DataType::BigInt(None) | DataType::Int8(None) => "int8",
        DataType::Text => "text",
        DataType::Varchar(None) | DataType::CharacterVarying(None) => "varchar",
        DataType::Uuid => "uuid",
        DataType::Date => "date",
        DataType::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            "timestamp"
        }
        DataType::Timestamp(None, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => "timestamptz",
        DataType::Numeric(ExactNumberInfo::None) => "numeric",
        DataType::Boolean | DataType::Bool => "bool",
        _ => return None,
    })
}

fn bare(mut expr: &Expr) -> &Expr {
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    expr
}

/// What `expr` demands in AND position, appended to `tests`; demands that say nothing of single
/// columns are left out.
pub(super) fn demands(expr: &Expr, tests: &mut Vec<Test>) {
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        match bare(expr) {
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                open.push(right);
                open.push(left);
            }
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => equality(left, right, tests),
            Expr::BinaryOp { left, op, right } => tests.extend(comparison(left, op, right)),
            Expr::Between { expr, negated: false, low, high } => {
                tests.extend(compares(expr, ">=", low));
                tests.extend(compares(expr, "<=", high));
            }
            Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
                tests.extend(compares(expr, if *negated { "NOT LIKE" } else { "LIKE" }, pattern));
            }
            Expr::IsNull(expr) => tests.extend(column(expr).map(|c| Test::IsNull(c, true))),
            Expr::IsNotNull(expr) => tests.extend(column(expr).map(|c| Test::IsNull(c, false))),
            Expr::InList { expr, list, negated: false } => {
                let constants: Option<Vec<_>> = list.iter().map(constant).collect();
                tests.extend(one_of(expr, constants));
            }
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => {
                let Expr::Array(array) = bare(right) else { continue };
                let constants: Option<Vec<_>> = array.elem.iter().map(constant).collect();
                tests.extend(one_of(left, constants));
            }
            _ => {}
        }
    }
}

fn one_of(expr: &Expr, constants: Option<Vec<Constant>>) -> Option<Test> {
    Some(Test::OneOf(column(expr)?, constants?))
}

/// `column < constant` and its kin, either way round.
fn comparison(left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<Test> {
    let (operator, turned) = match op {
        BinaryOperator::Lt => ("<", ">"),
        BinaryOperator::LtEq => ("<=", ">="),
        BinaryOperator::Gt => (">", "<"),
        BinaryOperator::GtEq => (">=", "<="),
        BinaryOperator::NotEq => ("<>", "<>"),
        _ => return None,
    };
    compares(left, operator, right).or_else(|| compares(right, turned, left))
}

fn compares(left: &Expr, operator: &'static str, right: &Expr) -> Option<Test> {
    Some(Test::Compares(column(left)?, operator, constant(right)?))
}

fn equality(left: &Expr, right: &Expr, tests: &mut Vec<Test>) {
    if let (Expr::Tuple(left), Expr::Tuple(right)) = (bare(left), bare(right)) {
        if left.len() == right.len() {
            for (left, right) in left.iter().zip(right) {
                tests.extend(pair(left, right));
            }
        }
        return;
    }
    tests.extend(pair(left, right));
}

fn pair(left: &Expr, right: &Expr) -> Option<Test> {
    match (column(left), column(right)) {
        (Some(left), Some(right)) => Some(Test::Same(left, right)),
        (Some(column), None) => Some(Test::OneOf(column, vec![constant(right)?])),
        (None, Some(column)) => Some(Test::OneOf(column, vec![constant(left)?])),
        (None, None) => None,
    }
}
