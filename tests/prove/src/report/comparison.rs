//! Several campaigns side by side.

use super::axis::Span;
use super::facts::{self, Facts};
use super::markup::{Element, element, with_text};
use super::palette::Palette;
use super::words::{count, counted, duration, latency};
use super::{details, mark, page, pictures, tables};
use crate::campaign::Campaign;

/// One line of the comparison: a name, and what to say of a campaign.
type Line = (&'static str, fn(&Campaign, &Facts) -> String);

/// What the other lines are read for: good or bad in itself.
fn tone(name: &str, campaign: &Campaign) -> Option<&'static str> {
    let verdict = &campaign.verdict;
    let bad = match name {
        LOST => !verdict.lost_writes.is_empty(),
        LINEARIZABLE => verdict.violation.is_some(),
        _ => return None,
    };
    match bad {
        true => Some("bad"),
        false => (verdict.operations > 0).then_some("good"),
    }
}

const LOST: &str = "acknowledged writes lost";
const LINEARIZABLE: &str = "history linearizable";

const LINES: [Line; 13] = [
    ("verdict", facts::headline),
    (LOST, |campaign, _| count(campaign.verdict.lost_writes.len() as u64)),
    (LINEARIZABLE, |campaign, _| {
        match &campaign.verdict {
            verdict if verdict.violation.is_some() => "no",
            verdict if !verdict.too_hard.is_empty() => "not decided for all",
            verdict if verdict.operations == 0 => "nothing recorded",
            _ => "yes",
        }
        .to_owned()
    }),
    ("operations judged", |campaign, _| count(campaign.verdict.operations)),
    ("faults injected", |campaign, _| count(campaign.faults.len() as u64)),
    ("longest unavailability of a partition", |_, facts| match facts.longest_ms() {
        0 => "none".to_owned(),
        ms => duration(ms),
    }),
    ("partitions took writes, of the time", |campaign, facts| {
        let partitions = facts.partitions.len().max(1) as u64;
        tables::share(facts.out / partitions, campaign.ended)
    }),
    ("done", |_, facts| count(facts.done)),
    ("refused, safe to send again", |_, facts| count(facts.refused)),
    ("in doubt", |_, facts| count(facts.in_doubt)),
    ("slowest 99th percentile of a step", |_, facts| latency(facts.p99_us_max)),
    ("complaints", |campaign, _| count(campaign.verdict.complaints.len() as u64)),
    ("how long", |campaign, _| duration(campaign.ended)),
];

/// Several campaigns side by side, as the text of an HTML file.
#[must_use]
pub fn compare(campaigns: &[Campaign]) -> String {
    let palette = Palette::of(campaigns);
    let facts: Vec<_> = campaigns.iter().map(Facts::of).collect();
    // One axis for all, so that what happened at one time is at one place.
    let until = campaigns.iter().map(|campaign| Span::of(campaign).until).max().unwrap_or(1);
    let parts = campaigns.iter().zip(&facts).flat_map(|(campaign, facts)| {
        let (class, sign) = mark(facts.ruling);
        let title = element("h2")
            .class(format!("contestant {class}"))
            .with(with_text("span", sign).class("seal").attribute("aria-hidden", "true"))
            .text(&campaign.target);
        let replay = element("p")
            .class("replay")
            .with(with_text("span", "Again: "))
            .with(with_text("code", &campaign.replay));
        [title, with_text("p", facts::sentence(campaign, facts)).class("sentence"), replay]
            .into_iter()
            .chain([pictures(campaign, facts, &palette, Span { from: 0, until })])
            .chain(tables::findings(campaign, facts))
            .chain([details(campaign, facts, &palette)])
    });
    let names: Vec<_> = campaigns.iter().map(|campaign| campaign.target.as_str()).collect();
    let title = format!("The same chaos: {}", names.join(" and "));
    let body = [hero(campaigns, &facts)].into_iter().chain(parts);
    page(&title, &palette, body)
}

fn hero(campaigns: &[Campaign], facts: &[Facts]) -> Element {
    let head = campaigns.iter().zip(facts).map(|(campaign, facts)| {
        let (class, sign) = mark(facts.ruling);
        element("th")
            .attribute("scope", "col")
            .class(class)
            .with(with_text("span", sign).class("seal").attribute("aria-hidden", "true"))
            .text(&campaign.target)
    });
    let rows = LINES.map(|(name, said)| {
        let cells = campaigns.iter().zip(facts).map(|(campaign, facts)| {
            let cell = with_text("td", said(campaign, facts));
            tone(name, campaign).into_iter().fold(cell, Element::class)
        });
        element("tr").with(with_text("th", name).attribute("scope", "row")).with_all(cells)
    });
    let table = element("table")
        .class("compared")
        .with(element("thead").with(element("tr").with(with_text("th", "")).with_all(head)))
        .with(element("tbody").with_all(rows));
    element("header")
        .class("hero")
        .with(with_text("p", "A campaign of chaos, side by side").class("kicker"))
        .with(with_text("h1", "The same chaos, the same clients, the same checker."))
        .with(with_text("p", sentence(campaigns)).class("sentence"))
        .with(
            element("div")
                .class("scroll")
                .attribute("tabindex", 0)
                .attribute("role", "region")
                .attribute("aria-label", "Comparison")
                .with(table),
        )
}

fn sentence(campaigns: &[Campaign]) -> String {
    let said: Vec<_> = campaigns
        .iter()
        .map(|campaign| {
            let lost = match campaign.verdict.lost_writes.len() as u64 {
                0 => "no acknowledged write".to_owned(),
                lost => counted(lost, "acknowledged write", "acknowledged writes"),
            };
            format!("{} lost {lost}", campaign.target)
        })
        .collect();
    if said.is_empty() {
        "No campaign was given.".to_owned()
    } else {
        format!("{}.", said.join("; "))
    }
}

/// The same table in Markdown.
#[must_use]
pub fn markdown(campaigns: &[Campaign]) -> String {
    let facts: Vec<_> = campaigns.iter().map(Facts::of).collect();
    let row = |name: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!(" {cell} |")).collect();
        format!("| {name} |{cells}\n")
    };
    let mut text = row("", campaigns.iter().map(|campaign| escaped(&campaign.target)).collect());
    text.push_str(&format!("|---|{}\n", "---|".repeat(campaigns.len())));
    for (name, said) in LINES {
        let cells =
            campaigns.iter().zip(&facts).map(|(campaign, facts)| escaped(&said(campaign, facts)));
        text.push_str(&row(name, cells.collect()));
    }
    text
}

/// As the text of a cell in Markdown: nothing in it ends the cell or is markup.
fn escaped(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '&' | '~' | '!' => {
                cell.push('\\');
                cell.push(char);
            }
            control if control.is_control() => cell.extend(control.escape_default()),
            plain => cell.push(plain),
        }
    }
    cell
}
