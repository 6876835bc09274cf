//! HTCondor, by its own commands (23.9.6 measured, `design/backends/slurm_sge_oar_condor.md` section 4).
//!
//! One `condor_submit` submits all jobs of a call, as the processes of one cluster; a job is found again by its
//! JobBatchName, which for a process is the cluster's name and the process's number. There are no directives in a
//! script: a submit description lies beside it. `condor_q -json` is asked once for all jobs and forgets one at its end;
//! how it ended only `condor_history` knows. (`leave_in_queue` would keep it listed, but what it kept leaves only when
//! the schedd next looks at its periodic expressions, up to 20 minutes later: `down` would leave jobs behind.)
//!
//! A job that is held stays in the queue and never starts, one whose machine was lost or taken from it would start
//! again: both are over, and are removed. Where no server does that the job's own `periodic_remove` does.

pub mod errors;
pub mod parse;
pub mod reasons;
pub mod script;

use crate::backends::batch::{self, Answer, Call, CallError, Exit, JobArray, Verb};
use crate::backends::render::{self, JobHome, RenderInput};
use crate::backends::{Backend, BackendError, ErrorClass, JobRef, Observation, Observed, Site, Submit, folder};
use crate::config::spec::BackendKind;
use crate::runtime::ids::NativeId;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// Most processes of a cluster we ask for (MAX_JOBS_PER_SUBMISSION is 20,000 by default).
const ARRAY_LIMIT: u32 = 1000;
/// Ids in one command; neighbours are one range.
const IDS_LIMIT: usize = 200;
/// Clusters whose reasons are asked for at once: each is compared with every machine of the pool.
const REASONS_LIMIT: usize = 5;
/// Time for that.
const REASONS_TIMEOUT: Duration = Duration::from_secs(20);
/// Where the history ends for us: jobs that left the queue eight days ago.
const HISTORY_SINCE: &str = "EnteredCurrentStatus < time() - 691200";
/// `condor_history` reads files backwards that may be long.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(120);
/// The submit description of jobs, beside their script.
pub(super) const DESCRIPTION: &str = "job.sub";

/// Returns the submit command as a person would type it.
pub(super) fn submit_line(description: &str) -> String {
    format!("condor_submit -terse {description}")
}

/// The HTCondor of this host.
#[derive(Debug)]
pub struct Condor {
    home: JobHome,
}

impl Condor {
    /// Returns the backend; talks to nobody yet.
    pub fn new(home: JobHome) -> Self {
        Self { home }
    }

    /// True of all jobs of this cluster.
    fn ours(&self) -> String {
        format!("regexp(\"^dc{}-\", JobBatchName)", self.home.id4)
    }

    /// All of this user's jobs, of this cluster, in the queue; those that are over leave it.
    async fn live(&self) -> Result<Vec<Observation>, BackendError> {
        let call = Call::new("condor_q").args(user()).args(["-json", "-attributes", parse::ATTRIBUTES]);
        let call = call.arg("-constraint").arg(self.ours());
        let answer = run(Verb::List, &call).await?;
        let Some(parse::Listing { seen, stuck }) = parse::listing(&self.home.id4, &answer.stdout) else {
            return Err(call.error(ErrorClass::Transient, &format!("not a whole listing: {}", answer.says()), None));
        };
        // Whether it goes now or by its own `periodic_remove`: it never starts again.
        let _ = self.remove(stuck.iter()).await;
        Ok(seen)
    }

    /// Adds why jobs wait: of the processes of one cluster the first is asked for.
    async fn explain(&self, seen: &mut [Observation]) {
        let unmatched = |o: &Observation| o.state == Observed::Pending && o.reason.starts_with("no match found");
        let mut firsts: BTreeMap<String, NativeId> = BTreeMap::new();
        for o in seen.iter().filter(|o| unmatched(o)) {
            firsts.entry(cluster(&o.id).to_owned()).or_insert_with(|| o.id.clone());
        }
        let ids: Vec<_> = firsts.values().take(REASONS_LIMIT).map(|id| id.0.clone()).collect();
        if ids.is_empty() {
            return;
        }
        let call = Call::new("condor_q").arg("-better-analyze").args(ids).timeout(REASONS_TIMEOUT);
        // Without it the listing is as true.
        let Ok(answer) = run(Verb::List, &call).await else { return };
        let told = parse::analysis(&answer.stdout);
        for o in seen.iter_mut().filter(|o| unmatched(o)) {
            if let Some(words) = firsts.get(cluster(&o.id)).and_then(|first| told.get(first)) {
                o.reason = batch::bounded(&format!("{}; {words}", o.reason));
            }
        }
    }

    async fn remove(&self, ids: impl Iterator<Item = &NativeId>) -> Result<(), BackendError> {
        let mut all = Ok(());
        for ids in ids.collect::<Vec<_>>().chunks(IDS_LIMIT) {
            let constraint = parse::constraint(ids.iter().copied());
            if constraint.is_empty() {
                continue;
            }
            let call = Call::new("condor_rm").args(["-constraint", &constraint]);
            match call.run().await {
                // It fails when all have ended, and says so.
                Ok(Answer { exit: Exit::Code(1), stdout, stderr })
                    if !stderr.trim().is_empty()
                        && parse::not_removed(&stdout).is_empty()
                        && parse::not_removed(&stderr).is_empty() => {}
                answer => all = all.and(batch::judge(Verb::Cancel, &call, answer, errors::classify).map(drop)),
            }
        }
        all
    }

    /// What the history knows of the jobs of which `constraint` is true; it is read backwards, until `most` were found.
    async fn history(&self, constraint: &str, most: Option<usize>) -> Result<Vec<Observation>, BackendError> {
        let call = Call::new("condor_history").args(["-json", "-attributes", parse::ATTRIBUTES]);
        let call = call.args(["-constraint", constraint, "-since", HISTORY_SINCE]).timeout(HISTORY_TIMEOUT);
        let call = match most {
            Some(most) => call.args(["-match".to_owned(), most.to_string()]),
            None => call,
        };
        let answer = match call.run().await {
            Err(CallError::Missing { .. }) => return Ok(Vec::new()),
            answer => batch::judge(Verb::Account, &call, answer, errors::classify)?,
        };
        parse::history(&self.home.id4, &answer.stdout)
            .ok_or_else(|| call.error(ErrorClass::Transient, &format!("not a whole history: {}", answer.says()), None))
    }

    /// Says which of the user's own lines HTCondor does not know: with `-terse` and without it submits all the same.
    async fn check(&self, description: &Path) -> Result<(), BackendError> {
        let call = Call::new("condor_submit").args(["-dry-run", "/dev/null"]).arg(description);
        let answer = run(Verb::Submit, &call).await?;
        let unused = answer.stderr.lines().find(|line| line.contains("was unused by condor_submit"));
        match unused {
            None => Ok(()),
            Some(line) => {
                let (_, fix) = errors::classify(Verb::Submit, &answer);
                Err(call.error(ErrorClass::Permanent, line, fix))
            }
        }
    }
}

#[async_trait]
impl Backend for Condor {
    async fn submit(&self, submit: &Submit) -> Result<Vec<NativeId>, BackendError> {
        let mut home = self.home.of(submit);
        home.avoid(&submit.exclude);
        let array = JobArray::of(&submit.jobs);
        let input = RenderInput::plain(&home, BackendKind::Condor, array.first, array.count);
        let refused = |error: render::RenderError| error.into_backend_error("condor_submit");
        let script = render::render_job_script(&input).map_err(refused)?;
        let description = render::render_description(&input).map_err(refused)?.unwrap_or_default();
        let own = home.job_folder(&array.name(&home.id4));
        let path = own.join(DESCRIPTION);
        let call = Call::new("condor_submit").arg("-terse").arg(&path);
        let written = async {
            folder::write_script(own.join("script.sh"), script, 0o700).await?;
            folder::write_script(path.clone(), description, 0o600).await
        };
        written.await.map_err(|error| call.error(ErrorClass::Transient, &error.to_string(), None))?;
        if !home.pool.directives.is_empty() {
            self.check(&path).await?;
        }
        let answer = match call.run().await {
            // A wrapper failed after the real one had done its work.
            Ok(answer) if answer.exit != Exit::Code(0) && parse::submitted_cluster(&answer.stdout).is_some() => {
                let says = format!("it failed, and yet said {:?}: {}", answer.stdout.trim(), answer.stderr);
                return Err(call.error(ErrorClass::Ambiguous, &says, None));
            }
            answer => batch::judge(Verb::Submit, &call, answer, errors::classify)?,
        };
        let Some(cluster) = parse::submitted_cluster(&answer.stdout) else {
            let says = format!("no cluster id in {:?} {:?}", answer.stdout, answer.stderr);
            return Err(call.error(ErrorClass::Ambiguous, &says, None));
        };
        Ok((0..array.count).map(|process| NativeId(format!("{cluster}.{process}"))).collect())
    }

    async fn list(&self, jobs: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let mut seen = batch::of(jobs, self.live().await?);
        self.explain(&mut seen).await;
        Ok(seen)
    }

    async fn find(&self) -> Result<Vec<Observation>, BackendError> {
        let mut found = self.live().await?;
        let known: BTreeSet<NativeId> = found.iter().map(|o| o.id.clone()).collect();
        // What has ended is worth knowing, but no reason not to know what lives.
        let past = self.history(&self.ours(), None).await.unwrap_or_default();
        found.extend(past.into_iter().filter(|o| !known.contains(&o.id)));
        Ok(found)
    }

    async fn account(&self, jobs: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        let ids: Vec<_> = jobs.iter().filter_map(|job| job.id.as_ref()).collect();
        if ids.len() < jobs.len() {
            return Ok(batch::of(jobs, self.history(&self.ours(), None).await?));
        }
        let mut ended = Vec::new();
        for ids in ids.chunks(IDS_LIMIT) {
            let constraint = format!("{} && ({})", self.ours(), parse::constraint(ids.iter().copied()));
            ended.extend(self.history(&constraint, Some(ids.len())).await?);
        }
        Ok(batch::of(jobs, ended))
    }

    async fn cancel(&self, jobs: &[JobRef]) -> Result<(), BackendError> {
        self.remove(jobs.iter().filter_map(|job| job.id.as_ref())).await
    }

    async fn site(&self) -> Result<Site, BackendError> {
        // That the schedd answers; it has no queues, and what machines there will be nobody knows.
        run(Verb::List, &Call::new("condor_q").args(user()).arg("-totals")).await?;
        let version = run(Verb::List, &Call::new("condor_version")).await?.stdout;
        let history = Call::new("condor_history").args(["-limit", "1", "-af", "ClusterId"]).run().await;
        let accounting = history.is_ok_and(|answer| answer.exit == Exit::Code(0));
        Ok(Site { version: parse::version(&version), queues: Vec::new(), accounting: Some(accounting) })
    }

    fn jobs_per_submit(&self) -> u32 {
        ARRAY_LIMIT
    }
}

/// This user's name, which restricts a listing to the own jobs also where a site's or a user's configuration shows all
/// (CONDOR_Q_ONLY_MY_JOBS). Where it cannot be found out (a static binary knows no LDAP) it is left out.
fn user() -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name)
}

/// `71` of `71.3`.
fn cluster(id: &NativeId) -> &str {
    id.0.split('.').next().unwrap_or_default()
}

async fn run(verb: Verb, call: &Call) -> Result<Answer, BackendError> {
    batch::run(verb, call, errors::classify).await
}
