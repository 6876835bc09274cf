//! Templates against real shells and against GNU parallel.

use super::*;
use proptest::prelude::*;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

fn template(source: &str) -> Template {
    Template::parse(source.into()).unwrap_or_else(|e| panic!("{source}: {e}"))
}

fn inputs(values: &[&str]) -> Vec<BString> {
    values.iter().map(|v| (*v).into()).collect()
}

fn words(source: &str, values: &[&str]) -> Vec<BString> {
    match template(source).render(&inputs(values), 7) {
        Rendered::Argv(words) => words,
        Rendered::Shell(line) => panic!("{source} went to the shell: {line}"),
    }
}

#[test]
fn plain_words_need_no_shell() {
    for (source, values, want) in [
        ("gzip", vec!["a b"], vec!["gzip", "a b"]),
        ("x --out={/.}.nc {}", vec!["d/a.b"], vec!["x", "--out=a.nc", "d/a.b"]),
        ("echo \"a  {}\" 'b {}'", vec!["$x"], vec!["echo", "a  $x", "b $x"]),
        ("echo {1} {2.} {#}", vec!["a", "b.c"], vec!["echo", "a", "b", "7"]),
        ("echo x{}y", vec!["a b", "c"], vec!["echo", "xa b", "cy"]),
        ("echo 'x{}y'", vec!["a b", "c"], vec!["echo", "xa b cy"]),
        ("echo a\\ b '' \"\" \\$ {}", vec!["c"], vec!["echo", "a b", "", "", "$", "c"]),
        ("awk '{print $1}' {}", vec!["f"], vec!["awk", "{print $1}", "f"]),
        ("dd if={} of=\"\\\"\\x\"", vec!["f"], vec!["dd", "if=f", "of=\"\\x"]),
        ("echo {3}", vec!["f"], vec!["echo", ""]),
        ("", vec!["echo 'a b' {}c"], vec![]),
        ("", vec!["echo 'a {}'"], vec!["echo", "a {}"]),
    ] {
        let rendered = template(source).render(&inputs(&values), 7);
        if want.is_empty() {
            assert!(matches!(rendered, Rendered::Shell(_)), "{source}");
        } else {
            assert_eq!(rendered, Rendered::Argv(inputs(&want)), "{source}");
        }
    }
}

#[test]
fn anything_else_needs_one() {
    for source in [
        "a {} | b",
        "a; {}",
        "a {} > b",
        "a $X {}",
        "a *.c {}",
        "cd {}",
        "exit",
        "X=1 a {}",
        "a ~/b {}",
        "a # {#}",
        "! a {}",
        "if a {}",
        "(a {})",
        "a {foo}",
        "a\nb",
        "a `b` {}",
        "{ a; }",
        "a \\\n {} > b",
    ] {
        assert!(template(source).needs_shell(), "{source}");
    }
    for source in ["a {}", "", "a 'x | y'", "a --b=c", "{} a", "a#b", "a !"] {
        assert!(!template(source).needs_shell(), "{source}");
    }
}

#[test]
fn refuses_what_it_cannot_do_safely() {
    for source in [
        "echo `ls {}`",
        "echo ${x:-{}}",
        "echo \"${x:-'{}'}\"",
        "echo ${1}",
        "echo $(( {} + 1 ))",
        "cat <<E\n{}\nE",
        "echo \\{}",
        "echo 'x",
        "echo \"x",
        "echo \\",
        "echo $(ls {}",
        "echo # {}",
        "echo $[ {} ]",
        "x[{}]=1",
        "echo \"$\\\n({})\"",
        "ca\\\nt {}",
        "echo #",
        "echo $'it\\'s {}'",
        "echo \"$(case x in x) echo {};; esac)\"",
        "(( {} > 1 ))",
        "echo {%}",
        "echo {0}",
        "echo {-1}",
    ] {
        assert!(Template::parse(source.into()).is_err(), "{source}");
    }
    assert_eq!(template("a {1} {12.} {#}").inputs_needed(), 12);
    assert_eq!(template("a $(( {#} % 4 ))").inputs_needed(), 0);
}

#[test]
fn values_stay_readable_and_never_become_grammar() {
    for (source, value, want) in [
        ("cat {} | wc", "a", "cat a | wc"),
        ("cat {} > {.}.out", "a.b", "cat a.b > a.out"),
        ("echo {}>o; :", "2", "echo '2'>o; :"),
        ("echo {}1>o; :", "2", "echo '2'1>o; :"),
        ("{}; :", "if", "'if'; :"),
        ("{}i; :", "f", "'f'i; :"),
        ("{}=1; :", "PATH", "'PATH'=1; :"),
        ("echo ~{}; :", "root", "echo ~'root'; :"),
        ("echo \"{}\" | cat", "a b", "echo \"a b\" | cat"),
        ("echo \"{}\" | cat", "$a", "echo \"\"'$a'\"\" | cat"),
        ("echo \"\\{}\" | cat", "$a", "echo \"\\\\\"'$a'\"\" | cat"),
        ("echo '{}' | cat", "it's", "echo 'it'\"'\"'s' | cat"),
    ] {
        let rendered = template(source).render(&inputs(&[value]), 1);
        assert_eq!(rendered, Rendered::Shell(want.into()), "{source}");
    }
}

/// Templates that print the value(s) of two sources, each followed by NUL.
const PRINTERS: &[&str] = &[
    "printf '%s\\0' {1} {2}",
    "printf '%s\\0' \"{1}\" '{2}'",
    "printf '%s\\0' \"\"{1} {2}''",
    "true; printf '%s\\0' {1} {2}",
    "true; printf '%s\\0' \"{1}\" '{2}'",
    "a={1}; b=\"{2}\"; printf '%s\\0' \"$a\" \"$b\" # it's",
    "x=\"$(printf %sX \"{1}\")\"; printf '%s\\0' \"${x%X}\" {2} | cat",
    "x=\"$( (printf %sX '{1}') )\"; printf '%s\\0' \"${x%X}\" \"{2}\"",
    "for i in {}; do printf '%s\\0' \"$i\"; done",
    "f() { printf '%s\\0' \"$@\"; }; f {1} {2}",
    "sh -c 'printf \"%s\\0\" \"$@\"' _ {}",
];

fn output(argv: &[BString]) -> Vec<u8> {
    let os = |word: &BString| std::ffi::OsStr::from_bytes(word).to_owned();
    let done = Command::new(os(&argv[0])).args(argv[1..].iter().map(os)).stderr(Stdio::inherit()).output().unwrap();
    done.stdout
}

fn assert_same_bytes(source: &str, values: &[BString; 2]) {
    let rendered = template(source).render(values, 1);
    let want = [&values[0][..], b"\0", &values[1][..], b"\0"].concat();
    assert_eq!(output(&rendered.clone().argv()).as_bstr(), want.as_bstr(), "{source}");
    // Many clusters have bash as /bin/sh.
    let shells = ["/bin/sh", "/bin/bash"].into_iter();
    for shell in shells.filter(|shell| std::path::Path::new(shell).exists()) {
        let pasted = vec![shell.into(), "-c".into(), rendered.display()];
        let got = output(&pasted);
        assert_eq!(got.as_bstr(), want.as_bstr(), "{shell}: {source}");
    }
}

#[test]
fn shell_sees_the_bytes_of_hostile_values() {
    let hostile: [&[u8]; 14] = [
        b"",
        b"a b",
        b"it's \"x\"",
        b"$(touch /tmp/no) `id` $HOME",
        b"a\nb\n",
        b"\\",
        b"\\'\\\"\\$",
        b"-n",
        b"*",
        b"~root",
        b"\xff\xfe'\x01",
        b"; exit 3 #",
        b"'\"'\"'$x",
        "h\u{e9}\u{2028}".as_bytes(),
    ];
    for source in PRINTERS {
        for pair in hostile.chunks(2) {
            assert_same_bytes(source, &[pair[0].into(), pair[1].into()]);
        }
    }
}

/// What templates are made of, mostly nonsense together.
const FRAGMENTS: &[&str] = &[
    "{}",
    "{}",
    "{1}",
    "{.}",
    "'",
    "\"",
    "\"",
    "$(",
    ")",
    "(",
    "echo ",
    "echo ",
    "\\",
    "`",
    "${x:-",
    "}",
    "#",
    " #",
    "\n",
    ";",
    "$",
    "<<E\n",
    "\nE\n",
    "((",
    "))",
    "$((",
    "case x in x) ",
    ";; esac",
    "$'",
    "|",
    " ",
    "a",
    "x=",
    "~",
    "&",
    "! ",
    "[ ",
    "[[ ",
    " ]]",
    "it's",
    "$\"",
    "if ",
    "then ",
    "fi",
    "{ ",
    "; }",
    "\\\n",
    "$[",
    " ]",
    "x[",
    "]=",
    "\\ ",
    "\t",
];

/// Values that make the file `F` when they are read as shell source in one place or another.
const ATTACKS: &[&str] = &[
    "$(>F)",
    "`>F`",
    "';>F;'",
    "\";>F;\"",
    "\n>F\n",
    ";>F;",
    ")\n>F\n(",
    "';>F;#",
    "\";>F;#",
    "\\';>F;#",
    "\\\";>F;#",
    "a[$(>F)]",
    "${x:=$(>F)}",
    "E\n>F\n",
    "}>F;",
    "|>F",
    "'\"$(>F)\"'",
    "\\$(>F)",
    "\\`>F\\`",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn shell_sees_the_bytes_of_any_value(
        a in "[ -~\n]{0,12}|[$`\"'\\\\ (){}#;\n]{0,8}",
        b in proptest::collection::vec(1_u8..=255, 0..10),
        which in 0..PRINTERS.len(),
    ) {
        assert_same_bytes(PRINTERS[which], &[a.into(), b.into()]);
    }

    /// Whatever the template, a value never runs anything.
    #[test]
    fn no_template_lets_a_value_act(
        parts in proptest::collection::vec(proptest::sample::select(FRAGMENTS), 1..9),
        value in proptest::sample::select(ATTACKS),
    ) {
        let source = parts.concat();
        // Without a template an input is a command by design.
        prop_assume!(!source.trim().is_empty());
        let Ok(template) = Template::parse(source.as_bytes().as_bstr()) else {
            return Ok(());
        };
        let folder = tempfile::tempdir().unwrap();
        let line = template.render(&inputs(&[value, value]), 1).display();
        for shell in ["/bin/sh", "/bin/bash"] {
            let _ = Command::new(shell)
                .arg("-c")
                .arg(std::ffi::OsStr::from_bytes(&line))
                .current_dir(&folder)
                .env("PATH", "")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            prop_assert!(!folder.path().join("F").exists(), "{shell}: {source:?} ran as {line}");
        }
    }

    #[test]
    fn parsing_never_panics(source in "[a{}.#/1 $`\"'\\\\()<>\n=c%-]{0,20}") {
        if let Ok(template) = Template::parse(source.as_bytes().as_bstr()) {
            template.render(&inputs(&["v"]), 1).display();
        }
    }
}

#[test]
fn agrees_with_gnu_parallel() {
    let templates = [
        "echo",
        "echo {}",
        "echo {.} {/} {//} {/.} {#}",
        "echo {1} {1.}",
        "cp {} out/{/.}.bak",
        "echo x{} | cat",
        "cat {} > {/.}.out",
        "echo {foo} {..}",
        "echo {} {}; true",
        "[ -f {} ] && echo {//}",
    ];
    let values =
        ["a", "a b", "x'y", "$z", "d/e.f/g.h.i", ".rc", "..", "/x", "d/", "//", "", "é", "a=b,c", "-n", "#c", "a\tb"];
    for source in templates {
        let run = Command::new("parallel")
            .args(["--will-cite", "--keep-order", "--dry-run", "-0", source])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut run) = run else {
            let _ = writeln!(std::io::stderr(), "skipped: GNU parallel is not installed");
            return;
        };
        let text = values.map(|v| format!("{v}\0")).concat();
        run.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let theirs = String::from_utf8(run.wait_with_output().unwrap().stdout).unwrap();
        let theirs: Vec<_> = theirs.lines().collect();
        assert_eq!(theirs.len(), values.len(), "{source}");
        for (i, (value, theirs)) in values.iter().zip(theirs).enumerate() {
            let ours = template(source).render(&inputs(&[value]), i as u64 + 1).display();
            // Same words to a shell; the quotes themselves may differ (`x'a'` and `xa`).
            let split = |line: &str| shlex::split(line).unwrap();
            assert_eq!(split(&ours.to_string()), split(theirs), "{source} with {value:?}");
        }
    }
}

#[test]
fn quoted_words_are_joined_by_spaces_first() {
    let joined = Template::from_words(&inputs(&["echo", "a  b", "{}"])).unwrap();
    assert_eq!(joined, template("echo a  b {}"));
    assert_eq!(words("echo a  b {}", &["x y"]), inputs(&["echo", "a", "b", "x y"]));
}
