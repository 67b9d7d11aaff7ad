//! Points in time: RFC 3339 in UTC with nine digits.
//!
//! Records come in clusters, so a [`Clock`] keeps the text of the last second and computes a date only when the day
//! changes. UTC has no leap seconds here, as in all Unix time.

use super::number::two;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400;

/// Remembers the last second's text. Use one for each attribute: start and end times lie apart.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    day: u64,
    second: u64,
    /// `2026-01-31T23:59:59.`
    text: [u8; 20],
}

/// The parts of a time's text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment<'c> {
    /// `2026-01-31T23:59:59.`
    pub(crate) second: &'c [u8; 20],
    /// `123456789`
    pub(crate) nanos: [u8; 9],
}

impl Moment<'_> {
    /// `2026-01-31T23:59:59.123456789Z`
    pub(crate) fn rfc3339(self) -> [u8; 30] {
        let mut text = [b'Z'; 30];
        text[..20].copy_from_slice(self.second);
        text[20..29].copy_from_slice(&self.nanos);
        text
    }
}

impl Clock {
    /// Set to the first second of 1970.
    pub(crate) const FIRST: Self = Self { day: 0, second: 0, text: *b"1970-01-01T00:00:00." };

    /// The text of `time`, in nanoseconds since 1970.
    #[inline]
    pub(crate) fn moment(&mut self, time: u64) -> Moment<'_> {
        let (second, nanos) = (time / SECOND, time % SECOND);
        if second != self.second {
            self.turn(second);
        }
        Moment { second: &self.text, nanos: nine(nanos) }
    }

    fn turn(&mut self, second: u64) {
        let day = second / DAY;
        if day != self.day {
            let (year, month, day) = civil(day);
            self.text[0..2].copy_from_slice(&two(year / 100));
            self.text[2..4].copy_from_slice(&two(year));
            self.text[5..7].copy_from_slice(&two(month));
            self.text[8..10].copy_from_slice(&two(day));
        }
        self.text[11..13].copy_from_slice(&two(second / 3_600 % 24));
        self.text[14..16].copy_from_slice(&two(second / 60 % 60));
        self.text[17..19].copy_from_slice(&two(second % 60));
        (self.day, self.second) = (day, second);
    }
}

fn nine(nanos: u64) -> [u8; 9] {
    let mut text = [b'0' + (nanos / 100_000_000) as u8; 9];
    text[1..3].copy_from_slice(&two(nanos / 1_000_000));
    text[3..5].copy_from_slice(&two(nanos / 10_000));
    text[5..7].copy_from_slice(&two(nanos / 100));
    text[7..9].copy_from_slice(&two(nanos));
    text
}

/// Year, month and day of a day since 1970 in the Gregorian calendar. Years are counted from March, so that the leap
/// day is the last; 146 097 days make a cycle of 400 years.
const fn civil(day: u64) -> (u64, u64, u64) {
    // 1970-01-01 is day 719 468 of the calendar that begins with March of year 0.
    let day = day + 719_468;
    let (cycle, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March have 31 30 31 30 31 | 31 30 31 30 31 | 31 28 days: 153 in each five.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(clock: &mut Clock, time: u64) -> String {
        String::from_utf8(clock.moment(time).rfc3339().to_vec()).unwrap()
    }

    #[test]
    fn known_times() {
        let mut clock = Clock::FIRST;
        for (time, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (999_999_999, "1970-01-01T00:00:00.999999999Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (951_868_800_123_456_789, "2000-03-01T00:00:00.123456789Z"),
            (1_709_164_799_000_000_000, "2024-02-28T23:59:59.000000000Z"),
            (1_709_251_199_100_000_000, "2024-02-29T23:59:59.100000000Z"),
            (1_709_251_200_000_000_010, "2024-03-01T00:00:00.000000010Z"),
            (4_107_542_399_000_000_000, "2100-02-28T23:59:59.000000000Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000000Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
            (0, "1970-01-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(text(&mut clock, time), expected);
        }
    }

    /// Every day up to 2554 follows the one before by the rules of the calendar.
    #[test]
    fn days_follow_each_other() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for number in 0..=u64::MAX / SECOND / DAY {
            assert_eq!(civil(number), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let days = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (year, month, day) = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, last) if last == days => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }
}
