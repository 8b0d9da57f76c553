//! Carries chitchat's messages as sealed datagrams over the network seam. What others send is opened,
//! measured and only then given to chitchat.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chitchat::transport::{Socket, Transport};
use chitchat::{Chitchat, ChitchatId, ChitchatMessage, Deserializable, Serializable};
use parking_lot::Mutex;
use tracing::{debug, warn};

use crate::Datagrams;
use crate::inspect::{LIVES_COUNT_MAX, inspect};
use crate::muffle::Muffle;
use crate::secret::Seal;

/// Largest payload of a UDP datagram over IPv4.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Pause after a failed receive, so that a broken socket costs little.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

type Boxed<'a, T> = Pin<Box<dyn Future<Output = anyhow::Result<T>> + Send + 'a>>;

/// chitchat's state, once it has one.
pub(crate) type Known = Arc<OnceLock<Arc<tokio::sync::Mutex<Chitchat>>>>;

/// Hands one socket, bound beforehand, to chitchat.
pub(crate) struct Carrier(Mutex<Option<Carried>>);

/// A socket as chitchat sees it.
pub(crate) struct Carried {
    datagrams: Box<dyn Datagrams>,
    seal: Seal,
    own: ChitchatId,
    known: Known,
    received: Vec<u8>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
    muffle: Muffle,
}

impl Carrier {
    pub(crate) fn new(
        datagrams: Box<dyn Datagrams>,
        seal: Seal,
        own: ChitchatId,
        known: Known,
    ) -> Self {
        Self(Mutex::new(Some(Carried {
            datagrams,
            seal,
            own,
            known,
            received: vec![0; DATAGRAM_BYTES_MAX],
            plain: Vec::new(),
            sealed: Vec::new(),
            muffle: Muffle::default(),
        })))
    }
}

impl Transport for Carrier {
    fn open<'life0, 'async_trait>(
        &'life0 self,
        _listen: SocketAddr,
    ) -> Boxed<'async_trait, Box<dyn Socket>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let carried = self.0.lock().take();
            let carried = carried.ok_or_else(|| anyhow::anyhow!("the socket is in use"))?;
            Ok(Box::new(carried) as Box<dyn Socket>)
        })
    }
}

impl Socket for Carried {
    /// Never fails: chitchat would take that for the end of its socket.
    fn send<'life0, 'async_trait>(
        &'life0 mut self,
        to: SocketAddr,
        message: ChitchatMessage,
    ) -> Boxed<'async_trait, ()>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            self.plain.clear();
            message.serialize(&mut self.plain);
            self.seal.seal(&self.plain, &mut self.sealed);
            if self.sealed.len() > DATAGRAM_BYTES_MAX {
                if let Some(held_back) = self.muffle.admits() {
                    let bytes = self.sealed.len();
                    warn!(bytes, held_back, "gossip is too large for a datagram");
                }
            } else if let Err(error) = self.datagrams.send_to(&self.sealed, to).await {
                debug!(%to, %error, "gossip not sent");
            }
            Ok(())
        })
    }

    /// Never fails, for the same reason.
    fn recv<'life0, 'async_trait>(
        &'life0 mut self,
    ) -> Boxed<'async_trait, (SocketAddr, ChitchatMessage)>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            loop {
                match self.datagrams.recv_from(&mut self.received).await {
                    Ok((bytes, from)) => match self.read(bytes).await {
                        Ok(message) => return Ok((from, message)),
                        Err(reason) => self.warn(from, &reason),
                    },
                    Err(error) => self.failed(&error).await,
                }
            }
        })
    }
}

impl Carried {
    async fn read(&self, bytes: usize) -> Result<ChitchatMessage, String> {
        let datagram = self.received.get(..bytes).ok_or("longer than a datagram")?;
        let mut payload = self.seal.open(datagram).map_err(|error| error.to_string())?;
        let lives = inspect(payload, &self.own).map_err(|odd| odd.to_string())?;
        if let Some(chitchat) = self.known.get() {
            let chitchat = chitchat.lock().await;
            let known = chitchat.node_states();
            let new = lives.iter().filter(|life| !known.contains_key(life)).count();
            if known.len() + new > LIVES_COUNT_MAX {
                return Err("too many lives at once".to_owned());
            }
        }
        ChitchatMessage::deserialize(&mut payload).map_err(|error| error.to_string())
    }

    fn warn(&self, from: SocketAddr, reason: &str) {
        if let Some(held_back) = self.muffle.admits() {
            warn!(%from, reason, held_back, "datagram dropped");
        }
    }

    async fn failed(&self, error: &io::Error) {
        if let Some(held_back) = self.muffle.admits() {
            warn!(%error, held_back, "receiving gossip failed");
        }
        tokio::time::sleep(ERROR_PAUSE).await;
    }
}
