//! How numbers, times and foreign text are written for people (`ux.md` section 6). Pure.

use jiff::{Timestamp, tz::TimeZone};
use std::fmt::Write;
use std::time::Duration;

/// Returns a number in groups of three: `620,221`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns a count with its noun: `1 task`, `2,000 tasks`.
pub fn count(number: u64, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {noun}{s}", grouped(number))
}

/// Returns a share: `61.9 %`. Only all is `100 %`, only nothing `0 %`.
pub fn percent(part: u64, whole: u64) -> String {
    match per_mille(part, whole) {
        0 => "0 %".to_owned(),
        1000 => "100 %".to_owned(),
        share => format!("{}.{} %", share / 10, share % 10),
    }
}

/// Returns a share without decimals: `40 %`. Only all is `100 %`.
pub fn percent_whole(part: u64, whole: u64) -> String {
    format!("{} %", per_mille(part, whole) / 10)
}

fn per_mille(part: u64, whole: u64) -> u64 {
    if part >= whole {
        return 1000;
    }
    let share = u128::from(part) * 1000 / u128::from(whole);
    let share = u64::try_from(share).unwrap_or(999);
    share.clamp(u64::from(part > 0), 999)
}

/// Returns a duration: `41 ms`, `41.2 s`, `5 min 12 s`, `38 min`, `2 h 14 min`, `3 days 4 h`.
pub fn duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let tenths = (milliseconds + 50) / 100;
    let seconds = (milliseconds + 500) / 1000;
    let minutes = (seconds + 30) / 60;
    let hours = (minutes + 30) / 60;
    if milliseconds < 1000 {
        format!("{milliseconds} ms")
    } else if tenths < 600 {
        format!("{}.{} s", tenths / 10, tenths % 10)
    } else if seconds < 600 {
        two(seconds / 60, "min", seconds % 60, "s")
    } else if minutes < 60 {
        format!("{minutes} min")
    } else if minutes < 48 * 60 {
        two(minutes / 60, "h", minutes % 60, "min")
    } else {
        two(hours / 24, "days", hours % 24, "h")
    }
}

/// Returns a duration in two digits, for what is only estimated: `41 s`, `12 min`, `1 h 20 min`,
/// `14 h`, `5 days`.
pub fn rough_duration(duration: Duration) -> String {
    let seconds = (duration.as_millis() + 500) / 1000;
    let minutes = (seconds + 30) / 60;
    let tens = (minutes + 5) / 10;
    let hours = (minutes + 30) / 60;
    if seconds < 60 {
        format!("{} s", seconds.max(1))
    } else if minutes < 60 {
        format!("{minutes} min")
    } else if tens < 60 {
        two(tens / 6, "h", tens % 6 * 10, "min")
    } else if hours < 100 {
        format!("{hours} h")
    } else {
        format!("{} days", (hours + 12) / 24)
    }
}

fn two(large: u128, unit: &str, small: u128, small_unit: &str) -> String {
    if small == 0 { format!("{large} {unit}") } else { format!("{large} {unit} {small} {small_unit}") }
}

/// Returns a size in decimal units: `640 MB`, `1.9 GB`.
pub fn size(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut unit: u128 = 1000;
    let bytes = u128::from(bytes);
    for name in ["kB", "MB", "GB", "TB", "PB"] {
        let tenths = (bytes * 10 + unit / 2) / unit;
        let whole = (bytes + unit / 2) / unit;
        if tenths < 100 {
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
        if whole < 1000 {
            return format!("{whole} {name}");
        }
        unit *= 1000;
    }
    format!("{} EB", (bytes + unit / 2) / unit)
}

/// Returns a time as JSON holds it: `2026-11-25T12:03:10.371Z`.
pub fn iso_time(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// Returns a local time as people read it: `14:29:40` today, else `2026-11-24 14:29`.
pub fn local_time(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let at = at.to_zoned(zone.clone());
    let today = now.to_zoned(zone.clone()).date();
    let format = if at.date() == today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M" };
    at.strftime(format).to_string()
}

/// Returns foreign text without anything that moves the cursor, colours, or turns the direction
/// of reading: such characters are shown as `\n`, `\x1b`, `\u{202e}`.
pub fn escape(text: &str) -> String {
    escape_bytes(text.as_bytes())
}

/// Returns foreign bytes as [`escape`] does; what is not UTF-8 is shown as `\xff`.
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut write = |text: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = out.write_fmt(text);
    };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' | '\r' | '\t' => write(format_args!("{}", character.escape_default())),
                '\0'..='\x1f' | '\x7f' => write(format_args!("\\x{:02x}", u32::from(character))),
                _ if is_unsafe(character) => {
                    write(format_args!("\\u{{{:x}}}", u32::from(character)));
                }
                _ => write(format_args!("{character}")),
            }
        }
        for byte in chunk.invalid() {
            write(format_args!("\\x{byte:02x}"));
        }
    }
    out
}

/// C1 controls, line separators and marks that reorder text.
fn is_unsafe(character: char) -> bool {
    matches!(
        character,
        '\u{80}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (number, want) in [(0, "0"), (999, "999"), (1000, "1,000"), (620_221, "620,221")] {
            assert_eq!(grouped(number), want);
        }
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(count(1, "task"), "1 task");
        assert_eq!(count(0, "task"), "0 tasks");
        assert_eq!(count(2000, "job"), "2,000 jobs");
    }

    #[test]
    fn shares() {
        for (part, whole, want) in [
            (620_221, 1_001_226, "61.9 %"),
            (0, 10, "0 %"),
            (1, 1_000_000, "0.1 %"),
            (999_999, 1_000_000, "99.9 %"),
            (10, 10, "100 %"),
            (0, 0, "100 %"),
            (u64::MAX - 1, u64::MAX, "99.9 %"),
        ] {
            assert_eq!(percent(part, whole), want);
        }
        assert_eq!(percent_whole(4000, 10_000), "40 %");
        assert_eq!(percent_whole(9_999, 10_000), "99 %");
    }

    #[test]
    fn durations() {
        for (milliseconds, want, rough) in [
            (0, "0 ms", "1 s"),
            (41, "41 ms", "1 s"),
            (41_234, "41.2 s", "41 s"),
            (59_960, "1 min", "1 min"),
            (312_000, "5 min 12 s", "5 min"),
            (38 * 60_000 + 10_000, "38 min", "38 min"),
            (134 * 60_000, "2 h 14 min", "2 h 10 min"),
            (120 * 60_000, "2 h", "2 h"),
            (80 * 60_000, "1 h 20 min", "1 h 20 min"),
            (76 * 3_600_000, "3 days 4 h", "76 h"),
            (123 * 3_600_000, "5 days 3 h", "5 days"),
        ] {
            let value = Duration::from_millis(milliseconds);
            assert_eq!(duration(value), want);
            assert_eq!(rough_duration(value), rough);
        }
    }

    #[test]
    fn sizes() {
        for (bytes, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1_900_000_000, "1.9 GB"),
            (9_960_000, "10 MB"),
            (640_000_000, "640 MB"),
            (999_600, "1.0 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(size(bytes), want);
        }
    }

    #[test]
    fn times() {
        let at: Timestamp = "2026-11-25T12:03:10.371Z".parse().unwrap();
        let tomorrow: Timestamp = "2026-11-26T00:03:00Z".parse().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(iso_time(at), "2026-11-25T12:03:10.371Z");
        assert_eq!(local_time(at, at, &zone), "14:03:10");
        assert_eq!(local_time(at, tomorrow, &zone), "2026-11-25 14:03");
    }

    #[test]
    fn foreign_text_is_harmless() {
        assert_eq!(escape("é a\tb\n\x1b[31m\u{202e}\u{9b}\0"), "é a\\tb\\n\\x1b[31m\\u{202e}\\u{9b}\\x00");
        assert_eq!(escape_bytes(b"a\xffb"), "a\\xffb");
    }
}
