//! The doctor's end of the network check: it listens as a server would, with the same keys and the same check of
//! certificates, and greets every probe that gets through with its own time.

use super::Check;
use crate::cluster::{Folder, Identity};
use crate::error::{Kind, Problem};
use crate::runtime::transport::{
    Authority, Channel, KeyError, Role, client_config, peer_role, server_config, server_name,
};
use crate::server::clock;
use crate::server::listen;
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Time for one greeting, handshake included.
const PATIENCE: Duration = Duration::from_secs(10);
/// Greetings at a time: a probe makes one for each address of this host.
const GREETINGS_MAX: usize = 64;
/// A frame of ours is tiny.
pub(super) const FRAME_BYTES_MAX: usize = 1024;

/// What a probe is greeted with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Greeting {
    /// The time here, in milliseconds since 1970.
    pub wall_milliseconds: u64,
}

/// Listens on every address of this host and publishes them to the probe. Returns them, the most promising first.
///
/// # Errors
///
/// If nothing can be listened on, or the folder cannot be written.
pub(super) async fn open(folder: &Folder, identity: &Identity) -> Result<(Vec<SocketAddr>, Vec<Greeter>), Problem> {
    let authority = folder.authority(identity)?;
    let config = server_config(&authority)
        .map_err(|error| Problem::new(Kind::Internal, "cannot set up TLS").says(error.to_string()))?;
    let (listeners, addresses) = listen::bind_tcp(&folder.spec()?).await?;
    folder.publish(identity, &authority, &addresses, &clock::host())?;
    let config = Arc::new(config);
    let greeter = |listener| Greeter(tokio::spawn(serve(listener, Arc::clone(&config), identity.id.clone())));
    Ok((addresses, listeners.into_iter().map(greeter).collect()))
}

/// Greets until it is dropped.
#[derive(Debug)]
pub(super) struct Greeter(tokio::task::JoinHandle<()>);

impl Drop for Greeter {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(listener: TcpListener, config: Arc<ServerConfig>, cluster_id: String) {
    let places = Arc::new(Semaphore::new(GREETINGS_MAX));
    let cluster_id: Arc<str> = cluster_id.into();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: the ones in use will be closed.
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let (config, cluster_id) = (Arc::clone(&config), Arc::clone(&cluster_id));
        tokio::spawn(async move {
            // A stranger's bytes are nothing to report.
            let _ = timeout(PATIENCE, greet(stream, config, &cluster_id)).await;
            drop(place);
        });
    }
}

/// Checks who connects, as the server does, and says the time.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    config: Arc<ServerConfig>,
    cluster_id: &str,
) -> io::Result<()> {
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    if peer_role(chain, cluster_id) != Some(Role::Worker) {
        return Err(io::Error::other("no worker of this cluster"));
    }
    let (mut to, mut from) = Channel::new(stream, FRAME_BYTES_MAX).split();
    to.send(&[Greeting { wall_milliseconds: clock::now().wall }]).await?;
    // The probe closes; who closes first may cut off what the other has not read.
    let _ = from.receive::<Greeting>().await;
    // It may be gone by now, which is what it was to be.
    let _ = to.close().await;
    Ok(())
}

/// Whether TLS works on this host, and keeps others out: a worker of the cluster is let in, one with a certificate
/// of another cluster's authority is not.
pub async fn tls() -> Check {
    match handshakes().await {
        Ok((Ok(()), Err(_))) => Check::ok("tls", "TLS 1.3: a worker is let in, a stranger's certificate is refused"),
        Ok((Err(error), _)) => {
            let says = format!("a worker with a right certificate is refused: {error}");
            Check::fail(Kind::Internal, "tls", says, "this is a bug: report it with the output of `dcluster --version`")
        }
        Ok((_, Ok(()))) => Check::fail(
            Kind::Internal,
            "tls",
            "a certificate of another authority is let in",
            "do not bring clusters up with this program; report it",
        ),
        Err(error) => {
            let fix = "report it: keys and certificates need nothing from the system but random numbers";
            Check::fail(Kind::Internal, "tls", format!("no keys can be made: {error}"), fix)
        }
    }
}

type Handshake = io::Result<()>;

async fn handshakes() -> Result<(Handshake, Handshake), KeyError> {
    let id = "d0c70000000000000000000000000000";
    let (ours, others) = (Authority::create(id)?, Authority::create(id)?);
    let server = Arc::new(server_config(&ours)?);
    let one = async |authority: &Authority| {
        let config = client_config(ours.certificate(), &authority.issue(Role::Worker)?)?;
        let name = server_name(id)?;
        let (here, there) = tokio::io::duplex(1 << 14);
        let connect = async {
            let mut stream = TlsConnector::from(Arc::new(config)).connect(name, here).await?;
            let mut channel = Channel::new(&mut stream, FRAME_BYTES_MAX);
            let greeted = channel.receive::<Greeting>().await?;
            stream.shutdown().await?;
            greeted.map(|_| ()).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
        };
        let both = async { tokio::join!(greet(there, Arc::clone(&server), id), connect) };
        let (served, connected) = timeout(PATIENCE, both).await.unwrap_or_else(|_| {
            let late = || Err(io::ErrorKind::TimedOut.into());
            (late(), late())
        });
        Ok::<_, KeyError>(served.and(connected))
    };
    Ok((one(&ours).await?, one(&others).await?))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[tokio::test]
    async fn a_worker_is_let_in_and_a_stranger_is_not() {
        let (ours, stranger) = handshakes().await.unwrap();
        assert!(ours.is_ok(), "{ours:?}");
        assert!(stranger.is_err());
        assert_eq!(tls().await.verdict, Verdict::Ok);
    }
}
