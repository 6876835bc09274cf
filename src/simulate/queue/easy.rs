//! A log replayed under EASY backfilling, with our jobs among the others.
//!
//! The jobs of the log are submitted when they were, ask for what they did and run as long as they did; when
//! they start is decided anew, because ours compete. The replay begins some days before the simulation, with the
//! jobs that ran and waited then, so that our first job meets a machine in its usual state.

use super::machine::{Job, Machine, Owner};
use super::nearest::offset;
use super::{Asked, Queue};
use crate::simulate::trace::{Log, Logged};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Seconds that are replayed before the simulation begins.
const WARM_UP: f64 = 3.0 * 86_400.0;

/// A log replayed under EASY backfilling.
#[derive(Debug)]
pub struct Easy {
    log: Arc<Log>,
    /// The log's time at the beginning of the simulation: whole seconds, so that nothing is rounded.
    offset: f64,
    processors: u32,
    /// Place in the log of the next job to come.
    next_logged: usize,
    machine: Machine,
    /// Our jobs that have not started, but those that never can.
    pending: BTreeSet<u32>,
    started: Vec<(f64, u32)>,
}

impl Easy {
    /// Returns a queue that begins at a moment of the log that the seed chooses, away from its ends.
    pub fn new(log: Arc<Log>, seed: u64) -> Self {
        let offset = offset(&log, seed).round();
        Self::from(log, offset, WARM_UP)
    }

    /// Begins at a time of the log, after a replay of so many seconds.
    fn from(log: Arc<Log>, offset: f64, warm_up: f64) -> Self {
        let processors = log.processors();
        let next_logged = log.jobs.partition_point(|job| job.submit < offset - warm_up);
        let machine = Machine::new(processors);
        let (pending, started) = (BTreeSet::new(), Vec::new());
        let mut easy = Self { log, offset, processors, next_logged, machine, pending, started };
        easy.found(-warm_up);
        easy.replay(0.0);
        easy
    }

    /// Puts the machine into the state that the log had at a time.
    fn found(&mut self, at: f64) {
        let log = Arc::clone(&self.log);
        let before = log.jobs[..self.next_logged].iter().enumerate();
        let timed = before.filter_map(|(place, job)| Some((self.job(place, job)?, self.local(job) + job.wait?)));
        // The log's machine may have had more processors, or less patience, than ours: what does not fit waits.
        let (mut running, mut waiting) = (Vec::new(), Vec::new());
        for (job, start) in timed.filter(|(job, start)| start + job.run.min(job.requested) > at) {
            if start <= at { running.push((start, job)) } else { waiting.push(job) }
        }
        running.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (start, job) in running {
            if job.processors <= self.machine.free() {
                self.machine.found_running(job, start);
            } else {
                waiting.insert(0, job);
            }
        }
        waiting.into_iter().for_each(|job| self.machine.arrive(job, at));
        self.machine.end_until(at);
    }

    /// Returns when a job of the log is submitted, in the time of the simulation.
    fn local(&self, job: &Logged) -> f64 {
        job.submit - self.offset
    }

    fn job(&self, place: usize, job: &Logged) -> Option<Job> {
        let run = job.run?;
        // Who did not say how long is taken to have known it.
        let requested = job.requested.unwrap_or(run);
        Some(Job { owner: Owner::Log(place), processors: job.processors.min(self.processors), requested, run })
    }

    /// Lives until `now`.
    fn replay(&mut self, now: f64) {
        let log = Arc::clone(&self.log);
        loop {
            let arrival = log.jobs.get(self.next_logged).map_or(f64::INFINITY, |job| self.local(job));
            let end = self.machine.next_end().unwrap_or(f64::INFINITY);
            if arrival.min(end) > now || arrival.min(end) == f64::INFINITY {
                break;
            }
            if end <= arrival {
                self.machine.end_until(end);
            } else {
                let place = self.next_logged;
                self.next_logged += 1;
                if let Some(job) = self.job(place, &log.jobs[place]) {
                    self.machine.arrive(job, arrival);
                }
            }
        }
        self.collect();
    }

    /// Notes which of our jobs have started.
    fn collect(&mut self) {
        for (at, owner) in self.machine.started() {
            if let Owner::Own(job) = owner {
                self.pending.remove(&job);
                self.started.push((at, job));
            }
        }
    }
}

impl Queue for Easy {
    fn submit(&mut self, job: u32, asked: Asked, now: f64) {
        self.replay(now);
        if asked.processors > self.processors {
            return;
        }
        let limit = asked.walltime.unwrap_or(f64::INFINITY);
        self.pending.insert(job);
        let job = Job { owner: Owner::Own(job), processors: asked.processors, requested: limit, run: limit };
        self.machine.arrive(job, now);
        self.collect();
    }

    fn leave(&mut self, job: u32, now: f64) {
        self.replay(now);
        self.pending.remove(&job);
        self.started.retain(|(_, other)| *other != job);
        self.machine.leave(Owner::Own(job), now);
        self.collect();
    }

    fn next(&self) -> Option<f64> {
        if let Some((at, _)) = self.started.first() {
            return Some(*at);
        }
        if self.pending.is_empty() {
            return None;
        }
        let arrival = self.log.jobs.get(self.next_logged).map(|job| self.local(job));
        [arrival, self.machine.next_end()].into_iter().flatten().filter(|at| at.is_finite()).min_by(f64::total_cmp)
    }

    fn advance(&mut self, now: f64) -> Vec<(f64, u32)> {
        self.replay(now);
        std::mem::take(&mut self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Event, naive};
    use super::*;
    use proptest::prelude::*;

    const HOUR: f64 = 3600.0;

    fn log(processors: u32, rows: &str) -> Arc<Log> {
        let text = format!("# MaxProcs: {processors}\nsubmit_s,wait_s,run_s,procs,requested_s\n{rows}");
        Arc::new(Log::from_bytes("log.csv", text).expect("a sound log"))
    }

    fn asked(processors: u32, walltime: f64) -> Asked {
        Asked { processors, walltime: Some(walltime) }
    }

    #[test]
    fn an_empty_machine_starts_at_once() {
        let mut easy = Easy::from(log(8, "0,0,10,8,20\n"), 1000.0, 0.0);
        easy.submit(1, asked(8, HOUR), 5.0);
        easy.submit(2, asked(8, HOUR), 6.0);
        assert_eq!(easy.next(), Some(5.0));
        assert_eq!(easy.advance(6.0), [(5.0, 1)]);
        // The first one leaves early, the second one is ended by its walltime.
        easy.leave(1, 50.0);
        easy.submit(3, asked(1, HOUR), 60.0);
        assert_eq!(easy.advance(60.0), [(50.0, 2)]);
        assert_eq!(easy.next(), Some(50.0 + HOUR));
        assert_eq!(easy.advance(1e5), [(50.0 + HOUR, 3)]);
        assert_eq!(easy.next(), None);
    }

    #[test]
    fn a_job_that_never_fits_keeps_nobody_waiting() {
        let mut easy = Easy::from(log(8, "0,0,10,1,20\n"), 1000.0, 0.0);
        easy.submit(1, asked(9, HOUR), 0.0);
        assert_eq!(easy.next(), None);
        easy.submit(2, Asked { processors: 8, walltime: None }, 0.0);
        easy.submit(3, asked(1, HOUR), 0.0);
        assert_eq!(easy.advance(1e9), [(0.0, 2)]);
        easy.leave(2, 1e9);
        assert_eq!(easy.advance(1e9), [(1e9, 3)]);
    }

    #[test]
    fn a_short_job_is_fitted_in_before_the_first_that_waits() {
        // 8 processors: 6 in use until 100 as asked (until 40 in truth), 8 wanted next.
        let rows = "0,0,40,6,100\n1,0,50,8,60\n";
        let start = |processors, walltime| {
            let mut easy = Easy::from(log(8, rows), 0.0, 0.0);
            easy.submit(1, asked(processors, walltime), 10.0);
            easy.advance(1e5)
        };
        assert_eq!(start(2, 90.0), [(10.0, 1)]);
        assert_eq!(start(2, 91.0), [(90.0, 1)], "it would delay the one before it");
        assert_eq!(start(3, 5.0), [(90.0, 1)], "it does not fit");
    }

    #[test]
    fn the_state_at_the_beginning_is_that_of_the_log() {
        // At 1000: 5 run (since 900, until 1100), 4 wait since 950.
        let rows = "0,900,200,5,300\n950,400,50,4,60\n5000,0,1,1,1\n";
        let mut easy = Easy::from(log(8, rows), 1500.0, 500.0);
        assert_eq!(easy.machine.free(), 8, "both are over");
        easy.submit(1, asked(8, HOUR), 0.0);
        assert_eq!(easy.advance(0.0), [(0.0, 1)]);
        let mut early = Easy::from(log(8, rows), 1010.0, 10.0);
        assert_eq!(early.machine.free(), 3);
        early.submit(1, asked(8, HOUR), 0.0);
        // 1100 − 1010, then 50 s of the one that waited.
        assert_eq!(early.advance(1000.0), [(140.0, 1)]);
    }

    #[test]
    fn without_a_requested_time_the_run_time_counts() {
        let mut easy = Easy::from(log(4, "0,0,100,3,-1\n1,0,10,4,-1\n"), 0.0, 0.0);
        easy.submit(1, asked(1, 95.0), 5.0);
        easy.submit(2, asked(1, 95.0), 5.0);
        assert_eq!(easy.advance(1e5), [(5.0, 1), (110.0, 2)]);
    }

    /// Times are whole, so that many things happen at once.
    fn rows() -> impl Strategy<Value = Vec<(u32, u32, u32, u32)>> {
        prop::collection::vec((0..60u32, 1..30u32, 1..9u32, 1..40u32), 1..25)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        #[test]
        fn agrees_with_the_naive_one_and_keeps_its_promises(
            logged in rows(),
            own in prop::collection::vec((0..80u32, 1..9u32, 1..40u32, prop::option::of(0..60u32)), 0..15),
        ) {
            let text: String = logged
                .iter()
                .map(|(submit, run, processors, requested)| format!("{submit},0,{run},{processors},{requested}\n"))
                .collect();
            let log = log(8, &text);
            let mut easy = Easy::from(Arc::clone(&log), 0.0, 0.0);
            let mut events: Vec<Event> = Vec::new();
            for (number, (at, processors, walltime, leaves)) in own.iter().enumerate() {
                let (number, at) = (number as u32, f64::from(*at));
                events.push(Event::Submit(at, number, asked(*processors, f64::from(*walltime))));
                events.extend(leaves.map(|after| Event::Leave(at + f64::from(after), number)));
            }
            events.sort_by(|a, b| a.at().total_cmp(&b.at()));
            let mut found = Vec::new();
            let mut reserved: std::collections::BTreeMap<Owner, f64> = std::collections::BTreeMap::new();
            let mut next_event = events.iter().peekable();
            loop {
                let at;
                // Step by step, so that every reservation is seen.
                let arrival = log.jobs.get(easy.next_logged).map_or(f64::INFINITY, |job| job.submit);
                let inner = arrival.min(easy.machine.next_end().unwrap_or(f64::INFINITY));
                match next_event.peek() {
                    Some(event) if event.at() < inner => {
                        at = event.at();
                        match **event {
                            Event::Submit(at, job, asked) => easy.submit(job, asked, at),
                            Event::Leave(at, job) => easy.leave(job, at),
                        }
                        next_event.next();
                    }
                    _ if inner.is_finite() => {
                        at = inner;
                        easy.replay(at);
                    }
                    _ => break,
                }
                prop_assert_eq!(easy.machine.used() + easy.machine.free(), 8, "over-committed");
                for (start, job) in easy.advance(at) {
                    let promised = reserved.get(&Owner::Own(job)).copied().unwrap_or(f64::INFINITY);
                    prop_assert!(start <= promised, "job {job} was promised {promised} and started at {start}");
                    found.push((start, job));
                }
                if let Some(reservation) = easy.machine.reservation() {
                    prop_assert!(reservation.at >= at);
                    let before = reserved.insert(reservation.owner, reservation.at).unwrap_or(f64::INFINITY);
                    prop_assert!(reservation.at <= before, "a reservation got later: {before} to {}", reservation.at);
                }
            }
            found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            prop_assert_eq!(found, naive(&log, 8, &events));
        }
    }
}
