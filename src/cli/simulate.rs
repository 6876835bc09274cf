//! `dcluster simulate`.

mod options;
mod runs;

use super::Context;
use crate::error::{Kind, Problem};
use crate::simulate::input::InputError;
use crate::simulate::report::{self, Row};
use crate::simulate::stdio::{StdioError, serve};
use crate::simulate::{Run, plot};
use crate::ui::words::{count, duration};
pub(super) use options::SimulateArgs;
use runs::{Cell, Plan, Played};
use std::path::Path;
use std::time::Duration;

pub(super) fn run(args: &SimulateArgs, context: &Context) -> Result<u8, Problem> {
    if args.stdio {
        return drive(context);
    }
    let plan = Plan::of(args)?;
    let Played { rows, only } = plan.run()?;
    // The data comes last: a figure that cannot be written is known before.
    if let Some(path) = &args.plot {
        let svg = match &only {
            Some((cell, run)) => plot::supply(&supply(cell, run)),
            None => plot::frontier(&report::frontier(&rows)),
        };
        write(path, &svg)?;
    }
    match (&rows[..], only) {
        ([row], Some(_)) if context.printer.json => context.printer.data_json(&row.summary)?,
        (rows, _) if context.printer.json => {
            for row in rows {
                context.printer.data_json(row)?;
            }
        }
        ([_], Some((cell, run))) if !args.table => {
            context.printer.data(title(&cell))?;
            context.printer.data(report::sentences(&run))?;
        }
        (rows, _) => tables(rows, context)?,
    }
    if let Some(path) = &args.plot {
        context.printer.note(&format!("the figure is in {}", path.display()));
    }
    Ok(0)
}

fn tables(rows: &[Row], context: &Context) -> Result<(), Problem> {
    // Wider than 80 columns: a folded table of numbers cannot be read.
    context.printer.data(report::table(rows).render(None))?;
    if report::cells(rows) > 1 && report::cells(rows) < rows.len() {
        context.printer.data("")?;
        context.printer.data(report::comparison(rows).render(None))?;
    }
    Ok(())
}

/// Says what was simulated.
fn title(cell: &Cell) -> String {
    let pool = &cell.scenario.settings.pools[0];
    let walltime = pool.walltime.map_or_else(
        || "no walltime".to_owned(),
        |seconds| {
            let up_to = if pool.walltime_choices.is_empty() { "" } else { "up to " };
            format!("walltime {up_to}{}", duration(Duration::from_secs_f64(seconds)))
        },
    );
    format!(
        "{} on {}: {} of {}, {} to {} of {}, {walltime}, seed {}",
        cell.policy,
        cell.trace,
        count(cell.scenario.workload.tasks.len() as u64, "task"),
        cell.scenario.workload.name,
        cell.scenario.settings.min,
        count(cell.scenario.settings.max.into(), "job"),
        count(pool.cores.into(), "core"),
        cell.scenario.seed,
    )
}

fn supply(cell: &Cell, run: &Run) -> plot::Supply {
    plot::Supply {
        title: format!("{} on {}: {}", cell.policy, cell.trace, cell.scenario.workload.name),
        seconds: run.seconds,
        wanted: run.demand.clone(),
        held: run.held.clone(),
        busy: run.busy.clone(),
        pending: run.pending.clone(),
    }
}

fn write(path: &Path, svg: &str) -> Result<(), Problem> {
    std::fs::write(path, svg).map_err(|error| {
        Problem::new(Kind::Failed, "cannot write the figure")
            .says(error.to_string())
            .location(path.display().to_string())
            .fix("give a path in a folder that exists and may be written")
    })
}

/// The controller for somebody else's simulator.
fn drive(context: &Context) -> Result<u8, Problem> {
    let served = serve(std::io::stdin().lock(), |answer| context.printer.data_json(answer));
    let problem = |kind, what: String| Problem::new(kind, what).location("standard input");
    match served {
        Ok(()) => Ok(0),
        Err(StdioError::Output(problem)) => Err(problem),
        Err(error @ StdioError::Settings(_)) => Err(problem(Kind::Config, error.to_string())
            .fix(r#"the first line is like {"min":0,"max":10,"pools":[{"cores":8,"walltime":14400}]}"#)),
        Err(error @ StdioError::Observation { .. }) => Err(problem(Kind::Usage, error.to_string())
            .fix(r#"a line is like {"now":10,"classes":[{"name":"a","ready":5}]}; docs/adaptive.md has all keys"#)),
        Err(error @ StdioError::Input(_)) => Err(problem(Kind::Failed, error.to_string())),
    }
}

/// Says what is wrong with a file.
fn bad_file(error: &InputError) -> Problem {
    Problem::new(Kind::Usage, error.what.clone())
        .done("nothing was simulated")
        .location(error.place())
        .fix(error.fix.clone())
}
