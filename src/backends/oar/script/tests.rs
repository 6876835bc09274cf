use super::*;
use crate::backends::programs;
use crate::backends::render::{RenderInput, render_job_script};
use crate::config::spec::BackendKind;
use crate::runtime::ids::JobSeq;
use std::path::PathBuf;

fn home(change: impl FnOnce(&mut JobHome)) -> JobHome {
    let pool = PoolSpec {
        memory_bytes: Some(8_000_000_000),
        walltime_seconds: Some(1800),
        queue: Some("prod".to_owned()),
        account: Some("proj".to_owned()),
        constraint: Some("cpucore>8".to_owned()),
        exclude: Some("n3,n4".to_owned()),
        directives: vec!["-t besteffort".to_owned(), "-p cluster = 'a' OR cluster = 'b'".to_owned()],
        prologue: "module load x".to_owned(),
        ..PoolSpec::new(4)
    };
    let mut home = JobHome::new(PathBuf::from("/home/u/state/default"), PathBuf::from("/opt/dcluster"), "abcd", pool);
    home.said = Said::Oar(Found::guessed());
    change(&mut home);
    home
}

fn known(home: &mut JobHome) -> &mut Found {
    let Said::Oar(found) = &mut home.said else { panic!("it has said nothing") };
    found
}

fn script(count: u32, change: impl FnOnce(&mut JobHome)) -> Result<String, String> {
    let home = home(change);
    let input = RenderInput::plain(&home, BackendKind::Oar, JobSeq(3), count);
    render_job_script(&input).map_err(|error| error.to_string())
}

/// The directives alone.
fn asks(count: u32, change: impl FnOnce(&mut JobHome)) -> String {
    let script = script(count, change).unwrap();
    script.lines().filter(|line| line.starts_with("#OAR")).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_array() {
    let script = script(5, |_| {}).unwrap();
    let (head, _) = script.split_once("dcluster_folder=").unwrap();
    insta::assert_snapshot!(head, @r###"
    #!/bin/bash
    #OAR -n dcabcd-000003
    #OAR --array 5
    #OAR -l /nodes=1/core=4,walltime=0:30:00
    #OAR -p (cpucore>8) AND (cluster = 'a' OR cluster = 'b') AND memnode >= 7630 AND network_address NOT IN ('n3', 'n4')
    #OAR -q prod
    #OAR --project proj
    #OAR -O /dev/null
    #OAR -E /dev/null
    #OAR --checkpoint 60
    #OAR --signal 10
    #OAR -t besteffort

    unset BASH_ENV "${!OARDO_@}" OARCONFFILE OARDIR OARUSER OARXAUTHLOCATION PERL5LIB SUDO_COMMAND
    umask 077
    if cd /home/u/state/default 2>/dev/null && mkdir -p jobs && : >> "jobs/dcabcd-000003-$OAR_ARRAY_INDEX.log"; then
        exec >> "jobs/dcabcd-000003-$OAR_ARRAY_INDEX.log" 2>&1
    fi

    dcluster_index=$((OAR_ARRAY_INDEX - 1))
    dcluster_id=$OAR_JOB_ID
    dcluster_restart=0
    dcluster_node=$(head -n 1 "$OAR_NODE_FILE" 2>/dev/null)
    dcluster_node=${dcluster_node:-$(uname -n)}
    dcluster_reserved_codes=99
    umask 077
    "###);
}

#[test]
fn one_job_is_no_array() {
    let text = asks(1, |home| home.pool = PoolSpec::new(1));
    insta::assert_snapshot!(text, @r###"
    #OAR -n dcabcd-000003
    #OAR -l /nodes=1/core=1
    #OAR -O /dev/null
    #OAR -E /dev/null
    #OAR --checkpoint 60
    #OAR --signal 10
    "###);
}

#[test]
fn own_resources_and_properties_are_made_one_with_ours() {
    let own = asks(1, |home| home.pool.directives = vec!["-l /cluster=1/host=2/core=3".to_owned()]);
    assert!(own.contains("#OAR -l /cluster=1/host=2/core=3,walltime=0:30:00\n"), "{own}");
    let timed = asks(1, |home| home.pool.directives = vec!["--resource core=3,walltime=1".to_owned()]);
    assert!(timed.contains("#OAR -l core=3,walltime=1\n") && timed.matches("#OAR -l").count() == 1, "{timed}");
    assert_eq!(asks(1, |_| {}).matches("#OAR -p").count(), 1, "of several the last would count");
    let two = script(1, |home| home.pool.directives = vec!["-l core=3".to_owned(), "-l core=4".to_owned()]);
    assert!(two.unwrap_err().contains("of several -l OAR chooses one"));
}

#[test]
fn memory_is_asked_only_of_what_the_site_has_a_property_for() {
    let bed = asks(1, |home| known(home).memory = Some("mem".to_owned()));
    assert!(bed.contains("mem >= 7630"), "{bed}");
    let none = asks(1, |home| known(home).memory = None);
    assert!(!none.contains("7630"), "{none}");
}

#[test]
fn a_site_without_core() {
    assert!(asks(1, |home| known(home).core = "resource_id".to_owned()).contains("-l /nodes=1/resource_id=4,"));
}

#[test]
fn gpus() {
    let ask = |home: &mut JobHome| {
        home.pool.gpus = 3;
        home.pool.gpu_type = Some("A100".to_owned());
    };
    let text = asks(1, ask);
    assert!(text.contains("-l /nodes=1/gpu=3/core=2,") && text.contains("gpu_model = 'A100'"), "{text}");
    let none = script(1, |home| {
        ask(home);
        known(home).gpu = false;
    });
    assert!(none.unwrap_err().contains("GPUs are no resources here"));
    let kind = script(1, |home| {
        ask(home);
        known(home).gpu_model = false;
    });
    assert!(kind.unwrap_err().contains("-p PROPERTY"));
}

#[test]
fn a_line_of_the_prologue_is_no_directive() {
    let refused = script(1, |home| home.pool.prologue = "true\n#OAR -q night\n".to_owned()).unwrap_err();
    assert!(refused.contains("#OAR -q night") && refused.contains("--directive"), "{refused}");
    assert!(script(1, |home| home.pool.prologue = "#OARX\n # OAR -q x".to_owned()).is_ok());
    let body = script(1, |_| {}).unwrap();
    let (_, body) = body.split_once("umask 077").unwrap();
    assert!(!body.lines().any(|line| line.starts_with("#OAR")), "nor is one of ours");
}

#[test]
fn what_it_cannot_be_told_is_refused() {
    for (path, odd) in [("/x/a b", "' '"), ("/x/it's", "'\\''"), ("/x/$HOME", "'$'"), ("/x/ä", "'ä'")] {
        let refused = script(1, |home| home.folder = PathBuf::from(path)).unwrap_err();
        assert!(refused.contains(odd) && refused.contains("job script"), "{refused}");
    }
    assert!(script(1, |home| home.pool.qos = Some("x".to_owned())).unwrap_err().contains("--qos"));
    assert!(script(1, |home| home.pool.nodelist = Some("n1,n'2".to_owned())).unwrap_err().contains("quote"));
    for kind in ["-t idempotent", "--type noop"] {
        let refused = script(1, |home| home.pool.directives = vec![kind.to_owned()]).unwrap_err();
        assert!(refused.contains("dcluster replaces a lost job itself"), "{refused}");
    }
}

#[test]
fn directives_that_are_ours() {
    for taken in ["-n x", "--name x", "--array 3", "-O /x", "--stderr /x", "-d /x", "--signal 12", "--checkpoint 5"] {
        let refused = script(1, |home| home.pool.directives = vec![taken.to_owned()]);
        assert!(refused.as_ref().is_err_and(|why| why.contains("needs for itself")), "{taken} {refused:?}");
    }
    for free in ["-t besteffort", "--notify mail:me@site", "-a 7", "--hold", "-k"] {
        assert!(asks(1, |home| home.pool.directives = vec![free.to_owned()]).ends_with(free), "{free}");
    }
}

/// Runs a script as OAR does, with a worker that runs `body`.
fn exits(body: &str) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("worker");
    programs::write(&binary, &format!("#!/bin/bash\n[ \"$2\" != --sweep ] || exit 0\n{body}\n"));
    std::fs::write(folder.path().join("nodes"), "n07.site\nn07.site\n").unwrap();
    let script = script(4, |home| {
        home.folder = folder.path().to_owned();
        home.binary = binary;
        home.pool.prologue = String::new();
    });
    let mut command = std::process::Command::new("bash");
    command.args(["-c", &script.unwrap()]).env("OAR_JOB_ID", "12").env("OAR_ARRAY_INDEX", "3");
    command.env("OARDO_USER", "oar").env("PERL5LIB", "/x").env("OAR_NODE_FILE", folder.path().join("nodes"));
    let status = command.status().unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    (status.code(), read("jobs/dcabcd-000005/exit"), read("jobs/dcabcd-000003-3.log"))
}

#[test]
fn an_element_knows_itself_and_logs_by_its_index() {
    let (status, exit, log) = exits("echo \"$DCLUSTER_JOB $DCLUSTER_JOB_ID ${OARDO_USER-}${PERL5LIB-}\"; exit 7");
    assert_eq!((status, log.as_str()), (Some(7), "dcabcd-000005 12 \n"));
    assert!(exit.contains("\"exit_code\":7,") && exit.contains("\"node\":\"n07.site\",\"id\":\"12\""), "{exit}");
}

#[test]
fn exit_code_99_never_reaches_it() {
    let (status, exit, _) = exits("exit 99");
    assert!(status == Some(1) && exit.contains("\"exit_code\":99,"), "{status:?} {exit}");
}
