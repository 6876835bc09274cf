//! The one shape every failure is reported in: what, what the other tool says, where, why, fix.
//!
//! Made at the edge (`cli`) from the errors of the modules; [`crate::ui::printer::Printer::error`]
//! shows it and `main` exits with its code.

use crate::ui::words::escape;
use serde::Serialize;

/// What kind of failure it is; the number is the exit code (`docs/exit-codes.md`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nobody reads standard output any more (`… | head`): ends quietly, not an error.
    OutputClosed = 0,
    /// The work failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Cluster or backend cannot be reached.
    Unreachable = 69,
    /// A bug of ours.
    Internal = 70,
    /// May work later.
    TryAgain = 75,
    /// The configuration is wrong.
    Config = 78,
    /// Took too long.
    TimeOut = 124,
    /// Ctrl-C.
    Interrupted = 130,
}

/// One failure, as the user is told of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// Kind, and with it the exit code.
    pub kind: Kind,
    /// What went wrong, lower case, one sentence without its full stop.
    pub what: String,
    /// What was done and not done: `nothing was started`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<Box<str>>,
    /// Another tool's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub says: Option<Box<str>>,
    /// File and line, flag, host.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub location: Option<Box<str>>,
    /// The reason in our words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Box<str>>,
    /// Commands or changes that help, the best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fixes: Vec<String>,
}

/// Columns and lines a rendered problem may take.
const COLUMNS: usize = 80;
const LINES: usize = 8;
/// Columns before the text of a labelled line.
const INDENT: usize = 9;

impl Problem {
    /// Makes a problem that says only what went wrong.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), done: None, says: None, location: None, why: None, fixes: Vec::new() }
    }

    /// Adds what was done and not done.
    #[must_use]
    pub fn done(mut self, done: impl Into<String>) -> Self {
        self.done = Some(done.into().into());
        self
    }

    /// Adds another tool's words.
    #[must_use]
    pub fn says(mut self, says: impl Into<String>) -> Self {
        self.says = Some(says.into().into());
        self
    }

    /// Adds where it is.
    #[must_use]
    pub fn location(mut self, location: impl Into<String>) -> Self {
        self.location = Some(location.into().into());
        self
    }

    /// Adds the reason.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into().into());
        self
    }

    /// Adds something that helps; may be called again.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fixes.push(fix.into());
        self
    }

    /// Adds something that helps in some cases only.
    #[must_use]
    pub fn fix_if(self, so: bool, fix: &str) -> Self {
        if so { self.fix(fix) } else { self }
    }

    /// Returns the exit code of the process.
    pub fn exit_code(&self) -> u8 {
        self.kind as u8
    }

    /// Returns the block for people: at most 8 lines, prose within 80 columns; places and
    /// commands are never broken, so that they can be copied.
    pub fn render(&self) -> String {
        let mut head = format!("error: {}", escape(&self.what));
        if let Some(done) = &self.done {
            head.push_str("; ");
            head.push_str(&escape(done));
        }
        let mut lines = limited(wrap(&head, COLUMNS), 2);
        let block = |label: &str, text: Vec<String>| {
            let labels = std::iter::once(label).chain(std::iter::repeat(""));
            let line = |(label, text): (&str, String)| format!("  {label:<5}  {text}");
            labels.zip(text).map(line).collect::<Vec<_>>()
        };
        // Long words of others give way first, then all but the best fixes.
        let prose = |text: &Option<Box<str>>, most| {
            let text = text.as_deref().unwrap_or("");
            let text: Vec<_> = text.lines().map(|l| escape(l.trim())).collect();
            limited(wrap(&text.join(" "), COLUMNS - INDENT), most)
        };
        let location = self.location.as_deref().map(escape);
        lines.extend(block("says", prose(&self.says, 2)));
        lines.extend(block("where", location.into_iter().collect()));
        let fixes: Vec<_> = self.fixes.iter().map(|fix| escape(fix)).collect();
        let room = LINES - lines.len() - usize::from(!fixes.is_empty());
        lines.extend(block("why", prose(&self.why, room.min(2))));
        let room = LINES - lines.len();
        lines.extend(block("fix", fixes.into_iter().take(room).collect()));
        lines.join("\n")
    }

    /// Returns the one line for programs: `{"error":{…}}`.
    pub fn to_json(&self) -> String {
        let mut error = serde_json::json!({ "exit_code": self.exit_code() });
        if let (Some(error), Ok(serde_json::Value::Object(fields))) =
            (error.as_object_mut(), serde_json::to_value(self))
        {
            error.extend(fields);
        }
        serde_json::json!({ "error": error }).to_string()
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Problem {}

/// Breaks text at spaces; a longer word stays whole.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Keeps the first lines and marks that there were more.
fn limited(mut lines: Vec<String>, most: usize) -> Vec<String> {
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            last.push('…');
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_shape_of_the_design() {
        let problem = Problem::new(Kind::Config, "Slurm refused the job")
            .done("nothing was started")
            .says("Invalid account or account/partition combination specified")
            .location("jobs/dc-default-1.sh:4  #SBATCH --account=climat  (from --account)")
            .why("You have no account \"climat\". Yours: climate, ocean.")
            .fix("dcluster up --account climate …");
        let want = "\
error: Slurm refused the job; nothing was started
  says   Invalid account or account/partition combination specified
  where  jobs/dc-default-1.sh:4  #SBATCH --account=climat  (from --account)
  why    You have no account \"climat\". Yours: climate, ocean.
  fix    dcluster up --account climate …";
        assert_eq!(problem.render(), want);
        assert_eq!(problem.exit_code(), 78);
    }

    #[test]
    fn stays_within_eight_lines_and_eighty_columns() {
        let long = "word ".repeat(100) + "\x1b[31m\n";
        let mut problem = Problem::new(Kind::Failed, long.clone()).says(long.clone()).location("here").why(long);
        for i in 0..20 {
            problem = problem.fix(format!("fix {i}"));
        }
        let text = problem.render();
        assert_eq!(text.lines().count(), 8, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 81), "{text}");
        assert!(text.contains("fix 0") && !text.contains('\x1b'), "{text}");
        let bare = Problem::new(Kind::Usage, "no such file").render();
        assert_eq!(bare, "error: no such file");
    }

    #[test]
    fn json_is_one_line() {
        let problem = Problem::new(Kind::TryAgain, "busy").location("n\n1").fix("wait");
        let want = r#"{"error":{"exit_code":75,"kind":"try_again","what":"busy","where":"n\n1","fixes":["wait"]}}"#;
        assert_eq!(problem.to_json(), want);
    }
}
