//! `dcluster config`.

use super::Context;
use crate::backends::detect;
use crate::config::check::check;
use crate::config::host::Facts;
use crate::config::options::{ClusterOption, PoolOptions};
use crate::config::trust::trust;
use crate::error::{Kind, Problem};
use crate::ui::table::{Align, Table};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Show, check and trust settings
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster config show
  dcluster config check
  dcluster config trust ./dcluster.toml")]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Print every setting with its value and where it came from
    #[command(after_help = "Example:\n  dcluster config show --profile big --json")]
    Show(ShowArgs),
    /// Check all configuration files and profiles, and say everything that is wrong
    #[command(after_help = "Example:\n  dcluster config check")]
    Check,
    /// Use a dcluster.toml although others could have written it, as it is now
    #[command(after_help = "Example:\n  dcluster config trust ./dcluster.toml")]
    Trust {
        /// The file.
        #[arg(default_value = "dcluster.toml", value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Args, Debug)]
struct ShowArgs {
    #[command(flatten)]
    cluster: ClusterOption,
    #[command(flatten)]
    pool: Box<PoolOptions>,
}

pub(super) fn run(args: &ConfigArgs, context: &Context) -> Result<u8, Problem> {
    match &args.command {
        ConfigCommand::Show(args) => show(args, context),
        ConfigCommand::Check => {
            let layers = context.layers(&ClusterOption::default(), &PoolOptions::default())?;
            let problems = check(&layers, &Facts::of_host(detect::of_host(&context.variables)));
            if problems.is_empty() {
                let read = layers.read.len();
                context.printer.note(&format!(
                    "the configuration is fine ({} read)",
                    crate::ui::words::count(read as u64, "file")
                ));
                return Ok(0);
            }
            for problem in problems {
                context.printer.error(&problem.into());
            }
            Ok(Kind::Config as u8)
        }
        ConfigCommand::Trust { file } => {
            let path = trust(&context.state()?, file)?;
            context
                .printer
                .note(&format!("{} is trusted as it is now; a change makes it strange again", path.display()));
            Ok(0)
        }
    }
}

fn show(args: &ShowArgs, context: &Context) -> Result<u8, Problem> {
    let resolved = context.resolve(&args.cluster, &args.pool)?;
    if context.printer.json {
        for shown in &resolved.values {
            context.printer.data_json(shown)?;
        }
        return Ok(0);
    }
    let mut table = Table::new(&[("setting", Align::Left), ("value", Align::Left), ("from", Align::Left)]);
    for shown in &resolved.values {
        table.row([shown.key.name().to_owned(), shown.text.clone(), shown.origin.to_string()]);
    }
    context.printer.data(table.render(context.printer.table_width()))?;
    Ok(0)
}
