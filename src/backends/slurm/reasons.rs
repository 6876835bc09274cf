//! Why a job waits: Slurm's pending reasons in plain English. Pure; for `status`, `explain` and the advice of
//! the ledger. Words from squeue(1), "JOB REASON CODES", and `slurm/slurm.h`, 22.05 to 24.11.

use crate::backends::reasons::Meaning;

/// A row: the beginning of Slurm's word, meaning, fix, never. The longest match wins.
type Row = (&'static str, &'static str, Option<&'static str>, bool);

const SHORTER: Option<&str> = Some("give a shorter --walltime or another --queue: `sinfo -o '%P %l'` shows the limits");
const SMALLER: Option<&str> = Some("ask for less per job: `sinfo -o '%P %c %m %G'` shows what a node has");
const FEWER: Option<&str> =
    Some("it starts when others of yours end; ask for fewer jobs or use another --qos or --account");
const RELEASE: Option<&str> = Some("`scontrol release <id>` lets it go");
const ADMIN: Option<&str> = Some("ask the administrators");

const ROWS: &[Row] = &[
    ("None", "Slurm has not looked at it yet", None, false),
    ("Priority", "other jobs are first", None, false),
    ("Resources", "it is next, and no node is free yet", None, false),
    ("BeginTime", "its start time has not come", None, false),
    ("Cleaning", "it runs again once its first run is cleaned up", None, false),
    ("Prolog", "the site's prolog runs on the node", None, false),
    ("JobArrayTaskLimit", "the array's own limit of running elements is reached", None, false),
    ("Licenses", "no licence is free", None, false),
    ("Reservation", "its reservation has not begun", None, false),
    ("Dependency", "it waits for another job", None, false),
    (
        "DependencyNeverSatisfied",
        "the job it waits for will never end as it must",
        Some("cancel it and correct the directives"),
        true,
    ),
    ("JobHeldUser", "somebody holds it", RELEASE, true),
    ("JobHeldAdmin", "an administrator holds it", ADMIN, true),
    ("JobHoldMaxRequeue", "it was requeued too often and is held", RELEASE, true),
    ("launch failed requeued held", "its start failed on the node and it is held", RELEASE, true),
    ("job requeued in held state", "it was requeued and is held", RELEASE, true),
    ("PartitionTimeLimit", "its walltime is over the partition's limit", SHORTER, true),
    ("PartitionNodeLimit", "it wants more nodes than the partition gives one job", SMALLER, true),
    ("PartitionConfig", "it wants more than the partition gives one job", SMALLER, true),
    ("PartitionDown", "the partition is down", Some("wait, or use another --queue: `sinfo -s` lists them"), false),
    (
        "PartitionInactive",
        "the partition takes no jobs",
        Some("wait, or use another --queue: `sinfo -s` lists them"),
        false,
    ),
    ("BadConstraints", "no node can ever fulfil it", SMALLER, true),
    ("AccountNotAllowed", "its account may not use this partition", Some("give another --account or --queue"), true),
    ("QOSNotAllowed", "its QOS may not be used in this partition", Some("give another --qos or --queue"), true),
    ("InvalidAccount", "its account is not valid", Some("give another --account"), true),
    ("InvalidQOS", "its QOS is not valid", Some("give another --qos"), true),
    (
        "ReqNodeNotAvail",
        "a node it could use is down, drained or reserved",
        Some("`sinfo -R` says why; drop --nodelist, or give a walltime that ends before a reserved time"),
        false,
    ),
    ("NodeDown", "a node it needs is down", Some("`sinfo -R` says why"), false),
    ("FrontEndDown", "no front end node is up", ADMIN, false),
    ("BurstBuffer", "its burst buffer is being prepared", None, false),
    ("FedJobLock", "another cluster of the federation decides on it", None, false),
    ("MaxMemPerLimit", "it wants more memory per core or node than is allowed", SMALLER, true),
    ("DeadLine", "it cannot end before its deadline", SHORTER, true),
    ("QOSJobLimit", "your limit of running jobs in this QOS is reached", FEWER, false),
    ("QOSResourceLimit", "your share of resources in this QOS is in use", FEWER, false),
    ("QOSTimeLimit", "your share of time in this QOS is used up", FEWER, false),
    ("QOSUsageThreshold", "usage is over the QOS's threshold", FEWER, false),
    ("QOSMaxJobsPer", "your limit of running jobs in this QOS is reached", FEWER, false),
    ("QOSMaxSubmitJobPer", "your limit of submitted jobs in this QOS is reached", FEWER, false),
    ("QOSMax", "your share of resources in this QOS is in use", FEWER, false),
    ("QOSMin", "it wants less than the QOS's minimum", Some("ask for more, or give another --qos"), true),
    ("QOSGrp", "the QOS's share of resources is in use", FEWER, false),
    ("AssociationJobLimit", "your account's limit of running jobs is reached", FEWER, false),
    ("AssociationResourceLimit", "your account's share of resources is in use", FEWER, false),
    ("AssociationTimeLimit", "your account's time is used up", FEWER, false),
    ("AssocGrp", "your account's share of resources is in use", FEWER, false),
    ("AssocMaxJobsLimit", "your account's limit of running jobs is reached", FEWER, false),
    ("AssocMax", "your account's share of resources is in use", FEWER, false),
    ("SystemFailure", "Slurm or a node failed", ADMIN, true),
];

/// Returns what a pending reason means; `None` for a word this version does not know.
///
/// A state may stand before it (`PENDING Priority`). Slurm adds to some of its words
/// (`ReqNodeNotAvail, UnavailableNodes:n05`), so the beginning decides.
pub fn meaning(reason: &str) -> Option<Meaning> {
    let reason = reason.strip_prefix("PENDING ").unwrap_or(reason).trim_matches(['(', ')']);
    let word = reason.split([',', ':']).next().unwrap_or_default();
    let (_, meaning, fix, never) = match word {
        // One job alone is over the limit: it is not a matter of waiting.
        _ if word.contains("PerJob") || word.contains("MaxWallDuration") => {
            &("", "it alone is over a limit of its QOS or account", SMALLER, true)
        }
        _ => {
            let fitting = ROWS.iter().filter(|(begin, ..)| word.starts_with(begin));
            fitting.max_by_key(|(begin, ..)| begin.len())?
        }
    };
    Some(Meaning { meaning, fix: *fix, never: *never })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seen_reasons_are_known() {
        for (reason, never) in [
            ("None", false),
            ("Priority", false),
            ("Resources", false),
            ("Dependency", false),
            ("DependencyNeverSatisfied", true),
            ("JobHeldUser", true),
            ("JobArrayTaskLimit", false),
            ("BeginTime", false),
            ("PartitionTimeLimit", true),
            ("PartitionNodeLimit", true),
            ("PartitionConfig", true),
            ("QOSMaxJobsPerUserLimit", false),
            ("ReqNodeNotAvail", false),
            ("ReqNodeNotAvail, UnavailableNodes:n05", false),
            ("(Resources)", false),
            ("AssocGrpCPUMinutesLimit", false),
            ("AssocGrpCpuLimit", false),
            ("QOSMaxWallDurationPerJobLimit", true),
            ("AssocMaxWallDurationPerJobLimit", true),
            ("QOSMaxCpuPerUserLimit", false),
            ("QOSMinGRES", true),
            ("QOSMaxMemoryPerJob", true),
            ("JobHeldAdmin", true),
            ("launch failed requeued held", true),
            ("BadConstraints", true),
        ] {
            let meaning = meaning(reason).unwrap_or_else(|| panic!("{reason}"));
            assert_eq!(meaning.never, never, "{reason}");
            assert!(!never || meaning.fix.is_some(), "{reason}");
        }
        assert_eq!(meaning("Astrology"), None);
        assert_eq!(meaning(""), None);
    }
}
