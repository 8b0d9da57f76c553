//! Articles in SQLite: the source that the cache stands in front of. It knows nothing of caches.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use scatterhoard_client::cache::DataSource;
use serde::{Deserialize, Serialize};

/// What an article says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Article {
    pub(crate) title: String,
    pub(crate) body: String,
}

/// One file, that several processes may have open. Its connection is used by one thread at a time.
#[derive(Clone)]
pub(crate) struct Database {
    connection: Arc<Mutex<Connection>>,
}

/// Why the database did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    /// SQLite refused, and nothing was done.
    #[error(transparent)]
    Refused(#[from] rusqlite::Error),
    /// The thread died that asked it. It may have been done.
    #[error("the outcome is not known: {0}")]
    InDoubt(#[from] tokio::task::JoinError),
}

impl Database {
    /// Opens a file, which is made if there is none.
    pub(crate) fn open(file: impl AsRef<Path>) -> Result<Self, rusqlite::Error> {
        let connection = Connection::open(file)?;
        // Readers do not wait for a writer in another process; two writers do, and not for ever.
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.execute_batch(
            "create table if not exists articles (id integer primary key, title text, body text)",
        )?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    /// SQLite waits for the disk, so it is asked by a thread that may wait.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let connection = Arc::clone(&self.connection);
        Ok(tokio::task::spawn_blocking(move || question(&connection.lock())).await??)
    }
}

/// Ids as SQLite has them.
pub(crate) type ArticleId = i64;

impl DataSource<ArticleId, Article> for Database {
    type Error = DatabaseError;

    async fn load(&self, &id: &ArticleId) -> Result<Option<Article>, DatabaseError> {
        self.ask(move |connection| {
            connection
                .query_row("select title, body from articles where id = ?", [id], |row| {
                    Ok(Article { title: row.get(0)?, body: row.get(1)? })
                })
                .optional()
        })
        .await
    }

    async fn store(&self, &id: &ArticleId, article: &Article) -> Result<(), DatabaseError> {
        let Article { title, body } = article.clone();
        self.ask(move |connection| {
            let sql = "insert or replace into articles (id, title, body) values (?, ?, ?)";
            connection.execute(sql, params![id, title, body]).map(drop)
        })
        .await
    }

    async fn remove(&self, &id: &ArticleId) -> Result<(), DatabaseError> {
        self.ask(move |connection| {
            connection.execute("delete from articles where id = ?", [id]).map(drop)
        })
        .await
    }

    fn in_doubt(error: &DatabaseError) -> bool {
        match error {
            DatabaseError::Refused(_) => false,
            DatabaseError::InDoubt(_) => true,
        }
    }
}
