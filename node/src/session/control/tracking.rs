//! `CLIENT TRACKING` and its relatives, and the one channel that a client in RESP2 hears of it by.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use scatterhoard_command::{Command, CommandError, SessionCommand, Tracking};
use scatterhoard_resp::Encoder;
use tokio::time::Instant;

use super::super::stage::Door;
use super::Control;
use crate::tracking::{Asker, CHANNEL, Choice, Mode, Redirect, Tracker};

/// Prefixes that one client may broadcast: each is compared with all others, and every write looks for
/// them. Redis has no limit.
const PREFIXES_COUNT_MAX: usize = 1000;

/// Bytes of all of them.
const PREFIXES_BYTES_MAX: usize = 64 << 10;

/// Why somebody may not track so. Nothing was changed. The texts are those of Redis 7.0.15 where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum NotTracked {
    #[error("The client ID you want redirect to does not exist")]
    NoSuchClient,
    #[error("PREFIX option requires BCAST mode to be enabled")]
    PrefixWithoutBroadcast,
    #[error(
        "You can't switch BCAST mode on/off before disabling tracking for this client, and then \
         re-enabling it with a different mode."
    )]
    OtherMode,
    #[error("OPTIN and OPTOUT are not compatible with BCAST")]
    ChoiceWithBroadcast,
    #[error("You can't specify both OPTIN mode and OPTOUT mode")]
    InAndOut,
    #[error(
        "You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
         re-enabling it with a different mode."
    )]
    OtherChoice,
    #[error(
        "Prefix '{new}' overlaps with an existing prefix '{held}'. Prefixes for a single client must \
         not overlap."
    )]
    OverlapsHeld { new: String, held: String },
    #[error(
        "Prefix '{new}' overlaps with another provided prefix '{other}'. Prefixes for a single client \
         must not overlap."
    )]
    OverlapsOther { new: String, other: String },
    #[error("a client may track {PREFIXES_COUNT_MAX} prefixes at most")]
    TooManyPrefixes,
    #[error("a client's prefixes may have {PREFIXES_BYTES_MAX} bytes in all")]
    PrefixesTooLong,
    #[error(
        "CLIENT TRACKING is not supported on the any-key port, as keys of other nodes cannot be \
         tracked from here; use the cluster port, {port}"
    )]
    AnyKey { port: u16 },
}

impl Control {
    /// For whom the command that comes is read or written.
    pub(in crate::session) fn asks(&mut self, command: &Command<'_>) -> Asker {
        let Some(tracker) = &self.tracker else {
            return Asker { near: self.near, ..Asker::default() };
        };
        let writer = tracker.no_loop.then_some(tracker.id);
        if matches!(command, Command::Session(SessionCommand::Client(_))) {
            return Asker { reader: None, writer, near: false };
        }
        let caching = std::mem::take(&mut self.caching);
        let tracks = match &tracker.mode {
            Mode::Broadcast(_) => false,
            Mode::Reads(Choice::All) => true,
            Mode::Reads(Choice::OptIn) => caching,
            Mode::Reads(Choice::OptOut) => !caching,
        };
        Asker { reader: tracks.then_some(tracker.id), writer, near: false }
    }

    /// The session ends: nothing is tracked for it, and nobody hears anything through it.
    pub(in crate::session) fn hang_up(&mut self) {
        self.client.outbox.close();
        self.track_nothing();
    }

    /// Answers with what this node leads at a moment after it was asked; behind all that this client is to hear of
    /// until then. What was acknowledged before has been told by then, as long as nobody else leads: it is told
    /// before it is acknowledged.
    pub(super) fn probe(&mut self, out: &mut Vec<u8>) {
        if self.door != Door::Cluster {
            let why = CommandError::NotHere(
                "HOARD.PROBE is not supported on the any-key port: nothing is tracked there",
            );
            return self.refuse(&mut Encoder::new(out, self.protocol), &why);
        }
        let now = Instant::now();
        let led = self.core.hosting.now().led();
        let proven: Vec<_> = led.iter().filter_map(|it| Some((it, it.term(now)?))).collect();
        // What follows is cut off if the client wants no reply. What it is to hear is not a reply.
        if !self.mutes() {
            self.client.outbox.drain(self.protocol, out);
        }
        let mut reply = Encoder::new(out, self.protocol);
        reply.array(proven.len());
        for (partition, term) in proven {
            let spec = partition.group.spec();
            reply.array(5);
            reply.integer(partition.slots.first().number().into());
            reply.integer(partition.slots.last().number().into());
            reply.integer(spec.generation.number().into());
            reply.integer(i64::try_from(term).unwrap_or(i64::MAX));
            let index = partition.group.applied_index();
            reply.integer(i64::try_from(index).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn track(&mut self, asked: &Tracking<'_>, reply: &mut Encoder<'_>) {
        match self.tracker_for(asked) {
            Ok(tracker) => {
                self.caching = false;
                self.set_tracker(Some(Arc::new(tracker)));
                reply.ok();
            }
            Err(why) => self.refuse_text(reply, &why.to_string()),
        }
    }

    pub(super) fn track_nothing(&mut self) {
        self.caching = false;
        self.set_tracker(None);
    }

    fn set_tracker(&mut self, tracker: Option<Arc<Tracker>>) {
        match (&tracker, &self.tracker) {
            (Some(new), _) => self.core.tracking.follow(Arc::clone(new)),
            (None, Some(old)) => self.core.tracking.leave(old),
            (None, None) => {}
        }
        self.client.tracks(tracker.clone());
        self.tracker = tracker;
    }

    fn tracker_for(&self, asked: &Tracking<'_>) -> Result<Tracker, NotTracked> {
        if self.door != Door::Cluster {
            return Err(NotTracked::AnyKey { port: self.core.endpoints.listen.port() });
        }
        let redirect = match asked.redirect {
            None => None,
            Some(id) => {
                let found = u64::try_from(id).ok().and_then(|id| self.core.clients.with_id(id));
                let target = found.ok_or(NotTracked::NoSuchClient)?;
                Some(Redirect { client: target.id, outbox: Arc::clone(&target.outbox) })
            }
        };
        let mode = mode_for(asked, self.tracker.as_ref().map(|tracker| &tracker.mode))?;
        Ok(Tracker {
            id: self.tracker.as_ref().map_or_else(|| self.core.tracking.next_id(), |it| it.id),
            mode,
            no_loop: asked.no_loop,
            redirect,
            broken: AtomicBool::new(false),
            own: Arc::clone(&self.client.outbox),
        })
    }

    pub(super) fn note_caching(&mut self, yes: Option<bool>, reply: &mut Encoder<'_>) {
        let mode = self.tracker.as_ref().map(|tracker| &tracker.mode);
        let refusal = match (mode, yes) {
            (None, _) => {
                "CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or \
                 OPTOUT mode enabled"
            }
            (Some(_), None) => "syntax error",
            (Some(Mode::Reads(Choice::OptIn)), Some(true))
            | (Some(Mode::Reads(Choice::OptOut)), Some(false)) => {
                self.caching = true;
                return reply.ok();
            }
            (Some(Mode::Reads(_) | Mode::Broadcast(_)), Some(true)) => {
                "CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode."
            }
            (Some(Mode::Reads(_) | Mode::Broadcast(_)), Some(false)) => {
                "CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode."
            }
        };
        self.refuse_text(reply, refusal);
    }

    pub(super) fn put_tracking(&self, reply: &mut Encoder<'_>) {
        let tracker = self.tracker.as_deref();
        let mode = tracker.map(|it| &it.mode);
        let flags = [
            ("on", tracker.is_some()),
            ("off", tracker.is_none()),
            ("bcast", matches!(mode, Some(Mode::Broadcast(_)))),
            ("optin", mode == Some(&Mode::Reads(Choice::OptIn))),
            ("caching-yes", self.caching && mode == Some(&Mode::Reads(Choice::OptIn))),
            ("optout", mode == Some(&Mode::Reads(Choice::OptOut))),
            ("caching-no", self.caching && mode == Some(&Mode::Reads(Choice::OptOut))),
            ("noloop", tracker.is_some_and(|it| it.no_loop)),
            ("broken_redirect", tracker.is_some_and(Tracker::is_broken)),
        ];
        reply.map(3);
        reply.bulk(b"flags");
        reply.set(flags.iter().filter(|(_, is)| *is).count());
        flags.iter().filter(|(_, is)| *is).for_each(|(name, _)| reply.bulk(name.as_bytes()));
        reply.bulk(b"redirect");
        reply.integer(tracker.map_or(-1, Tracker::redirected_to));
        reply.bulk(b"prefixes");
        let prefixes = tracker.map(Tracker::prefixes).unwrap_or_default();
        reply.array(prefixes.len());
        prefixes.iter().for_each(|prefix| reply.bulk(prefix));
    }

    /// There is one channel. Others are refused, and then none is subscribed to.
    pub(super) fn subscribe(&mut self, channels: &[&[u8]], reply: &mut Encoder<'_>) {
        if channels.iter().any(|&channel| channel != CHANNEL) {
            let text = "SUBSCRIBE is supported for the channel __redis__:invalidate alone: there is no \
                        publish and subscribe";
            return self.refuse_text(reply, text);
        }
        self.set_subscribed(true);
        for channel in channels {
            put_subscription(reply, b"subscribe", Some(channel), 1);
        }
    }

    pub(super) fn unsubscribe(&mut self, channels: &[&[u8]], reply: &mut Encoder<'_>) {
        let held = self.subscribed.then_some(CHANNEL);
        if channels.is_empty() {
            self.set_subscribed(false);
            return put_subscription(reply, b"unsubscribe", held, 0);
        }
        for &channel in channels {
            self.set_subscribed(self.subscribed && channel != CHANNEL);
            put_subscription(reply, b"unsubscribe", Some(channel), self.subscribed.into());
        }
    }

    pub(super) fn set_subscribed(&mut self, subscribed: bool) {
        self.subscribed = subscribed;
        self.client.outbox.set_subscribed(subscribed);
    }
}

/// What happened to a channel, and how many are left.
fn put_subscription(reply: &mut Encoder<'_>, what: &[u8], channel: Option<&[u8]>, count: i64) {
    reply.push(3);
    reply.bulk(what);
    match channel {
        Some(channel) => reply.bulk(channel),
        None => reply.null(),
    }
    reply.integer(count);
}

fn mode_for(asked: &Tracking<'_>, held: Option<&Mode>) -> Result<Mode, NotTracked> {
    if !asked.broadcast && !asked.prefixes.is_empty() {
        return Err(NotTracked::PrefixWithoutBroadcast);
    }
    if held.is_some_and(|held| matches!(held, Mode::Broadcast(_)) != asked.broadcast) {
        return Err(NotTracked::OtherMode);
    }
    if asked.broadcast && (asked.opt_in || asked.opt_out) {
        return Err(NotTracked::ChoiceWithBroadcast);
    }
    let choice = match (asked.opt_in, asked.opt_out) {
        (true, true) => return Err(NotTracked::InAndOut),
        (true, false) => Choice::OptIn,
        (false, true) => Choice::OptOut,
        (false, false) => Choice::All,
    };
    match (held, choice) {
        (Some(Mode::Reads(Choice::OptIn)), Choice::OptOut)
        | (Some(Mode::Reads(Choice::OptOut)), Choice::OptIn) => Err(NotTracked::OtherChoice),
        (Some(Mode::Broadcast(prefixes)), _) => prefixes_for(&asked.prefixes, prefixes),
        (None, _) if asked.broadcast => prefixes_for(&asked.prefixes, &[]),
        (None | Some(Mode::Reads(_)), choice) => Ok(Mode::Reads(choice)),
    }
}

/// All prefixes, in order: those held before, and those asked for; all keys if none is.
fn prefixes_for(asked: &[&[u8]], held: &[Arc<[u8]>]) -> Result<Mode, NotTracked> {
    if asked.len() + held.len() > PREFIXES_COUNT_MAX {
        return Err(NotTracked::TooManyPrefixes);
    }
    let held_bytes: usize = held.iter().map(|prefix| prefix.len()).sum();
    if held_bytes + asked.iter().map(|prefix| prefix.len()).sum::<usize>() > PREFIXES_BYTES_MAX {
        return Err(NotTracked::PrefixesTooLong);
    }
    let overlap = |one: &[u8], other: &[u8]| one.starts_with(other) || other.starts_with(one);
    let shown = |prefix: &[u8]| String::from_utf8_lossy(prefix).into_owned();
    for (at, &new) in asked.iter().enumerate() {
        if let Some(held) = held.iter().find(|held| overlap(new, held)) {
            return Err(NotTracked::OverlapsHeld { new: shown(new), held: shown(held) });
        }
        if let Some(other) = asked[at + 1..].iter().find(|other| overlap(new, other)) {
            return Err(NotTracked::OverlapsOther { new: shown(new), other: shown(other) });
        }
    }
    let all: &[&[u8]] = if asked.is_empty() { &[b""] } else { asked };
    let prefixes: BTreeSet<Arc<[u8]>> =
        held.iter().cloned().chain(all.iter().map(|&prefix| prefix.into())).collect();
    Ok(Mode::Broadcast(prefixes.into_iter().collect()))
}

#[cfg(test)]
mod tests;
