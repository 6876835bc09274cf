//! Owns standard output (data only) and standard error (everything else).

use crate::error::{Kind, Problem};
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use std::io::{ErrorKind, IsTerminal, Write};

/// How much is said on standard error.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// Errors, warnings and notes.
    #[default]
    Normal,
    /// Details, too; no progress bars, lines instead.
    Verbose,
}

/// Prints. Cheap to copy; holds no lock between two calls.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    /// Data is JSON, one value a line; errors are JSON; no notes, no progress.
    pub json: bool,
    /// How much is said.
    pub verbosity: Verbosity,
    /// Whether standard error is coloured.
    pub color: ColorChoice,
}

impl Printer {
    /// Prints one line of data. Bytes go out as they are: escape what is foreign and for people.
    pub fn data(self, line: impl AsRef<[u8]>) -> Result<(), Problem> {
        write_data(&mut std::io::stdout().lock(), line.as_ref())
    }

    /// Prints one JSON value as a line of data.
    pub fn data_json(self, value: &impl Serialize) -> Result<(), Problem> {
        let line =
            serde_json::to_vec(value).map_err(|e| Problem::new(Kind::Internal, format!("cannot write JSON: {e}")))?;
        self.data(line)
    }

    /// Tells something worth knowing; silent with `--quiet` and `--json`.
    pub fn note(self, line: &str) {
        if !self.json && self.verbosity >= Verbosity::Normal {
            self.to_stderr(line);
        }
    }

    /// Tells a detail, with `--verbose` only.
    pub fn detail(self, line: &str) {
        if !self.json && self.verbosity == Verbosity::Verbose {
            self.to_stderr(line);
        }
    }

    /// Reports a failure; says nothing when the reader of our output has left.
    pub fn error(self, problem: &Problem) {
        match (problem.kind, self.json) {
            (Kind::OutputClosed, _) => {}
            (_, true) => self.to_stderr(&problem.to_json()),
            (_, false) => self.to_stderr(&coloured(&problem.render())),
        }
    }

    /// Returns whether standard error is a terminal.
    pub fn on_terminal(self) -> bool {
        std::io::stderr().is_terminal()
    }

    /// Returns how wide a table on standard output may be; `None` where a terminal folds lines.
    pub fn table_width(self) -> Option<u16> {
        (!std::io::stdout().is_terminal()).then_some(80)
    }

    fn to_stderr(self, line: &str) {
        let mut stderr = AutoStream::new(std::io::stderr().lock(), self.color);
        // There is nobody left to tell that standard error is gone.
        let _ = writeln!(stderr, "{line}");
    }
}

fn write_data(to: &mut dyn Write, line: &[u8]) -> Result<(), Problem> {
    let written = to.write_all(line).and_then(|()| to.write_all(b"\n")).and_then(|()| to.flush());
    written.map_err(|e| match e.kind() {
        ErrorKind::BrokenPipe => Problem::new(Kind::OutputClosed, "standard output is closed"),
        _ => Problem::new(Kind::Failed, "cannot write to standard output").says(e.to_string()),
    })
}

/// Colours the word `error` and the labels; adds nothing that is not in the plain text.
fn coloured(block: &str) -> String {
    let red = AnsiColor::Red.on_default().bold();
    let bold = Style::new().bold();
    let mut lines = Vec::new();
    for line in block.lines() {
        let label = line.get(..7).filter(|label| label.starts_with("  "));
        lines.push(match (line.strip_prefix("error:"), label) {
            (Some(rest), _) => format!("{red}error:{red:#}{rest}"),
            (None, Some(label)) => format!("{bold}{label}{bold:#}{}", &line[7..]),
            (None, None) => line.to_owned(),
        });
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed(ErrorKind);
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn closed_pipe_ends_quietly_and_a_full_disk_does_not() {
        let code = |kind| write_data(&mut Closed(kind), b"x").unwrap_err().exit_code();
        assert_eq!(code(ErrorKind::BrokenPipe), 0);
        assert_eq!(code(ErrorKind::StorageFull), 1);
        let mut out = Vec::new();
        write_data(&mut out, b"a\xff").unwrap();
        assert_eq!(out, b"a\xff\n");
    }

    #[test]
    fn colour_carries_nothing() {
        let plain = Problem::new(Kind::Usage, "no").why("é ".repeat(60)).render();
        let coloured = coloured(&plain);
        assert_ne!(coloured, plain);
        let stripped = anstream::adapter::strip_str(&coloured).to_string();
        assert_eq!(stripped, plain);
    }
}
