//! LSF's errors as classes. Pure. LSF fails with 255 (-1) or 254 whatever it is, and at some sites with 0, so the
//! text decides. Texts: OpenLava 2.2 (`lsb/err.c`, captures in `tests/fixtures/lsf/errors.txt`), IBM 10.1 (its
//! manual and `tests/fixtures/lsf/ibm.md`).

use crate::backends::ErrorClass;
use crate::backends::batch::{Answer, Exit, Verb};
use crate::backends::errors::{Row, class_of, first};

const WAIT: &str = "LSF's master does not answer; `lsid` shows when it is back";
const ENVIRONMENT: &str = "source LSF's profile.lsf, or set LSF_ENVDIR, in the shell that runs dcluster";
const LESS: &str = "ask for less: `bqueues -l` shows the limits of each queue";
const QUEUE: &str = "give another --queue: `bqueues -u $USER` lists those you may use";
const DIRECTIVE: &str = "correct the pool's directives; `dcluster render` shows the script";
const FEWER: &str = "the site's limit on jobs is reached; fewer jobs fit until some end";

/// First match wins. What was never sent stands before what may have been.
const ROWS: &[Row] = {
    use ErrorClass::{Ambiguous, Limit, Permanent, Transient};
    &[
        // Not sent at all.
        ("Connection refused by server", Transient, WAIT),
        ("Timeout on connect call to server", Transient, WAIT),
        ("Server is not connected", Transient, WAIT),
        ("Batch service not registered", Transient, WAIT),
        ("Unknown cluster name or cluster master", Transient, WAIT),
        ("LIM is down", Transient, WAIT),
        ("(LIM) not responding", Transient, WAIT),
        ("Cannot locate master LIM", Transient, WAIT),
        ("A socket operation has failed", Transient, WAIT),
        ("Fail to bind to an appropriate port number", Transient, WAIT),
        ("lsf.conf", Transient, ENVIRONMENT),
        ("LSF_CONFDIR", Transient, ENVIRONMENT),
        ("LSF_ENVDIR", Transient, ENVIRONMENT),
        // Perhaps sent, and the answer was lost. OpenLava says "Job not submitted" of these too (`cmd.sub.c`).
        ("Communication time", Ambiguous, WAIT),
        ("ailed in sending/receiving", Ambiguous, WAIT),
        ("Connection reset by peer", Ambiguous, WAIT),
        ("System call failed", Ambiguous, WAIT),
        ("XDR", Ambiguous, WAIT),
        ("Batch protocol error", Ambiguous, WAIT),
        ("Failed in an LSF library call", Ambiguous, WAIT),
        // Refused for now.
        ("batch daemon internal error", Transient, WAIT),
        ("Batch library internal error", Transient, WAIT),
        ("Batch daemon cannot fork", Transient, WAIT),
        ("Cannot allocate memory", Transient, WAIT),
        ("Operation is in progress", Transient, WAIT),
        ("Not enough host(s) currently eligible", Transient, "`bhosts` shows which hosts are up"),
        ("Request from non-LSF host rejected", Transient, "`lshosts` lists the hosts from which LSF takes jobs"),
        ("Queue has been closed", Transient, "the queue takes no jobs now; `bqueues` shows when it is open again"),
        // Limits of the site.
        ("reached its job limit", Limit, FEWER),
        ("does not have enough job slots", Limit, FEWER),
        ("enough per-user job slots", Limit, FEWER),
        ("ending job threshold reached", Limit, FEWER),
        ("pending job slot", Limit, FEWER),
        ("pending job limit", Limit, FEWER),
        ("job limit has been reached", Limit, FEWER),
        ("No job Id can be used now", Limit, FEWER),
        ("Job array index too large", Limit, "the site allows shorter arrays only (MAX_JOB_ARRAY_SIZE)"),
        // A shape that will never fit, whatever else is said.
        ("RUNLIMIT: Cannot exceed", Permanent, "give a shorter --walltime: `bqueues -l` shows each queue's RUNLIMIT"),
        ("MEMLIMIT: Cannot exceed", Permanent, "give less --memory: `bqueues -l` shows each queue's MEMLIMIT"),
        ("Cannot exceed queue's hard limit", Permanent, LESS),
        ("Cannot exceed queue's resource reservation", Permanent, LESS),
        ("RUNLIMIT must be", Permanent, LESS),
        (
            "Too many processors requested",
            Permanent,
            "ask for fewer --cores: `bqueues -l` and `bhosts` show what there is",
        ),
        ("Too few processors requested", Permanent, LESS),
        ("Too many tasks requested", Permanent, "ask for fewer --cores: `bqueues -l` and `bhosts` show what there is"),
        ("No such queue", Permanent, QUEUE),
        ("User cannot use the queue", Permanent, QUEUE),
        ("only accepts interactive jobs", Permanent, QUEUE),
        (
            "Bad resource requirement syntax",
            Permanent,
            "correct --constraint and the pool's -R directives: `lsinfo` lists the resources",
        ),
        // `n1: Bad host name, …` is of a host that was asked for; without it, of the master, whose name is not found.
        (
            ": Bad host name",
            Permanent,
            "correct --nodelist: `bhosts` lists the hosts; where it is right, the master's name has no address",
        ),
        ("Bad host name", Transient, "the name of LSF's master has no address now; `lsid` shows it"),
        ("Bad host specification", Permanent, "correct --nodelist: `bhosts` lists the hosts"),
        ("Request aborted by esub", Permanent, "the site's check of submissions refuses it, see its words"),
        ("User permission denied", Permanent, "that job belongs to somebody else, or this user may not submit"),
        ("Root job submission is disabled", Permanent, "run dcluster as an ordinary user"),
        ("specification. Job not submitted", Permanent, DIRECTIVE),
        ("Bad job name", Permanent, DIRECTIVE),
        ("MEMLIMT value", Permanent, DIRECTIVE),
        ("No command is specified", Permanent, DIRECTIVE),
        ("No matching job found. Job not submitted", Permanent, DIRECTIVE),
        ("illegal option", Permanent, DIRECTIVE),
        ("invalid option", Permanent, DIRECTIVE),
        ("Usage: bsub", Permanent, DIRECTIVE),
    ]
};

/// Returns the class of a failed command and what to do about it.
pub fn classify(verb: Verb, answer: &Answer) -> (ErrorClass, Option<String>) {
    let text = format!("{}\n{}", answer.stderr, answer.stdout);
    if let Some((_, class, fix)) = first(ROWS, |row| text.contains(row)) {
        return (class_of(*class, verb), Some((*fix).to_owned()));
    }
    // It waited for LSF, and says nothing that we know of what came of it.
    if text.lines().any(|line| chatter(line.trim())) {
        let class = if refused(answer) { ErrorClass::Transient } else { class_of(ErrorClass::Ambiguous, verb) };
        return (class, Some(WAIT.to_owned()));
    }
    let class = match verb {
        Verb::Submit if refused(answer) => ErrorClass::Permanent,
        // The command itself says no for ever to what is no command of it.
        Verb::Submit if answer.exit == Exit::Code(126) || answer.exit == Exit::Code(127) => ErrorClass::Permanent,
        Verb::Submit => ErrorClass::Ambiguous,
        _ => ErrorClass::Transient,
    };
    (class, None)
}

/// Returns whether `bsub` says that there is no job; at one site it then exits with 0 (`pbs_lsf.md` 2.1).
pub fn refused(answer: &Answer) -> bool {
    [&answer.stderr, &answer.stdout].iter().any(|text| text.contains("Job not submitted"))
}

/// Returns whether the site's `bjobs` does not know one of the options.
pub fn unknown_option(answer: &Answer) -> bool {
    let usage = |text: &str| {
        ["invalid option", "illegal option", "nrecognized option", "Usage: bjobs", "nknown field", "invalid field"]
            .iter()
            .any(|word| text.contains(word))
    };
    answer.exit != Exit::Code(0) && (usage(&answer.stderr) || usage(&answer.stdout))
}

/// Returns whether all that a query says is that there is no such job. `Job <99999> is not found` (255), `No
/// unfinished job found` (254), `No matching job found`; IBM's codes depend on LSB_BJOBS_CONSISTENT_EXIT_CODE. Words
/// of waiting may precede it.
pub fn nothing_found(answer: &Answer) -> bool {
    let lines = answer.stderr.lines().chain(answer.stdout.lines());
    let lines: Vec<&str> = lines.map(str::trim).filter(|line| !line.is_empty() && !chatter(line)).collect();
    matches!(answer.exit, Exit::Code(_)) && !lines.is_empty() && lines.iter().all(|line| is_absence(line))
}

/// Returns whether an answer of a command that failed is whole, for it failed of unknown ids alone. One that crashed
/// or fell silent may have listed a part. `closed`: the output shows its own end, and may itself say what is unknown.
pub fn whole(answer: &Answer, closed: bool) -> bool {
    let lines = answer.stderr.lines().map(str::trim).filter(|line| !line.is_empty() && !chatter(line));
    let (absent, others): (Vec<&str>, Vec<&str>) = lines.partition(|line| is_absence(line));
    matches!(answer.exit, Exit::Code(_)) && others.is_empty() && (closed || !absent.is_empty())
}

pub(super) fn is_absence(line: &str) -> bool {
    line.starts_with("Job <") && (line.ends_with("is not found") || line.ends_with("No matching job found"))
        || line.starts_with("No unfinished job found")
        || line.starts_with("No job found")
        || line.starts_with("No matching job")
}

pub(super) fn chatter(line: &str) -> bool {
    line.ends_with("Please wait ...") || line.ends_with("still trying")
}

#[cfg(test)]
mod tests {
    use super::super::kill::reply;
    use super::*;
    use crate::backends::errors::captures;

    fn answer(code: i32, stdout: &str, stderr: &str) -> Answer {
        Answer { exit: Exit::Code(code), stdout: stdout.to_owned(), stderr: stderr.to_owned() }
    }

    #[test]
    fn every_capture_has_its_class() {
        let mut lines = Vec::new();
        for (name, code, stderr) in captures(include_str!("../../../tests/fixtures/lsf/errors.txt")) {
            let verb = match name {
                n if n.contains("bkill") => Verb::Cancel,
                n if n.contains("bjobs") || n.contains("bqueues") || n.contains("ping") => Verb::List,
                _ => Verb::Submit,
            };
            let answer = answer(code, "", stderr);
            let (class, fix) = classify(verb, &answer);
            let word = match verb {
                Verb::List if unknown_option(&answer) => "another format".to_owned(),
                Verb::List if nothing_found(&answer) => "nothing found".to_owned(),
                Verb::Cancel if reply(&[], stderr).refused.is_none() => "gone".to_owned(),
                _ => format!("{class:?}{}", fix.map_or("", |_| ", fix")),
            };
            lines.push(format!("{name} ({verb:?} {code}): {word}"));
        }
        insta::assert_snapshot!(lines.join("\n"), @r###"
        bjobs_a_none (List 254): nothing found
        bjobs_array_badidx (List 255): nothing found
        bjobs_badid (List 255): Transient
        bjobs_h (List 255): another format
        bjobs_json (List 255): another format
        bjobs_l_pend (List 254): nothing found
        bjobs_many (List 255): nothing found
        bjobs_noheader (List 255): another format
        bjobs_none (List 254): nothing found
        bjobs_o (List 255): another format
        bjobs_other_default (List 254): nothing found
        bjobs_u_nosuch (List 254): nothing found
        bjobs_unknown (List 255): nothing found
        bkill_badid (Cancel 255): Transient
        bkill_denied (Cancel 255): Permanent, fix
        bkill_finished (Cancel 255): gone
        bkill_many (Cancel 255): gone
        bkill_unknown (Cancel 255): gone
        bqueues_unknown (List 255): Permanent, fix
        bsub_M_suffix (Submit 255): Permanent, fix
        bsub_M_too_big (Submit 255): Permanent, fix
        bsub_Ne (Submit 255): Permanent, fix
        bsub_R_suffix (Submit 255): Permanent, fix
        bsub_W_too_long (Submit 255): Permanent, fix
        bsub_affinity (Submit 255): Permanent, fix
        bsub_array_too_big (Submit 255): Limit, fix
        bsub_array_zero (Submit 255): Permanent, fix
        bsub_bad_R (Submit 255): Permanent, fix
        bsub_bad_R2 (Submit 255): Permanent, fix
        bsub_bad_W (Submit 255): Permanent, fix
        bsub_bad_directive (Submit 255): Permanent, fix
        bsub_bad_opt (Submit 255): Permanent, fix
        bsub_cwd (Submit 255): Permanent, fix
        bsub_dep (Submit 255): Permanent, fix
        bsub_empty (Submit 255): Permanent, fix
        bsub_gpu (Submit 255): Permanent, fix
        bsub_procs_more_than_host (Submit 255): Permanent, fix
        bsub_procs_too_many (Submit 255): Permanent, fix
        bsub_queue_denied (Submit 255): Permanent, fix
        bsub_queue_unknown (Submit 255): Permanent, fix
        bsub_root (Submit 255): Permanent, fix
        esub_refuse (Submit 255): Permanent, fix
        mbd_back (Submit 254): Ambiguous, fix
        mbd_down_ping (List 254): Transient, fix
        "###);
    }

    #[test]
    fn what_no_capture_shows() {
        use ErrorClass::*;
        for (verb, code, stdout, stderr, class) in [
            // IBM's words.
            (Verb::Submit, 255, "", "LSF is down. Please wait ...\n", Ambiguous),
            (
                Verb::Submit,
                255,
                "",
                "Cannot connect to LSF. Please wait ...\nConnection refused by server. Job not submitted.\n",
                Transient,
            ),
            (Verb::List, 255, "LSF is down. Please wait ...\n", "", Transient),
            (
                Verb::Submit,
                255,
                "",
                "Failed in an LSF library call: Communication time out. Job not submitted.",
                Ambiguous,
            ),
            (Verb::Submit, 255, "", "Failed in an LSF library call: Communication time out.", Ambiguous),
            (Verb::Submit, 255, "", "XDR encode/decode error. Job not submitted.", Ambiguous),
            (Verb::Submit, 255, "", "System call failed: Broken pipe. Job not submitted.", Ambiguous),
            (
                Verb::Submit,
                255,
                "",
                "Failed in an LSF library call: Failed in sending/receiving a message: Connection reset by peer. Job not submitted.",
                Ambiguous,
            ),
            // What was never sent.
            (
                Verb::Submit,
                255,
                "",
                "Failed in an LSF library call: A socket operation has failed: Too many open files. Job not submitted.",
                Transient,
            ),
            (
                Verb::Submit,
                255,
                "",
                "lsb_init: Failed in an LSF library call: Cannot locate master LIM now, try later. Job not submitted.",
                Transient,
            ),
            (Verb::Submit, 255, "", "Fail to bind to an appropriate port number. Job not submitted.", Transient),
            // What passes.
            (Verb::Submit, 255, "", "Request from non-LSF host rejected. Job not submitted.", Transient),
            (Verb::Submit, 255, "", "Batch library internal error. Job not submitted.", Transient),
            (Verb::Submit, 255, "", "Slave batch daemon internal error. Job not submitted.", Transient),
            (Verb::Submit, 255, "", "Not enough host(s) currently eligible. Job not submitted.", Transient),
            (Verb::Submit, 255, "", "Bad host name, host group name or cluster name. Job not submitted.", Transient),
            (
                Verb::Submit,
                255,
                "",
                "n1: Bad host name, host group name or cluster name. Job not submitted.",
                Permanent,
            ),
            // Waiting for LSF is no answer: what it says then counts.
            (Verb::Submit, 255, "", "LSF is down. Please wait ...\nx: No such queue. Job not submitted.", Permanent),
            (Verb::Submit, 255, "", "LSF is down. Please wait ...\nsomething. Job not submitted.", Transient),
            (Verb::Submit, 255, "", "Failed in an LSF library call: LIM is down; try later", Transient),
            (
                Verb::Submit,
                255,
                "",
                "User or one of user's groups does not have enough job slots. Job not submitted.",
                Limit,
            ),
            (Verb::Submit, 255, "", "Pending job threshold reached. Retrying in 60 seconds...", Limit),
            (Verb::Submit, 255, "", "Service class does not exist. Job not submitted.", Permanent),
            (
                Verb::Submit,
                0,
                "",
                "RUNLIMIT must be greater than 3600 seconds.\nRequest aborted by esub. Job not submitted.",
                Permanent,
            ),
            // A wrapper's.
            (Verb::Submit, 1, "", "wrapper: something", Ambiguous),
            (Verb::Submit, 255, "", "", Ambiguous),
            (Verb::Cancel, 255, "", "Job <266>: User permission denied", Permanent),
        ] {
            assert_eq!(classify(verb, &answer(code, stdout, stderr)).0, class, "{stderr}");
        }
    }

    #[test]
    fn a_command_that_crashed_has_not_said_all() {
        let absence = "Job <7> is not found\n";
        for code in [1, 254, 255] {
            assert!(whole(&answer(code, "…", absence), false));
            assert!(!whole(&answer(code, "…", ""), false), "it fell silent");
            assert!(whole(&answer(code, "{…}", ""), true));
            assert!(!whole(&answer(code, "…", "Job <7> is not found\nConnection refused by server\n"), true));
        }
        for stderr in ["", absence] {
            let killed = Answer { exit: Exit::Signal(11), ..answer(0, "…", stderr) };
            assert!(!whole(&killed, false) && !whole(&killed, true));
            assert!(!nothing_found(&Answer { stdout: String::new(), ..killed }));
        }
    }

    #[test]
    fn exit_codes_of_no_job_differ_by_site() {
        for code in [0, 254, 255] {
            assert!(nothing_found(&answer(code, "", "No unfinished job found\n")), "{code}");
        }
        assert!(nothing_found(&answer(
            255,
            "LSF is down. Please wait ...\n",
            "Job <7> is not found\nJob <8[2]> is not found\n"
        )));
        assert!(!nothing_found(&answer(255, "", "")), "silence says nothing");
        assert!(!nothing_found(&answer(254, "", "Connection refused by server\n")));
        assert!(!nothing_found(&answer(255, "", "Job <7> is not found\nConnection refused by server\n")));
    }
}
