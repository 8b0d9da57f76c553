//! Which colour and which pattern stands for what. Never colour alone: kinds of faults have patterns and
//! names, nodes have numbers.

use std::collections::BTreeSet;

use super::markup::{Element, element};
use crate::campaign::Campaign;

/// Hues of faults; the style sheet has a `.k0` to `.k7`.
const HUES_COUNT: usize = 8;
/// Colours of nodes; the style sheet has a `.n0` to `.n9`.
const NODES_COUNT: usize = 10;

/// The kinds of faults on one page, in the order of their colours.
#[derive(Clone, Debug)]
pub(super) struct Palette {
    kinds: Vec<String>,
}

impl Palette {
    /// One for several campaigns, so that a kind looks the same in all.
    pub(super) fn of(campaigns: &[Campaign]) -> Self {
        let mut kinds = Vec::new();
        let mut seen = BTreeSet::new();
        let named = campaigns.iter().flat_map(|campaign| {
            let planned = campaign.planned.iter().map(|planned| &planned.kind);
            planned.chain(campaign.faults.iter().map(|fault| &fault.kind))
        });
        for kind in named {
            if seen.insert(kind) {
                kinds.push(kind.clone());
            }
        }
        Self { kinds }
    }

    /// The class that gives a kind its colour.
    pub(super) fn class(&self, kind: &str) -> String {
        format!("k{}", self.index(kind) % HUES_COUNT)
    }

    /// What to fill over its colour, as a value of the attribute `fill`.
    pub(super) fn pattern(&self, kind: &str) -> String {
        format!("url(#p{})", self.index(kind))
    }

    fn index(&self, kind: &str) -> usize {
        self.kinds.iter().position(|known| known == kind).unwrap_or(0)
    }

    /// A drawing without a size that holds the patterns. Once on a page, before what is filled with them.
    pub(super) fn definitions(&self) -> Element {
        let patterns = (0..self.kinds.len()).map(pattern);
        let outage = hatch("outage", "outage-ink", "M-2,2 l4,-4 M0,8 l8,-8 M6,10 l4,-4");
        let leaderless = hatch("leaderless", "leaderless-ink", "M0,0 l8,8 M-2,6 l4,4 M6,-2 l4,4");
        element("svg")
            .class("definitions")
            .attribute("width", 0)
            .attribute("height", 0)
            .attribute("aria-hidden", "true")
            .with(element("defs").with_all(patterns).with(outage).with(leaderless))
    }

    /// A small picture of a kind, for legends and tables.
    pub(super) fn swatch(&self, kind: &str) -> Element {
        let square = |class: String, fill: Option<String>| {
            let square = element("rect").attribute("x", 0.5).attribute("y", 0.5).class(class);
            let square = square.attribute("width", 21).attribute("height", 12).attribute("rx", 2);
            fill.into_iter().fold(square, |square, fill| square.attribute("fill", fill))
        };
        element("svg")
            .class("swatch")
            .attribute("width", 22)
            .attribute("height", 13)
            .attribute("aria-hidden", "true")
            .with(square(format!("fault {}", self.class(kind)), None))
            .with(square("over".to_owned(), Some(self.pattern(kind))))
    }
}

/// The class that gives a node its colour.
pub(super) fn node_class(number: usize) -> String {
    format!("n{}", number.saturating_sub(1) % NODES_COUNT)
}

/// A kind's pattern: kinds of one hue differ in it, and so do neighbours.
fn pattern(index: usize) -> Element {
    let path = match (index + index / HUES_COUNT) % 8 {
        0 => "M-2,2 l4,-4 M0,8 l8,-8 M6,10 l4,-4",
        1 => "M2,2 h1 M6,6 h1",
        2 => "M0,2 h8 M0,6 h8",
        3 => "M0,0 l8,8 M-2,6 l4,4 M6,-2 l4,4",
        4 => "M2,0 v8 M6,0 v8",
        5 => "M0,8 l8,-8 M0,0 l8,8",
        6 => "M0,4 h8 M4,0 v8",
        _ => "M0,6 l4,-4 l4,4",
    };
    hatch(&format!("p{index}"), &format!("ink k{}", index % HUES_COUNT), path)
}

fn hatch(id: &str, class: &str, path: &str) -> Element {
    element("pattern")
        .attribute("id", id)
        .attribute("width", 8)
        .attribute("height", 8)
        .attribute("patternUnits", "userSpaceOnUse")
        .with(element("path").class(class).attribute("d", path))
}
