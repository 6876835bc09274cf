use super::*;
use crate::backends::render::{RenderInput, render_description, render_job_script};
use crate::config::spec::{BackendKind, PoolSpec};
use crate::runtime::ids::JobSeq;

fn home(change: impl FnOnce(&mut JobHome)) -> JobHome {
    let pool = PoolSpec {
        memory_bytes: Some(8_000_000_000),
        walltime_seconds: Some(1800),
        account: Some("group_physics.cms".to_owned()),
        directives: vec!["rank = Memory".to_owned(), "+Project = \"x y\"".to_owned()],
        ..PoolSpec::new(4)
    };
    let mut home = JobHome::new("/home/u/$x/state/default".into(), "/opt/dcluster".into(), "abcd", pool);
    change(&mut home);
    home
}

fn description(count: u32, change: impl FnOnce(&mut JobHome)) -> Result<String, String> {
    let home = home(change);
    let input = RenderInput::plain(&home, BackendKind::Condor, JobSeq(3), count);
    render_description(&input).map(Option::unwrap).map_err(|error| error.to_string())
}

#[test]
fn an_array() {
    insta::assert_snapshot!(description(5, |_| {}).unwrap(), @r###"
    +JobBatchName = "dcabcd-000003"
    executable = /home/u/$(DOLLAR)x/state/default/jobs/dcabcd-000003/script.sh
    arguments = $(ClusterId) $(ProcId)
    initialdir = /home/u/$(DOLLAR)x/state/default
    should_transfer_files = NO
    transfer_executable = False
    output = ./jobs/dcabcd-000003-$(ProcId).log
    error = ./jobs/dcabcd-000003-$(ProcId).log
    request_cpus = 4
    request_memory = 7630
    allowed_job_duration = 1800
    accounting_group = group_physics.cms
    requirements = MY.NumJobStarts == 0
    periodic_remove = (JobStatus == 5 && HoldReasonCode =!= 1 && HoldReasonCode =!= 15) || ((JobStatus == 1 || JobStatus == 5) && NumJobStarts > 0)
    want_graceful_removal = True
    notification = Never
    rank = Memory
    +Project = "x y"
    queue 5
    "###);
    let home = home(|_| {});
    let script = render_job_script(&RenderInput::plain(&home, BackendKind::Condor, JobSeq(3), 5)).unwrap();
    let (head, _) = script.split_once("umask 077").unwrap();
    insta::assert_snapshot!(head, @r###"
    #!/bin/bash
    dcluster_index=${2:-0}
    dcluster_id=${1:-0}.${2:-0}
    dcluster_restart=0
    while read -r dcluster_word _ dcluster_starts; do
        [ "$dcluster_word" != NumShadowStarts ] || dcluster_restart=$((dcluster_starts - 1))
    done 2>/dev/null < "${_CONDOR_JOB_AD:-/dev/null}"
    dcluster_node=${HOSTNAME:-$(uname -n)}
    "###);
}

#[test]
fn one_job_on_machines_of_a_kind() {
    let one = description(1, |home| {
        home.pool = PoolSpec {
            gpus: 2,
            constraint: Some("HasAVX2".into()),
            nodelist: Some("n01,n02.site.org".into()),
            exclude: Some("n03".into()),
            directives: vec!["Requirements = OpSysAndVer == \"RHEL9\"".into()],
            ..PoolSpec::new(1)
        };
    });
    let one = one.unwrap();
    let line = |name: &str| one.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert_eq!(line("request_gpus"), "request_gpus = 2");
    assert_eq!(line("queue"), "queue 1");
    assert_eq!(
        line("requirements"),
        "requirements = (OpSysAndVer == \"RHEL9\") && (HasAVX2) && (regexp(\"^n01([.]|$)\", TARGET.Machine, \"i\") || \
         regexp(\"^n02[.]site[.]org([.]|$)\", TARGET.Machine, \"i\")) && !(regexp(\"^n03([.]|$)\", TARGET.Machine, \"i\")) \
         && MY.NumJobStarts == 0"
    );
    assert!(
        !one.contains("Requirements = ") && !one.contains("request_memory") && !one.contains("allowed_job"),
        "{one}"
    );
}

#[test]
fn what_a_description_cannot_say_is_refused() {
    type Change = fn(&mut JobHome);
    let changes: [(Change, &str); 12] = [
        (|home| home.pool.queue = Some("long".into()), "no queues"),
        (|home| home.pool.qos = Some("high".into()), "no --qos"),
        (|home| home.pool.gpu_type = Some("a100".into()), "require_gpus"),
        (|home| home.folder = "/home/u/ends in a blank ".into(), "ends in a blank"),
        (|home| home.folder = "/home/u/a\nline".into(), "control character"),
        (|home| home.pool.directives = vec!["queue 7".into()], "NAME = VALUE"),
        (|home| home.pool.directives = vec!["queue = 7".into()], "sets queue"),
        (|home| home.pool.directives = vec!["include : x = y".into()], "no name"),
        (|home| home.pool.directives = vec!["Executable = /bin/true".into()], "sets executable"),
        (|home| home.pool.directives = vec!["GetEnv=True".into()], "sets getenv"),
        (|home| home.pool.directives = vec!["MY.JobBatchName = \"x\"".into()], "sets jobbatchname"),
        (|home| home.pool.directives = vec!["rank = Memory \\".into()], "backslash"),
    ];
    for (change, says) in changes {
        let error = description(1, change).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}
