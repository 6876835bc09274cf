//! `--queue`: which model, as it is written.

use crate::config::units::parse_duration;
use std::fmt;
use std::str::FromStr;

/// A model of the queue.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Choice {
    /// Every job waits the same, in seconds.
    Constant(f64),
    /// Waits are log-normal: median in seconds, standard deviation of the logarithm.
    LogNormal(f64, f64),
    /// As long as the nearest job of a log.
    Nearest,
    /// A log replayed under EASY backfilling.
    Easy,
}

/// Why it is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}")]
pub struct ChoiceError {
    what: String,
    /// What to write.
    pub fix: String,
}

/// Largest standard deviation of the logarithm; more of it has waits of years.
const SIGMA_MAX: f64 = 5.0;

impl FromStr for Choice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        let parts: Vec<&str> = text.split(':').collect();
        let error = |what: String, fix: &str| ChoiceError { what, fix: fix.to_owned() };
        let wait = |text: &str| match text {
            "0" => Ok(0.0),
            _ => parse_duration(text).map(|seconds| seconds as f64).map_err(|e| error(e.to_string(), &e.fix())),
        };
        match parts[..] {
            ["constant"] => Ok(Self::Constant(10.0)),
            ["constant", seconds] => Ok(Self::Constant(wait(seconds)?)),
            ["lognormal"] => Ok(Self::default()),
            ["lognormal", median] => Ok(Self::LogNormal(wait(median)?, 1.2)),
            ["lognormal", median, sigma] => {
                let spread = sigma.parse().ok().filter(|sigma| (0.0..=SIGMA_MAX).contains(sigma));
                let what = || format!("`{sigma}` is no spread: 0 to {SIGMA_MAX}");
                Ok(Self::LogNormal(wait(median)?, spread.ok_or_else(|| error(what(), "lognormal:2m:1.2"))?))
            }
            ["nearest"] => Ok(Self::Nearest),
            ["easy"] => Ok(Self::Easy),
            _ => Err(error(
                format!("`{text}` is no model of a queue"),
                "constant:10s, lognormal:2m:1.2, nearest or easy",
            )),
        }
    }
}

impl fmt::Display for Choice {
    /// Writes it as it can be read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(seconds) => write!(f, "constant:{seconds}s"),
            Self::LogNormal(median, sigma) => write!(f, "lognormal:{median}s:{sigma}"),
            Self::Nearest => f.write_str("nearest"),
            Self::Easy => f.write_str("easy"),
        }
    }
}

impl Default for Choice {
    /// Half of the jobs wait less than two minutes, one in forty more than twenty.
    fn default() -> Self {
        Self::LogNormal(120.0, 1.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_named_with_their_numbers() {
        for (text, want) in [
            ("constant:10s", Choice::Constant(10.0)),
            ("constant:0", Choice::Constant(0.0)),
            ("constant:0s", Choice::Constant(0.0)),
            ("lognormal:2m:1.2", Choice::LogNormal(120.0, 1.2)),
            ("lognormal:1h", Choice::LogNormal(3600.0, 1.2)),
            ("lognormal", Choice::default()),
            ("nearest", Choice::Nearest),
            ("easy", Choice::Easy),
        ] {
            assert_eq!(text.parse(), Ok(want), "{text}");
            assert_eq!(want.to_string().parse(), Ok(want));
        }
        for (text, words) in [
            ("constant:10", "no unit"),
            ("lognormal:2m:x", "no spread"),
            ("lognormal:2m:NaN", "no spread"),
            ("easy:1", "no model"),
            ("fifo", "no model"),
            ("", "no model"),
        ] {
            let error = text.parse::<Choice>().unwrap_err();
            assert!(error.to_string().contains(words), "{text}: {error}");
        }
    }
}
