//! From the words of a request to what they mean.

pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod expiry;
pub(crate) mod filters;
pub(crate) mod keyspace;
pub(crate) mod load;
mod refused;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod span;
pub(crate) mod strings;

pub(crate) use refused::refused_subcommand;

use scatterhoard_resp::Args;
use scatterhoard_store::UnixMillis;

use crate::{Command, CommandError, CommandSpec, number, resolve};

/// What a request means. `now` is the wall clock, for checking that deadlines can be expressed.
///
/// As [`resolve`] and then [`CommandSpec::parse`].
///
/// # Errors
/// What [`resolve`] refuses, and arguments that make no sense to the command.
pub fn parse(args: Args<'_>, now: UnixMillis) -> Result<Command<'_>, CommandError> {
    resolve(args)?.parse(args, now)
}

impl CommandSpec {
    /// What a request means that [`resolve`] gave this entry for.
    ///
    /// # Errors
    /// Arguments that make no sense to the command.
    ///
    /// # Panics
    /// With fewer words than [`CommandSpec::accepts`].
    pub fn parse<'a>(
        &'static self,
        args: Args<'a>,
        now: UnixMillis,
    ) -> Result<Command<'a>, CommandError> {
        (self.grammar)(Request { args, now, spec: self })
    }
}

/// How one command is read.
pub(crate) type Grammar = for<'a> fn(Request<'a>) -> Parsed<'a>;

/// A key and its value, or a setting and its value.
type Pair<'a> = (&'a [u8], &'a [u8]);

pub(crate) type Parsed<'a> = Result<Command<'a>, CommandError>;

/// A request with as many words as its command takes.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    args: Args<'a>,
    now: UnixMillis,
    spec: &'static CommandSpec,
}

impl<'a> Request<'a> {
    /// How many words, the name included.
    fn len(self) -> usize {
        self.args.len()
    }

    /// The word at this place; the name is at 0.
    fn word(self, index: usize) -> &'a [u8] {
        self.args.get(index).expect("the number of arguments was checked")
    }

    /// The words from this place on.
    fn words_from(self, first: usize) -> Vec<&'a [u8]> {
        self.args.iter().skip(first).collect()
    }

    /// The words from this place on, two by two; an odd one at the end is left out.
    fn pairs_from(self, first: usize) -> Vec<Pair<'a>> {
        let mut words = self.args.iter().skip(first);
        std::iter::from_fn(|| Some((words.next()?, words.next()?))).collect()
    }

    fn integer(self, index: usize) -> Result<i64, CommandError> {
        number::integer(self.word(index)).ok_or(CommandError::NotAnInteger)
    }

    /// What stands from this place on, to be taken one by one.
    fn options_from(self, first: usize) -> Options<'a> {
        Options { args: self.args, next: first }
    }
}

/// Words that are options, and what belongs to them.
struct Options<'a> {
    args: Args<'a>,
    next: usize,
}

impl<'a> Options<'a> {
    /// What belongs to the option just taken.
    fn value(&mut self) -> Result<&'a [u8], CommandError> {
        self.next().ok_or(CommandError::Syntax)
    }

    fn left(&self) -> usize {
        self.args.len().saturating_sub(self.next)
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let word = self.args.get(self.next)?;
        self.next += 1;
        Some(word)
    }
}

/// What a word means among some that have a meaning, in any case of letters.
fn meaning<T: Copy>(word: &[u8], meanings: &[(&str, T)]) -> Option<T> {
    meanings.iter().find(|(option, _)| is(word, option)).map(|&(_, meaning)| meaning)
}

/// Whether a word is this option, in any case of letters.
fn is(word: &[u8], option: &str) -> bool {
    word.eq_ignore_ascii_case(option.as_bytes())
}
