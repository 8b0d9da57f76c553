//! `SLOWLOG` and `LATENCY`: what took long.

use scatterhoard_command::{LatencyCommand, SlowLogCommand};
use scatterhoard_resp::Encoder;

use super::Control;
use crate::stats::{CommandCount, SlowCommand, Spikes, bucket_usec_max};

impl Control {
    pub(super) fn about_slow_log(&self, command: SlowLogCommand, reply: &mut Encoder<'_>) {
        let log = &self.core.stats.slow_log;
        match command {
            SlowLogCommand::Get { count } => {
                let count =
                    count.map_or(usize::MAX, |it| usize::try_from(it).unwrap_or(usize::MAX));
                let entries = log.newest(count);
                reply.array(entries.len());
                for entry in &entries {
                    put_slow(reply, entry);
                }
            }
            SlowLogCommand::Len => reply.integer(log.len() as i64),
            SlowLogCommand::Reset => {
                log.reset();
                reply.ok();
            }
        }
    }

    pub(super) fn about_latency(&self, command: LatencyCommand<'_>, reply: &mut Encoder<'_>) {
        let spikes = &self.core.stats.spikes;
        match command {
            LatencyCommand::Latest => match spikes.latest() {
                None => reply.array(0),
                Some((latest, ms_max)) => {
                    reply.array(1);
                    reply.array(4);
                    reply.bulk(Spikes::EVENT.as_bytes());
                    for number in [latest.at_secs, latest.ms, ms_max] {
                        reply.integer(i64::try_from(number).unwrap_or(i64::MAX));
                    }
                }
            },
            LatencyCommand::History { event } => {
                let history = if is_event(event) { spikes.history() } else { Vec::new() };
                reply.array(history.len());
                for spike in history {
                    reply.array(2);
                    reply.integer(i64::try_from(spike.at_secs).unwrap_or(i64::MAX));
                    reply.integer(i64::try_from(spike.ms).unwrap_or(i64::MAX));
                }
            }
            LatencyCommand::Graph { event } => {
                let event = String::from_utf8_lossy(event);
                let text = if is_event(event.as_bytes()) && spikes.latest().is_some() {
                    "no graphs are drawn here: LATENCY HISTORY has the numbers".to_owned()
                } else {
                    format!("No samples available for event '{event}'")
                };
                reply.error("ERR", text);
            }
            LatencyCommand::Reset { events } => {
                let is_meant = events.is_empty() || events.iter().any(|event| is_event(event));
                reply.integer(i64::from(is_meant && spikes.reset()));
            }
            LatencyCommand::Doctor => reply.verbatim(&self.latency_advice()),
            LatencyCommand::Histogram { commands } => self.put_histograms(&commands, reply),
        }
    }

    fn latency_advice(&self) -> String {
        let threshold = self.core.settings.spike_ms();
        match self.core.stats.spikes.latest() {
            None if threshold == 0 => "Latency monitoring is disabled. \"CONFIG SET \
                 latency-monitor-threshold <milliseconds>\" enables it.\n"
                .to_owned(),
            None => format!("No command took {threshold} milliseconds or more.\n"),
            Some((latest, ms_max)) => format!(
                "Commands took {} milliseconds at second {} and at most {ms_max}. Times are from \
                 reading a command to having its reply, so that of a write has a round trip to \
                 other nodes in it.\n",
                latest.ms, latest.at_secs
            ),
        }
    }

    fn put_histograms(&self, names: &[&[u8]], reply: &mut Encoder<'_>) {
        let mut counts = self.core.stats.commands();
        counts.retain(|count| {
            names.is_empty() || names.iter().any(|name| has_name(count.name, name))
        });
        reply.map(counts.len());
        for count in &counts {
            put_histogram(reply, count);
        }
    }
}

/// Six elements: id, time, microseconds, words, address, name. Redis, `slowlogCommand`.
fn put_slow(reply: &mut Encoder<'_>, entry: &SlowCommand) {
    reply.array(6);
    reply.integer(i64::try_from(entry.id).unwrap_or(i64::MAX));
    reply.integer(i64::try_from(entry.at.millis() / 1000).unwrap_or(i64::MAX));
    reply.integer(i64::try_from(entry.took.as_micros()).unwrap_or(i64::MAX));
    reply.array(entry.commands.len());
    for (name, count) in &entry.commands {
        match count {
            1 => reply.bulk(name.as_bytes()),
            count => reply.bulk(format!("{name} (x{count})").as_bytes()),
        }
    }
    reply.bulk(entry.addr.to_string().as_bytes());
    reply.bulk(entry.client_name.as_bytes());
}

/// Calls up to each bound, where that is more than up to the one before. Redis, `LATENCY HISTOGRAM`.
fn put_histogram(reply: &mut Encoder<'_>, count: &CommandCount) {
    let mut calls = 0;
    let mut steps = Vec::new();
    for (bucket, &more) in count.buckets.iter().enumerate().filter(|&(_, &more)| more > 0) {
        calls += more;
        steps.push((bucket_usec_max(bucket), calls));
    }
    reply.bulk(count.name.as_bytes());
    reply.map(2);
    reply.bulk(b"calls");
    reply.integer(i64::try_from(count.calls).unwrap_or(i64::MAX));
    reply.bulk(b"histogram_usec");
    reply.map(steps.len());
    for (usec, calls) in steps {
        reply.integer(i64::try_from(usec).unwrap_or(i64::MAX));
        reply.integer(i64::try_from(calls).unwrap_or(i64::MAX));
    }
}

/// Whether this is the command's name, or that of the command which it belongs to.
fn has_name(full: &str, name: &[u8]) -> bool {
    let command = full.split('|').next().unwrap_or(full);
    [full, command].iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
}

fn is_event(event: &[u8]) -> bool {
    event.eq_ignore_ascii_case(Spikes::EVENT.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use scatterhoard_resp::{Protocol, ReplyLimits, Value};
    use scatterhoard_store::UnixMillis;

    use super::*;

    fn shape(put: impl FnOnce(&mut Encoder<'_>)) -> Value {
        let mut out = Vec::new();
        put(&mut Encoder::new(&mut out, Protocol::Resp3));
        let (value, bytes) = Value::decode(&out, ReplyLimits::DEFAULT).unwrap().unwrap();
        assert_eq!(bytes, out.len());
        value
    }

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.into())
    }

    #[test]
    fn a_slow_entry_has_six_elements() {
        let entry = SlowCommand {
            id: 7,
            at: UnixMillis::new(1_700_000_000_123),
            took: Duration::from_millis(20),
            commands: vec![("get", 3), ("set", 1)],
            addr: SocketAddr::from(([127, 0, 0, 1], 4000)),
            client_name: "worker".into(),
        };
        let expected = Value::Array(vec![
            Value::Integer(7),
            Value::Integer(1_700_000_000),
            Value::Integer(20_000),
            Value::Array(vec![bulk("get (x3)"), bulk("set")]),
            bulk("127.0.0.1:4000"),
            bulk("worker"),
        ]);
        assert_eq!(shape(|out| put_slow(out, &entry)), expected);
    }

    #[test]
    fn histograms_count_up() {
        let mut count =
            CommandCount { name: "get", calls: 3, usec: 40, buckets: Default::default() };
        (count.buckets[1], count.buckets[4]) = (1, 2);
        let shape = shape(|out| {
            out.map(1);
            put_histogram(out, &count);
        });
        let pair = |name: &str, value| (bulk(name), value);
        let steps =
            [(2, 1), (16, 3)].map(|(usec, calls)| (Value::Integer(usec), Value::Integer(calls)));
        let inner = vec![
            pair("calls", Value::Integer(3)),
            pair("histogram_usec", Value::Map(steps.to_vec())),
        ];
        assert_eq!(shape, Value::Map(vec![pair("get", Value::Map(inner))]));
    }

    #[test]
    fn a_command_stands_for_its_subcommands() {
        assert!(has_name("client|list", b"CLIENT") && has_name("client|list", b"client|LIST"));
        assert!(!has_name("client|list", b"list"));
    }
}
