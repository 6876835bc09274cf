//! Why a job waits: HTCondor's words in plain English. Pure. Words of `condor_q -better-analyze`, of
//! `LastRejMatchReason` (`matchmaker.cpp`) and of holds.

use crate::backends::reasons::Meaning;

/// A row: text in the reason, meaning, fix, never.
type Row = (&'static str, &'static str, Option<&'static str>, bool);

const SMALLER: Option<&str> =
    Some("ask for less per job: `condor_status -af Name Cpus Memory Gpus` shows what is free");

/// First match wins: what says most comes first.
const ROWS: &[Row] = &[
    ("held:", "somebody holds it", Some("`condor_release ID` lets it go"), true),
    ("being removed", "it is removed, and its machine does not say yet that it is gone", None, false),
    (
        "FileSystemDomain",
        "no machine says that it shares a file system with this host (FILESYSTEM_DOMAIN)",
        Some(
            "if the machines do see the cluster's folder: --directive 'requirements = TARGET.FileSystemDomain =!= undefined'",
        ),
        true,
    ),
    ("RequestCpus", "no machine has as many free cores as it asks for", SMALLER, false),
    ("RequestMemory", "no machine has as much free memory as it asks for", SMALLER, false),
    ("RequestGPUs", "no machine has as many free GPUs as it asks for", SMALLER, false),
    ("RequestDisk", "no machine has as much free disk as it asks for", SMALLER, false),
    (
        "rejected by your job's requirements",
        "no machine fulfils all that it wants",
        Some("`condor_q -better-analyze ID` counts the machines; correct --constraint, --nodelist or the directives"),
        false,
    ),
    (
        "no machine fulfils",
        "no machine is as it wants it",
        Some("`condor_q -better-analyze ID` counts the machines; correct --constraint, --nodelist or the directives"),
        false,
    ),
    (
        "because of their own requirements",
        "machines refuse it by their own policy (START)",
        Some("`condor_q -better-analyze ID` counts them; ask the administrators"),
        false,
    ),
    ("serving other users", "the machines that it could have are in use", None, false),
    ("are already running your jobs", "the machines that it could have run your own jobs", None, false),
    ("limit", "a limit of the pool is in use", Some("jobs start when others of yours end"), false),
    ("priority", "others come first", Some("`condor_userprio` shows the priorities"), false),
    ("PREEMPTION_REQUIREMENTS", "the machines that it could have are in use", None, false),
    ("no match found", "no free machine is as it wants it", Some("`condor_q -better-analyze ID` says why"), false),
    ("able to run your job", "a machine is free for it; it is tried in the next cycle", None, false),
    ("suspended", "it is suspended", None, false),
];

/// Returns what a reason means, as [`super::parse`] gives it.
pub fn meaning(reason: &str) -> Option<Meaning> {
    let (_, meaning, fix, never) = ROWS.iter().find(|(text, ..)| reason.contains(text))?;
    Some(Meaning { meaning, fix: *fix, never: *never })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seen_reasons_are_known() {
        for (reason, never) in [
            ("held: submitted on hold at user's request", true),
            ("held: via condor_hold (by user hpc)", true),
            ("no match found", false),
            ("no match found; no machine fulfils TARGET.Cpus >= RequestCpus", false),
            ("no match found; no machine fulfils TARGET.FileSystemDomain == MY.FileSystemDomain", true),
            ("no match found; 1 reject your job because of their own requirements", false),
            ("being removed", false),
        ] {
            let meaning = meaning(reason).unwrap_or_else(|| panic!("{reason}"));
            assert_eq!(meaning.never, never, "{reason}");
            assert!(!never || meaning.fix.is_some(), "{reason}");
        }
        assert_eq!(meaning(""), None);
        assert_eq!(meaning("stars are wrong"), None);
    }
}
