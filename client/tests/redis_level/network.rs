//! A network that can lose everything that is under way, and says nothing of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use scatterhoard_client::{Connector, Stream, Tcp};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Default)]
pub(crate) struct Network {
    open: Mutex<Vec<Arc<AtomicBool>>>,
}

/// A connection over it.
struct Wire {
    stream: Box<dyn Stream>,
    is_cut: Arc<AtomicBool>,
}

impl Network {
    /// From now on nothing comes over the connections that are open now, and what is sent over them is lost.
    pub(crate) fn lose_what_is_open(&self) {
        self.open.lock().drain(..).for_each(|wire| wire.store(true, Ordering::Relaxed));
    }
}

impl Connector for Network {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        async move {
            let stream = Tcp.connect(address).await?;
            let is_cut = Arc::new(AtomicBool::new(false));
            self.open.lock().push(Arc::clone(&is_cut));
            Ok(Box::new(Wire { stream, is_cut }) as Box<dyn Stream>)
        }
        .boxed()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_cut.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
