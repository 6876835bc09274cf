//! The queues on logs of real machines.

use super::*;
use crate::simulate::trace::{Format, Log};
use std::path::Path;
use std::sync::Arc;

fn log(name: &str) -> Arc<Log> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/traces");
    Arc::new(Log::read(&folder.join(name)).unwrap())
}

/// Returns the waits of 10 jobs submitted over a day, as far as they start within four.
fn waits(queue: &mut dyn Queue, asked: Asked) -> Vec<f64> {
    let submit = |job: u32| f64::from(job) * 8640.0;
    let mut started = Vec::new();
    for job in 0..10 {
        started.extend(queue.advance(submit(job)));
        queue.submit(job, asked, submit(job));
    }
    while let Some(next) = queue.next().filter(|next| *next < 4.0 * 86_400.0) {
        started.extend(queue.advance(next));
    }
    assert!(started.is_sorted_by(|a, b| a.0 <= b.0), "{started:?}");
    started.into_iter().map(|(start, job)| start - submit(job)).collect()
}

#[test]
fn real_logs_make_jobs_wait() {
    let asked = Asked { processors: 8, walltime: Some(4.0 * 3600.0) };
    for (name, jobs, processors) in
        [("kth-sp2.csv.gz", 27_992, 100), ("cea-curie.csv.gz", 40_000, 93_312), ("metacentrum.csv.gz", 40_000, 500)]
    {
        let log = log(name);
        assert_eq!((log.format, log.jobs.len()), (Format::Csv, jobs), "{name}");
        assert!(log.processors() >= processors, "{name}: {}", log.processors());
        let mut longest: f64 = 0.0;
        for seed in 0..10 {
            let mut queues: [Box<dyn Queue>; 2] =
                [Box::new(Nearest::new(Arc::clone(&log), seed)), Box::new(Easy::new(Arc::clone(&log), seed))];
            for queue in &mut queues {
                let waits = waits(queue.as_mut(), asked);
                assert!(waits.iter().all(|wait| *wait >= 0.0), "{name} {seed}: {waits:?}");
                longest = waits.into_iter().fold(longest, f64::max);
            }
        }
        assert!(longest > 600.0, "{name}: nobody waits");
    }
}
