//! Why a job waits: LSF's pending reasons in plain English. Pure. Words of `bjobs -p`: OpenLava 2.2
//! (`lsb/reason.c`, captures), IBM 10.1 (its manual, "Pending reasons").

use crate::backends::reasons::Meaning;

/// A row: the beginning of LSF's sentence, meaning, fix, never. The longest match wins.
type Row = (&'static str, &'static str, Option<&'static str>, bool);

const SMALLER: Option<&str> = Some("ask for less per job: `lshosts` and `bhosts` show what a host has");
const SHORTER: Option<&str> = Some("give a shorter --walltime or another --queue: `bqueues -l` shows the windows");
const RESUME: Option<&str> = Some("`bresume <id>` lets it go");
const FEWER: Option<&str> = Some("it starts when others of yours end; ask for fewer jobs or use another --queue");
const ADMIN: Option<&str> = Some("ask the administrators");
const QUEUE: Option<&str> = Some("wait, or use another --queue: `bqueues` lists them");

const ROWS: &[Row] = &[
    ("New job is waiting for scheduling", "LSF has not looked at it yet", None, false),
    ("Waiting for re-scheduling", "LSF looks at it again soon", None, false),
    ("Waiting for scheduling after", "LSF looks at it again soon", None, false),
    ("Requeue", "it runs again after a first run", None, false),
    ("Job dependency condition not satisfied", "it waits for another job", None, false),
    (
        "Dependency condition invalid or never satisfied",
        "the job it waits for will never end as it must",
        Some("cancel it and correct the directives"),
        true,
    ),
    ("The job has a specified start time", "its start time has not come", None, false),
    ("The schedule of the job is postponed", "LSF looks at it again in a while", None, false),
    ("Job slot limit reached", "all slots of the hosts are in use", None, false),
    ("Job's resource requirements not satisfied", "no host fulfils it now", SMALLER, false),
    ("Job requirements for reserving resource", "no host has as much free as it asks for", SMALLER, false),
    ("Not enough job slot", "too few slots are free on one host", None, false),
    ("Not enough slots or resources for whole duration of the job", "too few slots are free on one host", None, false),
    (
        "Not enough processors to meet the job's spanning requirement",
        "too few slots are free on one host",
        SMALLER,
        false,
    ),
    ("Not enough hosts to meet the job's spanning requirement", "too few slots are free on one host", SMALLER, false),
    ("Candidate host", "no host can be used now", None, false),
    ("Not specified in job submission", "only the hosts it names may run it", None, false),
    ("Load information unavailable", "the hosts say nothing of their load", ADMIN, false),
    ("Closed by LSF administrator", "its hosts are closed", ADMIN, false),
    ("Unable to reach slave", "its host does not answer", ADMIN, false),
    ("The user has reached his/her job slot limit", "your limit of running jobs is reached", FEWER, false),
    (
        "User has reached the per-user job slot limit",
        "your limit of running jobs in this queue is reached",
        FEWER,
        false,
    ),
    ("The user has not enough job slots", "your limit of running jobs is reached", FEWER, false),
    ("One of the user's groups has reached", "your group's limit of running jobs is reached", FEWER, false),
    ("One of user's groups has not enough", "your group's limit of running jobs is reached", FEWER, false),
    ("User has reached the pending job", "your limit of pending jobs is reached", FEWER, false),
    ("The queue has reached its job slot limit", "the queue's limit of running jobs is reached", QUEUE, false),
    ("The queue has not enough job slots", "the queue's limit of running jobs is reached", QUEUE, false),
    (
        "The job array has reached its running element limit",
        "the array's own limit of running elements is reached",
        None,
        false,
    ),
    ("The queue is inactivated by the administrator", "the queue is closed", QUEUE, false),
    ("The queue is inactivated by its time windows", "the queue runs jobs at other hours", QUEUE, false),
    (
        "Job will not finish before queue's run window is closed",
        "it cannot end before the queue's hours are over",
        SHORTER,
        false,
    ),
    (
        "Job no longer satisfies queue",
        "the queue no longer allows it",
        Some("give another --queue or fewer --cores"),
        true,
    ),
    ("The job was suspended by the user while pending", "somebody holds it", RESUME, true),
    ("The job was suspended by LSF admin or root while pending", "an administrator holds it", ADMIN, true),
    ("PSUSP", "somebody holds it", RESUME, true),
    ("System is unable to schedule the job", "LSF cannot schedule it", ADMIN, true),
    ("Unable to determine user account", "your account is not known on the hosts", ADMIN, true),
    ("The user has no permission to run the job", "you may not run jobs there", ADMIN, true),
    (
        "Unable to determine job's home/working directories",
        "your home or working folder is not on the hosts",
        ADMIN,
        true,
    ),
    ("Job execution initialization failed", "its start failed on the host", ADMIN, false),
    ("The job's pre-exec command exited", "the site's check before the start failed", ADMIN, false),
    ("The queue's pre-exec command exited", "the site's check before the start failed", ADMIN, false),
];

/// Returns what a pending reason means; `None` for a sentence this version does not know. Of several the one that
/// lasts for ever counts, else the first that is known.
pub fn meaning(reason: &str) -> Option<Meaning> {
    let known = |text: &str| {
        let fitting = ROWS.iter().filter(|(begin, ..)| text.starts_with(begin));
        let (_, meaning, fix, never) = fitting.max_by_key(|(begin, ..)| begin.len())?;
        Some(Meaning { meaning, fix: *fix, never: *never })
    };
    // The state's word may stand before the first sentence.
    let sentences = reason.split("; ").flat_map(|text| [Some(text), text.strip_prefix("PSUSP ")]).flatten();
    let mut all: Vec<Meaning> = sentences.filter_map(known).collect();
    all.sort_by_key(|meaning| !meaning.never);
    all.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seen_reasons_are_known() {
        for (reason, never) in [
            ("New job is waiting for scheduling", false),
            ("PSUSP The job was suspended by the user while pending", true),
            ("The queue is inactivated by its time windows", false),
            ("Job requirements for reserving resource (mem) not satisfied", false),
            ("Job's resource requirements not satisfied; Job slot limit reached", false),
            ("PSUSP", true),
            ("Closed by LSF administrator; Dependency condition invalid or never satisfied", true),
        ] {
            let meaning = meaning(reason).unwrap_or_else(|| panic!("{reason}"));
            assert_eq!(meaning.never, never, "{reason}");
            assert!(!never || meaning.fix.is_some(), "{reason}");
        }
        assert_eq!(meaning("Astrology"), None);
        assert_eq!(meaning(""), None);
    }
}
