//! `dcluster ls`.

use super::Context;
use super::connect::{Condition, condition};
use super::context::interrupted;
use crate::client::Client;
use crate::cluster::Folder;
use crate::error::Problem;
use crate::ui::table::{Align, Table};
use clap::Args;
use serde::Serialize;

/// List the clusters of this state folder
#[derive(Args, Debug)]
#[command(after_help = "Example:
  dcluster ls --json")]
pub(super) struct LsArgs {}

#[derive(Serialize)]
struct Row {
    cluster: String,
    backend: String,
    /// `up`, `down`, `lost` (its server is gone: any command brings it back) or `unreadable`.
    state: &'static str,
    jobs: Option<u32>,
    folder: String,
}

pub(super) fn run(_: &LsArgs, context: &Context) -> Result<u8, Problem> {
    let state = context.state()?;
    let rows = context.block_on(
        async {
            let mut rows = Vec::new();
            for name in Folder::names(&state) {
                rows.push(look(&Folder::of(&state, &name)).await);
            }
            Ok(rows)
        },
        interrupted,
    )?;
    if context.printer.json {
        for row in rows {
            context.printer.data_json(&row)?;
        }
        return Ok(0);
    }
    if rows.is_empty() {
        context.printer.note(&format!("no clusters in {}; dcluster up makes one", state.display()));
        return Ok(0);
    }
    let mut table = Table::new(&[
        ("cluster", Align::Left),
        ("backend", Align::Left),
        ("state", Align::Left),
        ("jobs", Align::Right),
    ]);
    for row in rows {
        table.row([
            row.cluster,
            row.backend,
            row.state.to_owned(),
            row.jobs.map_or("-".to_owned(), |jobs| jobs.to_string()),
        ]);
    }
    context.printer.data(table.render(context.printer.table_width()))?;
    Ok(0)
}

async fn look(folder: &Folder) -> Row {
    let backend = folder.spec().map_or_else(|_| "-".to_owned(), |spec| spec.backend.as_str().to_owned());
    let (state, jobs) = match condition(folder) {
        Err(_) => ("unreadable", None),
        Ok(Condition::Missing | Condition::Down) => ("down", None),
        Ok(Condition::Up) => match Client::connect(folder).await {
            Err(_) => ("lost", None),
            Ok(mut client) => {
                let jobs = super::up::status(&mut client)
                    .await
                    .ok()
                    .map(|status| status.jobs.iter().filter(|job| job.live()).count());
                ("up", jobs.and_then(|jobs| u32::try_from(jobs).ok()))
            }
        },
    };
    Row { cluster: folder.name().to_owned(), backend, state, jobs, folder: folder.path().display().to_string() }
}
