//! `hoard status`: a node's view of its cluster, as a table for people.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Context;
use serde::Deserialize;

use crate::admin;
use crate::args::StatusArgs;
use crate::say;

/// Shows the cluster. Reports what is not well, but exits with 0 whenever the node answered.
pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let site = &args.ask.http;
    let answer = admin::get(site, "/api/status")?;
    if answer.status != 200 {
        return admin::refused(site, &answer);
    }
    if args.json {
        say(&format!("{}\n", answer.text.trim_end()));
        return Ok(ExitCode::SUCCESS);
    }
    let mut status = parse(&answer.text).with_context(|| site.to_string())?;
    status.complete(|http| {
        let answer = admin::get(&http.parse().ok()?, "/api/status").ok()?;
        parse(&answer.text).ok()
    });
    say(&status.page());
    Ok(ExitCode::SUCCESS)
}

fn parse(answer: &str) -> anyhow::Result<Status> {
    let answer: serde_json::Value =
        serde_json::from_str(answer).context("this is no answer of a node")?;
    if answer["cluster"].is_null() {
        anyhow::bail!("this node is not a member of a cluster yet");
    }
    let mut status =
        Status::deserialize(answer).context("this node's version answers otherwise")?;
    status.members.sort_by(|a, b| by_name(&a.name, &b.name));
    Ok(status)
}

/// What a node answers. Fields that are not shown are not read, so that a newer node can say more.
#[derive(Deserialize)]
struct Status {
    cluster: String,
    epoch: String,
    name: String,
    council: Council,
    members: Vec<Member>,
    partitions: Vec<Partition>,
    losses: Vec<Loss>,
    /// Replicas on the node that answered, whose Raft core died. An older node does not say.
    #[serde(default)]
    dead: Vec<Dead>,
}

/// A group without a quorum that waits for nodes; known to the council's leader.
#[derive(Deserialize)]
struct Loss {
    group: String,
    why: String,
}

#[derive(Deserialize)]
struct Dead {
    group: String,
    cause: Option<String>,
    not_replaced_because: Option<String>,
}

#[derive(Deserialize)]
struct Council {
    leader: Option<String>,
    voters: Vec<String>,
}

#[derive(Deserialize)]
struct Member {
    node: String,
    name: String,
    zone: String,
    standing: String,
    alive: bool,
    listen: String,
    http: String,
    leads: u64,
    replicas: u64,
}

/// A partition, as far as it is known: a node without a replica of it knows who leads it, and the
/// council's leader its members, but not what is in it.
#[derive(Deserialize)]
struct Partition {
    id: u16,
    slots: (u16, u16),
    generation: u64,
    leader: Option<String>,
    term: Option<u64>,
    voters: Vec<String>,
    learners: Vec<String>,
    wanted: Vec<String>,
    keys: Option<u64>,
    below_replicas: bool,
}

impl Status {
    /// Asks the leaders of partitions that have no replica on the node that answered; and the council's
    /// leader, if something is without one.
    fn complete(&mut self, ask: impl Fn(&str) -> Option<Self>) {
        let elsewhere = self.partitions.iter().filter(|partition| partition.keys.is_none());
        let mut leaders: BTreeSet<_> = elsewhere.filter_map(|it| it.leader.as_deref()).collect();
        if self.losses.is_empty() && self.partitions.iter().any(|it| it.leader.is_none()) {
            leaders.extend(self.council.leader.as_deref().filter(|&leader| leader != self.name));
        }
        let seen = self.members.iter().filter(|member| member.alive);
        let sites = seen.filter(|member| leaders.contains(member.name.as_str()));
        for answer in sites.filter_map(|member| ask(&member.http)).collect::<Vec<_>>() {
            if self.losses.is_empty() {
                self.losses = answer.losses;
            }
            for told in answer.partitions.into_iter().filter(|told| told.keys.is_some()) {
                let same = |partition: &&mut Partition| partition.id == told.id;
                if let Some(partition) = self.partitions.iter_mut().find(same)
                    && partition.keys.is_none()
                {
                    *partition = told;
                }
            }
        }
    }

    fn page(&self) -> String {
        let leader = self.council.leader.as_deref().unwrap_or("none");
        let mut page =
            format!("cluster {}, epoch {}, seen by {}\n", self.cluster, self.epoch, self.name);
        let _infallible =
            writeln!(page, "council led by {leader}, voters {}\n", names(&self.council.voters));
        page += &rows(
            &["MEMBER", "STATE", "ZONE", "LISTENS ON", "LEADS", "REPLICAS", "NODE"],
            self.members.iter().map(Member::row),
        );
        page.push('\n');
        page += &rows(
            &["PARTITION", "SLOTS", "LEADER", "VOTERS", "JOINING", "KEYS", "TERM", "NOTE"],
            self.partitions.iter().map(Partition::row),
        );
        page.push('\n');
        page += &self.verdict();
        page
    }

    /// What is not well, by name; or that all is.
    fn verdict(&self) -> String {
        let ids = |is: fn(&Partition) -> bool| {
            let ids = self.partitions.iter().filter(|partition| is(partition));
            ids.map(|partition| format!("p{}", partition.id)).collect::<Vec<_>>().join(" ")
        };
        let leaderless = ids(|partition| partition.leader.is_none());
        let below = ids(|partition| partition.is_known() && partition.below_replicas);
        let unknown = ids(|partition| !partition.is_known());
        let silent = self.members.iter().filter(|member| !member.alive);
        let silent: Vec<_> = silent.map(|member| member.name.as_str()).collect();
        let mut lines = String::new();
        for (what, which) in [
            ("without a leader", leaderless),
            ("below the wanted replicas", below),
            ("kept by nodes that were not reached", unknown),
            ("members not seen", silent.join(" ")),
        ] {
            if !which.is_empty() {
                let _infallible = writeln!(lines, "{what}: {which}");
            }
        }
        for Loss { group, why } in &self.losses {
            let _infallible = writeln!(lines, "{group} has lost its quorum: {why}");
        }
        for Dead { group, cause, not_replaced_because } in &self.dead {
            let cause = cause.as_deref().unwrap_or("no cause is known");
            let _infallible = write!(lines, "replica of {group} on {} died: {cause}", self.name);
            if let Some(reason) = not_replaced_because {
                let _infallible = write!(lines, "; not replaced: {reason}");
            }
            lines.push('\n');
        }
        if lines.is_empty() { "all is well\n".to_owned() } else { lines }
    }
}

impl Member {
    fn row(&self) -> Vec<String> {
        let state = match (self.alive, self.standing.as_str()) {
            (true, "active") => "active",
            (true, standing) => standing,
            (false, _) => "not seen",
        };
        let zone = if self.zone.is_empty() { "-" } else { &self.zone };
        vec![
            self.name.clone(),
            state.to_owned(),
            zone.to_owned(),
            self.listen.clone(),
            self.leads.to_string(),
            self.replicas.to_string(),
            self.node.clone(),
        ]
    }
}

impl Partition {
    /// Whether its members are known: a group without voters there is none.
    fn is_known(&self) -> bool {
        !self.voters.is_empty()
    }

    fn row(&self) -> Vec<String> {
        let (first, last) = self.slots;
        vec![
            format!("p{}", self.id),
            format!("{first}-{last}"),
            self.leader.clone().unwrap_or_else(|| "none".to_owned()),
            if self.is_known() { names(&self.voters) } else { "?".to_owned() },
            names(&self.learners),
            number(self.keys),
            number(self.term),
            self.note(),
        ]
    }

    fn note(&self) -> String {
        let mut notes = Vec::new();
        if !self.is_known() {
            return String::new();
        }
        if self.below_replicas {
            notes.push("below replicas".to_owned());
        }
        if self.moves() {
            notes.push(format!("moves to {}", names(&self.wanted)));
        }
        if self.generation > 1 {
            notes.push(format!("generation {}", self.generation));
        }
        notes.join(", ")
    }

    /// Whether it shall be kept elsewhere than it is.
    fn moves(&self) -> bool {
        sorted(&self.wanted) != sorted(&self.voters)
    }
}

fn names(names: &[String]) -> String {
    if names.is_empty() { "-".to_owned() } else { sorted(names).join(" ") }
}

fn sorted(names: &[String]) -> Vec<&str> {
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_by(|a, b| by_name(a, b));
    names
}

/// Short names first, so that n9 stands before n10.
fn by_name(a: &str, b: &str) -> std::cmp::Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// A number that only nodes with a replica know.
fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// A table with columns as wide as what is in them.
fn rows(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head: Vec<String> = head.iter().map(|&title| title.to_owned()).collect();
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let columns = rows[0].len();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests;
