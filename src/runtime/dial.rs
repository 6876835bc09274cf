//! Finding the server: every address of its host is tried, a little apart, and the first that proves
//! itself wins. Clusters have several networks and the first address is often the wrong one; an
//! impostor fails the handshake and is passed over.

use super::transport::{client_config, server_name};
use crate::cluster::Access;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Between the starts of two attempts.
const STAGGER: Duration = Duration::from_millis(150);
/// For one attempt, handshake included.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects to the server by TLS, and says which address worked.
///
/// # Errors
///
/// With what each address said when none worked.
pub async fn dial(access: &Access, first: Option<SocketAddr>) -> io::Result<(TlsStream<TcpStream>, SocketAddr)> {
    let config = client_config(&access.authority, &access.credential).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(config));
    let name = server_name(&access.id).map_err(io::Error::other)?;
    let mut addresses = access.addresses.clone();
    addresses.sort_by_key(|address| Some(*address) != first);
    let mut attempts: FuturesUnordered<_> = (0u32..)
        .zip(addresses)
        .map(|(rank, address)| {
            let (connector, name) = (connector.clone(), name.clone());
            async move {
                sleep(STAGGER * rank).await;
                let attempt = async {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    connector.connect(name, stream).await
                };
                let result = timeout(PATIENCE, attempt).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                (address, result)
            }
        })
        .collect();
    let mut failures = Vec::new();
    while let Some((address, result)) = attempts.next().await {
        match result {
            Ok(stream) => return Ok((stream, address)),
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    Err(io::Error::new(io::ErrorKind::ConnectionRefused, failures.join("; ")))
}
