//! What the service answers. Each outcome of the cache has an answer of its own.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use scatterhoard_client::cache::{AfterStore, LoadError, SourceError, Sourced};
use scatterhoard_client::stats::Reads;
use serde_json::{Value, json};

use crate::database::{Article, ArticleId, Database, DatabaseError};

/// The database behind its cache.
type Articles = Sourced<ArticleId, Article, Database>;

pub(crate) fn routes(articles: Articles) -> Router {
    Router::new()
        .route("/articles/{id}", get(read).put(write).delete(remove))
        .route("/stats", get(stats))
        .with_state(articles)
}

/// From this process, from the cluster, or from the database: whoever has it first. Of all who ask for what nobody
/// has, in all processes, one loads it.
async fn read(State(articles): State<Articles>, Path(id): Path<ArticleId>) -> Response {
    match articles.load(&id).await {
        Ok(Some(article)) => Json(&*article).into_response(),
        // That it is not there is remembered, too: the next who asks does not reach the database.
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        // The cluster is away, and so many load already that more would only hurt the database.
        Err(error @ LoadError::Spared(_)) => told(StatusCode::SERVICE_UNAVAILABLE, &error),
        Err(error) => told(StatusCode::BAD_GATEWAY, &error),
    }
}

/// The database first, then the caches; acknowledged when nobody loads the old article any more.
async fn write(
    State(articles): State<Articles>,
    Path(id): Path<ArticleId>,
    Json(article): Json<Article>,
) -> Response {
    written(articles.store(&id, article, AfterStore::Remove).await)
}

async fn remove(State(articles): State<Articles>, Path(id): Path<ArticleId>) -> Response {
    written(articles.remove(&id).await)
}

fn written(outcome: Result<(), SourceError<DatabaseError>>) -> Response {
    match outcome {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        // It is in the database, but what the cluster has is older, and may be shown until its time is over. To do it
        // again once the cluster is back puts that right.
        Err(error @ SourceError::StillCached(_)) => told(StatusCode::SERVICE_UNAVAILABLE, &error),
        Err(error) => told(StatusCode::BAD_GATEWAY, &error),
    }
}

async fn stats(State(articles): State<Articles>) -> Json<Value> {
    let counts = articles.cache().stats().counts();
    let reads = |reads: Reads| json!({ "hits": reads.hits, "misses": reads.misses });
    Json(json!({
        "total": reads(counts.total()),
        "near": reads(counts.near),
        "cluster": reads(counts.cluster),
        "loads": counts.loads,
        "load_failures": counts.load_failures,
    }))
}

fn told(status: StatusCode, error: &dyn std::error::Error) -> Response {
    (status, format!("{error}\n")).into_response()
}
