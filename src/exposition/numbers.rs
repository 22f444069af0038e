//! Numbers as Prometheus pages write them.

/// Below this every whole number is exact in a float.
const EXACT: f64 = 9_007_199_254_740_992.0;

pub(crate) fn put_uint(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// A sample's value, as short as it can be: whole numbers without a point, `NaN`, `+Inf`, `-Inf`.
pub(crate) fn put_value(out: &mut Vec<u8>, value: f64) {
    if value.fract() == 0.0 && value.abs() < EXACT {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else if let Some(word) = not_finite(value) {
        out.extend_from_slice(word);
    } else {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    }
}

fn not_finite(value: f64) -> Option<&'static [u8]> {
    if value.is_nan() {
        Some(b"NaN")
    } else if value.is_infinite() {
        Some(if value > 0.0 { b"+Inf" } else { b"-Inf" })
    } else {
        None
    }
}

/// As [`put_bound`], not in OpenMetrics' spelling.
pub(crate) fn bound_text(value: f64) -> String {
    let mut text = Vec::new();
    put_bound(&mut text, value, false);
    text.into_iter().map(char::from).collect()
}

/// The value of `le` or `quantile`. It is part of a series' identity, so it has to be spelled as every other exporter spells it: Go's
/// shortest `%g`, and in OpenMetrics (`canonical`) with a point in every number.
pub(crate) fn put_bound(out: &mut Vec<u8>, value: f64, canonical: bool) {
    if let Some(word) = not_finite(value) {
        out.extend_from_slice(word);
        return;
    }
    if value == 0.0 {
        out.extend_from_slice(if canonical { b"0.0" } else { b"0" });
        return;
    }
    if value < 0.0 {
        out.push(b'-');
    }
    let mut buffer = zmij::Buffer::new();
    let (digits, point) = decimal(buffer.format_finite(value.abs()));
    let exponent = point - 1;
    let count = digits.len() as i32;
    if !(-4..6).contains(&exponent) {
        let (head, tail) = digits.split_at(1.min(digits.len()));
        out.extend_from_slice(head);
        if !tail.is_empty() {
            out.push(b'.');
            out.extend_from_slice(tail);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.abs() < 10 {
            out.push(b'0');
        }
        put_uint(out, u64::from(exponent.unsigned_abs()));
    } else if point <= 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + point.unsigned_abs() as usize, b'0');
        out.extend_from_slice(&digits);
    } else if count <= point {
        out.extend_from_slice(&digits);
        out.resize(out.len() + (point - count) as usize, b'0');
        if canonical {
            out.extend_from_slice(b".0");
        }
    } else {
        let (head, tail) = digits.split_at(point as usize);
        out.extend_from_slice(head);
        out.push(b'.');
        out.extend_from_slice(tail);
    }
}

/// The digits of a positive number without zeros around them, and where the point stands: 0.00123 is (123, -2).
fn decimal(text: &str) -> (smallvec::SmallVec<[u8; 32]>, i32) {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits: smallvec::SmallVec<[u8; 32]> = whole.bytes().chain(fraction.bytes()).collect();
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    digits.drain(..zeros);
    while digits.last() == Some(&b'0') {
        digits.pop();
    }
    let exponent: i32 = exponent.parse().unwrap_or(0);
    (digits, exponent + whole.len() as i32 - zeros as i32)
}

/// Milliseconds for text 0.0.4 and protobuf.
pub(crate) fn millis(unix_nanos: u64) -> u64 {
    unix_nanos / 1_000_000
}

/// Seconds with the milliseconds behind the point, as OpenMetrics writes time.
pub(crate) fn put_seconds(out: &mut Vec<u8>, unix_nanos: u64) {
    put_uint(out, unix_nanos / 1_000_000_000);
    let millis = (unix_nanos / 1_000_000 % 1000) as u32;
    out.push(b'.');
    for power in [100, 10, 1] {
        out.push(b'0' + (millis / power % 10) as u8);
    }
}
