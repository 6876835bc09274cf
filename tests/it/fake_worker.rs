//! A cluster's folder with a shell script in place of our binary, for tests of the backends.
//!
//! The script writes what happens to it to `record.<job>`, one line each, and ends with the code in
//! `stop.<job>` once that file is there.

use dcluster::backends::render::JobHome;
use dcluster::backends::{Backend, JobRef, Observation, Observed, Submit};
use dcluster::config::spec::PoolSpec;
use dcluster::runtime::ids::{JobName, JobSeq};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Returns first letters of a cluster's id that no other test has: jobs are ended by name.
fn id4() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id() % 26_000 * 17 + NEXT.fetch_add(1, Ordering::Relaxed);
    let letter = |place| char::from(b'a' + u8::try_from(number / place % 26).unwrap());
    [17576, 676, 26, 1].into_iter().map(letter).collect()
}

const SCRIPT: &str = r#"#!/bin/bash
record() { printf '%s\n' "$*" >> "record.$job"; }
if [ "$1 $2 $3" = 'worker --sweep --job' ]; then job=$4; record sweep; exit; fi
[ "$1 $2 $4 $#" = 'worker --cluster-folder --job 5' ] || exit 90
job=$5
cd "$3" || exit 91
record "start $DCLUSTER_JOB $DCLUSTER_JOB_ID env=${FROM_ENV-} prologue=${FROM_PROLOGUE-} umask=$(umask) pwd=$PWD"
for s in USR1 USR2 HUP; do trap "record $s" $s; done
if [ -e stubborn ]; then trap 'record TERM' TERM; else trap 'record TERM; exit 5' TERM; fi
if [ -e litter ]; then setsid sleep 1000 & echo $! > "litter.$job"; fi
record ready
while [ ! -e "stop.$job" ]; do sleep 0.05; done
trap '' USR1 USR2 HUP # bash may lose the output of a substitution to a signal
code=$(<"stop.$job")
record "exit $code"
exit "$code"
"#;

/// A folder and what jobs have in common.
pub(crate) struct Fake {
    _folder: tempfile::TempDir,
    pub(crate) home: JobHome,
}

impl Fake {
    /// Makes the folder below `parent`; its name needs every kind of quoting.
    pub(crate) fn new(parent: &Path, change: impl FnOnce(&mut PoolSpec)) -> Self {
        Self::named(parent, "my \"clus%ter\" $HOME it's", change)
    }
    /// Makes a folder of this name.
    pub(crate) fn named(parent: &Path, name: &str, change: impl FnOnce(&mut PoolSpec)) -> Self {
        let outer = tempfile::tempdir_in(parent).unwrap();
        let folder = outer.path().join(name);
        std::fs::create_dir_all(folder.join("jobs")).unwrap();
        let binary = folder.join("fake 'dcluster'");
        crate::programs::write(&binary, SCRIPT);
        std::fs::write(folder.join("env.sh"), "export FROM_ENV='a  b'\n").unwrap();
        let mut pool = PoolSpec { memory_bytes: Some(100 << 20), walltime_seconds: Some(600), ..PoolSpec::new(1) };
        change(&mut pool);
        let home = JobHome::new(folder, binary, &id4(), pool);
        Self { _folder: outer, home }
    }
    /// Submits jobs `first..first + count`.
    pub(crate) async fn submit(&self, backend: &dyn Backend, first: u32, count: u32) -> Vec<JobRef> {
        let jobs: Vec<_> =
            (first..first + count).map(|n| (JobSeq(n), JobName::new(&self.home.id4, JobSeq(n)))).collect();
        let submit =
            Submit { pool: "default".to_owned(), walltime_seconds: None, jobs: jobs.clone(), exclude: Vec::new() };
        let ids = backend.submit(&submit).await.unwrap();
        assert_eq!(ids.len(), jobs.len());
        let with_ids = jobs.into_iter().zip(ids);
        with_ids.map(|((_, name), id)| JobRef { name, id: Some(id) }).collect()
    }
    /// Reads a file of the folder; empty when there is none.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.home.folder.join(name)).unwrap_or_default()
    }
    /// Writes a file of the folder, all at once.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.home.folder.join(name);
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }
    /// Returns what happened to a job.
    pub(crate) fn record(&self, job: &JobRef) -> String {
        self.read(&format!("record.{}", job.name))
    }
    /// Waits until a job's worker is ready.
    pub(crate) async fn ready(&self, job: &JobRef) {
        until("the worker is ready", async || self.record(job).contains("ready\n").then_some(())).await;
    }
}

impl Drop for Fake {
    /// A test that failed leaves no process either.
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.home.folder.join("jobs")).into_iter().flatten().flatten() {
            if let Some((name, _)) = entry.file_name().to_str().and_then(|n| JobName::parse(&self.home.id4, n)) {
                dcluster::backends::leftovers::sweep(&name);
            }
        }
    }
}

/// Waits for a condition, up to a minute.
pub(crate) async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the listing says that a job has ended.
pub(crate) async fn ended(backend: &dyn Backend, job: &JobRef) -> Observation {
    until("the job has ended", async || {
        let seen = backend.list(std::slice::from_ref(job)).await.unwrap();
        seen.into_iter().find(|o| matches!(o.state, Observed::Ended { .. }))
    })
    .await
}
