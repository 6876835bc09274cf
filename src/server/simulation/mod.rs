//! The whole system in one thread with one seed: the real core, outbox, journal, lease, take-over, codec and
//! worker sessions; virtual clocks, links, disk, batch system, processes and users.
//!
//! Each seed draws which faults it has (`swarm`), `nemesis` does them, `checker` holds what must be true after
//! every step and at the end, `marks` what a run over the default seeds must have reached. The same seed gives the
//! same events. Environment: `SEEDS=n` runs so many (100); `SEED=n` runs that one, and tells what happens.

mod checker;
mod disk;
mod links;
mod machine;
mod marks;
mod nemesis;
mod process;
mod serving;
#[path = "../../../tests/support/simdisk.rs"]
#[expect(dead_code, reason = "shared with the crash tests, which walk crash states and interleave clients")]
mod simdisk;
mod site;
mod swarm;
mod users;
mod world;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use world::World;

const SEEDS: u64 = 160;
/// Every so many seeds run twice, and must give the same events.
const TWICE: u64 = 10;

struct Run {
    hash: u64,
    steps: u64,
    starts: u64,
    marks: BTreeSet<&'static str>,
}

fn simulate(seed: u64, loud: bool) -> Run {
    let mut world = World::new(seed, loud);
    let hash = world.run();
    Run { hash, steps: world.steps, starts: world.truth.runs.len() as u64, marks: world.marks }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// The commit, for who reads the failure elsewhere.
fn commit() -> String {
    let out = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let text = out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default();
    if text.is_empty() { String::new() } else { format!(" (commit {text})") }
}

fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}

/// Runs seeds on all cores; stops at the first that fails, and says which.
fn swarm(seeds: u64) -> Run {
    let next = AtomicU64::new(0);
    let sum = Mutex::new(Run { hash: 0, steps: 0, starts: 0, marks: BTreeSet::new() });
    let failed: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds || failed.lock().expect("no panic holds it").is_some() {
                return;
            }
            let run = catch_unwind(AssertUnwindSafe(|| {
                let run = simulate(seed, false);
                if seed.is_multiple_of(TWICE) {
                    assert_eq!(run.hash, simulate(seed, false).hash, "the same seed gives other events");
                }
                run
            }));
            match run {
                Ok(run) => {
                    let mut sum = sum.lock().expect("no panic holds it");
                    (sum.steps, sum.starts) = (sum.steps + run.steps, sum.starts + run.starts);
                    sum.marks.extend(run.marks);
                }
                Err(panic) => {
                    failed.lock().expect("no panic holds it").get_or_insert((seed, words(&*panic).to_owned()));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    if let Some((seed, what)) = failed.into_inner().expect("no panic holds it") {
        panic!(
            "seed {seed}{}: {what}\nreplay: SEED={seed} cargo test --lib server::simulation -- --nocapture",
            commit()
        );
    }
    sum.into_inner().expect("no panic holds it")
}

#[test]
#[expect(clippy::print_stderr, reason = "what a run has shown")]
fn promises_hold_whatever_fails() {
    if let Some(seed) = from_environment("SEED") {
        let run = simulate(seed, true);
        eprintln!("{} steps, {} starts, events {:016x}; {:#?}", run.steps, run.starts, run.hash, run.marks);
        return;
    }
    let seeds = from_environment("SEEDS").unwrap_or(SEEDS);
    let run = swarm(seeds);
    eprintln!("{seeds} seeds, {} steps, {} starts, {} situations", run.steps, run.starts, run.marks.len());
    if seeds >= SEEDS {
        let missing: Vec<_> = marks::REQUIRED.iter().filter(|mark| !run.marks.contains(*mark)).collect();
        assert!(
            missing.is_empty(),
            "these situations were reached nowhere, so nothing is shown about them: {missing:#?}"
        );
    }
}
