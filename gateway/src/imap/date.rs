//! Dates: days and clock times without a calendar crate, because IMAP needs two formats and nothing else.

/// A day in milliseconds.
const DAY_MS: i64 = 24 * 3600 * 1000;

pub(super) const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Days since 1970-01-01 of a Gregorian date; `None` for a date that does not exist.
pub(super) fn days(year: i64, month: u32, day: u32) -> Option<i64> {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day == 0 || day > length || !(0..=9999).contains(&year) {
        return None;
    }
    // Years begin in March, so that the leap day is a year's last.
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let day_of_year = (153 * ((i64::from(month) + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// Year, month and day of a day since 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// The day on which a moment falls in its own zone: SEARCH BEFORE, ON and SINCE compare days "disregarding time and timezone".
pub(super) fn day_in_zone(moment_ms: u64, zone_minutes: i16) -> i64 {
    let local = i64::try_from(moment_ms).unwrap_or(i64::MAX / 2) + i64::from(zone_minutes) * 60_000;
    local.div_euclid(DAY_MS)
}

/// RFC 3501 `date-time` without its quotes: `17-Jul-1996 02:44:25 -0700`, the day padded with a space.
pub(super) fn format_date_time(moment_ms: u64, zone_minutes: i16) -> String {
    // A year has four digits in IMAP: later moments are shown as the last one.
    const LAST_MS: i64 = 253_402_300_799_000 - 2 * DAY_MS;
    let moment = i64::try_from(moment_ms).unwrap_or(LAST_MS).min(LAST_MS);
    let local = moment + i64::from(zone_minutes) * 60_000;
    let (year, month, day) = civil(local.div_euclid(DAY_MS));
    let seconds = local.rem_euclid(DAY_MS) / 1000;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let month = MONTHS[usize::try_from(month - 1).expect("a month lies between 1 and 12")];
    let zone = i32::from(zone_minutes).abs();
    let sign = if zone_minutes < 0 { '-' } else { '+' };
    format!(
        "{day:>2}-{month}-{year:04} {hour:02}:{minute:02}:{second:02} {sign}{:02}{:02}",
        zone / 60,
        zone % 60
    )
}

/// A `date-time` as milliseconds since 1970 and minutes east of UTC; `None` when it is none, or lies before 1970.
pub(super) fn parse_date_time(text: &[u8]) -> Option<(u64, i16)> {
    let text = std::str::from_utf8(text).ok()?;
    if text.len() != 26 || !text.is_ascii() {
        return None;
    }
    let day = day_of(&format!("{}{}", text[..2].trim_start(), &text[2..11]))?;
    let part = |range: std::ops::Range<usize>, most: i64| -> Option<i64> {
        let digits = &text[range];
        let value = digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse::<i64>().ok())??;
        (value <= most).then_some(value)
    };
    let separators = [(11, b' '), (14, b':'), (17, b':'), (20, b' ')];
    if separators.iter().any(|&(at, byte)| text.as_bytes()[at] != byte) {
        return None;
    }
    // A leap second is shown as the second before it.
    let (hour, minute, second) = (part(12..14, 23)?, part(15..17, 59)?, part(18..20, 60)?.min(59));
    let east = match text.as_bytes()[21] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let zone = east * (part(22..24, 23)? * 60 + part(24..26, 59)?);
    let local = day * DAY_MS + (hour * 3600 + minute * 60 + second) * 1000;
    let moment = u64::try_from(local - zone * 60_000).ok()?;
    Some((moment, i16::try_from(zone).ok()?))
}

/// RFC 3501 `date-text` (`1-Feb-1994`) as days since 1970.
pub(super) fn day_of(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if parts.next().is_some() || !(1..=2).contains(&day.len()) || year.len() != 4 || !digits(day) || !digits(year) {
        return None;
    }
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))?;
    days(year.parse().ok()?, u32::try_from(month).ok()? + 1, day.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn the_rfc_date_is_read_and_written() {
        let moment = 837_596_665_000;
        assert_eq!(parse_date_time(b"17-Jul-1996 02:44:25 -0700"), Some((moment, -420)));
        assert_eq!(format_date_time(moment, -420), "17-Jul-1996 02:44:25 -0700");
        assert_eq!(format_date_time(0, 0), " 1-Jan-1970 00:00:00 +0000");
        assert_eq!(parse_date_time(b" 1-Jan-1970 00:00:00 +0000"), Some((0, 0)));
    }

    #[test]
    fn dates_that_do_not_exist_are_refused() {
        for text in [
            "30-Feb-2024 00:00:00 +0000",
            "29-Feb-2023 00:00:00 +0000",
            "00-Jan-2024 00:00:00 +0000",
            "01-Foo-2024 00:00:00 +0000",
            "01-Jan-2024 24:00:00 +0000",
            "01-Jan-2024 00:60:00 +0000",
            "01-Jan-2024 00:00:00 0000",
            "1-Jan-2024 00:00:00 +0000",
            "01-Jan-2024 00:00:00 +00é",
            "01-Jan-1969 00:00:00 +0000",
        ] {
            assert_eq!(parse_date_time(text.as_bytes()), None, "{text}");
        }
        assert!(parse_date_time(b"29-Feb-2024 00:00:00 +0000").is_some());
        assert_eq!(day_of("1-Feb-1994"), days(1994, 2, 1));
        assert_eq!(day_of("1-Feb-94"), None);
        assert_eq!(day_of("+1-Feb-1994"), None);
    }

    #[test]
    fn a_day_is_the_day_of_its_zone() {
        let almost_midnight = 23 * 3600 * 1000;
        assert_eq!(day_in_zone(almost_midnight, 0), 0);
        assert_eq!(day_in_zone(almost_midnight, 120), 1);
        assert_eq!(day_in_zone(0, -60), -1);
        assert!(day_in_zone(u64::MAX, 0) > 0);
    }

    proptest! {
        #[test]
        fn every_moment_comes_back(seconds in 100_000u64..200_000_000_000, zone in -1439i16..1440) {
            let moment = seconds * 1000;
            let text = format_date_time(moment, zone);
            prop_assert_eq!(parse_date_time(text.as_bytes()), Some((moment, zone)));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in any::<Vec<u8>>(), moment in any::<u64>(), zone in any::<i16>()) {
            let _ = parse_date_time(&text);
            let _ = format_date_time(moment, zone);
        }
    }
}
