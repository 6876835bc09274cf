//! What a policy is shown.

use super::World;
use super::class::Class;
use crate::adapt::{JobView, Observation, RunningTasks, TaskClass};
use crate::ledger::{Job, JobState};
use crate::runtime::ids::JobSeq;
use crate::simulate::site::seconds;
use std::collections::BTreeMap;

impl World<'_> {
    /// Returns the situation as the server would see it.
    pub(super) fn observe(&self) -> Observation {
        Observation {
            now: seconds(self.now),
            classes: self.see_classes(),
            jobs: self.ledger.live().map(|job| self.see_job(job)).collect(),
            submit_max: Some(self.ledger.may_submit(self.moment())),
            ..Observation::default()
        }
    }

    fn see_classes(&self) -> Vec<TaskClass> {
        let workload = &self.scenario.workload;
        let mut running: Vec<BTreeMap<JobSeq, (u32, u64)>> = vec![BTreeMap::new(); workload.classes.len()];
        for (job, worker) in &self.workers {
            for (index, started) in worker.running.values() {
                let some = running[workload.tasks[*index as usize].class as usize].entry(*job).or_default();
                some.0 += 1;
                some.1 += self.now - started;
            }
        }
        let all = workload.classes.iter().zip(&self.classes).zip(running);
        let seen = all.filter(|((_, class), running)| class.ready + class.waiting > 0 || !running.is_empty());
        seen.map(|((name, class), running)| see_class(name, class, running)).collect()
    }

    fn see_job(&self, job: &Job) -> JobView {
        let real = self.site.jobs.get(&job.seq);
        let worker = self.workers.get(&job.seq);
        let started = real.and_then(|real| real.started).filter(|_| job.state >= JobState::Started);
        JobView {
            id: job.seq.0,
            pool: self.scenario.settings.pools[0].name.clone(),
            phase: job.state.into(),
            leaving: job.leaves(),
            submitted_at: Some(real.map_or(seconds(self.now), |real| seconds(real.submitted))),
            started_at: started.map(seconds),
            up_at: worker.map(|worker| seconds(worker.up)),
            ends_at: started.and_then(|at| Some(seconds(at) + real?.walltime?)),
            walltime: real.and_then(|real| real.walltime),
            tasks: worker.map_or(0, |worker| worker.running.len() as u32),
            idle_since: worker.and_then(|worker| worker.idle_since).map(seconds),
            silent: job.silent,
        }
    }
}

fn see_class(name: &str, class: &Class, running: BTreeMap<JobSeq, (u32, u64)>) -> TaskClass {
    let running = running.into_iter().map(|(job, (tasks, elapsed))| RunningTasks {
        job: job.0,
        tasks,
        elapsed: seconds(elapsed) / f64::from(tasks),
    });
    TaskClass {
        cores: class.cores,
        memory_bytes: class.memory_bytes,
        ready: class.ready,
        waiting: class.waiting,
        running: running.collect(),
        durations: class.durations,
        ..TaskClass::new(name)
    }
}
