//! OAR, by its own commands (OAR 2.5.9 measured, `design/backends/slurm_sge_oar_condor.md` section 3).
//!
//! One `oarsub` submits all jobs of a call, as an array where there are several; each has a number of its own, and is
//! found again by its name and its index. OAR keeps every job for ever, so `oarstat` says what jobs do as well as how
//! they ended, and is asked with a condition on its table of jobs: one call for all. Its commands belong to another
//! user (setuid): one that hangs cannot be killed and goes on when OAR's database is back, so a submission that gave
//! no answer may happen much later.

pub mod errors;
pub mod parse;
pub mod reasons;
pub mod script;
pub mod site;

use crate::backends::batch::{self, Answer, Call, Exit, JobArray, Verb};
use crate::backends::render::{self, JobHome, RenderInput};
use crate::backends::said::Said;
use crate::backends::{Backend, BackendError, ErrorClass, JobRef, Observation, Observed, Site, Submit, folder};
use crate::config::spec::BackendKind;
use crate::runtime::ids::NativeId;
use crate::server::clock;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Most elements of an array we ask for; OAR itself has no limit.
const ARRAY_LIMIT: u32 = 1000;
/// Ids in one command.
const IDS_LIMIT: usize = 1000;
/// How far back jobs that have ended are looked for by name.
const PAST_SECONDS: i64 = 8 * 24 * 3600;
/// What is not over.
const LIVE: &str = "state NOT IN ('Terminated', 'Error')";

/// Returns the submit command as a person would type it.
pub(super) fn submit_line(home: &JobHome, script: &str) -> String {
    let folder = home.folder.to_string_lossy();
    let folder = shlex::try_quote(&folder).unwrap_or_else(|_| folder.clone());
    format!("oarsub -S -d {folder} {script}")
}

/// The OAR of this host.
#[derive(Debug)]
pub struct Oar {
    home: JobHome,
    known: Mutex<Option<site::Found>>,
}

/// Returns what a script must know of the OAR of this host.
///
/// # Errors
/// If it does not answer.
pub async fn said() -> Result<site::Found, BackendError> {
    Ok(site::Found::of(&resources().await?))
}

async fn resources() -> Result<serde_json::Map<String, serde_json::Value>, BackendError> {
    let call = Call::new("oarnodes").arg("-J");
    let answer = run(Verb::List, &call).await?;
    let found = parse::records(&answer.stdout).filter(|found| !found.is_empty());
    found.ok_or_else(|| {
        call.error(ErrorClass::Transient, &format!("no whole list of resources: {}", answer.says()), None)
    })
}

impl Oar {
    /// Returns the backend; talks to nobody yet.
    pub fn new(home: JobHome) -> Self {
        Self { home, known: Mutex::new(None) }
    }

    async fn learn(&self) -> Result<site::Found, BackendError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let found = said().await?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
        Ok(found)
    }

    /// The administrators may have changed what a script could not be written for.
    fn forget(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn condition(&self) -> String {
        // Where the name cannot be found out (a static binary knows no LDAP) the letters of the cluster must do.
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name);
        parse::of_cluster(&self.home.id4, user.as_deref())
    }

    /// Asks for the cluster's jobs of which `also` is true.
    async fn oarstat(&self, also: &str) -> Result<Vec<Observation>, BackendError> {
        let call = Call::new("oarstat").args(["-J", "-f", "--sql"]).arg(format!("{} AND ({also})", self.condition()));
        let answer = run(Verb::List, &call).await?;
        let whole = parse::jobs(&self.home.id4, &answer.stdout, now_seconds());
        // Of what its database refuses it says nothing but words on stderr, with success.
        let seen = whole.filter(|seen| !seen.is_empty() || answer.stderr.trim().is_empty());
        let seen = seen.ok_or_else(|| {
            call.error(ErrorClass::Transient, &format!("not a whole listing: {}", answer.says()), None)
        })?;
        let (clones, ours): (Vec<_>, Vec<_>) = seen.into_iter().partition(|seen| seen.again);
        // A job that could not start OAR submits again by itself; dcluster has replaced it under a new name.
        let clones = clones.iter().filter(|clone| !matches!(clone.job.state, Observed::Ended { .. }));
        let clones: Vec<&NativeId> = clones.map(|clone| &clone.job.id).collect();
        if !clones.is_empty() {
            // They are in the next listing, too.
            let _ = self.oardel(&clones).await;
        }
        Ok(ours.into_iter().map(|seen| seen.job).collect())
    }

    /// What OAR knows of these jobs, and of others of the cluster that live.
    async fn of_jobs(&self, jobs: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        let ids: Vec<&str> = ids(jobs).into_iter().map(|id| id.0.as_str()).collect();
        let mut seen = BTreeMap::new();
        for ids in ids.chunks(IDS_LIMIT) {
            let condition = format!("{LIVE} OR job_id IN ({})", ids.join(", "));
            let found = self.oarstat(&condition).await?;
            if found.is_empty() {
                // OAR forgets no job, so this is the answer to no question.
                let call = Call::new("oarstat").args(["-J", "-f"]);
                return Err(call.error(ErrorClass::Transient, "it says nothing of jobs that it took", None));
            }
            seen.extend(found.into_iter().map(|job| (job.id.0.clone(), job)));
        }
        if ids.is_empty() {
            seen.extend(self.oarstat(LIVE).await?.into_iter().map(|job| (job.id.0.clone(), job)));
        }
        Ok(batch::of(jobs, seen.into_values()))
    }

    async fn oardel(&self, ids: &[&NativeId]) -> Result<(), BackendError> {
        let mut all = Ok(());
        for ids in ids.chunks(IDS_LIMIT) {
            let call = Call::new("oardel").args(ids.iter().map(|id| id.0.as_str()));
            match call.run().await {
                // It fails when one of many has ended, and says which.
                Ok(answer)
                    if matches!(answer.exit, Exit::Code(1 | 6))
                        && !answer.stderr.trim().is_empty()
                        && parse::not_deleted(&answer.stderr).is_empty() => {}
                answer => all = all.and(batch::judge(Verb::Cancel, &call, answer, errors::classify).map(drop)),
            }
        }
        all
    }

    fn script(&self, array: JobArray, home: &JobHome) -> Result<String, BackendError> {
        let input = RenderInput::plain(home, BackendKind::Oar, array.first, array.count);
        render::render_job_script(&input).map_err(|error| {
            self.forget();
            error.into_backend_error("oarsub")
        })
    }

    /// The command that submits a script. Without PWD in its environment and without `-d` it fails for no reason.
    fn oarsub(&self, script: &Path) -> Call {
        Call::new("oarsub").args(["-S", "-d"]).arg(&self.home.folder).arg(script).env("PWD", &self.home.folder)
    }
}

/// OAR says when a job began by the time of day, so that is what its age is told by: shown and passed on to the
/// worker, whose own clock it corrects.
fn now_seconds() -> i64 {
    i64::try_from(clock::now().wall / 1000).unwrap_or(i64::MAX)
}

#[async_trait]
impl Backend for Oar {
    async fn prepare(&self) -> Result<(), BackendError> {
        self.learn().await.map(drop)
    }

    async fn submit(&self, submit: &Submit) -> Result<Vec<NativeId>, BackendError> {
        let mut home = self.home.of(submit);
        home.said = Said::Oar(self.learn().await?);
        home.avoid(&submit.exclude);
        let array = JobArray::of(&submit.jobs);
        let script = self.script(array, &home)?;
        let path = home.job_folder(&array.name(&home.id4)).join("script.sh");
        let call = self.oarsub(&path);
        // OAR runs it as a command of the user's shell.
        let written = folder::write_script(path, script, 0o700).await;
        written.map_err(|error| call.error(ErrorClass::Transient, &error.to_string(), None))?;
        let answer = batch::judge(Verb::Submit, &call, call.run().await, errors::classify)?;
        let ids = parse::submitted_ids(&answer.stdout);
        if ids.len() != array.count as usize {
            let says = format!("{} ids of {} jobs in {:?} {:?}", ids.len(), array.count, answer.stdout, answer.stderr);
            return Err(call.error(ErrorClass::Ambiguous, &says, None));
        }
        Ok(ids)
    }

    async fn list(&self, jobs: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        if jobs.is_empty() { Ok(Vec::new()) } else { self.of_jobs(jobs).await }
    }

    async fn find(&self) -> Result<Vec<Observation>, BackendError> {
        let since = now_seconds().saturating_sub(PAST_SECONDS);
        self.oarstat(&format!("{LIVE} OR stop_time > {since} OR submission_time > {since}")).await
    }

    async fn account(&self, jobs: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        let seen = self.list(jobs).await?;
        Ok(seen.into_iter().filter(|job| matches!(job.state, Observed::Ended { .. })).collect())
    }

    async fn cancel(&self, jobs: &[JobRef]) -> Result<(), BackendError> {
        self.oardel(&ids(jobs)).await
    }

    async fn site(&self) -> Result<Site, BackendError> {
        let resources = resources().await?;
        let version = run(Verb::List, &Call::new("oarstat").arg("-V")).await?.stdout;
        // Which queues there are OAR tells administrators alone: of one that is named nothing is known.
        let pools = std::iter::once(&self.home.pool).chain(self.home.pools.values());
        let named = pools.into_iter().any(|pool| pool.queue.is_some());
        let any = site::any_queue(&resources, &site::Found::of(&resources));
        let queues = if named { Vec::new() } else { vec![any] };
        Ok(Site { version: site::version(&version), queues, accounting: Some(true) })
    }

    fn jobs_per_submit(&self) -> u32 {
        ARRAY_LIMIT
    }
}

/// Ids that can stand in a command.
fn ids(jobs: &[JobRef]) -> Vec<&NativeId> {
    jobs.iter().filter_map(|job| job.id.as_ref()).filter(|id| parse::is_id(&id.0)).collect()
}

async fn run(verb: Verb, call: &Call) -> Result<Answer, BackendError> {
    batch::run(verb, call, errors::classify).await
}
