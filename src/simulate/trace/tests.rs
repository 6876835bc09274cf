use super::*;
use proptest::prelude::*;
use std::io::Write;

const SWF: &str = "; Version: 2.2\n; Computer: a small one\n;  MaxNodes: 4\n; MaxProcs: 8\n; UnixStartTime: 845923442\n\
    ; Note: with: colons\n; no key here\n\n\
    1 0 10 100 4 -1 -1 8 200 -1 1 3 1 -1 1 -1 -1 -1\n\
    \t2  30 -1 50.5 -1 -1 -1 2 -1 -1 0 3 1 -1 1 -1 -1 -1 \r\n\
    3 20 5 -1 -1 -1 -1 -1 -1 -1 5 3 1 -1 1 -1 -1 -1\n\
    4 21 5 0 2 -1 -1 2 60 -1 5 3 1 -1 1 -1 -1 -1\n\
    5 22 5 7 2 -1 -1 2 60 -1 5 3 1 -1 1 -1 -1 -1\n\
    6 23 5 7 2 -1 -1 2 60 -1 3 3 1 -1 1 -1 -1 -1\n";

fn read(text: &str) -> Result<Log, InputError> {
    Log::from_bytes("dir/log.swf.gz", text)
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn swf_is_read_by_its_definition() {
    let log = read(SWF).unwrap();
    assert_eq!((log.format, log.name.as_str(), log.processors()), (Format::Swf, "log", 8));
    assert_eq!(log.says("UnixStartTime"), Some("845923442"));
    assert_eq!(log.says("Note"), Some("with: colons"));
    let job = |submit, wait, run, processors, requested| Logged { submit, wait, run, processors, requested };
    // Cancelled ones that never ran (3, 4) and pieces (6) are no jobs; 5 was cancelled while it ran.
    let want = [
        job(0.0, Some(10.0), Some(100.0), 4, Some(200.0)),
        job(22.0, Some(5.0), Some(7.0), 2, Some(60.0)),
        job(30.0, None, Some(50.5), 2, None),
    ];
    assert_eq!(log.jobs, want);
    assert_eq!(log.span(), 30.0);
}

#[test]
fn compressed_or_not_is_the_same() {
    assert_eq!(Log::from_bytes("log.swf", gzip(SWF)).unwrap(), Log::from_bytes("log.swf", SWF).unwrap());
    // Several members, as `cat a.gz b.gz` makes them.
    let (head, tail) = SWF.split_at(SWF.find("\n5 ").unwrap() + 1);
    let parts = [gzip(head), gzip(tail)].concat();
    assert_eq!(Log::from_bytes("log.swf", parts).unwrap(), Log::from_bytes("log.swf", SWF).unwrap());
    let cut = gzip(SWF);
    let error = Log::from_bytes("log.swf.gz", &cut[..cut.len() / 2]).unwrap_err();
    assert!(error.to_string().starts_with("log.swf.gz: cannot be read"), "{error}");
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let csv = "submit_s,wait_s,run_s,procs,requested_s\n0,1,2,3,4\n";
    for text in [SWF, csv, &format!("# MaxProcs: 4\n{csv}")] {
        let want = Log::from_bytes("log", text);
        let marked = format!("\u{feff}{text}");
        assert_eq!(Log::from_bytes("log", gzip(&marked)), want);
        assert_eq!(Log::from_bytes("log", marked), want);
    }
}

#[test]
fn csv_is_read_by_the_names_of_its_columns() {
    let text = "# MaxProcs: 100\n# Acknowledge: Lars: and others\n\nsubmit_s,user,wait_s,run_s,procs,requested_s\n\
        5,x,20,110,32,-1\n# in between\n\n0,\"y,z\",1,2,3,4\n";
    let log = read(text).unwrap();
    assert_eq!((log.format, log.processors()), (Format::Csv, 100));
    assert_eq!(log.says("acknowledge"), Some("Lars: and others"));
    assert_eq!(log.jobs[0].requested, Some(4.0));
    assert_eq!(
        log.jobs[1],
        Logged { submit: 5.0, wait: Some(20.0), run: Some(110.0), processors: 32, requested: None }
    );
}

#[test]
fn a_bad_line_is_named() {
    let header = "# MaxProcs: 4\nsubmit_s,wait_s,run_s,procs,requested_s\n";
    let csv = |rows: &str| format!("{header}{rows}");
    let swf = |line: &str| format!("; MaxProcs: 4\n\n{line}\n");
    for (text, place, words) in [
        (csv("0,1,2,3,4\n0,1,2,3\n"), "dir/log.swf.gz:4", "4 values under 5 columns"),
        (csv("0,1,2,3,4\n\n0,1,two,3,4\n"), "dir/log.swf.gz:5", "run_s: `two` is no number"),
        (csv("-1,1,2,3,4\n"), "dir/log.swf.gz:3", "time of submission is not known"),
        (csv("0,1,inf,3,4\n"), "dir/log.swf.gz:3", "`inf` is no number"),
        (csv("0,1,1,-1,4\n"), "dir/log.swf.gz:3", "number of processors is not known"),
        (csv("0,1,\"2,3,4\n0,1,2,3,4\n"), "dir/log.swf.gz:3", "a quote is not closed"),
        (csv(""), "dir/log.swf.gz", "no job"),
        ("# A: b\nsubmit,wait\n".to_owned(), "dir/log.swf.gz:2", "there is no column `submit_s`"),
        ("# A: b\n".to_owned(), "dir/log.swf.gz", "it is empty"),
        (String::new(), "dir/log.swf.gz", "no job"),
        (swf("1 2 3"), "dir/log.swf.gz:3", "3 fields where a job has 18"),
        (
            swf("1 0 10 x 4 -1 -1 8 200 -1 1 3 1 -1 1 -1 -1 -1"),
            "dir/log.swf.gz:3",
            "field 4, run time: `x` is no number",
        ),
        (swf("1 -1 10 9 4 -1 -1 8 200 -1 1 3 1 -1 1 -1 -1 -1"), "dir/log.swf.gz:3", "submit time"),
        ("\x7fELF\0\0\0".to_owned(), "dir/log.swf.gz:1", "1 field where"),
    ] {
        let error = read(&text).unwrap_err();
        assert_eq!(error.place(), place, "{error}");
        assert!(error.what.contains(words), "{error}");
        assert!(!error.fix.is_empty());
    }
    let error = Log::read(Path::new("/no/such/log")).unwrap_err();
    assert!(error.what.contains("No such file"), "{error}");
    let error = Log::read(Path::new("/")).unwrap_err();
    assert_eq!((error.what.as_str(), error.fix.as_str()), ("it is a folder", "give a file in it"));
}

#[test]
fn without_a_header_the_machine_is_as_large_as_what_ran_at_once() {
    let header = "submit_s,wait_s,run_s,procs,requested_s\n";
    let rows = "0,0,10,3,-1\n0,5,10,4,-1\n0,10,10,5,-1\n";
    assert_eq!(read(&format!("{header}{rows}")).unwrap().processors(), 9);
    assert_eq!(read(&format!("# MaxNodes: 20\n{header}{rows}")).unwrap().processors(), 20);
    assert_eq!(read(&format!("# MaxNodes: 2\n{header}{rows}")).unwrap().processors(), 9);
}

proptest! {
    /// Whatever stands in a file, there is a log or an error, and a log can be asked.
    #[test]
    fn no_file_brings_it_down(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        words in prop::collection::vec("[-]?[0-9]{1,3}(\\.[0-9])?|1e30[89]?|nan|;|#|,|\"|\n|[ ]", 0..80),
        head in prop::sample::select(vec!["", "submit_s,wait_s,run_s,procs,requested_s\n", "; MaxProcs: 0\n", "\x1f\u{8b}"]),
        between in prop::sample::select(vec![" ", ","]),
    ) {
        for text in [bytes, [head.as_bytes(), words.join(between).as_bytes()].concat()] {
            if let Ok(log) = Log::from_bytes("log", text) {
                prop_assert!(log.processors() >= 1 && !log.jobs.is_empty() && log.span() >= 0.0);
            }
        }
    }
}
