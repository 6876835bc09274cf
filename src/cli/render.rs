//! `dcluster render`.

use super::Context;
use crate::backends::render::{RenderInput, render_job_script};
use crate::cluster::Folder;
use crate::config::options::{ClusterOption, PoolOptions};
use crate::config::resolve::Shown;
use crate::error::{Kind, Problem};
use crate::runtime::ids::JobSeq;
use clap::Args;
use std::collections::BTreeMap;

/// Print the job script and the submit command that `up` would use; nothing is submitted
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster render --backend slurm --cores 24 --memory 100GB --queue regular --walltime 4h
  dcluster render --profile big --jobs 10 --explain")]
pub(super) struct RenderArgs {
    #[command(flatten)]
    cluster: ClusterOption,
    #[command(flatten)]
    pool: PoolOptions,
    /// Say with every directive what it is and where its value came from.
    #[arg(long)]
    explain: bool,
}

pub(super) fn run(args: &RenderArgs, context: &Context) -> Result<u8, Problem> {
    let resolved = context.resolve(&args.cluster, &args.pool)?;
    let folder = Folder::of(&context.state()?, &resolved.name);
    // A cluster that was never up has no letters yet; `up` draws them.
    let letters = if folder.exists() { folder.open()?.letters } else { "wxyz".to_owned() };
    let home = crate::backends::job_home(&folder, &letters, &resolved.spec)?;
    let origins = origins(&resolved.values);
    let jobs = resolved.spec.jobs.max(1);
    let input = RenderInput {
        home: &home,
        backend: resolved.spec.backend,
        first: JobSeq(1),
        count: jobs,
        explain: args.explain,
        origins: Some(&origins),
    };
    let script = render_job_script(&input)
        .map_err(|error| Problem::new(Kind::Config, "cannot render the job script").says(error.to_string()))?;
    let command = crate::backends::submit_line(resolved.spec.backend, &home);
    if context.printer.json {
        context.printer.data_json(&serde_json::json!({ "backend": resolved.spec.backend, "jobs": jobs, "command": command, "script": script }))?;
        return Ok(0);
    }
    context.printer.note(&format!("submit command: {command}"));
    context.printer.data(script.trim_end())?;
    Ok(0)
}

/// Says of every field of a pool where it came from, and of sizes and times what they became. The
/// templates' names say the unit.
fn origins(values: &[Shown]) -> BTreeMap<String, String> {
    let one = |shown: &Shown| {
        let detailed = || format!("{}, {}", shown.origin, shown.text);
        match shown.key.name() {
            "memory" => ("memory_bytes".to_owned(), detailed()),
            "walltime" => ("walltime_seconds".to_owned(), detailed()),
            "drain-lead" => ("drain_lead_seconds".to_owned(), detailed()),
            // The templates' `name` is the job's; ours is the cluster's.
            "name" => ("cluster".to_owned(), shown.origin.to_string()),
            name => (name.replace('-', "_"), shown.origin.to_string()),
        }
    };
    values.iter().map(one).collect()
}
