//! The ledger and the batch system: what it orders is done, and answered a moment later.

use super::{What, World, milliseconds};
use crate::backends::sentinel::Sentinel;
use crate::backends::{EndedHow, JobRef};
use crate::ledger::{JobState, Notice, Order, Situation};
use crate::runtime::ids::{JobName, JobSeq, WorkerId};
use crate::runtime::scheduler::Event;
use crate::simulate::site::Real;
use fastrand::Rng;

/// Milliseconds until a command of the batch system answers.
const LATENCY: u64 = 300;
/// Milliseconds between two looks at the ledger while something is unsettled, and else.
const LEDGER_SOON: u64 = 2_000;
const LEDGER_LATER: u64 = 30_000;

impl World<'_> {
    /// Lets the ledger plan, and starts the commands that it orders.
    pub(super) fn plan(&mut self) {
        let situation = Situation { work: true, scaling: std::mem::take(&mut self.scaling), ..Situation::default() };
        let now = self.moment();
        let orders = self.ledger.plan(&situation, now);
        self.ledger.take_changed();
        for notice in self.ledger.take_notices() {
            if let Notice::Over { job, .. } = notice
                && self.workers.remove(&job).is_some()
            {
                self.feed(Event::WorkerLost { worker: WorkerId(job.0), counts: false });
            }
        }
        let unsettled = self.ledger.live().any(|job| job.state != JobState::Up || job.cancelling || job.silent);
        self.ledger_by = self.now + if unsettled { LEDGER_SOON } else { LEDGER_LATER };
        for order in orders {
            match order {
                Order::Submit(submit) => {
                    let pool = &self.scenario.settings.pools[0];
                    let walltime = submit.walltime_seconds.map(|seconds| seconds as f64).or(pool.walltime);
                    let result = self.site.submit(&submit, walltime, self.now);
                    if result.is_ok() {
                        self.meter.jobs_created(submit.jobs.len() as u32);
                        for (seq, _) in &submit.jobs {
                            let mut luck = Rng::with_seed(self.luck(*seq).u64(..));
                            if luck.f64() < self.scenario.faults.vanish {
                                let after = milliseconds(-60.0 * (1.0 - luck.f64()).ln());
                                self.push(self.now + after, What::Vanishes(*seq));
                            }
                        }
                    }
                    self.push(self.now + LATENCY, What::Created(submit, result));
                }
                Order::Drain(job) => self.drain(job),
                other => self.push(self.now + LATENCY, What::Answer(other)),
            }
        }
    }

    /// A command has done its work.
    pub(super) fn answer(&mut self, order: Order) {
        let now = self.moment();
        let failed = match &order {
            Order::List(jobs) => self.site.list(jobs, self.now).map(|seen| self.ledger.on_listed(jobs, &seen, now)),
            Order::Find => self.site.find(self.now).map(|seen| self.ledger.on_found(&seen, now)),
            Order::Account(jobs) => {
                self.site.account(jobs, self.now).map(|seen| self.ledger.on_accounted(jobs, &seen, now))
            }
            Order::Cancel(jobs) => {
                self.cancel(jobs);
                self.ledger.on_cancelled(jobs, now);
                Ok(())
            }
            Order::ReadSentinels(jobs) => {
                let found = jobs.iter().filter_map(|(seq, _)| Some((*seq, self.sentinel(*seq)?))).collect();
                self.ledger.on_sentinels(found, now);
                Ok(())
            }
            Order::Submit(_) | Order::Expect(_) | Order::Drain(_) => Ok(()),
        };
        if let Err(error) = failed {
            self.ledger.on_query_failed(&order, &error, now);
        }
        self.touch();
    }

    fn cancel(&mut self, jobs: &[JobRef]) {
        for job in jobs {
            let Some((_, seq)) = JobName::parse("simu", job.name.as_str()) else { continue };
            match self.site.jobs.get_mut(&seq) {
                Some(real) if real.real == Real::Pending => {
                    real.cancelled_pending = true;
                    self.end(seq, EndedHow::Cancelled);
                }
                Some(_) => self.kill(seq, EndedHow::Cancelled),
                None => {}
            }
        }
    }

    fn sentinel(&self, seq: JobSeq) -> Option<Sentinel> {
        let job = self.site.jobs.get(&seq)?;
        (job.real == Real::Ended(EndedHow::Exited)).then(|| Sentinel {
            exit_code: 0,
            signal: None,
            time: 0,
            node: "node".to_owned(),
            id: seq.0.to_string(),
            restart: 0,
        })
    }
}
