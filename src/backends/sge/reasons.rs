//! Why a job waits: the words of Grid Engine's scheduler in plain English. Pure. Words from `msg_schedd.h` and
//! `sge_schedd_text.c` of Son of Grid Engine 8.1.9, which `qstat -j` prints, and from the letters of a state.

use crate::backends::reasons::Meaning;

/// A row: text in the reason, meaning, fix, never.
type Row = (&'static str, &'static str, Option<&'static str>, bool);

const SMALLER: Option<&str> = Some("ask for less per job: `qhost -F slots,h_vmem` shows what the hosts have");
const ADMIN: Option<&str> = Some("ask the administrators");
const OTHER: Option<&str> = Some("give another --queue or --account, or ask the administrators");

/// First match wins: what says most comes first.
const ROWS: &[Row] = &[
    (
        "chdir to",
        "its host does not see the cluster's folder",
        Some("set DCLUSTER_STATE to a folder that all hosts see, such as one in your home"),
        true,
    ),
    (
        "opening input/output file",
        "its host cannot write the job's log",
        Some("set DCLUSTER_STATE to a folder that all hosts see, such as one in your home"),
        true,
    ),
    ("can't get password entry", "its host does not know you", ADMIN, true),
    (
        "Job is in error state",
        "its start failed and Grid Engine holds it in error",
        Some("`qstat -j ID` says why"),
        true,
    ),
    (
        "exceeds limit",
        "a quota of the site is in use",
        Some("`qquota` shows it; jobs start when others of yours end"),
        false,
    ),
    ("has no permission", "you may not use a queue, host or project that it wants", OTHER, true),
    ("does not have permission", "you may not use a queue, host or project that it wants", OTHER, true),
    ("not in access list", "you may not use a queue, host or project that it wants", OTHER, true),
    ("max_aj_instances", "the site's limit of running elements of one array is reached", None, false),
    ("maximum number of", "the site's limit of running jobs of one user is reached", None, false),
    ("offers 0 slots", "no host has as many free slots as it has cores", SMALLER, false),
    ("only offers", "no host has as many free slots as it has cores", SMALLER, false),
    ("offers only", "no host has enough of a resource free", SMALLER, false),
    ("because of cluster queue", "it wants more than a queue's limits allow", SMALLER, false),
    ("because it is full", "all slots are in use", None, false),
    ("overloaded", "the hosts are overloaded", None, false),
    ("temporarily not available", "a queue's host does not answer", Some("`qstat -f` shows which"), false),
    (
        "because it is disabled",
        "a queue is disabled",
        Some("wait, or use another --queue: `qstat -g c` lists them"),
        false,
    ),
    (
        "because it is suspended",
        "a queue is suspended",
        Some("wait, or use another --queue: `qstat -g c` lists them"),
        false,
    ),
    ("cannot run until clean up", "it runs again once its first run is cleaned up", None, false),
    (
        "resource reservation",
        "its time would run into a reserved one",
        Some("a shorter --walltime may start sooner"),
        false,
    ),
    ("dependencies", "it waits for another job", None, false),
    ("Job is in hold state", "somebody holds it", Some("`qrls ID` lets it go"), true),
];

/// Returns what a reason means, as [`super::parse`] gives it: the letters of the state, then words.
pub fn meaning(reason: &str) -> Option<Meaning> {
    let (letters, words) = reason.split_once(' ').unwrap_or((reason, ""));
    let row = ROWS.iter().find(|(text, ..)| words.contains(text));
    let (_, meaning, fix, never) = match letters {
        _ if row.is_some() => row?,
        _ if super::parse::is_error(reason) => {
            &("", "its start failed and Grid Engine holds it in error", Some("`qstat -j ID` says why"), true)
        }
        "dr" | "dt" | "dRr" => &(
            "",
            "it is being deleted, and its host does not say that it is gone",
            Some("`qstat -f` shows hosts that do not answer (u); ask the administrators"),
            false,
        ),
        "Rq" | "Rqw" | "hRwq" => &("", "Grid Engine took it back into the queue", None, false),
        "hqw" | "hRqw" => &("", "somebody holds it", Some("`qrls ID` lets it go"), true),
        "s" | "S" | "T" | "N" => &("", "it is suspended", ADMIN, false),
        _ => return None,
    };
    Some(Meaning { meaning, fix: *fix, never: *never })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seen_reasons_are_known() {
        for (reason, never) in [
            ("qw cannot run in PE \"smp\" because it only offers 0 slots", false),
            ("qw not all array tasks may be started due to 'max_aj_instances'", false),
            ("hqw Job is in hold state", true),
            ("hqw", true),
            ("Eqw can't chdir to /no/such: No such file or directory", true),
            ("Eqw Job is in error state", true),
            ("Eqw", true),
            ("qw queue instance \"all.q@vm\" dropped because it is full", false),
            ("qw (-l h_vmem=500G) cannot run at host \"vm\" because it offers only hc:h_vmem=62.535G", false),
            ("qw queue instance \"all.q@vm\" dropped because it is temporarily not available", false),
            ("qw cannot run because it exceeds limit \"hpc/////\" in rule \"maxujobs/1\"", false),
            ("dr", false),
            ("Rq", false),
            ("s", false),
        ] {
            let meaning = meaning(reason).unwrap_or_else(|| panic!("{reason}"));
            assert_eq!(meaning.never, never, "{reason}");
            assert!(!never || meaning.fix.is_some(), "{reason}");
        }
        for unknown in ["", "qw", "r", "qw stars are wrong"] {
            assert_eq!(meaning(unknown), None, "{unknown}");
        }
    }
}
