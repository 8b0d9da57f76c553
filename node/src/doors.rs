//! The ports that clients come in by.

use std::sync::Arc;
use std::time::Duration;

use scatterhoard_cluster::{BoxStream, Listener, Muffle};
use scatterhoard_resp::{Encoder, Protocol};
use tokio::io::AsyncWriteExt;
use tracing::warn;

use crate::core::Core;
use crate::session::{self, Door};

/// Pause after a failed accept: descriptors may have run out, and come back when clients leave.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a client that is turned away is given to read why.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);

/// Takes clients in until shutdown.
pub(crate) async fn serve(core: Arc<Core>, mut listener: Box<dyn Listener>, door: Door) {
    let muffle = Muffle::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, addr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(held_back) = muffle.admits() {
                    warn!(%error, held_back, "a client could not be taken in");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let local = match door {
            Door::AnyKey => core.endpoints.any_key,
            Door::Cluster | Door::Peer => core.endpoints.listen,
        };
        match core.clients.admit(addr, local, door) {
            Ok(client) => {
                // Ends with the client's own token, which ends with the node's.
                core.tasks.spawn(session::serve(Arc::clone(&core), client, stream, door));
            }
            Err(_) => {
                core.tasks.spawn(turn_away(stream));
            }
        }
    }
}

async fn turn_away(mut stream: BoxStream) {
    let mut out = Vec::new();
    Encoder::new(&mut out, Protocol::Resp2).error("ERR", "max number of clients reached");
    let _gone = tokio::time::timeout(GOODBYE_PATIENCE, async {
        stream.write_all(&out).await?;
        stream.shutdown().await
    })
    .await;
}
