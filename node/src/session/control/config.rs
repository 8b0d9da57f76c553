//! `CONFIG …`: what is set, and what of it may be changed.

use std::borrow::Cow;

use scatterhoard_command::{CommandError, ConfigCommand, Glob};
use scatterhoard_resp::Encoder;

use super::super::stage::Door;
use super::Control;
use crate::config::AnyKeyReads;
use crate::core::Core;
use crate::settings::Setting;

/// Stands for a password.
const HIDDEN: &str = "********";

impl Control {
    pub(super) fn about_settings(&self, command: ConfigCommand<'_>, reply: &mut Encoder<'_>) {
        match command {
            ConfigCommand::Get { patterns } => {
                let mut settings = settings(&self.core, self.door);
                settings.retain(|(name, _)| is_meant(name, &patterns));
                reply.map(settings.len());
                for (name, value) in &settings {
                    reply.bulk(name.as_bytes());
                    reply.bulk(value.as_bytes());
                }
            }
            ConfigCommand::Set { settings } => match self.parse_settings(&settings) {
                Ok(parsed) => {
                    parsed.into_iter().for_each(|setting| self.apply_setting(setting));
                    // Others have to know what memory this node grants.
                    self.core.advertise();
                    reply.ok();
                }
                Err(text) => self.refuse_text(reply, &text),
            },
            ConfigCommand::ResetStat => {
                self.core.stats.reset();
                reply.ok();
            }
            ConfigCommand::Rewrite => {
                let text = "The server is running without a config file";
                self.refuse(reply, &CommandError::NotHere(text));
            }
        }
    }

    /// All of them, or the text that says what is wrong with one. One that is set to what it is already
    /// may be any.
    fn parse_settings(&self, given: &[(&[u8], &[u8])]) -> Result<Vec<Setting>, String> {
        let known = settings(&self.core, self.door);
        let mut parsed = Vec::with_capacity(given.len());
        for &(name, value) in given {
            let given = String::from_utf8_lossy(name);
            let name = given.to_ascii_lowercase();
            let Some((_, held)) = known.iter().find(|(known, _)| *known == name) else {
                let shown: String = given.chars().take(128).collect();
                return Err(format!(
                    "Unknown option or number of arguments for CONFIG SET - '{shown}'"
                ));
            };
            let failed = |why: &str| {
                format!("CONFIG SET failed (possibly related to argument '{name}') - {why}")
            };
            match Setting::parse(&name, value) {
                Some(Ok(Setting::ClientsMax(count))) if count > self.core.config.clients_limit => {
                    let most = self.core.config.clients_limit;
                    return Err(failed(&format!(
                        "The operating system is not able to handle the specified number of clients, \
                         try with {most}"
                    )));
                }
                Some(Ok(setting)) => parsed.push(setting),
                Some(Err(error)) => return Err(failed(&error.to_string())),
                None if held.as_bytes().eq_ignore_ascii_case(value) => {}
                None => return Err(failed(why_fixed(&name))),
            }
        }
        Ok(parsed)
    }

    fn apply_setting(&self, setting: Setting) {
        let settings = &self.core.settings;
        match setting {
            Setting::MaxMemory(bytes) => settings.set_maxmemory(bytes),
            Setting::Policy(policy) => settings.set_policy(policy),
            Setting::ClientsMax(count) => self.core.clients.set_count_max(count),
            Setting::SlowUsec(usec) => settings.set_slow_usec(usec),
            Setting::SlowCountMax(count) => settings.set_slow_count_max(count),
            Setting::SpikeMs(ms) => settings.set_spike_ms(ms),
            Setting::TrackedKeysMax(count) => self.core.tracking.set_keys_count_limit(count),
            Setting::Password(password) => settings.set_password(&password),
        }
    }
}

fn is_meant(name: &str, patterns: &[Glob<'_>]) -> bool {
    patterns.iter().any(|pattern| pattern.matches_ignoring_case(name.as_bytes()))
}

/// Why a setting cannot be changed. The usual text is that of Redis.
fn why_fixed(name: &str) -> &'static str {
    match name {
        "save" | "appendonly" => "not supported: there are no files; copies are on other nodes",
        "notify-keyspace-events" => "not supported: there are no keyspace notifications",
        "timeout" => "not supported: idle connections are not closed",
        _ => "can't set immutable config",
    }
}

/// Every setting under Redis's name, with the value that is true here.
fn settings(core: &Core, door: Door) -> Vec<(&'static str, Cow<'static, str>)> {
    let (config, settings) = (&core.config, &core.settings);
    let listen = match door {
        Door::Cluster | Door::Peer => core.endpoints.listen,
        Door::AnyKey => core.endpoints.any_key,
    };
    let bound = match door {
        Door::Cluster | Door::Peer => config.listen,
        Door::AnyKey => config.any_key,
    };
    let cluster = door == Door::Cluster;
    let table = core.tables.newest();
    let timers = table.as_ref().map(|table| table.settings).unwrap_or_default();
    let number = |number: u64| Cow::Owned(number.to_string());
    let yes = |yes: bool| Cow::Borrowed(if yes { "yes" } else { "no" });
    let empty = || Cow::Borrowed("");
    let any_key_reads = match config.any_key_reads {
        AnyKeyReads::Leader => "leader",
        AnyKeyReads::Near => "near",
    };
    vec![
        ("any-key-reads", Cow::Borrowed(any_key_reads)),
        ("appendonly", yes(false)),
        ("bind", Cow::Owned(bound.ip().to_string())),
        (
            "cluster-announce-ip",
            Cow::Owned(config.advertise.map_or_else(String::new, |ip| ip.to_string())),
        ),
        ("cluster-enabled", yes(cluster)),
        ("cluster-node-timeout", number(timers.election_ms_max.into())),
        ("cluster-port", number(core.endpoints.peer.port().into())),
        ("cluster-require-full-coverage", yes(false)),
        ("cluster-allow-reads-when-down", yes(false)),
        ("databases", number(1)),
        ("io-threads", number(1)),
        ("latency-monitor-threshold", number(settings.spike_ms())),
        ("maxclients", number(core.clients.count_max() as u64)),
        ("maxmemory", number(settings.maxmemory())),
        ("maxmemory-policy", Cow::Borrowed(settings.policy().name())),
        ("min-replicas-to-write", number(timers.replicas_min.saturating_sub(1).into())),
        ("near-cache-bytes", number(config.near_cache_bytes)),
        ("near-max-staleness", number(config.near_staleness_max.as_millis() as u64)),
        ("notify-keyspace-events", empty()),
        ("port", number(listen.port().into())),
        ("proto-max-bulk-len", number(core.value_bytes_max() as u64)),
        ("requirepass", Cow::Borrowed(if settings.has_password() { HIDDEN } else { "" })),
        ("save", empty()),
        ("slowlog-log-slower-than", Cow::Owned(settings.slow_usec().to_string())),
        ("slowlog-max-len", number(settings.slow_count_max())),
        ("timeout", number(0)),
        ("tracking-table-max-keys", number(core.tracking.keys_count_limit())),
    ]
}
