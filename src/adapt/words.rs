//! Decisions in sentences.

use super::{Decision, Numbers, Rule};
use crate::ui::words::{count, duration};
use std::time::Duration;

/// Returns a time in words.
pub(super) fn seconds(time: f64) -> String {
    duration(Duration::try_from_secs_f64(time).unwrap_or(Duration::MAX))
}

pub(super) fn tasks(number: u64) -> String {
    count(number, "task")
}

fn jobs(number: usize) -> String {
    count(number as u64, "job")
}

/// Says what a decision does and why. `limit` is what forbids more, if something does.
pub(super) fn reason(decision: &Decision, limit: Option<&str>) -> String {
    let mut parts = Vec::new();
    let numbers = &decision.numbers;
    let submitted: usize = decision.submit.iter().map(|some| some.jobs as usize).sum();
    if submitted > 0 {
        parts.push(format!("ask for {}: {}", jobs(submitted), why_more(decision.rule, numbers)));
    }
    if !decision.cancel.is_empty() {
        let why = match decision.rule {
            Rule::AboveMax => "there are more than the maximum".to_owned(),
            _ => format!("{} more than needed were pending for long enough", numbers.surplus),
        };
        parts.push(format!("cancel {} that waited: {why}", jobs(decision.cancel.len())));
    }
    if !decision.drain.is_empty() {
        let why = match decision.rule {
            Rule::AboveMax => "there are more than the maximum".to_owned(),
            Rule::TooLittleTime => "too little of the walltime is left for any task there is".to_owned(),
            _ => format!("idle for {}, and another job costs {}", seconds(numbers.idle_threshold), price(numbers)),
        };
        parts.push(format!("give up {}: {why}", jobs(decision.drain.len())));
    }
    let nothing = numbers.ready + numbers.running == 0 && !decision.parked.is_empty();
    if parts.is_empty() && !nothing {
        parts.push(steady(decision, limit));
    } else if let Some(limit) = limit {
        parts.push(format!("not more, since {limit}"));
    }
    parts.extend(decision.parked.iter().map(|parked| format!("{} parked: {}", are(parked.tasks), parked.reason)));
    parts.join("; ")
}

fn price(numbers: &Numbers) -> String {
    format!("{} of start-up and a wait of about {}", seconds(numbers.startup), seconds(numbers.wait_p50))
}

fn why_more(rule: Rule, numbers: &Numbers) -> String {
    match rule {
        Rule::BelowMin => "there are fewer than the minimum".to_owned(),
        Rule::FirstJob => format!("{} ready and no job can run them", are(numbers.ready)),
        _ => format!(
            "{} ready, {} of work in time of whole jobs; the jobs there are will have done {} of it when a new one could \
             be of use, and each new one must have {} to do",
            are(numbers.ready),
            seconds(numbers.work),
            seconds(numbers.cover.max(0.0)),
            seconds(numbers.useful_life),
        ),
    }
}

fn are(number: u64) -> String {
    if number == 1 { "1 task is".to_owned() } else { format!("{} are", tasks(number)) }
}

fn steady(decision: &Decision, limit: Option<&str>) -> String {
    let numbers = &decision.numbers;
    let have = numbers.pending + numbers.started + numbers.up;
    match (decision.rule, limit) {
        (Rule::Held, Some(limit)) => format!("more jobs would be of use, but {limit}"),
        _ if numbers.ready == 0 && numbers.running == 0 && have == 0 => "no job, and no task to run".to_owned(),
        _ if numbers.ready == 0 => format!("keep {}: no task waits for one", jobs(have as usize)),
        _ if numbers.by_width == 0 => {
            format!("keep {}: the {} ready fit them", jobs(have as usize), tasks(numbers.ready))
        }
        _ => format!(
            "keep {}: {} of work left over is less than the {} that make another one worth its start",
            jobs(have as usize),
            seconds((numbers.work - numbers.cover).max(0.0)),
            seconds(numbers.useful_life)
        ),
    }
}
