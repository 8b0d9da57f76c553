//! The processes of a campaign, the machines they live on, and the network between these.
//!
//! Does what it is told to, at once, and knows no plan. All processes end with the thread that made the
//! arena, however it ends.

mod place;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::fault::Sky;
use crate::net::link::Weather;
use crate::net::machine::Machine;
use crate::net::switch::{Switch, Tally, address};
use crate::ports::{Block, Ports};
use crate::target::{Site, Target};

pub use place::Ended;
use place::Place;

/// The nodes of a campaign, numbered from 1.
pub struct Arena<'a> {
    target: &'a dyn Target,
    places: Vec<Place>,
    founders: Vec<Site>,
    network: Option<Arc<Switch>>,
    /// Keeps the ports on loopback ours.
    _block: Option<Block>,
}

/// What an arena is made of.
pub struct Plot<'a> {
    /// What its nodes are.
    pub target: &'a dyn Target,
    /// How many nodes it begins with. There is a place for one more.
    pub nodes_count: usize,
    /// Where nodes write; made if need be.
    pub dir: PathBuf,
    /// Where packets from and to clients go, if nodes have networks of their own.
    pub clients: Option<File>,
    /// The library that sets clocks wrong, if that is to be done.
    pub faketime: Option<PathBuf>,
    /// What the network's chance comes from.
    pub seed: u64,
}

impl<'a> Arena<'a> {
    /// An arena with all its machines, none of which runs a node.
    ///
    /// # Errors
    /// A machine or a directory could not be made.
    pub fn new(plot: Plot<'a>) -> anyhow::Result<Self> {
        let Plot { target, nodes_count, dir, clients, faketime, seed } = plot;
        let places_count = nodes_count + 1;
        let network = clients.map(|device| {
            let switch = Switch::new(places_count + 1, seed);
            switch.attach(0, device);
            switch
        });
        let block = network.is_none().then(Block::reserve);
        let mut places = Vec::new();
        for number in 1..=places_count {
            let name = format!("n{number}");
            let home = dir.join(&name);
            fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
            let home = fs::canonicalize(&home)?;
            let ports = match &block {
                Some(block) => block.ports(number - 1),
                None => Ports::on(address(number).into()),
            };
            places.push(Place::new(Site { number, name, ports, home }, faketime.clone()));
        }
        let founders = places.iter().take(nodes_count).map(|place| place.site.clone()).collect();
        let mut arena = Self { target, places, founders, network, _block: block };
        for number in 1..=places_count {
            arena.boot(number)?;
        }
        Ok(arena)
    }

    /// Where the nodes live that the campaign begins with.
    pub fn founders(&self) -> &[Site] {
        &self.founders
    }

    /// Where all nodes live, whether they run or not.
    pub fn sites(&self) -> Vec<Site> {
        self.places.iter().map(|place| place.site.clone()).collect()
    }

    /// The names of the nodes, in the order of their numbers, up to the last that has ever run: the one to
    /// spare is not among them if nobody needed it.
    pub fn names(&self) -> Vec<String> {
        let count = self.places.iter().rposition(Place::has_run).map_or(0, |last| last + 1);
        self.places[..count].iter().map(|place| place.site.name.clone()).collect()
    }

    /// The numbers of the nodes that run.
    pub fn running(&self) -> Vec<usize> {
        let running = self.places.iter().filter(|place| place.is_running());
        running.map(|place| place.site.number).collect()
    }

    /// Starts the first nodes and makes a cluster of them.
    ///
    /// # Errors
    /// That did not go.
    pub fn form(&mut self) -> anyhow::Result<()> {
        for site in self.founders.clone() {
            self.launch(site.number)?;
        }
        self.target.form(&self.founders).map_err(anyhow::Error::msg)
    }

    /// Starts a node, if it does not run, and takes it in.
    ///
    /// # Errors
    /// That did not go.
    pub fn start(&mut self, node: usize) -> anyhow::Result<()> {
        if self.place(node).is_running() {
            return Ok(());
        }
        self.launch(node)?;
        let site = &self.place(node).site;
        self.target.welcome(site, &self.founders).map_err(anyhow::Error::msg)
    }

    /// Ends a node at once, if it runs.
    pub fn kill(&mut self, node: usize) {
        self.place_mut(node).kill();
    }

    /// Asks a node to go.
    ///
    /// # Errors
    /// It does not run.
    pub fn dismiss(&mut self, node: usize) -> anyhow::Result<()> {
        self.place_mut(node).dismiss()
    }

    /// Lets a node stand still, or go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn hold(&mut self, node: usize, still: bool) -> anyhow::Result<()> {
        self.place_mut(node).hold(still)
    }

    /// Sets a node's wall clock wrong by so many seconds.
    ///
    /// # Errors
    /// The file that says so could not be written.
    pub fn set_clock(&mut self, node: usize, wrong_by_s: i64) -> anyhow::Result<()> {
        self.place_mut(node).set_clock(wrong_by_s)
    }

    /// Gives a node no more address space than it has. Its end is then no wonder.
    ///
    /// # Errors
    /// It does not run, or the limit could not be set.
    pub fn starve(&mut self, node: usize) -> anyhow::Result<()> {
        self.place_mut(node).starve()
    }

    /// Gives it as much as before.
    ///
    /// # Errors
    /// The limit could not be set.
    pub fn feed(&mut self, node: usize) -> anyhow::Result<()> {
        self.place_mut(node).feed()
    }

    /// Lets a node open no more files.
    ///
    /// # Errors
    /// It does not run, or the limit could not be set.
    pub fn fence(&mut self, node: usize) -> anyhow::Result<()> {
        self.place_mut(node).fence()
    }

    /// Lets it open as many as before.
    ///
    /// # Errors
    /// The limit could not be set.
    pub fn unfence(&mut self, node: usize) -> anyhow::Result<()> {
        self.place_mut(node).unfence()
    }

    /// Takes a node's machine off the network.
    ///
    /// # Errors
    /// There is none.
    pub fn unplug(&self, node: usize) -> anyhow::Result<()> {
        self.network()?.unplug(node);
        Ok(())
    }

    /// Gives a node that does not run a new machine, on the network, at the old address.
    ///
    /// # Errors
    /// It runs, or no machine could be made.
    pub fn reboot(&mut self, node: usize) -> anyhow::Result<()> {
        if self.place(node).is_running() {
            bail!("n{node} runs");
        }
        self.network()?.detach(node);
        self.place_mut(node).machine = None;
        self.boot(node)?;
        self.network()?.plug(node);
        Ok(())
    }

    /// Sets the weather.
    ///
    /// # Errors
    /// There is no network.
    pub fn set_weather(&self, sky: &Sky) -> anyhow::Result<()> {
        self.network()?.set_weather(|source, target| sky.between(source, target));
        Ok(())
    }

    /// Lets the weather be fair.
    pub fn clear(&self) {
        if let Some(network) = &self.network {
            network.set_weather(|_, _| Weather::default());
        }
    }

    /// What the network did to packets.
    pub fn tally(&self) -> Tally {
        self.network.as_ref().map(|network| network.tally()).unwrap_or_default()
    }

    /// Nodes that have ended since this was asked last, and why as far as that is known.
    pub fn ended(&mut self) -> Vec<(usize, Ended)> {
        let target = self.target;
        let ended = self.places.iter_mut().filter_map(|place| {
            let ended = place.ended(|log| target.may_end(log))?;
            Some((place.site.number, ended))
        });
        ended.collect()
    }

    /// All that each node has logged, in all its lives.
    pub fn logs(&self) -> BTreeMap<usize, String> {
        self.places.iter().map(|place| (place.site.number, place.log())).collect()
    }

    fn launch(&mut self, node: usize) -> anyhow::Result<()> {
        let words = self.target.command(&self.place(node).site, &self.founders);
        self.place_mut(node).launch(&words)
    }

    fn boot(&mut self, node: usize) -> anyhow::Result<()> {
        if let Some(network) = &self.network {
            let (machine, device) =
                Machine::boot(node).with_context(|| format!("making a machine for n{node}"))?;
            network.attach(node, device);
            self.places[node - 1].machine = Some(machine);
        }
        Ok(())
    }

    fn network(&self) -> anyhow::Result<&Arc<Switch>> {
        self.network.as_ref().context("nodes have no networks of their own")
    }

    fn place(&self, node: usize) -> &Place {
        &self.places[node - 1]
    }

    fn place_mut(&mut self, node: usize) -> &mut Place {
        &mut self.places[node - 1]
    }
}
