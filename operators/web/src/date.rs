//! HTTP dates (RFC 9110, section 5.6.7), as `Retry-After` and `Date` carry them.
//!
//! Promise: all three forms a recipient must accept are read; anything else is `None`.

use faceflow_core::Time;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT` or `Sun Nov  6 08:49:37 1994`, in
/// milliseconds since the Unix epoch. `now` decides the century of the second form; dates before 1970 are `None`.
pub fn parse(text: &str, now: Time) -> Option<Time> {
    let words: Vec<_> = text.split([' ', ',', '-', ':']).filter(|word| !word.is_empty()).collect();
    let (day, month, year, clock) = match words[..] {
        [_, day, month, year, h, m, s, "GMT" | "UTC"] => (day, month, year, [h, m, s]),
        [_, month, day, h, m, s, year] => (day, month, year, [h, m, s]),
        _ => return None,
    };
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))? as u64;
    let (day, year) = (number(day, 2)?, year_of(year, now)?);
    let [h, m, s] = [number(clock[0], 2)?, number(clock[1], 2)?, number(clock[2], 2)?];
    if !(1..=31).contains(&day) || h > 23 || m > 59 || s > 60 || year < 1970 {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + h * 3_600 + m * 60 + s;
    Some(seconds * 1_000)
}

fn number(text: &str, digits_max: usize) -> Option<u64> {
    let plain = text.len() <= digits_max && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// A year of two digits that seems more than 50 years ahead is the most recent past one with these digits (RFC 9110).
fn year_of(text: &str, now: Time) -> Option<u64> {
    let year = number(text, 4)?;
    match text.len() {
        4 => Some(year),
        2 => {
            let this = 1970 + now / 31_556_952_000;
            let year = this / 100 * 100 + year;
            Some(if year > this + 50 { year - 100 } else { year })
        }
        _ => None,
    }
}

/// Days from 1 January 1970 to a date of the Gregorian calendar, `month` from 0.
fn days(year: u64, month: u64, day: u64) -> u64 {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leaps_before = |year: u64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let this_year = BEFORE[month as usize] + u64::from(leap && month > 1) + day - 1;
    (year - 1970) * 365 + leaps_before(year) - leaps_before(1970) + this_year
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = 1_700_000_000_000;

    #[test]
    fn the_three_forms_of_the_rfc_are_the_same_moment() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(text, NOW), Some(784_111_777_000), "{text}");
        }
    }

    #[test]
    fn calendars_have_leap_years() {
        assert_eq!(parse("Thu, 01 Jan 1970 00:00:00 GMT", NOW), Some(0));
        assert_eq!(parse("Tue, 29 Feb 2000 12:00:00 GMT", NOW), Some(951_825_600_000));
        assert_eq!(parse("Mon, 01 Mar 2100 00:00:00 GMT", NOW), Some(4_107_542_400_000));
        assert_eq!(parse("Fri, 31 Dec 9999 23:59:59 GMT", NOW), Some(253_402_300_799_000));
    }

    #[test]
    fn nonsense_is_no_date() {
        for text in [
            "",
            "120",
            "Sun, 06 Nov 1994",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 25:49:37 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 06 Nov 1894 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 PST",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
        ] {
            assert_eq!(parse(text, NOW), None, "{text:?}");
        }
    }
}
