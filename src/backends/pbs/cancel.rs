//! `qdel`, once for each job and each run of neighbours in an array.
//!
//! OpenPBS takes several ids in one request, and forgets or crashes over some mixtures: `req_deletejob` of 23.06.06
//! answers, and frees the request, as soon as no id is left that it knows of as a job, which elements in the queue and
//! ranges never are, and then goes on with the next one.

use super::parse::{Id, Which};
use super::{call, errors};
use crate::backends::batch::{self, Answer, Call, CallError, Verb};
use crate::backends::{BackendError, JobRef};
use futures_util::StreamExt;
use std::collections::BTreeSet;

/// Commands at once: one of a job whose node hangs takes a minute (capture mom_hung_qdel).
const AT_ONCE: usize = 8;
/// Failures after which the rest waits for another time: the server is not there.
const FAILURES_MAX: usize = 16;

/// Cancels jobs, and goes on after one that it cannot.
///
/// # Errors
/// The first one, once all have been tried that can be.
pub(super) async fn cancel(jobs: &[JobRef], torque: bool) -> Result<(), BackendError> {
    let calls = operands(jobs, torque).into_iter().map(|operand| call("qdel").arg(operand));
    let mut answers = futures_util::stream::iter(calls).map(answered).buffer_unordered(AT_ONCE);
    let (mut first, mut failures) = (None, 0);
    while let Some((call, answer)) = answers.next().await {
        if answer.as_ref().is_ok_and(errors::of_single_jobs) {
            continue;
        }
        failures += usize::from(!answer.as_ref().is_ok_and(|answer| errors::of_a_node(&answer.stderr)));
        if let Err(error) = batch::judge(Verb::Cancel, &call, answer, errors::classify) {
            first.get_or_insert(error);
        }
        if failures >= FAILURES_MAX {
            break;
        }
    }
    first.map_or(Ok(()), Err)
}

async fn answered(call: Call) -> (Call, Result<Answer, CallError>) {
    let answer = call.run().await;
    (call, answer)
}

/// What each command is to name: a job, or neighbours of an array (`22[0-2].server`), which TORQUE has no word for.
fn operands(jobs: &[JobRef], torque: bool) -> Vec<String> {
    let ids: BTreeSet<_> = jobs.iter().filter_map(|job| Id::parse(&job.id.as_ref()?.0)).collect();
    // The first of each run, and the number of its last element.
    let mut runs: Vec<(Id<'_>, Option<u32>)> = Vec::new();
    for id in ids {
        match (id.which, runs.last_mut()) {
            (Which::Element(index), Some((first, Some(last))))
                if !torque && (first.number, first.server) == (id.number, id.server) && *last + 1 == index =>
            {
                *last = index;
            }
            (Which::Element(index), _) => runs.push((id, Some(index))),
            _ => runs.push((id, None)),
        }
    }
    let text = |(id, last): (Id<'_>, Option<u32>)| match (id.which, last) {
        (Which::Element(first), Some(last)) if last > first => id.text(id.which).replacen(']', &format!("-{last}]"), 1),
        (which, _) => id.text(which),
    };
    runs.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ids::{JobName, JobSeq, NativeId};

    #[test]
    fn neighbours_of_an_array_are_one_operand_and_nothing_else_is_put_together() {
        let ids = ["3.a", "22[1].a", "22[0].a", "22[2].a", "22[9].a", "22[10].a", "22[12].a", "23[13].a", "3.a", "4.a"];
        let job = |id: &&str| JobRef { name: JobName::new("abcd", JobSeq(1)), id: Some(NativeId((*id).to_owned())) };
        let jobs: Vec<_> = ids.iter().map(job).chain([JobRef { id: None, ..job(&"0.a") }]).collect();
        assert_eq!(operands(&jobs, false), ["3.a", "4.a", "22[0-2].a", "22[9-10].a", "22[12].a", "23[13].a"]);
        assert_eq!(
            operands(&jobs[..4], true),
            ["3.a", "22[0].a", "22[1].a", "22[2].a"],
            "TORQUE's ranges are an option of qdel"
        );
    }
}
