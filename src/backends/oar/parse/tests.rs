use super::*;
use serde_json::json;

const LISTING: &str = include_str!("../../../../tests/fixtures/oar/oarstat_fJ.out");
/// When job 9 of the listing began, and half a minute later.
const BEGAN: i64 = 1_795_716_600;

fn show(seen: &[Seen]) -> String {
    let line = |seen: &Seen| {
        let o = &seen.job;
        format!("{} {} {:?} {:?} {:?}", o.name, o.id, o.state, o.reason, o.node)
    };
    seen.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// One job in this state.
fn one(change: serde_json::Value) -> Seen {
    let mut record = json!({
        "name": "dcabcd-000003", "array_index": 1, "state": "Running", "message": "R=1,W=0:2:0,J=B", "exit_code": null,
        "walltime": 120, "startTime": BEGAN, "assigned_network_address": ["n1"], "events": [], "resubmit_job_id": 0
    });
    for (name, value) in change.as_object().unwrap() {
        record[name] = value.clone();
    }
    let document = serde_json::to_string_pretty(&json!({ "7": record })).unwrap();
    jobs("abcd", &document, BEGAN + 30).unwrap().pop().unwrap()
}

fn events(kinds: &[&str]) -> serde_json::Value {
    kinds.iter().map(|kind| json!({ "type": kind, "description": format!("words of {kind}") })).collect()
}

fn end(change: serde_json::Value) -> (EndedHow, Option<i32>) {
    match one(change).job.state {
        Observed::Ended { how, exit_code } => (how, exit_code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn admission_rules_chatter_before_the_id() {
    let ids = |text| submitted_ids(text).into_iter().map(|id| id.0).collect::<Vec<_>>().join(" ");
    assert_eq!(ids(include_str!("../../../../tests/fixtures/oar/submit_array.out")), "4 5 6 7 8");
    assert_eq!(ids(include_str!("../../../../tests/fixtures/oar/submit_json.out")), "13");
    assert_eq!(ids("Welcome\n[ADMISSION RULE] x OAR_JOB_ID=9\n  OAR_JOB_ID=12\nOAR_ARRAY_ID=12\n"), "12");
}

#[test]
fn a_refused_job_has_the_number_minus_five_or_none() {
    for text in ["OAR_JOB_ID=-5\n", "OAR_JOB_ID=\n", "OAR_JOB_ID=0\n", "OAR_JOB_ID=12x\n", ""] {
        assert_eq!(submitted_ids(text), [], "{text}");
    }
}

#[test]
fn json_may_stand_between_lines_of_number_signs_and_banners() {
    let fenced = include_str!("../../../../tests/fixtures/oar/submit_json.out");
    assert_eq!(number(&serde_json::Value::Object(records(fenced).unwrap()), "job_id"), Some(13));
    let banner = format!("Welcome {{to}} us\n{LISTING}Bye\n");
    assert_eq!(jobs("abcd", &banner, BEGAN), jobs("abcd", LISTING, BEGAN));
}

#[test]
fn a_listing() {
    insta::assert_snapshot!(show(&jobs("abcd", LISTING, BEGAN).unwrap()), @r###"
    dcabcd-000003 8 Ended { how: Cancelled, exit_code: None } "Error: User hpc requested to frag the job 8" Some("127.0.1.2")
    dcabcd-000004 9 Ended { how: Walltime, exit_code: None } "Error: [sarko] Job [9] from 1795716600 with 120; current time=1795716722 (Elapsed)" Some("127.0.1.2")
    dcabcd-000005 10 Ended { how: Cancelled, exit_code: None } "Error: User hpc requested to frag the job 10" Some("127.0.1.3")
    dcabcd-000010 11 Ended { how: Cancelled, exit_code: None } "Error: User hpc requested to frag the job 11" None
    dcabcd-000020 14 Ended { how: Exited, exit_code: Some(126) } "Terminated, wait status 32256" Some("127.0.1.1")
    dcabcd-000020 15 Ended { how: Exited, exit_code: Some(126) } "Terminated, wait status 32256" Some("127.0.1.1")
    dcabcd-000020 12 Ended { how: LaunchFailed, exit_code: None } "Error: [bipbip 12] Cannot go into the working directory /no/such of the job on node 127.0.1.1" Some("127.0.1.1")
    dcabcd-000020 13 Ended { how: LaunchFailed, exit_code: None } "Error: [bipbip 13] Cannot create .stdout and .stderr files in /home/hpc/t on the node 127.0.1.1" Some("127.0.1.1")
    "###);
    assert_eq!(jobs("abce", LISTING, BEGAN).unwrap(), []);
}

#[test]
fn nothing_to_say_is_empty_output_and_a_cut_listing_is_no_answer() {
    assert_eq!(jobs("abcd", "\n", BEGAN), Some(Vec::new()));
    for text in ["{}x", "cannot read my config\n", "DB connection error, exiting.\n"] {
        assert_eq!(jobs("abcd", text, BEGAN), if text.trim().is_empty() { Some(Vec::new()) } else { None }, "{text}");
    }
    let end = LISTING.trim_end().len();
    for cut in (1..end).step_by(7).filter(|cut| LISTING.is_char_boundary(*cut)) {
        assert_eq!(jobs("abcd", &LISTING[..cut], BEGAN), None, "cut at {cut}");
    }
}

#[test]
fn exit_code_is_the_raw_wait_status() {
    for (status, code) in [(json!(0), 0), (json!(1792), 7), (json!("1792"), 7), (json!(11), 139), (json!(137), 137)] {
        assert_eq!(
            end(json!({ "state": "Terminated", "exit_code": status })),
            (EndedHow::Exited, Some(code)),
            "{status}"
        );
    }
}

#[test]
fn a_script_that_may_not_be_run_ends_with_126() {
    assert_eq!(end(json!({ "state": "Terminated", "exit_code": 32256 })), (EndedHow::Exited, Some(126)));
}

#[test]
fn a_deleted_job_has_no_exit_code_and_the_end_of_its_time_is_a_deletion_by_root() {
    let killed = |kinds: &[&str]| end(json!({ "state": "Error", "events": events(kinds) })).0;
    assert_eq!(killed(&["FRAG_JOB_REQUEST", "SEND_KILL_JOB", "SWITCH_INTO_ERROR_STATE"]), EndedHow::Cancelled);
    assert_eq!(killed(&["CHECKPOINT", "FRAG_JOB_REQUEST", "WALLTIME", "SEND_KILL_JOB"]), EndedHow::Walltime);
    assert_eq!(killed(&["BESTEFFORT_KILL", "FRAG_JOB_REQUEST"]), EndedHow::Preempted);
    assert_eq!(killed(&["FRAG_JOB_REQUEST", "EXTERMINATE_JOB"]), EndedHow::NodeFailed);
    assert_eq!(killed(&["WORKING_DIRECTORY", "SWITCH_INTO_ERROR_STATE"]), EndedHow::LaunchFailed);
    assert_eq!(killed(&["PING_CHECKER_NODE_SUSPECTED"]), EndedHow::LaunchFailed);
    assert_eq!(killed(&[]), EndedHow::NodeFailed);
    // Its keeper was killed: nothing is known of the script.
    assert_eq!(end(json!({ "state": "Terminated" })), (EndedHow::Exited, None));
    // It was warned, left in time, and its own word counts.
    let left = json!({ "state": "Terminated", "exit_code": 0, "events": events(&["CHECKPOINT"]) });
    assert_eq!(end(left), (EndedHow::Exited, Some(0)));
}

#[test]
fn states() {
    for (word, state) in [
        ("Waiting", Observed::Pending),
        ("Hold", Observed::Pending),
        ("toLaunch", Observed::Pending),
        ("toAckReservation", Observed::Pending),
        ("Launching", Observed::Running),
        ("Running", Observed::Running),
        ("Resuming", Observed::Running),
        ("Suspended", Observed::Running),
        ("Finishing", Observed::Running),
        ("toError", Observed::Running),
        ("NA", Observed::Unknown("NA".to_owned())),
        ("", Observed::Unknown(String::new())),
    ] {
        assert_eq!(one(json!({ "state": word })).job.state, state, "{word}");
    }
}

#[test]
fn a_job_that_oar_started_again_is_none_of_ours() {
    assert!(!one(json!({})).again);
    assert!(one(json!({ "resubmit_job_id": 6 })).again && one(json!({ "resubmit_job_id": "6" })).again);
}

#[test]
fn the_time_that_is_left() {
    let left = |change| one(change).job.seconds_left;
    assert_eq!(left(json!({})), Some(90));
    assert_eq!(left(json!({ "walltime": "10" })), Some(0));
    assert_eq!(left(json!({ "startTime": BEGAN + 1000 })), Some(120), "its clock is ahead");
    for unknown in [json!({ "walltime": null }), json!({ "startTime": 0 }), json!({ "state": "Waiting" })] {
        assert_eq!(left(unknown), None);
    }
}

#[test]
fn reasons_are_the_state_and_what_is_not_the_request() {
    let reason = |state, message| one(json!({ "state": state, "message": message })).job.reason;
    assert_eq!(reason("Waiting", "R=4,W=0:10:0,J=B,N=x"), "Waiting");
    assert_eq!(reason("Waiting", "R=4,W=0:10:0,J=B,N=x (Karma=0.000,quota_ok)"), "Waiting (Karma=0.000,quota_ok)");
    assert_eq!(reason("Waiting", "No enough matching resources (x)"), "Waiting No enough matching resources (x)");
    assert_eq!(reason("Running", "R=4"), "");
    let why =
        one(json!({ "state": "Error", "events": events(&["SWITCH_INTO_ERROR_STATE", "OUTPUT_FILES"]) })).job.reason;
    assert_eq!(why, "Error: words of OUTPUT_FILES");
}

#[test]
fn a_job_that_there_is_not_is_somebody_elses() {
    let fine = "Cannot frag 5 ; This job was already killed.\nCannot frag 99999 ; You are not the right user.\n";
    assert_eq!(not_deleted(fine), Vec::<&str>::new());
    let down = "Could not connect to the socket 127.0.0.1:16666";
    assert_eq!(not_deleted(&format!("{fine}{down}\n")), [down]);
}

#[test]
fn conditions_hold_no_quote_of_somebody() {
    assert_eq!(of_cluster("abcd", Some("hpc")), "job_name LIKE 'dcabcd-%' AND job_user = 'hpc'");
    assert_eq!(of_cluster("ab'%", Some("o'x")), "job_name LIKE 'dcab-%'");
}

proptest::proptest! {
    #[test]
    fn never_panics(text in ".{0,200}", number in proptest::num::i64::ANY, index in proptest::num::u32::ANY) {
        submitted_ids(&text);
        submitted_ids(&format!("OAR_JOB_ID={number}"));
        not_deleted(&text);
        jobs("abcd", &text, number);
        jobs("abcd", &format!("{{\n{text}\n}}\n"), number);
        let record = json!({
            "name": "dcabcd-000001", "array_index": index, "state": text, "message": text, "exit_code": number,
            "walltime": number, "startTime": number, "assigned_network_address": [text], "resubmit_job_id": text,
            "events": [{ "type": text, "description": text }, text]
        });
        for state in ["Running", "Terminated", "Error", "Waiting"] {
            let mut record = record.clone();
            record["state"] = json!(state);
            jobs("abcd", &serde_json::to_string_pretty(&json!({ "7": record })).unwrap(), number);
        }
        of_cluster(&text, Some(&text));
    }
}
