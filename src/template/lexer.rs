//! Reads a template as `/bin/sh` would: where words and quotes begin and end, and so how a value
//! must be written at each placeholder to stay one word. Called by [`super::Template`].
//!
//! Only what decides that is followed: quotes, backslashes, `$(…)`, comments. Places where no
//! quoting is right for every shell (backquotes, `${…}`, arithmetic, here-documents) are refused
//! for input values; the sequence number is digits and may stand anywhere. Where a construct
//! makes the rest ambiguous, the rest is such a place too: refusing is safe, guessing is not.

use super::TemplateError;
use super::placeholder::Placeholder;
use super::quote;

/// How a value is written at its place in shell source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Outside quotes; `plain`: the neighbours allow a harmless value to stand without quotes.
    Bare { plain: bool },
    /// Between single quotes.
    Single,
    /// Between double quotes.
    Double,
    /// Somewhere only digits may stand.
    Digits,
}

/// A stretch of shell source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Piece {
    /// Source text.
    Text(Vec<u8>),
    /// A value.
    Value(Placeholder, Place),
}

/// A stretch of a word, quotes removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum WordPiece {
    /// These bytes.
    Text(Vec<u8>),
    /// A value; `quoted`: several values stay in this one word.
    Value { what: Placeholder, quoted: bool },
}

/// What a template was found to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Lexed {
    /// The source in stretches.
    pub(super) pieces: Vec<Piece>,
    /// Its words when no shell is needed.
    pub(super) words: Option<Vec<Vec<WordPiece>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// Inside `$(…)`; the number of open `(` in it.
    Substitution(u32),
    /// Inside double quotes.
    Double,
}

struct Lexer<'a> {
    source: &'a [u8],
    at: usize,
    /// Where a word may begin: just after an unquoted separator.
    fresh_at: usize,
    with_placeholders: bool,
    frames: Vec<Frame>,
    pieces: Vec<Piece>,
    words: Vec<Vec<WordPiece>>,
    word: Option<Vec<WordPiece>>,
    shell: bool,
}

/// Reads `source`; without placeholders, braces are text.
pub(super) fn lex(source: &[u8], with_placeholders: bool) -> Result<Lexed, TemplateError> {
    let mut lexer = Lexer {
        source,
        at: 0,
        fresh_at: 0,
        with_placeholders,
        frames: Vec::new(),
        pieces: Vec::new(),
        words: Vec::new(),
        word: None,
        shell: false,
    };
    while lexer.at < source.len() {
        match lexer.frames.last() {
            Some(Frame::Double) => lexer.double()?,
            _ => lexer.bare()?,
        }
    }
    match lexer.frames.last() {
        Some(Frame::Double) => return Err(TemplateError::Unterminated("\"")),
        Some(Frame::Substitution(_)) => return Err(TemplateError::Unterminated("$(")),
        None => lexer.end_word(),
    }
    let shell = lexer.shell || lexer.words.first().is_none_or(|word| is_shells_own(word));
    Ok(Lexed { pieces: lexer.pieces, words: (!shell).then_some(lexer.words) })
}

fn is_shells_own(first: &[WordPiece]) -> bool {
    let mut name = Vec::new();
    for piece in first {
        match piece {
            WordPiece::Text(text) => name.extend_from_slice(text),
            WordPiece::Value { .. } => return false,
        }
    }
    quote::only_in_shell(&name)
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.source.get(self.at + ahead).copied()
    }

    fn placeholder(&self, ahead: usize) -> Result<Option<(Placeholder, usize)>, TemplateError> {
        if self.with_placeholders && self.peek(ahead) == Some(b'{') {
            Placeholder::read(&self.source[self.at + ahead..])
        } else {
            Ok(None)
        }
    }

    /// Copies `length` bytes of source.
    fn copy(&mut self, length: usize) {
        let text = &self.source[self.at..self.at + length];
        match self.pieces.last_mut() {
            Some(Piece::Text(last)) => last.extend_from_slice(text),
            _ => self.pieces.push(Piece::Text(text.to_vec())),
        }
        self.at += length;
    }

    fn word_text(&mut self, text: &[u8]) {
        let word = self.word.get_or_insert_default();
        match word.last_mut() {
            Some(WordPiece::Text(last)) => last.extend_from_slice(text),
            _ => word.push(WordPiece::Text(text.to_vec())),
        }
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn value(&mut self, what: Placeholder, length: usize, place: Place) {
        let place = match (what, place) {
            (Placeholder::Sequence, Place::Single | Place::Double) => Place::Digits,
            _ => place,
        };
        self.pieces.push(Piece::Value(what, place));
        let quoted = !matches!(place, Place::Bare { .. });
        let word = self.word.get_or_insert_default();
        word.push(WordPiece::Value { what, quoted });
        self.at += length;
    }

    /// Outside quotes.
    fn bare(&mut self) -> Result<(), TemplateError> {
        if let Some((what, length)) = self.placeholder(0)? {
            let place = Place::Bare { plain: self.neighbours_allow_plain(length) };
            self.value(what, length, place);
            return Ok(());
        }
        let byte = self.source[self.at];
        let word_start = self.at == self.fresh_at;
        match byte {
            b' ' | b'\t' => {
                self.end_word();
                self.copy(1);
                self.fresh_at = self.at;
            }
            b'\\' => return self.backslash(),
            b'\'' => return self.single(),
            b'"' => {
                self.word_text(b"");
                self.frames.push(Frame::Double);
                self.copy(1);
            }
            b'$' | b'`' => return self.expansion(),
            b'#' if word_start => {
                let line = &self.source[self.at..];
                let length = line.iter().position(|&b| b == b'\n').unwrap_or(line.len());
                return self.opaque(length, "in a comment");
            }
            b'<' if self.peek(1) == Some(b'<') => return self.rest("after `<<`"),
            b'(' if self.peek(1) == Some(b'(') => return self.rest("after `((`"),
            b'c' if word_start && !self.frames.is_empty() && self.is_case() => {
                return self.rest("after `case` inside `$(…)`");
            }
            b'(' | b')' => {
                self.shell = true;
                self.parenthesis(byte);
                self.copy(1);
                self.fresh_at = self.at;
            }
            b'[' if !word_start && self.is_array_element() => {
                return self.rest("in or after `x[…]=`");
            }
            _ => {
                self.shell |= b"|&;<>*?[~{}\n".contains(&byte) || (byte == b'=' && self.words.is_empty());
                self.word_text(&[byte]);
                self.copy(1);
                if b";|&<>\n".contains(&byte) {
                    self.fresh_at = self.at;
                }
            }
        }
        Ok(())
    }

    fn parenthesis(&mut self, byte: u8) {
        if let Some(Frame::Substitution(open)) = self.frames.last_mut() {
            match (byte, *open) {
                (b'(', _) => *open += 1,
                (_, 0) => {
                    self.frames.pop();
                }
                _ => *open -= 1,
            }
        }
    }

    fn is_case(&self) -> bool {
        let rest = &self.source[self.at..];
        rest.starts_with(b"case") && rest.get(4).is_none_or(u8::is_ascii_whitespace)
    }

    /// Whether bash would compute the index in brackets that begin here.
    fn is_array_element(&self) -> bool {
        let rest = &self.source[self.at..];
        rest.windows(2).any(|pair| pair == b"]=" || pair == b"]+")
    }

    /// Whether an unquoted harmless value cannot become anything else together with what stands
    /// beside it: a file descriptor (`{}>out`), an assignment (`{}=1`), a keyword (`{}i`), a home
    /// folder (`~{}`).
    fn neighbours_allow_plain(&self, length: usize) -> bool {
        let before = self.at.checked_sub(1).map(|at| self.source[at]);
        before.is_none_or(|b| b" \t\n/=:.,_-+(;|&<>".contains(&b))
            && self.peek(length).is_none_or(|b| b" \t\n;|&)./-_,:".contains(&b))
    }

    fn backslash(&mut self) -> Result<(), TemplateError> {
        if self.placeholder(1)?.is_some() {
            return Err(TemplateError::Place("after a backslash"));
        }
        match self.peek(1) {
            None => return Err(TemplateError::Unterminated("\\")),
            // The shell drops both before it sees what they part: between blanks that changes
            // nothing, elsewhere it can make `$(` or `<<`.
            Some(b'\n') if self.at == self.fresh_at && self.after_blank() => {
                self.copy(2);
                self.fresh_at = self.at;
            }
            Some(b'\n') => return self.rest("after a backslash at the end of a line"),
            Some(byte) => {
                self.word_text(&[byte]);
                self.copy(2);
            }
        }
        Ok(())
    }

    fn after_blank(&self) -> bool {
        let before = self.at.checked_sub(1).map(|at| self.source[at]);
        before.is_none_or(|b| b.is_ascii_whitespace())
    }

    fn single(&mut self) -> Result<(), TemplateError> {
        self.word_text(b"");
        self.copy(1);
        loop {
            if let Some((what, length)) = self.placeholder(0)? {
                self.value(what, length, Place::Single);
                continue;
            }
            match self.peek(0) {
                None => return Err(TemplateError::Unterminated("'")),
                Some(b'\'') => {
                    self.copy(1);
                    return Ok(());
                }
                Some(byte) => {
                    self.word_text(&[byte]);
                    self.copy(1);
                }
            }
        }
    }

    /// Inside double quotes.
    fn double(&mut self) -> Result<(), TemplateError> {
        if let Some((what, length)) = self.placeholder(0)? {
            self.value(what, length, Place::Double);
            return Ok(());
        }
        match self.source[self.at] {
            b'"' => {
                self.frames.pop();
                self.copy(1);
            }
            b'$' | b'`' => return self.expansion(),
            b'\\' => match self.peek(1) {
                None => return Err(TemplateError::Unterminated("\"")),
                Some(b'\n') => self.copy(2),
                Some(byte) if b"$`\"\\".contains(&byte) => {
                    self.word_text(&[byte]);
                    self.copy(2);
                }
                // A lone backslash is written twice: a quote may follow when a value is put in.
                Some(_) => {
                    self.word_text(b"\\");
                    self.copy(1);
                    self.pieces.push(Piece::Text(b"\\".to_vec()));
                }
            },
            byte => {
                self.word_text(&[byte]);
                self.copy(1);
            }
        }
        Ok(())
    }

    /// At `$` or a backquote.
    fn expansion(&mut self) -> Result<(), TemplateError> {
        self.shell = true;
        let in_double = self.frames.last() == Some(&Frame::Double);
        if self.placeholder(1)?.is_some() && self.peek(0) == Some(b'$') {
            return Err(TemplateError::Place("after `$`"));
        }
        let rest = &self.source[self.at..];
        if rest.starts_with(b"`") {
            let length = end_of_backquote(rest).ok_or(TemplateError::Unterminated("`"))?;
            return self.opaque(length, "between backquotes");
        }
        if rest.starts_with(b"$((") {
            return match end_of_arithmetic(rest) {
                Some(length) => self.opaque(length, "in `$((…))`"),
                None => self.rest("in or after `$((…))`"),
            };
        }
        if rest.starts_with(b"${") {
            return match end_of_brace(rest) {
                Some(length) => self.opaque(length, "in `${…}`"),
                None => self.rest("in or after `${…}`"),
            };
        }
        if rest.starts_with(b"$'") && !in_double {
            return self.rest("after `$'`");
        }
        if rest.starts_with(b"$[") {
            return self.rest("in or after `$[…]`");
        }
        if rest.starts_with(b"$\\\n") {
            return self.rest("after a backslash at the end of a line");
        }
        if rest.starts_with(b"$(") {
            self.frames.push(Frame::Substitution(0));
            self.copy(2);
            self.fresh_at = self.at;
            return Ok(());
        }
        self.copy(1);
        Ok(())
    }

    /// Copies everything that is left, a place for digits only.
    fn rest(&mut self, place: &'static str) -> Result<(), TemplateError> {
        self.frames.clear();
        self.opaque(self.source.len() - self.at, place)
    }

    /// Copies `length` bytes, a place for digits only.
    fn opaque(&mut self, length: usize, place: &'static str) -> Result<(), TemplateError> {
        self.shell = true;
        let end = self.at + length;
        while self.at < end {
            match self.placeholder(0)? {
                Some((Placeholder::Sequence, length)) => {
                    self.value(Placeholder::Sequence, length, Place::Digits);
                }
                Some(_) => return Err(TemplateError::Place(place)),
                None => self.copy(1),
            }
        }
        Ok(())
    }
}

fn end_of_backquote(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'\\' => at += 2,
            b'`' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// `None` also for anything with quotes or another expansion in it.
fn end_of_arithmetic(text: &[u8]) -> Option<usize> {
    let mut open = 0_u32;
    for (at, &byte) in text.iter().enumerate().skip(1) {
        match byte {
            b'(' if at > 2 && text[at - 1] == b'$' => return None,
            b'(' => open += 1,
            b')' if open == 1 => return Some(at + 1),
            b')' => open -= 1,
            b'\'' | b'"' | b'`' | b'\\' => return None,
            _ => {}
        }
    }
    None
}

/// `None` also for anything with quotes or more than `$name` in it.
fn end_of_brace(text: &[u8]) -> Option<usize> {
    for (at, &byte) in text.iter().enumerate().skip(2) {
        match byte {
            b'}' => return Some(at + 1),
            b'\'' | b'"' | b'`' | b'\\' | b'{' => return None,
            b'$' if text.get(at + 1).is_none_or(|next| !next.is_ascii_alphanumeric() && *next != b'_') => {
                return None;
            }
            _ => {}
        }
    }
    None
}
