use super::*;
use crate::backends::programs;
use crate::backends::render::{RenderInput, render_job_script};
use crate::backends::sge::site::Resource;
use crate::config::spec::{BackendKind, PoolSpec};
use crate::runtime::ids::JobSeq;
use std::path::PathBuf;

fn home(change: impl FnOnce(&mut JobHome)) -> JobHome {
    let pool = PoolSpec {
        cores: 4,
        memory_bytes: Some(8_000_000_000),
        gpus: 0,
        gpu_type: None,
        walltime_seconds: Some(1800),
        queue: Some("all.q".to_owned()),
        account: Some("proj".to_owned()),
        qos: None,
        constraint: None,
        nodelist: None,
        exclude: None,
        directives: vec!["-hard -l scratch=1".to_owned()],
        prologue: "module load x".to_owned(),
        drain_lead_seconds: 60,
        pin: false,
        on_exit: None,
        walltime_choices: Vec::new(),
    };
    let resource = |name: &str, per_slot| Some(Resource { name: name.to_owned(), per_slot });
    let found = Found { pe: Some("smp".to_owned()), memory: resource("h_vmem", true), gpu: resource("gpu", true) };
    let folder = PathBuf::from("/home/u/state/default");
    let mut home = JobHome::new(folder, PathBuf::from("/opt/dcluster"), "abcd", pool);
    home.said = Said::Sge(found);
    change(&mut home);
    home
}

fn known(home: &mut JobHome) -> &mut Found {
    let Said::Sge(found) = &mut home.said else { panic!("it has said nothing") };
    found
}

fn script(count: u32, change: impl FnOnce(&mut JobHome)) -> Result<String, String> {
    let home = home(change);
    let input =
        RenderInput { home: &home, backend: BackendKind::Sge, first: JobSeq(3), count, explain: false, origins: None };
    render_job_script(&input).map_err(|error| error.to_string())
}

/// The directives alone.
fn asks(count: u32, change: impl FnOnce(&mut JobHome)) -> String {
    let script = script(count, change).unwrap();
    script.lines().filter(|line| line.starts_with("#$")).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_array() {
    let script = script(5, |_| {}).unwrap();
    let (head, _) = script.split_once("umask 077").unwrap();
    insta::assert_snapshot!(head, @r###"
    #!/bin/bash
    #$ -N dcabcd-000003
    #$ -t 1-5
    #$ -S /bin/bash
    #$ -pe smp 4
    #$ -l h_vmem=1908M
    #$ -l h_rt=1800
    #$ -q all.q
    #$ -P proj
    #$ -o ./jobs/dcabcd-000003-$TASK_ID.log
    #$ -j y
    #$ -r n
    #$ -notify
    #$ -w e
    #$ -m n
    #$ -hard -l scratch=1

    dcluster_index=0
    dcluster_id=$JOB_ID
    if [[ ${SGE_TASK_ID-} =~ ^[0-9]+$ ]]; then
        dcluster_index=$((SGE_TASK_ID - 1))
        dcluster_id=$JOB_ID.$SGE_TASK_ID
    fi
    dcluster_restart=${RESTARTED:-0}
    dcluster_node=${HOSTNAME:-$(uname -n)}
    dcluster_last_signal=USR2
    dcluster_reserved_codes='99 100'
    "###);
}

#[test]
fn one_job_is_no_array_and_one_core_needs_no_environment() {
    let text = asks(1, |home| {
        home.pool.cores = 1;
        home.pool.queue = None;
        home.pool.account = None;
        home.pool.directives = vec![];
        known(home).pe = None;
    });
    insta::assert_snapshot!(text, @r###"
    #$ -N dcabcd-000003
    #$ -S /bin/bash
    #$ -l h_vmem=7630M
    #$ -l h_rt=1800
    #$ -o ./jobs/dcabcd-000003.log
    #$ -j y
    #$ -r n
    #$ -notify
    #$ -w e
    #$ -m n
    "###);
}

#[test]
fn the_shell_is_named() {
    assert!(asks(1, |_| {}).contains("#$ -S /bin/bash"), "the first line means nothing (shell_start_mode)");
}

#[test]
fn memory_is_divided_by_slots() {
    assert!(asks(1, |_| {}).contains("-l h_vmem=1908M"), "8 GB in four slots, rounded up");
    let job = asks(1, |home| known(home).memory = Some(Resource { name: "mem".to_owned(), per_slot: false }));
    assert!(job.contains("-l mem=7630M"), "{job}");
    let none = script(1, |home| known(home).memory = None).unwrap_err();
    assert!(none.contains("qconf -sc") && none.contains("--memory"), "{none}");
}

#[test]
fn without_an_environment_it_says_so() {
    let none = script(1, |home| known(home).pe = None).unwrap_err();
    assert!(none.contains("$pe_slots") && none.contains("-pe NAME 4") && none.contains("--cores 1"), "{none}");
    let own = asks(1, |home| {
        known(home).pe = None;
        home.pool.directives = vec!["-pe mine 4".to_owned()];
    });
    assert_eq!(own.matches("-pe").count(), 1, "{own}");
}

#[test]
fn gpus_by_slot() {
    assert!(asks(1, |home| home.pool.gpus = 8).contains("-l gpu=2"));
    assert!(script(1, |home| home.pool.gpus = 3).unwrap_err().contains("multiple of the 4 cores"));
    let job = asks(1, |home| {
        home.pool.gpus = 3;
        known(home).gpu = Some(Resource { name: "gpu".to_owned(), per_slot: false });
    });
    assert!(job.contains("-l gpu=3"), "{job}");
}

#[test]
fn hosts_to_use_and_to_avoid() {
    let expression = |yes, no| hosts(yes, no).unwrap();
    assert_eq!(expression(Some("n1, n2"), None), "hostname=n1|n2");
    assert_eq!(expression(None, Some("n3,n4")), "hostname=!(n3|n4)");
    assert_eq!(expression(Some("n*"), Some("n3")), "hostname=(n*)&!(n3)");
}

#[test]
fn a_line_of_the_prologue_is_no_directive() {
    let refused = script(1, |home| home.pool.prologue = "true\n#$ -l h_rt=1\n".to_owned()).unwrap_err();
    assert!(refused.contains("#$ -l h_rt=1") && refused.contains("--directive"), "{refused}");
    let body = script(1, |_| {}).unwrap();
    let (_, body) = body.split_once("umask 077").unwrap();
    assert!(!body.lines().any(|line| line.starts_with("#$")), "nor is one of ours");
}

#[test]
fn paths_that_it_would_expand_are_refused() {
    let refused = script(1, |home| home.folder = PathBuf::from("/x/$HOME/y")).unwrap_err();
    assert!(refused.contains("$HOME"), "{refused}");
    let odd = asks(2, |home| home.folder = PathBuf::from("/x/a,b:c #d 'e\" $f"));
    assert!(odd.contains("-o ./jobs/dcabcd-000003-$TASK_ID.log"), "{odd}");
}

#[test]
fn directives_that_are_ours() {
    for taken in ["-N x", "-t 1-3", "-o /x", "-wd /x", "-cwd", "-r y", "-b y", "-j n", "-V", "-sync y", "-S /bin/csh"] {
        let refused = script(1, |home| home.pool.directives = vec![taken.to_owned()]);
        assert!(refused.as_ref().is_err_and(|why| why.contains("needs for itself")), "{taken} {refused:?}");
    }
    for free in ["-tc 5", "-binding linear:4", "-w n", "-R y", "-js 5", "-hold_jid 7", "-l vendor=x", "-p -5", "-v A=b"]
    {
        assert!(asks(1, |home| home.pool.directives = vec![free.to_owned()]).ends_with(free), "{free}");
    }
}

#[test]
fn no_such_options() {
    assert!(script(1, |home| home.pool.qos = Some("x".to_owned())).unwrap_err().contains("--qos"));
    assert!(script(1, |home| home.pool.constraint = Some("x".to_owned())).unwrap_err().contains("--constraint"));
}

/// Runs what ends a script, with a worker that leaves with `code` after `signal`.
fn exits(code: &str, before: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("worker");
    programs::write(&binary, &format!("#!/bin/bash\n[ \"$2\" != --sweep ] || exit 0\n{before}\nexit {code}\n"));
    let script = script(1, |home| {
        home.folder = folder.path().to_owned();
        home.binary = binary;
        home.pool.prologue = String::new();
    });
    let mut command = std::process::Command::new("bash");
    command.args(["-c", &script.unwrap()]).env("JOB_ID", "7").env("SGE_TASK_ID", "undefined");
    let status = command.status().unwrap();
    let sentinel = std::fs::read_to_string(folder.path().join("jobs/dcabcd-000003/exit")).unwrap();
    (status.code(), sentinel)
}

#[test]
fn reserved_exit_codes_99_and_100_never_reach_it() {
    for (code, outside) in [("99", 1), ("100", 1), ("7", 7), ("0", 0)] {
        let (status, sentinel) = exits(code, "");
        assert_eq!(status, Some(outside));
        assert!(
            sentinel.contains(&format!("\"exit_code\":{code},")) && sentinel.contains("\"id\":\"7\""),
            "{sentinel}"
        );
    }
}

#[test]
fn usr2_is_the_end_and_usr1_a_warning() {
    let wait = "trap 'exit 3' TERM; trap 'exit 4' USR1; kill -s SIGNAL $PPID; for i in {1..200}; do sleep 0.05; done";
    let parent = |signal: &str| wait.replace("SIGNAL", signal).replace("$PPID", "$(ps -o ppid= -p $PPID)");
    let (status, sentinel) = exits("5", &parent("USR2"));
    assert!(sentinel.contains("\"exit_code\":3,"), "the worker got TERM: {sentinel}");
    assert_eq!(status, Some(140), "accounting shows that it was told to end");
    let (status, sentinel) = exits("5", &parent("USR1"));
    assert!(status == Some(4) && sentinel.contains("\"exit_code\":4,"), "{status:?} {sentinel}");
}
