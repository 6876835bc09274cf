//! Logs in the Standard Workload Format. A line is a job: 18 numbers, -1 where nothing is known. Comments begin
//! with `;` and say `Key: value`.

use super::{Format, JOBS_MAX, Log, Logged, add_comment, number, stem};
use crate::simulate::input::{Input, InputError};

/// Fields of a line.
const FIELDS: usize = 18;
/// Places of the fields that are read, from 0, with their names in the definition.
const SUBMIT: (usize, &str) = (1, "submit time");
const WAIT: (usize, &str) = (2, "wait time");
const RUN: (usize, &str) = (3, "run time");
const ALLOCATED: (usize, &str) = (4, "number of allocated processors");
const ASKED: (usize, &str) = (7, "requested number of processors");
const REQUESTED: (usize, &str) = (8, "requested time");
const STATUS: (usize, &str) = (10, "status");

pub(super) fn read(mut input: Input) -> Result<Log, InputError> {
    let file = input.file.clone();
    let mut header = Vec::new();
    let mut jobs = Vec::new();
    let mut bytes = Vec::new();
    let mut line = 0;
    while input.line(&mut bytes)? {
        line += 1;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        if let Some(comment) = text.strip_prefix(';') {
            add_comment(&mut header, comment.trim_start_matches(';'));
        } else if !text.is_empty() {
            let bad = |(what, fix)| InputError::new(&file, what, fix).at(line);
            jobs.extend(job(text).map_err(bad)?);
            if jobs.len() > JOBS_MAX {
                return Err(bad((format!("there are more than {JOBS_MAX} jobs"), "cut it".to_owned())));
            }
        }
    }
    Ok(Log { name: stem(&file), format: Format::Swf, header, jobs })
}

/// Reads a line; `None` = nothing that ran as a whole. An error says what is wrong and what to do.
fn job(text: &str) -> Result<Option<Logged>, (String, String)> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS {
        let what = match fields.len() {
            1 => "there is 1 field where a job has 18".to_owned(),
            number => format!("there are {number} fields where a job has {FIELDS}"),
        };
        let fix = "take a log in the Standard Workload Format, or CSV: submit_s,wait_s,run_s,procs,requested_s";
        return Err((what, fix.to_owned()));
    }
    let field = |(place, name): (usize, &str)| {
        number(fields[place]).map_err(|what| {
            (format!("field {}, {name}: {what}", place + 1), "write -1 for what is not known".to_owned())
        })
    };
    let (status, run) = (field(STATUS)?, field(RUN)?);
    let missing = || ("field 2, submit time: it is not known".to_owned(), "leave the job out".to_owned());
    let submit = field(SUBMIT)?.ok_or_else(missing)?;
    let count = |processors: Option<f64>| processors.filter(|number| *number >= 1.0);
    let processors = count(field(ALLOCATED)?).or(count(field(ASKED)?));
    let (wait, requested) = (field(WAIT)?, field(REQUESTED)?);
    // Codes 2, 3 and 4 are pieces of a job that has a line of its own; 5 without a run was cancelled while it
    // was pending, and its wait is not that of a job that started.
    let is_piece = status.is_some_and(|code| (2.0..5.0).contains(&code));
    let never_ran = status == Some(5.0) && run.is_none_or(|run| run == 0.0);
    let Some(processors) = processors.filter(|_| !is_piece && !never_ran) else { return Ok(None) };
    let requested = requested.filter(|seconds| *seconds > 0.0);
    Ok(Some(Logged { submit, wait, run, processors: processors as u32, requested }))
}
