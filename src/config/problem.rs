//! The one error type of configuration: what is wrong, where it was said, why it is wrong and what
//! to do. The reporter prints its parts as `what / where / why / fix`.

use serde::Serialize;
use std::fmt;
use std::path::Path;

/// Longest piece of a user's value that an error repeats, in characters.
const QUOTED_CHARS: usize = 60;

/// What is wrong with the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, thiserror::Error)]
pub struct ConfigError {
    /// What is wrong, one line: `unknown key "queu"`.
    pub what: String,
    /// Where it was said: `/home/ann/dcluster.toml:3, key "queu"`, `DCLUSTER_CORES`, `--cores`.
    pub location: Option<String>,
    /// Why it is wrong.
    pub why: Option<String>,
    /// What to do, one actionable line.
    pub fix: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(location) = &self.location {
            write!(f, " ({location})")?;
        }
        if let Some(why) = &self.why {
            write!(f, ": {why}")?;
        }
        Ok(())
    }
}

impl ConfigError {
    /// Returns an error that so far only says what is wrong.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), location: None, why: None, fix: None }
    }

    /// Adds where it was said.
    #[must_use]
    pub fn at(mut self, location: impl fmt::Display) -> Self {
        self.location = Some(location.to_string());
        self
    }

    /// Adds why it is wrong.
    #[must_use]
    pub fn because(mut self, why: impl fmt::Display) -> Self {
        self.why = Some(why.to_string());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn fix(mut self, fix: impl fmt::Display) -> Self {
        self.fix = Some(fix.to_string());
        self
    }
}

/// Returns a user's text in quotes: control characters escaped, cut when long.
pub fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTED_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// Returns a path as people read it: control characters escaped, no quotes.
pub fn shown_path(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text.into_owned() }
}

/// Returns the candidate nearest to `text`, when it is near enough to be what was meant.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may differ, three at most: `queu` finds `queue`, `foo` finds nothing.
    let allowed = (text.chars().count().max(3) / 3).min(3);
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::osa_distance(text, candidate);
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hostile_text() {
        assert_eq!(quoted("a\u{1b}[2J\n"), r#""a\u{1b}[2J\n""#);
        assert!(quoted(&"é".repeat(500)).chars().count() <= QUOTED_CHARS + 3);
        assert_eq!(shown_path(Path::new("/a b/c")), "/a b/c");
        assert_eq!(shown_path(Path::new("/a\nb")), "/a\\nb");
    }

    #[test]
    fn finds_what_was_meant() {
        let keys = ["queue", "cores", "walltime", "name"];
        assert_eq!(nearest("queu", keys), Some("queue"));
        assert_eq!(nearest("croes", keys), Some("cores"));
        assert_eq!(nearest("waltime", keys), Some("walltime"));
        assert_eq!(nearest("frobnicate", keys), None);
        assert_eq!(nearest("x", keys), None);
    }

    #[test]
    fn reads_as_one_line() {
        let error =
            ConfigError::new("unknown key \"queu\"").at("a.toml:1").because("there is no such key").fix("write queue");
        assert_eq!(error.to_string(), "unknown key \"queu\" (a.toml:1): there is no such key");
    }
}
