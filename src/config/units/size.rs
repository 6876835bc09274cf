//! Sizes. `100GB` counts in thousands, `100GiB` in 1,024s, and a bare `100G` means GiB, because
//! that is what Slurm, PBS and SGE mean by it. A number without a unit is refused: Slurm reads
//! megabytes, PBS bytes, LSF kilobytes.

use crate::config::problem::quoted;

const MEBIBYTE: u64 = 1 << 20;

/// Units in the order in which they are printed: name, bytes.
const UNITS: [(&str, u64); 11] = [
    ("PiB", 1 << 50),
    ("PB", 1_000_000_000_000_000),
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", MEBIBYTE),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// Why a text is no size.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SizeError {
    /// Nothing, or spaces.
    #[error("the size is empty")]
    Empty,
    /// A number alone.
    #[error("{} has no unit: Slurm would read megabytes, PBS bytes, LSF kilobytes", quoted(.0))]
    NoUnit(String),
    /// The unit is none.
    #[error("{} is no unit of size", quoted(.0))]
    UnknownUnit(String),
    /// It starts with a minus.
    #[error("{} is negative", quoted(.0))]
    Negative(String),
    /// Anything else.
    #[error("{} is no size", quoted(.0))]
    NotASize(String),
    /// More bytes than fit 64 bits.
    #[error("{} is larger than any memory", quoted(.0))]
    TooLarge(String),
}

impl SizeError {
    /// Returns what to write instead.
    pub fn fix(&self) -> String {
        match self {
            Self::NoUnit(number) if number.len() <= 12 => {
                format!("write {number}G (or {number}GiB), {number}GB or {number}M")
            }
            _ => "write a size like 100GB, 100GiB or 512M".to_owned(),
        }
    }
}

/// Parses a size into bytes. Fractions of a byte are cut off.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(SizeError::Empty);
    }
    let not_a_size = || SizeError::NotASize(trimmed.to_owned());
    if trimmed.starts_with('-') {
        return Err(SizeError::Negative(trimmed.to_owned()));
    }
    let number_len = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(number_len);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || number.ends_with('.') {
        return Err(not_a_size());
    }
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Err(SizeError::NoUnit(number.to_owned()));
    }
    let bytes_per_unit = unit_bytes(unit).ok_or_else(|| SizeError::UnknownUnit(unit.to_owned()))?;

    let too_large = || SizeError::TooLarge(trimmed.to_owned());
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let whole_bytes = whole.checked_mul(bytes_per_unit).ok_or_else(too_large)?;
    whole_bytes.checked_add(fraction_bytes(fraction, bytes_per_unit)).ok_or_else(too_large)
}

/// Returns the whole bytes in `0.fraction` units. 18 digits are looked at: a petabyte has 16.
fn fraction_bytes(fraction: &str, bytes_per_unit: u64) -> u64 {
    let mut bytes: u128 = 0;
    let mut scale: u128 = 1;
    for digit in fraction.bytes().take(18) {
        bytes = bytes * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    u64::try_from(bytes * u128::from(bytes_per_unit) / scale)
        .expect("a fraction of a unit is less than the unit, which fits 64 bits")
}

/// Returns the bytes of a unit: `GB` in thousands; `GiB`, `Gi` and `G` in 1,024s.
fn unit_bytes(unit: &str) -> Option<u64> {
    let lower = unit.to_ascii_lowercase();
    if matches!(lower.as_str(), "b" | "byte" | "bytes") {
        return Some(1);
    }
    let mut letters = lower.chars();
    let power = 1 + "kmgtp".find(letters.next()?)?;
    let base: u64 = match letters.as_str() {
        "" | "i" | "ib" => 1_024,
        "b" => 1_000,
        _ => return None,
    };
    base.checked_pow(u32::try_from(power).ok()?)
}

/// Returns a text that [`parse_size`] reads back as exactly these bytes: `100GB`, `1536MiB`.
pub fn exact_size(bytes: u64) -> String {
    let (count, unit) = exact_parts(bytes);
    format!("{count}{unit}")
}

/// Returns a size for people: `100 GB` where that is exact, else one decimal, `93.1 GiB`.
pub fn human_size(bytes: u64) -> String {
    let (count, unit) = exact_parts(bytes);
    if count < 10_000 {
        return format!("{count} {unit}");
    }
    let (unit, unit_bytes) = UNITS
        .into_iter()
        .find(|(unit, unit_bytes)| unit.ends_with("iB") && bytes >= *unit_bytes)
        .expect("10,000 bytes or more are at least one KiB");
    let tenths = (u128::from(bytes) * 10 + u128::from(unit_bytes) / 2) / u128::from(unit_bytes);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// Returns the smallest whole count of a unit that is exactly these bytes.
fn exact_parts(bytes: u64) -> (u64, &'static str) {
    UNITS
        .into_iter()
        .filter(|(_, unit_bytes)| bytes != 0 && bytes.is_multiple_of(*unit_bytes))
        .map(|(unit, unit_bytes)| (bytes / unit_bytes, unit))
        .min_by_key(|(count, _)| *count)
        .unwrap_or((0, "B"))
}

/// Returns whole MiB, rounded up: what a batch system is asked for.
pub fn mebibytes_up(bytes: u64) -> u64 {
    bytes.div_ceil(MEBIBYTE)
}

/// Returns whole MiB, rounded down: what a worker may use.
pub fn mebibytes_down(bytes: u64) -> u64 {
    bytes / MEBIBYTE
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        let gib = 1 << 30;
        for (text, bytes) in [
            ("100GB", 100_000_000_000),
            ("100GiB", 100 * gib),
            ("100G", 100 * gib),
            ("100g", 100 * gib),
            ("100Gi", 100 * gib),
            (" 100 gb ", 100_000_000_000),
            ("100M", 100 << 20),
            ("4T", 4 << 40),
            ("512MB", 512_000_000),
            ("1.5GB", 1_500_000_000),
            ("1.5G", 3 * gib / 2),
            ("0.1kB", 100),
            ("7B", 7),
            ("7 bytes", 7),
            ("0.9B", 0),
            ("1k", 1024),
            ("15PiB", 15 << 50),
            ("18446744073709551615B", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_with_a_reason() {
        for (text, message, fix) in [
            ("", "the size is empty", "write a size like"),
            ("  ", "the size is empty", "write a size like"),
            (
                "100",
                "\"100\" has no unit: Slurm would read megabytes, PBS bytes, LSF kilobytes",
                "write 100G (or 100GiB), 100GB or 100M",
            ),
            ("-1GB", "\"-1GB\" is negative", "write a size like"),
            ("1e3MB", "\"e3MB\" is no unit of size", "write a size like"),
            ("5 bananas", "\"bananas\" is no unit of size", "write"),
            ("1.2.3G", "\"1.2.3G\" is no size", "write"),
            (".5G", "\".5G\" is no size", "write"),
            ("5.G", "\"5.G\" is no size", "write"),
            ("GB", "\"GB\" is no size", "write"),
            ("١٠GB", "\"١٠GB\" is no size", "write"),
            ("10ＧＢ", "\"ＧＢ\" is no unit of size", "write"),
            ("10EB", "\"EB\" is no unit of size", "write"),
            ("99999999PB", "\"99999999PB\" is larger than any memory", "write"),
            ("99999999999999999999999B", "\"99999999999999999999999B\" is larger than any memory", "write"),
        ] {
            let error = parse_size(text).expect_err(text);
            assert_eq!(error.to_string(), message);
            assert!(error.fix().starts_with(fix), "{text}: {}", error.fix());
        }
    }

    #[test]
    fn prints_for_people() {
        for (bytes, exact, human) in [
            (0, "0B", "0 B"),
            (100_000_000_000, "100GB", "100 GB"),
            (100 << 30, "100GiB", "100 GiB"),
            (3 << 29, "1536MiB", "1536 MiB"),
            (99_999_999_999, "99999999999B", "93.1 GiB"),
            (u64::MAX, "18446744073709551615B", "16384.0 PiB"),
            (10_001, "10001B", "9.8 KiB"),
        ] {
            assert_eq!(exact_size(bytes), exact);
            assert_eq!(human_size(bytes), human);
        }
    }

    #[test]
    fn rounds_requests_up_and_limits_down() {
        assert_eq!(mebibytes_up(1), 1);
        assert_eq!(mebibytes_up(1 << 20), 1);
        assert_eq!(mebibytes_up((1 << 20) + 1), 2);
        assert_eq!(mebibytes_down((2 << 20) - 1), 1);
        assert_eq!(mebibytes_up(u64::MAX), 1 << 44);
    }

    proptest! {
        #[test]
        fn print_then_parse_is_identity(bytes in any::<u64>(), shift in 0_u32..64) {
            let bytes = bytes >> shift;
            prop_assert_eq!(parse_size(&exact_size(bytes)), Ok(bytes));
        }

        #[test]
        fn round_numbers_survive(count in 1_u64..10_000, unit in 0_usize..UNITS.len()) {
            let bytes = count * UNITS[unit].1;
            prop_assert_eq!(parse_size(&human_size(bytes)), Ok(bytes));
        }

        #[test]
        fn never_panics(text in any::<String>(), number in "[0-9.]{0,40}[ a-zA-Z]{0,4}") {
            for text in [text, number] {
                if let Err(error) = parse_size(&text) {
                    prop_assert!(!error.fix().is_empty());
                }
                let _ = human_size(parse_size(&text).unwrap_or(1));
            }
        }
    }
}
