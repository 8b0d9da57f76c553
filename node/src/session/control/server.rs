//! Commands about the node.

use std::time::Duration;

use scatterhoard_command::{MemoryCommand, ServerCommand, write_help, write_query};
use scatterhoard_resp::Encoder;

use super::Control;
use crate::clock::WallClock as _;
use crate::info;

/// Longer is a mistake, and would hold a connection for nothing.
const SLEEP_MAX: Duration = Duration::from_secs(60);

impl Control {
    pub(super) async fn about_node(&mut self, command: ServerCommand<'_>, out: &mut Vec<u8>) {
        let mut reply = Encoder::new(out, self.protocol);
        match command {
            ServerCommand::Info { sections } => {
                reply.verbatim(&info::text(&self.core, self.door, &sections));
            }
            ServerCommand::Config(command) => self.about_settings(command, &mut reply),
            ServerCommand::Command(query) => write_query(&mut reply, &query),
            ServerCommand::Cluster(command) => self.about_cluster(command, out).await,
            ServerCommand::DebugSleep { duration_ms } => {
                tokio::time::sleep(Duration::from_millis(duration_ms).min(SLEEP_MAX)).await;
                reply.ok();
            }
            ServerCommand::Latency(command) => self.about_latency(command, &mut reply),
            ServerCommand::SlowLog(command) => self.about_slow_log(command, &mut reply),
            ServerCommand::Memory(command) => self.about_memory(command, &mut reply),
            ServerCommand::Time => {
                let now = self.core.wall.now().millis();
                reply.array(2);
                reply.bulk((now / 1000).to_string().as_bytes());
                reply.bulk((now % 1000 * 1000).to_string().as_bytes());
            }
            ServerCommand::Help(topic) => write_help(&mut reply, topic),
        }
    }

    fn about_memory(&self, command: MemoryCommand, reply: &mut Encoder<'_>) {
        match command {
            MemoryCommand::Doctor => reply.verbatim(&info::memory_advice(&self.core)),
            MemoryCommand::Stats => {
                let memory = info::Memory::of(&self.core);
                let numbers = [
                    ("total.allocated", memory.used_bytes()),
                    ("dataset.bytes", memory.data_bytes),
                    ("replication.log.bytes", memory.log_bytes),
                    ("resident", memory.resident_bytes),
                    ("keys.count", memory.keys_count),
                    (
                        "keys.bytes-per-key",
                        memory.data_bytes.checked_div(memory.keys_count).unwrap_or(0),
                    ),
                ];
                reply.map(numbers.len() + 1);
                for (name, number) in numbers {
                    reply.bulk(name.as_bytes());
                    reply.integer(i64::try_from(number).unwrap_or(i64::MAX));
                }
                reply.bulk(b"fragmentation");
                reply.double(memory.fragmentation());
            }
            // The allocator gives memory back by itself.
            MemoryCommand::Purge => reply.ok(),
            MemoryCommand::MallocStats => {
                reply.bulk(b"Stats not supported for the current allocator");
            }
        }
    }
}
