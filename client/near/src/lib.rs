//! The rules of near caches: when a copy of a value may be kept, until when it may be served, and who has to
//! be told that it changed. Knows nothing of values, of I/O, of clocks or of chance: the time is an argument.
//!
//! **The promise.** A copy that [`Feed::may_serve`] lets through at a moment is no older than the bound:
//! no newer version of its key was acknowledged before that moment less the bound. It holds whatever is
//! lost, late, repeated or reordered on the way, under what follows here.
//!
//! **What it takes.** Loads are linearizable reads at the leader. The leader [registers](Interests::register)
//! the reader's interest *before* it reads, and tells [`Interests`] of a change after it was applied and
//! *before* it is acknowledged. It [answers](Interests::answer) a question of the reader only if it saw that
//! its lease holds *after* that question had come.
//!
//! **Why it holds.** Take a copy that is served at `now`, and a newer version acknowledged before `now` less
//! the bound. Serving needs proof: a question sent after `now` less the bound, so after the acknowledgement,
//! whose answer covers the change, since who answered held the lease afterwards. What the answer covers is taken
//! in before the proof is, so the change has reached the reader: the key was registered before the copy was
//! read, and either its invalidation came, or something in between was lost and the feed was reset. Both end
//! the copy for good, wherever it is by then: stored, about to be stored, or still on its way.
//!
//! Interest is *one-shot*: a change of a key is told once, and the key is forgotten until it is read again.
//! The change ends every copy that the interest stood for, and a new copy comes only with a load, which
//! registers; so lasting interest would buy nothing, and be told of each write to keys that nobody reads any more.
//!
//! The reader has one [`Feed`] for each partition. What drives it depends on what carries the news: between
//! nodes [`Inbox`] takes the numbered answers of [`Interests`]; a client of `CLIENT TRACKING` uses [`Follower`],
//! calls [`Feed::invalidated`] for each push, and probes on the same connection.

mod bulletin;
mod feed;
mod follower;
mod inbox;
mod interests;
mod moment;

pub use bulletin::{Bulletin, News, Position, Stamp, StreamId};
pub use feed::{Cells, Feed, KeyHash, Mark, Ticket};
pub use follower::{Follower, Probe};
pub use inbox::{Inbox, Question, Taken};
pub use interests::{Interests, Limits, ReaderId, Refused, Registered};
pub use moment::Moment;
