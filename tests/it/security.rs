//! What others on the machine and on the network can see and reach: nothing.

use crate::harness::{BINARY, Bed, listening, processes_with, skipped};
use dcluster::cluster::Folder;
use dcluster::runtime::dial::dial;
use dcluster::runtime::transport::Role;
use nix::unistd::Uid;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything below a folder, links not followed.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_owned()];
    let mut at = 0;
    while at < all.len() {
        if all[at].symlink_metadata().is_ok_and(|found| found.is_dir()) {
            all.extend(fs::read_dir(&all[at]).unwrap().map(|entry| entry.unwrap().path()));
        }
        at += 1;
    }
    all
}

/// Where the server listens.
pub(crate) fn address(bed: &Bed) -> SocketAddr {
    let access: Value = serde_json::from_slice(&fs::read(bed.folder().join("access")).unwrap()).unwrap();
    access["addresses"][0].as_str().unwrap().parse().unwrap()
}

/// The lines of every private key in a folder, long ones only.
fn secrets(folder: &Path) -> Vec<String> {
    let mut secrets = Vec::new();
    for file in ["ca.key", "access", "worker"] {
        let text = fs::read_to_string(folder.join(file)).unwrap().replace("\\n", "\n");
        let key = text.split("-----BEGIN PRIVATE KEY-----").nth(1).expect(file);
        let key = key.split("-----END").next().unwrap();
        let lines: Vec<String> = key.lines().map(str::to_owned).filter(|line| line.len() > 20).collect();
        assert!(!lines.is_empty(), "{file}");
        // The first line says what kind of key it is: the same for all.
        secrets.extend(lines.into_iter().map(|line| line[line.len() - 20..].to_owned()));
    }
    secrets.sort();
    secrets.dedup();
    secrets
}

#[test]
fn secrets_stay_in_their_files() {
    let bed = Bed::up(&["-v"]);
    let folder = bed.folder();
    bed.submit(&[], "env; cat /proc/self/cmdline; echo > started; until [ -e go ]; do sleep 0.05; done");
    bed.run(&["submit", "--wait", "--", "false"]).expect(1);
    bed.appears("started");
    let secrets = secrets(&folder);
    let clean = |what: &str, bytes: &[u8]| {
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "a secret in {what}");
        }
    };
    let processes = processes_with(bed.root());
    assert!(processes.len() >= 4, "server, job, worker, task: {processes:?}");
    for pid in processes {
        for file in ["cmdline", "environ"] {
            clean(&format!("{file} of {pid}"), &fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default());
        }
    }
    for path in below(&folder) {
        let name = path.strip_prefix(&folder).unwrap().display().to_string();
        if path.is_file() && !["ca.key", "access", "worker"].contains(&name.as_str()) {
            clean(&name, &fs::read(&path).unwrap());
        }
    }
    for words in [
        &["up", "-v"][..],
        &["status", "-v"],
        &["status", "--json"],
        &["tasks", "--json"],
        &["events", "--json"],
        &["logs", "1"],
        &["logs", "job", "1"],
        &["config", "show"],
        &["render"],
        &["ls", "--json"],
        &["up", "--cores", "1"],
        &["wait", "99"],
    ] {
        let ran = bed.run(words);
        clean(&words.join(" "), &ran.out);
        clean(&words.join(" "), ran.err.as_bytes());
    }
    fs::write(bed.work.join("go"), "").unwrap();
    bed.run(&["wait"]).expect(1);
}

#[test]
fn files_are_private_whatever_the_umask() {
    let bed = Bed::new();
    let run = |words: &str| {
        let mut command = bed.program("sh");
        command.args(["-c", &format!("umask 000; exec \"$0\" {words}"), BINARY]);
        bed.start(command).end().expect(0)
    };
    run("up --wait 1");
    let ran = run("submit --wait -- sh -c 'umask; : > made; echo x >&2'");
    assert_eq!(ran.text(), "0000", "a task has the umask of its submitter");
    assert_eq!(bed.work.join("made").metadata().unwrap().mode() & 0o777, 0o666);
    run("map 'echo {}' ::: 1 2");
    assert!(bed.folder().join("sock").symlink_metadata().unwrap().file_type().is_socket());
    let check = |when: &str| {
        for path in below(&bed.state) {
            let mode = path.symlink_metadata().unwrap().mode() & 0o777;
            let right = if path.is_dir() || path.ends_with("script.sh") { 0o700 } else { 0o600 };
            assert_eq!(mode, right, "{when}: {} is {mode:o}", path.display());
        }
    };
    check("up");
    run("down");
    check("down");
    // What others could have changed is not read.
    bed.run(&["up"]).expect(0);
    let access = bed.folder().join("access");
    for mode in [0o644, 0o660] {
        fs::set_permissions(bed.folder().join("spec"), fs::Permissions::from_mode(mode)).unwrap();
        bed.run(&["status"]).expect(69).says("others could read or change it").says("chmod 600");
    }
    fs::set_permissions(bed.folder().join("spec"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(access.exists());
    fs::set_permissions(bed.folder(), fs::Permissions::from_mode(0o770)).unwrap();
    bed.run(&["submit", "--", "true"]).expect(69).says("can be written by, another user");
    fs::set_permissions(bed.folder(), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn one_port_on_the_loopback() {
    let bed = Bed::up(&[]);
    bed.submit(&[], "echo > started; sleep 1000");
    bed.appears("started");
    let ports = listening(&processes_with(bed.root()));
    assert_eq!(ports.len(), 1, "{ports:?}");
    assert!(ports[0].starts_with("tcp 0100007F:"), "{ports:?}");
    assert_eq!(address(&bed).ip().to_string(), "127.0.0.1");
    bed.run(&["down", "--now"]).expect(0);
    assert_eq!(listening(&processes_with(bed.root())), [] as [String; 0]);
    assert!(!bed.folder().join("sock").exists());
}

#[test]
fn another_user_reaches_nothing() {
    if !Uid::effective().is_root() {
        return skipped("needs root to become another user");
    }
    let bed = Bed::up(&[]);
    bed.run(&["submit", "--wait", "--", "echo", "private"]).expect(0);
    // The way to the folder is open to all; the folder is what must not be.
    for path in [bed.root(), &bed.work, &bed.root().join("home")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let binary = bed.root().join("dcluster");
    crate::programs::copy(Path::new(BINARY), &binary);
    let stranger = |program: &str, words: &[&str]| {
        let mut command = bed.program("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]).args(words);
        bed.start(command).end()
    };
    assert_eq!(stranger("id", &["-u"]).expect(0).text(), "65534");
    let folder = bed.folder().display().to_string();
    for words in [vec!["ls", &folder], vec!["cat", &folder]] {
        assert_ne!(stranger(words[0], &words[1..]).code, 0);
    }
    for words in [
        &["status"][..],
        &["submit", "--", "true"],
        &["down"],
        &["tasks"],
        &["logs", "1"],
        &["events"],
        &["up"],
        &["worker", "join"],
    ] {
        let ran = stranger(binary.to_str().unwrap(), words);
        assert_ne!(ran.code, 0, "{words:?}");
        assert!(!String::from_utf8_lossy(&ran.out).contains("private"), "{words:?}");
    }
    // Even where every folder on the way is open, the server asks who it is.
    fs::set_permissions(&bed.state, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(bed.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(bed.folder().join("sock"), fs::Permissions::from_mode(0o666)).unwrap();
    for file in ["access", "worker", "ca.key", "spec", "env.sh", "lease", "server.log", "id"] {
        assert_ne!(stranger("cat", &[&format!("{folder}/{file}")]).code, 0, "{file}");
    }
    let script = format!(
        "import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect('{folder}/sock'); s.sendall(b'x' * 100); print(s.recv(100))"
    );
    let ran = stranger("python3", &["-c", &script]);
    assert!(ran.code != 0 || ran.text() == "b''", "{ran:?}");
    fs::set_permissions(bed.folder().join("sock"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(bed.folder(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(bed.status()["tasks"]["finished"], 1);
}

/// Sends bytes and returns what comes back until the peer closes.
fn answer(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset is an end, too; a time-out is none.
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the connection stays open");
    }
    answer
}

#[tokio::test]
async fn strangers_on_the_port_get_nothing() {
    let bed = Bed::up(&[]);
    let address = address(&bed);
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        b"\0\0\0\x02\x91\xc0",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        &[0; 100_000],
        b"SSH-2.0-x\r\n",
    ] {
        let answer = answer(address, bytes);
        // At most a TLS alert: 21, version, length 2, level, description.
        assert!(answer.is_empty() || answer.len() <= 7 && answer[0] == 21, "{answer:?}");
    }
    // TLS, but without a certificate.
    let script = "import ssl, socket, sys\n\
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE\n\
        c.set_alpn_protocols(['dcluster/1'])\n\
        s = c.wrap_socket(socket.create_connection((sys.argv[1], int(sys.argv[2])), 5))\n\
        s.sendall(b'x' * 100); print(s.recv(100))\n";
    let mut command = bed.program("python3");
    command.args(["-c", script, &address.ip().to_string(), &address.port().to_string()]);
    let ran = bed.start(command).end();
    assert!(ran.code != 0 && ran.out.is_empty(), "{ran:?}");
    assert!(
        ran.err.to_lowercase().contains("certificate_required") || ran.err.contains("certificate required"),
        "{}",
        ran.err
    );

    // Certificates of another cluster.
    bed.run(&["up", "--name", "other", "--wait", "1"]).expect(0);
    let other = Folder::at(&bed.state.join("other"));
    for role in [Role::Client, Role::Worker] {
        let mut access = other.access(role).unwrap();
        access.addresses = vec![address];
        // It believes neither us...
        assert!(dial(&access, None).await.is_err());
        // ...nor do we believe it when it does.
        access.authority = Folder::at(&bed.folder()).access(role).unwrap().authority;
        access.id = Folder::at(&bed.folder()).access(role).unwrap().id;
        if let Ok((mut stream, _)) = dial(&access, None).await {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let _ = stream.write_all(&[0, 0, 0, 1, 0x90]).await;
            let mut bytes = [0; 100];
            let read = tokio::time::timeout(Duration::from_secs(8), stream.read(&mut bytes)).await.unwrap();
            assert!(matches!(read, Err(_) | Ok(0)), "{read:?}");
        }
    }
    bed.run(&["down", "--cluster", "other"]).expect(0);
    assert_eq!(bed.status()["workers"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_worker_certificate_is_no_client() {
    use dcluster::runtime::control::{ClientHello, ClientMessage, Request};
    use dcluster::runtime::protocol::PROTOCOL_VERSION;
    use dcluster::runtime::transport::Channel;
    let bed = Bed::up(&[]);
    let access = Folder::at(&bed.folder()).access(Role::Worker).unwrap();
    let (stream, _) = dial(&access, None).await.unwrap();
    let mut channel = Channel::new(stream, 1 << 20);
    let hello = ClientHello { protocol: PROTOCOL_VERSION, version: String::new() };
    let down = Request::Scale { jobs: 7 };
    let messages = [ClientMessage::Hello(hello), ClientMessage::Request { id: 1, request: Box::new(down) }];
    channel.send(&messages).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(8), channel.receive::<Value>()).await.unwrap();
    assert!(matches!(answer, Ok(None) | Err(_)), "{answer:?}");
    assert_eq!(bed.status()["scaling"]["jobs"], 1);
}

#[test]
fn a_task_sees_nothing_of_ours() {
    let mut bed = Bed::new();
    bed.set("DCLUSTER_LOG", "debug");
    bed.run(&["up", "--wait", "1"]).expect(0);
    // The fourth is the folder that `ls` reads.
    assert_eq!(bed.run(&["submit", "--wait", "--", "ls", "/proc/self/fd"]).expect(0).text(), "0\n1\n2\n3");
    let script = "env | grep ^DCLUSTER | cut -d= -f1 | sort; \
                  echo limit $(ulimit -c); echo group $(ps -o pgid= -p $$) $$; grep SigIgn /proc/self/status";
    let ran = bed.run(&["submit", "--wait", "--", "bash", "-c", script]).expect(0);
    let text = ran.text();
    let lines: Vec<&str> = text.lines().collect();
    let names: Vec<&str> = lines.iter().copied().filter(|line| line.starts_with("DCLUSTER")).collect();
    let of_tasks = ["CORES", "ID", "RUN", "TMPDIR"].map(|name| format!("DCLUSTER_TASK_{name}"));
    assert_eq!(names[..2], ["DCLUSTER_CLUSTER", "DCLUSTER_JOB"], "{text}");
    assert_eq!(names[2..], of_tasks, "{text}");
    let group: Vec<&str> = lines.iter().find(|line| line.starts_with("group")).unwrap().split_whitespace().collect();
    assert_eq!(group[1], group[2], "a group of its own");
    // But for 32 and 33, glibc's own, which its posix_spawn ignores in every child.
    let ignored = lines.iter().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & !(3 << 31), 0, "{text}");
    let own = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_CORE).unwrap().0;
    let expected = if own == u64::MAX { "unlimited".to_owned() } else { (own / 1024).to_string() };
    assert!(text.contains(&format!("limit {expected}")), "core limit of the user ({expected}): {text}");
}
