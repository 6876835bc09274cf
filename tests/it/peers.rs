//! Peers that are not what they should be: of another version, with another certificate, heard before, gone
//! without a word, or with a clock of their own. [`Speaker`] says what a worker or client says, by hand.

use crate::harness::{Bed, skipped, until};
use crate::security::address;
use dcluster::cluster::Folder;
use dcluster::runtime::control::{ClientHello, ClientMessage, ClientReply, ErrorKind, Reply};
use dcluster::runtime::dial::dial;
use dcluster::runtime::protocol::{Capacity, PROTOCOL_VERSION, ServerMessage, WorkerHello, WorkerMessage};
use dcluster::runtime::transport::{Authority, Channel, Credential, FRAME_BYTES_MAX, Role, server_config};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream as AsyncStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

/// A connection with a certificate of the cluster.
pub(crate) struct Speaker(pub(crate) Channel<tokio_rustls::client::TlsStream<AsyncStream>>);

impl Speaker {
    /// Connects with the certificate of a role.
    pub(crate) async fn connect(folder: &Path, role: Role) -> Self {
        let access = Folder::at(folder).access(role).unwrap();
        let (stream, _) = dial(&access, None).await.expect("the server answers");
        Self(Channel::new(stream, 60 << 20))
    }

    /// Says something, as a worker.
    pub(crate) async fn say(&mut self, message: WorkerMessage) {
        self.0.send(&[message]).await.unwrap();
    }

    /// Hears the next frame of a server; `None` when it hangs up.
    pub(crate) async fn hear(&mut self) -> Option<Vec<ServerMessage>> {
        timeout(SOON, self.0.receive()).await.expect("an answer").ok().flatten()
    }

    /// The first answer to a client's hello.
    async fn hear_reply(&mut self) -> Option<ClientReply> {
        let answer = timeout(SOON, self.0.receive::<ClientReply>()).await.expect("an answer");
        answer.ok().flatten().map(|mut replies| replies.remove(0))
    }
}

pub(crate) fn hello(nonce: &str) -> WorkerHello {
    WorkerHello {
        protocol: PROTOCOL_VERSION,
        version: "0.0.0".to_owned(),
        job: None,
        nonce: nonce.to_owned(),
        hellos: 1,
        id: None,
        epoch: 0,
        recorded: 0,
        node: "pretender".to_owned(),
        pid: 1,
        capacity: Capacity { cores: 1, memory_bytes: 1 << 30, gpus: 0, numa: Vec::new() },
        seconds_left: None,
        running: Vec::new(),
        draining: false,
    }
}

fn workers(bed: &Bed) -> Vec<Value> {
    bed.status()["workers"].as_array().unwrap().clone()
}

fn empty() -> Bed {
    let bed = Bed::new();
    bed.run(&["up", "--jobs", "0"]).expect(0);
    bed
}

#[tokio::test]
async fn an_old_worker_and_an_old_client_are_refused() {
    let bed = empty();
    let mut worker = Speaker::connect(&bed.folder(), Role::Worker).await;
    worker.say(WorkerMessage::Hello(WorkerHello { protocol: PROTOCOL_VERSION - 1, ..hello("old") })).await;
    let answer = worker.hear().await.expect("words before the end");
    let both = format!("speaks protocol {}, this server {PROTOCOL_VERSION}", PROTOCOL_VERSION - 1);
    assert!(matches!(&answer[..], [ServerMessage::Refused { reason }] if reason.contains(&both)), "{answer:?}");
    assert_eq!(worker.hear().await, None, "and it is disconnected");
    let mut client = Speaker::connect(&bed.folder(), Role::Client).await;
    let old = ClientHello { protocol: PROTOCOL_VERSION - 1, version: "0.0.0".to_owned() };
    client.0.send(&[ClientMessage::Hello(old)]).await.unwrap();
    let Some(ClientReply::Reply { reply, .. }) = client.hear_reply().await else { panic!("no words") };
    assert!(matches!(*reply, Reply::Error { kind: ErrorKind::Usage, .. }));
    assert_eq!(client.hear_reply().await, None);
    assert_eq!(workers(&bed), [] as [Value; 0]);
}

/// A server of another version: refuses the one peer that connects with the words that such a server has.
fn old_server(authority: &Authority, role: Role) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let config = server_config(authority).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async move {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let stream = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
        let mut channel = Channel::new(stream, FRAME_BYTES_MAX);
        let words = format!("it speaks protocol {PROTOCOL_VERSION}, this server 77: use one version of dcluster");
        match role {
            Role::Worker => {
                channel.receive::<WorkerMessage>().await.unwrap();
                channel.send(&[ServerMessage::Refused { reason: words }]).await.unwrap();
            }
            _ => {
                channel.receive::<ClientMessage>().await.unwrap();
                let reply = Reply::Error { kind: ErrorKind::Usage, what: words, fix: None };
                channel.send(&[ClientReply::Reply { id: 0, reply: Box::new(reply) }]).await.unwrap();
            }
        }
        // The end of the connection is the peer's.
        let _ = channel.receive::<Value>().await;
    };
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(SOON, serve).await }).expect("a peer comes");
    });
    (address, thread)
}

/// Writes other addresses of the server into the access files, until it is dropped.
struct Elsewhere(Vec<(std::path::PathBuf, Vec<u8>)>);

impl Elsewhere {
    fn publish(bed: &Bed, address: SocketAddr) -> Self {
        let files = ["access", "worker"].map(|file| bed.folder().join(file));
        let saved = files.map(|path| (path.clone(), fs::read(path).unwrap())).to_vec();
        let folder = Folder::at(&bed.folder());
        for (path, bytes) in &saved {
            let mut access: Value = serde_json::from_slice(bytes).unwrap();
            access["addresses"] = serde_json::json!([address.to_string()]);
            folder.write(path.file_name().unwrap().to_str().unwrap(), access.to_string().as_bytes()).unwrap();
        }
        Self(saved)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        for (path, bytes) in &self.0 {
            let folder = Folder::at(path.parent().unwrap());
            folder.write(path.file_name().unwrap().to_str().unwrap(), bytes).unwrap();
        }
    }
}

#[test]
fn an_old_server_is_told_from_a_dead_one() {
    let bed = empty();
    let folder = Folder::at(&bed.folder());
    let identity = folder.open().unwrap();
    let authority = folder.authority(&identity).unwrap();
    let (address, served) = old_server(&authority, Role::Worker);
    let elsewhere = Elsewhere::publish(&bed, address);
    bed.run(&["worker", "join"]).expect(0).says("refused this worker: it speaks protocol").says("this server 77");
    served.join().unwrap();
    drop(elsewhere);
    let (address, served) = old_server(&authority, Role::Client);
    let elsewhere = Elsewhere::publish(&bed, address);
    // Without its socket the command goes by TLS.
    let (socket, aside) = (bed.folder().join("sock"), bed.folder().join("aside"));
    fs::rename(&socket, &aside).unwrap();
    bed.run(&["status"]).expect(2).says("this server 77: use one version of dcluster");
    served.join().unwrap();
    fs::rename(&aside, &socket).unwrap();
    drop(elsewhere);
    bed.run(&["status"]).expect(0);
}

#[tokio::test]
async fn a_certificate_of_another_role_opens_nothing() {
    let bed = empty();
    // A client is no worker.
    let mut client = Speaker::connect(&bed.folder(), Role::Client).await;
    client.say(WorkerMessage::Hello(hello("client"))).await;
    assert_eq!(client.hear().await, None);
    // A server's certificate is none with which to connect.
    let folder = Folder::at(&bed.folder());
    let identity = folder.open().unwrap();
    let authority = folder.authority(&identity).unwrap();
    let mut access = folder.access(Role::Worker).unwrap();
    access.credential = authority.issue(Role::Server).unwrap();
    if let Ok((stream, _)) = dial(&access, None).await {
        let mut pretender = Speaker(Channel::new(stream, FRAME_BYTES_MAX));
        let _ = pretender.0.send(&[WorkerMessage::Hello(hello("server"))]).await;
        assert_eq!(pretender.hear().await, None);
    }
    assert_eq!(workers(&bed), [] as [Value; 0]);
}

/// Terminates TLS with a certificate that is no server's; whether anybody said anything to it.
async fn impostor(listener: tokio::net::TcpListener, authority: &Authority, own: Credential) -> bool {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(own.key.reveal().as_bytes()).unwrap();
    let mut config = server_config(authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let signer = provider.key_provider.load_private_key(key).unwrap();
    config.cert_resolver =
        Arc::new(rustls::sign::SingleCertAndKey::from(rustls::sign::CertifiedKey::new(vec![certificate], signer)));
    let (stream, _) = listener.accept().await.unwrap();
    match tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await {
        Ok(mut stream) => {
            use tokio::io::AsyncReadExt;
            stream.read(&mut [0; 100]).await.is_ok_and(|count| count > 0)
        }
        Err(_) => false,
    }
}

#[tokio::test]
async fn an_impostor_with_a_workers_certificate_hears_nothing() {
    let bed = empty();
    let folder = Folder::at(&bed.folder());
    let identity = folder.open().unwrap();
    let authority = folder.authority(&identity).unwrap();
    for role in [Role::Worker, Role::Client] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut access = folder.access(Role::Worker).unwrap();
        access.addresses = vec![listener.local_addr().unwrap()];
        let own = authority.issue(role).unwrap();
        let (dialled, heard) = tokio::join!(dial(&access, None), timeout(SOON, impostor(listener, &authority, own)));
        assert!(dialled.is_err() && !heard.unwrap(), "{role:?}");
    }
}

#[tokio::test]
async fn a_captured_hello_cannot_be_sent_again() {
    let bed = empty();
    let captured = WorkerMessage::Hello(hello("captured"));
    let mut worker = Speaker::connect(&bed.folder(), Role::Worker).await;
    worker.say(captured.clone()).await;
    assert!(matches!(worker.hear().await.as_deref(), Some([ServerMessage::Welcome(_), ..])));
    let replay = async |when: &str| {
        let mut other = Speaker::connect(&bed.folder(), Role::Worker).await;
        other.say(captured.clone()).await;
        let answer = other.hear().await.expect("words before the end");
        let said = matches!(&answer[..], [ServerMessage::Refused { reason }] if reason.contains("hello before"));
        assert!(said, "{when}: {answer:?}");
        assert_eq!(other.hear().await, None, "{when}");
    };
    replay("while the first lives").await;
    worker.say(WorkerMessage::Heartbeat).await;
    assert_eq!(worker.hear().await, Some(vec![ServerMessage::Heartbeat]), "the first is not harmed");
    assert_eq!(workers(&bed).len(), 1);
    worker.say(WorkerMessage::Goodbye).await;
    assert_eq!(worker.hear().await, None);
    until("it has left", || workers(&bed).is_empty().then_some(()));
    replay("after it left").await;
    assert_eq!(workers(&bed), [] as [Value; 0]);
}

/// Passes bytes on until it is cut; then it keeps both connections open and passes nothing on.
struct Proxy {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    /// The side that called hung up after the cut; the side that was called did.
    caller_left: Arc<AtomicBool>,
    called_left: Arc<AtomicBool>,
}

impl Proxy {
    fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            cut: Arc::default(),
            over: Arc::default(),
            caller_left: Arc::default(),
            called_left: Arc::default(),
        };
        let (cut, over) = (Arc::clone(&proxy.cut), Arc::clone(&proxy.over));
        let flags = [Arc::clone(&proxy.caller_left), Arc::clone(&proxy.called_left)];
        std::thread::spawn(move || {
            let (caller, _) = listener.accept().unwrap();
            let called = TcpStream::connect(to).unwrap();
            let pairs = [(caller.try_clone().unwrap(), called.try_clone().unwrap()), (called, caller)];
            for ((from, to), left) in pairs.into_iter().zip(flags) {
                let (cut, over) = (Arc::clone(&cut), Arc::clone(&over));
                std::thread::spawn(move || pass(from, to, &cut, &over, &left));
            }
        });
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool, over: &AtomicBool, left: &AtomicBool) {
    from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut bytes = [0; 4096];
    while !over.load(Ordering::SeqCst) {
        match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) if !cut.load(Ordering::SeqCst) && to.write_all(&bytes[..count]).is_err() => break,
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break,
            // Swallowed, or nothing there.
            _ => {}
        }
    }
    left.store(true, Ordering::SeqCst);
    // After a cut nobody hears of the other's end: the sockets are held until all is over.
    while cut.load(Ordering::SeqCst) && !over.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn both_ends_of_a_half_open_connection_notice() {
    let bed = empty();
    let (proxy, silent) = (Proxy::start(address(&bed)), Proxy::start(address(&bed)));
    let elsewhere = Elsewhere::publish(&bed, proxy.address);
    let worker = bed.spawn(&["worker", "join", "--cores", "1"]);
    bed.submit(&[], "echo began >> began; until [ -e go ]; do sleep 0.05; done");
    bed.appears("began");
    // A second worker, of which nothing is ever heard again: the server notices without any help.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut access = Folder::at(&bed.folder()).access(Role::Worker).unwrap();
    access.addresses = vec![silent.address];
    let _pretender = runtime.block_on(async {
        let (stream, _) = dial(&access, None).await.unwrap();
        let mut pretender = Speaker(Channel::new(stream, FRAME_BYTES_MAX));
        pretender.say(WorkerMessage::Hello(hello("silent"))).await;
        assert!(matches!(pretender.hear().await.as_deref(), Some([ServerMessage::Welcome(_), ..])));
        pretender
    });
    drop(elsewhere);
    let begun = Instant::now();
    proxy.cut.store(true, Ordering::SeqCst);
    silent.cut.store(true, Ordering::SeqCst);
    assert_eq!(workers(&bed).iter().filter(|worker| worker["state"] == "up").count(), 2, "nobody has noticed yet");
    until("the worker leaves a server that is silent", || proxy.caller_left.load(Ordering::SeqCst).then_some(()));
    assert!(begun.elapsed() > Duration::from_secs(9), "not before the third heartbeat: {:?}", begun.elapsed());
    until("the server hangs up on a silent worker", || silent.called_left.load(Ordering::SeqCst).then_some(()));
    assert!(!silent.caller_left.load(Ordering::SeqCst));
    until("the worker is back and the other one silent", || {
        let states =
            workers(&bed).iter().map(|worker| worker["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        (states == ["up", "silent"]).then_some(())
    });
    // It found the server at its address, with the task that ran all the time.
    fs::write(bed.work.join("go"), "").unwrap();
    bed.run(&["wait"]).expect(0);
    assert_eq!(bed.read("began"), "began\n");
    worker.signal(nix::sys::signal::Signal::SIGINT);
    worker.end();
}

#[test]
fn a_worker_whose_clock_is_wrong_works() {
    let library = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
        .map(|folder| format!("{folder}/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists());
    let Some(library) = library else { return skipped("needs libfaketime (tests/need libfaketime)") };
    let bed = empty();
    for (number, clock) in ["-1d", "+1d", "@1970-01-02 00:00:00", "@2098-01-01 00:00:00"].into_iter().enumerate() {
        let mut command = bed.command(&["worker", "join", "--cores", "1"]);
        // Its own clock of seconds since 1970 alone: the others run as ever.
        command.env("LD_PRELOAD", &library).env("FAKETIME", clock).env("DONT_FAKE_MONOTONIC", "1");
        let worker = bed.start(command);
        let before = jiff::Timestamp::now().as_second();
        let id = bed.submit(&[], "date +%s > date");
        bed.run(&["wait", &id]).expect(0);
        let seen: i64 = bed.appears("date").trim().parse().unwrap();
        assert!((seen - before).abs() > 80_000, "the clock is not wrong: {seen}");
        let line = &bed.lines(&["tasks", &id, "--json"])[0];
        assert_eq!(line["state"], "finished", "{clock}: {line}");
        let started: jiff::Timestamp = line["started"].as_str().unwrap().parse().unwrap();
        assert!((started.as_second() - before).abs() < 600, "{clock}: started by the server's clock: {line}");
        assert!(line["wall_seconds"].as_f64().unwrap() < 60.0, "{clock}: {line}");
        let events = bed.events();
        assert!(!events.contains(&"worker_lost".to_owned()), "{clock}: {events:?}");
        fs::remove_file(bed.work.join("date")).unwrap();
        worker.signal(nix::sys::signal::Signal::SIGINT);
        worker.end();
        until("it has left", || workers(&bed).is_empty().then_some(()));
        assert_eq!(bed.tasks("finished"), number as u64 + 1);
    }
}

#[test]
fn workers_leave_a_stopped_server_for_its_successor() {
    let bed = Bed::up(&[]);
    bed.submit(&[], "echo began >> began; until [ -e go ]; do sleep 0.05; done");
    bed.appears("began");
    let old = bed.server();
    let signal = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), signal).unwrap();
    signal(nix::sys::signal::Signal::SIGSTOP);
    bed.run(&["up", "--take-over"]).expect(0);
    assert_ne!(bed.server(), old);
    // The kernel of the stopped one still answers for it; its heartbeats are missing all the same.
    until("the worker is with the successor", || {
        workers(&bed).first().is_some_and(|worker| worker["state"] == "up").then_some(())
    });
    fs::write(bed.work.join("go"), "").unwrap();
    bed.run(&["wait"]).expect(0);
    assert_eq!(bed.read("began"), "began\n");
    signal(nix::sys::signal::Signal::SIGCONT);
    until("the old server ends", || (!crate::harness::alive(old)).then_some(()));
}
