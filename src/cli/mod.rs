//! The command line: clap types and one file per command. What was typed becomes requests, settings
//! and sentences; nothing here decides anything about jobs or tasks.

mod adapt;
mod cancel;
mod config;
mod connect;
mod context;
mod doctor;
mod down;
mod events;
mod explain;
mod follow;
mod generate;
mod journal;
mod logs;
mod ls;
mod map;
mod needs;
mod render;
mod retry;
mod scale;
mod server;
mod simulate;
mod status;
mod submit;
mod tasks;
mod up;
mod wait;
mod worker;

pub use context::Context;

use crate::error::{Kind, Problem};
use crate::ui::printer::{Printer, Verbosity};
use crate::ui::progress::Choice;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Starts clusters on this machine or on a batch queue, and runs commands on them.
///
/// The first command that works anywhere:
///
/// dcluster map 'gzip {}' ::: *.nc
///
/// It starts a cluster, runs gzip on every file, as many at a time as there are cores, and takes the
/// cluster down again. On a machine with Slurm the same command asks the queue for a job.
#[derive(Parser, Debug)]
#[command(name = "dcluster", version, propagate_version = true, max_term_width = 100, verbatim_doc_comment)]
#[command(after_help = "Exit codes: 0 ok, 1 the work failed, 2 usage, 69 cluster or batch system unreachable,
70 a bug, 75 try again later, 78 configuration, 124 time-out, 130 interrupted.

Files: the state of clusters lies in $DCLUSTER_STATE (default ~/.local/state/dcluster), settings in
~/.config/dcluster/config.toml and ./dcluster.toml; dcluster config show prints them.")]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
struct Global {
    /// Print data as JSON (docs/json.md) and errors as JSON on standard error.
    #[arg(long, global = true)]
    json: bool,
    /// Print errors only.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Print details.
    #[arg(long, short, global = true)]
    verbose: bool,
    /// Colour messages: auto, always or never.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_default_value = true)]
    color: Color,
    /// Show progress as auto, bar, line or none.
    #[arg(long, global = true, value_name = "HOW", default_value = "auto", hide_default_value = true)]
    progress: ProgressChoice,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Color {
    Auto,
    Always,
    Never,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum ProgressChoice {
    Auto,
    Bar,
    Line,
    None,
}

impl From<ProgressChoice> for Choice {
    fn from(choice: ProgressChoice) -> Self {
        match choice {
            ProgressChoice::Auto => Self::Auto,
            ProgressChoice::Bar => Self::Bar,
            ProgressChoice::Line => Self::Line,
            ProgressChoice::None => Self::None,
        }
    }
}

#[derive(Subcommand, Debug)]
enum Command {
    Up(Box<up::UpArgs>),
    Scale(scale::ScaleArgs),
    Adapt(adapt::AdaptArgs),
    Status(status::StatusArgs),
    Ls(ls::LsArgs),
    Down(down::DownArgs),
    Submit(Box<submit::SubmitArgs>),
    Map(Box<map::MapArgs>),
    Wait(wait::WaitArgs),
    Tasks(tasks::TasksArgs),
    Cancel(cancel::CancelArgs),
    Retry(retry::RetryArgs),
    Logs(logs::LogsArgs),
    Events(events::EventsArgs),
    Explain(explain::ExplainArgs),
    Render(Box<render::RenderArgs>),
    Config(config::ConfigArgs),
    Doctor(Box<doctor::DoctorArgs>),
    Simulate(Box<simulate::SimulateArgs>),
    Journal(journal::JournalArgs),
    Worker(worker::WorkerArgs),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
    #[command(hide = true)]
    Server(server::ServerArgs),
}

/// Parses and runs a command line; returns the exit code.
pub fn start(words: Vec<std::ffi::OsString>) -> u8 {
    let json = words.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    match Cli::try_parse_from(words) {
        Ok(cli) => run(cli),
        // Help and version are no errors; and people get clap's own colours and hints.
        Err(error) if !json || !error.use_stderr() => error.exit(),
        Err(error) => {
            let printer = Printer { json, verbosity: Verbosity::Normal, color: anstream::ColorChoice::Never };
            let text = error.to_string();
            let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            let problem = Problem::new(Kind::Usage, what).fix("dcluster --help");
            printer.error(&problem);
            problem.exit_code()
        }
    }
}

/// Runs what was typed and returns the exit code.
fn run(cli: Cli) -> u8 {
    let context = Context::new(&cli.global);
    let done = match cli.command {
        None => context.welcome(),
        Some(command) => dispatch(command, &context),
    };
    match done {
        Ok(code) => code,
        Err(problem) => {
            context.printer.error(&problem);
            problem.exit_code()
        }
    }
}

fn dispatch(command: Command, context: &Context) -> Result<u8, Problem> {
    match command {
        Command::Up(args) => up::run(&args, context),
        Command::Scale(args) => scale::run(&args, context),
        Command::Adapt(args) => adapt::run(&args, context),
        Command::Status(args) => status::run(&args, context),
        Command::Ls(args) => ls::run(&args, context),
        Command::Down(args) => down::run(&args, context),
        Command::Submit(args) => submit::run(&args, context),
        Command::Map(args) => map::run(&args, context),
        Command::Wait(args) => wait::run(&args, context),
        Command::Tasks(args) => tasks::run(&args, context),
        Command::Cancel(args) => cancel::run(&args, context),
        Command::Retry(args) => retry::run(&args, context),
        Command::Logs(args) => logs::run(&args, context),
        Command::Events(args) => events::run(&args, context),
        Command::Explain(args) => explain::run(&args, context),
        Command::Render(args) => render::run(&args, context),
        Command::Config(args) => config::run(&args, context),
        Command::Doctor(args) => doctor::run(&args, context),
        Command::Simulate(args) => simulate::run(&args, context),
        Command::Journal(args) => journal::run(&args, context),
        Command::Worker(args) => worker::run(&args, context),
        Command::Completions(args) => generate::completions(&args, context),
        Command::Man(args) => generate::man(&args, context),
        Command::Server(args) => server::run(&args, context),
    }
}
