//! Parses what PBS's commands print. Pure. Measured on OpenPBS 23.06.06 (captures in `tests/fixtures/pbs`), read in
//! its sources; TORQUE's differences are those of its manual, 6.1.
//!
//! Jobs are read from the text of `qstat -f`, which all of them print alike. The JSON of some holds only the first of
//! several jobs, or is none (captures qstat_multi_x_json_ok, v23_json_nasty).

use super::script::Tongue;
use std::collections::BTreeMap;

/// Most elements of a range that are looked at (OpenPBS's own `max_array_size` is 10,000 unless set otherwise).
const ELEMENTS_LIMIT: usize = 100_000;

/// What `qstat -f` says of one thing: a job, a queue, a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    /// What stands after `Job Id: `, or the name of a node.
    pub(super) name: String,
    attributes: BTreeMap<String, String>,
}

impl Record {
    /// An attribute (`job_state`, `Resource_List.walltime`).
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.attributes.get(key).map(String::as_str)
    }
}

/// Splits the text of `qstat -f`, `qstat -Qf` or `qstat -Bf` into records. `heading` is `Job Id`, `Queue`, `Server`.
///
/// Lines are folded with a newline and a tab, also within a word; a value may hold newlines of its own, and what
/// follows them stands in the first column (capture qstat_f_nasty).
pub(crate) fn records(heading: &str, text: &str) -> Vec<Record> {
    split(text, |line| line.strip_prefix(heading)?.strip_prefix(": ").map(str::trim))
}

/// Splits the text of `pbsnodes -a` into records: a node's name stands alone, in the first column.
pub(super) fn nodes(text: &str) -> Vec<Record> {
    split(text, |line| {
        let name = line.trim_end();
        let is_name = !name.is_empty() && !name.starts_with([' ', '\t']) && !name.contains([' ', '=']);
        is_name.then_some(name)
    })
}

fn split<'a>(text: &'a str, name_in: impl Fn(&'a str) -> Option<&'a str>) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let mut last: Option<String> = None;
    for line in text.lines() {
        if let Some(name) = name_in(line) {
            records.push(Record { name: name.to_owned(), attributes: BTreeMap::new() });
            last = None;
            continue;
        }
        let Some(record) = records.last_mut() else { continue };
        if let Some(more) = line.strip_prefix('\t') {
            if let Some(value) = last.as_ref().and_then(|key| record.attributes.get_mut(key)) {
                value.push_str(more);
            }
        } else if let Some((key, value)) = line.strip_prefix("    ").and_then(|rest| rest.split_once(" = ")) {
            let key = key.trim_start().to_owned();
            // What a value with newlines pretends comes after what it pretends to be, mostly.
            record.attributes.entry(key.clone()).or_insert_with(|| value.to_owned());
            last = Some(key);
        }
    }
    records
}

/// Which job of an array, if any, an id means.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Which {
    /// A job that is no array: `12.server`.
    Single,
    /// The array as a whole: `12[].server`.
    Array,
    /// One element: `12[3].server`.
    Element(u32),
}

/// An id of PBS. The first one of a server is 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Id<'a> {
    /// The number.
    pub(super) number: u64,
    /// Which element.
    pub(super) which: Which,
    /// The server's name; empty where it is left out.
    pub(super) server: &'a str,
}

impl<'a> Id<'a> {
    /// Reads `0.server`, `12[].server`, `12[3].server`.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (head, server) = text.split_once('.').unwrap_or((text, ""));
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !server.chars().all(named) || text.ends_with('.') {
            return None;
        }
        let (number, which) = match head.split_once('[') {
            None => (head, Which::Single),
            Some((number, "]")) => (number, Which::Array),
            Some((number, index)) => (number, Which::Element(digits(index.strip_suffix(']')?)?.try_into().ok()?)),
        };
        Some(Self { number: digits(number)?, which, server })
    }
    /// As commands take it.
    pub(super) fn text(&self, which: Which) -> String {
        let index = match which {
            Which::Single => String::new(),
            Which::Array => "[]".to_owned(),
            Which::Element(index) => format!("[{index}]"),
        };
        let dot = if self.server.is_empty() { "" } else { "." };
        format!("{}{index}{dot}{}", self.number, self.server)
    }
    /// Whether two ids mean the same job: a server may be written in more than one way.
    pub(super) fn same(&self, other: &Id<'_>) -> bool {
        (self.number, self.which) == (other.number, other.which)
    }
}

fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Returns the id that `qsub` printed: the last line that is one, for sites wrap `qsub` in scripts that print banners.
/// A banner may have a number (`12.5`) or an address, so one with a server's name is preferred.
pub fn submitted_id(stdout: &str) -> Option<&str> {
    let mut ids: Vec<_> = ids(stdout).collect();
    ids.sort_by_key(|id| has_name(id));
    ids.pop()
}

/// Returns the ids that `qselect` printed, one a line: those with a server's name, or with this one.
pub(crate) fn selected_ids<'a>(stdout: &'a str, server: &str) -> Vec<&'a str> {
    ids(stdout).filter(|id| has_name(id) || Id::parse(id).is_some_and(|id| id.server == server)).collect()
}

fn ids(stdout: &str) -> impl Iterator<Item = &str> {
    stdout.lines().map(str::trim).filter(|line| {
        Id::parse(line).is_some_and(|id| !id.server.is_empty() && !matches!(id.which, Which::Element(_)))
    })
}

fn has_name(id: &str) -> bool {
    id.split_once('.').is_some_and(|(_, server)| server.starts_with(char::is_alphabetic))
}

/// Elements of `8-9`, `0-3,5`, `0-8:2`; none of `-`.
pub(super) fn elements(text: &str) -> Vec<u32> {
    let ranges = text.split(',').filter_map(|range| {
        let (range, step) = range.trim().split_once(':').unwrap_or((range.trim(), "1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let step: usize = step.parse().ok().filter(|step| *step > 0)?;
        Some((first.parse::<u32>().ok()?..=last.parse().ok()?).step_by(step))
    });
    ranges.flatten().take(ELEMENTS_LIMIT).collect()
}

/// Reads `[[hours:]minutes:]seconds`.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let parts = text.trim().split(':').map(|part| digits(part.split('.').next().unwrap_or_default()));
    parts.take(4).try_fold(0_u64, |total, part| total.checked_mul(60)?.checked_add(part?))
}

/// Reads `2gb`, `1048576kb`, `512mw`: bytes, or words of 8 bytes, with a factor of 1024.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (factor, word) = match unit.strip_suffix(['b', 'w']) {
        Some(factor) => (factor, if unit.ends_with('w') { 8 } else { 1 }),
        None => (unit, 1),
    };
    let shift = ["", "k", "m", "g", "t", "p"].iter().position(|known| *known == factor)? * 10;
    digits(number)?.checked_mul(1 << shift)?.checked_mul(word)
}

/// Which PBS it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Version {
    /// TORQUE, and not OpenPBS or PBS Professional.
    pub(super) torque: bool,
    /// As it says.
    pub(super) number: String,
}

impl Version {
    /// How it is asked.
    pub(super) fn tongue(&self) -> Tongue {
        if self.torque { Tongue::Torque } else { Tongue::Professional }
    }
}

/// Reads `qstat --version`: `pbs_version = 23.06.06` (capture qstat_version); TORQUE says `Version: 6.1.2`.
pub(crate) fn version(text: &str) -> Option<Version> {
    text.lines().find_map(|line| {
        let line = line.trim();
        let (torque, rest) = match (line.strip_prefix("pbs_version"), line.to_ascii_lowercase().starts_with("version:"))
        {
            (Some(rest), _) => (false, rest.trim_start().strip_prefix('=')?),
            (None, true) => (true, line.split_once(':')?.1),
            (None, false) => return None,
        };
        Some(Version { torque, number: rest.trim().to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// The number 0 is that of a server's first job (capture qsub_full).
    #[test]
    fn job_0_is_a_job() {
        assert_eq!(submitted_id("0.pbsvm\n"), Some("0.pbsvm"));
        let id = Id::parse("0.pbsvm").unwrap();
        assert_eq!((id.number, id.which, id.server), (0, Which::Single, "pbsvm"));
        assert_eq!(id.text(id.which), "0.pbsvm");
    }

    #[test]
    fn ids_of_arrays_have_brackets() {
        assert_eq!(submitted_id("22[].pbsvm\n"), Some("22[].pbsvm"));
        let id = Id::parse("22[].pbsvm.example.org").unwrap();
        assert_eq!(id.text(Which::Element(3)), "22[3].pbsvm.example.org");
        assert_eq!(Id::parse("22[3]").unwrap().text(Which::Array), "22[]");
        assert!(Id::parse("22[3].a").unwrap().same(&Id::parse("22[3].a.example.org").unwrap()));
        assert!(!Id::parse("22[3].a").unwrap().same(&Id::parse("22[4].a").unwrap()));
        for no in [
            "",
            "x",
            "12x",
            ".a",
            "12.",
            "12[.a",
            "12[x].a",
            "12[]x.a",
            "-1.a",
            "12 .a",
            "12.a b",
            "99999999999999999999.a",
        ] {
            assert_eq!(Id::parse(no), None, "{no}");
        }
    }

    #[test]
    fn banners_of_wrappers() {
        let banner = "Welcome to the Stampede3 Supercomputer\n10.0.0.1\n3\n--> 2 queues\n41.pbsvm\nbye 4.x\n9.9\n";
        assert_eq!(submitted_id(banner), Some("41.pbsvm"));
        assert_eq!(submitted_id("41\n"), None, "a number alone may be anything");
        assert_eq!(submitted_id("12.10-server\n"), Some("12.10-server"), "a server may be called so");
        let printed = "Hello\n1.5\n10.0.0.1\n58.pbsvm\n22[].pbsvm\n59.10-server\n";
        assert_eq!(selected_ids(printed, "pbsvm"), ["58.pbsvm", "22[].pbsvm"]);
        assert_eq!(selected_ids(printed, "10-server"), ["58.pbsvm", "22[].pbsvm", "59.10-server"]);
        assert!(selected_ids("1.5\n10.0.0.1\n", "pbsvm").is_empty(), "a banner alone");
    }

    #[test]
    fn lines_are_folded_and_values_hold_newlines() {
        let text = capture(include_bytes!("../../../tests/fixtures/pbs/qstat_f_nasty.out"));
        let records = records("Job Id", &text);
        assert_eq!(records.len(), 1);
        let job = &records[0];
        assert_eq!((job.name.as_str(), job.get("job_state")), ("60.pbsvm", Some("R")));
        assert_eq!(job.get("Submit_Host"), Some("pbsvm"), "it goes on after all that");
        let variables = job.get("Variable_List").unwrap();
        assert!(
            variables.starts_with("PBS_O_HOME=/home/hpcuser,PBS_O_LANG=C.UTF-8,PBS_O_LOGNAME=hpcuser,"),
            "{variables}"
        );
        let folded =
            "Job Id: 1.a\n    comment = Can Never Run: Insufficient amo\n\tunt of resource: ncpus\n    substate = 10\n";
        let comment = "Can Never Run: Insufficient amount of resource: ncpus";
        assert_eq!(super::records("Job Id", folded)[0].get("comment"), Some(comment));
        let unfolded = capture(include_bytes!("../../../tests/fixtures/pbs/qstat_f_w.out"));
        assert_eq!(super::records("Job Id", &unfolded)[0].get("Exit_status"), Some("3"));
    }

    /// Of several ids the JSON of OpenPBS's master has the first job only; the text has all.
    #[test]
    fn json_of_several_ids_on_some_builds() {
        let json = include_str!("../../../tests/fixtures/pbs/qstat_multi_x_json_ok.out");
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(json["Jobs"].as_object().unwrap().len(), 1, "three were asked for");
        let text = include_str!("../../../tests/fixtures/pbs/qstat_multi_f_unknown_mid.out");
        let names: Vec<_> = records("Job Id", text).into_iter().map(|record| record.name).collect();
        assert_eq!(names, ["24.pbsvm", "25.pbsvm"]);
    }

    #[test]
    fn a_pretended_line_is_not_believed() {
        let text = "Job Id: 1.a\n    job_state = R\n    Variable_List = X=1\n    job_state = F,Y=2\n    comment = c\n";
        let records = records("Job Id", text);
        assert_eq!((records[0].get("job_state"), records[0].get("comment")), (Some("R"), Some("c")));
    }

    #[test]
    fn nodes_of_a_site() {
        let text = "n1\n     Mom = n1.example.org\n     state = free\n     resources_available.ncpus = 16\n\nn2\n     state = down\n";
        let nodes = nodes(text);
        assert_eq!((nodes[0].name.as_str(), nodes[1].name.as_str()), ("n1", "n2"));
        assert_eq!(nodes[0].get("resources_available.ncpus"), Some("16"));
    }

    #[test]
    fn ranges_times_and_sizes() {
        assert_eq!(elements("8-9"), [8, 9]);
        assert_eq!(elements("0-3,5,7-11:2"), [0, 1, 2, 3, 5, 7, 9, 11]);
        assert!(elements("-").is_empty() && elements("").is_empty() && elements("1-2:0").is_empty());
        assert_eq!(elements("0-4294967295").len(), ELEMENTS_LIMIT);
        assert_eq!((seconds("25:01:01"), seconds("90"), seconds("1:00")), (Some(90_061), Some(90), Some(60)));
        assert_eq!((seconds("UNLIMITED"), seconds("")), (None, None));
        assert_eq!((bytes("1048576kb"), bytes("2gb"), bytes("100")), (Some(1 << 30), Some(2 << 30), Some(100)));
        assert_eq!(
            (bytes("1mw"), bytes("1xx"), bytes("kb"), bytes("99999999999999tb")),
            (Some(8 << 20), None, None, None)
        );
    }

    #[test]
    fn which_pbs_it_is() {
        let pbs = version("Welcome\npbs_version = 23.06.06\n").unwrap();
        assert_eq!((pbs.torque, pbs.number.as_str()), (false, "23.06.06"));
        let torque = version("Version: 6.1.2\nCommit: 661e092552de43a785c15d39a3634a541d86898e\n").unwrap();
        assert_eq!((torque.torque, torque.number.as_str()), (true, "6.1.2"));
        assert_eq!(version("SGE 8.1.9\n"), None);
    }
}
