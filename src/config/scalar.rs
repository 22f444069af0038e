//! What an unquoted word of YAML means, by the rules of the Go library that the Collector reads YAML with: YAML 1.2 words for booleans and
//! null, and the older spellings of numbers (`0777` is octal, `1_000` is a thousand).

use std::sync::Arc;

use super::Value;

/// The value of a plain (unquoted, untagged) scalar.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    number(text).unwrap_or_else(|| Value::String(Arc::from(text)))
}

/// A number in any of the accepted spellings.
pub(super) fn number(text: &str) -> Option<Value> {
    let first = *text.as_bytes().first()?;
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return None;
    }
    let digits: String = text.chars().filter(|&letter| letter != '_').collect();
    integer(&digits).or_else(|| decimal(&digits))
}

fn integer(text: &str) -> Option<Value> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = if let Some(hex) = strip_either(unsigned, "0x", "0X") {
        (16, hex)
    } else if let Some(octal) = strip_either(unsigned, "0o", "0O") {
        (8, octal)
    } else if let Some(binary) = strip_either(unsigned, "0b", "0B") {
        (2, binary)
    } else if unsigned.len() > 1 && unsigned.starts_with('0') {
        (8, unsigned)
    } else {
        (10, unsigned)
    };
    // `from_str_radix` would take a sign of its own.
    if digits.is_empty() || !digits.chars().all(|letter| letter.is_digit(radix)) {
        return None;
    }
    match i128::from_str_radix(digits, radix) {
        Ok(number) => {
            let number = if negative { -number } else { number };
            // A number beyond 64 bits has no exact form here or in the Collector.
            Some(i64::try_from(number).map_or(Value::Float(number as f64), Value::Int))
        }
        Err(_) => None,
    }
}

fn strip_either<'t>(text: &'t str, one: &str, other: &str) -> Option<&'t str> {
    text.strip_prefix(one).or_else(|| text.strip_prefix(other))
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn decimal(text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let shaped = all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    if !shaped || exponent.is_some_and(|digits| digits.is_empty() || !all_digits(digits)) {
        return None;
    }
    text.parse().ok().map(Value::Float)
}
