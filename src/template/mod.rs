//! GNU parallel's command templates, over bytes: `gzip {}`, `convert {} {/.}.png`, `a {1} {2}`.
//!
//! The command line checks and shows them, the worker renders them. A template is shell source.
//! When it holds nothing but words and quotes it is rendered to an argument vector and no shell
//! runs; otherwise every value is quoted for its place, so that the shell sees exactly the bytes
//! of the input as (part of) one word, never as source. Pure.

mod lexer;
mod placeholder;
mod quote;
#[cfg(test)]
mod tests;

use bstr::{BStr, BString, ByteSlice};
use lexer::{Lexed, Piece, Place, WordPiece};
use placeholder::Placeholder;
pub use quote::quote_into;

/// Why a template cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TemplateError {
    /// A placeholder of GNU parallel that has no meaning here.
    #[error("placeholder {0} is not supported")]
    Unsupported(String),
    /// A quote or bracket without its end.
    #[error("{0} is never closed")]
    Unterminated(&'static str),
    /// A placeholder where no quoting is safe in every shell.
    #[error("placeholder {0}: a value there would be read as shell source")]
    Place(&'static str),
}

impl TemplateError {
    /// Returns what to write instead.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Unsupported(_) => "use {} {.} {/} {//} {/.} {#} or {1} {2} …",
            Self::Unterminated(_) => "close it, or put a backslash before it",
            Self::Place(_) => "set a variable first: 'x={}; echo $((x + 1))'",
        }
    }
}

/// A parsed template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    /// `None`: there is no template, each input is a command itself.
    lexed: Option<Lexed>,
}

impl Template {
    /// Parses shell source with placeholders; ` {}` is added when there is none. An empty template
    /// takes each input as a whole command, as GNU parallel does.
    pub fn parse(source: &BStr) -> Result<Self, TemplateError> {
        if source.trim_ascii().is_empty() {
            return Ok(Self { lexed: None });
        }
        let mut lexed = lexer::lex(source, true)?;
        let has_value = |piece: &Piece| matches!(piece, Piece::Value(..));
        if !lexed.pieces.iter().any(has_value) {
            lexed = lexer::lex(&[source.as_bytes(), b" {}"].concat(), true)?;
        }
        Ok(Self { lexed: Some(lexed) })
    }

    /// Parses words of a command line, joined by spaces as GNU parallel joins them.
    pub fn from_words(words: &[BString]) -> Result<Self, TemplateError> {
        Self::parse(bstr::join(" ", words).as_bstr())
    }

    /// Returns how many bytes a rendering has at most, but for quoting, which can make five of one.
    pub fn rendered_bytes_max(&self, inputs: &[BString]) -> usize {
        let all = inputs.iter().map(|input| input.len() + 1).sum();
        let Some(lexed) = &self.lexed else { return all };
        let pieces = lexed.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.len(),
            Piece::Value(Placeholder::One(number, _), _) => {
                number.checked_sub(1).and_then(|at| inputs.get(at)).map_or(0, |input| input.len())
            }
            // The sequence number is no longer than this.
            Piece::Value(..) => all.max(20),
        });
        pieces.sum()
    }

    /// Returns whether every rendering runs in a shell.
    pub fn needs_shell(&self) -> bool {
        self.lexed.as_ref().is_some_and(|l| l.words.is_none())
    }

    /// Returns the highest positional placeholder: that many sources of input must be there.
    pub fn inputs_needed(&self) -> usize {
        let pieces = self.lexed.iter().flat_map(|lexed| &lexed.pieces);
        pieces
            .map(|piece| match piece {
                Piece::Value(Placeholder::One(number, _), _) => *number,
                _ => 0,
            })
            .max()
            .unwrap_or(0)
    }

    /// Puts the values in. `sequence` counts from 1. A position without a value is empty.
    pub fn render(&self, inputs: &[BString], sequence: u64) -> Rendered {
        match &self.lexed {
            None => as_command(&bstr::join(" ", inputs)),
            Some(Lexed { words: Some(words), .. }) => {
                Rendered::Argv(words.iter().flat_map(|word| render_word(word, inputs, sequence)).collect())
            }
            Some(Lexed { pieces, .. }) => {
                let mut line = Vec::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => line.extend_from_slice(text),
                        Piece::Value(what, place) => {
                            write_value(&mut line, &what.values(inputs, sequence), *place);
                        }
                    }
                }
                Rendered::Shell(line.into())
            }
        }
    }
}

/// An input that is a command itself.
fn as_command(source: &[u8]) -> Rendered {
    let words = lexer::lex(source, false).ok().and_then(|lexed| lexed.words);
    match words {
        Some(words) => Rendered::Argv(words.iter().flat_map(|word| render_word(word, &[], 0)).collect()),
        None => Rendered::Shell(source.into()),
    }
}

/// One word, or more where an unquoted `{}` stands for several values.
fn render_word(word: &[WordPiece], inputs: &[BString], sequence: u64) -> Vec<BString> {
    let mut done = Vec::new();
    let mut now = Vec::new();
    for piece in word {
        match piece {
            WordPiece::Text(text) => now.extend_from_slice(text),
            WordPiece::Value { what, quoted } => {
                for (i, value) in what.values(inputs, sequence).iter().enumerate() {
                    match (i, quoted) {
                        (0, _) => {}
                        (_, true) => now.push(b' '),
                        (_, false) => done.push(std::mem::take(&mut now).into()),
                    }
                    now.extend_from_slice(value);
                }
            }
        }
    }
    done.push(now.into());
    done
}

fn write_value(line: &mut Vec<u8>, values: &[Vec<u8>], place: Place) {
    match place {
        Place::Digits => values.iter().for_each(|v| line.extend_from_slice(v)),
        Place::Bare { plain } => {
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    line.push(b' ');
                }
                if plain && !quote::is_reserved(value) {
                    quote_into(line, value);
                } else {
                    quote::quote_always_into(line, value);
                }
            }
        }
        Place::Single => {
            let text = bstr::join(" ", values);
            line.extend_from_slice(&text.replace(b"'", b"'\"'\"'"));
        }
        Place::Double => {
            let text = bstr::join(" ", values);
            if text.iter().any(|b| b"$`\"\\".contains(b)) {
                line.push(b'"');
                quote::quote_always_into(line, &text);
                line.push(b'"');
            } else {
                line.extend_from_slice(&text);
            }
        }
    }
}

/// What runs for one element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rendered {
    /// A program and its arguments, without a shell.
    Argv(Vec<BString>),
    /// A line for `/bin/sh -c`.
    Shell(BString),
}

impl Rendered {
    /// Returns the words to execute.
    pub fn argv(self) -> Vec<BString> {
        match self {
            Self::Argv(words) => words,
            Self::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line],
        }
    }

    /// Returns a line that does the same when pasted into a shell.
    pub fn display(&self) -> BString {
        match self {
            Self::Shell(line) => line.clone(),
            Self::Argv(words) => {
                let mut line = Vec::new();
                for (i, word) in words.iter().enumerate() {
                    if i > 0 {
                        line.push(b' ');
                    }
                    quote_into(&mut line, word);
                }
                line.into()
            }
        }
    }
}
