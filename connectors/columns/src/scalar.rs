//! Reads numbers, days and times from text, for every format that writes them as text.
//!
//! Times follow RFC 3339, with a space allowed for the `T`. What is finer than a microsecond is cut. Years that four digits
//! cannot hold have a sign and more digits, after ISO 8601: `+12345-01-31`, `-0044-03-15`.

use std::ops::RangeInclusive;

/// The years of dates and timestamps: those of Arrow's calendar, less one at each end, so that no time zone leads out of it.
pub const YEARS: RangeInclusive<i32> = -262_142..=262_141;
/// The days of these years, from 1970-01-01.
pub const DAYS: RangeInclusive<i32> = first_day(*YEARS.start())..=first_day(*YEARS.end() + 1) - 1;
/// The microseconds of these years, from 1970-01-01T00:00:00.
pub const MICROS: RangeInclusive<i64> = *DAYS.start() as i64 * DAY_MICROS..=(*DAYS.end() as i64 + 1) * DAY_MICROS - 1;

const DAY_MICROS: i64 = 86_400_000_000;

/// The days from 1970-01-01 to the first of January of a year.
const fn first_day(year: i32) -> i32 {
    let before = year - 1;
    let leap_days = before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
    // The year 1 began 719,162 days before 1970.
    before * 365 + leap_days - 719_162
}

/// A number as JSON writes it, with its value as far as it fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number<'a> {
    /// The number as it was written.
    pub text: &'a [u8],
    /// Whether it begins with a minus.
    pub negative: bool,
    /// Its digits without the point, if they fit.
    pub mantissa: Option<u64>,
    /// The power of ten to multiply the mantissa with.
    pub exponent: i32,
    /// Whether it has neither a point nor an exponent.
    pub integral: bool,
}

/// The powers of ten that a float holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

impl<'a> Number<'a> {
    /// Reads a number at the start of `bytes`; its `text` says where it ends. `None` if JSON has no such number.
    #[inline]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let negative = bytes.first() == Some(&b'-');
        let start = usize::from(negative);
        let (mut mantissa, mut overflow) = (0u64, false);
        let mut at = digits(bytes, start, &mut mantissa, &mut overflow);
        if at == start || (at > start + 1 && bytes.get(start) == Some(&b'0')) {
            return None;
        }
        let mut number = Number { text: &[], negative, mantissa: None, exponent: 0, integral: true };
        if bytes.get(at) == Some(&b'.') {
            number.integral = false;
            let point = at + 1;
            at = digits(bytes, point, &mut mantissa, &mut overflow);
            if at == point {
                return None;
            }
            number.exponent = -i32::try_from(at - point).ok()?;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            number.integral = false;
            let down = bytes.get(at + 1) == Some(&b'-');
            let first = at + 1 + usize::from(down || bytes.get(at + 1) == Some(&b'+'));
            let (mut power, mut too_large) = (0u64, false);
            at = digits(bytes, first, &mut power, &mut too_large);
            if at == first {
                return None;
            }
            let power = if too_large { i32::MAX } else { i32::try_from(power).unwrap_or(i32::MAX) };
            number.exponent = number.exponent.saturating_add(if down { -power } else { power });
        }
        number.mantissa = (!overflow).then_some(mantissa);
        number.text = bytes.get(..at)?;
        Some(number)
    }

    /// Its value, if it is an integer that fits.
    #[inline]
    pub fn int64(&self) -> Option<i64> {
        let mantissa = self.mantissa.filter(|_| self.integral)?;
        if self.negative { 0i64.checked_sub_unsigned(mantissa) } else { i64::try_from(mantissa).ok() }
    }

    /// Its value, if it is an integer that fits.
    pub fn integer(&self) -> Option<i128> {
        let mantissa = i128::from(self.mantissa.filter(|_| self.integral)?);
        Some(if self.negative { -mantissa } else { mantissa })
    }

    /// Its value, rounded to the nearest float; infinite if too large.
    #[inline]
    pub fn float(&self) -> Option<f64> {
        // Exact operands give the correctly rounded result (Clinger's fast path).
        if let Some(mantissa) = self.mantissa
            && mantissa <= 1 << 53
            && let Some(power) = POWERS.get(self.exponent.unsigned_abs() as usize)
        {
            let value = mantissa as f64;
            let value = if self.exponent < 0 { value / power } else { value * power };
            return Some(if self.negative { -value } else { value });
        }
        std::str::from_utf8(self.text).ok()?.parse().ok()
    }
}

/// A decimal number as an integer of units of the last place, `10^-scale`. `None` if it is not a number, has digits
/// other than zeros after that place, or has more than `precision` digits.
pub fn decimal(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let (negative, mut at) = match text.first()? {
        b'-' => (true, 1),
        b'+' => (false, 1),
        _ => (false, 0),
    };
    // The digits up to the last that is not zero, how many zeros follow it, and how many digits stand behind the point.
    let (mut mantissa, mut zeros, mut fraction) = (0i128, 0u32, 0i64);
    let (mut has_digits, mut has_point) = (false, false);
    while let Some(byte) = text.get(at) {
        match byte {
            b'0'..=b'9' => {
                has_digits = true;
                fraction += i64::from(has_point);
                zeros = zeros.checked_add(1)?;
                if *byte != b'0' {
                    // Leading zeros multiply nothing.
                    let power = if mantissa == 0 { 1 } else { 10i128.checked_pow(zeros)? };
                    mantissa = mantissa.checked_mul(power)?.checked_add(i128::from(byte - b'0'))?;
                    zeros = 0;
                }
            }
            b'.' if !has_point => has_point = true,
            b'e' | b'E' => break,
            _ => return None,
        }
        at += 1;
    }
    let exponent = match text.get(at..)? {
        [] => 0,
        [_, exponent @ ..] => exponent_of(exponent)?,
    };
    if !has_digits || mantissa == 0 {
        return has_digits.then_some(0);
    }
    let power = i64::from(zeros).checked_sub(fraction)?.checked_add(exponent)?.checked_add(i64::from(scale))?;
    let value = mantissa.checked_mul(10i128.checked_pow(u32::try_from(power).ok()?)?)?;
    let fits = 10u128.checked_pow(u32::from(precision)).is_none_or(|limit| value.unsigned_abs() < limit);
    fits.then_some(if negative { -value } else { value })
}

/// The exponent of a number, which may be larger than any that makes sense.
fn exponent_of(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', digits) => (true, digits),
        (b'+', digits) => (false, digits),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value =
        digits.iter().fold(0i64, |value, digit| value.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Some(if negative { -value } else { value })
}

/// Reads decimal digits from `at` on, appends them to `value` and returns where they end.
#[inline]
fn digits(bytes: &[u8], start: usize, value: &mut u64, overflow: &mut bool) -> usize {
    let (mut at, before) = (start, *value);
    while let Some(digit) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        *value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    // Few digits cannot overflow; of many it is found out digit by digit.
    if at - start > 9 || before > 1_000_000_000 {
        let digits = bytes.get(start..at).unwrap_or_default().iter();
        let exact = digits
            .map(|byte| u64::from(byte - b'0'))
            .try_fold(before, |value, digit| value.checked_mul(10).and_then(|value| value.checked_add(digit)));
        *overflow |= exact.is_none();
    }
    at
}

/// A float in words, as JSON and CSV hold it: `NaN`, `Infinity`, `-Infinity`, and the short form `inf`.
pub fn float_word(text: &[u8]) -> Option<f64> {
    match text {
        b"NaN" => Some(f64::NAN),
        b"Infinity" | b"inf" => Some(f64::INFINITY),
        b"-Infinity" | b"-inf" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// How many digits the year has at the start of a date, with its sign if there is one.
#[inline]
fn year_length(text: &[u8]) -> Option<usize> {
    match text.first()? {
        b'+' | b'-' => Some(1 + text.get(1..8)?.iter().position(|byte| *byte == b'-').filter(|digits| *digits >= 4)?),
        _ => Some(4),
    }
}

/// Days since 1970-01-01 of `YYYY-MM-DD`, or of a year with a sign and four to six digits.
pub fn date(text: &[u8]) -> Option<i32> {
    let length = year_length(text)?;
    let (signed, rest) = text.split_at_checked(length)?;
    if rest.len() != 6 || rest[0] != b'-' || rest[3] != b'-' {
        return None;
    }
    let (month, day) = (fixed(rest, 1, 2)?, fixed(rest, 4, 2)?);
    let year = match signed.split_first()? {
        (b'-', digits) => -fixed(digits, 0, digits.len())?,
        (b'+', digits) => fixed(digits, 0, digits.len())?,
        _ => fixed(signed, 0, 4)?,
    };
    if !YEARS.contains(&i32::try_from(year).ok()?) {
        return None;
    }
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) {
        return None;
    }
    // Days from civil, after Howard Hinnant: years begin in March, so that the leap day is the last.
    let year = year - i64::from(month <= 2);
    let (era, month) = (year.div_euclid(400), (month + 9) % 12);
    let year_of_era = year.rem_euclid(400);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * month + 2) / 5 + day - 1;
    i32::try_from(era * 146_097 + day_of_era - 719_468).ok()
}

/// Microseconds since midnight of `HH:MM`, `HH:MM:SS` or `HH:MM:SS.ffffff`, and how many bytes that took.
fn time_prefix(text: &[u8]) -> Option<(i64, usize)> {
    let (hour, minute) = (fixed(text, 0, 2)?, fixed(text, 3, 2)?);
    if text.get(2) != Some(&b':') || hour > 23 || minute > 59 {
        return None;
    }
    let minutes = (hour * 60 + minute) * 60_000_000;
    if text.get(5) != Some(&b':') {
        return Some((minutes, 5));
    }
    let second = fixed(text, 6, 2).filter(|second| *second < 60)?;
    let mut micros = minutes + second * 1_000_000;
    let mut at = 8;
    if text.get(8) == Some(&b'.') {
        let (mut scale, first) = (100_000, 9);
        at = first;
        while let Some(digit) = text.get(at).filter(|byte| byte.is_ascii_digit()) {
            micros += i64::from(digit - b'0') * scale;
            scale /= 10;
            at += 1;
        }
        if at == first {
            return None;
        }
    }
    Some((micros, at))
}

/// Microseconds since midnight of `HH:MM:SS.ffffff`; seconds and their fraction may be missing.
pub fn time(text: &[u8]) -> Option<i64> {
    time_prefix(text).filter(|(_, taken)| *taken == text.len()).map(|(micros, _)| micros)
}

/// A date and time: microseconds since the epoch on the clock it was written for, and that clock's distance from UTC in
/// seconds, if it says so.
fn date_time(text: &[u8]) -> Option<(i64, Option<i64>)> {
    let length = year_length(text)? + 6;
    let days = date(text.get(..length)?)?;
    if !matches!(text.get(length), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let rest = text.get(length + 1..)?;
    let (micros, taken) = time_prefix(rest)?;
    let micros = i64::from(days) * DAY_MICROS + micros;
    let zone = rest.get(taken..)?;
    let offset = match zone {
        [] => None,
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), ..] => {
            let minutes = match zone.len() {
                6 if zone[3] == b':' => fixed(zone, 4, 2)?,
                5 => fixed(zone, 3, 2)?,
                3 => 0,
                _ => return None,
            };
            let hours = fixed(zone, 1, 2).filter(|hours| *hours < 24 && minutes < 60)?;
            let seconds = (hours * 60 + minutes) * 60;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => return None,
    };
    Some((micros, offset))
}

/// Microseconds since the epoch of an RFC 3339 time; one without a zone is taken as UTC.
pub fn timestamp(text: &[u8]) -> Option<i64> {
    let micros = date_time(text).map(|(micros, offset)| micros - offset.unwrap_or(0) * 1_000_000);
    micros.filter(|micros| MICROS.contains(micros))
}

/// Whether the text is an RFC 3339 time with its zone: nobody writes that by chance.
pub fn is_timestamp(text: &[u8]) -> bool {
    date_time(text).is_some_and(|(_, offset)| offset.is_some())
}

/// Microseconds since the epoch of a date and time without a zone.
pub fn timestamp_local(text: &[u8]) -> Option<i64> {
    date_time(text).filter(|(_, offset)| offset.is_none()).map(|(micros, _)| micros)
}

/// The number made of exactly `count` digits at `at`.
#[inline]
fn fixed(text: &[u8], at: usize, count: usize) -> Option<i64> {
    text.get(at..at + count)?.iter().try_fold(0i64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| value * 10 + i64::from(digit))
    })
}

/// Bytes written as pairs of hexadecimal digits.
pub fn hex(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !text.len().is_multiple_of(2) {
        return None;
    }
    for pair in text.chunks_exact(2) {
        out.push(digit(pair[0])? << 4 | digit(pair[1])?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use chrono::{DateTime, NaiveDate, SecondsFormat, TimeZone, Utc};
    use proptest::prelude::*;

    #[test]
    fn numbers_are_those_of_json() {
        for (text, taken, integer) in [
            ("0", 1, Some(0)),
            ("-12,", 3, Some(-12)),
            ("18446744073709551615", 20, Some(18_446_744_073_709_551_615)),
            ("18446744073709551616", 20, None),
            ("1.5", 3, None),
            ("1e3 ", 3, None),
        ] {
            let number = Number::read(text.as_bytes()).unwrap();
            assert_eq!((number.text.len(), number.integer()), (taken, integer), "{text}");
        }
        for text in ["", "-", "01", ".5", "1.", "1e", "+1", "x"] {
            assert_eq!(Number::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        for (text, expected) in [
            ("2013-01-01T05:00:00Z", Some("2013-01-01T05:00:00.000000Z")),
            ("2013-01-01 05:00:00", Some("2013-01-01T05:00:00.000000Z")),
            ("2013-01-01T05:00+02:00", Some("2013-01-01T03:00:00.000000Z")),
            ("2024-02-29T23:59:59.1234567-0530", Some("2024-03-01T05:29:59.123456Z")),
            ("2013-02-29T05:00:00Z", None),
            ("2013-01-01T24:00:00Z", None),
            ("2013-01-01", None),
            ("2013-01-01T05:00:00.Z", None),
            ("2013-01-01T05:00:00 CET", None),
        ] {
            let printed = timestamp(text.as_bytes())
                .map(|micros| Utc.timestamp_micros(micros).unwrap().to_rfc3339_opts(SecondsFormat::Micros, true));
            assert_eq!(printed.as_deref(), expected, "{text}");
        }
        assert_eq!(date(b"-262142-01-01"), Some(*DAYS.start()));
        assert_eq!(date(b"+262141-12-31"), Some(*DAYS.end()));
        for outside in
            ["+262142-01-01", "-262143-12-31", "12345-01-01", "+123-01-01", "+1234567-01-01", "--123-01-01", "+"]
        {
            assert_eq!(date(outside.as_bytes()), None, "{outside}");
        }
        assert_eq!(timestamp(b"+262141-12-31T23:59:59-01:00"), None);
        assert_eq!(timestamp_local(b"1970-01-01T00:00:01"), Some(1_000_000));
        assert_eq!(timestamp_local(b"1970-01-01T00:00:01Z"), None);
        assert_eq!(time(b"01:02:03.5"), Some(3_723_500_000));
        assert_eq!(time(b"01:02:03x"), None);
    }

    #[test]
    fn decimals_are_exact_or_none() {
        let long = format!("1{}", "0".repeat(256));
        let small = format!("0.{}1", "0".repeat(300));
        for (text, precision, scale, expected) in [
            ("1.5", 10, 2, Some(150)),
            ("-1.500", 10, 2, Some(-150)),
            ("1.239", 10, 2, None),
            ("1.239e1", 10, 2, Some(1239)),
            ("12.39e-1", 10, 2, None),
            ("1e2", 10, 0, Some(100)),
            ("100e-2", 10, 0, Some(1)),
            ("0e999999999999999999999", 10, 2, Some(0)),
            ("1e999999999999999999999", 10, 2, None),
            ("1e-999999999999999999999", 10, 2, None),
            ("99999999999999999999999999999999999999", 38, 0, Some(10i128.pow(38) - 1)),
            ("-99999999999999999999999999999999999999", 38, 0, Some(1 - 10i128.pow(38))),
            ("100000000000000000000000000000000000000", 38, 0, None),
            ("1000", 3, 0, None),
            ("10.00", 3, 1, Some(100)),
            ("000.10", 1, 1, Some(1)),
            (&long, 38, 0, None),
            (&small, 38, 38, None),
            ("", 3, 0, None),
            (".", 3, 0, None),
            ("-", 3, 0, None),
            ("1e", 3, 0, None),
            ("1.2.3", 3, 0, None),
            ("1x", 3, 0, None),
        ] {
            assert_eq!(decimal(text.as_bytes(), precision, scale), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn decimals_come_back(units in -(10i128.pow(38) - 1)..10i128.pow(38), scale in 0i8..=38) {
            use arrow::datatypes::DecimalType;
            let text = arrow::datatypes::Decimal128Type::format_decimal(units, 38, scale);
            prop_assert_eq!(decimal(text.as_bytes(), 38, scale), Some(units), "{}", text);
        }

        #[test]
        fn floats_are_those_of_the_standard_library(value: f64, short in -1_000_000i64..1_000_000, places in 0usize..8) {
            for text in [format!("{value:?}"), format!("{:.places$}", short as f64 / 1000.0)] {
                if let Some(number) = Number::read(text.as_bytes()) {
                    prop_assert_eq!(number.float(), text.parse().ok());
                }
            }
        }

        #[test]
        fn days_are_those_of_chrono(days in prop_oneof![-800_000i32..3_000_000, DAYS]) {
            let day = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap() + chrono::Duration::days(i64::from(days));
            prop_assert_eq!(date(day.to_string().as_bytes()), Some(days), "{}", day);
        }

        #[test]
        fn instants_of_all_years_are_those_of_chrono(micros in prop_oneof![MICROS, Just(*MICROS.start()), Just(*MICROS.end())]) {
            let text = DateTime::from_timestamp_micros(micros).unwrap().to_rfc3339();
            prop_assert_eq!(timestamp(text.as_bytes()), Some(micros), "{}", text);
        }

        #[test]
        fn instants_are_those_of_chrono(micros in 0i64..4_000_000_000_000_000) {
            let text = DateTime::from_timestamp_micros(micros).unwrap().to_rfc3339();
            prop_assert_eq!(timestamp(text.as_bytes()), Some(micros));
        }

        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            let _ = (Number::read(&bytes), date(&bytes), time(&bytes), timestamp(&bytes), hex(&bytes, &mut Vec::new()));
            let _ = decimal(&bytes, 38, 10);
        }
    }
}
