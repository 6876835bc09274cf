//! EASY backfilling as its definition says it, without any thought of speed: what `easy` is compared with.

use super::Asked;
use crate::simulate::trace::Log;

/// What we do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// Submit a job at a time.
    Submit(f64, u32, Asked),
    /// Take it away.
    Leave(f64, u32),
}

impl Event {
    pub(super) fn at(self) -> f64 {
        match self {
            Self::Submit(at, ..) | Self::Leave(at, _) => at,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Job {
    own: Option<u32>,
    processors: u32,
    requested: f64,
    run: f64,
    start: Option<f64>,
}

impl Job {
    fn limit(&self) -> f64 {
        self.start.map_or(f64::INFINITY, |start| start + self.requested)
    }

    fn end(&self) -> f64 {
        self.start.map_or(f64::INFINITY, |start| start + self.run.min(self.requested))
    }
}

/// Returns when our jobs start, by time and number.
pub(super) fn naive(log: &Log, processors: u32, events: &[Event]) -> Vec<(f64, u32)> {
    let mut coming: Vec<(f64, Job)> = Vec::new();
    for job in &log.jobs {
        let run = job.run.unwrap();
        let requested = job.requested.unwrap_or(run);
        let logged = Job { own: None, processors: job.processors.min(processors), requested, run, start: None };
        coming.push((job.submit, logged));
    }
    let mut here: Vec<Job> = Vec::new();
    let mut started = Vec::new();
    let mut events = events.to_vec();
    loop {
        let times =
            coming.iter().map(|(at, _)| *at).chain(here.iter().map(Job::end)).chain(events.iter().map(|e| e.at()));
        let now = times.fold(f64::INFINITY, f64::min);
        if now == f64::INFINITY {
            break;
        }
        here.retain(|job| job.end() > now);
        while coming.first().is_some_and(|(at, _)| *at <= now) {
            here.push(coming.remove(0).1);
        }
        pass(&mut here, processors, now, &mut started);
        while events.first().is_some_and(|event| event.at() <= now) {
            match events.remove(0) {
                Event::Submit(_, own, asked) => {
                    let walltime = asked.walltime.unwrap();
                    let (run, requested) = (walltime, walltime);
                    here.push(Job { own: Some(own), processors: asked.processors, requested, run, start: None });
                }
                Event::Leave(_, own) => here.retain(|job| job.own != Some(own)),
            }
            pass(&mut here, processors, now, &mut started);
        }
    }
    started.sort_by(|a: &(f64, u32), b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    started
}

/// Processors that are free at a time, if nothing else starts.
fn free(here: &[Job], processors: u32, at: f64) -> u32 {
    processors
        - here.iter().filter(|job| job.start.is_some() && job.limit() > at).map(|job| job.processors).sum::<u32>()
}

fn pass(here: &mut [Job], processors: u32, now: f64, started: &mut Vec<(f64, u32)>) {
    let mut head: Option<(usize, f64)> = None;
    for place in 0..here.len() {
        let job = here[place];
        if job.start.is_some() {
            continue;
        }
        // Who has to be over now and is not yet cannot be: those have left.
        let fits = job.processors <= free(here, processors, now);
        here[place].start = Some(now);
        let keeps = |(head, at): (usize, f64)| free(here, processors, at) >= here[head].processors;
        if fits && head.is_none_or(keeps) {
            started.extend(job.own.map(|own| (now, own)));
            continue;
        }
        here[place].start = None;
        if head.is_none() {
            let limits = here.iter().filter(|job| job.start.is_some()).map(Job::limit);
            let when = limits.filter(|at| free(here, processors, *at) >= job.processors).fold(f64::INFINITY, f64::min);
            head = Some((place, when));
        }
    }
}
