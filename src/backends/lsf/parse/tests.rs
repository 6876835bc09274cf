//! Captures with names of ours, and IBM's outputs.

use super::*;

fn show(listing: &Listing) -> Vec<String> {
    let Listing::Jobs(jobs) = listing else { return vec!["nothing".to_owned()] };
    let line =
        |o: &Observation| format!("{} {} {:?} {:?} {:?} {:?}", o.name, o.id, o.state, o.reason, o.node, o.seconds_left);
    jobs.iter().map(line).collect()
}

/// Gives a capture's job a name of ours.
fn ours(capture: &str, name: &str) -> String {
    capture.replace(&format!(" {name} "), " dcabcd-000007 ").replace(&format!(" {name}["), " dcabcd-000007[")
}

#[test]
fn ids_among_banners_and_esub_text() {
    let banner = "=== Welcome to Stampede3, job 12 of today ===\nJob <5> was a good one\n\
        Job <101> is submitted to queue <normal>.\n<<Waiting for dispatch ...>>\n";
    assert_eq!(submitted_id(banner), Some("101"));
    assert_eq!(submitted_id("Job <9148559> is submitted to default queue <research-rh7>.\n"), Some("9148559"));
    assert_eq!(submitted_id(""), None, "BSUB_QUIET");
    assert_eq!(submitted_id("Job <101> is not submitted"), None);
}

#[test]
fn an_id_of_0_is_no_job() {
    assert_eq!(submitted_id("Job <0> is submitted to queue <normal>.\n"), None);
    assert!(!is_id("0") && !is_id("00") && !is_id("") && !is_id("-1") && is_id("10"));
}

#[test]
fn array_ids_have_the_index_in_the_name() {
    let run = wide("abcd", &ours(include_str!("../../../../tests/fixtures/lsf/bjobs_array_w.out"), "arr"));
    let lines = show(&run);
    assert_eq!(lines.len(), 10);
    assert_eq!(lines[0], "dcabcd-000007 117[1] Running \"RUN\" Some(\"vm\") None");
    assert_eq!(lines[9], "dcabcd-000016 117[10] Running \"RUN\" Some(\"vm\") None");
    // The narrow view leaves the host out.
    let pending = wide("abcd", &ours(include_str!("../../../../tests/fixtures/lsf/bjobs_array_pend.out"), "arr"));
    assert_eq!(show(&pending)[3], "dcabcd-000010 117[4] Pending \"\" None None");
}

#[test]
fn tables_of_openlava() {
    let mix = include_str!("../../../../tests/fixtures/lsf/bjobs_mix.out");
    assert_eq!(show(&wide("abcd", &ours(mix, "full"))), ["dcabcd-000007 101 Running \"RUN\" Some(\"vm\") None"]);
    assert_eq!(show(&wide("abcd", &ours(mix, "held"))), ["dcabcd-000007 112 Pending \"PSUSP\" None None"]);
    assert_eq!(show(&wide("abcd", &ours(mix, "pendj"))), ["dcabcd-000007 113 Pending \"\" None None"]);
    // Continuation lines of hosts, and others' names with blanks.
    let many = include_str!("../../../../tests/fixtures/lsf/bjobs_many.out");
    let exit = "Ended { how: Exited, exit_code: None } \"EXIT\" Some(\"vm\") None";
    assert_eq!(show(&wide("abcd", &ours(many, "full"))), [format!("dcabcd-000007 101 {exit}")]);
    // Killed while it waited.
    let killed = "Ended { how: Cancelled, exit_code: None } \"EXIT\" None None";
    assert_eq!(show(&wide("abcd", &ours(many, "held"))), [format!("dcabcd-000007 112 {killed}")]);
    assert_eq!(wide("abcd", "LSF is down. Please wait ...\n"), Listing::Nothing);
}

#[test]
fn unkwn_and_zombi_are_no_ends() {
    for (stat, state) in [
        ("UNKWN", Observed::Unknown("UNKWN".into())),
        ("ZOMBI", Observed::Unknown("ZOMBI".into())),
        ("PROV", Observed::Pending),
        ("WAIT", Observed::Pending),
        ("PSUSP", Observed::Pending),
        ("USUSP", Observed::Running),
        ("SSUSP", Observed::Running),
    ] {
        let table = format!(
            "JOBID   USER    STAT  QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME\n\
             7       me      {stat} normal     vm          vm          dcabcd-000001     Nov 23 15:02\n"
        );
        let Listing::Jobs(jobs) = wide("abcd", &table) else { panic!("no table") };
        assert_eq!(jobs[0].state, state);
    }
}

/// OpenLava calls a job done whose shell was killed: the script's own record decides.
#[test]
fn done_of_openlava_proves_nothing() {
    let table =
        "JOBID USER STAT QUEUE FROM_HOST EXEC_HOST JOB_NAME SUBMIT_TIME\n7 me DONE q h h dcabcd-000001 Nov 1 1:00\n";
    let unproven = Observed::Ended { how: EndedHow::Exited, exit_code: None };
    assert!(matches!(wide("abcd", table), Listing::Jobs(jobs) if jobs[0].state == unproven));
    assert!(show(&columns("abcd", "7^0^DONE^h^-^-^dcabcd-000001\n"))[0].contains("exit_code: Some(0)"));
}

const DOCUMENT: &str = r#"LSF is down. Please wait ...
{
  "COMMAND":"bjobs",
  "JOBS":4,
  "RECORDS":[
    {
      "JOBID":"22005", "JOBINDEX":"3", "JOB_NAME":"dcabcd-000001[3]", "STAT":"RUN",
      "EXEC_HOST":"2*tbi-cn019:tbi-cn020", "EXIT_CODE":"", "EXIT_REASON":"", "PEND_REASON":"",
      "RUNTIMELIMIT":"00:10:00", "RUN_TIME":"40 second(s)"
    },
    { "JOBID":"22006", "JOBINDEX":"0", "JOB_NAME":"dcabcd-000005", "STAT":"PEND", "EXEC_HOST":"", "EXIT_CODE":"",
      "EXIT_REASON":"", "PEND_REASON":"New job is waiting for scheduling;", "RUNTIMELIMIT":"1440.0", "RUN_TIME":"0 second(s)" },
    { "JOBID":"22007", "JOBINDEX":"0", "JOB_NAME":"dcabcd-000006", "STAT":"EXIT", "EXEC_HOST":"h1", "EXIT_CODE":"140",
      "EXIT_REASON":"TERM_RUNLIMIT: job killed after reaching LSF run time limit", "PEND_REASON":"" },
    { "JOBID":"99999", "ERROR":"Job <99999> is not found" },
    { "JOBID":"22008", "JOBINDEX":"0", "JOB_NAME":"ls -l \/tmp", "STAT":"DONE", "EXEC_HOST":"h1" }
  ]
}
"#;

#[test]
fn json_after_words_of_waiting() {
    insta::assert_snapshot!(show(&json("abcd", DOCUMENT)).join("\n"), @r###"
    dcabcd-000003 22005[3] Running "RUN" Some("tbi-cn019") Some(560)
    dcabcd-000005 22006 Pending "New job is waiting for scheduling" None None
    dcabcd-000006 22007 Ended { how: Walltime, exit_code: None } "EXIT TERM_RUNLIMIT: job killed after reaching LSF run time limit" Some("h1") None
    "###);
    assert_eq!(json("abcd", r#"{"COMMAND":"bjobs","JOBS":0,"RECORDS":[]}"#), Listing::Jobs(Vec::new()));
    assert_eq!(json("abcd", "No unfinished job found\n"), Listing::Nothing);
    assert_eq!(json("abcd", "{\"RECORDS\":[{\"JOBID\":"), Listing::Nothing);
}

#[test]
fn columns_of_ibm_9() {
    let text = "Cannot connect to LSF. Please wait ...\n7^2^RUN^2*a:b^-^-^dcabcd-000001[2]\n8^0^PEND^-^-^-^dcabcd-000003\n\
        9^0^EXIT^a^9^TERM_OWNER: job killed by owner^dcabcd-000004\n10^0^RUN^a^-^-^odd^name\n";
    insta::assert_snapshot!(show(&columns("abcd", text)).join("\n"), @r###"
    dcabcd-000002 7[2] Running "RUN" Some("a") None
    dcabcd-000003 8 Pending "" None None
    dcabcd-000004 9 Ended { how: Cancelled, exit_code: None } "EXIT TERM_OWNER: job killed by owner" Some("a") None
    "###);
    assert_eq!(columns("abcd", "LSF is down. Please wait ...\n"), Listing::Nothing);
}

#[test]
fn exit_reasons_of_ibm() {
    for (reason, how) in [
        ("TERM_RUNLIMIT: job killed after reaching LSF run time limit", EndedHow::Walltime),
        ("TERM_MEMLIMIT: job killed after reaching LSF memory usage limit", EndedHow::OutOfMemory),
        ("TERM_OWNER: job killed by owner", EndedHow::Cancelled),
        ("TERM_ADMIN: job killed by root or LSF administrator", EndedHow::Cancelled),
        ("TERM_PREEMPT: job killed after preemption", EndedHow::Preempted),
        ("TERM_ZOMBIE: job exited while LSF is not available", EndedHow::NodeFailed),
        ("TERM_CWD_NOTEXIST: current working directory is not accessible", EndedHow::LaunchFailed),
        ("TERM_EXTERNAL_SIGNAL: job killed by a signal external to LSF", EndedHow::Exited),
        ("", EndedHow::Exited),
    ] {
        assert!(matches!(ended(Some(1), reason, true), Observed::Ended { how: seen, .. } if seen == how), "{reason}");
    }
}

#[test]
fn reasons_of_waiting() {
    let reasons = pending_reasons(include_str!("../../../../tests/fixtures/lsf/bjobs_p.out"));
    let text = |id: &str| reasons[&NativeId(id.to_owned())].as_str();
    assert_eq!(text("112"), "The job was suspended by the user while pending");
    assert_eq!(text("113"), "The queue is inactivated by its time windows");
    // Of a long name only the end is left, with the index.
    let elements = "JOBID   USER    STAT  QUEUE       FROM_HOST      JOB_NAME           SUBMIT_TIME\n\
        7       me      PEND  normal      vm             *abcd-000001[3]    Nov 23 15:02\n \
        Job's resource requirements not satisfied: 3 hosts;\n \
        Job slot limit reached: 1 host;\n";
    let reasons = pending_reasons(elements);
    assert_eq!(reasons[&NativeId("7[3]".into())], "Job's resource requirements not satisfied; Job slot limit reached");
}

#[test]
fn time_that_is_left() {
    assert_eq!(seconds_left("1440.0", "16038 second(s)"), Some(1440 * 60 - 16038));
    assert_eq!(seconds_left("00:10:00", "00:00:01"), Some(599));
    assert_eq!(seconds_left("10.0/hostA", "700 second(s)"), Some(0));
    for (limit, run) in [("", "5 second(s)"), ("-", "-"), ("1440.0", ""), ("x", "y")] {
        assert_eq!(seconds_left(limit, run), None, "{limit} {run}");
    }
}

proptest::proptest! {
    #[test]
    fn never_panics(text in ".{0,200}") {
        submitted_id(&text);
        for format in [Format::Json, Format::Columns, Format::Wide] {
            listing("abcd", format, &text);
        }
        listing("abcd", Format::Wide, &format!("JOBID STAT\n{text} dcabcd-000001"));
        listing("abcd", Format::Columns, &format!("7^{text}^a^b^c^d^dcabcd-000001"));
        listing("abcd", Format::Json, &format!("{{\"RECORDS\":[{{\"JOBID\":\"1\",\"STAT\":\"{text}\"}}]}}"));
        pending_reasons(&format!("JOBID STAT\n{text}\n {text}"));
        seconds_left(&text, &text);
    }
}
