//! Jobs as detached processes of this machine: each is the job script in a session of its own, so it outlives
//! the server as a batch job would. Its id is `<pid>.<start>.<boot>`: never the same twice.
//!
//! What a process was is told by `/proc` while it lives and by its exit sentinel afterwards. Children of this
//! process are reaped; what a job left behind is ended when the job is seen to have ended.

use crate::backends::batch::bounded;
use crate::backends::leftovers;
use crate::backends::processes::{self, Process};
use crate::backends::render::{self, Dialect, JobHome, RenderInput};
use crate::backends::sentinel::Sentinel;
use crate::backends::{Backend, BackendError, EndedHow, ErrorClass, JobRef, Observation, Observed, Submit, folder};
use crate::config::spec::BackendKind;
use crate::runtime::ids::{JobName, JobSeq, NativeId};
use async_trait::async_trait;
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The local backend's script: it has no directives, and its log is opened by us.
pub static DIALECT: Dialect = Dialect {
    template: include_str!("../../templates/local.sh.hbs"),
    reserved: &[],
    index_word: "",
    first_index: 0,
    log_folder: |folder| Ok(folder.to_owned()),
    values: |_| Ok(serde_json::json!({})),
};

/// Jobs of one submission: each is a process, so a small number keeps a failure small.
const JOBS_PER_SUBMIT: u32 = 64;
/// Time a cancelled job has to end by itself.
const CANCEL_GRACE: Duration = Duration::from_secs(10);

/// The processes of this machine.
#[derive(Debug)]
pub struct Local(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    home: JobHome,
    node: String,
    boot: String,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// Jobs that were told to end.
    cancelled: BTreeSet<JobName>,
    /// Ended jobs whose left-over processes were looked for.
    swept: BTreeSet<JobName>,
}

impl Local {
    /// Returns the backend. Its methods must run within a tokio runtime.
    pub fn new(home: JobHome) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let host = nix::unistd::gethostname().unwrap_or_default();
        Self(Arc::new(Inner {
            home,
            node: bounded(&host.to_string_lossy()),
            boot: boot.chars().take(8).collect(),
            memory: Mutex::default(),
        }))
    }

    async fn start(&self, home: &JobHome, seq: JobSeq, name: &JobName) -> Result<Process, BackendError> {
        let input = RenderInput::plain(home, BackendKind::Local, seq, 1);
        let script = render::render_job_script(&input)
            .map_err(|error| failed(ErrorClass::Permanent, name, &error.to_string()))?;
        let path = home.job_folder(name).join("script.sh");
        let io = |error: std::io::Error| failed(ErrorClass::Transient, name, &error.to_string());
        folder::write_script(path.clone(), script, 0o700).await.map_err(io)?;
        let mut log = std::fs::OpenOptions::new();
        log.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let log = log.open(home.job_folder(name).join("log")).map_err(io)?;
        let mut command = std::process::Command::new("bash");
        command
            .arg(&path)
            .env(processes::MARK, name.as_str())
            .current_dir(&home.folder)
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone().map_err(io)?)
            .stderr(log);
        crate::sys::new_session(&mut command);
        let mut child = tokio::process::Command::from(command).spawn().map_err(|error| {
            let class = match error.kind() {
                std::io::ErrorKind::NotFound => ErrorClass::Permanent,
                std::io::ErrorKind::WouldBlock => ErrorClass::Limit,
                _ => ErrorClass::Transient,
            };
            failed(class, name, &error.to_string())
        })?;
        // Not reaped yet, so it is there even if it has ended.
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let process = pid.and_then(Process::of);
        let (inner, job) = (self.0.clone(), name.clone());
        tokio::spawn(async move {
            if let Err(error) = child.wait().await {
                tracing::warn!(%job, %error, "cannot wait for a job's process");
            }
            inner.sweep_once(job);
        });
        process.ok_or_else(|| failed(ErrorClass::Ambiguous, name, "its process is not in /proc"))
    }
}

impl Inner {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Two sets of names: a panic elsewhere leaves nothing half done in them.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self, process: &Process) -> NativeId {
        NativeId(format!("{}.{}.{}", process.pid, process.start, self.boot))
    }

    /// The process of an id of this boot, dead or alive; `None` for one of another machine or boot.
    fn process(&self, id: &NativeId) -> Option<Process> {
        let mut parts = id.0.split('.');
        let (pid, start) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let gone = Process { pid, parent: 0, session: pid, start, zombie: true };
        let here = parts.next()? == self.boot;
        here.then(|| Process::of(pid).filter(|p| p.start == start).unwrap_or(gone))
    }

    fn observe(&self, name: &JobName, id: &NativeId) -> Option<Observation> {
        let process = self.process(id);
        let observation = |state, reason: &str| Observation {
            name: name.clone(),
            id: id.clone(),
            state,
            reason: reason.to_owned(),
            node: Some(self.node.clone()),
            seconds_left: None,
        };
        if process.as_ref().is_some_and(|process| !process.zombie) {
            // The worker itself knows its walltime: nothing else ends it here.
            return Some(observation(Observed::Running, "running"));
        }
        // The script writes it before it ends, so it is looked for after the process.
        let sentinel = Sentinel::read(&self.home.exit_file(name)).filter(|s| s.id == id.0);
        let how = match self.memory().cancelled.contains(name) {
            true => EndedHow::Cancelled,
            false => EndedHow::Exited,
        };
        let exit_code = match sentinel {
            Some(sentinel) => Some(sentinel.exit_code),
            None => process.map(|_| None)?,
        };
        let reason = match exit_code {
            Some(code) => format!("exit code {code}"),
            None => "the process is gone without an exit record".to_owned(),
        };
        Some(observation(Observed::Ended { how, exit_code }, &reason))
    }

    /// Ends what an ended job left behind, in the background, the first time it is called for it.
    fn sweep_once(&self, job: JobName) {
        if self.memory().swept.insert(job.clone()) {
            tokio::task::spawn_blocking(move || {
                let swept = leftovers::sweep(&job);
                if swept.found > 0 {
                    tracing::info!(%job, found = swept.found, left = swept.left, "ended what a job left behind");
                }
            });
        }
    }

    /// Our jobs that run here: the script by its path or, where that was killed, the worker by its arguments.
    fn running(&self) -> BTreeMap<JobName, NativeId> {
        let mut scripts = BTreeMap::new();
        let mut workers = BTreeMap::new();
        for process in processes::own() {
            let mark = process.job().and_then(|job| JobName::parse(&self.home.id4, &job));
            let Some((name, _)) = mark else { continue };
            let arguments = process.arguments();
            let has = |text: &[u8]| arguments.iter().any(|a| a == text);
            if has(self.home.job_folder(&name).join("script.sh").as_os_str().as_bytes()) {
                if process.session == process.pid {
                    scripts.insert(name, self.id(&process));
                }
            } else if has(b"worker") && has(name.as_str().as_bytes()) && has(self.home.folder.as_os_str().as_bytes()) {
                workers.insert(name, self.id(&process));
            }
        }
        workers.append(&mut scripts);
        workers
    }

    fn find(&self) -> Vec<Observation> {
        let mut ids = self.running();
        let entries = std::fs::read_dir(self.home.folder.join("jobs")).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let parsed = name.to_str().and_then(|name| JobName::parse(&self.home.id4, name));
            let Some((name, _)) = parsed.filter(|(name, _)| !ids.contains_key(name)) else {
                continue;
            };
            if let Some(sentinel) = Sentinel::read(&self.home.exit_file(&name)) {
                ids.insert(name, NativeId(bounded(&sentinel.id)));
            }
        }
        ids.iter().filter_map(|(name, id)| self.observe(name, id)).collect()
    }

    /// KILL to the job's session and to all that bears its mark.
    fn kill(&self, name: &JobName, session: i32) {
        let find = || {
            let mut all = processes::own();
            all.retain(|p| p.session == session || p.job().as_deref() == Some(name.as_str()));
            all
        };
        leftovers::end(find, Duration::ZERO);
    }
}

fn failed(class: ErrorClass, name: &JobName, says: &str) -> BackendError {
    BackendError { class, command: format!("bash jobs/{name}/script.sh"), says: bounded(says), fix: None }
}

/// Runs what looks through `/proc` off the event loop.
async fn blocking<T: Send + 'static>(
    inner: &Arc<Inner>,
    work: impl FnOnce(&Inner) -> T + Send + 'static,
) -> Result<T, BackendError> {
    let inner = inner.clone();
    let done = tokio::task::spawn_blocking(move || work(&inner)).await;
    done.map_err(|error| BackendError {
        class: ErrorClass::Transient,
        command: "read /proc".to_owned(),
        says: error.to_string(),
        fix: None,
    })
}

#[async_trait]
impl Backend for Local {
    async fn submit(&self, submit: &Submit) -> Result<Vec<NativeId>, BackendError> {
        let home = self.0.home.of(submit);
        let mut started = Vec::new();
        for (seq, name) in &submit.jobs {
            match self.start(&home, *seq, name).await {
                Ok(process) => started.push((name.clone(), process)),
                Err(error) => {
                    // All or none.
                    blocking(&self.0, move |inner| {
                        started.iter().for_each(|(name, p)| inner.kill(name, p.pid));
                    })
                    .await?;
                    return Err(error);
                }
            }
        }
        Ok(started.iter().map(|(_, process)| self.0.id(process)).collect())
    }

    async fn list(&self, jobs: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        let jobs = jobs.to_vec();
        let seen = blocking(&self.0, move |inner| {
            let seen = jobs.iter().filter_map(|job| inner.observe(&job.name, job.id.as_ref()?));
            seen.collect::<Vec<_>>()
        })
        .await?;
        for observation in &seen {
            if matches!(observation.state, Observed::Ended { .. }) {
                self.0.sweep_once(observation.name.clone());
            }
        }
        Ok(seen)
    }

    async fn find(&self) -> Result<Vec<Observation>, BackendError> {
        blocking(&self.0, Inner::find).await
    }

    async fn account(&self, _: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        Ok(Vec::new())
    }

    /// The first call asks the job's script to end, and kills the job 10 s later; a second call kills at once.
    async fn cancel(&self, jobs: &[JobRef]) -> Result<(), BackendError> {
        for job in jobs {
            let Some(process) = job.id.as_ref().and_then(|id| self.0.process(id)) else {
                continue;
            };
            let name = job.name.clone();
            if process.zombie {
                self.0.sweep_once(name);
            } else if self.0.memory().cancelled.insert(name.clone()) {
                process.signal(Signal::SIGTERM);
                let inner = self.0.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(CANCEL_GRACE).await;
                    if process.is_alive() {
                        tracing::info!(%name, "a cancelled job did not end: killing it");
                        let _ = blocking(&inner, move |inner| inner.kill(&name, process.pid)).await;
                    }
                });
            } else {
                blocking(&self.0, move |inner| inner.kill(&name, process.pid)).await?;
            }
        }
        Ok(())
    }

    fn jobs_per_submit(&self) -> u32 {
        JOBS_PER_SUBMIT
    }
}
