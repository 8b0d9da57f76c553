//! The network seam: the only place of the product that names tokio's sockets. A simulation brings a
//! [`Network`] of its own; which one is used is chosen at run time, so what is simulated is what ships.

use std::io;
use std::net::SocketAddr;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// Connections that the kernel holds for a listener until they are accepted.
const BACKLOG: u32 = 1024;

/// A connected, ordered stream of bytes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream of whichever network.
pub type BoxStream = Box<dyn Stream>;

/// Takes connections on one address.
pub trait Listener: Send {
    /// The next connection and where it comes from. Can be dropped and asked again without loss.
    ///
    /// An error says that this attempt failed, not that the listener is of no more use: a process out of
    /// file descriptors gets one for each attempt. The caller pauses before it tries again.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>>;

    /// Where it listens; with the port that the system chose if it was asked for port 0.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Sends and receives datagrams on one address.
pub trait Datagrams: Send + Sync {
    /// Sends one datagram, which may be lost, and says how many bytes it has.
    fn send_to<'a>(&'a self, payload: &'a [u8], to: SocketAddr)
    -> BoxFuture<'a, io::Result<usize>>;

    /// Receives one datagram into `buffer`, cut to its size. Can be dropped and asked again without loss.
    fn recv_from<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>>;

    /// Where it listens; with the port that the system chose if it was asked for port 0.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A network: the system's, or a simulated one.
pub trait Network: Send + Sync + 'static {
    /// Listens for TCP connections.
    fn bind_tcp(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;

    /// Connects over TCP. May hang for as long as the network likes: callers set a deadline.
    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<BoxStream>>;

    /// Listens for UDP datagrams.
    fn bind_udp(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>>;

    /// The addresses of `host:port`, in the resolver's order.
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

pub use system::SystemNet;

#[expect(clippy::disallowed_types, reason = "this is the seam that hides tokio's sockets")]
mod system {
    use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

    use super::{
        BACKLOG, BoxFuture, BoxStream, Datagrams, FutureExt, Listener, Network, SocketAddr, io,
    };

    /// The operating system's network.
    ///
    /// Streams do not wait to fill a segment (`TCP_NODELAY`); a listener may bind an address that closed
    /// connections still linger on (`SO_REUSEADDR`).
    #[derive(Clone, Copy, Debug, Default)]
    pub struct SystemNet;

    impl Network for SystemNet {
        fn bind_tcp(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
            async move {
                let socket =
                    if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                socket.set_reuseaddr(true)?;
                socket.bind(addr)?;
                Ok(Box::new(socket.listen(BACKLOG)?) as Box<dyn Listener>)
            }
            .boxed()
        }

        fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<BoxStream>> {
            async move {
                let stream = TcpStream::connect(addr).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream) as BoxStream)
            }
            .boxed()
        }

        fn bind_udp(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
            async move { Ok(Box::new(UdpSocket::bind(addr).await?) as Box<dyn Datagrams>) }.boxed()
        }

        fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            async move { Ok(tokio::net::lookup_host(host).await?.collect()) }.boxed()
        }
    }

    impl Listener for TcpListener {
        fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
            async move {
                let (stream, from) = TcpListener::accept(self).await?;
                stream.set_nodelay(true)?;
                Ok((Box::new(stream) as BoxStream, from))
            }
            .boxed()
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Self::local_addr(self)
        }
    }

    impl Datagrams for UdpSocket {
        fn send_to<'a>(
            &'a self,
            payload: &'a [u8],
            to: SocketAddr,
        ) -> BoxFuture<'a, io::Result<usize>> {
            self.send_to(payload, to).boxed()
        }

        fn recv_from<'a>(
            &'a self,
            buffer: &'a mut [u8],
        ) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
            self.recv_from(buffer).boxed()
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Self::local_addr(self)
        }
    }
}
