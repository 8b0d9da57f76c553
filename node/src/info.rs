//! `INFO`: what a node tells about itself, in Redis's sections and fields, lines ended by CR LF.
//!
//! Fields are those that clients, exporters and dashboards read. What there is not here (files, scripts,
//! channels) is told as 0 where tools expect the field, and else left out.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::clock::WallClock as _;
use crate::cluster_view::hex_of;
use crate::core::{Core, VERSION};
use crate::session::{Door, REDIS_VERSION};
use crate::stats::Rates;

/// A section: its name, whether `INFO` without arguments has it, and what is in it.
struct Section {
    name: &'static str,
    by_default: bool,
    write: fn(&Core, Door, &mut Lines),
}

const SECTIONS: [Section; 12] = [
    Section { name: "Server", by_default: true, write: server },
    Section { name: "Clients", by_default: true, write: clients },
    Section { name: "Memory", by_default: true, write: memory },
    Section { name: "Persistence", by_default: true, write: persistence },
    Section { name: "Stats", by_default: true, write: stats },
    Section { name: "Replication", by_default: true, write: replication },
    Section { name: "CPU", by_default: true, write: cpu },
    Section { name: "Modules", by_default: true, write: |_, _, _| {} },
    Section { name: "Commandstats", by_default: false, write: commands },
    Section { name: "Errorstats", by_default: true, write: errors },
    Section { name: "Cluster", by_default: true, write: cluster },
    Section { name: "Keyspace", by_default: true, write: keyspace },
];

/// The sections asked for, the default ones if none is, in a fixed order.
pub(crate) fn text(core: &Core, door: Door, asked: &[&[u8]]) -> String {
    let mut lines = Lines(String::with_capacity(4096));
    for section in SECTIONS.iter().filter(|section| is_asked(section, asked)) {
        if !lines.0.is_empty() {
            lines.0.push_str("\r\n");
        }
        lines.0.push_str("# ");
        lines.0.push_str(section.name);
        lines.0.push_str("\r\n");
        (section.write)(core, door, &mut lines);
    }
    lines.0
}

fn is_asked(section: &Section, asked: &[&[u8]]) -> bool {
    let is = |asked: &[u8], name: &str| asked.eq_ignore_ascii_case(name.as_bytes());
    let mut named = asked.iter().map(|asked| {
        is(asked, "all")
            || is(asked, "everything")
            || is(asked, section.name)
            || (is(asked, "default") && section.by_default)
    });
    if asked.is_empty() { section.by_default } else { named.any(|named| named) }
}

/// Lines of `field:value`.
struct Lines(String);

impl Lines {
    fn put(&mut self, field: impl Display, value: impl Display) {
        use std::fmt::Write as _;
        write!(self.0, "{field}:{value}\r\n").expect("a String takes what is written");
    }
}

/// What the process holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Keys and values of all replicas here.
    pub(crate) data_bytes: u64,
    /// Their logs.
    pub(crate) log_bytes: u64,
    /// What is known of who tracks which keys.
    pub(crate) tracking_bytes: u64,
    /// Copies of what other nodes lead.
    pub(crate) near_bytes: u64,
    /// What the system counts for the process; 0 if it does not say.
    pub(crate) resident_bytes: u64,
    /// In all replicas here.
    pub(crate) keys_count: u64,
}

impl Memory {
    pub(crate) fn of(core: &Core) -> Self {
        let mut memory = Self { resident_bytes: resident_bytes().unwrap_or(0), ..Self::default() };
        memory.near_bytes = core.near.tally().bytes;
        memory.tracking_bytes = core.tracking.tally().bytes as u64;
        for partition in core.hosting.now().iter() {
            let tally = partition.store.lock().tally();
            memory.data_bytes += tally.bytes as u64;
            memory.keys_count += tally.keys_count as u64;
            memory.log_bytes += partition.group.log_bytes() as u64;
        }
        memory
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.data_bytes + self.log_bytes + self.tracking_bytes + self.near_bytes
    }

    /// How much more the system counts than we do.
    pub(crate) fn fragmentation(&self) -> f64 {
        match self.used_bytes() {
            0 => 0.0,
            used => self.resident_bytes as f64 / used as f64,
        }
    }
}

/// `MEMORY DOCTOR`
pub(crate) fn memory_advice(core: &Core) -> String {
    let (memory, max) = (Memory::of(core), core.settings.maxmemory());
    let full = max > 0 && memory.data_bytes > max / 10 * 9;
    match (full, core.settings.refuses_when_full()) {
        (false, _) => "No memory issue was found.\n".to_owned(),
        (true, true) => "More than 90 % of maxmemory are used, and the policy is noeviction: \
                         writes will be refused.\n"
            .to_owned(),
        (true, false) => "More than 90 % of maxmemory are used: keys are being evicted, or will \
                          be.\n"
            .to_owned(),
    }
}

fn server(core: &Core, door: Door, lines: &mut Lines) {
    let port = match door {
        Door::Cluster | Door::Peer => core.endpoints.listen.port(),
        Door::AnyKey => core.endpoints.any_key.port(),
    };
    let uptime = Instant::now().saturating_duration_since(core.started).as_secs();
    let now = core.wall.now().millis();
    lines.put("redis_version", REDIS_VERSION);
    lines.put("server_name", "scatterhoard");
    lines.put("scatterhoard_version", VERSION);
    lines.put("redis_git_sha1", "00000000");
    lines.put("redis_git_dirty", 0);
    lines.put("redis_mode", if door == Door::Cluster { "cluster" } else { "standalone" });
    lines.put("os", std::env::consts::OS);
    lines.put("arch_bits", usize::BITS);
    lines.put("multiplexing_api", "tokio");
    lines.put("process_id", std::process::id());
    lines.put("run_id", hex_of(core.node));
    lines.put("tcp_port", port);
    lines.put("server_time_usec", now * 1000);
    lines.put("uptime_in_seconds", uptime);
    lines.put("uptime_in_days", uptime / 86_400);
    lines.put("hz", 5);
    lines.put("node_name", &core.name);
    lines.put("availability_zone", &core.config.zone);
}

fn clients(core: &Core, _: Door, lines: &mut Lines) {
    let clients = core.clients.all();
    let any_key = clients.iter().filter(|client| client.door == Door::AnyKey).count();
    lines.put("connected_clients", clients.len());
    lines.put("any_key_clients", any_key);
    lines.put("cluster_connections", 0);
    lines.put("maxclients", core.clients.count_max());
    lines.put("blocked_clients", 0);
    lines.put("tracking_clients", core.tracking.tally().trackers_count);
}

fn memory(core: &Core, _: Door, lines: &mut Lines) {
    let memory = Memory::of(core);
    let (used, max) = (memory.used_bytes(), core.settings.maxmemory());
    lines.put("used_memory", used);
    lines.put("used_memory_human", human(used));
    lines.put("used_memory_rss", memory.resident_bytes);
    lines.put("used_memory_rss_human", human(memory.resident_bytes));
    lines.put("used_memory_overhead", memory.used_bytes() - memory.data_bytes);
    lines.put("used_memory_dataset", memory.data_bytes);
    lines.put("maxmemory", max);
    lines.put("maxmemory_human", human(max));
    lines.put("maxmemory_policy", core.settings.policy());
    lines.put("mem_fragmentation_ratio", format_args!("{:.2}", memory.fragmentation()));
    lines.put("mem_replication_log", memory.log_bytes);
    lines.put("mem_tracking_table", memory.tracking_bytes);
    lines.put("mem_near_copies", memory.near_bytes);
    lines.put("lazyfree_pending_objects", 0);
}

/// There are no files: nothing is loaded and nothing saved.
fn persistence(_: &Core, _: Door, lines: &mut Lines) {
    lines.put("loading", 0);
    lines.put("async_loading", 0);
    lines.put("rdb_changes_since_last_save", 0);
    lines.put("rdb_bgsave_in_progress", 0);
    lines.put("rdb_last_bgsave_status", "ok");
    lines.put("aof_enabled", 0);
    lines.put("aof_rewrite_in_progress", 0);
    lines.put("aof_last_write_status", "ok");
}

fn stats(core: &Core, _: Door, lines: &mut Lines) {
    let (stats, Rates { commands, bytes_in, bytes_out }) = (&core.stats, core.stats.rates());
    let errors: u64 = stats.errors().map(|(_, count)| count).sum();
    lines.put("total_connections_received", core.clients.admitted_count());
    lines.put("total_commands_processed", stats.commands_count());
    lines.put("instantaneous_ops_per_sec", commands.round() as u64);
    lines.put("total_net_input_bytes", stats.bytes_in());
    lines.put("total_net_output_bytes", stats.bytes_out());
    lines.put("instantaneous_input_kbps", format_args!("{:.2}", bytes_in / 1024.0));
    lines.put("instantaneous_output_kbps", format_args!("{:.2}", bytes_out / 1024.0));
    lines.put("rejected_connections", core.clients.rejected_count());
    lines.put("expired_keys", stats.expired_count());
    lines.put("evicted_keys", stats.evicted_count());
    lines.put("evicted_clients", core.clients.buffers.evicted_count());
    lines.put("keyspace_hits", stats.hits());
    lines.put("keyspace_misses", stats.misses());
    let subscribed = core.clients.all().iter().any(|client| client.is_subscribed());
    lines.put("pubsub_channels", u8::from(subscribed));
    lines.put("pubsub_patterns", 0);
    lines.put("latest_fork_usec", 0);
    let tracked = core.tracking.tally();
    lines.put("tracking_total_keys", tracked.keys_count);
    lines.put("tracking_total_items", tracked.items_count);
    lines.put("tracking_total_prefixes", tracked.prefixes_count);
    let near = core.near.tally();
    lines.put("near_hits", near.hits);
    lines.put("near_misses", near.misses);
    lines.put("near_joined_loads", near.joined);
    lines.put("near_load_calls", near.calls);
    lines.put("near_resets", near.resets);
    lines.put("total_error_replies", errors);
}

/// Every node is a master to clients; how far it is, is the sum of its partitions' logs.
fn replication(core: &Core, _: Door, lines: &mut Lines) {
    let applied = |partition: &Arc<crate::partition::Partition>| partition.group.applied_index();
    let offset: u64 = core.hosting.now().iter().map(applied).sum();
    lines.put("role", "master");
    lines.put("connected_slaves", 0);
    lines.put("master_failover_state", "no-failover");
    lines.put("master_replid", hex_of(core.node));
    lines.put("master_repl_offset", offset);
}

fn cpu(_: &Core, _: Door, lines: &mut Lines) {
    let (user, system) = cpu_secs().unwrap_or((0.0, 0.0));
    lines.put("used_cpu_sys", format_args!("{system:.6}"));
    lines.put("used_cpu_user", format_args!("{user:.6}"));
}

fn commands(core: &Core, _: Door, lines: &mut Lines) {
    for count in core.stats.commands() {
        let each = count.usec as f64 / count.calls as f64;
        lines.put(
            format_args!("cmdstat_{}", count.name),
            format_args!("calls={},usec={},usec_per_call={each:.2}", count.calls, count.usec),
        );
    }
}

fn errors(core: &Core, _: Door, lines: &mut Lines) {
    for (code, count) in core.stats.errors() {
        lines.put(format_args!("errorstat_{}", code.word()), format_args!("count={count}"));
    }
}

fn cluster(core: &Core, door: Door, lines: &mut Lines) {
    lines.put("cluster_enabled", u8::from(door == Door::Cluster));
    if core.leaving.load(Ordering::Relaxed) {
        lines.put("cluster_leaving", 1);
    }
}

/// The keys that this node leads, whichever door is asked: others count their own.
fn keyspace(core: &Core, _: Door, lines: &mut Lines) {
    let (mut keys, mut expires) = (0, 0);
    for partition in core.hosting.now().led() {
        let store = partition.store.lock();
        keys += store.keys_count();
        expires += store.expires_count();
    }
    if keys > 0 {
        lines.put("db0", format_args!("keys={keys},expires={expires},avg_ttl=0"));
    }
}

/// As Redis writes bytes for people. Redis, `bytesToHuman`.
fn human(bytes: u64) -> String {
    const KIB: f64 = 1024.0;
    let number = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..0x10_0000 => format!("{:.2}K", number / KIB),
        0x10_0000..0x4000_0000 => format!("{:.2}M", number / KIB.powi(2)),
        0x4000_0000..0x100_0000_0000 => format!("{:.2}G", number / KIB.powi(3)),
        0x100_0000_0000.. => format!("{:.2}T", number / KIB.powi(4)),
    }
}

/// Linux, proc(5): `status` has it in KiB, whatever the size of a page.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Seconds of processor time, by ourselves and by the system for us. Linux, proc(5): fields 14 and 15 of
/// `stat`, in hundredths, which is what `USER_HZ` is to programs.
fn cpu_secs() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses, and may have spaces in it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut secs = || Some(fields.next()?.parse::<u64>().ok()? as f64 / 100.0);
    Some((secs()?, secs()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_asked_for_by_name() {
        let chosen = |asked: &[&str]| {
            let asked: Vec<_> = asked.iter().map(|name| name.as_bytes()).collect();
            let chosen = SECTIONS.iter().filter(|section| is_asked(section, &asked));
            chosen.map(|section| section.name).collect::<Vec<_>>().join(" ")
        };
        let usual = "Server Clients Memory Persistence Stats Replication CPU Modules Errorstats \
                     Cluster Keyspace";
        assert_eq!(chosen(&[]), usual);
        assert_eq!(chosen(&["default"]), usual);
        assert_eq!(chosen(&["SERVER", "keyspace", "foo"]), "Server Keyspace");
        assert_eq!(chosen(&["foo"]), "");
        assert_eq!(chosen(&["all"]).split(' ').count(), SECTIONS.len());
        assert_eq!(chosen(&["default", "commandstats"]).split(' ').count(), SECTIONS.len());
    }

    #[test]
    fn bytes_are_written_as_in_redis() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (1_788_296, "1.71M"),
            (25_276_514_304, "23.54G"),
            (1 << 41, "2.00T"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn memory_is_compared_with_what_the_system_counts() {
        assert_eq!(Memory::default().fragmentation(), 0.0);
        let memory = Memory {
            data_bytes: 300,
            log_bytes: 80,
            tracking_bytes: 15,
            near_bytes: 5,
            resident_bytes: 600,
            keys_count: 1,
        };
        assert_eq!(memory.fragmentation(), 1.5);
    }
}
