//! Measures the journal and prints a table: `cargo bench --bench journal [-- N]`.
//!
//! N tasks (1,000,000) that have finished, as one array and as single tasks: bytes on disk, time to replay
//! them as a starting server does, how long the event loop stands still for a new part, and what the journal's
//! thread does with it. Then what frame, checksum and fence cost beside a bare write and `fdatasync` of the
//! same bytes, taken in turn on the same disk. `DCLUSTER_BENCH_FOLDER` names another disk.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a measuring program")]

use dcluster::cluster::{Folder, Identity};
use dcluster::config::spec::{BackendKind, PoolSpec, Spec};
use dcluster::ledger::Moment;
use dcluster::runtime::disk::{Disk, DiskFile, RealDisk};
use dcluster::runtime::ids::{ArrayId, WorkerId};
use dcluster::runtime::journal::{Journal, Limits, Position};
use dcluster::runtime::lease::{Claim, Holder, Lease, claim};
use dcluster::runtime::protocol::{Body, Command, Indexes, Needs, Output, Submission, Usage};
use dcluster::server::core::{self, Core};
use dcluster::server::record::{Detail, Record};
use dcluster::server::{core_of, replay};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Ends that become durable together: what a fast disk sees of 10,000 tasks a second.
const TURN: u32 = 50;
const ROUNDS: usize = 400;

fn spec() -> Spec {
    Spec { jobs: 3, orphan_timeout_seconds: 60, ..Spec::new(BackendKind::Local, PoolSpec::new(2)) }
}

fn submission(indexes: Indexes) -> Submission {
    let body = Body {
        command: Command::Argv(vec!["./model".into(), "--year".into(), "1999".into()]),
        name: "model".to_owned(),
        cwd: "/home/ann/runs/spring".into(),
        env: BTreeMap::new(),
        stdin: None,
        stdout: Output::Default,
        stderr: Output::Default,
        time_limit_seconds: None,
        needs: Needs::default(),
        indexes,
        umask: 0o022,
    };
    Submission {
        body,
        inputs: Vec::new(),
        priority: 0,
        retries: 0,
        time_request_seconds: None,
        after: Vec::new(),
        at_most: None,
    }
}

fn submitted(array: u32, indexes: Indexes) -> Record {
    Record::Submitted {
        array: ArrayId(array),
        key: format!("{:032x}", u128::from(array) << 70 | 0x1234_5678_9abc).into(),
        submission: Arc::new(submission(indexes)),
        at: 1_790_000_000_000,
    }
}

fn finished(array: u32, elements: std::ops::Range<u32>) -> Record {
    let detail = |element: u32| Detail {
        worker: WorkerId(1 + element % 300),
        started_at: 1_790_000_000_000 + u64::from(element) * 7,
        usage: Usage {
            wall_milliseconds: 60_000 + u64::from(element % 977),
            cpu_milliseconds: 59_000 + u64::from(element % 877),
            memory_bytes: (200 << 20) + u64::from(element % 1024) * 4096,
        },
    };
    Record::Finished { array: ArrayId(array), runs: elements.map(|element| (element, detail(element))).collect() }
}

struct Bed {
    folder: Folder,
    identity: Identity,
    disk: RealDisk,
    _root: tempfile::TempDir,
}

impl Bed {
    fn new(place: &Path) -> Self {
        let root = tempfile::tempdir_in(place).unwrap();
        let folder = Folder::of(root.path(), "bench");
        folder.create(&spec(), b"").unwrap();
        let identity = folder.open().unwrap();
        let disk = RealDisk::open(folder.path()).unwrap();
        Self { folder, identity, disk, _root: root }
    }

    fn core(&self) -> Core {
        core_of(&self.folder, &self.identity, 1, 1).unwrap()
    }

    fn start<I>(&self, base: I) -> Journal<RealDisk>
    where
        I: Iterator<Item: AsRef<[u8]>> + Clone,
    {
        Journal::start(self.disk.clone(), &self.identity.id, 1, Position::default(), base, Limits::default()).unwrap()
    }

    /// Replays as a starting server does; best of three.
    fn replay(&self) -> (Duration, Core) {
        let mut best: Option<(Duration, Core)> = None;
        for _ in 0..3 {
            let begun = Instant::now();
            let mut core = self.core();
            replay(&self.folder, &self.disk, &self.identity, None, &mut core).unwrap();
            core.finish_restore(false, true, Moment { wall: 0, clock: 0 }, &mut core::Output::default());
            let took = begun.elapsed();
            if best.as_ref().is_none_or(|(best, _)| took < *best) {
                best = Some((took, core));
            }
        }
        best.unwrap()
    }

    fn bytes(&self) -> u64 {
        let files = std::fs::read_dir(self.folder.path().join("journal")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }
}

fn row(what: &str, tasks: u32, bytes: u64, time: Duration) {
    let per = bytes as f64 / f64::from(tasks);
    println!("{what:<44} {per:>8.1} {:>8.1} {:>9.2}", bytes as f64 / 1e6, time.as_secs_f64());
}

fn journals(place: &Path, tasks: u32) {
    println!("{tasks} finished tasks                                B/task       MB  replay s");
    let range = Indexes::Range { first: 0, count: tasks, step: 1 };
    let turns = |array: u32, step: u32| {
        (0..tasks).step_by(step as usize).map(move |first| finished(array, first..tasks.min(first + step)))
    };
    let mut pauses = Vec::new();
    for (what, step) in [("array, 50 ends a record", TURN), ("array, an end a record", 1)] {
        let bed = Bed::new(place);
        let mut journal = bed.start(std::iter::empty::<&[u8]>());
        let records: Vec<Vec<u8>> =
            std::iter::once(submitted(1, range.clone())).chain(turns(1, step)).map(|record| record.encode()).collect();
        records.chunks(1000).for_each(|records| {
            journal.append(records).unwrap();
        });
        drop(records);
        let (time, core) = bed.replay();
        row(what, tasks, bed.bytes(), time);
        if step == TURN {
            pauses.push(base("array", place, tasks, &core));
        }
    }
    let bed = Bed::new(place);
    let mut journal = bed.start(std::iter::empty::<&[u8]>());
    for first in (1..=tasks).step_by(1000) {
        let arrays = first..=tasks.min(first + 999);
        let records = arrays.flat_map(|array| [submitted(array, Indexes::Single), finished(array, 0..1)]);
        journal.append(&records.map(|record| record.encode()).collect::<Vec<_>>()).unwrap();
    }
    let (time, core) = bed.replay();
    row("single tasks", tasks, bed.bytes(), time);
    pauses.push(base("single tasks", place, tasks, &core));
    println!("\nnew part                      event loop stands ms   encode ms   encode, write, sync ms");
    pauses.iter().for_each(|line| println!("{line}"));
}

/// Writes a base of its own and replays it; returns what that cost.
fn base(what: &str, place: &Path, tasks: u32, core: &Core) -> String {
    let begun = Instant::now();
    let snapshot = core.snapshot();
    let pause = begun.elapsed();
    let begun = Instant::now();
    let bytes: usize = snapshot.encoded().map(|record| record.len()).sum();
    let encode = begun.elapsed();
    assert!(bytes > 0);
    let bed = Bed::new(place);
    let begun = Instant::now();
    let journal = bed.start(snapshot.encoded());
    let write = begun.elapsed();
    drop((journal, snapshot));
    let (time, _) = bed.replay();
    row(&format!("{what}, base"), tasks, bed.bytes(), time);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    format!("{what:<30} {:>20.1} {:>11.1} {:>24.1}", ms(pause), ms(encode), ms(write))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn frames(place: &Path) {
    println!("\nframe, sync, fence                  bytes   bare us   journal us   ratio   encode+frame+crc ns/task");
    for (what, ends) in [("one end", 1), ("50 ends", TURN), ("2,000 ends", 2000)] {
        let bed = Bed::new(place);
        let holder =
            Holder { nonce: [7; 16], host: "h".into(), boot: "b".into(), pid: 1, pid_namespace: 1, pid_start: 1 };
        assert!(matches!(claim(&bed.disk, &holder, 1).unwrap(), Claim::Won { .. }));
        let (lease, _) = Lease::open(bed.disk.clone(), holder, 1).unwrap();
        let mut journal = bed.start(std::iter::empty::<&[u8]>());
        let mut bare = bed.disk.create("bare").unwrap();
        let mut at = 0;
        let (mut of_bare, mut of_journal) = (Vec::new(), Vec::new());
        let records = [finished(1, 0..ends).encode()];
        let frame = vec![0x5a_u8; records[0].len() + 36];
        for round in 0..ROUNDS {
            let mut bare_turn = || {
                let begun = Instant::now();
                bare.write_at(at, &frame).unwrap();
                bare.sync().unwrap();
                at += frame.len() as u64;
                of_bare.push(begun.elapsed());
            };
            let mut journal_turn = || {
                let begun = Instant::now();
                journal.append(&records).unwrap();
                lease.fence().unwrap();
                of_journal.push(begun.elapsed());
            };
            // Whoever is second may find the disk warmer.
            if round % 2 == 0 {
                bare_turn();
                journal_turn();
            } else {
                journal_turn();
                bare_turn();
            }
        }
        let rounds = 200_000 / ends;
        let begun = Instant::now();
        for round in 0..rounds {
            let bytes = finished(1, round..round + ends).encode();
            std::hint::black_box(crc32fast::hash(std::hint::black_box(&bytes)));
        }
        let encode = begun.elapsed().as_nanos() / u128::from(rounds * ends);
        let (bare, journal) = (median(of_bare).as_secs_f64() * 1e6, median(of_journal).as_secs_f64() * 1e6);
        println!("{what:<34} {:>6} {bare:>9.0} {journal:>12.0} {:>7.2} {encode:>26}", frame.len(), journal / bare);
    }
}

fn main() {
    let tasks = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(1_000_000);
    let place =
        std::env::var_os("DCLUSTER_BENCH_FOLDER").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    journals(&place, tasks);
    frames(&place);
}
