//! Placeholders (`{}`, `{/.}`, `{2//}`, `{#}`) and what they make of an input value.

use super::TemplateError;
use bstr::BString;

/// What is taken of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// `{}`: all of it.
    Whole,
    /// `{.}`: without the last extension.
    NoExtension,
    /// `{/}`: the name without folders.
    Name,
    /// `{//}`: the folder.
    Folder,
    /// `{/.}`: the name without folders and extension.
    Stem,
}

/// One placeholder of a template.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Placeholder {
    /// `{#}`: the sequence number, from 1.
    Sequence,
    /// `{…}`: every input value, separated by spaces.
    All(Part),
    /// `{N…}`: the value of source `N`, from 1.
    One(usize, Part),
}

/// Largest number a positional placeholder may have: as many sources as anybody will name.
const POSITION_MAX: usize = 1000;

impl Placeholder {
    /// Reads a placeholder at the start of `text`; returns it with its length. `None`: these bytes
    /// stand for themselves.
    pub(super) fn read(text: &[u8]) -> Result<Option<(Self, usize)>, TemplateError> {
        let Some(rest) = text.strip_prefix(b"{") else {
            return Ok(None);
        };
        if rest.first() == Some(&b'=') && rest.windows(2).any(|pair| pair == b"=}") {
            return Err(TemplateError::Unsupported("{= perl =}".to_owned()));
        }
        let Some(end) = rest.iter().position(|&b| b == b'}') else {
            return Ok(None);
        };
        let inner = &rest[..end];
        let length = end + 2;
        if inner == b"#" {
            return Ok(Some((Self::Sequence, length)));
        }
        let digits = inner.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, part) = inner.split_at(digits);
        let unsupported = || TemplateError::Unsupported(format!("{{{}}}", inner.escape_ascii()));
        if inner == b"%" {
            return Err(unsupported());
        }
        if let Some(number) = inner.strip_prefix(b"-")
            && !number.is_empty()
            && number.iter().all(|b| b.is_ascii_digit() || b"./".contains(b))
            && number[0].is_ascii_digit()
        {
            return Err(unsupported());
        }
        let part = match part {
            b"" => Part::Whole,
            b"." => Part::NoExtension,
            b"/" => Part::Name,
            b"//" => Part::Folder,
            b"/." => Part::Stem,
            _ => return Ok(None),
        };
        if number.is_empty() {
            return Ok(Some((Self::All(part), length)));
        }
        let number =
            number.iter().fold(0_usize, |sum, digit| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
        if number == 0 || number > POSITION_MAX {
            return Err(unsupported());
        }
        Ok(Some((Self::One(number, part), length)))
    }

    /// Returns the values it stands for: several only for [`Placeholder::All`].
    pub(super) fn values(self, inputs: &[BString], sequence: u64) -> Vec<Vec<u8>> {
        match self {
            Self::Sequence => vec![sequence.to_string().into_bytes()],
            Self::All(part) => inputs.iter().map(|v| part.of(v).to_vec()).collect(),
            Self::One(number, part) => {
                vec![inputs.get(number - 1).map(|v| part.of(v).to_vec()).unwrap_or_default()]
            }
        }
    }
}

impl Part {
    /// Returns this part of a value.
    fn of(self, value: &[u8]) -> &[u8] {
        match self {
            Self::Whole => value,
            Self::NoExtension => without_extension(value),
            Self::Name => name(value),
            Self::Folder => folder(value),
            Self::Stem => without_extension(name(value)),
        }
    }
}

fn name(value: &[u8]) -> &[u8] {
    match value.iter().rposition(|&b| b == b'/') {
        Some(slash) => &value[slash + 1..],
        None => value,
    }
}

fn without_extension(value: &[u8]) -> &[u8] {
    match value.iter().rposition(|&b| b == b'.' || b == b'/') {
        Some(dot) if value[dot] == b'.' => &value[..dot],
        _ => value,
    }
}

/// Perl's `dirname`, which GNU parallel uses: `a/b` → `a`, `a/` → `.`, `/a` → `/`, `//` → `/`.
fn folder(value: &[u8]) -> &[u8] {
    let without_slashes = |path: &[u8]| {
        let kept = path.iter().rposition(|&b| b != b'/').unwrap_or(0);
        kept + 1
    };
    let up_to_name = |path: &[u8]| path.iter().rposition(|&b| b == b'/');
    let Some(slash) = up_to_name(value) else {
        return b".";
    };
    let head = &value[..without_slashes(&value[..=slash])];
    if slash + 1 < value.len() {
        return head;
    }
    match up_to_name(head) {
        Some(slash) => &head[..without_slashes(&head[..=slash])],
        None => b".",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_parallel() {
        // value, {.}, {/}, {//}, {/.}: printed by parallel 20221122
        for (value, no_extension, name, folder, stem) in [
            ("a/b.c/d.e.f", "a/b.c/d.e", "d.e.f", "a/b.c", "d.e"),
            ("a", "a", "a", ".", "a"),
            ("/x", "/x", "x", "/", "x"),
            (".", "", ".", ".", ""),
            ("..", ".", "..", ".", "."),
            (".bashrc", "", ".bashrc", ".", ""),
            ("a/.b", "a/", ".b", "a", ""),
            ("d/", "d/", "", ".", ""),
            ("//", "//", "", "/", ""),
            ("", "", "", ".", ""),
            ("a//b", "a//b", "b", "a", "b"),
            ("a/b/", "a/b/", "", "a", ""),
        ] {
            let got = [Part::NoExtension, Part::Name, Part::Folder, Part::Stem].map(|part| part.of(value.as_bytes()));
            let want = [no_extension, name, folder, stem].map(str::as_bytes);
            assert_eq!(got, want, "{value}");
        }
    }

    #[test]
    fn unknown_braces_stand_for_themselves() {
        for text in ["{foo}", "{", "{..}", "{+}", "{##}", "{1x}", "{=x", "{ }", "{print $1}"] {
            assert_eq!(Placeholder::read(text.as_bytes()), Ok(None), "{text}");
        }
        for text in ["{%}", "{0}", "{-1}", "{-1.}", "{1001}", "{= s/a/b/ =}"] {
            assert!(Placeholder::read(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(Placeholder::read(b"{12/.} x"), Ok(Some((Placeholder::One(12, Part::Stem), 6))));
    }
}
