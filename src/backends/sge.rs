//! Grid Engine, by its own commands (Son of Grid Engine 8.1.9 measured, `design/backends/slurm_sge_oar_condor.md`
//! section 2).
//!
//! One `qsub` submits all jobs of a call, as an array where there are several; a job is found again by its name,
//! which for a task is the array's name and the task's index. `qstat -xml` is asked once for all jobs and forgets
//! one at its end; how it ended only `qacct` knows. What is asked for by which name the site decides, so it is
//! asked first (`site.rs`).

pub mod errors;
pub mod parse;
pub mod reasons;
pub mod script;
pub mod site;

use crate::backends::batch::{self, Answer, Call, CallError, Exit, JobArray, Verb};
use crate::backends::render::{self, JobHome, RenderInput};
use crate::backends::said::Said;
use crate::backends::{
    Backend, BackendError, EndedHow, ErrorClass, JobRef, Observation, Observed, Site, Submit, folder,
};
use crate::config::spec::BackendKind;
use crate::runtime::ids::NativeId;
use crate::server::clock;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

/// Most tasks of an array we ask for.
const ARRAY_LIMIT: u32 = 1000;
/// Ids in one command.
const IDS_LIMIT: usize = 200;
/// Jobs and arrays whose reasons are asked for at once: to the master that is dear.
const REASONS_LIMIT: usize = 20;
/// Parallel environments, queues and hosts that are looked at, one call each.
const OBJECTS_LIMIT: usize = 64;
/// How many days back accounting is searched.
const ACCOUNTING_DAYS: &str = "8";
/// `qacct` reads a whole file that may have grown for years.
const ACCOUNTING_TIMEOUT: Duration = Duration::from_secs(120);

/// What every submit command says beside the script. A request file of the site or in the user's home
/// (sge_request(5)) may say the contrary of each.
const SUBMIT_OPTIONS: [&str; 5] = ["-terse", "-b", "n", "-sync", "n"];

/// Returns the submit command as a person would type it.
pub(super) fn submit_line(home: &JobHome, script: &str) -> String {
    let folder = home.folder.to_string_lossy();
    let folder = shlex::try_quote(&folder).unwrap_or_else(|_| folder.clone());
    format!("qsub {} -wd {folder} {script}", SUBMIT_OPTIONS.join(" "))
}

/// The Grid Engine of this host.
#[derive(Debug)]
pub struct Sge {
    home: JobHome,
    known: Mutex<Option<Known>>,
}

/// What the site has said.
#[derive(Clone, Debug)]
struct Known {
    offer: site::Offer,
    array_limit: u32,
}

/// Returns what a script must know of the Grid Engine of this host.
///
/// # Errors
/// If it does not answer. What it does not have, or does not tell this user, stays empty.
pub async fn said(home: &JobHome) -> Result<site::Found, BackendError> {
    Ok(offer().await?.of(home.pool.cores, &offered(home).await))
}

async fn offer() -> Result<site::Offer, BackendError> {
    let (memory, gpu) = site::resources(&run(Verb::List, &Call::new("qconf").arg("-sc")).await?.stdout);
    let names = match run(Verb::List, &Call::new("qconf").arg("-spl")).await {
        Ok(answer) => answer.stdout,
        // rc 1 where there is none.
        Err(error) if error.says.contains("no parallel environment") => String::new(),
        Err(error) => return Err(error),
    };
    let mut environments = Vec::new();
    for name in names.split_whitespace().take(OBJECTS_LIMIT) {
        let answer = run(Verb::List, &Call::new("qconf").args(["-sp", name])).await?;
        environments.extend(site::pe(&answer.stdout));
    }
    if environments.is_empty() {
        return Ok(site::Offer { environments, memory, gpu });
    }
    // Those that no queue offers run nothing.
    let anywhere: BTreeSet<_> = queues().await.unwrap_or_default().iter().flat_map(site::offered).collect();
    environments.retain(|pe: &site::Pe| anywhere.is_empty() || anywhere.contains(&pe.name));
    Ok(site::Offer { environments, memory, gpu })
}

/// The settings of all queues.
async fn queues() -> Result<Vec<BTreeMap<String, String>>, BackendError> {
    let names = run(Verb::List, &Call::new("qconf").arg("-sql")).await?.stdout;
    let names: Vec<_> = names.split_whitespace().take(OBJECTS_LIMIT).collect();
    let answer = run(Verb::List, &Call::new("qconf").args(["-sq", &names.join(",")])).await?;
    Ok(site::queues(&answer.stdout))
}

/// The parallel environments of the queue that is asked for; empty where that is no queue's name.
async fn offered(home: &JobHome) -> BTreeSet<String> {
    let Some(queue) = home.pool.queue.as_deref().filter(|_| home.pool.cores > 1) else { return BTreeSet::new() };
    let call = Call::new("qconf").args(["-sq", queue.split('@').next().unwrap_or_default()]);
    // It may be a pattern, or unknown, which `qsub` says better.
    let queues = run(Verb::List, &call).await.map(|answer| site::queues(&answer.stdout)).unwrap_or_default();
    queues.iter().flat_map(site::offered).collect()
}

impl Sge {
    /// Returns the backend; talks to nobody yet.
    pub fn new(home: JobHome) -> Self {
        Self { home, known: Mutex::new(None) }
    }

    fn known(&self) -> Option<Known> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    async fn learn(&self) -> Result<Known, BackendError> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let offer = match offer().await {
            Ok(offer) => offer,
            // A host may submit and have no `qconf`: what needs nothing of it works.
            Err(error) if error.class == ErrorClass::Permanent => site::Offer::default(),
            Err(error) => return Err(error),
        };
        let limit = self.settings().await.ok().and_then(|s| s.get("max_aj_tasks")?.parse().ok());
        let array_limit = limit.filter(|limit| *limit > 0).unwrap_or(ARRAY_LIMIT).min(ARRAY_LIMIT);
        let known = Known { offer, array_limit };
        *self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(known.clone());
        Ok(known)
    }

    /// The administrators may have changed what a script could not be written for.
    fn forget(&self) {
        *self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }

    async fn settings(&self) -> Result<BTreeMap<String, String>, BackendError> {
        Ok(site::settings(&run(Verb::List, &Call::new("qconf").arg("-sconf")).await?.stdout))
    }

    /// All of this user's jobs, of this cluster.
    async fn live(&self) -> Result<Vec<Observation>, BackendError> {
        // Said in full: ~/.sge_qstat may filter (sge_qstat(5)).
        let call = Call::new("qstat").args(["-s", "a", "-r", "-xml"]).args(of_user("-u")).env("TZ", "UTC");
        let answer = run(Verb::List, &call).await?;
        parse::listing(&self.home.id4, &answer.stdout, now_seconds())
            .ok_or_else(|| call.error(ErrorClass::Transient, &format!("not a whole listing: {}", answer.says()), None))
    }

    /// Adds why jobs wait.
    async fn explain(&self, seen: &mut [Observation]) {
        let waiting = |o: &&Observation| o.state == Observed::Pending;
        let ids: BTreeSet<&str> = seen.iter().filter(waiting).map(|o| array(&o.id)).take(10_000).collect();
        if ids.is_empty() {
            return;
        }
        let ids = ids.into_iter().take(REASONS_LIMIT).collect::<Vec<_>>().join(",");
        // It fails when all of them have just ended; without reasons the listing is as true.
        let Ok(answer) = run(Verb::List, &Call::new("qstat").args(["-j", &ids])).await else { return };
        let details = parse::details(&answer.stdout);
        for o in seen.iter_mut().filter(|o| o.state == Observed::Pending) {
            if let Some(words) = details.get(array(&o.id)).and_then(|told| told.of(&o.id)) {
                let letters = if o.reason.is_empty() { "qw" } else { &o.reason };
                o.reason = batch::bounded(&format!("{letters} {words}"));
            }
        }
    }

    /// A job in error stays in the queue until somebody deletes it, and never starts: it is deleted and has failed.
    async fn clear_errors(&self, seen: &mut [Observation]) {
        let broken: Vec<_> = seen.iter().filter(|o| parse::is_error(&o.reason)).map(|o| o.id.clone()).collect();
        if broken.is_empty() || self.delete(broken.iter()).await.is_err() {
            return;
        }
        for o in seen.iter_mut().filter(|o| broken.contains(&o.id)) {
            o.state = Observed::Ended { how: EndedHow::LaunchFailed, exit_code: None };
        }
    }

    async fn delete(&self, ids: impl Iterator<Item = &NativeId>) -> Result<(), BackendError> {
        let mut all = Ok(());
        for ids in parse::ranges(ids).chunks(IDS_LIMIT) {
            let call = Call::new("qdel").args(ids);
            let answer = match call.run().await {
                // It fails when one of many has ended, and says which.
                Ok(answer)
                    if answer.exit == Exit::Code(1)
                        && answer.stderr.trim().is_empty()
                        && !answer.stdout.trim().is_empty()
                        && parse::not_deleted(&answer.stdout).is_empty() =>
                {
                    continue;
                }
                Ok(Answer { exit, stdout, stderr }) if exit != Exit::Code(0) => {
                    Ok(Answer { exit, stdout: parse::not_deleted(&stdout).join("\n"), stderr })
                }
                answer => answer,
            };
            all = all.and(batch::judge(Verb::Cancel, &call, answer, errors::classify).map(drop));
        }
        all
    }

    /// What accounting knows of the cluster's jobs. One call reads the file once for all; of several ids `qacct -j`
    /// takes the first alone (8.1.9).
    async fn ended(&self) -> Result<Vec<Observation>, BackendError> {
        let names = format!("dc{}-*", self.home.id4);
        let call = |by_end: Option<&str>| {
            let call = Call::new("qacct").args(of_user("-o")).args(by_end);
            call.args(["-d", ACCOUNTING_DAYS, "-j", &names]).timeout(ACCOUNTING_TIMEOUT)
        };
        // Of days in which jobs ended, not began; not all know that.
        let (mut call, other) = (call(Some("-E")), call(None));
        let mut answer = call.run().await;
        if answer.as_ref().is_ok_and(errors::no_such_option) {
            answer = other.run().await;
            call = other;
        }
        let answer = match answer {
            Err(CallError::Missing { .. }) => return Ok(Vec::new()),
            Ok(answer) if errors::not_accounted(&answer) => return Ok(Vec::new()),
            answer => batch::judge(Verb::Account, &call, answer, errors::classify)?,
        };
        Ok(parse::accounting(&self.home.id4, &answer.stdout))
    }

    fn script(&self, array: JobArray, home: &JobHome) -> Result<String, BackendError> {
        let input = RenderInput::plain(home, BackendKind::Sge, array.first, array.count);
        render::render_job_script(&input).map_err(|error| {
            self.forget();
            error.into_backend_error("qsub")
        })
    }

    /// Says which limit a request is over that no queue can ever fulfil: this submits nothing.
    async fn why_never(&self, script: &Path, error: BackendError) -> BackendError {
        let call =
            Call::new("qsub").args(SUBMIT_OPTIONS).args(["-w", "v"]).arg("-wd").arg(&self.home.folder).arg(script);
        let Ok(answer) = call.run().await else { return error };
        match parse::never_runs(&answer.stderr) {
            // Of no queue it says why not: there are no hosts just now.
            words if words.is_empty() => BackendError { class: ErrorClass::Transient, ..error },
            words => BackendError { says: batch::bounded(&words), ..error },
        }
    }
}

/// Grid Engine says when a job began by the time of day, so that is what its age is told by: shown and passed on to
/// the worker, whose own clock it corrects.
fn now_seconds() -> i64 {
    i64::try_from(clock::now().wall / 1000).unwrap_or(i64::MAX)
}

#[async_trait]
impl Backend for Sge {
    async fn prepare(&self) -> Result<(), BackendError> {
        self.learn().await.map(drop)
    }

    async fn submit(&self, submit: &Submit) -> Result<Vec<NativeId>, BackendError> {
        let mut home = self.home.of(submit);
        home.said = Said::Sge(self.learn().await?.offer.of(home.pool.cores, &offered(&home).await));
        home.avoid(&submit.exclude);
        let array = JobArray::of(&submit.jobs);
        let script = self.script(array, &home)?;
        let path = home.job_folder(&array.name(&home.id4)).join("script.sh");
        let call = Call::new("qsub").args(SUBMIT_OPTIONS).arg("-wd").arg(&home.folder).arg(&path);
        let written = folder::write_script(path.clone(), script, 0o600).await;
        written.map_err(|error| call.error(ErrorClass::Transient, &error.to_string(), None))?;
        let answer = match call.run().await {
            // A wrapper failed after the real one had done its work.
            // Or a warning of its own counted as a failure (`-w w` in the pool's directives).
            Ok(answer)
                if answer.exit != Exit::Code(0)
                    && (parse::submitted_id(&answer.stdout).is_some()
                        || answer.stderr.contains("has been submitted")) =>
            {
                let says = format!("it failed, and yet said {:?}: {}", answer.stdout.trim(), answer.stderr);
                return Err(call.error(ErrorClass::Ambiguous, &says, None));
            }
            answer => batch::judge(Verb::Submit, &call, answer, errors::classify),
        };
        let answer = match answer {
            Err(error) if error.says.contains("no suitable queues") => return Err(self.why_never(&path, error).await),
            answer => answer?,
        };
        let Some(id) = parse::submitted_id(&answer.stdout) else {
            let says = format!("no job id in {:?} {:?}", answer.stdout, answer.stderr);
            return Err(call.error(ErrorClass::Ambiguous, &says, None));
        };
        Ok(match array.count {
            1 => vec![NativeId(id.to_owned())],
            count => (1..=count).map(|task| NativeId(format!("{id}.{task}"))).collect(),
        })
    }

    async fn list(&self, jobs: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let mut seen = batch::of(jobs, self.live().await?);
        self.explain(&mut seen).await;
        self.clear_errors(&mut seen).await;
        Ok(seen)
    }

    async fn find(&self) -> Result<Vec<Observation>, BackendError> {
        let mut found = self.live().await?;
        let known: BTreeSet<NativeId> = found.iter().map(|o| o.id.clone()).collect();
        // What has ended is worth knowing, but no reason not to know what lives.
        let past = self.ended().await.unwrap_or_default();
        found.extend(past.into_iter().filter(|o| !known.contains(&o.id)));
        Ok(found)
    }

    async fn account(&self, jobs: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        Ok(batch::of(jobs, self.ended().await?))
    }

    async fn cancel(&self, jobs: &[JobRef]) -> Result<(), BackendError> {
        self.delete(jobs.iter().filter_map(|job| job.id.as_ref())).await
    }

    async fn site(&self) -> Result<Site, BackendError> {
        let text = async |words: &[&str]| {
            let call = Call::new("qconf").args(words.iter().copied());
            Ok::<_, BackendError>(run(Verb::List, &call).await?.stdout)
        };
        let (memory, gpu) = site::resources(&text(&["-sc"]).await?);
        let queues = queues().await?;
        let names = text(&["-sel"]).await?;
        let mut hosts = Vec::new();
        // Of a few of many hosts nothing follows.
        if names.split_whitespace().count() <= OBJECTS_LIMIT {
            for name in names.split_whitespace() {
                hosts.push(site::settings(&text(&["-se", name]).await?));
            }
        }
        let summary = run(Verb::List, &Call::new("qstat").args(["-g", "c"])).await?.stdout;
        let help = Call::new("qstat").arg("-help").run().await.map(|answer| answer.stdout + &answer.stderr);
        let max_jobs = self.settings().await?.get("max_u_jobs").and_then(|n| n.parse().ok()).filter(|n| *n > 0);
        Ok(Site {
            version: site::version(&help.unwrap_or_default()),
            queues: site::queue_limits(&queues, &hosts, (memory.as_ref(), gpu.as_ref()), &summary, max_jobs),
            accounting: Some(self.accounts().await),
        })
    }

    fn jobs_per_submit(&self) -> u32 {
        self.known().map_or(ARRAY_LIMIT, |known| known.array_limit)
    }
}

impl Sge {
    /// Whether this host sees the accounting file: of a job that is none, `qacct` says so.
    async fn accounts(&self) -> bool {
        let call = Call::new("qacct").args(["-d", "0", "-j", "dc-no-such-job"]).timeout(ACCOUNTING_TIMEOUT);
        call.run().await.is_ok_and(|answer| {
            answer.exit == Exit::Code(0) || answer.stderr.contains("not found") && !answer.stdout.contains("no jobs")
        })
    }
}

/// The option that asks for this user's jobs: Grid Engine knows names alone, and of a number it says that nobody has
/// jobs. Where the name cannot be found out (a static binary knows no LDAP) it is left out: `qstat` then shows one's own.
fn of_user(option: &'static str) -> Vec<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    user.map(|user| vec![option.to_owned(), user.name]).unwrap_or_default()
}

/// `71` of `71.3`.
fn array(id: &NativeId) -> &str {
    id.0.split('.').next().unwrap_or_default()
}

async fn run(verb: Verb, call: &Call) -> Result<Answer, BackendError> {
    batch::run(verb, call, errors::classify).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ids::{JobName, JobSeq};

    #[test]
    fn a_reused_id_is_another_job() {
        let job = |seq, id: Option<&str>| JobRef {
            name: JobName::new("abcd", JobSeq(seq)),
            id: id.map(|id| NativeId(id.to_owned())),
        };
        let all = parse::listing("abcd", include_str!("../../tests/fixtures/sge/qstat_xml.out"), 0).unwrap();
        let ids = |jobs: &[JobRef]| batch::of(jobs, all.clone()).iter().map(|o| o.id.0.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&[job(10, Some("57.1")), job(11, Some("56.2")), job(5, None), job(99, None)]), ["57.1", "54"]);
    }
}
