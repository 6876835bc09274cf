//! `dcluster doctor`: looks at everything that a cluster needs, one thing after the other, and says of each whether
//! it is well and what to do if not. Facts are gathered at the edge ([`host`], [`site`], [`probe`], [`visit`]);
//! what they mean is decided by pure functions in the same modules and in [`findings`].
//!
//! The probe is one short real job, submitted through the same [`crate::backends::Backend`] as any other, in a
//! cluster folder of its own that nobody else uses. Whatever happens, job and folder are gone in the end; what a
//! killed doctor left is found and ended by the next one.

pub mod findings;
pub mod greeting;
pub mod host;
pub mod probe;
pub mod save;
pub mod site;
pub mod visit;

use crate::error::Kind;
use serde::Serialize;

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is well.
    Ok,
    /// It works, and may surprise.
    Warn,
    /// It does not work.
    Fail,
}

impl Verdict {
    /// Returns the word people read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub says: String,
    /// What it consists of, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Kind of the failure, and so the exit code.
    #[serde(skip)]
    pub kind: Kind,
}

impl Check {
    /// Makes a check that came out well.
    pub fn ok(name: &'static str, says: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, says: says.into(), details: Vec::new(), fix: None, kind: Kind::OutputClosed }
    }
    /// Makes one that works and may surprise.
    pub fn warn(name: &'static str, says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, fix: Some(fix.into()), ..Self::ok(name, says) }
    }
    /// Makes one that does not work.
    pub fn fail(kind: Kind, name: &'static str, says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, kind, ..Self::warn(name, says, fix) }
    }
}

/// Returns the exit code: that of the first failure, 0 without one.
pub fn exit_code(checks: &[Check]) -> u8 {
    checks.iter().find(|check| check.verdict == Verdict::Fail).map_or(0, |check| check.kind as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_gives_the_code() {
        let (well, odd) = (Check::ok("a", "x"), Check::warn("b", "x", "do"));
        assert_eq!(exit_code(&[well.clone(), odd.clone()]), 0);
        let failed = Check::fail(Kind::Unreachable, "c", "x", "do");
        let config = Check::fail(Kind::Config, "d", "x", "do");
        assert_eq!(exit_code(&[well, odd, failed, config]), 69);
    }
}
