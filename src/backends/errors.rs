//! What the tables of errors have in common: each backend owns one (`BACKEND/errors.rs`), from what a foreign command
//! says to a class and to what a user can do.

use super::ErrorClass;
use super::batch::Verb;

/// A text that a command says, its class, and what to do about it.
pub type Row = (&'static str, ErrorClass, &'static str);

/// Returns the first row of a table whose text was said.
pub fn first(rows: &'static [Row], says: impl Fn(&str) -> bool) -> Option<&'static Row> {
    rows.iter().find(|(text, ..)| says(text))
}

/// Returns the class of an error of a command of this kind: only a submission leaves anything behind that must be
/// looked for.
pub fn class_of(class: ErrorClass, verb: Verb) -> ErrorClass {
    match class {
        ErrorClass::Ambiguous if verb != Verb::Submit => ErrorClass::Transient,
        class => class,
    }
}

/// Returns the captures of a file of errors: name, exit code and what was said.
#[cfg(test)]
pub(crate) fn captures(file: &str) -> impl Iterator<Item = (&str, i32, &str)> {
    file.strip_prefix("== ").unwrap_or_default().split("\n== ").map(|entry| {
        let (head, says) = entry.split_once('\n').unwrap_or((entry, ""));
        let (name, code) = head.split_once(' ').expect("a name and an exit code");
        (name, code.parse().expect("a number"), says)
    })
}

/// Returns the answer of which a capture says both streams, each line after `out: ` or `err: `.
#[cfg(test)]
pub(crate) fn answer(code: i32, text: &str) -> super::batch::Answer {
    let of =
        |mark: &str| text.lines().filter_map(|line| line.strip_prefix(mark)).map(|line| format!("{line}\n")).collect();
    super::batch::Answer { exit: super::batch::Exit::Code(code), stdout: of("out: "), stderr: of("err: ") }
}
