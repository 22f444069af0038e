//! A span as Zipkin has it, whatever it was written in.

use std::borrow::Cow;

/// Tags and annotations that one span may have. A body of many small ones would otherwise take many times its size.
pub(super) const PARTS_MAX: usize = 32_768;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    #[default]
    Unspecified,
    Client,
    Server,
    Producer,
    Consumer,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Endpoint<'a> {
    pub(super) service: Cow<'a, str>,
    pub(super) ipv4: Cow<'a, str>,
    pub(super) ipv6: Cow<'a, str>,
    /// 0: not known.
    pub(super) port: u16,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Span<'a> {
    pub(super) trace_id: [u8; 16],
    pub(super) id: [u8; 8],
    pub(super) parent: Option<[u8; 8]>,
    pub(super) name: Cow<'a, str>,
    pub(super) kind: Kind,
    /// Unix microseconds; 0: not known.
    pub(super) start: u64,
    /// Microseconds.
    pub(super) duration: u64,
    pub(super) local: Endpoint<'a>,
    pub(super) remote: Endpoint<'a>,
    /// Unix microseconds and text.
    pub(super) annotations: Vec<(u64, Cow<'a, str>)>,
    pub(super) tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl Span<'_> {
    /// One with the ids that JSON has as texts, or what is wrong with them.
    pub(super) fn identified(trace_id: &str, own: &str, parent: Option<&str>) -> Result<Self, String> {
        Ok(Self {
            trace_id: id(trace_id).ok_or_else(|| no_id("traceId", "16 or 32", trace_id))?,
            id: id(own).ok_or_else(|| no_id("id", "16", own))?,
            // Nothing but zeros is how some say that there is none.
            parent: match parent.filter(|text| text.len() > 16 || text.bytes().any(|digit| digit != b'0')) {
                None => None,
                Some(text) => Some(id(text).ok_or_else(|| no_id("parentId", "16", text))?),
            },
            ..Self::default()
        })
    }
}

fn no_id(key: &str, digits: &str, text: &str) -> String {
    format!("`{key}` is {digits} hexadecimal digits, and `{}` is not", text.chars().take(40).collect::<String>())
}

/// An id in hexadecimal, shorter ones with zeros before them. `None` for none: another length, other characters, or nothing but zeros.
pub(super) fn id<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.is_empty() || digits.len() > 2 * N {
        return None;
    }
    let mut id = [0_u8; N];
    for (place, digit) in digits.iter().rev().enumerate() {
        let value = char::from(*digit).to_digit(16)? as u8;
        let byte = id.get_mut(N - 1 - place / 2)?;
        *byte |= value << (4 * (place % 2));
    }
    (id != [0; N]).then_some(id)
}
