//! The network seam: how a connection comes about.

use std::io;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connected, ordered stream of bytes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// Opens connections: over TCP, or through whatever a test or a proxy needs.
pub trait Connector: Send + Sync + 'static {
    /// Connects to `host:port`. May hang for as long as it likes: the caller has a deadline.
    ///
    /// # Errors
    /// Nobody is there, or the name cannot be resolved.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>>;
}

/// Plain TCP, which does not wait to fill a segment (`TCP_NODELAY`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Connector for Tcp {
    #[expect(clippy::disallowed_types, reason = "this is the seam that hides tokio's sockets")]
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        }
        .boxed()
    }
}
