use super::*;
use crate::runtime::ids::JobSeq;

fn listing(id4: &str, stdout: &str) -> Option<Vec<Observation>> {
    super::listing(id4, stdout, 1_795_705_252)
}

fn show(observations: &[Observation]) -> String {
    let line = |o: &Observation| format!("{} {} {:?} {:?} {:?}", o.name, o.id, o.state, o.reason, o.node);
    observations.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn terse_ids_of_arrays_end_at_the_dot() {
    assert_eq!(submitted_id("4\n"), Some("4"));
    assert_eq!(submitted_id("12.1-9:2\n"), Some("12"));
    for nothing in ["", "no id", "1.2.x", "12.1-9:2 jobs\n", &"9".repeat(40)] {
        assert_eq!(submitted_id(nothing), None, "{nothing}");
    }
}

#[test]
fn site_wrappers_print_banners_and_take_terse_away() {
    assert_eq!(submitted_id("Welcome 12\n=====\n41.1-3:1\nUse less memory!\n"), Some("41"));
    assert_eq!(submitted_id("Your job 2 (\"okjob\") has been submitted\n"), Some("2"));
    assert_eq!(submitted_id("Your job-array 11.1-10:1 (\"okjob\") has been submitted\n"), Some("11"));
}

#[test]
fn a_listing() {
    let seen = listing("abcd", include_str!("../../../../tests/fixtures/sge/qstat_xml.out")).unwrap();
    assert_eq!(seen.len(), 1 + 2 + 3 + 18);
    let few: Vec<_> = seen.into_iter().filter(|o| o.name < JobName::new("abcd", JobSeq(14))).collect();
    insta::assert_snapshot!(show(&few), @r###"
    dcabcd-000010 57.1 Running "r" Some("vm")
    dcabcd-000011 57.2 Running "r" Some("vm")
    dcabcd-000005 54 Pending "" None
    dcabcd-000006 56.1 Pending "Eqw" None
    dcabcd-000007 56.2 Pending "Eqw" None
    dcabcd-000008 56.3 Pending "Eqw" None
    dcabcd-000012 57.3 Pending "" None
    dcabcd-000013 57.4 Pending "" None
    "###);
}

#[test]
fn deletion_is_a_running_job() {
    let text = include_str!("../../../../tests/fixtures/sge/qstat_dr_xml.out").replace("s2<", "dcabcd-000002<");
    assert_eq!(show(&listing("abcd", &text).unwrap()), "dcabcd-000002 50 Running \"dr\" Some(\"vm\")");
}

#[test]
fn names_are_whole_and_percent_lt_is_no_end_of_the_listing() {
    let text = include_str!("../../../../tests/fixtures/sge/qstat_xml.out");
    assert!(text.contains("<JB_name>a%lt;b</JB_name>"), "somebody's job");
    assert!(listing("abcd", text).unwrap().iter().all(|o| o.name.as_str().len() == 13));
}

#[test]
fn a_listing_that_is_not_whole_is_no_answer() {
    for text in [
        include_str!("../../../../tests/fixtures/sge/down_qstat_j_xml.out"),
        include_str!("../../../../tests/fixtures/sge/qstat_j_unknown_xml.out"),
        "",
        "<?xml version='1.0'?>\n",
    ] {
        assert_eq!(listing("abcd", text), None, "{text}");
    }
    let whole = include_str!("../../../../tests/fixtures/sge/qstat_xml.out");
    let end = whole.trim_end().len();
    for cut in (0..end).filter(|cut| whole.is_char_boundary(*cut)) {
        assert_eq!(listing("abcd", &whole[..cut]), None, "cut at {cut}");
    }
    let with_banner = format!("Welcome!\n{whole}\nUse less.\n");
    assert_eq!(listing("abcd", &with_banner), listing("abcd", whole));
}

#[test]
fn the_time_that_is_left() {
    let text = include_str!("../../../../tests/fixtures/sge/qstat_r_xml.out").replace("tl<", "dcabcd-000002<");
    let left = |now| super::listing("abcd", &text, now).unwrap()[0].seconds_left;
    // It started at 2026-11-26T15:00:32 for 100 s.
    let began = 1_795_705_232;
    assert_eq!([left(began), left(began + 20), left(began + 200)], [Some(100), Some(80), Some(0)]);
    assert_eq!(
        listing("abcd", include_str!("../../../../tests/fixtures/sge/qstat_xml.out")).unwrap()[0].seconds_left,
        None
    );
}

#[test]
fn letters_of_states() {
    for (letters, state) in [
        ("qw", Observed::Pending),
        ("hqw", Observed::Pending),
        ("Eqw", Observed::Pending),
        ("Ehqw", Observed::Pending),
        ("dEqw", Observed::Pending),
        ("Rq", Observed::Pending),
        ("hRwq", Observed::Pending),
        ("r", Observed::Running),
        ("hr", Observed::Running),
        ("t", Observed::Running),
        ("dt", Observed::Running),
        ("Rr", Observed::Running),
        ("dr", Observed::Running),
        ("s", Observed::Running),
        ("S", Observed::Running),
        ("T", Observed::Running),
        ("dRs", Observed::Running),
        ("", Observed::Unknown(String::new())),
        ("z", Observed::Unknown("z".to_owned())),
        ("warp", Observed::Unknown("warp".to_owned())),
    ] {
        assert_eq!(state_of(letters), state, "{letters}");
    }
    let errors = ["Eqw", "Eqw can't chdir", "qw", "r", "dr", "hqw", ""].map(is_error);
    assert_eq!(errors, [true, true, false, false, false, false, false]);
}

#[test]
fn reasons_come_from_qstat_j() {
    let all = details(include_str!("../../../../tests/fixtures/sge/qstat_j.out"));
    let of = |id: &str| all[id.split('.').next().unwrap()].of(&NativeId(id.to_owned()));
    assert_eq!(of("54").unwrap(), "cannot run in PE \"smp\" because it only offers 0 slots");
    assert_eq!(of("56.2").unwrap(), "can't chdir to /no/such: No such file or directory");
    assert_eq!(of("57.9").unwrap(), "not all array tasks may be started due to 'max_aj_instances'");
    let told = "job_number: 7\nscheduling info:   queue instance \"a@b\" dropped because it is full\n    \
        cannot run in queue \"c\" because it is not contained in its hard queue list (-q)\n      \
        cannot run at host \"d\" because it offers only hc:h_vmem=1.000G\nbinding: 1\n   more\n";
    let words = details(told)["7"].of(&NativeId("7".to_owned())).unwrap();
    let expected = "queue instance \"a@b\" dropped because it is full; cannot run at host \"d\" because it offers only hc:h_vmem=1.000G";
    assert_eq!(words, expected);
    assert!(details("Following jobs do not exist: \n99\n").is_empty());
    let off = details("job_number: 7\nscheduling info: (Collecting of scheduler job information is turned off)\n");
    assert_eq!(off["7"].of(&NativeId("7".to_owned())), None);
}

#[test]
fn how_jobs_ended() {
    let text = include_str!("../../../../tests/fixtures/sge/qacct.out");
    insta::assert_snapshot!(show(&accounting("abcd", text)), @r###"
    dcabcd-000014 12.3 Ended { how: Exited, exit_code: None } "exit code 0" Some("vm")
    dcabcd-000037 139 Ended { how: OutOfMemory, exit_code: None } "failed 37  : qmaster enforced h_rt, h_cpu, or h_vmem limit" Some("vm")
    dcabcd-000042 61 Ended { how: Exited, exit_code: Some(42) } "exit code 42" Some("vm")
    dcabcd-000049 49 Ended { how: Cancelled, exit_code: None } "failed 100 : assumedly after job" Some("vm")
    dcabcd-000051 51 Ended { how: Walltime, exit_code: None } "failed 37  : qmaster enforced h_rt, h_cpu, or h_vmem limit" Some("vm")
    dcabcd-000052 52 Ended { how: Walltime, exit_code: None } "failed 37  : qmaster enforced h_rt, h_cpu, or h_vmem limit" Some("vm")
    dcabcd-000060 60 Ended { how: Exited, exit_code: Some(139) } "failed 100 : assumedly after job" Some("vm")
    "###);
}

fn record(failed: &str, exit: &str) -> Vec<Observation> {
    let text = format!(
        "==============================================================\nhostname     vm\njobname      dcabcd-000007\n\
         jobnumber    7\ntaskid       undefined\nfailed       {failed}    \nexit_status  {exit}                  \n"
    );
    accounting("abcd", &text)
}

#[test]
fn a_forced_deletion_is_no_success() {
    let forced = include_str!("../../../../tests/fixtures/sge/execd_down_qacct.out");
    assert!(forced.contains("failed       0") && forced.contains("exit_status  0"));
    assert_eq!(record("0", "0")[0].state, Observed::Ended { how: EndedHow::Exited, exit_code: None });
}

#[test]
fn exit_code_99_starts_again_and_is_no_end() {
    assert_eq!(record("25  : rescheduling", "99"), []);
    let twice = "jobname dcabcd-000007\njobnumber 7\nfailed 25 : rescheduling\nexit_status 99\n==============\n\
        jobname dcabcd-000007\njobnumber 7\nfailed 0\nexit_status 3\n";
    assert_eq!(
        show(&accounting("abcd", twice)),
        "dcabcd-000007 7 Ended { how: Exited, exit_code: Some(3) } \"exit code 3\" None"
    );
}

#[test]
fn a_job_told_to_end_was_deleted_by_somebody() {
    let cancelled = Observed::Ended { how: EndedHow::Cancelled, exit_code: None };
    assert_eq!(record("0", "140")[0].state, cancelled);
    assert_eq!(record("100 : assumedly after job", "137                  (Killed)")[0].state, cancelled);
    let limit = "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit";
    assert_eq!(record(limit, "140")[0].state, Observed::Ended { how: EndedHow::Walltime, exit_code: None });
}

#[test]
fn the_limit_of_memory_is_told_from_that_of_time() {
    let how = |category: &str, wall: &str, had: &str| {
        let text = format!(
            "jobname dcabcd-000007\njobnumber 7\nslots 2\nfailed 37  : qmaster enforced h_rt, h_cpu, or h_vmem limit\n\
             exit_status 137\nru_wallclock {wall}\nmaxvmem {had}\ncategory {category}\n"
        );
        match accounting("abcd", &text)[0].state {
            Observed::Ended { how, .. } => how,
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!(how("-l h_rt=100,h_vmem=200M -pe smp 2", "1s", "370.359MB"), EndedHow::OutOfMemory);
    assert_eq!(how("-l h_vmem=200M,h_rt=100", "101s", "399.000MB"), EndedHow::Walltime);
    assert_eq!(how("-q short.q -l h_vmem=200M", "601", "1.100GB"), EndedHow::OutOfMemory);
    assert_eq!(how("-q short.q -l h_vmem=200M", "601", "350.000MB"), EndedHow::Walltime);
    assert_eq!(how("NONE", "601", "9.000GB"), EndedHow::Walltime);
}

#[test]
fn an_end_before_the_script_is_a_failed_launch() {
    for failed in ["28  : changing into working directory", "26  : opening input/output file", "8   : in prolog"] {
        let state = Observed::Ended { how: EndedHow::LaunchFailed, exit_code: None };
        assert_eq!(record(failed, "0")[0].state, state, "{failed}");
    }
}

#[test]
fn tasks_of_arrays() {
    let ids = |tasks| {
        spread("abcd", "7", "dcabcd-000010", tasks).into_iter().map(|(n, i)| format!("{n} {i}")).collect::<Vec<_>>()
    };
    assert_eq!(ids(None), ["dcabcd-000010 7"]);
    assert_eq!(ids(Some("2")), ["dcabcd-000011 7.2"]);
    assert_eq!(ids(Some("1,3-7:2")).len(), 4);
    assert_eq!(ids(Some("0")), Vec::<String>::new());
    assert_eq!(ids(Some("1-99999999:1")).len(), TASKS_LIMIT);
    assert_eq!(ids(Some("x")), Vec::<String>::new());
}

#[test]
fn what_never_runs_names_the_limit() {
    let told = "Unable to run job: Job 9 cannot run in queue \"all.q\" because it is not contained in its hard queue list (-q)\n\
        Job 9 (-l h_rt=900) cannot run in queue \"short.q\" because of cluster queue\nverification: no suitable queues\nExiting.\n";
    let short = "no suitable queues: (-l h_rt=900) cannot run in queue \"short.q\" because of cluster queue";
    assert_eq!(never_runs(told), short);
    assert_eq!(never_runs("Unable to run job: error: no suitable queues\nExiting.\n"), "");
}

#[test]
fn qdel_speaks_on_stdout() {
    let fine = "hpc has registered the job 45 for deletion\ndenied: job \"99999\" does not exist\njob 43 is already in deletion\n\
        hpc has deleted job-array tasks 21-23:1 of job 43\ndenied: job \"71\" task id range \"1-3:1\" comprises no tasks\n";
    assert_eq!(not_deleted(fine), Vec::<&str>::new());
    let refused = "hpc - you do not have the necessary privileges to delete the job \"62\"";
    assert_eq!(not_deleted(&format!("{fine}{refused}\n")), [refused]);
}

#[test]
fn tasks_are_deleted_in_ranges() {
    let ids = ["7.3", "9", "7.1", "7.2", "7.5", "8.1", "7.2"].map(|id| NativeId(id.to_owned()));
    assert_eq!(ranges(ids.iter()), ["9", "7.1-3", "7.5", "8.1"]);
}

proptest::proptest! {
    #[test]
    fn never_panics(text in ".{0,200}", number in proptest::num::i64::ANY, task in proptest::num::u32::ANY) {
        submitted_id(&text);
        details(&format!("job_number: {number}\nscheduling info: {text}\nerror reason {text}"));
        never_runs(&text);
        not_deleted(&text);
        is_error(&text);
        listing("abcd", &text);
        let job = format!(
            "<job_info><job_list><JB_job_number>{task}</JB_job_number><JB_name>dcabcd-000001</JB_name><state>r</state>\
             <tasks>{task},{text}</tasks><queue_name>{text}</queue_name><JAT_start_time>2026-11-26T15:00:32</JAT_start_time>\
             <hard_request name=\"h_rt\" a=\"b\">{number}</hard_request></job_list></job_info>"
        );
        super::listing("abcd", &job, number);
        accounting("abcd", &format!("jobnumber {task}\njobname dcabcd-000001\nfailed 37\nmaxvmem {text}\ncategory -l h_vmem={text}\n"));
        ranges([NativeId(format!("{task}.{task}")), NativeId(format!("{task}.{}", task.wrapping_add(1)))].iter());
    }
}
