//! Times as Elasticsearch reads them without losing a nanosecond.

/// Seconds of a day.
const DAY: u64 = 86_400;

/// A date of the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exporters::elasticsearch) struct Date {
    pub(in crate::exporters::elasticsearch) year: u32,
    pub(in crate::exporters::elasticsearch) month: u8,
    pub(in crate::exporters::elasticsearch) day: u8,
}

impl Date {
    /// Of a moment, in UTC.
    pub(in crate::exporters::elasticsearch) fn of(unix_nanos: u64) -> Self {
        // Years are counted from March, so that the odd day is a year's last (Hinnant, "chrono-compatible date algorithms").
        let days = unix_nanos / 1_000_000_000 / DAY + 719_468;
        let era = days / 146_097;
        let of_era = days % 146_097;
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        Self { year: year as u32, month: month as u8, day: day as u8 }
    }
}

/// Appends `2024-01-15T10:30:00.123456789Z`: the form that every version reads, into `date` and `date_nanos` alike.
pub(in crate::exporters::elasticsearch) fn rfc3339(unix_nanos: u64, out: &mut Vec<u8>) {
    let Date { year, month, day } = Date::of(unix_nanos);
    let second = unix_nanos / 1_000_000_000 % DAY;
    digits(u64::from(year), 4, out);
    out.push(b'-');
    digits(u64::from(month), 2, out);
    out.push(b'-');
    digits(u64::from(day), 2, out);
    out.push(b'T');
    digits(second / 3600, 2, out);
    out.push(b':');
    digits(second / 60 % 60, 2, out);
    out.push(b':');
    digits(second % 60, 2, out);
    out.push(b'.');
    digits(unix_nanos % 1_000_000_000, 9, out);
    out.push(b'Z');
}

/// Appends a number with leading zeros.
pub(in crate::exporters::elasticsearch) fn digits(mut number: u64, width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + width, b'0');
    for digit in out.iter_mut().skip(start).rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_a_calendar_library() {
        let mut moments =
            vec![0, 1, 951_782_399_999_999_999, 951_782_400_000_000_000, 1_709_210_096_123_456_789, i64::MAX as u64];
        moments.extend((0..20_000_u64).map(|n| n * 450_000_000_000_001));
        for nanos in moments {
            let mut out = Vec::new();
            rfc3339(nanos, &mut out);
            let known = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), format!("{known:.9}"));
        }
    }
}
