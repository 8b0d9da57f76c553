//! The node's counters as Prometheus reads them. Prometheus, "Text-based format", version 0.0.4.

use std::fmt::{Display, Write as _};

use crate::core::{Core, VERSION};
use crate::status;

/// Everything, one metric family after the other.
pub(crate) fn text(core: &Core) -> String {
    let mut page = Page(String::with_capacity(8 * 1024));
    let table = core.tables.newest();
    let stats = &core.stats;
    page.family("hoard_build_info", "gauge", "Which program this is.");
    page.labelled("hoard_build_info", &[("version", VERSION), ("name", &core.name)], 1);
    page.gauge("hoard_uptime_seconds", "Seconds since start.", core.started.elapsed().as_secs());
    let ready = u8::from(status::not_ready(core).is_empty());
    page.gauge("hoard_ready", "1 if the cluster is whole, as this node sees it.", ready);
    if let Some(table) = &table {
        page.gauge("hoard_members", "Members of the cluster.", table.members.len());
        page.gauge("hoard_table_epoch", "Version of the table.", table.epoch.index);
    }
    page.counter(
        "hoard_refounded_total",
        "Groups that lost their quorum for good and were founded anew here.",
        core.recovery.refounded_count(),
    );
    page.gauge(
        "hoard_groups_lost",
        "Groups without a quorum that wait for nodes, as far as this node knows.",
        core.recovery.losses().len(),
    );
    let seen = core.views.borrow().alive.len();
    page.gauge("hoard_members_alive", "Members that gossip sees.", seen);
    page.gauge("hoard_clients", "Connected clients.", core.clients.count());
    page.counter("hoard_clients_total", "Clients taken in.", core.clients.admitted_count());
    page.counter(
        "hoard_clients_rejected_total",
        "Clients turned away.",
        core.clients.rejected_count(),
    );
    page.counter("hoard_commands_processed_total", "Commands.", stats.commands_count());
    page.counter("hoard_keyspace_hits_total", "Reads of keys that were there.", stats.hits());
    page.counter("hoard_keyspace_misses_total", "Reads of keys that were not.", stats.misses());
    page.counter("hoard_evicted_keys_total", "Keys evicted.", stats.evicted_count());
    page.counter(
        "hoard_expired_keys_total",
        "Keys forgotten at their deadline.",
        stats.expired_count(),
    );
    replicas(&mut page, core);
    near(&mut page, core);
    page.counter("hoard_net_input_bytes_total", "Bytes from clients.", stats.bytes_in());
    page.counter("hoard_net_output_bytes_total", "Bytes to clients.", stats.bytes_out());
    page.counter(
        "hoard_replicas_died_total",
        "Replicas here whose Raft core died.",
        core.deaths.count(),
    );
    page.gauge(
        "hoard_replicas_dead",
        "Those that are kept until their group has replaced them.",
        core.replicas.dead().len(),
    );
    page.gauge("hoard_memory_max_bytes", "maxmemory; 0: no limit.", core.settings.maxmemory());
    commands(&mut page, core);
    errors(&mut page, core);
    partitions(&mut page, core);
    page.0
}

/// What replicas could not do by themselves.
fn replicas(page: &mut Page, core: &Core) {
    let stats = &core.stats;
    page.counter(
        "hoard_leases_lost_total",
        "Leases that ended between a read and its answer.",
        stats.leases_lost_count(),
    );
    page.counter(
        "hoard_reads_confirmed_total",
        "Reads that a quorum confirmed, for want of a lease.",
        stats.reads_confirmed_count(),
    );
    page.counter(
        "hoard_snapshots_installed_total",
        "Snapshots that replicas here took over from others.",
        stats.snapshots_count(),
    );
}

/// Copies of what other nodes lead, and who keeps copies of what this one leads.
fn near(page: &mut Page, core: &Core) {
    let near = core.near.tally();
    page.counter("hoard_near_hits_total", "Keys answered from a copy.", near.hits);
    page.counter("hoard_near_misses_total", "Keys loaded for want of a fresh copy.", near.misses);
    page.counter(
        "hoard_near_joined_total",
        "Loads of a key that went with one under way.",
        near.joined,
    );
    page.counter("hoard_near_calls_total", "Calls to leaders for what was missing.", near.calls);
    page.counter(
        "hoard_near_resets_total",
        "How often all copies of a partition were given up.",
        near.resets,
    );
    page.gauge("hoard_near_copies", "Copies of other nodes' keys.", near.copies_count);
    page.gauge("hoard_near_bytes", "Bytes of those, estimated.", near.bytes);
    let hosted = core.hosting.now();
    let readers = hosted.iter().map(|partition| partition.bureau.readers_count()).max();
    page.gauge(
        "hoard_near_readers",
        "Nodes that keep copies of what this one leads.",
        readers.unwrap_or(0),
    );
}

fn errors(page: &mut Page, core: &Core) {
    page.family("hoard_errors_total", "counter", "Errors that clients were sent, by first word.");
    for (code, count) in core.stats.errors() {
        page.labelled("hoard_errors_total", &[("error", code.word())], count);
    }
}

fn commands(page: &mut Page, core: &Core) {
    page.family("hoard_commands_total", "counter", "Commands by name.");
    let called = core.stats.commands();
    for command in called.iter().filter(|command| command.calls > 0) {
        page.labelled("hoard_commands_total", &[("command", command.name)], command.calls);
    }
}

fn partitions(page: &mut Page, core: &Core) {
    type Look = fn(&crate::partition::Partition) -> u64;
    let families: [(&str, &str, Look); 6] = [
        ("hoard_partition_keys", "Keys of a replica.", |it| it.store.lock().keys_count() as u64),
        ("hoard_partition_bytes", "Bytes of a replica.", |it| it.store.lock().bytes()),
        ("hoard_partition_log_bytes", "Bytes of its log.", |it| it.group.log_bytes() as u64),
        ("hoard_partition_term", "Its term.", |it| it.group.leadership().borrow().term),
        ("hoard_partition_applied_index", "How far its log is applied.", |it| {
            it.group.applied_index()
        }),
        ("hoard_partition_leads", "1 if this node leads it.", |it| it.leads().into()),
    ];
    let hosted = core.hosting.now();
    for (name, help, look) in families {
        page.family(name, "gauge", help);
        for partition in hosted.iter() {
            let id = partition.id.number().to_string();
            page.labelled(name, &[("partition", &id)], look(partition));
        }
    }
}

struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.labelled(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.labelled(name, &[], value);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}")
            .expect("writing to a string cannot fail");
    }

    fn labelled(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (number, (label, text)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(self.0, "{before}{label}=\"{text}\"").expect("writing to a string cannot fail");
        }
        let after = if labels.is_empty() { "" } else { "}" };
        writeln!(self.0, "{after} {value}").expect("writing to a string cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        let mut page = Page(String::new());
        page.labelled("m", &[("a", "x\"y\\z\n"), ("b", "")], 7);
        assert_eq!(page.0, "m{a=\"x\\\"y\\\\z\\n\",b=\"\"} 7\n");
    }
}
