//! The network seam of the product over turmoil's network.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use scatterhoard_cluster::{BoxStream, Datagrams, Listener, Network};
use turmoil::net::{TcpListener, TcpStream, UdpSocket};

/// turmoil's network, as the host sees it on which it is used.
#[derive(Clone, Copy, Debug, Default)]
pub struct TurmoilNet;

/// turmoil's hosts have one address each and bind all there is; what was asked for is told again.
fn anywhere(addr: SocketAddr) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port()))
}

impl Network for TurmoilNet {
    fn bind_tcp(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async move {
            let inner = TcpListener::bind(anywhere(addr)).await?;
            let addr = SocketAddr::new(addr.ip(), inner.local_addr()?.port());
            Ok(Box::new(SimListener { inner, addr }) as Box<dyn Listener>)
        }
        .boxed()
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<BoxStream>> {
        async move { Ok(Box::new(TcpStream::connect(addr).await?) as BoxStream) }.boxed()
    }

    fn bind_udp(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        async move {
            let inner = UdpSocket::bind(anywhere(addr)).await?;
            let addr = SocketAddr::new(addr.ip(), inner.local_addr()?.port());
            Ok(Box::new(SimDatagrams { inner, addr }) as Box<dyn Datagrams>)
        }
        .boxed()
    }

    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        resolve_literally(host)
    }
}

/// No name is known but addresses themselves.
pub(super) fn resolve_literally(host: &str) -> BoxFuture<'_, io::Result<Vec<SocketAddr>>> {
    let addr = host.parse().map(|addr| vec![addr]);
    let unknown = || io::Error::new(io::ErrorKind::NotFound, host.to_owned());
    std::future::ready(addr.map_err(|_| unknown())).boxed()
}

struct SimListener {
    inner: TcpListener,
    addr: SocketAddr,
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        async move {
            let (stream, from) = self.inner.accept().await?;
            Ok((Box::new(stream) as BoxStream, from))
        }
        .boxed()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

struct SimDatagrams {
    inner: UdpSocket,
    addr: SocketAddr,
}

impl Datagrams for SimDatagrams {
    fn send_to<'a>(
        &'a self,
        payload: &'a [u8],
        to: SocketAddr,
    ) -> BoxFuture<'a, io::Result<usize>> {
        self.inner.send_to(payload, to).boxed()
    }

    fn recv_from<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        self.inner.recv_from(buffer).boxed()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}
