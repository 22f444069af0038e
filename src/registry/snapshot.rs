//! State as bytes and back: a small binary format, and pages written down as they stood at one moment while work goes on.
//!
//! Numbers are varints, what varies in length has its length in front. A reader believes nothing: each length and count is held against the
//! bytes that are left before anything is made for it, so that what is allocated is bounded by a constant times what was read.
//! Whether the bytes are the ones that were written is for their container to know, by a checksum.

/// What cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at} of the snapshot")]
pub struct Damaged {
    pub at: usize,
    pub what: &'static str,
}

/// Appends values to bytes.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub fn flag(&mut self, value: bool) {
        self.bytes.push(value.into());
    }

    pub fn number(&mut self, value: impl Into<u64>) {
        crate::otlp::wire::put_varint(&mut self.bytes, value.into());
    }

    pub fn count(&mut self, value: usize) {
        self.number(value as u64);
    }

    pub fn signed(&mut self, value: i64) {
        self.number((value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned());
    }

    /// Whole numbers, which most are, take one to three bytes.
    pub fn double(&mut self, value: f64) {
        self.number(value.to_bits().swap_bytes());
    }

    /// As they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// The settings that give the state its shape: names and how they are set.
    pub fn settings(&mut self, settings: &[(&'static str, String)]) {
        self.count(settings.len());
        for (name, value) in settings {
            self.text(name);
            self.text(value);
        }
    }
}

/// Takes values from bytes, in the order in which they were written.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub const fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    pub const fn damaged(&self, what: &'static str) -> Damaged {
        Damaged { at: self.at, what }
    }

    pub fn byte(&mut self) -> Result<u8, Damaged> {
        let byte = self.bytes.get(self.at).copied().ok_or(self.damaged("bytes end too early"))?;
        self.at += 1;
        Ok(byte)
    }

    pub fn flag(&mut self) -> Result<bool, Damaged> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.damaged("neither yes nor no")),
        }
    }

    pub fn number(&mut self) -> Result<u64, Damaged> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.damaged("a number that is too large"))
    }

    /// A number of a smaller type.
    pub fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Damaged> {
        let value = self.number()?;
        T::try_from(value).map_err(|_| self.damaged("a number that is too large"))
    }

    pub fn signed(&mut self) -> Result<i64, Damaged> {
        let value = self.number()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    pub fn small_signed(&mut self) -> Result<i32, Damaged> {
        let value = self.signed()?;
        i32::try_from(value).map_err(|_| self.damaged("a number that is too large"))
    }

    pub fn double(&mut self) -> Result<f64, Damaged> {
        Ok(f64::from_bits(self.number()?.swap_bytes()))
    }

    /// How many things follow, each of at least `least` bytes.
    pub fn count(&mut self, least: usize) -> Result<usize, Damaged> {
        let count = self.small::<usize>()?;
        if count > self.left() / least.max(1) {
            return Err(self.damaged("a count that is larger than what follows"));
        }
        Ok(count)
    }

    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], Damaged> {
        let end = self.at.checked_add(len).ok_or(self.damaged("a length that is too large"))?;
        let bytes = self.bytes.get(self.at..end).ok_or(self.damaged("bytes end too early"))?;
        self.at = end;
        Ok(bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let bytes = self.raw(N)?;
        bytes.try_into().map_err(|_| self.damaged("bytes end too early"))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let len = self.count(1)?;
        self.raw(len)
    }

    pub fn text(&mut self) -> Result<&'a str, Damaged> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.damaged("a text that is not UTF-8"))
    }

    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Damaged>) -> Result<Option<T>, Damaged> {
        Ok(if self.flag()? { Some(read(self)?) } else { None })
    }

    /// The names of the settings that are not as they were; none if all are.
    pub fn settings(&mut self, now: &[(&'static str, String)]) -> Result<Vec<String>, Damaged> {
        let mut other = Vec::new();
        let mut known = now.iter();
        for _ in 0..self.count(2)? {
            let (name, value) = (self.text()?, self.text()?);
            match known.next() {
                Some((now, as_now)) if *now == name && as_now == value => {}
                _ => other.push(name.to_owned()),
            }
        }
        other.extend(known.map(|(name, _)| (*name).to_owned()));
        Ok(other)
    }

    pub fn end(&self) -> Result<(), Damaged> {
        if self.left() == 0 { Ok(()) } else { Err(self.damaged("something that does not belong there")) }
    }
}

/// A number for the settings that give a state its shape; the same in every build.
pub fn fingerprint(settings: &[(&'static str, String)]) -> u64 {
    // FNV-1a. Nobody gains from two settings that look alike.
    let bytes = settings.iter().flat_map(|(name, value)| name.bytes().chain([0]).chain(value.bytes()).chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The pages of something that changes, written down as they stood when this was made: whoever changes a page that is not written yet
/// writes it first. Between these moments nobody waits.
#[derive(Debug)]
pub struct Saving {
    pages: Vec<Option<Vec<u8>>>,
    next: usize,
}

impl Saving {
    pub fn of(pages: usize) -> Self {
        Self { pages: vec![None; pages], next: 0 }
    }

    /// Whether the page must be written before it changes.
    pub fn wants(&self, page: usize) -> bool {
        self.pages.get(page).is_some_and(Option::is_none)
    }

    /// Takes a page that it wants.
    pub fn put(&mut self, page: usize, bytes: Vec<u8>) {
        if let Some(place) = self.pages.get_mut(page)
            && place.is_none()
        {
            *place = Some(bytes);
        }
    }

    /// The next page to be written.
    pub fn due(&mut self) -> Option<usize> {
        while self.next < self.pages.len() && !self.wants(self.next) {
            self.next += 1;
        }
        (self.next < self.pages.len()).then_some(self.next)
    }

    /// All pages, one behind the other.
    pub fn finish(self, out: &mut Writer) {
        out.bytes.reserve_exact(self.pages.iter().flatten().map(Vec::len).sum());
        self.pages.into_iter().flatten().for_each(|page| out.raw(&page));
    }
}
