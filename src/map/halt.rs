//! `--halt`: when a `map` stops before its last element, in GNU parallel's words. Pure.

use std::str::FromStr;

/// How to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Start nothing more, let what runs finish.
    Soon,
    /// Kill what runs, too.
    Now,
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Failed elements.
    Fail,
    /// Elements that finished with success.
    Success,
    /// Both.
    Done,
}

/// How many it takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Threshold {
    /// This many.
    Count(u64),
    /// This share of all elements, in percent, 1–100.
    Percent(u64),
}

/// A parsed `--halt`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Halt {
    /// Runs all elements whatever happens.
    #[default]
    Never,
    /// Stops at a threshold.
    At {
        /// How.
        when: When,
        /// What is counted.
        why: Why,
        /// How many.
        threshold: Threshold,
    },
}

/// What has become of the elements so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Finished with success.
    pub succeeded: u64,
    /// Failed for good.
    pub failed: u64,
}

/// What to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Go on.
    Continue,
    /// Start nothing more.
    Soon,
    /// Start nothing more and kill what runs.
    Now,
}

/// Text that is no `--halt`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is not never, now,fail=1, soon,fail=20%, now,success=1 or the like")]
pub struct HaltError(String);

impl FromStr for Halt {
    type Err = HaltError;

    fn from_str(text: &str) -> Result<Self, HaltError> {
        parse(text).ok_or_else(|| HaltError(text.escape_debug().to_string()))
    }
}

fn parse(text: &str) -> Option<Halt> {
    let at = |when, why, threshold| Halt::At { when, why, threshold };
    // Old forms of GNU parallel.
    match text {
        "never" | "0" => return Some(Halt::Never),
        "1" => return Some(at(When::Soon, Why::Fail, Threshold::Count(1))),
        "2" => return Some(at(When::Now, Why::Fail, Threshold::Count(1))),
        _ => {}
    }
    let (when, rest) = text.split_once(',')?;
    let (why, number) = rest.split_once('=')?;
    let when = match when {
        "now" => When::Now,
        "soon" => When::Soon,
        _ => return None,
    };
    let why = match why {
        "fail" => Why::Fail,
        "success" => Why::Success,
        "done" => Why::Done,
        _ => return None,
    };
    let (digits, percent) = match number.strip_suffix('%') {
        Some(digits) => (digits, true),
        None => (number, false),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let threshold = match (digits.parse().ok()?, percent) {
        (0, _) => return None,
        (number @ ..=100, true) => Threshold::Percent(number),
        (_, true) => return None,
        (number, false) => Threshold::Count(number),
    };
    Some(at(when, why, threshold))
}

impl Halt {
    /// Decides what to do; `total` is the number of elements.
    pub fn decide(self, counts: Counts, total: u64) -> Decision {
        let Self::At { when, why, threshold } = self else {
            return Decision::Continue;
        };
        let count = match why {
            Why::Fail => counts.failed,
            Why::Success => counts.succeeded,
            Why::Done => counts.failed.saturating_add(counts.succeeded),
        };
        let reached = match threshold {
            Threshold::Count(number) => count >= number,
            Threshold::Percent(percent) => u128::from(count) * 100 >= u128::from(percent) * u128::from(total.max(1)),
        };
        match (reached, when) {
            (false, _) => Decision::Continue,
            (true, When::Soon) => Decision::Soon,
            (true, When::Now) => Decision::Now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        assert_eq!("never".parse(), Ok(Halt::Never));
        let at = |when, why, threshold| Ok(Halt::At { when, why, threshold });
        for (text, halt) in [
            ("now,fail=1", at(When::Now, Why::Fail, Threshold::Count(1))),
            ("2", at(When::Now, Why::Fail, Threshold::Count(1))),
            ("soon,fail=20%", at(When::Soon, Why::Fail, Threshold::Percent(20))),
            ("now,success=1", at(When::Now, Why::Success, Threshold::Count(1))),
            ("soon,done=100%", at(When::Soon, Why::Done, Threshold::Percent(100))),
        ] {
            assert_eq!(text.parse(), halt, "{text}");
        }
        for text in [
            "",
            "now",
            "now,fail",
            "now,fail=0",
            "now,fail=101%",
            "now,fail=-1",
            "later,fail=1",
            "now,fail=+1",
            "now,fail=",
            "now,fail=%",
            "3",
            "now,fail=1.5",
        ] {
            assert!(text.parse::<Halt>().is_err(), "{text}");
        }
    }

    #[test]
    fn decisions() {
        for (text, succeeded, failed, want) in [
            ("never", 0, 10, Decision::Continue),
            ("now,fail=1", 9, 0, Decision::Continue),
            ("now,fail=1", 0, 1, Decision::Now),
            ("soon,fail=3", 0, 3, Decision::Soon),
            ("soon,fail=20%", 5, 1, Decision::Continue),
            ("soon,fail=20%", 0, 2, Decision::Soon),
            ("now,success=1", 1, 0, Decision::Now),
            ("now,done=5", 2, 2, Decision::Continue),
            ("now,done=5", 2, 3, Decision::Now),
        ] {
            let halt: Halt = text.parse().unwrap();
            let got = halt.decide(Counts { succeeded, failed }, 10);
            assert_eq!(got, want, "{text} {succeeded} {failed}");
        }
    }
}
