//! Commands, and what they may do.

use std::time::Duration;

use scatterhoard_ring::Slot;

/// What a command may do to what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it may be asked twice.
    Reads,
    /// Something: it is sent again only if it is certain that it was not done.
    Writes,
}

/// A command, as it is sent. All its keys must be in one slot.
#[derive(Clone)]
pub struct Command {
    pub(crate) words: redis::Cmd,
    pub(crate) slot: Option<Slot>,
    pub(crate) effect: Effect,
}

impl Command {
    /// One that changes nothing.
    #[must_use]
    pub fn read(name: &str) -> Self {
        Self { words: redis::cmd(name), slot: None, effect: Effect::Reads }
    }

    /// One that may change something.
    #[must_use]
    pub fn write(name: &str) -> Self {
        Self { words: redis::cmd(name), slot: None, effect: Effect::Writes }
    }

    /// Adds a key. The first one says where the command goes; without any it goes anywhere.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        let key = key.as_ref();
        self.slot.get_or_insert_with(|| Slot::of(key));
        self.words.arg(key);
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, word: impl AsRef<[u8]>) -> Self {
        self.words.arg(word.as_ref());
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, number: i64) -> Self {
        self.words.arg(number);
        self
    }

    /// Adds a time as whole milliseconds, at least one.
    #[must_use]
    pub fn millis(mut self, time: Duration) -> Self {
        self.words.arg(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
        self
    }
}

impl std::fmt::Debug for Command {
    /// Without its arguments: they are the user's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.words.args_iter().next() {
            Some(redis::Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
            Some(_) | None => String::new(),
        };
        f.debug_struct("Command")
            .field("name", &name)
            .field("slot", &self.slot)
            .field("effect", &self.effect)
            .finish_non_exhaustive()
    }
}

/// How a key is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetOptions {
    /// Only under this condition.
    pub when: SetWhen,
    /// For how long.
    pub lives: Lives,
}

/// When a key is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SetWhen {
    /// In any case.
    #[default]
    Always,
    /// If it is absent.
    Absent,
    /// If it is there.
    Present,
    /// If it has this value.
    Equal(Vec<u8>),
}

/// For how long a key is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lives {
    /// Until it is deleted or evicted.
    #[default]
    Forever,
    /// For so long; milliseconds count.
    For(Duration),
    /// As long as what was there before.
    AsBefore,
}

impl SetOptions {
    /// Only if it is absent.
    #[must_use]
    pub fn absent(mut self) -> Self {
        self.when = SetWhen::Absent;
        self
    }

    /// Only if it is there.
    #[must_use]
    pub fn present(mut self) -> Self {
        self.when = SetWhen::Present;
        self
    }

    /// Only if it has this value.
    #[must_use]
    pub fn equal(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.when = SetWhen::Equal(value.into());
        self
    }

    /// For so long.
    #[must_use]
    pub fn lives_for(mut self, time: Duration) -> Self {
        self.lives = Lives::For(time);
        self
    }

    /// As long as what was there before.
    #[must_use]
    pub fn lives_as_before(mut self) -> Self {
        self.lives = Lives::AsBefore;
        self
    }

    pub(crate) fn put(&self, mut command: Command) -> Command {
        command = match &self.when {
            SetWhen::Always => command,
            SetWhen::Absent => command.arg("NX"),
            SetWhen::Present => command.arg("XX"),
            SetWhen::Equal(value) => command.arg("IFEQ").arg(value),
        };
        match self.lives {
            Lives::Forever => command,
            Lives::For(time) => command.arg("PX").millis(time),
            Lives::AsBefore => command.arg("KEEPTTL"),
        }
    }
}
