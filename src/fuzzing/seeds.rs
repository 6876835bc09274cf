//! Valid inputs of every target: what the committed corpus begins with.

use super::cores::{hello, submission};
use super::files::CLUSTER;
use crate::adapt::{Decision, Entry};
use crate::config::spec::Adapt;
use crate::ledger::{Job, Ledger};
use crate::runtime::control::{
    ClientHello, ClientMessage, ClientReply, Decisions, DownMode, ErrorKind, JobDecisions, Progress, Reply, Request,
    TaskInfo,
};
use crate::runtime::disk::RealDisk;
use crate::runtime::ids::{ArrayId, JobName, JobSeq, RunId, TaskId, WorkerId};
use crate::runtime::journal::{Journal, Limits, Position};
use crate::runtime::lease::{Holder, Lease, claim};
use crate::runtime::protocol::{
    Body, Command, EndReport, GpuPart, Gpus, HeldRun, Indexes, Needs, NodePart, NumaCores, Outcome, Output,
    PROTOCOL_VERSION, Place, Request as Needed, ServerMessage, Start, Submission, TaskRef, Usage, Welcome, WorkerHello,
    WorkerMessage,
};
use crate::runtime::scheduler::{Counts, End, Kind};
use crate::selection::Selection;
use crate::server::record::{Detail, Record};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A name and bytes.
pub(super) type Seed = (&'static str, Vec<u8>);

const TASK: TaskId = TaskId { array: ArrayId(2), element: 3 };
const USAGE: Usage = Usage { wall_milliseconds: 1500, cpu_milliseconds: 1400, memory_bytes: 1 << 20 };

fn frame<M: Serialize>(messages: &[M]) -> Vec<u8> {
    rmp_serde::to_vec_named(messages).expect("plain data")
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).expect("small").to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

fn run(number: u64) -> RunId {
    RunId(RunId::first(1).0 + number)
}

fn outcomes() -> Vec<Outcome> {
    vec![
        Outcome::Finished,
        Outcome::Failed { code: 3 },
        Outcome::Signalled { signal: 9 },
        Outcome::TimeLimit,
        Outcome::MemoryLimit { used_bytes: 9, limit_bytes: 8 },
        Outcome::NotStarted { error: "no such file".to_owned() },
        Outcome::Killed,
        Outcome::Interrupted,
    ]
}

fn held(task: TaskId, number: u64) -> HeldRun {
    HeldRun { task, run: run(number), variant: 1, place: Default::default() }
}

/// A conversation: the evil worker of `cores` got runs 1 to 4 of array 2.
fn from_worker() -> Vec<Seed> {
    let ended = |number: u32, outcome| {
        let task = TaskId { array: ArrayId(2), element: number };
        WorkerMessage::Ended(EndReport { task, run: run(u64::from(number) + 1), outcome, usage: USAGE })
    };
    let started = |number: u32| WorkerMessage::Started {
        task: TaskId { array: ArrayId(2), element: number },
        run: run(u64::from(number) + 1),
    };
    let mut work: Vec<WorkerMessage> = (0..4).map(started).collect();
    work.extend((0..).zip(outcomes()).map(|(number, outcome)| ended(number, outcome)));
    let first = TaskId { array: ArrayId(1), element: 0 };
    let of_others = EndReport { task: first, run: run(0), outcome: Outcome::Finished, usage: USAGE };
    let in_job = WorkerHello {
        job: Some(JobName::new("abcd", JobSeq(1))),
        id: Some(WorkerId(2)),
        hellos: 2,
        seconds_left: Some(600),
        running: vec![held(TASK, 4), held(first, 0)],
        draining: true,
        ..hello("evil", 4)
    };
    let again = WorkerHello { running: vec![held(TASK, 4), held(TASK, 9)], hellos: 2, ..hello("evil", 4) };
    vec![
        ("hello", frame(&[WorkerMessage::Hello(hello("another", 2))])),
        ("hello-job", frame(&[WorkerMessage::Hello(in_job)])),
        ("hello-again", frame(&[WorkerMessage::Hello(again), WorkerMessage::Heartbeat])),
        ("work", frame(&work)),
        ("of-others", frame(&[WorkerMessage::Ended(of_others), WorkerMessage::Started { task: first, run: run(0) }])),
        ("leave", frame(&[WorkerMessage::Draining, WorkerMessage::Heartbeat, WorkerMessage::Goodbye])),
    ]
}

fn rich() -> Submission {
    let all = submission(4, vec![TaskRef::Array(ArrayId(1)), TaskRef::Task(TASK)]);
    let mut env = BTreeMap::new();
    env.insert("A".into(), "b c".into());
    let mut first = Needed { cores: 2, memory_bytes: 1 << 30, gpus: Gpus(500), compact: true, ..Default::default() };
    first.counters.insert("lic".to_owned(), 1);
    let needs = Needs { variants: vec![first, Needed::default()], nodes: 1 };
    Submission {
        body: Body {
            command: Command::Template("gzip {} > {/.}".into()),
            env,
            stdin: Some("in".into()),
            stdout: Output::File("{id}.out".into()),
            stderr: Output::SameAsStdout,
            time_limit_seconds: Some(60),
            needs,
            indexes: Indexes::List(vec![1, 5, 9]),
            ..all.body.clone()
        },
        inputs: vec![vec!["a".into()], vec!["b".into(), "c".into()], vec![]],
        priority: -3,
        retries: 2,
        time_request_seconds: Some(30),
        at_most: Some(2),
        ..all
    }
}

fn from_client() -> Vec<Seed> {
    let all = || Selection::parse("2").expect("an id");
    let some = || Selection::parse("2.1-5,9").expect("ids");
    let mut on_two_nodes = submission(2, Vec::new());
    on_two_nodes.body.needs.nodes = 2;
    let requests = [
        Request::Status,
        Request::Submit { key: "k".to_owned(), submission: Box::new(submission(3, vec![TaskRef::Array(ArrayId(2))])) },
        Request::Submit { key: "r".to_owned(), submission: Box::new(rich()) },
        Request::Submit { key: "n".to_owned(), submission: Box::new(on_two_nodes) },
        Request::Tasks { tasks: some(), kinds: vec![Kind::Ready, Kind::Failed], after: Some(TASK), limit: 10 },
        Request::Tasks { tasks: Vec::new(), kinds: Vec::new(), after: None, limit: 1000 },
        Request::Cancel { tasks: some() },
        Request::Retry { tasks: all() },
        Request::Wait { tasks: all(), timeout: 100 },
        Request::Scale { jobs: 3 },
        Request::Adapt { adapt: adapt() },
        Request::Decisions,
        Request::Jobs,
        Request::Down { mode: DownMode::Stop },
    ];
    let asked = |request| ClientMessage::Request { id: 1, request: Box::new(request) };
    let greeting = ClientHello { protocol: PROTOCOL_VERSION, version: "0.1.0".to_owned() };
    let mut seeds = vec![("hello", frame(&[ClientMessage::Hello(greeting)]))];
    seeds.push(("all", frame(&requests.clone().map(asked))));
    let names = [
        "status",
        "submit",
        "submit-rich",
        "submit-nodes",
        "tasks",
        "page",
        "cancel",
        "retry",
        "wait",
        "scale",
        "jobs",
        "down",
    ];
    seeds.extend(names.into_iter().zip(requests).map(|(name, request)| (name, frame(&[asked(request)]))));
    seeds
}

fn from_server() -> Vec<Seed> {
    let body = |submission: Submission| ServerMessage::Body { array: ArrayId(2), body: Box::new(submission.body) };
    let welcome =
        Welcome { id: WorkerId(7), epoch: 1, heartbeat_seconds: 5, orphan_timeout_seconds: 600, guests: vec![run(8)] };
    let start = |number: u64| {
        let gpus = vec![GpuPart { gpu: 0, share: Gpus(500) }];
        let nodes = vec![NodePart { worker: WorkerId(7), node: "n1".to_owned(), cores: 2 }];
        let place = Place { gpus, cores: vec![NumaCores { numa: 1, cores: 2 }], nodes };
        Start { element: TASK.element, run: run(number), input: vec!["x".into()], place: Some(Box::new(place)) }
    };
    let assign = |number: u64| ServerMessage::Assign {
        array: TASK.array,
        variant: 0,
        line: 16,
        after_ends: number.is_multiple_of(2).then_some(0),
        starts: vec![start(number), start(number + 10)],
    };
    let take_back = || ServerMessage::TakeBack { runs: vec![run(2), run(12)] };
    let guest = |here| ServerMessage::Guest { run: run(9), here };
    let recorded = |number: u64| ServerMessage::Recorded { runs: vec![run(number)], sequence: 9 };
    let welcome = || ServerMessage::Welcome(welcome.clone());
    vec![
        ("welcome", frame(&[welcome(), ServerMessage::Heartbeat])),
        ("refused", frame(&[ServerMessage::Refused { reason: "the job has ended".to_owned() }])),
        (
            "work",
            frame(&[welcome(), body(submission(9, vec![])), assign(1), assign(2), assign(1), take_back(), recorded(2)]),
        ),
        ("rich", frame(&[welcome(), body(rich()), assign(3), ServerMessage::Kill { task: TASK, run: run(3) }])),
        (
            "drain",
            frame(&[
                welcome(),
                guest(true),
                ServerMessage::Drain,
                guest(false),
                ServerMessage::TimeLeft { seconds: 20 },
            ]),
        ),
        ("stop", frame(&[welcome(), body(rich()), assign(1), ServerMessage::Stop { grace_seconds: 2 }])),
    ]
}

fn jobs() -> Vec<Job> {
    let mut ledger = Ledger::new("abcd", 1, "default", 2, 60);
    let now = crate::ledger::Moment { wall: 1, clock: 1 };
    ledger.scale(2, now);
    let situation = crate::ledger::Situation { work: true, drain_first: Vec::new(), ..Default::default() };
    ledger.plan(&situation, now);
    ledger.jobs().cloned().collect()
}

fn to_client() -> Vec<Seed> {
    let reply = |reply| ClientReply::Reply { id: 1, reply: Box::new(reply) };
    let info = TaskInfo {
        task: TASK,
        index: Some(4),
        name: "n".to_owned(),
        kind: Kind::Failed,
        reason: Some("exit code 3".to_owned()),
        node: Some("n1".to_owned()),
        exit_code: Some(3),
        signal: None,
        started_at: Some(1),
        usage: Some(USAGE),
        stdout: "/a".into(),
        stderr: "/b".into(),
        command: "true".into(),
    };
    let progress = Progress { counts: Counts::default(), jobs_live: 1, workers: 1, waiting_for: None };
    let error = Reply::Error { kind: ErrorKind::Usage, what: "w".to_owned(), fix: Some("f".to_owned()) };
    vec![
        ("welcome", frame(&[ClientReply::Welcome { epoch: 1, version: "0.1.0".to_owned() }])),
        ("tasks", frame(&[reply(Reply::Tasks { tasks: vec![info.clone(), info], next: Some(TASK) })])),
        ("progress", frame(&[reply(Reply::Progress(progress)), reply(Reply::Changed { tasks: 7 })])),
        ("error", frame(&[reply(error), reply(Reply::Submitted { array: ArrayId(1) }), reply(Reply::Scaled)])),
        ("decisions", frame(&[reply(Reply::Decisions(decisions()))])),
        ("left", frame(&[reply(Reply::Left { jobs: jobs(), closed: false })])),
    ]
}

fn decisions() -> Decisions {
    let decision = Decision { drain: vec![3], reason: "give up 1 job".to_owned(), ..Decision::default() };
    let entries = vec![Entry { number: 1, at: 5, decision, times: 1 }];
    Decisions { entries, jobs: BTreeMap::from([(3, JobDecisions { asked: None, given_up: Some(1) })]) }
}

fn adapt() -> Adapt {
    Adapt {
        min: 1,
        max: 9,
        efficiency_percent: 65,
        idle_timeout_seconds: Some(60),
        max_pending: None,
        rate_per_minute: Some(5),
    }
}

fn records() -> Vec<Record> {
    let detail = Detail { worker: WorkerId(1), started_at: 5, usage: USAGE };
    let task = |element| TaskId { array: ArrayId(2), element };
    let mut records = vec![
        Record::Scaled { jobs: 2, reached: true },
        Record::Adapted(adapt()),
        Record::Submitted {
            array: ArrayId(1),
            key: "a".into(),
            submission: Arc::new(submission(1, Vec::new())),
            at: 1,
        },
        Record::Submitted {
            array: ArrayId(2),
            key: "b".into(),
            submission: Arc::new(submission(9, vec![TaskRef::Array(ArrayId(1))])),
            at: 2,
        },
        Record::Joined { worker: WorkerId(1), job: None, nonce: "00".to_owned(), node: "n1".to_owned() },
        Record::Ended { task: TaskId { array: ArrayId(1), element: 0 }, end: End::Finished, detail: Some(detail) },
        Record::Retried { task: task(1) },
        Record::Lost { task: task(1) },
        Record::Ended { task: task(0), end: End::Failed(Outcome::Failed { code: 1 }), detail: None },
        Record::ManyEnded { array: ArrayId(2), end: End::Cancelled, ranges: vec![(4, 6)] },
        Record::Runs { array: ArrayId(2), runs: vec![(5, detail)] },
        Record::Finished { array: ArrayId(2), runs: vec![(7, detail)] },
        Record::Revived { task: task(0) },
        Record::Used(USAGE),
        Record::Withdrawn { array: ArrayId(2) },
        Record::Left { worker: WorkerId(1) },
        Record::Stopping,
        Record::Opened,
    ];
    records.extend(jobs().into_iter().map(|job| Record::Job(Box::new(job))));
    records
}

/// A journal and a lease as a server leaves them.
fn on_disk() -> (Vec<Seed>, Vec<Seed>) {
    let folder = tempfile::tempdir().expect("folder");
    let disk = RealDisk::open(folder.path()).expect("disk");
    let base: Vec<Vec<u8>> = records().iter().map(Record::encode).collect();
    let start = Journal::start(&disk, CLUSTER, 1, Position::default(), base.iter(), Limits::default());
    let mut journal = start.expect("started");
    let read = |file: &str| std::fs::read(folder.path().join(file)).expect("written");
    let mut parts = vec![("base", read("journal/1.1"))];
    journal.append(&base[3..5]).expect("appended");
    journal.append(&[b"x".to_vec()]).expect("appended");
    parts.push(("frames", read("journal/1.1")));
    journal.mark().expect("marked");
    journal.close().expect("closed");
    parts.push(("closed", read("journal/1.1")));
    let holder =
        Holder { nonce: [7; 16], host: "h".to_owned(), boot: "b".to_owned(), pid: 1, pid_namespace: 2, pid_start: 3 };
    claim(&disk, &holder, 1).expect("claimed");
    let (mut lease, _) = Lease::open(&disk, holder, 1).expect("opened");
    let mut leases = vec![("claim", read("epochs/1")), ("opened", read("lease"))];
    lease.beat(5).expect("beat");
    leases.push(("beat", read("lease")));
    (parts, leases)
}

fn texts(texts: &[(&'static str, &str)]) -> Vec<Seed> {
    texts.iter().map(|(name, text)| (*name, text.as_bytes().to_vec())).collect()
}

fn of_slurm() -> Vec<Seed> {
    texts(&[
        (
            "squeue",
            "7_0|RUNNING|1-00:01:05|n01|None|dcabcd-000003\n7_[2-3%5]|PENDING|1:00:00||Resources|dcabcd-000003\n",
        ),
        (
            "sacct",
            "6_[0-2]|CANCELLED by 0|0:0|None assigned|dcabcd-000020\n952|OUT_OF_MEMORY|0:125|n01|dcabcd-000021\n",
        ),
        ("sbatch", "Welcome 12\n41;bed\n"),
        ("config", include_str!("../../tests/fixtures/slurm/scontrol_show_config.out")),
        ("partition", include_str!("../../tests/fixtures/slurm/scontrol_show_partition.out")),
        ("error", "sbatch: error: Batch job submission failed: Invalid partition name specified\n"),
        ("limit", "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed\n"),
        ("reason", "AssocGrpCPUMinutesLimit"),
        ("exit", r#"{"exit_code":137,"signal":9,"time":1795449512,"node":"n01","id":"12_3","restart":1}"#),
    ])
}

/// Captures of the commands that a test knows.
macro_rules! captures {
    ($system:literal: $($name:literal),* $(,)?) => {
        texts(&[$(($name, include_str!(concat!("../../tests/fixtures/", $system, "/", $name)))),*])
    };
}

fn of_sge() -> Vec<Seed> {
    let mut seeds = captures!(
        "sge": "qstat_xml.out", "qstat_r_xml.out", "qstat_dr_xml.out", "down_qstat_j_xml.out", "qstat_j.out",
        "qacct.out", "qconf_sc.out", "qconf_se.out", "qconf_sp_smp.out", "qconf_sq.out", "qstat_gc.out", "errors.txt",
    );
    seeds.extend(texts(&[("qsub", "Welcome 12\n71.1-10:1\n"), ("version", "SGE 8.1.9\nusage: qstat [options]\n")]));
    seeds
}

fn of_pbs() -> Vec<Seed> {
    let mut seeds = captures!(
        "pbs": "qstat_f_running.out", "qstat_f_w.out", "qstat_array_f.out", "qstat_array_sub_q.out",
        "qstat_multi_f_unknown_mid.out", "errors.txt",
    );
    let job = "Job Id: 22[3].server\n    Job_Name = dcabcd-000003\n    job_state = F\n    Exit_status = 271\n    \
               array_index = 3\n    comment = Job run at Tue Nov 24 at 10:02\n\t on (n1:ncpus=1)\n";
    let site = "Server: server\n    default_queue = workq\n    max_array_size = 10000\n\n\
                Queue: workq\n    enabled = True\n    started = False\n    resources_max.walltime = 24:00:00\n    \
                max_run = [u:PBS_GENERIC=4]\n\nn1\n     state = free\n     resources_available.ncpus = 16\n";
    seeds.extend(texts(&[("job", job), ("site", site), ("qsub", "Welcome 12\n22[].server\n")]));
    seeds
}

fn of_lsf() -> Vec<Seed> {
    let mut seeds = captures!(
        "lsf": "bjobs_mix.out", "bjobs_w_running.out", "bjobs_array_w.out", "bjobs_p.out", "bjobs_l_runlimit.out",
        "bjobs_l_killed_pending.out", "bhist.out", "openlava4_bhist_l.out", "bqueues_l.out", "bparams.out",
        "bhosts.out", "lshosts.out", "lsid.out", "errors.txt",
    );
    let json = r#"{"COMMAND":"bjobs","JOBS":1,"RECORDS":[{"JOBID":"117","JOBINDEX":"3","STAT":"EXIT","EXEC_HOST":"2*n1",
        "EXIT_CODE":"140","EXIT_REASON":"TERM_RUNLIMIT: job killed","RUNTIMELIMIT":"60.0","RUN_TIME":"61 second(s)",
        "PEND_REASON":"","JOB_NAME":"dcabcd-000003[3]"}]}"#;
    let columns = "117^3^RUN^2*n1^-^-^dcabcd-000003[3]\n";
    seeds.extend(texts(&[("json", json), ("columns", columns), ("bsub", "Job <7> is submitted to queue <normal>.\n")]));
    seeds
}

fn of_oar() -> Vec<Seed> {
    captures!("oar": "oarstat_fJ.out", "oarnodes_J.out", "submit_array.out", "submit_json.out", "errors.txt")
}

fn of_condor() -> Vec<Seed> {
    let mut seeds = captures!("condor": "q.json", "history.json", "analyze.out", "errors.txt");
    seeds.extend(texts(&[("submit", "Welcome 12\n5.0 - 5.4\n"), ("version", "$CondorVersion: 23.9.6 2024-08-08 $\n")]));
    seeds
}

fn of_template() -> Vec<Seed> {
    texts(&[
        ("plain", "gzip {}\na b\n-n"),
        ("parts", "convert {} {.} {/} {//} {/.} {#} {1} {2.}\n/x/y.z\n'q'"),
        ("quotes", "echo \"a {} $x\" 'b {}' c\\ {} ${v:-{}}\n$(x)\n`y`"),
        ("shell", "x={}; if [ $x = 1 ]; then cat <<EOF\n{}\nEOF\nfi # {}"),
        ("tail", "echo {} ::: a b :::+ c d :::: file ::::+ -"),
        ("empty", "\nls -l\nrm x"),
        ("records", "a\0b\0\0c\n"),
    ])
}

fn of_config() -> Vec<Seed> {
    texts(&[
        (
            "file",
            "backend = \"slurm\"\ncores = 4\nmemory = \"8G\"\nwalltime = \"1-02:00:00\"\ncounters = { lic = 2 }\n",
        ),
        (
            "profile",
            "jobs = 3\nprologue = \"\"\"\nmodule load x\n\"\"\"\n[profile.big]\ncores = 64\ndirectives = [\"--exclusive\"]\n",
        ),
        ("duration", "1d2h30m"),
        ("clock", "1-02:03:04"),
        ("size", "1.5GiB"),
        ("array", "1-9:2,4%3"),
        ("ids", "3.1-5,9"),
    ])
}

/// Returns the seeds of a target.
pub(super) fn seeds(target: &str) -> Vec<Seed> {
    match target {
        "frames" => {
            let mut seeds: Vec<Seed> = from_worker().into_iter().map(|(name, body)| (name, framed(&body))).collect();
            let all: Vec<u8> = seeds.iter().flat_map(|(_, frame)| frame.clone()).collect();
            seeds.push(("several", all));
            seeds.push(("too-long", b"\xff\xff\xff\xff".to_vec()));
            seeds.push(("empty", vec![0; 8]));
            seeds
        }
        "worker_message" | "worker_against_core" => from_worker(),
        "client_message" | "client_against_core" => from_client(),
        "server_message" | "server_against_session" => from_server(),
        "client_reply" => to_client(),
        "records_against_core" => {
            vec![("all", frame(&records())), ("few", frame(&records()[..4]))]
        }
        "journal" => on_disk().0,
        "lease" => on_disk().1,
        "slurm" => of_slurm(),
        "sge" => of_sge(),
        "pbs" => of_pbs(),
        "lsf" => of_lsf(),
        "oar" => of_oar(),
        "condor" => of_condor(),
        "template" => of_template(),
        "config" => of_config(),
        other => panic!("no seeds for {other}"),
    }
}
