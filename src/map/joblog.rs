//! GNU parallel's `--joblog`: one line per ended element, which other tools already read. Pure.

use crate::runtime::protocol::Outcome;
use bstr::{BStr, BString};

/// First line of a job log.
pub const HEADER: &str = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";

/// One ended element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Sequence number, from 1.
    pub sequence: u64,
    /// Node it ran on.
    pub node: &'a str,
    /// Unix time of its start in milliseconds.
    pub start_milliseconds: u64,
    /// Wall time in milliseconds.
    pub wall_milliseconds: u64,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// What ran, as [`Rendered::display`](crate::template::Rendered::display) shows it.
    pub command: &'a BStr,
}

/// Exit code GNU parallel's readers take for "did not run", as a shell gives it.
const NOT_STARTED: i32 = 127;
/// Signal number recorded for what we killed.
const KILLED: i32 = 15;
/// The same for what used too much memory, as the system would do it.
const KILLED_HARD: i32 = 9;

impl Entry<'_> {
    /// Returns its line. As in GNU parallel a newline in the command is written as NUL.
    pub fn line(&self) -> BString {
        let (code, signal) = match self.outcome {
            Outcome::Finished => (0, 0),
            Outcome::Failed { code } => (*code, 0),
            Outcome::Signalled { signal } => (0, *signal),
            Outcome::NotStarted { .. } => (NOT_STARTED, 0),
            Outcome::TimeLimit | Outcome::Killed | Outcome::Interrupted => (0, KILLED),
            Outcome::MemoryLimit { .. } => (0, KILLED_HARD),
        };
        let node: String = self.node.chars().filter(|c| !c.is_control()).collect();
        let seconds = |milliseconds: u64| {
            let (whole, part) = (milliseconds / 1000, milliseconds % 1000);
            format!("{whole}.{part:03}")
        };
        let mut line = format!(
            "{}\t{}\t{}\t{:>10}\t0\t0\t{code}\t{signal}\t",
            self.sequence,
            node,
            seconds(self.start_milliseconds),
            seconds(self.wall_milliseconds),
        )
        .into_bytes();
        let newline_as_nul = |&byte: &u8| if byte == b'\n' { 0 } else { byte };
        line.extend(self.command.iter().map(newline_as_nul));
        line.push(b'\n');
        line.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_parallel() {
        let line = |outcome| {
            let entry = Entry {
                sequence: 2,
                node: "n1\n",
                start_milliseconds: 1_795_608_190_371,
                wall_milliseconds: 1_020,
                outcome: &outcome,
                command: "exit 3\nx\ty".into(),
            };
            entry.line().to_string()
        };
        let want = "2\tn1\t1795608190.371\t     1.020\t0\t0\t3\t0\texit 3\0x\ty\n";
        assert_eq!(line(Outcome::Failed { code: 3 }), want);
        assert!(line(Outcome::Signalled { signal: 9 }).contains("\t0\t9\t"));
        assert!(line(Outcome::TimeLimit).contains("\t0\t15\t"));
        let columns = |text: &str| text.matches('\t').count();
        assert_eq!(columns(HEADER) + 1, columns(want));
    }
}
