//! How many spans a sampled span stands for: the threshold in `tracestate`, `ot=th:…`.
//!
//! Spec: W3C Trace Context "tracestate header"; OpenTelemetry "TraceState: Probability Sampling". A trace state that breaks either
//! syntax says nothing.

/// Thresholds count in 2^-56 of all traces.
const WHOLE: u64 = 1 << 56;

/// A span was kept if its randomness reached this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Threshold(u64);

impl Threshold {
    /// What `state` says, if it is well-formed and says something.
    pub(super) fn of(state: &[u8]) -> Option<Self> {
        // Most states come from other vendors.
        memchr::memmem::find(state, b"ot=")?;
        if state.len() > 1024 {
            return None;
        }
        let mut found = None;
        // An empty member counts towards the 32, one behind the last comma does not.
        let behind_comma = usize::from(state.last() == Some(&b','));
        let members = state.split(|b| *b == b',').count() - behind_comma;
        if members >= 32 {
            return None;
        }
        for member in state.split(|b| *b == b',').map(trim) {
            if member.is_empty() {
                continue;
            }
            let at = memchr::memchr(b'=', member)?;
            let (key, value) = (member.get(..at)?, member.get(at + 1..)?);
            if !is_key(key) || !is_value(value) {
                return None;
            }
            if key == b"ot" {
                found = of_vendor(value).ok()?;
            }
        }
        found
    }

    /// 1 / probability.
    pub(super) fn weight(self) -> f64 {
        WHOLE as f64 / (WHOLE - self.0) as f64
    }

    /// The weight as a whole number, up or down so that the mean over many `random` numbers is the weight.
    pub(super) fn rounded(self, random: u64) -> u64 {
        let part = WHOLE - self.0;
        let (whole, rest) = (WHOLE / part, WHOLE % part);
        // `random` scaled to 0..part.
        let drawn = ((u128::from(random) * u128::from(part)) >> 64) as u64;
        whole + u64::from(drawn < rest)
    }
}

fn trim(mut member: &[u8]) -> &[u8] {
    while let Some((b' ' | b'\t', rest)) = member.split_first() {
        member = rest;
    }
    while let Some((b' ' | b'\t', rest)) = member.split_last() {
        member = rest;
    }
    member
}

fn is_key(key: &[u8]) -> bool {
    let rest_fits = |rest: &[u8]| rest.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'));
    if key.len() > 256 {
        return false;
    }
    match memchr::memchr(b'@', key).and_then(|at| key.split_at_checked(at)) {
        None => matches!(key.split_first(), Some((b'a'..=b'z', rest)) if rest_fits(rest)),
        Some((tenant, system)) => {
            tenant.len() <= 241
                && system.len() <= 15
                && matches!(tenant.split_first(), Some((b'a'..=b'z' | b'0'..=b'9', rest)) if rest_fits(rest))
                && matches!(system, [_, b'a'..=b'z', rest @ ..] if rest_fits(rest))
        }
    }
}

fn is_value(value: &[u8]) -> bool {
    let fits = |b: &u8| matches!(b, 0x20..=0x2b | 0x2d..=0x3c | 0x3e..=0x7e);
    value.len() <= 256 && value.last().is_some_and(|last| *last != b' ' && fits(last)) && value.iter().all(fits)
}

/// A trace state that breaks the syntax.
struct Broken;

/// `th:c;rv:0123…`: keys and values of the vendor `ot`.
fn of_vendor(value: &[u8]) -> Result<Option<Threshold>, Broken> {
    let mut found = None;
    for member in value.split(|b| *b == b';') {
        let (key, value) = memchr::memchr(b':', member).and_then(|at| member.split_at_checked(at)).ok_or(Broken)?;
        let value = value.get(1..).unwrap_or_default();
        let plain = |rest: &[u8]| rest.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9'));
        let key_fits = matches!(key.split_first(), Some((b'a'..=b'z', rest)) if plain(rest));
        let value_fits = value.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !key_fits || !value_fits {
            return Err(Broken);
        }
        match key {
            b"th" => found = Some(threshold(value).ok_or(Broken)?),
            b"rv" if value.len() != 14 || !value.iter().all(u8::is_ascii_hexdigit) => return Err(Broken),
            _ => {}
        }
    }
    Ok(found)
}

/// 1 to 14 hexadecimal digits; trailing zeros may be left out.
fn threshold(digits: &[u8]) -> Option<Threshold> {
    if digits.is_empty() || digits.len() > 14 {
        return None;
    }
    let mut value = 0_u64;
    for digit in digits {
        value = value << 4 | u64::from(char::from(*digit).to_digit(16)?);
    }
    Some(Threshold(value << (4 * (14 - digits.len()))))
}
