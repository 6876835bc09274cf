//! A job waits what the one nearest to it waited in a log.
//!
//! Near: submitted at nearly the same time, by jobs of similar size. Similar: at most four times as many or few
//! processors, and of these, where a log has enough of them, those that asked for at most four times as much or
//! little time (a short job is fitted into gaps, a long one waits). Jobs that ask for the same start in the order
//! in which they came, because a batch system has no reason to prefer one of them: each brings a start, and the
//! earliest of these is for who has waited longest.

use super::starts::Starts;
use super::{Asked, Queue};
use crate::simulate::trace::{Log, Logged};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many times as much is similar.
const SIMILAR: f64 = 4.0;
/// Fewer similar jobs than this say little about the time between them: less similar ones are taken, too.
const ENOUGH: usize = 200;
/// The part of a log in which a simulation begins, as shares of its length.
const FROM: f64 = 0.1;
const TO: f64 = 0.8;

/// What a job asks for, with an order: processors and the bits of the walltime.
type Shape = (u32, Option<u64>);

/// A job waits what the nearest similar one of a log waited.
#[derive(Debug)]
pub struct Nearest {
    log: Arc<Log>,
    /// Where in the log the simulation begins, in seconds.
    offset: f64,
    /// Submission and wait of the similar jobs, in order of submission.
    similar: BTreeMap<Shape, Vec<(f64, f64)>>,
    /// Pending jobs of each shape by number of submission, with their start.
    pending: BTreeMap<Shape, BTreeMap<u64, (u32, f64)>>,
    places: BTreeMap<u32, (Shape, u64)>,
    submitted: u64,
    starts: Starts,
}

impl Nearest {
    /// Returns a queue that waits as the log did from a moment on that the seed chooses, away from its ends.
    pub fn new(log: Arc<Log>, seed: u64) -> Self {
        let offset = offset(&log, seed);
        let (similar, pending, places) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { log, offset, similar, pending, places, submitted: 0, starts: Starts::default() }
    }

    /// Returns the wait of the similar job that was submitted nearest to a time of the log.
    fn wait(&mut self, asked: Asked, at: f64) -> f64 {
        let log = &self.log;
        let similar = self.similar.entry(shape(asked)).or_insert_with(|| similar(log, asked));
        let after = similar.partition_point(|(submit, _)| *submit < at);
        let before = after.checked_sub(1).map(|place| similar[place]);
        match (before, similar.get(after)) {
            // Of equally near ones the later: what is known first is what came first.
            (Some(before), Some(after)) if at - before.0 < after.0 - at => before.1,
            (_, Some(after)) => after.1,
            (Some(before), None) => before.1,
            (None, None) => 0.0,
        }
    }
}

/// Returns a moment of a log, chosen by a seed, with enough of the log before and behind it.
pub(super) fn offset(log: &Log, seed: u64) -> f64 {
    let first = log.jobs.first().map_or(0.0, |job| job.submit);
    first + log.span() * (FROM + (TO - FROM) * fastrand::Rng::with_seed(seed).f64())
}

fn shape(asked: Asked) -> Shape {
    (asked.processors, asked.walltime.map(f64::to_bits))
}

fn similar(log: &Log, asked: Asked) -> Vec<(f64, f64)> {
    let near = |a: f64, b: f64| a <= SIMILAR * b && b <= SIMILAR * a;
    let size = |job: &Logged| near(f64::from(job.processors), f64::from(asked.processors));
    let time = |job: &Logged| job.requested.zip(asked.walltime).is_none_or(|(theirs, ours)| near(theirs, ours));
    let pick = |fits: &dyn Fn(&Logged) -> bool| -> Vec<(f64, f64)> {
        let known = log.jobs.iter().filter(|job| fits(job));
        known.filter_map(|job| Some((job.submit, job.wait?))).collect()
    };
    let both = pick(&|job| size(job) && time(job));
    if both.len() >= ENOUGH {
        return both;
    }
    let one = pick(&size);
    if one.len() >= ENOUGH {
        return one;
    }
    let all = pick(&|_| true);
    // A log that is small as a whole is taken at its best.
    if all.len() >= ENOUGH || one.is_empty() { all } else { one }
}

impl Queue for Nearest {
    fn submit(&mut self, job: u32, asked: Asked, now: f64) {
        self.leave(job, now);
        let mut start = now + self.wait(asked, self.offset + now);
        self.submitted += 1;
        let place = (shape(asked), self.submitted);
        self.places.insert(job, place);
        let alike = self.pending.entry(place.0).or_default();
        // Who came earlier takes the earlier start, and hands on its own.
        for (earlier, theirs) in alike.values_mut() {
            if start < *theirs {
                std::mem::swap(&mut start, theirs);
                self.starts.add(*earlier, *theirs);
            }
        }
        alike.insert(place.1, (job, start));
        self.starts.add(job, start);
    }

    fn leave(&mut self, job: u32, _: f64) {
        if let Some((shape, number)) = self.places.remove(&job)
            && let Some(alike) = self.pending.get_mut(&shape)
        {
            alike.remove(&number);
        }
        self.starts.remove(job);
    }

    fn next(&self) -> Option<f64> {
        self.starts.next()
    }

    fn advance(&mut self, now: f64) -> Vec<(f64, u32)> {
        let started = self.starts.until(now);
        for (_, job) in &started {
            self.leave(*job, now);
        }
        started
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log(rows: &str) -> Arc<Log> {
        let header = "submit_s,wait_s,run_s,procs,requested_s\n";
        Arc::new(Log::from_bytes("log.csv", format!("{header}{rows}")).expect("a sound log"))
    }

    /// A queue that begins at the log's own zero.
    fn queue(rows: &str) -> Nearest {
        Nearest { offset: 0.0, ..Nearest::new(log(rows), 1) }
    }

    const EIGHT: Asked = Asked { processors: 8, walltime: Some(3600.0) };

    #[test]
    fn a_job_waits_what_the_nearest_similar_one_waited() {
        let mut queue = queue("0,10,1,8,-1\n100,50,1,8,-1\n101,7000,1,64,-1\n200,5,1,2,-1\n201,1,1,1,-1\n");
        queue.submit(1, EIGHT, 40.0);
        queue.submit(2, EIGHT, 60.0);
        assert_eq!(queue.advance(1e6), [(50.0, 1), (110.0, 2)]);
        // Beyond the end the last similar one counts: 2 processors are, 1 is not.
        queue.submit(3, EIGHT, 1e6);
        assert_eq!(queue.advance(1e7), [(1_000_005.0, 3)]);
    }

    #[test]
    fn the_earliest_start_is_for_who_has_waited_longest() {
        let mut queue = queue("0,1000,1,8,-1\n100,20,1,8,-1\n");
        queue.submit(1, EIGHT, 0.0);
        queue.submit(2, EIGHT, 90.0);
        // Another shape does not take part.
        queue.submit(3, Asked { processors: 7, ..EIGHT }, 91.0);
        assert_eq!(queue.advance(110.0), [(110.0, 1)]);
        assert_eq!(queue.advance(1e6), [(111.0, 3), (1000.0, 2)]);
    }

    #[test]
    fn the_walltime_counts_where_enough_jobs_say_theirs() {
        let row = |at: u32, wait, requested| format!("{at},{wait},1,8,{requested}\n");
        let rows: String = (0..250).map(|at| row(at, 7, 3600) + &row(at, 9000, 80_000)).collect();
        let mut long = queue(&rows);
        long.submit(1, EIGHT, 100.0);
        long.submit(2, Asked { walltime: Some(86_400.0), ..EIGHT }, 100.0);
        assert_eq!(long.advance(1e6), [(107.0, 1), (9100.0, 2)]);
    }

    #[test]
    fn the_seed_chooses_where_in_the_log_it_begins() {
        let rows: String = (0..=1000).map(|at| format!("{},0,1,1,-1\n", at * 100)).collect();
        let log = log(&rows);
        let starts: Vec<f64> = (0..100).map(|seed| offset(&log, seed)).collect();
        assert_eq!(offset(&log, 5), starts[5]);
        assert!(starts.iter().all(|start| (10_000.0..=80_000.0).contains(start)));
        assert!(starts.iter().any(|start| *start < 25_000.0) && starts.iter().any(|start| *start > 65_000.0));
    }

    proptest! {
        #[test]
        fn the_same_never_overtakes_the_same(
            waits in prop::collection::vec(0..500u32, 1..40),
            steps in prop::collection::vec((0..100u32, any::<bool>(), 0..20u32), 1..60),
        ) {
            let rows: String = waits.iter().enumerate().map(|(at, wait)| format!("{},{wait},1,8,-1\n", at * 50)).collect();
            let mut queue = queue(&rows);
            let (mut now, mut started, mut left) = (0.0, Vec::new(), Vec::new());
            for (job, (step, leaves, which)) in steps.iter().enumerate() {
                now += f64::from(*step);
                started.extend(queue.advance(now));
                queue.submit(job as u32, EIGHT, now);
                if *leaves {
                    queue.leave(*which, now);
                    left.push(*which);
                }
            }
            started.extend(queue.advance(f64::MAX));
            prop_assert!(started.is_sorted_by(|a, b| a.0 <= b.0 && a.1 < b.1), "{started:?}");
            let gone = steps.len() - started.len();
            prop_assert!(gone <= left.len());
        }
    }
}
