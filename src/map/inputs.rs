//! The argument tail of `dcluster map`, as GNU parallel reads it: `CMD ::: a b ::: x y`,
//! `:::+` (linked), `:::: FILE` and nothing at all (lines of standard input).
//!
//! [`parse_tail`] says what is to be read, the caller reads it, [`split_records`] and [`combine`]
//! make the input values of each element. Pure.

use bstr::{BString, ByteSlice};

/// Elements one `map` may have.
pub const ELEMENTS_MAX: usize = 10_000_000;

/// Where the values of one source come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Given on the command line.
    Values(Vec<BString>),
    /// Records of a file.
    File(BString),
    /// Records of standard input.
    Stdin,
}

/// One source of input values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// Where they come from.
    pub origin: Origin,
    /// Whether its values go along with those of the source before (`:::+`), one by one.
    pub linked: bool,
}

/// A parsed argument tail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tail {
    /// Words of the template; empty: each input is a command.
    pub command: Vec<BString>,
    /// At least one source.
    pub sources: Vec<Source>,
}

/// Why input cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InputError {
    /// `:::+` with nothing to link to.
    #[error("`{0}` links to the source before it, and there is none")]
    LinkedFirst(&'static str),
    /// `::::` without a file.
    #[error("`{0}` names no file")]
    NoFile(&'static str),
    /// Two sources read standard input.
    #[error("standard input can be read by one source only")]
    StdinTwice,
    /// More elements than [`ELEMENTS_MAX`].
    #[error("the sources make more than {ELEMENTS_MAX} combinations")]
    TooMany,
    /// A byte no argument can hold.
    #[error("input {record} holds a NUL byte (with -0 it separates inputs)")]
    Nul {
        /// Which record, from 1.
        record: usize,
    },
}

#[derive(Clone, Copy)]
struct Separator {
    text: &'static str,
    files: bool,
    linked: bool,
}

const SEPARATORS: [Separator; 4] = [
    separator(":::", false, false),
    separator(":::+", false, true),
    separator("::::", true, false),
    separator("::::+", true, true),
];

const fn separator(text: &'static str, files: bool, linked: bool) -> Separator {
    Separator { text, files, linked }
}

/// Parses the words after the options of `map`.
pub fn parse_tail(words: &[BString]) -> Result<Tail, InputError> {
    let separator_at = |word: &BString| SEPARATORS.into_iter().find(|s| *word == s.text);
    let end = |words: &[BString]| {
        let found = words.iter().position(|w| separator_at(w).is_some());
        found.unwrap_or(words.len())
    };
    let (command, mut rest) = words.split_at(end(words));
    let mut sources = Vec::new();
    while let Some((separator, after)) = rest.split_first().and_then(|(word, after)| Some((separator_at(word)?, after)))
    {
        if separator.linked && sources.is_empty() {
            return Err(InputError::LinkedFirst(separator.text));
        }
        let (values, next) = after.split_at(end(after));
        rest = next;
        let linked = separator.linked;
        if !separator.files {
            sources.push(Source { origin: Origin::Values(values.to_vec()), linked });
        } else if values.is_empty() {
            return Err(InputError::NoFile(separator.text));
        }
        for file in values.iter().filter(|_| separator.files) {
            let origin = if file == "-" { Origin::Stdin } else { Origin::File(file.clone()) };
            sources.push(Source { origin, linked });
        }
    }
    if sources.is_empty() {
        sources.push(Source { origin: Origin::Stdin, linked: false });
    }
    let stdins = sources.iter().filter(|s| s.origin == Origin::Stdin);
    if stdins.count() > 1 {
        return Err(InputError::StdinTwice);
    }
    Ok(Tail { command: command.to_vec(), sources })
}

/// Splits what was read into values: lines, or with `nul` records that end with NUL. An empty
/// line is a value; the end of the last record may be missing.
pub fn split_records(text: &[u8], nul: bool) -> Result<Vec<BString>, InputError> {
    let end = if nul { b'\0' } else { b'\n' };
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let text = text.strip_suffix(&[end]).unwrap_or(text);
    let mut values = Vec::new();
    for record in text.split(|&b| b == end) {
        if values.len() == ELEMENTS_MAX {
            return Err(InputError::TooMany);
        }
        if record.contains(&0) {
            return Err(InputError::Nul { record: values.len() + 1 });
        }
        values.push(record.into());
    }
    Ok(values)
}

/// Makes the input values of each element: all combinations of the sources, the last varies
/// fastest; linked sources go together as far as the shortest reaches. `sources` holds `linked`
/// and the values of each source.
pub fn combine(sources: Vec<(bool, Vec<BString>)>) -> Result<Vec<Vec<BString>>, InputError> {
    // A group is a list of rows, one value per source in it.
    let mut groups: Vec<Vec<Vec<BString>>> = Vec::new();
    for (linked, values) in sources {
        match groups.last_mut() {
            Some(group) if linked => {
                group.truncate(values.len());
                for (row, value) in group.iter_mut().zip(values) {
                    row.push(value);
                }
            }
            _ => groups.push(values.into_iter().map(|v| vec![v]).collect()),
        }
    }
    let total = groups.iter().try_fold(1_usize, |total, group| total.checked_mul(group.len()));
    if total.is_none_or(|total| total > ELEMENTS_MAX) {
        return Err(InputError::TooMany);
    }
    let mut groups = groups.into_iter();
    let Some(mut elements) = groups.next() else {
        return Ok(Vec::new());
    };
    for group in groups {
        elements = elements.iter().flat_map(|left| group.iter().map(move |row| [&left[..], row].concat())).collect();
    }
    Ok(elements)
}

/// Returns a short name for a submission of this template: its words, at most 60 bytes, with
/// control characters replaced.
pub fn short_name(command: &[BString]) -> String {
    let joined = bstr::join(" ", command).to_str_lossy().into_owned();
    let clean = joined.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut name: String = clean.collect();
    if name.len() > 60 {
        name.truncate(name.floor_char_boundary(57));
        name.push('…');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<BString> {
        text.split_whitespace().map(BString::from).collect()
    }

    fn values(text: &str) -> Origin {
        Origin::Values(words(text))
    }

    #[test]
    fn tail_is_read_as_parallel_reads_it() {
        let tail = parse_tail(&words("cp -v {} ::: a b :::+ x y :::: f - ::::+ g :::")).unwrap();
        assert_eq!(tail.command, words("cp -v {}"));
        let want = [
            (values("a b"), false),
            (values("x y"), true),
            (Origin::File("f".into()), false),
            (Origin::Stdin, false),
            (Origin::File("g".into()), true),
            (values(""), false),
        ];
        let got: Vec<_> = tail.sources.into_iter().map(|s| (s.origin, s.linked)).collect();
        assert_eq!(got, want);
        let bare = parse_tail(&words("gzip")).unwrap();
        assert_eq!(bare.sources[0].origin, Origin::Stdin);
        for (text, error) in [
            ("a :::+ b", InputError::LinkedFirst(":::+")),
            ("a ::::", InputError::NoFile("::::")),
            ("a :::: - -", InputError::StdinTwice),
        ] {
            assert_eq!(parse_tail(&words(text)), Err(error));
        }
    }

    #[test]
    fn records() {
        let split = |text: &str, nul| split_records(text.as_bytes(), nul);
        assert_eq!(split("", false), Ok(vec![]));
        assert_eq!(split("a\n\nb", false), Ok(vec!["a".into(), "".into(), "b".into()]));
        assert_eq!(split("a\nb\n", false), Ok(words("a b")));
        assert_eq!(split("a\nb\0c\0", true), Ok(vec!["a\nb".into(), "c".into()]));
        assert_eq!(split("a\nb\0\n", false), Err(InputError::Nul { record: 2 }));
    }

    #[test]
    fn one_empty_line_is_one_value() {
        assert_eq!(split_records(b"\n", false), Ok(vec!["".into()]));
        assert_eq!(split_records(b"\0\0", true), Ok(vec!["".into(), "".into()]));
    }

    #[test]
    fn combinations() {
        let lines = |sources: &[(bool, &str)]| {
            let sources = sources.iter().map(|(linked, v)| (*linked, words(v)));
            let elements = combine(sources.collect()).unwrap();
            let lines = elements.iter().map(|row| BString::from(bstr::join(" ", row)).to_string());
            lines.collect::<Vec<_>>()
        };
        let all = lines(&[(false, "a b"), (true, "c d"), (false, "e f")]);
        assert_eq!(all, ["a c e", "a c f", "b d e", "b d f"]);
        assert_eq!(lines(&[(false, "a b c"), (true, "x y")]), ["a x", "b y"]);
        assert!(lines(&[(false, "a"), (false, "")]).is_empty());
        let many = vec![BString::from("x"); 4000];
        let sources = vec![(false, many.clone()), (false, many)];
        assert_eq!(combine(sources), Err(InputError::TooMany));
    }

    #[test]
    fn names_are_short_and_clean() {
        assert_eq!(short_name(&words("gzip {}")), "gzip {}");
        assert_eq!(short_name(&["a\nb\x1b".into()]), "a b ");
        assert_eq!(short_name(&["é".repeat(90).into()]).len(), 59);
    }
}
