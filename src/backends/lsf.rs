//! LSF, by its own commands: IBM Spectrum LSF 10.1 by its manual and public outputs, OpenLava 2.2 as measured
//! (`design/backends/pbs_lsf.md`).
//!
//! One `bsub` reads the script from its standard input and submits all jobs of a call, as an array where there are
//! several; a job is found again by its name, which for an element is the array's name and the element's index.
//! How `bjobs` can be asked is found out by asking. Exit codes say little and differ by site: texts decide, and no
//! failed command says that a job has ended.

pub(crate) mod details;
pub mod errors;
pub mod kill;
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
use async_trait::async_trait;
use parse::{Format, Listing};
use site::Memory;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most elements of an array we ask for, and LSF's own default (MAX_JOB_ARRAY_SIZE).
const ARRAY_LIMIT: u32 = 1000;
/// Ids in one command.
const IDS_LIMIT: usize = 200;
/// Event files that `bhist` reads, the newest first: a job may have left the memory of mbatchd an hour after its end.
const EVENT_FILES: &str = "3";

/// The LSF of this host.
#[derive(Debug)]
pub struct Lsf {
    home: JobHome,
    known: Mutex<Known>,
}

/// What has been learned of the site.
#[derive(Debug)]
struct Known {
    /// What `lsid` calls it.
    version: Option<String>,
    array_limit: Option<u32>,
    reserve_per_slot: bool,
    /// How `bjobs` is asked.
    format: Format,
    /// What decides how jobs are ended.
    history: kill::History,
}

impl Known {
    /// Whether this is IBM's, as far as we know.
    fn is_ibm(&self) -> bool {
        self.version.as_deref().is_some_and(|version| !site::is_openlava(version))
    }
}

/// Without LSB_NTRIES a command asks a master that is down for ever (capture mbd_down_bjobs).
fn call(program: &'static str) -> Call {
    Call::new(program).only(inherited).env("LSB_NTRIES", "1")
}

/// Reads `lsf.conf` where LSF itself looks for it; LSF's own defaults where it cannot be read.
fn memory_of_this_host() -> Memory {
    let folder = ["LSF_ENVDIR", "LSF_CONFDIR"].into_iter().find_map(std::env::var_os);
    let path = folder.map_or_else(|| PathBuf::from("/etc"), PathBuf::from).join("lsf.conf");
    let conf = std::fs::read(path).unwrap_or_default();
    Memory::of_conf(&String::from_utf8_lossy(&conf))
}

/// Returns how the LSF of this host counts memory.
///
/// # Errors
/// If it does not answer.
pub async fn said() -> Result<Memory, BackendError> {
    let answer = run(Verb::List, &call("bparams").arg("-l")).await?;
    let mut memory = memory_of_this_host();
    memory.reserve_per_slot |= site::per_slot(&answer.stdout);
    Ok(memory)
}

impl Lsf {
    /// Returns the backend; talks to nobody yet.
    pub fn new(home: JobHome) -> Self {
        let known = Known {
            version: None,
            array_limit: None,
            reserve_per_slot: false,
            format: Format::Json,
            history: kill::History::default(),
        };
        Self { home, known: Mutex::new(known) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each field is true by itself: a panic elsewhere leaves nothing half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns what the site is, once.
    async fn learn(&self) -> Result<(), BackendError> {
        if self.known().version.is_none() {
            let answer = run(Verb::List, &call("lsid")).await?;
            let version = site::version(&answer.stdout).or_else(|| site::version(&answer.stderr));
            self.known().version = Some(version.unwrap_or_else(|| "LSF".to_owned()));
        }
        if self.known().array_limit.is_none() {
            let answer = run(Verb::List, &call("bparams").arg("-l")).await?;
            let mut known = self.known();
            known.array_limit = Some(site::array_limit(&answer.stdout).unwrap_or(ARRAY_LIMIT));
            known.reserve_per_slot = site::per_slot(&answer.stdout);
        }
        Ok(())
    }

    /// How memory is counted, as far as we know.
    fn memory(&self) -> Memory {
        let mut memory = memory_of_this_host();
        memory.reserve_per_slot |= self.known().reserve_per_slot;
        memory
    }

    /// Asks `bjobs` about jobs.
    async fn bjobs(&self, which: &[&str]) -> Result<Vec<Observation>, BackendError> {
        let mut format = self.known().format;
        loop {
            let call = call("bjobs").arg("-a").args(format.options()).args(which);
            let answer = ask(Verb::List, &call).await?;
            if errors::unknown_option(&answer)
                && let Some(simpler) = format.simpler()
            {
                self.known().format = simpler;
                format = simpler;
                continue;
            }
            if errors::nothing_found(&answer) {
                return Ok(Vec::new());
            }
            let listing = parse::listing(&self.home.id4, format, &answer.stdout);
            let done = answer.exit == Exit::Code(0);
            let (class, fix) = errors::classify(Verb::List, &answer);
            match (listing, format.simpler()) {
                (Listing::Jobs(jobs), _) if done || errors::whole(&answer, format == Format::Json) => {
                    self.known().history.remember(&jobs);
                    return Ok(jobs);
                }
                // It says nothing that we know, right or wrong: perhaps in other words, such as of a field it lacks.
                (_, Some(simpler)) if done || fix.is_none() => format = simpler,
                _ => return Err(call.error(class, &answer.says(), fix)),
            }
        }
    }

    /// Adds what only further commands say where `bjobs` is asked for its table: reasons of waiting, and how jobs
    /// ended. What they do not say now is asked again with the next listing.
    async fn complete(&self, jobs: &mut [Observation]) {
        if self.known().format != Format::Wide {
            return;
        }
        let waits = |job: &Observation| job.state == Observed::Pending;
        for ids in array_ids(jobs.iter().filter(|job| waits(job)).map(|job| &job.id)).chunks(IDS_LIMIT) {
            let call = call("bjobs").arg("-p").args(ids);
            if let Ok(answer) = call.run().await {
                parse::add_reasons(jobs, &parse::pending_reasons(&answer.stdout));
            }
        }
        // `bjobs -l` knows the run limit, `bhist -l` who killed it.
        for (program, options) in [("bjobs", &["-l"][..]), ("bhist", &["-l"])] {
            let open = |job: &Observation| matches!(job.state, Observed::Ended { how: EndedHow::Exited, .. });
            let ids: Vec<String> = jobs.iter().filter(|job| open(job)).map(|job| job.id.0.clone()).collect();
            for ids in ids.chunks(IDS_LIMIT) {
                let Ok(answer) = call(program).args(options).args(ids).run().await else { continue };
                let ends = details::ends(&self.home.id4, &answer.stdout);
                let ends: BTreeMap<_, _> = ends.iter().map(|end| (&end.id, end)).collect();
                for job in jobs.iter_mut().filter(|job| open(job)) {
                    if let Some(end) = ends.get(&job.id) {
                        job.state = end.state.clone();
                        job.reason = batch::bounded(&end.reason);
                    }
                }
            }
        }
    }

    async fn bsub(&self, home: &JobHome, array: JobArray, avoid: &[String]) -> Result<(Call, Answer), BackendError> {
        let memory = self.memory();
        let pool = script::avoiding(&home.pool, memory, avoid);
        let home = JobHome { pool, said: Said::Lsf(memory), ..home.clone() };
        let input = RenderInput::plain(&home, BackendKind::Lsf, array.first, array.count);
        let script = render::render_job_script(&input).map_err(|error| error.into_backend_error("bsub"))?;
        let path = home.job_folder(&array.name(&home.id4)).join("script.sh");
        // IBM's: OpenLava reads `-rn` as something else. The mail is IBM's to send even where there is `-o`.
        let call =
            call("bsub").args(self.known().is_ibm().then_some("-rn")).env("LSB_JOB_REPORT_MAIL", "N").input(&path);
        let written = folder::write_script(path, script, 0o600).await;
        written.map_err(|error| call.error(ErrorClass::Transient, &error.to_string(), None))?;
        let answer = match call.run().await {
            Ok(answer) if answer.exit == Exit::Code(0) && errors::refused(&answer) => {
                let (class, fix) = errors::classify(Verb::Submit, &answer);
                return Err(call.error(class, &answer.says(), fix));
            }
            answer => batch::judge(Verb::Submit, &call, answer, errors::classify)?,
        };
        Ok((call, answer))
    }

    /// Says `bkill` of jobs; fails where what it says is about none of them.
    async fn bkill<'a>(&self, options: &[&str], ids: &[&'a NativeId]) -> Result<Killed<'a>, BackendError> {
        let call = call("bkill").args(options).args(ids.iter().map(|id| id.0.as_str()));
        let answer = ask(Verb::Cancel, &call).await?;
        // Silence is an answer of nobody: each id has its line.
        if answer.exit != Exit::Code(0) && answer.stderr.trim().is_empty() {
            return Err(call.error(ErrorClass::Transient, &answer.says(), None));
        }
        let reply = kill::reply(ids, &answer.stderr);
        let class = errors::classify(Verb::Cancel, &answer).0;
        let refused = reply.refused.as_ref().map(|says| call.error(class, says, None));
        match refused {
            Some(error) if reply.of_all => Err(error),
            refused => Ok(Killed { reached: reply.reached, waiting: reply.waiting, refused }),
        }
    }
}

/// What came of a `bkill`: see [`kill::Reply`].
struct Killed<'a> {
    reached: Vec<&'a NativeId>,
    waiting: Vec<&'a NativeId>,
    refused: Option<BackendError>,
}

#[async_trait]
impl Backend for Lsf {
    async fn prepare(&self) -> Result<(), BackendError> {
        self.learn().await
    }

    async fn submit(&self, submit: &Submit) -> Result<Vec<NativeId>, BackendError> {
        // What is not known for sure is left out of the command.
        let _ = self.learn().await;
        let (home, array) = (self.home.of(submit), JobArray::of(&submit.jobs));
        let (call, answer) = match self.bsub(&home, array, &submit.exclude).await {
            // An LSF that has no `hname` in a selection cannot avoid nodes.
            Err(error) if !submit.exclude.is_empty() && error.says.contains("resource requirement syntax") => {
                self.bsub(&home, array, &[]).await?
            }
            answer => answer?,
        };
        let Some(id) = parse::submitted_id(&answer.stdout) else {
            let says = format!("no job id in {:?} {:?}", answer.stdout, answer.stderr);
            return Err(call.error(ErrorClass::Ambiguous, &says, None));
        };
        Ok(match array.count {
            1 => vec![parse::native_id(id, 0)],
            count => (1..=count).map(|index| parse::native_id(id, index)).collect(),
        })
    }

    async fn list(&self, jobs: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        let ids = array_ids(jobs.iter().filter_map(|job| job.id.as_ref()));
        let mut seen = Vec::new();
        if ids.len() > IDS_LIMIT {
            seen = self.bjobs(&["-J", &self.names()]).await?;
        } else if !ids.is_empty() {
            seen = self.bjobs(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        }
        let mut seen = batch::of(jobs, seen);
        self.complete(&mut seen).await;
        Ok(seen)
    }

    async fn find(&self) -> Result<Vec<Observation>, BackendError> {
        self.bjobs(&["-J", &self.names()]).await
    }

    async fn account(&self, jobs: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        let ids = array_ids(jobs.iter().filter_map(|job| job.id.as_ref()));
        let mut seen = Vec::new();
        for ids in ids.chunks(IDS_LIMIT) {
            let call = call("bhist").args(["-l", "-n", EVENT_FILES]).args(ids);
            let answer = match call.run().await {
                Err(CallError::Missing { .. }) => return Ok(Vec::new()),
                Ok(answer) if errors::nothing_found(&answer) => continue,
                Ok(answer) if !answer.stdout.trim().is_empty() && errors::whole(&answer, false) => answer,
                answer => batch::judge(Verb::Account, &call, answer, errors::classify)?,
            };
            seen.extend(details::ends(&self.home.id4, &answer.stdout));
        }
        Ok(batch::of(jobs, seen))
    }

    async fn cancel(&self, jobs: &[JobRef]) -> Result<(), BackendError> {
        let orders = {
            let known = self.known();
            known.history.orders(killable(jobs), known.is_ibm())
        };
        let kill::Orders { tell, mut kill, remove } = orders;
        // One that cannot be ended keeps none of the others alive.
        let mut refused = None;
        for ids in tell.chunks(IDS_LIMIT) {
            let told = self.bkill(&["-s", "TERM"], ids).await?;
            self.known().history.told(told.reached);
            kill.extend(told.waiting);
            refused = refused.or(told.refused);
        }
        for (options, ids) in [(&[][..], &kill), (&["-r"], &remove)] {
            for ids in ids.chunks(IDS_LIMIT) {
                refused = refused.or(self.bkill(options, ids).await?.refused);
            }
        }
        refused.map_or(Ok(()), Err)
    }

    async fn site(&self) -> Result<Site, BackendError> {
        self.learn().await?;
        let bparams = run(Verb::List, &call("bparams").arg("-l")).await?.stdout;
        let bqueues = run(Verb::List, &call("bqueues").arg("-l")).await?.stdout;
        let bhosts = run(Verb::List, &call("bhosts").arg("-w")).await?.stdout;
        // Where it does not answer, only the queues' own limits are known.
        let lshosts = run(Verb::List, &call("lshosts").arg("-w")).await.map(|answer| answer.stdout).unwrap_or_default();
        let (slots, memory) = (site::host_slots(&bhosts), site::host_memory(&lshosts));
        // A static build knows no directory service, `id` does.
        let user = Call::new("id").arg("-un").run().await.ok().map(|answer| answer.stdout.trim().to_owned());
        let user = user.as_deref().filter(|user| !user.is_empty());
        let mut queues = site::queues(&bqueues, site::default_queue(&bparams), user);
        for queue in &mut queues {
            queue.max_cores = [queue.max_cores, slots].into_iter().flatten().min();
            queue.max_memory_bytes = [queue.max_memory_bytes, memory].into_iter().flatten().min();
        }
        let version = self.known().version.clone().unwrap_or_default();
        Ok(Site { version, queues, accounting: Some(true) })
    }

    fn jobs_per_submit(&self) -> u32 {
        self.known().array_limit.unwrap_or(ARRAY_LIMIT).min(ARRAY_LIMIT)
    }
}

impl Lsf {
    /// All names of the cluster, as a pattern of `-J` (measured by OpenLava's `matchName`: `*` at the end).
    fn names(&self) -> String {
        format!("dc{}-*", self.home.id4)
    }
}

/// Variables that the commands inherit, and with them the job: LSF copies the whole environment of `bsub` into its
/// files and into the job (capture bsub_env_leak). What a shell or a job of LSF has set beside these would change
/// what we ask for (`LSB_SUB_…`, `BSUB_QUIET`, `LSB_BJOBS_FORMAT`) or is nobody's business.
fn inherited(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "HOME",
        "KRB5CCNAME",
        "LD_LIBRARY_PATH",
        "LOGNAME",
        "LSB_DEFAULTPROJECT",
        "LSB_DEFAULTQUEUE",
        "PATH",
        "SHELL",
        "TZ",
        "USER",
    ];
    NAMES.contains(&name) || ["LSF_", "XLSF_", "EGO_"].iter().any(|begin| name.starts_with(begin))
}

/// Ids of the jobs and arrays: `71` for `71[3]`. An array stands for its elements.
fn array_ids<'a>(ids: impl Iterator<Item = &'a NativeId>) -> Vec<String> {
    let jobs = ids.filter_map(|id| id.0.split('[').next()).filter(|id| parse::is_id(id));
    jobs.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Ids for `bkill`, which takes 0 for all jobs of the user.
fn killable(jobs: &[JobRef]) -> Vec<&NativeId> {
    let is_job = |id: &&NativeId| parse::is_id(id.0.split('[').next().unwrap_or_default());
    jobs.iter().filter_map(|job| job.id.as_ref()).filter(is_job).collect()
}

/// Runs a command for what it says, whatever its exit code.
async fn ask(verb: Verb, call: &Call) -> Result<Answer, BackendError> {
    match call.run().await {
        Ok(answer) => Ok(answer),
        nothing => batch::judge(verb, call, nothing, errors::classify),
    }
}

async fn run(verb: Verb, call: &Call) -> Result<Answer, BackendError> {
    batch::run(verb, call, errors::classify).await
}

#[cfg(test)]
mod tests;
