//! The bytes of journal, lease and claims are a promise: clusters of every released version are read.
//!
//! `tests/golden/journal/N` is the cluster folder (the part of it that says who may write, and what was
//! acknowledged) that version N of the format leaves for fixed inputs. **An old one is never changed or made
//! again.** When the format changes on purpose: keep the old folder and its `records_N`, run
//! `the_same_bytes_are_written`, which fails and leaves the new files in `target/tmp/golden-journal`, copy
//! them to `tests/golden/journal/N+1`, add `records_N+1`, and let [`NEWEST`] name it. What an old folder reads
//! as may gain fields with defaults; nothing of it may get lost.

use dcluster::config::spec::Adapt;
use dcluster::ledger::{EndReason, Job, JobState};
use dcluster::runtime::disk::RealDisk;
use dcluster::runtime::ids::{ArrayId, JobName, JobSeq, NativeId, TaskId, WorkerId};
use dcluster::runtime::journal::{Journal, Limits, Position, Records, recover};
use dcluster::runtime::lease::{Claim, Holder, Lease, ServerState, claim, newest_claim, read_claim, read_lease};
use dcluster::runtime::protocol::{
    Body, Command, Gpus, Indexes, Needs, Outcome, Output, Request, Submission, TaskRef, Usage,
};
use dcluster::runtime::scheduler::End;
use dcluster::server::record::{Detail, Record};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const NEWEST: u32 = 1;
const ID: &str = "6f1c0c0e000040008000000000000001";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/journal")
}

fn holder(number: u8) -> Holder {
    Holder {
        nonce: [number; 16],
        host: format!("node{number}"),
        boot: "0b8e5b4e-7c58-4a52-9c5e-3a1f3c1d7e21".into(),
        pid: 4000 + u32::from(number),
        pid_namespace: 4_026_531_836,
        pid_start: 123_456,
    }
}

fn submission() -> Submission {
    let body = Body {
        command: Command::Argv(vec!["./model".into(), b"caf\xe9".as_slice().into()]),
        name: "model".to_owned(),
        cwd: "/home/ann/runs".into(),
        env: BTreeMap::from([("OMP_NUM_THREADS".into(), "4".into())]),
        stdin: Some("in.nc".into()),
        stdout: Output::File("out.{id}".into()),
        stderr: Output::SameAsStdout,
        time_limit_seconds: Some(3600),
        needs: Needs {
            variants: vec![
                Request {
                    cores: 4,
                    memory_bytes: 8 << 30,
                    gpus: Gpus(1500),
                    counters: BTreeMap::from([("licence".to_owned(), 2)]),
                    compact: true,
                },
                Request { cores: 16, ..Request::default() },
            ],
            nodes: 1,
        },
        indexes: Indexes::Range { first: 1, count: 10_000, step: 2 },
        umask: 0o022,
    };
    Submission {
        body,
        inputs: Vec::new(),
        priority: -3,
        retries: 2,
        time_request_seconds: Some(600),
        after: Vec::new(),
        at_most: Some(100),
    }
}

fn detail(element: u32) -> Detail {
    let usage = Usage {
        wall_milliseconds: 1000 + u64::from(element),
        cpu_milliseconds: 900,
        memory_bytes: u64::from(element) << 20,
    };
    Detail { worker: WorkerId(element % 7), started_at: 1_790_000_000_000 + u64::from(element), usage }
}

/// What the first server of version 1 wrote: a base, then batches. Every kind of record, every kind of end.
fn records_1() -> (Vec<Record>, Vec<Vec<Record>>) {
    let (one, two, three) = (ArrayId(1), ArrayId(2), ArrayId(3));
    let task = |array, element| TaskId { array, element };
    let key = |number: u32| format!("{number:032x}");
    let mapped = Submission {
        body: Body {
            command: Command::Template("gzip {}".into()),
            stdin: None,
            stdout: Output::Default,
            stderr: Output::Default,
            indexes: Indexes::List(vec![3, 5]),
            ..submission().body
        },
        inputs: vec![vec!["a.nc".into()], vec!["b.nc".into()]],
        after: vec![TaskRef::Array(one), TaskRef::Task(task(one, 4))],
        ..submission()
    };
    let single = Submission { body: Body { indexes: Indexes::Single, ..submission().body }, ..submission() };
    let job = Job {
        seq: JobSeq(1),
        name: JobName::new("abcd", JobSeq(1)),
        pool: "default".to_owned(),
        walltime_seconds: None,
        submit: JobSeq(1),
        epoch: 1,
        state: JobState::Ended,
        unknown: false,
        silent: true,
        cancelling: false,
        draining: true,
        id: Some(NativeId("1234_7".to_owned())),
        reason: "Priority".to_owned(),
        node: Some("node17".to_owned()),
        intended_at: 1_790_000_000_000,
        started_at: Some(1_790_000_001_000),
        ended_at: Some(1_790_000_002_000),
        end: Some(EndReason::Walltime),
        exit_code: Some(3),
        was_up: true,
        requeues: 2,
    };
    let ended = |array, element, end, detail| Record::Ended { task: task(array, element), end, detail };
    let base = vec![
        Record::Submitted { array: one, key: key(1).into(), submission: Arc::new(submission()), at: 1_790_000_000_000 },
        Record::Lost { task: task(one, 9000) },
        Record::Retried { task: task(one, 9001) },
        Record::ManyEnded { array: one, end: End::Finished, ranges: vec![(0, 1), (3, 300)] },
        Record::ManyEnded { array: one, end: End::Failed(Outcome::Failed { code: 3 }), ranges: vec![(2, 2)] },
        Record::Runs { array: one, runs: (0..=300).map(|element| (element, detail(element))).collect() },
        Record::Job(Box::new(job)),
        Record::Joined { worker: WorkerId(1), job: Some(JobSeq(1)), nonce: "00".repeat(16), node: "node17".to_owned() },
        Record::Left { worker: WorkerId(1) },
        Record::Used(Usage { wall_milliseconds: 1 << 40, cpu_milliseconds: 1 << 33, memory_bytes: 1 << 35 }),
        Record::Scaled { jobs: 3, reached: true },
        Record::Adapted(Adapt {
            min: 1,
            max: 50,
            efficiency_percent: 65,
            idle_timeout_seconds: Some(300),
            max_pending: None,
            rate_per_minute: Some(10),
        }),
        Record::Stopping,
    ];
    let batches = vec![
        vec![Record::Opened],
        vec![
            Record::Submitted { array: two, key: key(2).into(), submission: Arc::new(mapped), at: 1_790_000_003_000 },
            Record::Submitted { array: three, key: key(3).into(), submission: Arc::new(single), at: 1_790_000_003_001 },
            Record::Withdrawn { array: three },
            ended(three, 0, End::Cancelled, None),
        ],
        vec![
            Record::Finished { array: one, runs: vec![(400, detail(400)), (350, detail(350))] },
            ended(one, 401, End::Failed(Outcome::Signalled { signal: 9 }), Some(detail(401))),
            ended(one, 402, End::Failed(Outcome::TimeLimit), Some(detail(402))),
            ended(one, 403, End::Failed(Outcome::NotStarted { error: "no such file: ./model".to_owned() }), None),
            ended(one, 404, End::Poisonous, None),
            ended(one, 405, End::Failed(Outcome::MemoryLimit { used_bytes: 3 << 30, limit_bytes: 1 << 30 }), None),
            ended(two, 0, End::DependencyFailed(task(one, 401)), None),
            Record::Revived { task: task(one, 402) },
        ],
        vec![Record::Joined { worker: WorkerId(2), job: None, nonce: "11".repeat(16), node: "login1".to_owned() }],
    ];
    (base, batches)
}

fn encoded(records: &[Record]) -> Vec<Vec<u8>> {
    records.iter().map(Record::encode).collect()
}

/// Two servers in turn, over a folder that is there.
fn write(root: &Path) {
    let disk = RealDisk::open(root).unwrap();
    let limits = Limits { reserve_bytes: 64, ..Limits::default() };
    let (base, batches) = records_1();
    assert!(matches!(claim(&disk, &holder(1), 1).unwrap(), Claim::Won { epoch: 1 }));
    let (mut lease, _) = Lease::open(disk.clone(), holder(1), 1).unwrap();
    let nothing = std::iter::empty::<&[u8]>();
    let mut journal = Journal::start(disk.clone(), ID, 1, Position::default(), nothing, limits).unwrap();
    journal.append(&encoded(&base[..1])).unwrap();
    journal.mark().unwrap();
    // The second part is built while the first goes on: the last batch comes meanwhile.
    let (last, batches) = batches.split_last().unwrap();
    let plan = journal.plan_part().unwrap();
    let built = plan.build(&disk, encoded(&base).iter()).unwrap();
    journal.append(&encoded(last)).unwrap();
    journal.adopt_part(built, encoded(last).iter()).unwrap();
    for batch in batches {
        journal.append(&encoded(batch)).unwrap();
    }
    lease.beat(journal.mark().unwrap()).unwrap();

    assert!(matches!(claim(&disk, &holder(2), 2).unwrap(), Claim::Won { epoch: 2 }));
    let (mut lease, before) = Lease::open(disk.clone(), holder(2), 2).unwrap();
    let read = recover(&disk, ID, before.as_ref()).unwrap();
    let mut journal = Journal::start(disk, ID, 2, read.position, encoded(&base).iter(), limits).unwrap();
    journal.append(&encoded(&batches[0])).unwrap();
    lease.close(journal.close().unwrap()).unwrap();
}

/// All files below a folder but the reserve, which holds nothing.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in ["", "epochs", "journal"] {
        for entry in fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap) {
            let name = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if entry.file_type().unwrap().is_file() && name != "reserve" {
                found.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

/// A private copy: git does not keep modes.
fn copy(version: u32) -> (tempfile::TempDir, RealDisk) {
    let root = tempfile::tempdir().unwrap();
    for (name, bytes) in files(&golden().join(version.to_string())) {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let disk = RealDisk::open(root.path()).unwrap();
    (root, disk)
}

fn decoded(records: &Records) -> Vec<Record> {
    records.iter().map(|bytes| Record::decode(bytes).unwrap()).collect()
}

#[test]
fn journals_of_version_1_are_read() {
    let (root, disk) = copy(1);
    let (base, batches) = records_1();
    // The second server closed in order.
    let lease = read_lease(&disk).unwrap().unwrap();
    assert_eq!((lease.epoch, &lease.holder, lease.state), (2, &holder(2), ServerState::Closed));
    assert_eq!(newest_claim(&disk).unwrap(), 2);
    assert_eq!(read_claim(&disk, 1).unwrap(), Some(holder(1)));
    let read = recover(&disk, ID, Some(&lease)).unwrap();
    assert!(read.clean && read.torn_bytes == 0 && read.unfinished.is_empty());
    assert_eq!(read.position.sequence, lease.durable);
    let mut expected = base.clone();
    expected.extend(batches[0].clone());
    assert_eq!(decoded(&read.records), expected);
    // The first left its second part, with what came while that was built.
    fs::remove_file(root.path().join("journal/2.1")).unwrap();
    let read = recover(&disk, ID, None).unwrap();
    let (last, batches) = batches.split_last().unwrap();
    let expected = [base, last.clone(), batches.concat()].concat();
    assert_eq!(decoded(&read.records), expected);
    assert!(!read.clean);
}

#[test]
fn the_same_bytes_are_written() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("golden-journal");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root).unwrap();
    // Whatever the umask: others could write into it.
    fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
    write(&root);
    let (written, expected) = (files(&root), files(&golden().join(NEWEST.to_string())));
    assert_eq!(written.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in written {
        let at = bytes.iter().zip(&expected[&name]).position(|(a, b)| a != b);
        assert!(bytes == expected[&name], "{name} differs from version {NEWEST} at {at:?}; see golden.rs");
    }
}
