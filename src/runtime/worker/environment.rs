//! The environment of a task: the worker's own without `DCLUSTER_*`, the submission's on top, and what
//! dcluster says about the task on top of all.

use super::label::Label;
use super::stock::Share;
use crate::runtime::ids::{JobName, RunId};
use crate::runtime::protocol::{Body, Request};
use bstr::BString;
use std::collections::BTreeMap;

/// Names the run, so that processes that left their group and their parent can be found.
pub(super) const RUN_VARIABLE: &str = "DCLUSTER_TASK_RUN";

/// Environment variables by name.
pub(super) type Variables = BTreeMap<BString, BString>;

/// What is the same for all tasks of a worker.
#[derive(Debug)]
pub(super) struct Base {
    inherited: Variables,
    cluster_name: String,
    job: Option<JobName>,
}

impl Base {
    pub(super) fn new(worker: Variables, cluster_name: String, job: Option<JobName>) -> Self {
        let mut inherited = worker;
        inherited.retain(|name, _| !name.starts_with(b"DCLUSTER_"));
        Self { inherited, cluster_name, job }
    }

    /// Returns what is the same for all tasks of a submission.
    pub(super) fn of_body(&self, body: &Body, request: &Request) -> Variables {
        let mut variables = self.inherited.clone();
        variables.extend(body.env.iter().map(|(k, v)| (k.clone(), v.clone())));
        let cores = request.cores.to_string();
        variables.entry("OMP_NUM_THREADS".into()).or_insert_with(|| cores.as_str().into());

        let mut set = |name: &str, value: String| variables.insert(name.into(), value.into());
        set("DCLUSTER_CLUSTER", self.cluster_name.clone());
        if let Some(job) = &self.job {
            set("DCLUSTER_JOB", job.to_string());
        }
        set("DCLUSTER_TASK_CORES", cores);
        if request.memory_bytes > 0 {
            set("DCLUSTER_TASK_MEMORY_BYTES", request.memory_bytes.to_string());
        }
        variables
    }
}

/// Returns what is said about one run, on top of [`Base::of_body`].
pub(super) fn of_run(body: &Body, label: &Label, run: RunId, share: &Share) -> Vec<(&'static str, String)> {
    let mut variables = share.variables(body);
    variables.push(("DCLUSTER_TASK_ID", label.id.clone()));
    variables.extend(label.index.map(|index| ("DCLUSTER_TASK_INDEX", index.to_string())));
    variables.push((RUN_VARIABLE, run.0.to_string()));
    variables
}
