//! Why a job waits, in plain English. Pure. A job's `comment` is its reason; the texts are those of the scheduler of
//! OpenPBS 23.06 (`job_info.cpp`), after `Not Running: ` or `Can Never Run: `.

use crate::backends::reasons::Meaning;

/// A row: text that the comment contains, meaning, fix, whether it never starts as it is.
type Row = (&'static str, &'static str, Option<&'static str>, bool);

const SMALLER: Option<&str> = Some("ask for less per job: `pbsnodes -av` shows what a node has");
const FEWER: Option<&str> =
    Some("it starts when others of yours end; ask for fewer jobs or use another --queue or --account");
const QUEUE: Option<&str> = Some("wait, or use another --queue: `qstat -Q` lists them");
const ADMIN: Option<&str> = Some("ask the administrators");

/// The first match counts.
const ROWS: &[Row] = &[
    ("too many failed attempts", "PBS tried to start it too often in vain, and holds it", ADMIN, true),
    ("held: ", "somebody holds it", Some("`qrls <id>` lets it go"), true),
    ("ob held", "somebody holds it", Some("`qrls <id>` lets it go"), true),
    ("waits for its start time", "its start time has not come", None, false),
    ("Queue not started", "the queue starts no jobs", QUEUE, false),
    ("Queue not an execution queue", "the queue only passes jobs on", QUEUE, false),
    ("subjobs limit reached", "the array's own limit of running elements is reached", None, false),
    ("job limit", "a limit of running jobs is reached", FEWER, false),
    ("running limit", "a limit of running jobs is reached", FEWER, false),
    ("limit reached on resource", "a limit on resources in use is reached", FEWER, false),
    ("would exceed", "a limit on resources in use is reached", FEWER, false),
    ("run limit", "the nodes' limit of running jobs is reached", None, false),
    ("top job", "a job before it gets the nodes first", None, false),
    ("strict sorted order", "other jobs are first", None, false),
    ("edicated time", "a time set aside by the site is near", Some("give a --walltime that ends before it"), false),
    ("reservation", "a reservation is near", Some("give a --walltime that ends before it begins"), false),
    ("primetime", "it may run at certain times of the day only", None, false),
    ("will cross into", "it would run into a time of the day at which it may not run", None, false),
    ("zero shares", "your share of the machine is zero", ADMIN, true),
    ("does not exist", "it asks for something that the site does not have", SMALLER, true),
    ("Not enough total nodes", "no node can ever fulfil it", SMALLER, true),
    ("Insufficient amount of", "not enough of a resource is free", None, false),
    ("Not enough", "no fitting node is free yet", None, false),
    ("No available resources", "no fitting node is free yet", None, false),
    ("too few free resources", "no fitting node is free yet", None, false),
    ("oo few free resources", "no fitting node is free yet", None, false),
    ("Nodes not available", "no fitting node is free yet", None, false),
    (
        "ineligible",
        "the nodes it could use are not in use for jobs now",
        Some("`pbsnodes -l` says which and why"),
        false,
    ),
    ("license", "PBS has no licence for it now", ADMIN, false),
    ("Execution server rejected request", "a node refused to start it", ADMIN, false),
    ("PBS Error", "PBS could not start it", ADMIN, false),
    ("scheduling error", "PBS's scheduler has a problem with it", ADMIN, false),
];

/// Returns what a pending reason means; `None` for one this version does not know.
pub fn meaning(reason: &str) -> Option<Meaning> {
    let never = reason.contains("Can Never Run");
    let row = ROWS.iter().find(|(text, ..)| reason.contains(text));
    match (row, never) {
        (Some((_, meaning, fix, always)), false) => Some(Meaning { meaning, fix: *fix, never: *always }),
        (row, true) => {
            let fix = row.and_then(|(_, _, fix, _)| *fix).or(SMALLER);
            Some(Meaning { meaning: "no node can ever fulfil it", fix, never: true })
        }
        (None, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_is_told_in_plain_english() {
        for (reason, never) in [
            ("Can Never Run: Insufficient amount of resource: ncpus (R: 64 A: 16 T: 16)", true),
            ("Can Never Run: Not enough total nodes available", true),
            ("Not Running: Insufficient amount of resource: ncpus (R: 2 A: 0 T: 16)", false),
            ("Not Running: Queue not started.", false),
            ("Not Running: User has reached queue workq running job limit.", false),
            ("Not Running: Server per-user limit reached on resource ncpus", false),
            ("Not Running: would exceed user me's limit on resource ncpus in queue workq", false),
            ("Not Running: Job would conflict with reservation or top job", false),
            ("Not Running: Node is in an ineligible state: offline", false),
            ("Not Running: Not enough free nodes available", false),
            ("Not Running: Number of concurrent running subjobs limit reached", false),
            ("Not Running: PBS Error: Execution server rejected request", false),
            ("Job held by hpcuser on Mon Nov 23 14:55:21 2026", true),
            ("held: Hold_Types = s", true),
            ("job held, too many failed attempts to run", true),
        ] {
            let meaning = meaning(reason).unwrap_or_else(|| panic!("{reason}"));
            assert_eq!(meaning.never, never, "{reason}");
            assert!(!never || meaning.fix.is_some(), "{reason}");
        }
        assert_eq!(meaning("Astrology"), None);
        assert_eq!(meaning(""), None);
    }
}
