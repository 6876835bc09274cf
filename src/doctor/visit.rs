//! One probe from its making to its end: a cluster folder of its own, one job through the backend, its notes, and
//! then everything away again: the job by name and id, the folder, whatever happened in between. What a killed
//! doctor left behind is ended by the next one.

use super::greeting::{self, Greeter};
use super::probe::{MARK, Note, notes_file, read_notes};
use crate::backends::{self, Backend, BackendError, ErrorClass, JobRef, Observation, Observed, Submit};
use crate::cluster::{Folder, Identity, random};
use crate::config::spec::{PoolSpec, Spec};
use crate::error::{Kind, Problem};
use crate::runtime::ids::{JobName, JobSeq, NativeId};
use crate::runtime::lease::Holder;
use crate::server::clock;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Beginning of the names of doctors' folders; the dot keeps them out of `dcluster ls`.
const PREFIX: &str = ".doctor-";
/// Between two looks into the notes.
const GLANCE: Duration = Duration::from_millis(100);
/// Between two questions to the batch system.
const LISTING: Duration = Duration::from_secs(2);
/// A job that runs and notes nothing for so long never will: longer than a file system hides a new file (the
/// attribute cache of NFS, nfs(5), `acdirmax`).
const SILENCE: Duration = Duration::from_secs(75);
/// For the probe from its first note to its last.
const NOTES: Duration = Duration::from_secs(30);
/// For a cancelled job to be over: batch systems give 10 to 40 s of grace before they kill.
const END: Duration = Duration::from_secs(90);
/// Between two cancels of a job that does not end: the second one kills where the first asks.
const AGAIN: Duration = Duration::from_secs(20);
/// A job whose submission has no clear answer may come up so much later.
const LATE: Duration = Duration::from_secs(5);
/// A folder without a mark is no longer one that is being made.
const OLD: Duration = Duration::from_secs(3600);
/// Walltime of the probe: little, so that it starts soon.
const WALLTIME_SECONDS: u64 = 600;
/// Memory of the probe where the profile says a number.
const MEMORY_BYTES: u64 = 1 << 30;
/// Most bytes of the job's log that are told.
const LOG_BYTES: u64 = 600;

/// What came of a probe; the input of [`super::findings`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The job's name.
    pub job: String,
    /// What the batch system said to it.
    pub submitted: Result<NativeId, BackendError>,
    /// The addresses of this host that the probe was given.
    pub addresses: Vec<SocketAddr>,
    /// How long it waited to run, or has waited.
    pub waited: Duration,
    /// What it noted.
    pub notes: Vec<Note>,
    /// What the batch system said of it before it was cancelled.
    pub seen: Option<Observation>,
    /// It ended before it was cancelled.
    pub ended_early: bool,
    /// The end of its log.
    pub log: String,
    /// From the cancel to the end.
    pub end_took: Duration,
    /// What is left of it: a sentence.
    pub left: Option<String>,
}

/// Returns the shape of the probe: as little as a job of this pool can be, for it to start soon.
pub fn shape(pool: &PoolSpec) -> PoolSpec {
    let walltime = pool.walltime_seconds.unwrap_or(WALLTIME_SECONDS).min(WALLTIME_SECONDS);
    PoolSpec {
        cores: 1,
        memory_bytes: pool.memory_bytes.map(|bytes| bytes.min(MEMORY_BYTES)),
        gpus: pool.gpus.min(1),
        walltime_seconds: Some(walltime),
        walltime_choices: Vec::new(),
        // Its early warning is no sign of an end.
        drain_lead_seconds: 30.min(walltime / 4),
        on_exit: None,
        pin: false,
        ..pool.clone()
    }
}

/// Who made a folder.
#[derive(Serialize, Deserialize)]
struct Mark {
    host: String,
    boot: String,
    pid: u32,
    pid_namespace: u64,
    pid_start: u64,
}

impl Mark {
    fn of_process() -> Self {
        let Holder { host, boot, pid, pid_namespace, pid_start, .. } = clock::holder([0; 16]);
        Self { host, boot, pid, pid_namespace, pid_start }
    }

    /// Whether it is certain that the doctor is gone.
    fn is_gone(&self) -> bool {
        let Self { host, boot, pid, pid_namespace, pid_start } = self;
        let (host, boot) = (host.clone(), boot.clone());
        let (pid, pid_namespace, pid_start) = (*pid, *pid_namespace, *pid_start);
        let evidence = clock::evidence(&Holder { nonce: [0; 16], host, boot, pid, pid_namespace, pid_start }, None);
        let dead = evidence.same_pid_namespace && evidence.pid_alive_with_same_start == Some(false);
        evidence.same_host && (evidence.same_boot == Some(false) || dead)
    }
}

/// Folder, job and listeners of one probe.
pub struct Visit {
    folder: Folder,
    backend: Arc<dyn Backend>,
    spec: Spec,
    letters: String,
    job: JobRef,
    greeters: Vec<Greeter>,
    outcome: Outcome,
    /// A submission has begun: there may be a job.
    asked: bool,
    /// What the batch system said of the job last, its end included.
    last: Option<Observation>,
}

impl Visit {
    /// Makes the folder and listens; no job yet.
    ///
    /// # Errors
    ///
    /// If the folder cannot be made, or no address can be listened on. Nothing is left then.
    pub async fn prepare(state: &Path, spec: &Spec, environment: &[u8]) -> Result<Self, Problem> {
        let tag: String = random()?.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let folder = Folder::of(state, &format!("{PREFIX}{tag}"));
        // All addresses, whatever is configured: which of them work is the question.
        let spec = Spec {
            pool: shape(&spec.pool),
            pools: Default::default(),
            jobs: 1,
            adapt: None,
            interface: None,
            address: None,
            ..spec.clone()
        };
        folder.create(&spec, environment)?;
        let open = |identity: &Identity| backends::open(&folder, identity, &spec);
        let prepared = Self::in_folder(&folder, spec.clone(), open).await;
        if prepared.is_err() {
            let _ = std::fs::remove_dir_all(folder.path());
        }
        prepared
    }

    async fn in_folder(
        folder: &Folder,
        spec: Spec,
        open: impl FnOnce(&Identity) -> Result<Arc<dyn Backend>, Problem>,
    ) -> Result<Self, Problem> {
        let mark = serde_json::to_vec(&Mark::of_process()).unwrap_or_default();
        folder.write(MARK, &mark).map_err(|error| {
            Problem::new(Kind::Unreachable, format!("cannot write into {}", folder.path().display()))
                .says(error.to_string())
        })?;
        let identity = folder.open()?;
        let backend = open(&identity)?;
        let (addresses, greeters) = greeting::open(folder, &identity).await?;
        let name = JobName::new(&identity.letters, JobSeq(1));
        let nothing = BackendError {
            class: ErrorClass::Ambiguous,
            command: "submit".to_owned(),
            says: "interrupted".to_owned(),
            fix: None,
        };
        let outcome = Outcome {
            job: name.to_string(),
            submitted: Err(nothing),
            addresses,
            waited: Duration::ZERO,
            notes: Vec::new(),
            seen: None,
            ended_early: false,
            log: String::new(),
            end_took: Duration::ZERO,
            left: None,
        };
        let job = JobRef { name, id: None };
        let (folder, letters) = (folder.clone(), identity.letters);
        Ok(Self { folder, backend, spec, letters, job, greeters, outcome, asked: false, last: None })
    }

    /// Submits the job and follows it until it has noted all, has ended, or `patience` for its start is over.
    /// May be dropped at any time; [`Visit::end`] is to be called then, too.
    pub async fn watch(&mut self, patience: Duration, mut tell: impl FnMut(&str)) {
        self.asked = true;
        // What it may learn first is no reason to stop.
        let _ = self.backend.prepare().await;
        let submit = Submit {
            pool: "default".to_owned(),
            walltime_seconds: None,
            jobs: vec![(JobSeq(1), self.job.name.clone())],
            exclude: Vec::new(),
        };
        let submitted = self.backend.submit(&submit).await;
        let submitted = submitted.map(|ids| ids.into_iter().next().unwrap_or(NativeId(String::new())));
        self.outcome.submitted = submitted.clone();
        match submitted {
            Ok(id) => self.job.id = Some(id).filter(|id| !id.0.is_empty()),
            Err(error) if error.class != ErrorClass::Ambiguous => return,
            Err(_) => {}
        }
        let begun = Instant::now();
        let (mut listed, mut running, mut first) = (None::<Instant>, None::<Instant>, None::<Instant>);
        let mut told = String::new();
        loop {
            self.outcome.notes = read_notes(&notes_file(&self.folder, &self.job.name));
            if self.outcome.notes.is_empty() {
                self.outcome.waited = running.unwrap_or_else(Instant::now) - begun;
            } else if first.is_none() {
                first = Some(Instant::now());
                self.outcome.waited = running.unwrap_or_else(Instant::now) - begun;
            }
            let noted = self.outcome.notes.iter().any(|note| matches!(note, Note::Ready | Note::Left));
            if noted || first.is_some_and(|first| first.elapsed() > NOTES) {
                return;
            }
            if listed.is_none_or(|at| at.elapsed() >= LISTING) {
                self.look().await;
                self.outcome.seen = self.last.clone();
                listed = Some(Instant::now());
                if self.ended() {
                    // Its last notes may be on their way.
                    tokio::time::sleep(GLANCE * 5).await;
                    self.outcome.notes = read_notes(&notes_file(&self.folder, &self.job.name));
                    self.outcome.ended_early = true;
                    return;
                }
                let seen = self.outcome.seen.as_ref();
                if seen.is_some_and(|seen| seen.state == Observed::Running) {
                    running.get_or_insert_with(Instant::now);
                }
                let reason = seen.map_or("", |seen| &seen.reason);
                if first.is_none() && running.is_none() && told != reason && !reason.is_empty() {
                    told = reason.to_owned();
                    tell(&format!("the probe waits: {}", crate::ui::words::escape(reason)));
                }
            }
            let silent = first.is_none() && running.is_some_and(|running| running.elapsed() > SILENCE);
            if silent || (first.is_none() && running.is_none() && begun.elapsed() > patience) {
                return;
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Ends the job, if there is one, and removes the folder; says in [`Outcome::left`] what could not be.
    pub async fn end(mut self) -> Outcome {
        let begun = Instant::now();
        let gone = !self.asked || self.end_job(begun).await;
        if self.outcome.seen.is_none() {
            self.outcome.seen = self.last.take();
        }
        self.outcome.notes = read_notes(&notes_file(&self.folder, &self.job.name));
        self.outcome.end_took = begun.elapsed();
        self.outcome.log = self.log();
        drop(std::mem::take(&mut self.greeters));
        if !gone {
            let id = self.job.id.as_ref().map_or_else(String::new, |id| format!(" (id {id})"));
            let folder = self.folder.path().display();
            self.outcome.left = Some(format!("job {}{id} is not seen to be over; so {folder} stays", self.job.name));
        } else if let Err(error) = remove(&self.folder).await {
            self.outcome.left = Some(format!("cannot delete {}: {error}", self.folder.path().display()));
        }
        self.outcome
    }

    /// Cancels the job until the batch system agrees that it is over: by its own word, or because two lists by name
    /// do not have it. A failed question says nothing.
    async fn end_job(&mut self, begun: Instant) -> bool {
        if matches!(&self.outcome.submitted, Err(error) if error.class != ErrorClass::Ambiguous) {
            return true;
        }
        let unclear = self.job.id.is_none();
        let (mut cancelled, mut absent) = (None::<Instant>, 0);
        while begun.elapsed() < END {
            let found = self.backend.find().await;
            let ours = found.as_ref().ok().and_then(|found| found.iter().find(|seen| seen.name == self.job.name));
            if let Some(seen) = ours {
                self.job.id.get_or_insert_with(|| seen.id.clone());
                self.last = Some(seen.clone());
            }
            let live = ours.is_some_and(|seen| self.is_live(seen));
            self.look().await;
            let over = self.ended() && !live;
            absent = if found.is_ok() && ours.is_none() { absent + 1 } else { 0 };
            let late = unclear && begun.elapsed() < LATE;
            if found.is_ok() && !late && (over || absent > 1) {
                return true;
            }
            if self.job.id.is_some() && !over && cancelled.is_none_or(|at| at.elapsed() >= AGAIN) {
                // Whether it helped is seen by the next look.
                let _ = self.backend.cancel(std::slice::from_ref(&self.job)).await;
                cancelled = Some(Instant::now());
            }
            tokio::time::sleep(GLANCE * 3).await;
        }
        false
    }

    fn is_live(&self, seen: &Observation) -> bool {
        seen.name == self.job.name && !matches!(seen.state, Observed::Ended { .. })
    }

    fn ended(&self) -> bool {
        self.last.as_ref().is_some_and(|seen| matches!(seen.state, Observed::Ended { .. }))
    }

    async fn look(&mut self) {
        if self.job.id.is_none() {
            return;
        }
        // Of a failed question nothing is learned.
        let jobs = std::slice::from_ref(&self.job);
        let seen = self.backend.list(jobs).await.ok().and_then(|seen| seen.into_iter().next());
        if let Some(seen) = seen {
            self.last = Some(seen);
        } else if let Some(seen) = self.backend.account(jobs).await.ok().and_then(|seen| seen.into_iter().next()) {
            self.last = Some(seen);
        }
    }

    fn log(&self) -> String {
        let mut logs = backends::job_logs(self.spec.backend, self.folder.path(), &self.letters, JobSeq(1));
        logs.find_map(|path| tail(&path).ok()).unwrap_or_default()
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
    let mut text = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// Deletes a folder into which the last breath of a job may still write.
async fn remove(folder: &Folder) -> std::io::Result<()> {
    let begun = Instant::now();
    loop {
        match std::fs::remove_dir_all(folder.path()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if begun.elapsed() > LATE => return Err(error),
            Err(_) => tokio::time::sleep(GLANCE).await,
            Ok(()) => return Ok(()),
        }
    }
}

/// Ends what doctors left that were killed on this host: their jobs, found by name, and their folders. Returns how
/// many were ended, and what could not be.
pub async fn sweep(state: &Path) -> (usize, Vec<String>) {
    let (mut ended, mut left) = (0, Vec::new());
    let entries = std::fs::read_dir(state).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    for name in names.filter(|name| name.starts_with(PREFIX)) {
        let folder = Folder::of(state, &name);
        let mark = folder.read(MARK).ok().and_then(|bytes| serde_json::from_slice::<Mark>(&bytes).ok());
        let swept = match mark {
            Some(mark) if !mark.is_gone() => continue,
            Some(_) => sweep_one(&folder).await,
            // The mark is there before any job is.
            None if is_old(folder.path()) => remove(&folder).await.map_err(|error| error.to_string()),
            None => continue,
        };
        match swept {
            Ok(()) => ended += 1,
            Err(why) => left.push(format!("{}: {why}", folder.path().display())),
        }
    }
    (ended, left)
}

fn is_old(path: &Path) -> bool {
    let age = path.metadata().and_then(|data| data.modified()).ok().and_then(|at| at.elapsed().ok());
    age.is_some_and(|age| age > OLD)
}

async fn sweep_one(folder: &Folder) -> Result<(), String> {
    let words = |problem: Problem| problem.to_string();
    let identity: Identity = folder.open().map_err(words)?;
    let spec = folder.spec().map_err(words)?;
    let backend = backends::open(folder, &identity, &spec).map_err(words)?;
    let begun = Instant::now();
    loop {
        let found = backend.find().await.map_err(|error| error.to_string())?;
        let live = found.into_iter().filter(|seen| !matches!(seen.state, Observed::Ended { .. }));
        let jobs: Vec<_> = live.map(|seen| JobRef { name: seen.name, id: Some(seen.id) }).collect();
        if jobs.is_empty() {
            return remove(folder).await.map_err(|error| error.to_string());
        }
        if begun.elapsed() > END {
            return Err(format!("job {} does not end", jobs[0].name));
        }
        backend.cancel(&jobs).await.map_err(|error| error.to_string())?;
        tokio::time::sleep(LISTING).await;
    }
}

#[cfg(test)]
mod tests;
