//! Quoting for `/bin/sh`, written as GNU parallel writes it.

/// Returns whether the shell reads these bytes as they stand, as one word.
pub(super) fn is_plain(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.+/".contains(b))
}

/// Appends a value as one shell word, in quotes only where they are needed.
pub fn quote_into(out: &mut Vec<u8>, value: &[u8]) {
    if is_plain(value) {
        out.extend_from_slice(value);
    } else {
        quote_always_into(out, value);
    }
}

/// Appends a value in single quotes; a single quote in it stands in double quotes.
pub(super) fn quote_always_into(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'\'');
    for &byte in value {
        if byte == b'\'' {
            out.extend_from_slice(b"'\"'\"'");
        } else {
            out.push(byte);
        }
    }
    out.push(b'\'');
}

/// Words the shell treats specially where a command may begin, though they need no quotes.
const RESERVED: &[&[u8]] = &[
    b"case",
    b"coproc",
    b"do",
    b"done",
    b"elif",
    b"else",
    b"esac",
    b"fi",
    b"for",
    b"function",
    b"if",
    b"in",
    b"select",
    b"then",
    b"time",
    b"until",
    b"while",
];

/// Returns whether a bare word would be grammar instead of a name.
pub(super) fn is_reserved(word: &[u8]) -> bool {
    RESERVED.contains(&word)
}

/// Builtins that no program of the same name can stand in for.
const BUILTINS: &[&[u8]] = &[
    b".",
    b":",
    b"alias",
    b"bg",
    b"break",
    b"builtin",
    b"cd",
    b"command",
    b"continue",
    b"declare",
    b"eval",
    b"exec",
    b"exit",
    b"export",
    b"fc",
    b"fg",
    b"getopts",
    b"hash",
    b"jobs",
    b"let",
    b"local",
    b"read",
    b"readonly",
    b"return",
    b"set",
    b"shift",
    b"shopt",
    b"source",
    b"times",
    b"trap",
    b"type",
    b"typeset",
    b"ulimit",
    b"umask",
    b"unalias",
    b"unset",
    b"wait",
];

/// Returns whether a command of this name exists only inside a shell.
pub(super) fn only_in_shell(name: &[u8]) -> bool {
    name == b"!" || is_reserved(name) || BUILTINS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_parallel_does() {
        for (value, quoted) in [
            ("a/b-c_d.e+f", "a/b-c_d.e+f"),
            ("", "''"),
            ("a b", "'a b'"),
            ("x'y", "'x'\"'\"'y'"),
            ("a=b", "'a=b'"),
            ("é", "'é'"),
        ] {
            let mut out = Vec::new();
            quote_into(&mut out, value.as_bytes());
            assert_eq!(out, quoted.as_bytes());
        }
    }
}
