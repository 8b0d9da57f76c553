//! What the operating system of a simulated machine does for its process: it has the sockets.
//!
//! The process runs on a runtime of its own and meets turmoil's network only through here. So it can be
//! stopped while its sockets go on taking what arrives, as a process that got `SIGSTOP` does, and when it
//! is killed what it sent before is still delivered.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scatterhoard_cluster::{BoxStream, Datagrams, Listener, Network};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::spawn_local;
use turmoil::net::{TcpListener, TcpStream, UdpSocket};

use super::net::resolve_literally;

/// Bytes that a socket holds, each way.
const SOCKET_BYTES: usize = 256 << 10;

/// Connections that wait to be accepted, and datagrams that wait to be received.
const WAITING_COUNT_MAX: usize = 1024;

/// The largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// How much later a datagram comes that is overtaken, or comes twice.
const LATER_MS_MAX: u64 = 60;

/// What becomes of the datagrams that a machine sends. Outlives its processes.
#[derive(Debug, Default)]
pub(super) struct Mischief {
    /// Of a thousand, so many are sent once more, later.
    pub(super) twice: Cell<u32>,
    /// Of a thousand, so many are sent later than those after them.
    pub(super) late: Cell<u32>,
    /// Datagrams that this happened to.
    pub(super) count: Cell<u64>,
}

/// What a process asks of its machine.
pub(super) enum Call {
    Listen(SocketAddr, oneshot::Sender<io::Result<(SocketAddr, Incoming)>>),
    Connect(SocketAddr, oneshot::Sender<io::Result<Socket>>),
    Bind(SocketAddr, oneshot::Sender<io::Result<Mailbox>>),
}

type Incoming = mpsc::Receiver<(Socket, SocketAddr)>;

/// Does what the process asks for, as long as the machine has power.
pub(super) async fn run(
    mut calls: mpsc::UnboundedReceiver<Call>,
    seed: u64,
    mischief: Rc<Mischief>,
) {
    let mut seeds = StdRng::seed_from_u64(seed);
    while let Some(call) = calls.recv().await {
        match call {
            Call::Listen(addr, reply) => {
                let (accepted, incoming) = mpsc::channel(WAITING_COUNT_MAX);
                let listening = TcpListener::bind(anywhere(addr)).await;
                let answer = listening.and_then(|listener| {
                    let bound = SocketAddr::new(addr.ip(), listener.local_addr()?.port());
                    spawn_local(accept(listener, accepted));
                    Ok((bound, incoming))
                });
                let _gone = reply.send(answer);
            }
            Call::Connect(addr, mut reply) => {
                spawn_local(async move {
                    tokio::select! {
                        biased;
                        () = reply.closed() => {}
                        connected = TcpStream::connect(addr) => {
                            let _gone = reply.send(connected.map(socket));
                        }
                    }
                });
            }
            Call::Bind(addr, reply) => {
                let answer = UdpSocket::bind(anywhere(addr)).await.and_then(|socket| {
                    let addr = SocketAddr::new(addr.ip(), socket.local_addr()?.port());
                    let (outbox, sent) = mpsc::unbounded_channel();
                    let (arrived, inbox) = mpsc::channel(WAITING_COUNT_MAX);
                    let chance = StdRng::seed_from_u64(seeds.random());
                    let post = Post { socket, chance, mischief: Rc::clone(&mischief) };
                    spawn_local(post.run(sent, arrived));
                    Ok(Mailbox { outbox, inbox: Mutex::new(inbox), addr })
                });
                let _gone = reply.send(answer);
            }
        }
    }
}

/// turmoil's hosts have one address each and bind all there is.
fn anywhere(addr: SocketAddr) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port()))
}

async fn accept(listener: TcpListener, accepted: mpsc::Sender<(Socket, SocketAddr)>) {
    loop {
        let (stream, from) = tokio::select! {
            biased;
            () = accepted.closed() => return,
            next = listener.accept() => match next {
                Ok(next) => next,
                Err(_) => continue,
            },
        };
        if accepted.send((socket(stream), from)).await.is_err() {
            return;
        }
    }
}

/// The process' end of a connection.
pub(super) struct Socket {
    stream: DuplexStream,
    /// Dropped with the socket: the process has closed it.
    _open: oneshot::Sender<()>,
}

fn socket(stream: TcpStream) -> Socket {
    let (ours, theirs) = tokio::io::duplex(SOCKET_BYTES);
    let (open, closed) = oneshot::channel();
    spawn_local(carry(stream, ours, closed));
    Socket { stream: theirs, _open: open }
}

/// Carries bytes between the network and a process, until either has closed. What the process wrote
/// before it closed still goes out.
async fn carry(network: TcpStream, process: DuplexStream, closed: oneshot::Receiver<()>) {
    let (mut arriving, mut leaving) = network.into_split();
    let (mut written, mut unread) = tokio::io::split(process);
    let out = async {
        tokio::io::copy(&mut written, &mut leaving).await?;
        leaving.shutdown().await
    };
    let into = async {
        let carried = tokio::io::copy(&mut arriving, &mut unread).await;
        let _gone = unread.shutdown().await;
        carried
    };
    let mut out = std::pin::pin!(out);
    let mut into = std::pin::pin!(into.fuse());
    let mut closed = closed.fuse();
    let mut arrives = true;
    loop {
        tokio::select! {
            biased;
            sent = &mut out => {
                if sent.is_ok() && arrives {
                    // Half closed: the other half goes on until either side ends it.
                    tokio::select! {
                        biased;
                        _ = &mut closed => {}
                        _ = &mut into => {}
                    }
                }
                return;
            }
            carried = &mut into, if arrives => {
                arrives = false;
                if carried.is_err() {
                    return;
                }
            }
            // All that is left of it is what it wrote.
            _ = &mut closed, if arrives => arrives = false,
        }
    }
}

/// What datagrams a socket sends and receives.
struct Post {
    socket: UdpSocket,
    chance: StdRng,
    mischief: Rc<Mischief>,
}

type Letter = (Vec<u8>, SocketAddr);

impl Post {
    async fn run(
        mut self,
        mut sent: mpsc::UnboundedReceiver<Letter>,
        arrived: mpsc::Sender<Letter>,
    ) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let (later, mut delayed) = mpsc::unbounded_channel();
        loop {
            tokio::select! {
                biased;
                letter = sent.recv() => match letter {
                    Some(letter) => self.send(letter, &later).await,
                    None => return,
                },
                Some((bytes, to)) = delayed.recv() => {
                    let _lost = self.socket.send_to(&bytes, to).await;
                }
                received = self.socket.recv_from(&mut buffer) => {
                    if let Ok((count, from)) = received {
                        // A full socket drops what comes.
                        let _full = arrived.try_send((buffer[..count].to_vec(), from));
                    }
                }
            }
        }
    }

    async fn send(&mut self, (bytes, to): Letter, later: &mpsc::UnboundedSender<Letter>) {
        let late = self.chance.random_range(0..1000) < self.mischief.late.get();
        let twice = self.chance.random_range(0..1000) < self.mischief.twice.get();
        let pause = Duration::from_millis(self.chance.random_range(1..LATER_MS_MAX));
        if late || twice {
            self.mischief.count.set(self.mischief.count.get() + 1);
            let (later, letter) = (later.clone(), (bytes.clone(), to));
            spawn_local(async move {
                tokio::time::sleep(pause).await;
                let _ended = later.send(letter);
            });
        }
        if !late {
            // Nobody is told of a datagram that is lost.
            let _lost = self.socket.send_to(&bytes, to).await;
        }
    }
}

/// The network as a process sees it: its machine's.
#[derive(Clone, Debug)]
pub(super) struct MachineNet {
    calls: mpsc::UnboundedSender<Call>,
}

impl MachineNet {
    pub(super) fn new(calls: mpsc::UnboundedSender<Call>) -> Self {
        Self { calls }
    }

    async fn call<T>(
        &self,
        call: impl FnOnce(oneshot::Sender<io::Result<T>>) -> Call,
    ) -> io::Result<T> {
        let off = || io::Error::other("the machine is off");
        let (reply, answered) = oneshot::channel();
        self.calls.send(call(reply)).map_err(|_| off())?;
        answered.await.map_err(|_| off())?
    }
}

impl Network for MachineNet {
    fn bind_tcp(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async move {
            let (addr, incoming) = self.call(|reply| Call::Listen(addr, reply)).await?;
            Ok(Box::new(Door { incoming, addr }) as Box<dyn Listener>)
        }
        .boxed()
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<BoxStream>> {
        async move {
            let socket = self.call(|reply| Call::Connect(addr, reply)).await?;
            Ok(Box::new(socket) as BoxStream)
        }
        .boxed()
    }

    fn bind_udp(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        async move {
            let mailbox = self.call(|reply| Call::Bind(addr, reply)).await?;
            Ok(Box::new(mailbox) as Box<dyn Datagrams>)
        }
        .boxed()
    }

    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        resolve_literally(host)
    }
}

/// Where a process takes connections.
struct Door {
    incoming: Incoming,
    addr: SocketAddr,
}

impl Listener for Door {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        async move {
            let off = || io::Error::other("the machine is off");
            let (socket, from) = self.incoming.recv().await.ok_or_else(off)?;
            Ok((Box::new(socket) as BoxStream, from))
        }
        .boxed()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

/// Where a process sends and receives datagrams.
pub(super) struct Mailbox {
    outbox: mpsc::UnboundedSender<Letter>,
    inbox: Mutex<mpsc::Receiver<Letter>>,
    addr: SocketAddr,
}

impl Datagrams for Mailbox {
    fn send_to<'a>(
        &'a self,
        payload: &'a [u8],
        to: SocketAddr,
    ) -> BoxFuture<'a, io::Result<usize>> {
        let sent = self.outbox.send((payload.to_vec(), to));
        let count = payload.len();
        async move { sent.map(|()| count).map_err(|_| io::Error::other("the machine is off")) }
            .boxed()
    }

    fn recv_from<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        async move {
            let letter = self.inbox.lock().await.recv().await;
            let (bytes, from) = letter.ok_or_else(|| io::Error::other("the machine is off"))?;
            let count = bytes.len().min(buffer.len());
            buffer[..count].copy_from_slice(&bytes[..count]);
            Ok((count, from))
        }
        .boxed()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
