//! Durations. `01:30:00`, `1-12` and `1-12:30:00` as Slurm and PBS write them, `1h30m`, `90min`
//! and `2 days` as people do. Two spellings are refused because batch systems disagree about them:
//! a number alone (Slurm: minutes, PBS and SGE: seconds) and `90:00` (Slurm: minutes and seconds,
//! LSF: hours and minutes).

use crate::config::problem::quoted;
use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Longest duration there is, in seconds: 100 years. No sum of a few of them can overflow.
pub const LONGEST_SECONDS: u64 = 36_525 * DAY;

/// Why a text is no duration.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DurationError {
    /// Nothing, or spaces.
    #[error("the duration is empty")]
    Empty,
    /// A number alone.
    #[error("{} has no unit: Slurm would read minutes, PBS seconds", quoted(.0))]
    NoUnit(String),
    /// Two numbers with a colon.
    #[error(
        "{} is ambiguous: Slurm would read minutes:seconds, LSF hours:minutes",
        quoted(.0)
    )]
    TwoParts(String),
    /// A field of `days-hours:minutes:seconds` is too large, or misses.
    #[error("{} is no days-hours:minutes:seconds", quoted(.0))]
    BadClock(String),
    /// It starts with a minus.
    #[error("{} is negative", quoted(.0))]
    Negative(String),
    /// `UNLIMITED` and the like.
    #[error("{} is no length of time", quoted(.0))]
    Unlimited(String),
    /// Milliseconds and less.
    #[error("{} is no whole number of seconds", quoted(.0))]
    Fraction(String),
    /// Anything else.
    #[error("{} is no duration", quoted(.0))]
    NotADuration(String),
    /// More than [`LONGEST_SECONDS`].
    #[error("{} is more than 100 years", quoted(.0))]
    TooLong(String),
}

impl DurationError {
    /// Returns what to write instead.
    pub fn fix(&self) -> String {
        match self {
            Self::NoUnit(number) => match number.parse::<u64>() {
                Ok(minutes) if minutes <= LONGEST_SECONDS / MINUTE => format!(
                    "write {minutes}m or {} for minutes, {minutes}s for seconds",
                    clock_duration(minutes * MINUTE)
                ),
                _ => "write 90m or 01:30:00".to_owned(),
            },
            Self::TwoParts(text) => match text.split_once(':') {
                Some((a, b)) if text.len() <= 12 => {
                    format!("write {a}h{b}m for hours and minutes, {a}m{b}s for minutes and seconds")
                }
                _ => "write 01:30:00 or 90m".to_owned(),
            },
            Self::Unlimited(_) => "leave it out: the queue's own limit holds".to_owned(),
            Self::BadClock(_) => {
                "write 01:30:00 or 1-12:00:00: minutes and seconds up to 59, hours after days up to 23".to_owned()
            }
            _ => "write a duration like 01:30:00, 1-12:00:00, 90m, 1h30m or 2 days".to_owned(),
        }
    }
}

/// Parses a duration into whole seconds.
pub fn parse_duration(text: &str) -> Result<u64, DurationError> {
    let trimmed = text.trim();
    let owned = || trimmed.to_owned();
    if trimmed.is_empty() {
        return Err(DurationError::Empty);
    }
    if trimmed.starts_with('-') {
        return Err(DurationError::Negative(owned()));
    }
    let lower = trimmed.to_ascii_lowercase();
    if matches!(lower.as_str(), "unlimited" | "infinite" | "none") {
        return Err(DurationError::Unlimited(owned()));
    }
    let seconds = if trimmed.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DurationError::NoUnit(owned()));
    } else if trimmed.bytes().all(|b| b.is_ascii_digit() || matches!(b, b':' | b'-')) {
        parse_clock(trimmed)?
    } else {
        // Lower case, because a month is no walltime: `1H30M` are minutes.
        let duration: Duration = humantime::parse_duration(&lower).map_err(|error| match error {
            humantime::DurationError::NumberOverflow => DurationError::TooLong(owned()),
            _ => DurationError::NotADuration(owned()),
        })?;
        if duration.subsec_nanos() != 0 {
            return Err(DurationError::Fraction(owned()));
        }
        duration.as_secs()
    };
    if seconds > LONGEST_SECONDS {
        return Err(DurationError::TooLong(owned()));
    }
    Ok(seconds)
}

/// Parses `H:MM:SS`, `D-H`, `D-HH:MM` and `D-HH:MM:SS`.
fn parse_clock(text: &str) -> Result<u64, DurationError> {
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(days), rest),
        None => (None, text),
    };
    let bad = || DurationError::BadClock(text.to_owned());
    let too_long = || DurationError::TooLong(text.to_owned());
    let field = |text: &str| -> Result<u64, DurationError> {
        if text.is_empty() || text.contains('-') {
            return Err(bad());
        }
        text.parse().map_err(|_| too_long())
    };
    let fields = rest.split(':').map(field).collect::<Result<Vec<u64>, _>>();
    let (hours, minutes, seconds) = match (days, fields?.as_slice()) {
        (Some(_), &[hours]) => (hours, 0, 0),
        (Some(_), &[hours, minutes]) => (hours, minutes, 0),
        (_, &[hours, minutes, seconds]) => (hours, minutes, seconds),
        (None, &[_, _]) => return Err(DurationError::TwoParts(text.to_owned())),
        _ => return Err(bad()),
    };
    if minutes > 59 || seconds > 59 || (days.is_some() && hours > 23) {
        return Err(bad());
    }
    let days = days.map_or(Ok(0), field)?;
    days.checked_mul(DAY)
        .and_then(|sum| sum.checked_add(hours.checked_mul(HOUR)?))
        .and_then(|sum| sum.checked_add(minutes * MINUTE + seconds))
        .ok_or_else(too_long)
}

/// Returns the form Slurm writes and reads: `01:30:00`, `1-12:00:00`.
pub fn clock_duration(seconds: u64) -> String {
    let (days, rest) = (seconds / DAY, seconds % DAY);
    let (hours, minutes, seconds) = (rest / HOUR, rest % HOUR / MINUTE, rest % MINUTE);
    if days == 0 {
        format!("{hours:02}:{minutes:02}:{seconds:02}")
    } else {
        format!("{days}-{hours:02}:{minutes:02}:{seconds:02}")
    }
}

/// Returns a duration for people: `1 h 30 min`.
pub fn human_duration(seconds: u64) -> String {
    let parts =
        [(seconds / DAY, "d"), (seconds % DAY / HOUR, "h"), (seconds % HOUR / MINUTE, "min"), (seconds % MINUTE, "s")];
    let shown: Vec<String> =
        parts.into_iter().filter(|(count, _)| *count != 0).map(|(count, unit)| format!("{count} {unit}")).collect();
    if shown.is_empty() { "0 s".to_owned() } else { shown.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        for (text, seconds) in [
            ("01:30:00", 5_400),
            ("1:30:00", 5_400),
            ("100:00:00", 360_000),
            ("1-00:00:00", DAY),
            ("1-12", DAY + 12 * HOUR),
            ("1-12:30", DAY + 12 * HOUR + 30 * MINUTE),
            ("7-23:59:59", 8 * DAY - 1),
            ("1h30m", 5_400),
            ("1h 30m", 5_400),
            ("1H30M", 5_400),
            ("90min", 5_400),
            (" 90m ", 5_400),
            ("90 minutes", 5_400),
            ("2 days", 2 * DAY),
            ("2 Days", 2 * DAY),
            ("1d12h", DAY + 12 * HOUR),
            ("45s", 45),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_with_a_reason() {
        for (text, message, fix) in [
            ("", "the duration is empty", "write a duration like"),
            (
                "90",
                "\"90\" has no unit: Slurm would read minutes, PBS seconds",
                "write 90m or 01:30:00 for minutes, 90s for seconds",
            ),
            (
                "90:00",
                "\"90:00\" is ambiguous: Slurm would read minutes:seconds, LSF hours:minutes",
                "write 90h00m for hours and minutes, 90m00s for minutes and seconds",
            ),
            ("-1h", "\"-1h\" is negative", "write a duration like"),
            ("1:99:00", "\"1:99:00\" is no days-hours:minutes:seconds", "write 01:30:00"),
            ("1-24", "\"1-24\" is no days-hours:minutes:seconds", "write"),
            ("1-", "\"1-\" is no days-hours:minutes:seconds", "write"),
            ("1--2", "\"1--2\" is no days-hours:minutes:seconds", "write"),
            ("1:2:3:4", "\"1:2:3:4\" is no days-hours:minutes:seconds", "write"),
            ("1::3", "\"1::3\" is no days-hours:minutes:seconds", "write"),
            ("UNLIMITED", "\"UNLIMITED\" is no length of time", "leave it out"),
            ("100ms", "\"100ms\" is no whole number of seconds", "write"),
            ("soon", "\"soon\" is no duration", "write"),
            ("٣h", "\"٣h\" is no duration", "write"),
            ("200 years", "\"200 years\" is more than 100 years", "write"),
            ("99999999999999999-00", "\"99999999999999999-00\" is more than 100 years", "write"),
            ("99999999999999999999999h", "\"99999999999999999999999h\" is more than 100 years", "write"),
        ] {
            let error = parse_duration(text).expect_err(text);
            assert_eq!(error.to_string(), message);
            assert!(error.fix().starts_with(fix), "{text}: {}", error.fix());
        }
    }

    #[test]
    fn prints_for_machines_and_people() {
        for (seconds, clock, human) in [
            (0, "00:00:00", "0 s"),
            (45, "00:00:45", "45 s"),
            (5_400, "01:30:00", "1 h 30 min"),
            (DAY, "1-00:00:00", "1 d"),
            (DAY + 3_661, "1-01:01:01", "1 d 1 h 1 min 1 s"),
        ] {
            assert_eq!(clock_duration(seconds), clock);
            assert_eq!(human_duration(seconds), human);
        }
    }

    proptest! {
        #[test]
        fn print_then_parse_is_identity(seconds in 0..=LONGEST_SECONDS, shift in 0_u32..32) {
            let seconds = seconds >> shift;
            prop_assert_eq!(parse_duration(&clock_duration(seconds)), Ok(seconds));
            prop_assert_eq!(parse_duration(&human_duration(seconds)), Ok(seconds));
        }

        #[test]
        fn never_panics(
            text in any::<String>(),
            clock in "[0-9:-]{0,40}",
            words in "([0-9]{1,22} ?[a-zA-Zµ]{0,3}){0,4}",
        ) {
            for text in [text, clock, words] {
                match parse_duration(&text) {
                    Ok(seconds) => prop_assert!(seconds <= LONGEST_SECONDS),
                    Err(error) => prop_assert!(!error.fix().is_empty()),
                }
            }
        }
    }
}
