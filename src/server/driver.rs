//! Carries out the ledger's orders with the backend, each in a task of its own; what came of it goes
//! back to the core as evidence.

use super::core::Done;
use crate::backends::sentinel::Sentinel;
use crate::backends::{Backend, BackendError, ErrorClass, Submit};
use crate::ledger::Order;
use std::path::PathBuf;
use std::sync::Arc;

/// Carries one order out.
pub(super) async fn carry_out(order: Order, backend: Arc<dyn Backend>, jobs: PathBuf) -> Option<Done> {
    Some(match &order {
        Order::Submit(submit) => match backend.submit(submit).await {
            Ok(ids) => Done::Submitted(submit.clone(), ids),
            Err(error) => Done::SubmitFailed(submit.clone(), error),
        },
        Order::List(asked) => match backend.list(asked).await {
            Ok(seen) => Done::Listed(asked.clone(), seen),
            Err(error) => Done::Failed(order, error),
        },
        Order::Find => match backend.find().await {
            Ok(seen) => Done::Found(seen),
            Err(error) => Done::Failed(order, error),
        },
        Order::Account(jobs) => match backend.account(jobs).await {
            Ok(seen) => Done::Accounted(jobs.clone(), seen),
            Err(error) => Done::Failed(order, error),
        },
        Order::Cancel(jobs) => match backend.cancel(jobs).await {
            Ok(()) => Done::Cancelled(jobs.clone()),
            Err(error) => Done::Failed(order, error),
        },
        Order::Expect(asked) => {
            let mut starts = Vec::new();
            for (pool, walltime_seconds) in asked {
                let submit = Submit {
                    pool: pool.clone(),
                    walltime_seconds: Some(*walltime_seconds),
                    jobs: Vec::new(),
                    exclude: Vec::new(),
                };
                match backend.expected_start(&submit).await {
                    Ok(Some(start)) => starts.push((pool.clone(), *walltime_seconds, start)),
                    Ok(None) => break,
                    Err(error) => return Some(Done::Failed(order, error)),
                }
            }
            Done::Expected(starts)
        }
        Order::ReadSentinels(silent) => {
            let silent = silent.clone();
            let read = move || {
                let read = |(seq, name): (_, crate::runtime::ids::JobName)| {
                    Some((seq, Sentinel::read(&jobs.join(name.as_str()).join("exit"))?))
                };
                silent.into_iter().filter_map(read).collect()
            };
            match tokio::task::spawn_blocking(read).await {
                Ok(found) => Done::Sentinels(found),
                Err(error) => {
                    let error = BackendError {
                        class: ErrorClass::Transient,
                        command: "read the ends of jobs".to_owned(),
                        says: error.to_string(),
                        fix: None,
                    };
                    Done::Failed(order, error)
                }
            }
        }
        // The core itself tells workers to drain.
        Order::Drain(_) => return None,
    })
}
