//! Who means harm to a server: a thousand sockets at once, and peers with a good certificate and bad manners.

use crate::harness::{Bed, until};
use crate::peers::{Speaker, hello};
use crate::security::address;
use dcluster::cluster::Folder;
use dcluster::runtime::control::{ClientHello, ClientMessage, Request};
use dcluster::runtime::dial::dial;
use dcluster::runtime::protocol::{PROTOCOL_VERSION, ServerMessage, WorkerMessage};
use dcluster::runtime::transport::{Channel, Role};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// The head of a TLS record with a ClientHello of 512 bytes, and its first bytes.
const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefghijklmnop";

/// Ways to be a nuisance.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Manner {
    /// Connects and says nothing.
    Silent,
    /// Begins a handshake.
    Half,
    /// Sends bytes that are no TLS.
    Garbage,
    /// Begins a handshake, a byte at a time.
    Drip,
    /// Speaks TLS and has no certificate.
    Nameless,
    /// Has a client's certificate, and announces a frame of 4 GiB instead of a hello.
    Huge,
    /// Has a client's certificate, says hello, asks on and on and reads nothing.
    Deaf,
}

/// A thousand of them: what a manner does, and how many do it.
const CROWD: [(Manner, usize); 7] = [
    (Manner::Silent, 350),
    (Manner::Half, 200),
    (Manner::Garbage, 150),
    (Manner::Drip, 150),
    (Manner::Nameless, 80),
    (Manner::Huge, 60),
    (Manner::Deaf, 10),
];

/// Attacks on one server until it is dropped.
struct Attack {
    over: Arc<AtomicBool>,
    /// Connections made so far, and those of each manner that the server closed.
    made: Arc<AtomicUsize>,
    closed: Arc<[AtomicUsize; CROWD.len()]>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Attack {
    fn begin(address: SocketAddr, folder: PathBuf) -> Self {
        let mut attack = Self { over: Arc::default(), made: Arc::default(), closed: Arc::default(), thread: None };
        let (over, made, closed) = (Arc::clone(&attack.over), Arc::clone(&attack.made), Arc::clone(&attack.closed));
        attack.thread = Some(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for (kind, (manner, count)) in CROWD.into_iter().enumerate() {
                    for _ in 0..count {
                        let (made, closed, folder) = (Arc::clone(&made), Arc::clone(&closed), folder.clone());
                        tokio::spawn(async move {
                            // Whoever is thrown out comes back.
                            loop {
                                made.fetch_add(1, Ordering::Relaxed);
                                // How it ends does not matter.
                                let _ = bother(manner, address, &folder).await;
                                closed[kind].fetch_add(1, Ordering::Relaxed);
                                sleep(Duration::from_millis(500)).await;
                            }
                        });
                    }
                }
                while !over.load(Ordering::SeqCst) {
                    sleep(Duration::from_millis(10)).await;
                }
            });
        }));
        attack
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = self.thread.take().unwrap().join();
    }
}

/// One connection, until the server ends it.
async fn bother(manner: Manner, address: SocketAddr, folder: &Path) -> std::io::Result<()> {
    let access = Folder::at(folder).access(Role::Client).unwrap();
    match manner {
        Manner::Silent | Manner::Half | Manner::Garbage => {
            let mut stream = TcpStream::connect(address).await?;
            match manner {
                Manner::Half => stream.write_all(HALF_A_HELLO).await?,
                Manner::Garbage => stream.write_all(&[0xa5; 3000]).await?,
                _ => {}
            }
            stream.read_to_end(&mut Vec::new()).await?;
        }
        Manner::Drip => {
            let mut stream = TcpStream::connect(address).await?;
            for byte in HALF_A_HELLO.iter().cycle() {
                stream.write_all(&[*byte]).await?;
                if timeout(Duration::from_millis(100), stream.read(&mut [0; 16])).await.is_ok() {
                    break;
                }
            }
        }
        Manner::Nameless => {
            use rustls::pki_types::pem::PemObject;
            let mut roots = rustls::RootCertStore::empty();
            let authority = rustls::pki_types::CertificateDer::from_pem_slice(access.authority.as_bytes()).unwrap();
            roots.add(authority).unwrap();
            let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = dcluster::runtime::transport::server_name(&access.id).unwrap();
            let stream = TcpStream::connect(address).await?;
            let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
            stream.read_to_end(&mut Vec::new()).await?;
        }
        Manner::Huge => {
            let (mut stream, _) = dial(&access, None).await?;
            stream.write_all(&[0xff; 4]).await?;
            stream.read_to_end(&mut Vec::new()).await?;
        }
        Manner::Deaf => {
            let (stream, _) = dial(&access, None).await?;
            let mut channel = Channel::new(stream, 1 << 20);
            let hello = ClientHello { protocol: PROTOCOL_VERSION, version: String::new() };
            channel.send(&[ClientMessage::Hello(hello)]).await?;
            for id in 0.. {
                channel.send(&[ClientMessage::Request { id, request: Box::new(Request::Status) }]).await?;
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
    Ok(())
}

/// Resident memory of a process in kB.
fn memory(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn more_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// How long a worker takes from its start to its first task's end.
fn join(bed: &Bed) -> Duration {
    let before = bed.tasks("finished");
    bed.submit(&[], "true");
    let begun = Instant::now();
    let worker = bed.spawn(&["worker", "join", "--cores", "1"]);
    until("a worker is let in", || (bed.tasks("finished") == before + 1).then_some(()));
    let took = begun.elapsed();
    worker.signal(nix::sys::signal::Signal::SIGINT);
    worker.end();
    took
}

#[test]
fn hostile_sockets_keep_nobody_out() {
    more_descriptors();
    let bed = Bed::new();
    bed.run(&["up", "--jobs", "0"]).expect(0);
    // How fast it goes on this machine, busy as it may be, when nobody attacks.
    let calm = join(&bed);
    let server = bed.server();
    let before = memory(server);
    let attack = Attack::begin(address(&bed), bed.folder());
    until("all have come", || (attack.made.load(Ordering::Relaxed) >= 1000).then_some(()));
    let peak = Arc::new(AtomicU64::new(0));
    let over = Arc::clone(&attack.over);
    let watched = Arc::clone(&peak);
    let watch = std::thread::spawn(move || {
        while !over.load(Ordering::SeqCst) {
            watched.fetch_max(memory(server), Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    // The quickest of some: a busy machine may hold up one of them, and who is turned away once comes back.
    let quickest = |what: &str, attempt: &dyn Fn() -> Duration| {
        let took = (0..4).map(|_| attempt()).min().unwrap();
        assert!(took < calm + Duration::from_secs(2), "{what} took {took:?}, and a worker {calm:?} before the attack");
    };
    quickest("a worker", &|| join(&bed));
    quickest("status", &|| {
        let begun = Instant::now();
        bed.run(&["status"]).expect(0);
        begun.elapsed()
    });
    // Every kind had its turn, but for those who may stay.
    for (kind, (manner, _)) in CROWD.into_iter().enumerate().filter(|(_, (manner, _))| *manner != Manner::Deaf) {
        until(&format!("{manner:?} was thrown out"), || {
            (attack.closed[kind].load(Ordering::Relaxed) > 0).then_some(())
        });
    }
    let made = attack.made.load(Ordering::Relaxed);
    drop(attack);
    watch.join().unwrap();
    let peak = peak.load(Ordering::Relaxed);
    assert!(peak < before + 20_000, "{before} kB, at most {peak} kB during {made} connections");
    assert_eq!(bed.server(), server, "it is the same server");
}

#[tokio::test]
async fn a_node_full_of_workers_is_let_in_at_once() {
    more_descriptors();
    let bed = Bed::new();
    bed.run(&["up", "--jobs", "0"]).expect(0);
    let join = async |number: usize| {
        // One attempt each: who were turned away would not come back.
        let mut worker = Speaker::connect(&bed.folder(), Role::Worker).await;
        worker.say(WorkerMessage::Hello(hello(&format!("node-{number}")))).await;
        assert!(matches!(worker.hear().await.as_deref(), Some([ServerMessage::Welcome(_), ..])), "{number}");
        worker
    };
    let workers = futures_util::future::join_all((0..128).map(join)).await;
    assert_eq!(bed.status()["workers"].as_array().unwrap().len(), 128);
    drop(workers);
}

#[test]
fn tasks_get_the_users_limit_of_descriptors_back() {
    let bed = Bed::new();
    let mut command = bed.program("sh");
    command.args(["-c", "ulimit -S -n 345; exec \"$0\" up --wait 1", crate::harness::BINARY]);
    bed.start(command).end().expect(0);
    let limits = fs::read_to_string(format!("/proc/{}/limits", bed.server())).unwrap();
    let files: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert!(files[3] == files[4] && files[3] != "345", "the server takes what it may: {files:?}");
    assert_eq!(bed.run(&["submit", "--wait", "--", "sh", "-c", "ulimit -n"]).expect(0).text(), "345");
}
