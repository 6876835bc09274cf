//! Slurm, by its own commands in text form (22.05 to 24.11 measured, `design/backends/slurm_sge_oar_condor.md`).
//!
//! One `sbatch` submits all jobs of a call, as an array where there are several; a job is found again by its
//! name, which for an element is the array's name and the element's index. `squeue` is asked once for all jobs.
//! `scancel` answers 0 whatever happened, so only a later listing says that a job is gone.

pub mod errors;
pub mod parse;
pub mod reasons;
pub mod script;
pub(crate) mod site;

use crate::backends::batch::{self, Answer, Call, CallError, JobArray, Verb, user_id};
use crate::backends::render::{self, JobHome, RenderInput};
use crate::backends::{
    Backend, BackendError, EndedHow, ErrorClass, JobRef, Observation, Observed, Site, Submit, folder,
};
use crate::config::spec::BackendKind;
use crate::runtime::ids::{JobSeq, NativeId};
use async_trait::async_trait;
use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// `sbatch` itself retries for 120 s while the queue is full (captures maxjobcount*: 105 s to success, 120.4 s
/// to failure): killed before, it leaves an ambiguity where it would have named the limit.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(135);
/// Most elements of an array we ask for.
const ARRAY_LIMIT: u32 = 1000;
/// Ids in one command; past that, a listing asks for the user's jobs instead.
const IDS_LIMIT: usize = 200;
/// How far back accounting is searched for jobs that nobody remembers.
const ACCOUNTING_SINCE: &str = "now-8days";

/// Variables by which a user's shell, or the job a server runs in, would change what we ask for: they win over
/// a script's directives (sbatch(1), "INPUT ENVIRONMENT VARIABLES"), or filter a listing in silence
/// (squeue(1), scancel(1), "ENVIRONMENT VARIABLES").
const FOREIGN: &[&str] = &[
    "SBATCH_ARRAY_INX",
    "SBATCH_CPUS_PER_TASK",
    "SBATCH_ERROR",
    "SBATCH_EXPORT",
    "SBATCH_GET_USER_ENV",
    "SBATCH_GRES",
    "SBATCH_GPUS",
    "SBATCH_GPUS_PER_NODE",
    "SBATCH_GPUS_PER_TASK",
    "SBATCH_IGNORE_PBS",
    "SBATCH_JOB_NAME",
    "SBATCH_MEM_PER_CPU",
    "SBATCH_MEM_PER_GPU",
    "SBATCH_MEM_PER_NODE",
    "SBATCH_NO_REQUEUE",
    "SBATCH_OPEN_MODE",
    "SBATCH_OUTPUT",
    "SBATCH_REQUEUE",
    "SBATCH_SIGNAL",
    "SBATCH_TEST_ONLY",
    "SBATCH_WAIT",
    "SCANCEL_ACCOUNT",
    "SCANCEL_BATCH",
    "SCANCEL_FULL",
    "SCANCEL_INTERACTIVE",
    "SCANCEL_NAME",
    "SCANCEL_PARTITION",
    "SCANCEL_QOS",
    "SCANCEL_STATE",
    "SCANCEL_USER",
    "SCANCEL_VERBOSE",
    "SCANCEL_WCKEY",
    "SQUEUE_ACCOUNT",
    "SQUEUE_FORMAT",
    "SQUEUE_FORMAT2",
    "SQUEUE_LICENSES",
    "SQUEUE_NAMES",
    "SQUEUE_PARTITION",
    "SQUEUE_QOS",
    "SQUEUE_SORT",
    "SQUEUE_STATES",
    "SQUEUE_USERS",
];
/// Whether the pool gives a value.
type Given = fn(&JobHome) -> bool;
/// As [`FOREIGN`], but wanted as a default where the pool gives none.
const DEFAULTS: &[(&str, Given)] = &[
    ("SBATCH_ACCOUNT", |home| home.pool.account.is_some()),
    ("SBATCH_CONSTRAINT", |home| home.pool.constraint.is_some()),
    ("SBATCH_PARTITION", |home| home.pool.queue.is_some()),
    ("SBATCH_QOS", |home| home.pool.qos.is_some()),
    ("SBATCH_TIMELIMIT", |home| home.pool.walltime_seconds.is_some()),
];

/// What every submit command says beside the script: print the id alone, and show nobody our environment.
pub(super) const SUBMIT_OPTIONS: [&str; 2] = ["--parsable", "--export=NIL"];

/// The Slurm of this host.
#[derive(Debug)]
pub struct Slurm {
    home: JobHome,
    /// Elements an array may have; 0 until the controller has said it.
    array_limit: AtomicU32,
}

impl Slurm {
    /// Returns the backend; talks to nobody yet.
    pub fn new(home: JobHome) -> Self {
        Self { home, array_limit: AtomicU32::new(0) }
    }

    fn call(&self, program: &'static str) -> Call {
        let call = Call::new(program).without(FOREIGN.iter().copied());
        // Else long lists of elements are cut without a mark (capture squeue_array_long_list).
        call.env("SLURM_BITSTR_LEN", "0")
    }

    async fn learn_array_limit(&self) -> Result<(), BackendError> {
        if self.array_limit.load(Ordering::Relaxed) == 0 {
            let call = self.call("scontrol").args(["show", "config"]);
            let answer = run(Verb::List, &call).await?;
            let limit = parse::array_limit(&answer.stdout).unwrap_or(ARRAY_LIMIT);
            self.array_limit.store(limit.min(ARRAY_LIMIT), Ordering::Relaxed);
        }
        Ok(())
    }

    async fn squeue(&self, which: [&str; 2]) -> Result<Vec<Observation>, BackendError> {
        // `-t all`: without it an ended job is absent. `-r`: a line for each element. `-a`: hidden partitions.
        let call = self.call("squeue").args(["-h", "-a", "-r", "-t", "all"]).args(which);
        let call = call.args(["-o", parse::SQUEUE_FORMAT]);
        let answer = match run(Verb::List, &call).await {
            // All of them are purged (only said of a single id, capture squeue_unknown_one).
            Err(error) if error.says.contains("Invalid job id specified") => return Ok(Vec::new()),
            answer => answer?,
        };
        // `squeue -u nosuchuser` fails with rc 0 (capture squeue_nouser).
        if answer.stdout.is_empty() && answer.stderr.contains("error") {
            return Err(call.error(ErrorClass::Transient, &answer.stderr, None));
        }
        Ok(parse::listing(&self.home.id4, &answer.stdout))
    }

    async fn sacct(&self, which: &[&str]) -> Result<Vec<Observation>, BackendError> {
        let call = self.call("sacct").args(["-n", "-P", "-X"]).args(which);
        let call = call.args(["-o", parse::SACCT_FIELDS]);
        let answer = match call.run().await {
            Err(CallError::Missing { .. }) => return Ok(Vec::new()),
            Ok(answer) if errors::no_accounting(&answer.stderr) => return Ok(Vec::new()),
            answer => batch::judge(Verb::Account, &call, answer, errors::classify)?,
        };
        Ok(parse::accounting(&self.home.id4, &answer.stdout))
    }

    fn script(home: &JobHome, array: JobArray) -> Result<String, BackendError> {
        let input = RenderInput::plain(home, BackendKind::Slurm, array.first, array.count);
        render::render_job_script(&input).map_err(|error| error.into_backend_error("sbatch"))
    }
}

#[async_trait]
impl Backend for Slurm {
    async fn prepare(&self) -> Result<(), BackendError> {
        self.learn_array_limit().await
    }

    async fn submit(&self, submit: &Submit) -> Result<Vec<NativeId>, BackendError> {
        let array = JobArray::of(&submit.jobs);
        let mut home = self.home.of(submit);
        home.avoid(&submit.exclude);
        let script = Self::script(&home, array)?;
        let mut call = self.call("sbatch").args(SUBMIT_OPTIONS);
        call = call.timeout(SUBMIT_TIMEOUT).env("SLURM_UMASK", "0077");
        let given = DEFAULTS.iter().filter(|(_, given)| given(&home));
        call = call.without(given.map(|(name, _)| *name));
        let path = home.job_folder(&array.name(&home.id4)).join("script.sh");
        let call = call.arg(&path);
        let written = folder::write_script(path, script, 0o600).await;
        written.map_err(|error| call.error(ErrorClass::Transient, &error.to_string(), None))?;
        let answer = run(Verb::Submit, &call).await?;
        let Some(id) = parse::submitted_id(&answer.stdout) else {
            let says = format!("no job id in {:?} {:?}", answer.stdout, answer.stderr);
            return Err(call.error(ErrorClass::Ambiguous, &says, None));
        };
        Ok(match array.count {
            1 => vec![NativeId(id.to_owned())],
            count => (0..count).map(|index| NativeId(format!("{id}_{index}"))).collect(),
        })
    }

    async fn expected_start(&self, submit: &Submit) -> Result<Option<u64>, BackendError> {
        let script = Self::script(&self.home.of(submit), JobArray { first: JobSeq(0), count: 1 })?;
        let path = self.home.folder.join("jobs").join("test-only.sh");
        // The time is printed as this host's local one, in the form that SLURM_TIME_FORMAT says.
        let call = self.call("sbatch").without(["SLURM_TIME_FORMAT"]).env("TZ", "UTC");
        let call = call.args(["--test-only", "--export=NIL"]).arg(&path);
        let written = folder::write_script(path, script, 0o600).await;
        written.map_err(|error| call.error(ErrorClass::Transient, &error.to_string(), None))?;
        let answer = run(Verb::List, &call).await?;
        Ok(parse::expected_start(&answer.stderr))
    }

    async fn list(&self, jobs: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        let mut ids = arrays(jobs);
        let observations = match ids.len() {
            0 => return Ok(Vec::new()),
            1..=IDS_LIMIT => {
                // One unknown id is an error, an unknown one among several is not (captures squeue_unknown_*);
                // the same id twice counts as several, a made-up one is refused (both seen on 22.05.8).
                ids.extend(ids.clone().first());
                self.squeue(["-j", &ids.join(",")]).await?
            }
            _ => self.squeue(["-u", &user_id()]).await?,
        };
        Ok(of(Source::Listing, jobs, observations))
    }

    async fn find(&self) -> Result<Vec<Observation>, BackendError> {
        let user = user_id();
        let mut found = self.squeue(["-u", &user]).await?;
        let known: BTreeSet<NativeId> = found.iter().map(|o| o.id.clone()).collect();
        let past = self.sacct(&["-u", &user, "-S", ACCOUNTING_SINCE, "-E", "now"]).await?;
        found.extend(past.into_iter().filter(|o| !known.contains(&o.id)));
        Ok(found)
    }

    async fn account(&self, jobs: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        let mut observations = Vec::new();
        for ids in arrays(jobs).chunks(IDS_LIMIT) {
            observations.extend(self.sacct(&["-j", &ids.join(",")]).await?);
        }
        Ok(of(Source::Accounting, jobs, observations))
    }

    async fn cancel(&self, jobs: &[JobRef]) -> Result<(), BackendError> {
        let ids: Vec<_> = jobs.iter().filter_map(|job| job.id.as_ref()).collect();
        let mut all = Ok(());
        for ids in ids.chunks(IDS_LIMIT) {
            let call = self.call("scancel").args(ids.iter().map(|id| id.0.as_str()));
            all = all.and(run(Verb::Cancel, &call).await.map(drop));
        }
        all
    }

    async fn site(&self) -> Result<Site, BackendError> {
        let config = self.call("scontrol").args(["show", "config"]);
        let partitions = self.call("scontrol").args(["-a", "-o", "show", "partition"]);
        // These filter in silence (sinfo(1), "ENVIRONMENT VARIABLES").
        let nodes = self.call("sinfo").without(["SINFO_FORMAT", "SINFO_PARTITION", "SINFO_SORT"]);
        let nodes = nodes.args(["-a", "-h", "-e", "-o", site::SINFO_FORMAT]);
        let answers = futures_util::future::try_join3(
            run(Verb::List, &config),
            run(Verb::List, &partitions),
            run(Verb::List, &nodes),
        );
        let (config, partitions, nodes) = answers.await?;
        Ok(site::site(&config.stdout, &partitions.stdout, &nodes.stdout))
    }

    fn jobs_per_submit(&self) -> u32 {
        match self.array_limit.load(Ordering::Relaxed) {
            0 => ARRAY_LIMIT,
            limit => limit,
        }
    }
}

/// Ids of the jobs and arrays: `71` for `71_3`. An array stands for its elements, for `sacct -j 6_3` knows
/// nothing of an element that was cancelled before it started (seen on 22.05.8).
fn arrays(jobs: &[JobRef]) -> Vec<&str> {
    let ids = jobs.iter().filter_map(|job| job.id.as_ref()?.0.split('_').next());
    ids.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Where what is said of jobs comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    /// `squeue -t all`: one moment's whole truth.
    Listing,
    /// `sacct`: some of it comes late.
    Accounting,
}

/// Those observations that are of these jobs: ids may be used again by Slurm, names are not.
///
/// An element that is cancelled before it starts vanishes without a trace (22.05.8, capture
/// squeue_after_elem_cancel); when the last one does, the array stays as one job `71`. So an element that is
/// not listed while its array is, is over.
fn of(source: Source, jobs: &[JobRef], observations: Vec<Observation>) -> Vec<Observation> {
    let arrays: HashSet<String> = observations
        .iter()
        .filter_map(|o| match (source, o.id.0.split_once('_'), &o.state) {
            (Source::Listing, Some((array, _)), _) => Some(array.to_owned()),
            (_, None, Observed::Ended { .. }) => Some(o.id.0.clone()),
            _ => None,
        })
        .collect();
    let mut seen = batch::of(jobs, observations);
    let ids: HashSet<_> = seen.iter().map(|o| o.id.clone()).collect();
    for job in jobs {
        let Some(id) = job.id.as_ref().filter(|id| !ids.contains(id)) else {
            continue;
        };
        if id.0.split_once('_').is_some_and(|(array, _)| arrays.contains(array)) {
            seen.push(Observation {
                name: job.name.clone(),
                id: id.clone(),
                state: Observed::Ended { how: EndedHow::Cancelled, exit_code: None },
                reason: "not listed while its array is: cancelled before it started, or long over".to_owned(),
                node: None,
                seconds_left: None,
            });
        }
    }
    seen
}

async fn run(verb: Verb, call: &Call) -> Result<Answer, BackendError> {
    batch::run(verb, call, errors::classify).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ids::{JobName, JobSeq};

    fn job(seq: u32, id: Option<&str>) -> JobRef {
        JobRef { name: JobName::new("abcd", JobSeq(seq)), id: id.map(|id| NativeId(id.to_owned())) }
    }

    #[test]
    fn asks_for_arrays_once() {
        let jobs = [job(1, Some("71_0")), job(2, Some("71_1")), job(3, Some("8")), job(4, None)];
        assert_eq!(arrays(&jobs), ["71", "8"]);
    }

    fn ids(source: Source, jobs: &[JobRef], text: &str) -> Vec<String> {
        let seen = of(source, jobs, parse::listing("abcd", text));
        let word = |o: &Observation| match o.state {
            Observed::Ended { how, .. } => format!("{} {how:?}", o.id),
            ref other => format!("{} {other:?}", o.id),
        };
        seen.iter().map(word).collect()
    }

    #[test]
    fn a_reused_id_is_another_job() {
        let text = "71_0|RUNNING|1:00|n01|None|dcabcd-000001\n71_1|RUNNING|1:00|n01|None|dcabcd-000001\n\
            8|RUNNING|1:00|n01|None|dcabcd-000009\n9|RUNNING|1:00|n01|None|dcabcd-000004\n";
        let jobs = [job(1, Some("71_0")), job(2, Some("70")), job(3, Some("8")), job(4, None)];
        assert_eq!(ids(Source::Listing, &jobs, text), ["71_0 Running", "9 Running"]);
    }

    #[test]
    fn an_element_that_vanished_is_over() {
        let jobs = [job(1, Some("71_0")), job(2, Some("71_1")), job(3, Some("72_0"))];
        let some = "71_0|PENDING|1:00||JobHeldUser|dcabcd-000001\n";
        let listed = ids(Source::Listing, &jobs, some);
        assert_eq!(listed, ["71_0 Pending", "71_1 Cancelled"]);
        assert_eq!(ids(Source::Accounting, &jobs, some), ["71_0 Pending"]);
        let none = "71|CANCELLED|1:00||JobHeldUser|dcabcd-000001\n";
        for source in [Source::Listing, Source::Accounting] {
            assert_eq!(ids(source, &jobs, none), ["71_0 Cancelled", "71_1 Cancelled"]);
        }
        assert!(ids(Source::Listing, &jobs, "").is_empty());
    }
}
