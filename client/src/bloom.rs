//! A guard in front of a source: what surely does not exist need not be loaded.
//!
//! A [`Guard`] asks a Bloom filter in the cluster (`BF.MEXISTS`) whether an item may exist. *No* is certain, and keeps
//! requests for what was never there from the source; *yes* may be wrong, as often as the filter was reserved for.
//!
//! ```no_run
//! # async fn store(user: &str) {}
//! # async fn example() -> Result<(), scatterhoard_client::Error> {
//! use scatterhoard_client::bloom::Guard;
//! use scatterhoard_client::level::{HoardLevel, LevelConfig};
//!
//! let level = HoardLevel::connect(LevelConfig::new(["127.0.0.1:7001"])).await?;
//! let guard = Guard::new(level, "users:there");
//! // Once: a filter for a million, wrong about one absent item in a hundred. All that exists is added; then it counts.
//! guard.reserve(1_000_000, 0.01).await?;
//! guard.add_many(["ann", "bob"]).await?;
//! guard.seal().await?;
//! // Whoever makes something adds it first.
//! guard.add("eve").await?;
//! store("eve").await;
//! assert!(guard.may_exist("eve").await?);
//! if !guard.may_exist("mallory").await? {
//!     // Surely not there: nothing to load.
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # No false negatives
//!
//! What was added is never denied: not by the cluster, whose filters are replicated and never forget an item; not by
//! what this process keeps of its answers, beyond the bound of near copies; and not when the filter is gone.
//!
//! *When the filter is gone* (evicted, deleted, flushed, its partition lost), or not filled yet, the cluster would say
//! of everything that it is not there. So a filter counts only once it is [sealed](Guard::seal), which is an addition
//! too: of eight items that each question asks for along with its own, in the same atomic command. If one of them is
//! missing, nothing is denied. That a filter has all eight without having been sealed is as likely as eight wrong
//! answers at once: 1 in 10¹⁶ for one wrong in a hundred.
//!
//! *What is kept here* is absent items, each with the [`Mark`] of the answer that said so: of the filter's key, as if
//! it were a copy of that. Any addition that changes the filter is a change of its key, and ends all of them, within
//! the bound that the level promises, whatever is lost. What this process adds itself is forgotten here before the
//! addition is sent, and once more when it was answered; and an answer that was under way then is not kept.
//!
//! *So the order is*: add to the filter, wait for the answer, then store. Whoever reads the item from the source had
//! its addition acknowledged before.
//!
//! # What is kept, and what not
//!
//! Answers are kept, and not the bits. Answers are exact under the rules that near copies have anyway, cost what the
//! absent items that are asked for cost, and nothing for a filter that nobody asks. The price: an item that was not
//! asked for lately takes a round trip, and so does each after a change of the filter. Bits would answer for all
//! items, but each addition makes them old as a whole, and a filter for a million is 1.2 MB to fetch anew.
//!
//! [`HoardLevel`](crate::level::HoardLevel) gives marks; a cache and any number of guards may share one. [`Cluster`]
//! gives none, and is asked each time.
//!
//! # What a reader may see
//! With [`Cluster`]: *no* only of what was not added before it asked. With a level that gives marks: *no* also of what
//! somebody else added within the bound before it asked (200 ms unless chosen otherwise); of what was added through
//! the same level never, once that was answered. When the filter is deleted or evicted, *no* may be said for as long
//! as it takes to hear of that, of what was absent from it. *Yes* may be said of anything at any time.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::level::{Mark, Moment};
use crate::{Clock, Cluster, Command, Error, Value};

mod absent;
#[cfg(any(test, feature = "suite"))]
pub mod suite;
#[cfg(test)]
mod tests;

use absent::Absent;

/// Items that a sealed filter has.
const SEALS: [&[u8]; 8] = [
    b"scatterhoard:sealed:0",
    b"scatterhoard:sealed:1",
    b"scatterhoard:sealed:2",
    b"scatterhoard:sealed:3",
    b"scatterhoard:sealed:4",
    b"scatterhoard:sealed:5",
    b"scatterhoard:sealed:6",
    b"scatterhoard:sealed:7",
];

/// Absent items that are kept unless it was chosen otherwise: a few MB.
const KEPT_COUNT: usize = 1 << 16;

/// Where filters are. [`Cluster`] is one, that is asked each time; a level with near copies, as
/// [`HoardLevel`](crate::level::HoardLevel), can give marks.
pub trait FilterLevel: Send + Sync + 'static {
    /// Whether these items may have been added, in one atomic read.
    ///
    /// # Errors
    /// See [`Error`].
    fn ask<'a>(
        &'a self,
        filter: &'a [u8],
        items: &'a [Bytes],
    ) -> BoxFuture<'a, Result<Answers, Error>>;

    /// Adds items. Answers with which of them are new, as far as the filter can tell. Marks that this level gave for
    /// the filter until the answer do not serve after it.
    ///
    /// # Errors
    /// See [`Error`]. It does no harm to add again.
    fn add<'a>(
        &'a self,
        filter: &'a [u8],
        items: &'a [Bytes],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>>;

    /// Makes a filter for so many items, which says of this share of the absent ones that they may be there.
    ///
    /// # Errors
    /// See [`Error`]; refused if the key has something.
    fn reserve<'a>(
        &'a self,
        filter: &'a [u8],
        capacity: u32,
        error_rate: f64,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Whether an answer with this mark may be repeated at this moment. Asked after the answer was found.
    fn may_serve(&self, mark: &Mark, now: Moment) -> bool;
}

/// What a filter says.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Of each item, in their order.
    pub may_exist: Vec<bool>,
    /// What to keep beside them: it dies with the next change of the filter's key. `None`: they are not to be kept.
    pub mark: Option<Mark>,
}

impl FilterLevel for Cluster {
    fn ask<'a>(
        &'a self,
        filter: &'a [u8],
        items: &'a [Bytes],
    ) -> BoxFuture<'a, Result<Answers, Error>> {
        async move {
            let may_exist = flags(self.run(asking(filter, items)).await?)?;
            Ok(Answers { may_exist, mark: None })
        }
        .boxed()
    }

    fn add<'a>(
        &'a self,
        filter: &'a [u8],
        items: &'a [Bytes],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        async move { flags(self.run(adding(filter, items)).await?) }.boxed()
    }

    fn reserve<'a>(
        &'a self,
        filter: &'a [u8],
        capacity: u32,
        error_rate: f64,
    ) -> BoxFuture<'a, Result<(), Error>> {
        async move { self.run(reserving(filter, capacity, error_rate)).await.map(drop) }.boxed()
    }

    fn may_serve(&self, _: &Mark, _: Moment) -> bool {
        false
    }
}

/// The command that asks for items.
pub(crate) fn asking(filter: &[u8], items: &[Bytes]) -> Command {
    items.iter().fold(Command::read("BF.MEXISTS").key(filter), Command::arg)
}

/// The command that adds items.
pub(crate) fn adding(filter: &[u8], items: &[Bytes]) -> Command {
    items.iter().fold(Command::write("BF.MADD").key(filter), Command::arg)
}

/// The command that makes a filter.
pub(crate) fn reserving(filter: &[u8], capacity: u32, error_rate: f64) -> Command {
    let command = Command::write("BF.RESERVE").key(filter).arg(error_rate.to_string());
    command.number(capacity.into())
}

/// What `BF.MEXISTS` and `BF.MADD` answer: integers, in RESP3 booleans. An error in the place of one is the filter's
/// that is full: that item was not added, and none behind it.
pub(crate) fn flags(answer: Value) -> Result<Vec<bool>, Error> {
    let Value::Array(answers) = answer else { return Err(answer.unexpected("answers")) };
    let flag = |answer| match answer {
        Value::Integer(number) => Ok(number != 0),
        Value::Boolean(flag) => Ok(flag),
        Value::Error(code, text) => Err(Error::Refused { code, text }),
        other => Err(other.unexpected("whether it is there")),
    };
    answers.into_iter().map(flag).collect()
}

/// Says what surely does not exist. See [the module](self) for what it promises.
#[derive(Debug)]
pub struct Guard<L = Cluster> {
    level: Arc<L>,
    filter: Bytes,
    absent: Arc<Absent>,
}

impl<L> Clone for Guard<L> {
    /// Both share what they keep.
    fn clone(&self) -> Self {
        let (level, absent) = (Arc::clone(&self.level), Arc::clone(&self.absent));
        Self { level, filter: self.filter.clone(), absent }
    }
}

impl<L: FilterLevel> Guard<L> {
    /// By the filter with this key.
    #[must_use]
    pub fn new(level: L, filter: impl AsRef<[u8]>) -> Self {
        Self::keeping(Arc::new(level), filter, KEPT_COUNT)
    }

    /// The same, by a level that others use as well, and with so many absent items that are kept; 0: none.
    #[must_use]
    pub fn keeping(level: Arc<L>, filter: impl AsRef<[u8]>, absent_count_max: usize) -> Self {
        let filter = Bytes::copy_from_slice(filter.as_ref());
        Self { level, filter, absent: Arc::new(Absent::new(absent_count_max)) }
    }

    /// Makes the filter: for so many items, and wrong about this share of the absent ones. It grows beyond that many,
    /// at the price of some memory and time.
    ///
    /// # Errors
    /// See [`Error`]; refused if there is one already.
    pub async fn reserve(&self, capacity: u32, error_rate: f64) -> Result<(), Error> {
        self.level.reserve(&self.filter, capacity, error_rate).await
    }

    /// Adds an item; before it is stored, so that it is never there and denied. Answers with whether it is new, as far
    /// as the filter can tell.
    ///
    /// # Errors
    /// See [`Error`]. It does no harm to add again.
    pub async fn add(&self, item: impl AsRef<[u8]>) -> Result<bool, Error> {
        Ok(self.add_many([item]).await?.pop().unwrap_or(false))
    }

    /// Adds several items, in one request.
    ///
    /// # Errors
    /// As [`Self::add`]. Some may have been added.
    pub async fn add_many<I: AsRef<[u8]>>(
        &self,
        items: impl IntoIterator<Item = I>,
    ) -> Result<Vec<bool>, Error> {
        let items: Vec<_> =
            items.into_iter().map(|it| Bytes::copy_from_slice(it.as_ref())).collect();
        if items.is_empty() {
            return Ok(Vec::new());
        }
        self.absent.adds(&items);
        let added = self.level.add(&self.filter, &items).await;
        self.absent.adds(&items);
        complete(added?, items.len())
    }

    /// Says that all that exists has been added, and that all that will exist is added first: from now on the filter
    /// counts. Before that, and if the filter is lost, everything may exist.
    ///
    /// # Errors
    /// See [`Error`]. It does no harm to seal again.
    pub async fn seal(&self) -> Result<(), Error> {
        self.add_many(SEALS).await.map(drop)
    }

    /// Whether an item may exist. `false` is certain.
    ///
    /// # Errors
    /// See [`Error`]: nothing is known, so it may exist.
    pub async fn may_exist(&self, item: impl AsRef<[u8]>) -> Result<bool, Error> {
        let item = item.as_ref();
        if self.is_known_absent(item) {
            return Ok(false);
        }
        let answers = self.ask(vec![Bytes::copy_from_slice(item)]).await?;
        Ok(answers.first().is_none_or(|&may| may))
    }

    /// Whether several items may exist, in their order, with one request for all that are not known here.
    ///
    /// # Errors
    /// As [`Self::may_exist`].
    pub async fn may_exist_many<I: AsRef<[u8]>>(&self, items: &[I]) -> Result<Vec<bool>, Error> {
        let mut answers = vec![false; items.len()];
        let unknown: Vec<_> =
            (0..items.len()).filter(|&at| !self.is_known_absent(items[at].as_ref())).collect();
        if unknown.is_empty() {
            return Ok(answers);
        }
        let asked = unknown.iter().map(|&at| Bytes::copy_from_slice(items[at].as_ref()));
        let told = self.ask(asked.collect()).await?;
        for (at, may) in unknown.into_iter().zip(told) {
            answers[at] = may;
        }
        Ok(answers)
    }

    fn is_known_absent(&self, item: &[u8]) -> bool {
        let mark = self.absent.look(item);
        mark.is_some_and(|mark| self.level.may_serve(&mark, Clock::new().now()))
    }

    /// Asks the cluster, for the seals too, and keeps what is absent.
    async fn ask(&self, items: Vec<Bytes>) -> Result<Vec<bool>, Error> {
        let count = items.len();
        let asked = self.absent.asked();
        let mut questions = items;
        questions.extend(SEALS.map(Bytes::from_static));
        let Answers { may_exist, mark } = self.level.ask(&self.filter, &questions).await?;
        let mut may_exist = complete(may_exist, questions.len())?;
        let seals = may_exist.split_off(count);
        if !seals.into_iter().all(|is_there| is_there) {
            return Ok(vec![true; count]);
        }
        if let Some(mark) = mark {
            let answered = questions.into_iter().zip(&may_exist);
            let absent = answered.filter(|&(_, &may)| !may).map(|(item, _)| item);
            self.absent.keep(asked, absent, mark);
        }
        Ok(may_exist)
    }
}

/// One answer for each question.
fn complete(answers: Vec<bool>, count: usize) -> Result<Vec<bool>, Error> {
    if answers.len() == count {
        return Ok(answers);
    }
    Err(Error::BadReply(format!("{} answers to {count} questions", answers.len())))
}
