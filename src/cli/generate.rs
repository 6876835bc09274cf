//! `dcluster completions` and `dcluster man`: made from the same types as the parser.

use super::{Cli, Context};
use crate::error::{Kind, Problem};
use clap::{Args, CommandFactory};
use std::path::PathBuf;

/// Print a completion script for a shell
#[derive(Args, Debug)]
#[command(after_help = "Example:
  dcluster completions bash > ~/.local/share/bash-completion/completions/dcluster")]
pub(super) struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell.
    shell: clap_complete::Shell,
}

pub(super) fn completions(args: &CompletionsArgs, context: &Context) -> Result<u8, Problem> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "dcluster", &mut script);
    context.printer.data(script.trim_ascii_end())?;
    Ok(0)
}

/// Write the manual pages into a folder, or print dcluster(1)
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster man | man -l -
  dcluster man --out ~/.local/share/man/man1")]
pub(super) struct ManArgs {
    /// Folder for dcluster.1, dcluster-up.1 and so on.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn man(args: &ManArgs, context: &Context) -> Result<u8, Problem> {
    let fail =
        |error: std::io::Error| Problem::new(Kind::Failed, "cannot write the manual pages").says(error.to_string());
    match &args.out {
        Some(folder) => {
            std::fs::create_dir_all(folder).map_err(fail)?;
            clap_mangen::generate_to(Cli::command(), folder).map_err(fail)?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(fail)?;
            context.printer.data(page.trim_ascii_end())?;
        }
    }
    Ok(0)
}
