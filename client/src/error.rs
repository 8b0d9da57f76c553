//! What can become of a request that was not answered as asked.

/// Why there is no answer, and what that means for the world.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing happened, and nothing will: it was never handed to a connection, or those who could have done it said
    /// that they have not. It may be sent again.
    #[error("not done: {0}")]
    NotDone(String),
    /// It may have happened, may happen yet, or not. Whoever wants to know has to look.
    #[error("in doubt: {0}")]
    InDoubt(String),
    /// The server refused it: nothing happened, and nothing will as long as it is asked like this.
    #[error("{code} {text}")]
    Refused {
        /// The first word of the error, such as `WRONGTYPE`.
        code: String,
        /// The rest of it.
        text: String,
    },
    /// It was answered, but not with what such a command is answered with. A write has been done.
    #[error("a reply that makes no sense: {0}")]
    BadReply(String),
}
