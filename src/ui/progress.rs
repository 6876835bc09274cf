//! Progress of `map` and `submit --wait` on standard error: a bar on a terminal, few lines
//! elsewhere, nothing with `--json` or `--quiet`.

use super::printer::{Printer, Verbosity};
use super::progress_lines::{Counts, Left, Lines, last_line, sentence};
use crate::config::paths::Variables;
use anstream::ColorChoice;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// `--progress`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// A bar on a terminal, lines elsewhere.
    #[default]
    Auto,
    /// A bar if it can be drawn.
    Bar,
    /// Lines.
    Line,
    /// Nothing.
    None,
}

/// Where we run, as far as progress minds; `src/config` reads it from the environment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Surroundings {
    /// Standard error is a terminal.
    pub terminal: bool,
    /// `CI` is set, `ACCESSIBLE=1` or `TERM=dumb`: lines are wanted even on a terminal.
    pub prefers_lines: bool,
    /// The locale is UTF-8.
    pub unicode: bool,
}

impl Surroundings {
    /// Reads them from the environment.
    pub fn of(variables: &Variables) -> Self {
        let set = |name: &str, to: &str| variables.get(name).is_some_and(|value| value == to);
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|name| variables.get(name));
        let locale = locale.map(|value| value.to_string_lossy().to_lowercase()).unwrap_or_default();
        Self {
            terminal: std::io::stderr().is_terminal(),
            prefers_lines: variables.get("CI").is_some() || set("ACCESSIBLE", "1") || set("TERM", "dumb"),
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }
}

/// What progress looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Face {
    /// A bar.
    Bar,
    /// Lines.
    Lines,
    /// Nothing.
    Hidden,
}

/// Decides what progress looks like.
pub fn face(printer: Printer, choice: Choice, around: Surroundings) -> Face {
    let verbose = printer.verbosity == Verbosity::Verbose;
    match choice {
        _ if printer.json || printer.verbosity == Verbosity::Quiet => Face::Hidden,
        Choice::None => Face::Hidden,
        Choice::Line => Face::Lines,
        _ if !around.terminal => Face::Lines,
        Choice::Bar => Face::Bar,
        // Log lines and a bar would overwrite each other.
        Choice::Auto if around.prefers_lines || verbose => Face::Lines,
        Choice::Auto => Face::Bar,
    }
}

/// Most drawings of the bar in a second.
const DRAWS_PER_SECOND: u8 = 10;
/// Shortest time between two texts of the bar: composing more often than drawing is waste.
const UPDATE_EVERY: Duration = Duration::from_millis(1000 / DRAWS_PER_SECOND as u64);

enum Drawing {
    Bar(ProgressBar),
    Lines(Lines),
    Hidden,
}

/// Progress that is being shown.
pub struct Progress {
    printer: Printer,
    started: Instant,
    updated: Option<Duration>,
    left: Left,
    drawing: Drawing,
}

impl Progress {
    /// Begins to show progress; `counts` are those of the start.
    pub fn start(printer: Printer, face: Face, unicode: bool, counts: Counts) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        let mut progress = Self {
            printer,
            started: Instant::now(),
            updated: None,
            left: Left::default(),
            drawing: match face {
                Face::Bar => Drawing::Bar(bar(target, unicode, printer.color, counts.total)),
                Face::Lines => Drawing::Lines(Lines::default()),
                Face::Hidden => Drawing::Hidden,
            },
        };
        progress.update(counts);
        progress
    }

    /// Shows new counts if it is time to.
    pub fn update(&mut self, counts: Counts) {
        let elapsed = self.started.elapsed();
        match &mut self.drawing {
            Drawing::Hidden => {}
            Drawing::Lines(lines) => {
                if let Some(line) = lines.due(elapsed, counts) {
                    self.printer.note(&line);
                }
            }
            Drawing::Bar(bar) => {
                let since = self.updated.map(|at| elapsed.saturating_sub(at));
                if since.is_none_or(|since| since >= UPDATE_EVERY) {
                    self.updated = Some(elapsed);
                    bar.set_length(counts.total);
                    bar.set_position(counts.ended);
                    bar.set_message(sentence(&mut self.left, elapsed, counts));
                }
            }
        }
    }

    /// Returns how long to wait at most before the next [`Self::update`], even if nothing ends.
    pub fn update_within(&self) -> Duration {
        match &self.drawing {
            Drawing::Lines(lines) => lines.next_in(self.started.elapsed()),
            Drawing::Bar(_) => Duration::from_secs(1),
            Drawing::Hidden => Duration::MAX,
        }
    }

    /// Prints something above the bar.
    pub fn note(&self, line: &str) {
        match &self.drawing {
            Drawing::Bar(bar) => bar.suspend(|| self.printer.note(line)),
            _ => self.printer.note(line),
        }
    }

    /// Ends: the bar gives way to one line that stays.
    pub fn finish(self, counts: Counts) {
        if let Drawing::Bar(bar) = &self.drawing {
            bar.finish_and_clear();
        }
        if !matches!(self.drawing, Drawing::Hidden) {
            self.printer.note(&last_line(self.started.elapsed(), counts));
        }
    }
}

fn bar(target: ProgressDrawTarget, unicode: bool, color: ColorChoice, total: u64) -> ProgressBar {
    let template = match color {
        ColorChoice::Never => "{bar:30} {msg}",
        _ => "{bar:30.cyan} {msg}",
    };
    let style = ProgressStyle::with_template(template)
        .expect("the templates above are constants and tested")
        .progress_chars(if unicode { "█▌░" } else { "#>-" });
    ProgressBar::with_draw_target(Some(total), target).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printer(verbosity: Verbosity, json: bool) -> Printer {
        Printer { json, verbosity, color: ColorChoice::Never }
    }

    #[test]
    fn faces() {
        let terminal = Surroundings { terminal: true, unicode: true, prefers_lines: false };
        let ci = Surroundings { prefers_lines: true, ..terminal };
        let pipe = Surroundings::default();
        let normal = printer(Verbosity::Normal, false);
        for (printer, choice, around, want) in [
            (normal, Choice::Auto, terminal, Face::Bar),
            (normal, Choice::Auto, ci, Face::Lines),
            (normal, Choice::Bar, ci, Face::Bar),
            (normal, Choice::Bar, pipe, Face::Lines),
            (normal, Choice::Auto, pipe, Face::Lines),
            (normal, Choice::Line, terminal, Face::Lines),
            (normal, Choice::None, terminal, Face::Hidden),
            (printer(Verbosity::Verbose, false), Choice::Auto, terminal, Face::Lines),
            (printer(Verbosity::Quiet, false), Choice::Line, terminal, Face::Hidden),
            (printer(Verbosity::Normal, true), Choice::Auto, terminal, Face::Hidden),
        ] {
            assert_eq!(face(printer, choice, around), want, "{choice:?} {around:?}");
        }
    }

    #[test]
    fn bar_draws_in_both_alphabets() {
        for (unicode, color) in [(true, ColorChoice::Auto), (false, ColorChoice::Never)] {
            let bar = bar(ProgressDrawTarget::hidden(), unicode, color, 10);
            bar.set_position(5);
            bar.set_message("50 % (5 of 10)");
            assert_eq!(bar.message(), "50 % (5 of 10)");
            bar.finish_and_clear();
        }
    }

    #[test]
    fn hidden_progress_asks_for_no_updates() {
        let printer = printer(Verbosity::Quiet, false);
        let progress = Progress::start(printer, Face::Hidden, true, Counts::default());
        assert_eq!(progress.update_within(), Duration::MAX);
        progress.finish(Counts::default());
    }
}
