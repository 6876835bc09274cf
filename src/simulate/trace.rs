//! Logs of batch systems: which job was submitted when, how long it waited, ran, and what it asked for.
//!
//! Two formats, told apart by what is in the file: CSV with the columns `submit_s,wait_s,run_s,procs,requested_s`
//! and comments `# Key: value`; and the Standard Workload Format (SWF 2.2, Feitelson et al.,
//! <https://www.cs.huji.ac.il/labs/parallel/workload/swf.html>).

mod csv;
mod swf;

use super::input::{Input, InputError};
use std::path::Path;

/// Most jobs of a log.
const JOBS_MAX: usize = 10_000_000;

/// A job of a log. Times in seconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Logged {
    /// When it was submitted, since the beginning of the log.
    pub submit: f64,
    /// How long it was pending, if known.
    pub wait: Option<f64>,
    /// How long it ran, if known.
    pub run: Option<f64>,
    /// Its processors, at least 1.
    pub processors: u32,
    /// How long it might have run, if known.
    pub requested: Option<f64>,
}

/// The format of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Comma-separated values.
    Csv,
    /// Standard Workload Format.
    Swf,
}

/// A log, in order of submission.
#[derive(Clone, PartialEq, Debug)]
pub struct Log {
    /// Name of the file, without folder and endings.
    pub name: String,
    /// Its format.
    pub format: Format,
    /// What its comments say, in their order: `MaxProcs`, `100`.
    pub header: Vec<(String, String)>,
    /// The jobs; at least one.
    pub jobs: Vec<Logged>,
}

impl Log {
    /// Reads a log, gzip or not.
    ///
    /// # Errors
    /// The file cannot be read, or a line of it is not as its format wants it.
    pub fn read(path: &Path) -> Result<Self, InputError> {
        Self::from_input(Input::open(path)?)
    }

    /// Reads a log from bytes.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub fn from_bytes(file: &str, bytes: impl Into<Vec<u8>>) -> Result<Self, InputError> {
        Self::from_input(Input::new(file, std::io::Cursor::new(bytes.into()))?)
    }

    fn from_input(mut input: Input) -> Result<Self, InputError> {
        let file = input.file.clone();
        let mut log = match format(&mut input)? {
            Format::Csv => csv::read(input)?,
            Format::Swf => swf::read(input)?,
        };
        if log.jobs.is_empty() {
            return Err(InputError::new(&file, "there is no job that ran in it", "take a log with jobs"));
        }
        // Stable: jobs of one second keep the order of the log.
        log.jobs.sort_by(|a, b| a.submit.total_cmp(&b.submit));
        Ok(log)
    }

    /// Returns what a comment says.
    pub fn says(&self, key: &str) -> Option<&str> {
        let same = |(name, _): &&(String, String)| name.eq_ignore_ascii_case(key);
        self.header.iter().find(same).map(|(_, value)| value.as_str())
    }

    /// Returns the processors of the machine: `MaxProcs`; without it the most that were in use at once, or
    /// `MaxNodes` if that is more, because a node has at least one.
    pub fn processors(&self) -> u32 {
        let number = |key| self.says(key)?.split_whitespace().next()?.parse::<u32>().ok().filter(|n| *n > 0);
        number("MaxProcs").unwrap_or_else(|| self.busiest().max(number("MaxNodes").unwrap_or(1)))
    }

    /// Returns the most processors that were in use at once.
    fn busiest(&self) -> u32 {
        let mut changes = Vec::with_capacity(2 * self.jobs.len());
        let mut largest = 1;
        for job in &self.jobs {
            largest = largest.max(job.processors);
            if let (Some(wait), Some(run)) = (job.wait, job.run) {
                changes.push((job.submit + wait, i64::from(job.processors)));
                changes.push((job.submit + wait + run, -i64::from(job.processors)));
            }
        }
        // At one moment ends come before starts: −n sorts before n.
        changes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let used = changes.iter().scan(0, |used, (_, change)| {
            *used += change;
            Some(*used)
        });
        u32::try_from(used.max().unwrap_or(0)).unwrap_or(u32::MAX).max(largest)
    }

    /// Returns seconds from the first to the last submission.
    pub fn span(&self) -> f64 {
        let ends = (self.jobs.first(), self.jobs.last());
        if let (Some(first), Some(last)) = ends { last.submit - first.submit } else { 0.0 }
    }
}

/// Tells the format by the first line that is not empty: comments begin with `#` or `;`, only CSV has commas.
fn format(input: &mut Input) -> Result<Format, InputError> {
    let start = input.peek()?.trim_ascii_start();
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_csv = !line.starts_with(b";") && (line.starts_with(b"#") || line.contains(&b','));
    Ok(if is_csv { Format::Csv } else { Format::Swf })
}

/// Returns the name that a file is known by: without folder and endings.
pub(super) fn stem(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.strip_suffix(".gz").unwrap_or(name);
    [".csv", ".swf", ".txt", ".json"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned()
}

/// Adds what a comment without its mark says, if it has a key.
fn add_comment(header: &mut Vec<(String, String)>, text: &str) {
    if let Some((key, value)) = text.split_once(':').filter(|(key, _)| !key.trim().contains(' ')) {
        header.push((key.trim().to_owned(), value.trim().to_owned()));
    }
}

/// Returns a number that may be unknown (negative), or what is wrong with it.
fn number(text: &str) -> Result<Option<f64>, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok((number >= 0.0).then_some(number)),
        _ => Err(format!("`{}` is no number", text.trim().chars().take(40).collect::<String>())),
    }
}

#[cfg(test)]
mod tests;
