//! PBS: OpenPBS and PBS Professional (23.06.06 measured), and TORQUE where it differs (from its manual, 6.1).
//!
//! One `qsub` submits all jobs of a call, as an array where there are several. Jobs are read from the text of
//! `qstat -f`, all of a call in one request (`-E`) where it knows that; what it does not know of the site it learns from
//! the answers: whether history is kept, whether `-E` exists. `qdel` sends TERM to all processes of a job, and KILL
//! after the site's `kill_delay`.

mod cancel;
pub mod errors;
pub(crate) mod observe;
pub mod parse;
pub mod reasons;
pub mod script;
pub(crate) mod site;

use crate::backends::batch::{self, Answer, Call, Exit, JobArray, Verb};
use crate::backends::render::{self, JobHome, RenderInput};
use crate::backends::said::Said;
use crate::backends::{Backend, BackendError, ErrorClass, JobRef, Observation, Site, Submit, folder};
use crate::config::spec::BackendKind;
use crate::runtime::ids::NativeId;
use async_trait::async_trait;
use parse::{Id, Record, Version, Which};
use script::Tongue;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Most elements of an array we ask for.
const ARRAY_LIMIT: u32 = 1000;
/// Ids in one command: without `-E` each is a connection of its own (300 took 3.3 s, capture bulk_qstat_ids).
const IDS_LIMIT: usize = 200;
/// Arrays in one command that shows all their elements, 2 kB each.
const ARRAYS_LIMIT: usize = 20;
/// Finished jobs of the user that are looked through for ours, the newest: history may go back for weeks.
const HISTORY_LIMIT: usize = 1000;

/// Time for the list of all nodes: less than a caller has for all that the site says.
const NODES_TIMEOUT: Duration = Duration::from_secs(5);

/// Variables that would change what we ask for: another prefix of directives (qsub(1B)).
const FOREIGN: &[&str] = &["PBS_DPREFIX"];

/// The PBS of this host.
#[derive(Debug)]
pub struct Pbs {
    home: JobHome,
    /// Elements an array may have; 0 until the server has said it.
    array_limit: AtomicU32,
    version: Mutex<Option<Version>>,
    /// `-x` is answered.
    history: AtomicBool,
    /// `-E` is known.
    grouping: AtomicBool,
}

fn call(program: &'static str) -> Call {
    Call::new(program).without(FOREIGN.iter().copied())
}

async fn version() -> Result<Version, BackendError> {
    let answer = run(Verb::List, &call("qstat").arg("--version")).await?;
    let unknown = || Version { torque: false, number: String::new() };
    Ok(parse::version(&format!("{}\n{}", answer.stdout, answer.stderr)).unwrap_or_else(unknown))
}

/// Returns how the PBS of this host is asked.
///
/// # Errors
/// If it does not answer.
pub async fn said() -> Result<Tongue, BackendError> {
    Ok(version().await?.tongue())
}

impl Pbs {
    /// Returns the backend; talks to nobody yet.
    pub fn new(home: JobHome) -> Self {
        Self {
            home,
            array_limit: AtomicU32::new(0),
            version: Mutex::new(None),
            history: AtomicBool::new(true),
            grouping: AtomicBool::new(true),
        }
    }

    /// Which PBS it is, asked once: `qstat -x` is history in one and XML in the other.
    async fn version(&self) -> Result<Version, BackendError> {
        if let Some(known) = self.version.lock().ok().and_then(|version| version.clone()) {
            return Ok(known);
        }
        let version = version().await?;
        if let Ok(mut known) = self.version.lock() {
            *known = Some(version.clone());
        }
        Ok(version)
    }

    async fn server(&self) -> Result<site::Server, BackendError> {
        let answer = run(Verb::List, &call("qstat").args(["-B", "-f"])).await?;
        let server = site::server(&answer.stdout);
        let limit = server.max_array.map_or(ARRAY_LIMIT, |limit| limit.min(ARRAY_LIMIT));
        self.array_limit.store(limit, Ordering::Relaxed);
        Ok(server)
    }

    /// Asks for these jobs, arrays as a whole or with all their elements.
    async fn qstat(&self, ids: &[String], elements: bool) -> Result<Vec<Record>, BackendError> {
        let torque = self.version().await?.torque;
        // What the answer teaches may have to be asked again: once for history, once for `-E`.
        for _ in 0..3 {
            let history = !torque && self.history.load(Ordering::Relaxed);
            let grouping = !torque && self.grouping.load(Ordering::Relaxed);
            let call = call("qstat").args(grouping.then_some("-E")).args(history.then_some("-x"));
            let call = call.arg("-f").args(elements.then_some("-t")).args(ids);
            let answer = match call.run().await {
                Ok(answer) if history && errors::no_history(&answer.stderr) => {
                    self.history.store(false, Ordering::Relaxed);
                    continue;
                }
                Ok(answer) if !torque && !history && errors::has_history(&answer.stderr) => {
                    self.history.store(true, Ordering::Relaxed);
                    continue;
                }
                Ok(answer) if grouping && errors::no_such_option(&answer, 'E') => {
                    self.grouping.store(false, Ordering::Relaxed);
                    continue;
                }
                Ok(answer) if errors::of_single_jobs(&answer) => answer,
                answer => batch::judge(Verb::List, &call, answer, errors::classify)?,
            };
            let records = parse::records("Job Id", &answer.stdout);
            // Jobs that it does not know are an error, so silence is none of PBS's answers.
            if records.is_empty() && answer.exit == Exit::Code(0) {
                return Err(call.error(
                    ErrorClass::Transient,
                    &format!("no job in its answer: {}", answer.says()),
                    None,
                ));
            }
            return Ok(records);
        }
        Err(call("qstat").error(ErrorClass::Transient, "its answers contradict each other", None))
    }

    /// Asks for these jobs, in as many commands as it takes.
    async fn qstat_all(&self, ids: &[String], elements: bool) -> Result<Vec<Record>, BackendError> {
        let (arrays, singles): (Vec<_>, Vec<_>) = ids.iter().cloned().partition(|id| elements && id.contains("[]"));
        let mut records = Vec::new();
        for ids in arrays.chunks(ARRAYS_LIMIT).chain(singles.chunks(IDS_LIMIT)) {
            records.extend(self.qstat(ids, elements).await?);
        }
        Ok(records)
    }

    fn observations(&self, records: &[Record]) -> Vec<Observation> {
        let pools = std::iter::once(&self.home.pool).chain(self.home.pools.values());
        let walltimes = pools.flat_map(|pool| pool.walltime_choices.iter().copied().chain(pool.walltime_seconds));
        observe::jobs(&self.home.id4, records, &walltimes.collect())
    }

    /// Ids of all jobs of this user: those that are not over, then the newest that are.
    async fn qselect(&self) -> Result<Vec<String>, BackendError> {
        let (user, server) = (self.user().await?, self.server().await?);
        let live = run(Verb::List, &call("qselect").args(["-u", &user])).await?;
        let mut ids: Vec<String> =
            parse::selected_ids(&live.stdout, &server.name).into_iter().map(str::to_owned).collect();
        if self.version().await?.torque {
            return Ok(ids);
        }
        let call = call("qselect").args(["-x", "-u", &user]);
        let past = run(Verb::List, &call).await?;
        self.history.store(!errors::no_history(&past.stderr), Ordering::Relaxed);
        let known: BTreeSet<String> = ids.iter().cloned().collect();
        let mut past = parse::selected_ids(&past.stdout, &server.name);
        past.retain(|id| !known.contains(*id));
        past.sort_by_key(|id| std::cmp::Reverse(Id::parse(id).map(|id| id.number)));
        ids.extend(past.into_iter().take(HISTORY_LIMIT).map(str::to_owned));
        Ok(ids)
    }

    /// The user's name: commands take no number. A static build knows no directory service, `id` does.
    async fn user(&self) -> Result<String, BackendError> {
        let answer = run(Verb::List, &call("id").arg("-un")).await?;
        Ok(answer.stdout.trim().to_owned())
    }

    fn script(home: &JobHome, array: JobArray) -> Result<String, BackendError> {
        let input = RenderInput::plain(home, BackendKind::Pbs, array.first, array.count);
        render::render_job_script(&input).map_err(|error| error.into_backend_error("qsub"))
    }
}

#[async_trait]
impl Backend for Pbs {
    async fn prepare(&self) -> Result<(), BackendError> {
        self.version().await?;
        self.server().await.map(drop)
    }

    async fn submit(&self, submit: &Submit) -> Result<Vec<NativeId>, BackendError> {
        let array = JobArray::of(&submit.jobs);
        let mut home = self.home.of(submit);
        home.said = Said::Pbs(self.version().await?.tongue());
        let script = Self::script(&home, array)?;
        let path = home.job_folder(&array.name(&home.id4)).join("script.sh");
        let call = call("qsub").arg(&path);
        let written = folder::write_script(path, script, 0o600).await;
        written.map_err(|error| call.error(ErrorClass::Transient, &error.to_string(), None))?;
        let answer = run(Verb::Submit, &call).await?;
        let unclear = || {
            let says = format!("no id of {} jobs in {:?} {:?}", array.count, answer.stdout, answer.stderr);
            call.error(ErrorClass::Ambiguous, &says, None)
        };
        let id = parse::submitted_id(&answer.stdout).and_then(Id::parse).ok_or_else(unclear)?;
        let ids = match (array.count, id.which) {
            (1, Which::Single) => vec![NativeId(id.text(Which::Single))],
            (2.., Which::Array) => (0..array.count).map(|i| NativeId(id.text(Which::Element(i)))).collect(),
            _ => return Err(unclear()),
        };
        Ok(ids)
    }

    async fn list(&self, jobs: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        let records = self.qstat_all(&arrays(jobs), true).await?;
        Ok(observe::of(jobs, self.observations(&records)))
    }

    async fn find(&self) -> Result<Vec<Observation>, BackendError> {
        // The user's other arrays may have any number of elements.
        let mut records = self.qstat_all(&self.qselect().await?, false).await?;
        records.retain(|record| observe::is_ours(&self.home.id4, record));
        let ids: Vec<_> = records.iter().map(|record| record.name.clone()).collect();
        Ok(self.observations(&self.qstat_all(&ids, true).await?))
    }

    /// History is part of every listing.
    async fn account(&self, _: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        Ok(Vec::new())
    }

    async fn cancel(&self, jobs: &[JobRef]) -> Result<(), BackendError> {
        // To end jobs needs no word from `qstat`.
        cancel::cancel(jobs, self.version().await.is_ok_and(|version| version.torque)).await
    }

    async fn site(&self) -> Result<Site, BackendError> {
        let version = self.version().await?;
        let server = self.server().await?;
        let queues = run(Verb::List, &call("qstat").args(["-Q", "-f"])).await?;
        // Not everybody may see the nodes everywhere, and of many they come slowly: the queues are worth more.
        let nodes = call("pbsnodes").arg(if version.torque { "-a" } else { "-av" }).timeout(NODES_TIMEOUT);
        let nodes = run(Verb::List, &nodes).await;
        let nodes = nodes.map_or_else(|_| String::new(), |answer: Answer| answer.stdout);
        let queues = site::queues(&queues.stdout, &server, &nodes, &self.user().await?);
        let past = call("qselect").args(["-x", "-u", "root"]).run().await;
        let past = past.ok().filter(|answer| !version.torque && answer.exit == Exit::Code(0));
        let accounting = past.map(|answer| !errors::no_history(&answer.stderr));
        let name = if version.torque { "torque" } else { "pbs" };
        Ok(Site { version: format!("{name} {}", version.number).trim().to_owned(), queues, accounting })
    }

    fn jobs_per_submit(&self) -> u32 {
        match self.array_limit.load(Ordering::Relaxed) {
            0 => ARRAY_LIMIT,
            limit => limit,
        }
    }
}

/// Ids of the jobs and arrays: `22[].server` for `22[3].server`.
fn arrays(jobs: &[JobRef]) -> Vec<String> {
    let ids = jobs.iter().filter_map(|job| {
        let id = Id::parse(&job.id.as_ref()?.0)?;
        Some(id.text(if matches!(id.which, Which::Element(_)) { Which::Array } else { id.which }))
    });
    ids.collect::<BTreeSet<_>>().into_iter().collect()
}

async fn run(verb: Verb, call: &Call) -> Result<Answer, BackendError> {
    batch::run(verb, call, errors::classify).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ids::{JobName, JobSeq};

    #[test]
    fn asks_for_arrays_once() {
        let job = |seq, id: Option<&str>| JobRef {
            name: JobName::new("abcd", JobSeq(seq)),
            id: id.map(|id| NativeId(id.to_owned())),
        };
        let jobs = [job(1, Some("22[0].a")), job(2, Some("22[1].a")), job(3, Some("0.a")), job(4, None)];
        assert_eq!(arrays(&jobs), ["0.a", "22[].a"]);
    }
}
