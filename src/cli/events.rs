//! `dcluster events`.

use super::Context;
use super::context::interrupted;
use crate::cluster::Folder;
use crate::config::options::ClusterOption;
use crate::error::Problem;
use crate::server::events::Event;
use crate::ui::words::{escape, local_time};
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

/// Print what happened: jobs, failures, decisions; works after `down`, too
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster events
  dcluster events --follow
  dcluster events --json | jq -r 'select(.kind == \"job_ended\") | .text'")]
pub(super) struct EventsArgs {
    /// Go on printing as things happen, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// Only events about this job.
    #[arg(long, value_name = "N")]
    job: Option<u32>,
    #[command(flatten)]
    cluster: ClusterOption,
}

/// Reads the event files from where they were left.
struct Reader {
    folder: PathBuf,
    offsets: BTreeMap<PathBuf, u64>,
}

impl Reader {
    /// Returns whole lines that are new, oldest first.
    fn new_lines(&mut self) -> Vec<String> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
            .collect();
        files.sort();
        let mut lines = Vec::new();
        for path in files {
            let offset = self.offsets.entry(path.clone()).or_default();
            let mut text = Vec::new();
            let read = std::fs::File::open(&path).and_then(|mut file| {
                file.seek(SeekFrom::Start(*offset))?;
                file.read_to_end(&mut text)
            });
            if read.is_err() {
                continue;
            }
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            *offset += whole as u64;
            lines.extend(String::from_utf8_lossy(&text[..whole]).lines().map(str::to_owned));
        }
        lines
    }
}

pub(super) fn run(args: &EventsArgs, context: &Context) -> Result<u8, Problem> {
    let folder: Folder = context.folder(&args.cluster)?;
    if !folder.exists() {
        return Err(super::connect::not_up(&folder));
    }
    folder.open()?;
    let mut reader = Reader { folder: folder.events(), offsets: BTreeMap::new() };
    let work = async {
        loop {
            for line in reader.new_lines() {
                print(&line, args.job, context)?;
            }
            if !args.follow {
                return Ok(0);
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    context.block_on(work, interrupted)
}

fn print(line: &str, job: Option<u32>, context: &Context) -> Result<(), Problem> {
    // A line that was torn by a full disk is no event.
    let Ok(event) = serde_json::from_str::<Event>(line) else { return Ok(()) };
    if job.is_some() && event.job != job {
        return Ok(());
    }
    if context.printer.json {
        return context.printer.data(line);
    }
    let time = event
        .time
        .parse::<Timestamp>()
        .map_or(event.time.clone(), |at| local_time(at, Timestamp::now(), &TimeZone::system()));
    context.printer.data(format!("{time}  {}", escape(&event.text)))
}
