//! Reading protobuf: the fields of one message, borrowed from its bytes.
//!
//! Spec: protobuf "Encoding". Nothing here can panic; what cannot be read ends the iteration.

/// One field of a message: its number and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    pub number: u32,
    pub value: Value<'a>,
}

/// A field's value by wire type. What the bits mean is the message's affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of one message in wire order; ends at the first malformed one.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    #[inline]
    pub fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    /// Where the next field begins, as an offset into the message.
    #[inline]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Of the fields that are left only those with this number and a length: sub-messages, strings, bytes.
    pub fn messages(self, number: u32) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.filter_map(move |field| match field.value {
            Value::Bytes(bytes) if field.number == number => Some(bytes),
            _ => None,
        })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Field<'a>> {
        let message = self.message;
        let (key, at) = varint(message, self.at)?;
        let number = u32::try_from(key).ok()? >> 3;
        if number == 0 {
            return None;
        }
        let (value, next) = match key & 7 {
            0 => {
                let (value, next) = varint(message, at)?;
                (Value::Varint(value), next)
            }
            1 => (Value::Fixed64(u64::from_le_bytes(*chunk::<8>(message, at)?)), at + 8),
            2 => {
                let (len, start) = varint(message, at)?;
                let end = start.checked_add(usize::try_from(len).ok()?)?;
                (Value::Bytes(message.get(start..end)?), end)
            }
            5 => (Value::Fixed32(u32::from_le_bytes(*chunk::<4>(message, at)?)), at + 4),
            _ => return None,
        };
        self.at = next;
        Some(Field { number, value })
    }
}

/// The varint at `at` and the offset behind it; `None` if it runs past the end of `bytes` or past 64 bits.
#[inline(always)]
pub(crate) fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let first = *bytes.get(at)?;
    if first < 0x80 {
        return Some((u64::from(first), at + 1));
    }
    let second = *bytes.get(at + 1)?;
    if second < 0x80 {
        return Some((u64::from(first & 0x7f) | u64::from(second) << 7, at + 2));
    }
    long_varint(bytes, at)
}

#[inline(never)]
fn long_varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for (place, byte) in bytes.get(at..)?.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if *byte < 0x80 {
            // The tenth byte has room for one bit.
            return (place < 9 || *byte < 2).then_some((value, at + place + 1));
        }
    }
    None
}

/// `N` bytes at `at`.
#[inline(always)]
pub(crate) fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>()
}
