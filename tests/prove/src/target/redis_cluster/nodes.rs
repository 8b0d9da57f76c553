//! What `CLUSTER NODES` says. Pure.

/// A node, as another sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) is_myself: bool,
    pub(super) role: Role,
    /// Whom it follows.
    pub(super) master: Option<String>,
    /// Whether nobody takes it to have failed, and its link is up.
    pub(super) is_reached: bool,
    /// Its configuration epoch: of two masters of a slot, the one with the higher has it.
    pub(super) epoch: u64,
    /// First and last of each range.
    pub(super) slots: Vec<(u16, u16)>,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It takes writes for its slots.
    Master,
    /// It follows a master.
    Replica,
}

impl Node {
    pub(super) fn serves(&self, slot: u16) -> bool {
        self.role == Role::Master
            && self.slots.iter().any(|&(first, last)| first <= slot && slot <= last)
    }
}

/// Reads all lines. Redis documentation, "CLUSTER NODES": id, address, flags, master, ping, pong, epoch,
/// link state, slots.
pub(super) fn read(text: &str) -> Result<Vec<Node>, String> {
    let node =
        |line: &str| read_line(line).ok_or_else(|| format!("an odd line of CLUSTER NODES: {line}"));
    text.lines().filter(|line| !line.is_empty()).map(node).collect()
}

fn read_line(line: &str) -> Option<Node> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [id, _addr, flags, master, _ping, _pong, epoch, link, slots @ ..] = words.as_slice() else {
        return None;
    };
    let flags: Vec<&str> = flags.split(',').collect();
    let is = |flag| flags.contains(&flag);
    let lost = ["fail", "fail?", "handshake", "noaddr"].into_iter().any(is);
    let range = |word: &&str| {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    Some(Node {
        id: (*id).to_owned(),
        is_myself: is("myself"),
        role: if is("slave") { Role::Replica } else { Role::Master },
        master: (*master != "-").then(|| (*master).to_owned()),
        is_reached: !lost && *link == "connected",
        epoch: epoch.parse().ok()?,
        // In brackets: slots on their way. Nobody moves any here.
        slots: slots
            .iter()
            .filter(|word| !word.starts_with('['))
            .map(range)
            .collect::<Option<_>>()?,
    })
}

/// What is missing until every slot has a master with a replica, as one node sees it.
pub(super) fn lacks(nodes: &[Node]) -> Vec<String> {
    let reached = || nodes.iter().filter(|node| node.is_reached);
    let mut lacks: Vec<String> = nodes
        .iter()
        .filter(|node| !node.is_reached)
        .map(|node| format!("{} is not reached", node.id))
        .collect();
    for master in reached().filter(|node| !node.slots.is_empty()) {
        if !reached().any(|node| node.master.as_ref() == Some(&master.id)) {
            lacks.push(format!("{} has no replica", master.id));
        }
    }
    let served: u32 = reached()
        .flat_map(|node| &node.slots)
        .map(|&(first, last)| u32::from(last.saturating_sub(first)) + 1)
        .sum();
    if served != u32::from(scatterhoard_ring::Slot::COUNT) {
        lacks.push(format!("{served} slots have a master"));
    }
    lacks
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "\
        a 10.0.0.1:7001@7004 myself,master - 0 0 7 connected 0-8191\n\
        b 10.0.0.2:7001@7004,host master - 0 1 2 connected 8192-16383 [93-<-c]\n\
        c 10.0.0.3:7001@7004 slave a 0 1 7 connected\n\
        d 10.0.0.4:7001@7004 slave b 0 1 2 connected\n";

    #[test]
    fn a_whole_cluster_lacks_nothing() {
        let nodes = read(WHOLE).unwrap();
        assert_eq!(lacks(&nodes), Vec::<String>::new());
        assert!(nodes[0].is_myself && nodes[0].serves(8191) && !nodes[0].serves(8192));
        assert_eq!((nodes[0].epoch, nodes[2].role), (7, Role::Replica));
    }

    #[test]
    fn a_master_without_a_replica_is_missed() {
        let nodes =
            read(&WHOLE.replace("d 10.0.0.4:7001@7004 slave", "d 10.0.0.4:7001@7004 slave,fail?"));
        assert_eq!(lacks(&nodes.unwrap()), ["d is not reached", "b has no replica"]);
    }

    #[test]
    fn slots_of_a_lost_master_are_missed() {
        let nodes = read(&WHOLE.replace("7 connected 0-8191", "7 disconnected 0-8191")).unwrap();
        assert_eq!(lacks(&nodes), ["a is not reached", "8192 slots have a master"]);
    }

    #[test]
    fn what_is_no_such_line_is_an_error() {
        assert!(read("a b c").is_err());
    }
}
