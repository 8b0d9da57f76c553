//! Subcommands of Redis that do not fit here, and what to do instead.

use super::is;
use crate::{CommandError, HelpTopic};

const SLOTS_PLACED: &str =
    "Scatterhoard places slots by itself; use `hoard node --join` and `hoard drain`";

const REFUSED: [(HelpTopic, &str, &str); 14] = [
    (HelpTopic::Client, "UNBLOCK", "CLIENT UNBLOCK is not supported: use CLIENT KILL"),
    (HelpTopic::Cluster, "ADDSLOTS", SLOTS_PLACED),
    (HelpTopic::Cluster, "ADDSLOTSRANGE", SLOTS_PLACED),
    (HelpTopic::Cluster, "DELSLOTS", SLOTS_PLACED),
    (HelpTopic::Cluster, "DELSLOTSRANGE", SLOTS_PLACED),
    (HelpTopic::Cluster, "FLUSHSLOTS", SLOTS_PLACED),
    (HelpTopic::Cluster, "SETSLOT", SLOTS_PLACED),
    (HelpTopic::Cluster, "REPLICATE", SLOTS_PLACED),
    (HelpTopic::Cluster, "RESET", SLOTS_PLACED),
    (HelpTopic::Cluster, "BUMPEPOCH", SLOTS_PLACED),
    (HelpTopic::Cluster, "SET-CONFIG-EPOCH", SLOTS_PLACED),
    (HelpTopic::Cluster, "SAVECONFIG", SLOTS_PLACED),
    (
        HelpTopic::Cluster,
        "COUNT-FAILURE-REPORTS",
        "Scatterhoard keeps no failure reports; use `hoard status`",
    ),
    (
        HelpTopic::Cluster,
        "SLOT-STATS",
        "CLUSTER SLOT-STATS is not supported; use CLUSTER COUNTKEYSINSLOT",
    ),
];

/// Why this subcommand is refused, if Redis has it.
pub(crate) fn refused_subcommand(topic: HelpTopic, word: &[u8]) -> Option<CommandError> {
    let refused = REFUSED.iter().find(|(of, name, _)| *of == topic && is(word, name));
    refused.map(|&(_, _, text)| CommandError::NotHere(text))
}
