//! The admin interface: health, readiness, status, metrics, and leaving, over HTTP/1.1.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use scatterhoard_cluster::{BoxStream, Listener};
use tokio::sync::Semaphore;
use tracing::debug;

use crate::core::Core;
use crate::doors::ACCEPT_PAUSE;
use crate::{council, metrics, recovery, status};

/// Connections at a time. Scrapers and load balancers need a handful.
const CONNECTIONS_COUNT_MAX: usize = 64;

/// How long a client may take to send the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// How long one connection may last.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(300);

/// Serves the admin interface until shutdown.
pub(crate) async fn serve(core: Arc<Core>, mut listener: Box<dyn Listener>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_COUNT_MAX));
    loop {
        let accepted = tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Beyond the bound a connection is closed at once: who comes again later gets in.
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let core = Arc::clone(&core);
        core.tasks.clone().spawn(async move {
            let shutdown = core.shutdown.clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                _late = tokio::time::timeout(CONNECTION_PATIENCE, converse(core, stream)) => {}
            }
            drop(place);
        });
    }
}

async fn converse(core: Arc<Core>, stream: BoxStream) {
    let answer = service_fn(move |request| {
        let core = Arc::clone(&core);
        async move { Ok::<_, Infallible>(answer(&core, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        // The date would come from the system's clock, which nothing here asks by itself.
        .auto_date_header(false)
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        debug!(%error, "an admin connection broke");
    }
}

async fn answer(core: &Arc<Core>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/health") => plain(StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET, "/ready") => match status::not_ready(core) {
            reasons if reasons.is_empty() => plain(StatusCode::OK, "ok\n".to_owned()),
            reasons => plain(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
        },
        (&Method::GET, "/metrics") => {
            typed(StatusCode::OK, "text/plain; version=0.0.4", metrics::text(core))
        }
        (&Method::GET, "/api/status") => {
            typed(StatusCode::OK, "application/json", status::json(core).to_string())
        }
        (&Method::POST, "/api/leave") => {
            core.leave_asked.cancel();
            plain(StatusCode::ACCEPTED, "leaving\n".to_owned())
        }
        (&Method::POST, "/api/drain") => match value_of(query, "node") {
            Some(name) => drain(core, &name).await,
            None => plain(StatusCode::BAD_REQUEST, "which node? say ?node=NAME\n".to_owned()),
        },
        (&Method::POST, "/api/found") => found(core),
        (&Method::GET, "/api/losses") => losses(core).await,
        (&Method::POST, "/api/ended") => match value_of(query, "node") {
            Some(name) => ended(core, &name).await,
            None => plain(StatusCode::BAD_REQUEST, "which node? say ?node=NAME\n".to_owned()),
        },
        (
            _,
            "/health" | "/ready" | "/metrics" | "/api/status" | "/api/leave" | "/api/drain"
            | "/api/found" | "/api/losses" | "/api/ended",
        ) => plain(StatusCode::METHOD_NOT_ALLOWED, "not this method\n".to_owned()),
        _ => plain(StatusCode::NOT_FOUND, "no such page\n".to_owned()),
    }
}

async fn drain(core: &Arc<Core>, name: &str) -> Response<Full<Bytes>> {
    let Some(table) = core.tables.newest() else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "not a member yet\n".to_owned());
    };
    let Some(member) = table.member_named(name) else {
        return plain(StatusCode::NOT_FOUND, format!("no member is called {name}\n"));
    };
    match council::ask_to_leave(core, member.node).await {
        Ok(()) => plain(StatusCode::ACCEPTED, format!("{name} is being drained\n")),
        Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

/// Lets a node that waits for others found a cluster without them.
fn found(core: &Core) -> Response<Full<Bytes>> {
    match core.tables.newest() {
        Some(_) => plain(StatusCode::CONFLICT, "a member of a cluster already\n".to_owned()),
        None => {
            core.found_asked.cancel();
            let text = "founding, unless a cluster is found at the next attempt\n";
            plain(StatusCode::ACCEPTED, text.to_owned())
        }
    }
}

/// The groups that do not come back by themselves, one a line.
async fn losses(core: &Arc<Core>) -> Response<Full<Bytes>> {
    match recovery::losses_now(core).await {
        Ok(losses) => {
            let lines = losses.iter().map(|(group, why)| format!("{group} {why}\n"));
            plain(StatusCode::OK, lines.collect())
        }
        Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn ended(core: &Arc<Core>, name: &str) -> Response<Full<Bytes>> {
    match recovery::vouch(core, name).await {
        Ok(_) => plain(StatusCode::ACCEPTED, format!("{name} counts as ended\n")),
        Err(reason) => plain(StatusCode::CONFLICT, format!("{reason}\n")),
    }
}

/// The value under this name in a query.
fn value_of<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", text)
}

fn typed(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_any_characters() {
        let check =
            |query, name: Option<&str>| assert_eq!(value_of(query, "node").as_deref(), name);
        check("node=127.0.0.1:17001", Some("127.0.0.1:17001"));
        check("node=127.0.0.1%3A17001", Some("127.0.0.1:17001"));
        check("node=rack+4%2Fa%26b%3D%C3%A9%2B", Some("rack 4/a&b=é+"));
        check("then=now&node=a%20b&node=c", Some("a b"));
        check("node", Some(""));
        check("", None);
        check("nodes=a", None);
    }
}
