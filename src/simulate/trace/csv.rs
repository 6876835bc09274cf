//! Logs as comma-separated values. Columns are found by their names; others may stand between them.

use super::{Format, JOBS_MAX, Log, Logged, add_comment, number, stem};
use crate::simulate::input::{Input, InputError};

/// The columns, the last of which may miss.
const COLUMNS: [&str; 5] = ["submit_s", "wait_s", "run_s", "procs", "requested_s"];

pub(super) fn read(mut input: Input) -> Result<Log, InputError> {
    let file = input.file.clone();
    let mut header = Vec::new();
    let mut line = Vec::new();
    let mut lines = 0;
    // Comments are ours to keep; the first line without a mark is the header of the table.
    let names = loop {
        if !input.line(&mut line)? {
            return Err(InputError::new(&file, "it is empty", format!("the first line is {}", COLUMNS.join(","))));
        }
        lines += 1;
        let text = String::from_utf8_lossy(&line);
        match text.trim_start().strip_prefix('#') {
            Some(comment) => add_comment(&mut header, comment),
            None if text.trim().is_empty() => {}
            None => break text.into_owned(),
        }
    };
    let names: Vec<&str> = names.split(',').map(str::trim).collect();
    let place = |name: &str| names.iter().position(|known| *known == name);
    let columns = COLUMNS.map(place);
    if let Some(missing) = (0..4).find(|at| columns[*at].is_none()) {
        let what = format!("there is no column `{}`", COLUMNS[missing]);
        return Err(InputError::new(&file, what, format!("the header is {}", COLUMNS.join(","))).at(lines));
    }
    let mut jobs = Vec::new();
    let mut parser = csv_core::Reader::new();
    while input.line(&mut line)? {
        lines += 1;
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let bad = |what: String| {
            let fix = format!("a row is numbers: {}; -1 is unknown", COLUMNS.join(","));
            InputError::new(&file, what, fix).at(lines)
        };
        let row = cells(&mut parser, &mut line).map_err(bad)?;
        if row.len() != names.len() {
            return Err(bad(format!("there are {} values under {} columns", row.len(), names.len())));
        }
        let mut values = [None; 5];
        for (at, column) in columns.iter().enumerate() {
            if let Some(text) = column.and_then(|column| row.get(column)) {
                values[at] = number(text).map_err(|what| bad(format!("{}: {what}", COLUMNS[at])))?;
            }
        }
        let [submit, wait, run, processors, requested] = values;
        let submit = submit.ok_or_else(|| bad("submit_s: the time of submission is not known".to_owned()))?;
        let processors = processors.ok_or_else(|| bad("procs: the number of processors is not known".to_owned()))?;
        if jobs.len() == JOBS_MAX {
            return Err(bad(format!("there are more than {JOBS_MAX} jobs")));
        }
        let processors = (processors as u32).max(1);
        jobs.push(Logged { submit, wait, run, processors, requested: requested.filter(|seconds| *seconds > 0.0) });
    }
    Ok(Log { name: stem(&file), format: Format::Csv, header, jobs })
}

/// Splits a line into its cells. Line by line, because a reader of whole files does not know in which line of the
/// file it is once it has skipped some.
fn cells(parser: &mut csv_core::Reader, line: &mut Vec<u8>) -> Result<Vec<String>, String> {
    line.push(b'\n');
    let mut text = vec![0; line.len()];
    let mut ends = vec![0; line.len()];
    parser.reset();
    let (read, _, _, cells) = parser.read_record(line, &mut text, &mut ends);
    if !matches!(read, csv_core::ReadRecordResult::Record) {
        return Err("a quote is not closed".to_owned());
    }
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let cell = |(start, end): (usize, &usize)| String::from_utf8_lossy(&text[start..*end]).trim().to_owned();
    Ok(starts.zip(&ends[..cells]).map(cell).collect())
}
