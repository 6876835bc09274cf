//! Grid Engine's errors as classes. Pure. The texts are those of Son of Grid Engine 8.1.9 (`msg_qmaster.h`,
//! `msg_gdilib.h`, `msg_common.h`) and of the captures in `tests/fixtures/sge/errors.txt`.

use crate::backends::ErrorClass;
use crate::backends::batch::{Answer, Exit, Verb};
use crate::backends::errors::{Row, class_of, first};

const WAIT: &str = "Grid Engine's master does not answer; `qping` and `qstat -g c` show when it is back";
const SETTINGS: &str = "load Grid Engine's module, or source its settings.sh, in the shell that runs dcluster";
const DIRECTIVE: &str = "correct the pool's directives; `dcluster render` shows the script";
const LESS: &str = "ask for less: `qhost -F slots,h_vmem` shows the hosts, `qconf -sq QUEUE` the limits of a queue (h_rt, h_vmem, pe_list)";
const VERIFIER: &str = "the site verifies jobs by a program of its own (JSV): ask the administrators if it lasts";
const HOST: &str = "this host may not submit: bring the cluster up on one that `qconf -ss` lists";
const FEWER: &str = "the site's limit on jobs is reached; fewer jobs fit until some end";

/// First match wins.
const ROWS: &[Row] = {
    use ErrorClass::{Ambiguous, Limit, Permanent, Transient};
    &[
        // Sent, and the answer was lost.
        ("got no response", Ambiguous, WAIT),
        ("failed receiving gdi request", Ambiguous, WAIT),
        ("timeout", Ambiguous, WAIT),
        ("can't unpack gdi", Ambiguous, WAIT),
        // Not sent at all.
        ("got select error", Transient, WAIT),
        ("got send error", Transient, WAIT),
        ("unable to send message to qmaster", Transient, WAIT),
        ("unable to contact qmaster", Transient, WAIT),
        ("can't resolve host name", Transient, WAIT),
        ("unable to read qmaster name", Transient, SETTINGS),
        ("SGE_ROOT", Transient, SETTINGS),
        ("cell directory", Transient, SETTINGS),
        // The master's disk is full, or the site's verifier (JSV) does not run, or says later.
        ("be written", Transient, "Grid Engine's master cannot write: tell the administrators if it lasts"),
        ("temporarily rejected", Transient, VERIFIER),
        ("can't be started", Transient, VERIFIER),
        ("start of JSV", Transient, VERIFIER),
        ("unable to send data to JSV", Transient, VERIFIER),
        // Perhaps there are no hosts just now.
        ("not allowed to run in any queue", Transient, "`qstat -g c` lists the queues, and how many slots they have"),
        // What will never fit.
        ("no suitable queues", Permanent, LESS),
        ("unknown queue", Permanent, "give another --queue: `qstat -g c` lists the queues"),
        (
            "parallel environment",
            Permanent,
            "name another one: `qconf -spl` lists them; --directive '-pe NAME CORES' asks for it",
        ),
        ("cannot run in PE", Permanent, LESS),
        ("requested project", Permanent, "give another --account: `qconf -sprjl` lists the projects"),
        ("can't resolve hostname", Permanent, "correct --nodelist or --exclude: `qconf -sel` lists the hosts"),
        ("unknown resource", Permanent, "`qconf -sc` lists the resources of this site; correct the pool's directives"),
        ("is not a time value", Permanent, DIRECTIVE),
        ("is not a memory value", Permanent, DIRECTIVE),
        ("invalid option", Permanent, DIRECTIVE),
        ("Unable to read script file", Permanent, "the cluster's folder must be readable"),
        ("no submit host", Permanent, HOST),
        ("not a submit host", Permanent, HOST),
        ("neither submit nor admin host", Permanent, HOST),
        ("is not a valid object name", Permanent, DIRECTIVE),
        ("access denied", Permanent, "this user may not use that queue or project: ask the administrators"),
        ("has no permission", Permanent, "this user may not use that queue or project: ask the administrators"),
        ("necessary privileges", Permanent, "that job belongs to somebody else, or this user may not use the cluster"),
        // Limits of the site.
        ("jobs are allowed per user", Limit, FEWER),
        ("jobs are allowed in the cluster", Limit, FEWER),
        ("jobs are allowed per cluster", Limit, FEWER),
        ("job with more than", Limit, "the site allows shorter arrays only (max_aj_tasks)"),
        ("try later", Limit, FEWER),
    ]
};

/// Returns the class of a failed command and what to do about it. `qdel` says everything on stdout.
pub fn classify(verb: Verb, answer: &Answer) -> (ErrorClass, Option<String>) {
    let says = |text: &str| answer.stderr.contains(text) || answer.stdout.contains(text);
    let row = first(ROWS, says);
    let class = match (row, verb, answer.exit) {
        (Some((_, class, _)), ..) => class_of(*class, verb),
        // 25: try again later (qsub(1), "EXIT CODES").
        (None, Verb::Submit, Exit::Code(25)) => ErrorClass::Limit,
        // The master, or a site's verifier (JSV), said no.
        (None, Verb::Submit, _) if says("Unable to run job") || says("job rejected") => ErrorClass::Permanent,
        // qsub's own reading of options and script.
        (None, Verb::Submit, Exit::Code(2 | 4 | 14)) => ErrorClass::Permanent,
        (None, Verb::Submit, _) => ErrorClass::Ambiguous,
        (None, ..) => ErrorClass::Transient,
    };
    (class, row.map(|(_, _, fix)| (*fix).to_owned()))
}

/// Returns whether `qacct` says how it is used, as it does where it does not know an option (8.1.9).
pub fn no_such_option(answer: &Answer) -> bool {
    answer.exit != Exit::Code(0) && (answer.stderr.contains("usage: qacct") || answer.stdout.contains("usage: qacct"))
}

/// Returns whether `qacct` says that it knows nothing of the jobs, or that there is no accounting to read.
pub fn not_accounted(answer: &Answer) -> bool {
    let says = |text: &str| answer.stderr.contains(text) || answer.stdout.contains(text);
    // Captures qacct_unknown, qacct_running; the file is missing or on a disk that this host does not see.
    says("not found") || says("no jobs running since startup")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::errors::{answer, captures};

    #[test]
    fn every_capture_has_its_class() {
        let mut lines = Vec::new();
        for (name, code, text) in captures(include_str!("../../../tests/fixtures/sge/errors.txt")) {
            let verb = match name {
                n if n.contains("qdel") => Verb::Cancel,
                n if n.contains("qacct") => Verb::Account,
                n if n.contains("qstat") || n == "noenv" || n == "noenv_direct" || n == "wrongcell" => Verb::List,
                _ => Verb::Submit,
            };
            let (class, fix) = classify(verb, &answer(code, text));
            let fix = fix.map_or("", |_| ", fix");
            lines.push(format!("{name} ({verb:?} {code}): {class:?}{fix}"));
        }
        insta::assert_snapshot!(lines.join("\n"), @r###"
        down_qdel (Cancel 1): Transient, fix
        down_qstat (List 1): Transient, fix
        down_qstat_j (List 1): Transient, fix
        down_qstat_xml (List 1): Transient, fix
        down_qsub (Submit 1): Transient, fix
        down_qsub_terse (Submit 1): Transient, fix
        max_u_jobs (Submit 25): Limit, fix
        max_u_jobs_array (Submit 25): Limit, fix
        noenv (List 1): Transient, fix
        noenv_direct (List 1): Transient, fix
        qacct_finished (Account 1): Transient
        qacct_running (Account 1): Transient
        qacct_srt (Account 1): Transient
        qacct_srt_notify (Account 1): Transient
        qacct_unknown (Account 1): Transient
        qdel_badarg (Cancel 1): Transient
        qdel_finished (Cancel 1): Transient
        qdel_many_one_unknown (Cancel 1): Transient
        qdel_many_one_unknown_again (Cancel 1): Transient
        qdel_otheruser (Cancel 1): Permanent, fix
        qdel_unknown (Cancel 1): Transient
        qdel_user_unknown (Cancel 1): Transient
        qstat_j_badarg (List 1): Transient
        qstat_j_really_finished (List 1): Transient
        qstat_j_unknown (List 1): Transient
        submit_array_bad (Submit 1): Permanent
        submit_array_toobig (Submit 1): Limit, fix
        submit_bad_directive (Submit 2): Permanent, fix
        submit_bad_mem (Submit 1): Permanent, fix
        submit_bad_name (Submit 1): Permanent, fix
        submit_bad_name2 (Submit 1): Permanent
        submit_bad_name3 (Submit 1): Permanent
        submit_bad_option (Submit 2): Permanent, fix
        submit_bad_project (Submit 1): Permanent, fix
        submit_bad_value (Submit 1): Permanent, fix
        submit_dir (Submit 4): Permanent, fix
        submit_empty (Submit 1): Permanent
        submit_hrt_over_queue_we (Submit 1): Permanent, fix
        submit_mem_toomuch_we (Submit 1): Permanent, fix
        submit_nofile (Submit 14): Permanent, fix
        submit_pe_toomany_we (Submit 1): Permanent, fix
        submit_pe_toomany_wv (Submit 1): Permanent, fix
        submit_pe_unknown (Submit 1): Permanent, fix
        submit_queue_unknown (Submit 1): Permanent, fix
        submit_queue_unknown_we (Submit 1): Permanent, fix
        submit_resource_unknown (Submit 1): Permanent, fix
        submit_stdin_dash (Submit 2): Permanent, fix
        submit_stdin_empty (Submit 4): Permanent, fix
        submit_w_p (Submit 1): Permanent, fix
        wrongcell (List 1): Transient, fix
        "###);
    }

    #[test]
    fn what_no_capture_shows() {
        use ErrorClass::*;
        for (verb, code, text, class) in [
            (
                Verb::Submit,
                1,
                "err: error: failed receiving gdi request response for mid=1 (got no response)",
                Ambiguous,
            ),
            (Verb::List, 1, "err: error: failed receiving gdi request response for mid=1 (got no response)", Transient),
            (
                Verb::Submit,
                1,
                "err: Unable to run job: use another queue, says the site's JSV\nerr: Exiting.",
                Permanent,
            ),
            (Verb::Submit, 25, "err: Unable to run job: some quota", Limit),
            (Verb::Submit, 1, "err: Unable to run job: can't resolve hostname \"nosuch\"\nerr: Exiting.", Permanent),
            (Verb::Submit, 1, "", Ambiguous),
            (Verb::Submit, 3, "err: wrapper: something", Ambiguous),
            (Verb::Cancel, 1, "", Transient),
            (Verb::Submit, 1, "err: denied: host \"n01\" is no submit host", Permanent),
            (Verb::Submit, 1, "err: Unable to run job: denied: host \"n01\" is not a submit host.", Permanent),
            (Verb::List, 1, "err: error: denied: host \"n01\" is neither submit nor admin host", Permanent),
            (
                Verb::Submit,
                1,
                "err: Unable to run job: job 12 was rejected because it can't be written: No space left on device.",
                Transient,
            ),
            (Verb::Submit, 1, "err: Unable to run job: JSV temporarily rejected job.", Transient),
            (Verb::Submit, 1, "err: Unable to run job: bob's job is not allowed to run in any queue.", Transient),
        ] {
            assert_eq!(classify(verb, &answer(code, text)).0, class, "{text}");
        }
        let killed = Answer { exit: Exit::Signal(9), stdout: String::new(), stderr: String::new() };
        assert_eq!(classify(Verb::Submit, &killed).0, Ambiguous);
        assert!(not_accounted(&answer(1, "err: error: job id 44 not found")));
        assert!(not_accounted(&answer(1, "out: no jobs running since startup\nerr: /x: No such file or directory")));
        assert!(!not_accounted(&answer(1, "err: Segmentation fault")));
    }
}
