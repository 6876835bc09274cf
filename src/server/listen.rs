//! Sockets: mutual TLS for everybody, and a unix socket for this user on this host. No byte of a
//! stranger is interpreted before the handshake; what a peer can make us hold is bounded.

use super::Input;
use super::core::{ConnectionId, Outgoing};
use super::gate::{FIRST_BYTES_CROWDED, Gate, HANDSHAKE_CROWDED, PATIENCE, Place, Rationed};
use super::peer::{FAREWELL, Mail, peer};
use crate::cluster::Folder;
use crate::config::spec::{BackendKind, Spec};
use crate::error::{Kind, Problem};
use crate::runtime::control::{ClientHello, ClientMessage, ClientReply, ErrorKind, Reply};
use crate::runtime::protocol::{PROTOCOL_VERSION, ServerMessage, WorkerHello, WorkerMessage};
use crate::runtime::transport::{CLIENT_FRAME_BYTES_MAX, Channel, FRAME_BYTES_MAX, Role, peer_role};
use nix::unistd::Uid;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;

/// First frame of a client.
const HELLO_BYTES_MAX: usize = 16 << 10;
/// A worker that comes back says what it runs: more than a stranger may say, bounded all the same.
const WORKER_HELLO_BYTES_MAX: usize = 4 << 20;
/// Clients that are connected; one more is told the number.
const CLIENTS_MAX: usize = 1024;
/// Requests of one client that are not answered yet; the next one is not read before.
const REQUESTS_MAX: usize = 1024;

/// What every connection needs.
#[derive(Clone)]
pub struct Reception {
    /// To the core.
    pub inputs: mpsc::Sender<Input>,
    /// The cluster's id.
    pub cluster_id: Arc<str>,
    /// This server's epoch.
    pub epoch: u32,
    next: Arc<AtomicU64>,
    gate: Gate,
    /// On the unix socket; no stranger on the network takes these places.
    callers: Gate,
    clients: Arc<Semaphore>,
}

impl Reception {
    /// Makes the reception of a server.
    pub fn new(inputs: mpsc::Sender<Input>, cluster_id: &str, epoch: u32) -> Self {
        Self {
            inputs,
            cluster_id: cluster_id.into(),
            epoch,
            next: Arc::new(AtomicU64::new(1)),
            gate: Gate::new(),
            callers: Gate::new(),
            clients: Arc::new(Semaphore::new(CLIENTS_MAX)),
        }
    }

    fn number(&self) -> ConnectionId {
        ConnectionId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Accepts TLS connections until the server ends.
    pub async fn serve_tls(self, listener: TcpListener, config: Arc<rustls::ServerConfig>) {
        loop {
            let place = self.gate.enter().await;
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors: the ones in use will be closed.
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let (reception, config) = (self.clone(), Arc::clone(&config));
            tokio::spawn(async move {
                match reception.greet_tls(stream, from.ip(), config).await {
                    Ok((role, channel)) => reception.admit(role, channel, place).await,
                    Err(error) => tracing::debug!(%error, "handshake failed"),
                }
            });
        }
    }

    async fn greet_tls(
        &self,
        stream: TcpStream,
        from: IpAddr,
        config: Arc<rustls::ServerConfig>,
    ) -> io::Result<(Role, Channel<tokio_rustls::server::TlsStream<Rationed<TcpStream>>>)> {
        stream.set_nodelay(true)?;
        keep_alive(&stream)?;
        let late = || io::Error::new(io::ErrorKind::TimedOut, "handshake took too long");
        let first = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), Rationed::new(stream));
        let greeted = self.gate.wait(FIRST_BYTES_CROWDED, first).await.ok_or_else(late)??;
        let handshake = async {
            let _turn = self.gate.turn(from).await;
            greeted.into_stream(config).await
        };
        let mut stream = self.gate.wait(HANDSHAKE_CROWDED, handshake).await.ok_or_else(late)??;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let role = peer_role(chain, &self.cluster_id).ok_or_else(|| io::Error::other("no role in this cluster"))?;
        stream.get_mut().0.lift();
        Ok((role, Channel::new(stream, HELLO_BYTES_MAX)))
    }

    /// Accepts connections on the unix socket, from processes of the same user only.
    pub async fn serve_unix(self, listener: UnixListener) {
        loop {
            let place = self.callers.enter().await;
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            let reception = self.clone();
            tokio::spawn(async move {
                let ours = stream.peer_cred().is_ok_and(|peer| peer.uid() == Uid::effective().as_raw());
                if ours {
                    reception.admit(Role::Client, Channel::new(stream, HELLO_BYTES_MAX), place).await;
                }
            });
        }
    }

    async fn admit<S: AsyncRead + AsyncWrite + Unpin>(self, role: Role, mut channel: Channel<S>, place: Place) {
        let connection = self.number();
        let ended = match role {
            Role::Client => {
                let hello = timeout(PATIENCE, channel.receive::<ClientMessage>()).await;
                drop(place);
                match hello {
                    Ok(Ok(Some(messages))) => self.talk_to_client(connection, channel, messages).await,
                    _ => Ok(()),
                }
            }
            Role::Worker => {
                channel.allow(WORKER_HELLO_BYTES_MAX);
                let hello = timeout(PATIENCE, channel.receive::<WorkerMessage>()).await;
                drop(place);
                match hello {
                    Ok(Ok(Some(messages))) => self.talk_to_worker(connection, channel, messages).await,
                    _ => Ok(()),
                }
            }
            Role::Server => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, connection = connection.0, "connection ended");
        }
        // The core is gone only when the server ends.
        let _ = self.inputs.send(Input::Disconnected(connection)).await;
    }

    async fn talk_to_client<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        connection: ConnectionId,
        mut channel: Channel<S>,
        first: Vec<ClientMessage>,
    ) -> io::Result<()> {
        let mut messages = first.into_iter();
        let Some(ClientMessage::Hello(ClientHello { protocol, .. })) = messages.next() else { return Ok(()) };
        if protocol != PROTOCOL_VERSION {
            let what = format!(
                "this dcluster speaks protocol {protocol}, the server {PROTOCOL_VERSION}: use one version of dcluster"
            );
            let reply = Reply::Error { kind: ErrorKind::Usage, what, fix: None };
            return channel.send(&[ClientReply::Reply { id: 0, reply: Box::new(reply) }]).await;
        }
        let Ok(_client) = Arc::clone(&self.clients).try_acquire_owned() else {
            let reply = Reply::Error {
                kind: ErrorKind::TryAgain,
                what: format!("the server has {CLIENTS_MAX} clients, and takes no more"),
                fix: Some("end some of the dcluster commands that wait".to_owned()),
            };
            return channel.send(&[ClientReply::Reply { id: 0, reply: Box::new(reply) }]).await;
        };
        channel.allow(CLIENT_FRAME_BYTES_MAX);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        channel.send(&[ClientReply::Welcome { epoch: self.epoch, version }]).await?;
        let (peer, mail, dismissed) = peer();
        self.say(Input::Client(connection, peer)).await?;
        let requests = |messages: Vec<ClientMessage>| {
            messages.into_iter().filter_map(|message| match message {
                ClientMessage::Request { id, request } => Some(Input::Request(connection, id, request)),
                ClientMessage::Hello(_) => None,
            })
        };
        let unanswered = Semaphore::new(REQUESTS_MAX);
        let ask = async |request| {
            unanswered.acquire().await.map_err(io::Error::other)?.forget();
            self.say(request).await
        };
        let early = requests(messages.collect());
        let (mut to, mut from) = channel.split();
        let silent = Notify::new();
        let write = write_all(mail, &mut to, &silent, None, |message| match message {
            Outgoing::Client(reply) => {
                unanswered.add_permits(1);
                Some(reply)
            }
            Outgoing::Worker(_) => None,
        });
        let read = async {
            for request in early {
                ask(request).await?;
            }
            while let Some(messages) = from.receive::<ClientMessage>().await? {
                for request in requests(messages) {
                    ask(request).await?;
                }
            }
            Ok(())
        };
        tokio::select! { ended = write => ended, ended = read => ended, () = farewell(dismissed) => Ok(()) }
    }

    async fn talk_to_worker<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        connection: ConnectionId,
        mut channel: Channel<S>,
        first: Vec<WorkerMessage>,
    ) -> io::Result<()> {
        let mut messages = first.into_iter();
        let Some(WorkerMessage::Hello(hello)) = messages.next() else { return Ok(()) };
        channel.allow(FRAME_BYTES_MAX);
        let (peer, mail, dismissed) = peer();
        self.say(Input::Worker(connection, Box::new(hello), peer)).await?;
        let rest: Vec<WorkerMessage> = messages.collect();
        if !rest.is_empty() {
            self.say(Input::FromWorker(connection, rest)).await?;
        }
        let (mut to, mut from) = channel.split();
        // Answered here and not by the core, whose words wait for the disk: a worker whose server is alive must
        // not think it gone.
        let heartbeat = Notify::new();
        let write = write_all(mail, &mut to, &heartbeat, Some(ServerMessage::Heartbeat), |message| match message {
            Outgoing::Worker(message) => Some(message),
            Outgoing::Client(_) => None,
        });
        let read = async {
            while let Some(messages) = from.receive::<WorkerMessage>().await? {
                if messages.contains(&WorkerMessage::Heartbeat) {
                    heartbeat.notify_one();
                }
                self.say(Input::FromWorker(connection, messages)).await?;
            }
            Ok(())
        };
        tokio::select! { ended = write => ended, ended = read => ended, () = farewell(dismissed) => Ok(()) }
    }

    async fn say(&self, input: Input) -> io::Result<()> {
        self.inputs.send(input).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Writes what the core sends, many messages to a frame, and `answer` whenever there is `notice`; ends, after
/// a goodbye on the wire, when the core drops its [`Peer`](super::peer::Peer).
async fn write_all<K, M>(
    mut mail: Mail,
    to: &mut crate::runtime::transport::Sender<K>,
    notice: &Notify,
    answer: Option<M>,
    pick: impl Fn(Outgoing) -> Option<M>,
) -> io::Result<()>
where
    K: futures_util::Sink<bytes::Bytes, Error = io::Error> + Unpin,
    M: serde::Serialize,
{
    loop {
        let messages: Vec<M> = tokio::select! {
            batch = mail.next() => {
                if batch.is_empty() {
                    return to.close().await;
                }
                batch.into_iter().filter_map(&pick).collect()
            }
            () = notice.notified() => {
                to.send(answer.as_slice()).await?;
                continue;
            }
        };
        to.send(&messages).await?;
    }
}

/// A peer that was dismissed and does not take what was said last is not waited for.
async fn farewell(dismissed: tokio::sync::oneshot::Receiver<()>) {
    let _ = dismissed.await;
    tokio::time::sleep(FAREWELL).await;
}

/// A client whose host vanished is noticed by the kernel; workers have heartbeats.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &60)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &15)?;
    setsockopt(stream, sockopt::TcpKeepCount, &4)?;
    Ok(())
}

/// The hello of a worker is checked by the core.
pub type Hello = Box<WorkerHello>;

/// Binds the unix socket; a leftover of a dead server is replaced.
pub fn bind_unix(folder: &Folder) -> io::Result<UnixListener> {
    let (path, _folder) = folder.socket()?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to the unix socket, if its owner is this user.
pub async fn connect_unix(folder: &Folder) -> io::Result<UnixStream> {
    let (path, _folder) = folder.socket()?;
    let stream = UnixStream::connect(&path).await?;
    if stream.peer_cred()?.uid() != Uid::effective().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the socket belongs to another user"));
    }
    Ok(stream)
}

/// Binds TCP and returns the addresses under which the server can be reached, most promising first.
/// On `local` it is the loopback alone.
pub async fn bind_tcp(spec: &Spec) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), Problem> {
    let fail = |address: IpAddr, error: io::Error| {
        Problem::new(Kind::Unreachable, format!("cannot listen on {address}"))
            .says(error.to_string())
            .fix("choose an address of this host: dcluster up --address A, or --interface I")
    };
    let chosen: Vec<IpAddr> = if let Some(address) = spec.address {
        vec![address]
    } else if let Some(interface) = &spec.interface {
        let addresses = host_addresses(Some(interface));
        if addresses.is_empty() {
            let names: Vec<String> = interfaces();
            return Err(Problem::new(Kind::Config, format!("this host has no interface {interface} with an address"))
                .why(format!("it has {}", names.join(", "))));
        }
        addresses
    } else if spec.backend == BackendKind::Local {
        vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]
    } else {
        Vec::new()
    };
    if chosen.is_empty() {
        let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))
                .await
                .map_err(|error| fail(Ipv4Addr::UNSPECIFIED.into(), error))?,
        };
        let port = listener.local_addr().map_err(|error| fail(Ipv4Addr::UNSPECIFIED.into(), error))?.port();
        let addresses = host_addresses(None).into_iter().map(|address| SocketAddr::new(address, port)).collect();
        return Ok((vec![listener], addresses));
    }
    let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
    for address in chosen {
        let listener = TcpListener::bind((address, 0)).await.map_err(|error| fail(address, error))?;
        addresses.push(listener.local_addr().map_err(|error| fail(address, error))?);
        listeners.push(listener);
    }
    Ok((listeners, addresses))
}

/// Returns the addresses of this host's interfaces that are up, or of one of them.
fn host_addresses(interface: Option<&str>) -> Vec<IpAddr> {
    let all = host_interfaces().into_iter();
    let mut addresses: Vec<_> = all.filter(|(name, _)| interface.is_none_or(|i| name == i)).map(|(_, ip)| ip).collect();
    addresses.dedup();
    addresses
}

/// Returns the interfaces of this host that are up with their addresses: IPv4 before IPv6, loopback last;
/// link-local ones need a scope and are left out.
pub fn host_interfaces() -> Vec<(String, IpAddr)> {
    let mut addresses: Vec<(String, IpAddr)> = nix::ifaddrs::getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|found| {
            let address = found.address?;
            if let Some(v4) = address.as_sockaddr_in() {
                return Some((found.interface_name, IpAddr::V4(v4.ip())));
            }
            address.as_sockaddr_in6().map(|v6| (found.interface_name, IpAddr::V6(v6.ip())))
        })
        .filter(|(_, address)| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .collect();
    addresses.sort_by_key(|(_, address)| (address.is_loopback(), address.is_ipv6()));
    addresses
}

fn interfaces() -> Vec<String> {
    let mut names: Vec<String> =
        nix::ifaddrs::getifaddrs().into_iter().flatten().map(|found| found.interface_name).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
#[path = "listen_tests.rs"]
mod tests;
