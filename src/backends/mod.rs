//! Where jobs run. A backend starts, lists and cancels jobs; what it says about them is evidence for
//! the ledger, never truth by itself.
//!
//! The trait is drawn so that a batch job, a pod and a YARN container all fit: a job is submitted
//! by name, found by name, listed in bulk and cancelled by id; the server may itself live inside
//! the backend, so nothing here assumes a login node.

pub mod batch;
pub mod condor;
pub mod detect;
pub mod errors;
pub mod fit;
mod folder;

pub mod leftovers;
pub mod local;
pub mod lsf;
pub mod oar;
pub mod pbs;
mod processes;
#[cfg(test)]
#[path = "../../tests/support/programs.rs"]
#[expect(dead_code, reason = "shared with the integration tests, which copy programs too")]
mod programs;
pub mod reasons;
pub mod render;
pub mod said;
pub mod sentinel;
pub mod sge;
pub mod site;
pub mod slurm;
pub mod template;

use self::render::{Dialect, JobHome};
use self::said::Said;
use crate::cluster::{Folder, Identity};
use crate::config::spec::{BackendKind, Spec};
use crate::error::{Kind, Problem};
use crate::runtime::ids::{JobName, JobSeq, NativeId};
use async_trait::async_trait;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A job to start. All jobs of one [`Submit`] have the same shape.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Submit {
    /// The pool's name.
    pub pool: String,
    /// Walltime, where it is to be other than that of the pool.
    pub walltime_seconds: Option<u64>,
    /// Names, consecutive by number, at least one.
    pub jobs: Vec<(JobSeq, JobName)>,
    /// Nodes to avoid beside those of the pool, by the backend's names; a backend without a choice of nodes
    /// ignores them.
    pub exclude: Vec<String>,
}

/// A job the backend was asked for, as the ledger knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobRef {
    /// Its name.
    pub name: JobName,
    /// Its id, once known.
    pub id: Option<NativeId>,
}

/// What a backend says of one job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observation {
    /// Our name of it.
    pub name: JobName,
    /// The backend's id.
    pub id: NativeId,
    /// What it does.
    pub state: Observed,
    /// The backend's own word for state and reason, for people (`PENDING QOSMaxCpuPerUserLimit`); at most 2 KiB.
    pub reason: String,
    /// Where it runs.
    pub node: Option<String>,
    /// Seconds until its walltime ends.
    pub seconds_left: Option<u64>,
}

/// The state in a listing or in accounting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Observed {
    /// In the queue.
    Pending,
    /// Started (also: suspended, completing).
    Running,
    /// Over.
    Ended {
        /// Why, as far as the backend knows.
        how: EndedHow,
        /// Exit code of the job script.
        exit_code: Option<i32>,
    },
    /// A word this version does not know.
    Unknown(String),
}

/// Why the backend says a job ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndedHow {
    /// The script ended by itself, with whatever code.
    Exited,
    /// Its time was over.
    Walltime,
    /// Somebody cancelled it.
    Cancelled,
    /// The scheduler took the node for another job.
    Preempted,
    /// The node failed.
    NodeFailed,
    /// It used too much memory.
    OutOfMemory,
    /// The script never ran.
    LaunchFailed,
}

/// Classes of errors of a backend; each backend owns a table from exit code and text to class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum ErrorClass {
    /// Back off and try again.
    Transient,
    /// A limit of the site: learn it and stay under it.
    Limit,
    /// It will never work as it is: tell the user.
    Permanent,
    /// It may or may not have happened: look the name up first.
    Ambiguous,
}

/// A failed call of a backend.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{command}: {says}")]
pub struct BackendError {
    /// Its class.
    pub class: ErrorClass,
    /// The command or call, as a person would type it.
    pub command: String,
    /// The foreign tool's own words, at most 2 KiB, control characters escaped.
    pub says: String,
    /// What to do about it, when known.
    pub fix: Option<String>,
}

/// What a batch system says of its site.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Site {
    /// Name and version of the batch system (`slurm 22.05.8`).
    pub version: String,
    /// Its queues, as far as this user can see them.
    pub queues: Vec<Queue>,
    /// Whether it keeps account of ended jobs; `None` = not known.
    pub accounting: Option<bool>,
}

/// A queue or partition. What is `None` the site does not say, or has no limit for.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Jobs that name no queue go there.
    pub is_default: bool,
    /// Why it takes no jobs, in the site's words; `None` when it does.
    pub closed: Option<String>,
    /// Longest walltime of a job.
    pub max_walltime_seconds: Option<u64>,
    /// Walltime of a job that asks for none.
    pub default_walltime_seconds: Option<u64>,
    /// Most cores that one job can have on one node.
    pub max_cores: Option<u32>,
    /// Most bytes of memory that one job can have on one node.
    pub max_memory_bytes: Option<u64>,
    /// Most GPUs that one job can have on one node; 0 = there are none.
    pub max_gpus: Option<u32>,
    /// Most jobs a user may have in it, running or pending.
    pub max_jobs: Option<u32>,
}

/// A place where jobs run.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Learns what it must know of the site, such as [`Backend::jobs_per_submit`]; called when a server starts.
    /// A failure is no reason to stop: it may be called again.
    async fn prepare(&self) -> Result<(), BackendError> {
        Ok(())
    }
    /// Starts the jobs. Either all of `submit.jobs` were handed over (with their ids, in order), or an error.
    /// Jobs per call are at most [`Backend::jobs_per_submit`].
    async fn submit(&self, submit: &Submit) -> Result<Vec<NativeId>, BackendError>;
    /// One bulk query about these jobs, live or just ended. A job that is absent from the answer is absent: this says nothing about why.
    async fn list(&self, jobs: &[JobRef]) -> Result<Vec<Observation>, BackendError>;
    /// Looks jobs of this cluster up by name: every one of ours that the backend still knows.
    async fn find(&self) -> Result<Vec<Observation>, BackendError>;
    /// Asks accounting how jobs ended; jobs it does not know (yet) are absent. `Ok(vec![])` where there is no accounting.
    async fn account(&self, jobs: &[JobRef]) -> Result<Vec<Observation>, BackendError>;
    /// Cancels jobs; those that have ended are no error.
    async fn cancel(&self, jobs: &[JobRef]) -> Result<(), BackendError>;
    /// Asks when a job of this shape would start if it were submitted now, in milliseconds since the epoch; its names
    /// are of no matter. `None` where the batch system does not say.
    async fn expected_start(&self, _: &Submit) -> Result<Option<u64>, BackendError> {
        Ok(None)
    }
    /// Asks the site for its queues and their limits. Where there are none, nothing is known.
    async fn site(&self) -> Result<Site, BackendError> {
        Ok(Site::default())
    }
    /// Largest number of jobs in one [`Backend::submit`].
    fn jobs_per_submit(&self) -> u32;
}

/// Returns what the jobs of a cluster have in common.
///
/// # Errors
///
/// If the path of this program cannot be found out.
pub fn job_home(folder: &Folder, letters: &str, spec: &Spec) -> Result<JobHome, Problem> {
    let binary = std::env::current_exe().map_err(|error| {
        Problem::new(Kind::Internal, "cannot find the path of this program").says(error.to_string())
    })?;
    let home = JobHome::new(folder.path().to_owned(), binary, letters, spec.pool.clone());
    Ok(JobHome { pools: spec.pools.clone(), ..home })
}

/// Returns the backend of a cluster.
///
/// # Errors
///
/// See [`job_home`].
pub fn open(folder: &Folder, identity: &Identity, spec: &Spec) -> Result<Arc<dyn Backend>, Problem> {
    let home = job_home(folder, &identity.letters, spec)?;
    Ok(match spec.backend {
        BackendKind::Local => Arc::new(local::Local::new(home)),
        BackendKind::Slurm => Arc::new(slurm::Slurm::new(home)),
        BackendKind::Lsf => Arc::new(lsf::Lsf::new(home)),
        BackendKind::Oar => Arc::new(oar::Oar::new(home)),
        BackendKind::Pbs => Arc::new(pbs::Pbs::new(home)),
        BackendKind::Sge => Arc::new(sge::Sge::new(home)),
        BackendKind::Condor => Arc::new(condor::Condor::new(home)),
    })
}

/// Adds to what jobs have in common what a batch system alone knows and its scripts need.
///
/// # Errors
///
/// If it does not answer.
pub async fn complete(backend: BackendKind, home: &mut JobHome) -> Result<(), BackendError> {
    home.said = match backend {
        BackendKind::Lsf => Said::Lsf(lsf::said().await?),
        BackendKind::Oar => Said::Oar(oar::said().await?),
        BackendKind::Pbs => Said::Pbs(pbs::said().await?),
        BackendKind::Sge => Said::Sge(sge::said(home).await?),
        BackendKind::Condor | BackendKind::Local | BackendKind::Slurm => Said::Nothing,
    };
    Ok(())
}

/// Returns the submit command of the first jobs of a cluster, as a person would type it.
pub fn submit_line(backend: BackendKind, home: &JobHome) -> String {
    let in_folder = |file: &str| {
        let path = home.job_folder(&JobName::new(&home.id4, JobSeq(1))).join(file);
        let path = path.to_string_lossy();
        shlex::try_quote(&path).unwrap_or_else(|_| path.clone()).into_owned()
    };
    let script = in_folder("script.sh");
    match backend {
        BackendKind::Lsf => format!("bsub < {script}"),
        BackendKind::Slurm => format!("sbatch {} {script}", slurm::SUBMIT_OPTIONS.join(" ")),
        BackendKind::Pbs => format!("qsub {script}"),
        BackendKind::Sge => sge::submit_line(home, &script),
        BackendKind::Oar => oar::submit_line(home, &script),
        BackendKind::Condor => condor::submit_line(&in_folder(condor::DESCRIPTION)),
        BackendKind::Local => "bash script.sh  (once for every job, in a session of its own)".to_owned(),
    }
}

/// Returns where the output of a job's script may lie, the likeliest first: which it is depends on how many jobs
/// one submit command started.
pub fn job_logs(backend: BackendKind, folder: &Path, letters: &str, job: JobSeq) -> impl Iterator<Item = PathBuf> {
    let dialect = Dialect::of(backend);
    let own = folder.join("jobs").join(JobName::new(letters, job).as_str()).join("log");
    let single = folder.join(dialect.log(&JobName::new(letters, job), 1, 0));
    let folder = folder.to_owned();
    let letters = letters.to_owned();
    let in_arrays = (1..=job.0).rev().map(move |first| {
        let array = JobName::new(&letters, JobSeq(first));
        folder.join(dialect.log(&array, u32::MAX, job.0 - first))
    });
    [own, single].into_iter().chain(in_arrays)
}
