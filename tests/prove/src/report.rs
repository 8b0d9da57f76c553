//! Reports for people: one HTML file for a campaign, or for several side by side.
//!
//! A file needs nothing but itself: no other file, no network, and no script to be read. Texts come from
//! clusters and from clients, so nothing is trusted: see `markup`.

mod axis;
mod comparison;
mod curves;
mod facts;
mod lanes;
mod markup;
mod palette;
mod tables;
mod timeline;
mod words;

pub use comparison::{compare, markdown};

use axis::Span;
use facts::{Facts, Ruling};
use markup::{Element, element, with_text};
use palette::{Palette, node_class};
use words::{count, duration};

use crate::campaign::Campaign;

const STYLE: &str = include_str!("report/style.css");
const SCRIPT: &str = include_str!("report/script.js");

/// A campaign's report, as the text of an HTML file.
#[must_use]
pub fn html(campaign: &Campaign) -> String {
    let palette = Palette::of(std::slice::from_ref(campaign));
    let facts = Facts::of(campaign);
    let body = [hero(campaign, &facts)]
        .into_iter()
        .chain(tables::findings(campaign, &facts))
        .chain([pictures(campaign, &facts, &palette, Span::of(campaign))])
        .chain([details(campaign, &facts, &palette)]);
    page(&format!("{}: {}", campaign.target, facts::headline(campaign, &facts)), &palette, body)
}

/// The whole file.
fn page(title: &str, palette: &Palette, body: impl IntoIterator<Item = Element>) -> String {
    let head = element("head")
        .with(element("meta").attribute("charset", "utf-8"))
        .with(
            element("meta")
                .attribute("name", "viewport")
                .attribute("content", "width=device-width, initial-scale=1"),
        )
        .with(element("meta").attribute("name", "color-scheme").attribute("content", "light dark"))
        .with(with_text("title", title))
        .with(element("style").verbatim(STYLE));
    let body = element("body")
        .with(palette.definitions())
        .with(element("main").with_all(body))
        .with(element("script").verbatim(SCRIPT));
    let html = element("html").attribute("lang", "en").with(head).with(body);
    format!("<!DOCTYPE html>\n{html}\n")
}

/// The verdict, the numbers that matter most, and the command that does it again.
fn hero(campaign: &Campaign, facts: &Facts) -> Element {
    let (class, mark) = mark(facts.ruling);
    let headline = element("h1")
        .with(with_text("span", mark).class("seal").attribute("aria-hidden", "true"))
        .text(facts::headline(campaign, facts));
    let origin = format!(
        "{} · began {} · seed {} · {}",
        campaign.target, campaign.began, campaign.seed, campaign.machine
    );
    element("header")
        .class(format!("hero {class}"))
        .with(
            with_text("p", format!("A campaign of chaos · {}", outcome(facts.ruling)))
                .class("kicker"),
        )
        .with(headline)
        .with(with_text("p", facts::sentence(campaign, facts)).class("sentence"))
        .with(tiles(campaign, facts))
        .with(
            element("p")
                .class("replay")
                .with(with_text("span", "Again: "))
                .with(with_text("code", &campaign.replay)),
        )
        .with(with_text("p", origin).class("origin"))
}

/// Whether the campaign passed.
const fn outcome(ruling: Ruling) -> &'static str {
    match ruling {
        Ruling::Kept => "passed",
        Ruling::Broken | Ruling::Nothing | Ruling::Untested | Ruling::Wrong | Ruling::Undecided => {
            "failed"
        }
    }
}

/// A class and a sign.
const fn mark(ruling: Ruling) -> (&'static str, &'static str) {
    match ruling {
        Ruling::Kept => ("kept", "✓"),
        Ruling::Broken | Ruling::Wrong => ("broken", "✗"),
        Ruling::Undecided | Ruling::Untested | Ruling::Nothing => ("open", "?"),
    }
}

fn tiles(campaign: &Campaign, facts: &Facts) -> Element {
    let verdict = &campaign.verdict;
    let lost = verdict.lost_writes.len() as u64;
    let violations = u64::from(verdict.violation.is_some());
    let bad = |number: u64| match number {
        // Nothing is good about what was not looked for.
        0 if verdict.operations == 0 => "",
        0 => "good",
        _ => "bad",
    };
    let longest = match facts.longest_ms() {
        0 => "none".to_owned(),
        ms => duration(ms),
    };
    let of_partition = match &facts.longest {
        Some(outage) => format!("longest unavailability, of partition {}", outage.partition),
        None => "longest unavailability".to_owned(),
    };
    let kinds = campaign.planned.iter().filter(|planned| planned.happened > 0).count() as u64;
    let injected = format!("faults injected, of {}", words::counted(kinds, "kind", "kinds"));
    let tiles = [
        ("", count(verdict.operations), "operations judged".to_owned()),
        (bad(lost), count(lost), "acknowledged writes lost".to_owned()),
        (bad(violations), count(violations), "violations of linearizability".to_owned()),
        ("", longest, of_partition),
        ("", count(campaign.faults.len() as u64), injected),
    ];
    element("dl").class("tiles").with_all(tiles.map(|(class, number, name)| {
        element("div")
            .class(format!("tile {class}"))
            .with(with_text("dt", name))
            .with(with_text("dd", number))
    }))
}

/// The timeline with its legend, and closer looks if it is long.
fn pictures(campaign: &Campaign, facts: &Facts, palette: &Palette, span: Span) -> Element {
    let section = element("section").with(with_text("h2", "What happened, over time"));
    if campaign.throughput.is_empty() && campaign.faults.is_empty() && facts.partitions.is_empty() {
        return section.with(with_text("p", "Nothing was recorded."));
    }
    let framed = |span| {
        element("div")
            .class("scroll picture")
            .attribute("tabindex", 0)
            .attribute("role", "region")
            .attribute("aria-label", "Timeline")
            .with(timeline::draw(campaign, facts, palette, span))
    };
    let section = section.with(legend(campaign, palette)).with(framed(span));
    let chapters = timeline::chapters(campaign);
    if chapters.is_empty() {
        return section;
    }
    let closer = chapters.into_iter().map(|span| {
        let title = with_text("summary", timeline::chapter_title(campaign, span));
        element("details").with(title).with(framed(span))
    });
    section.with(with_text("h3", "More closely")).with_all(closer)
}

fn legend(campaign: &Campaign, palette: &Palette) -> Element {
    let entry = |swatch: Element, text: &str| element("li").with(swatch).text(" ").text(text);
    let curves = curves::legend().into_iter().map(|(swatch, text)| entry(swatch, text));
    let kinds: std::collections::BTreeSet<_> =
        campaign.faults.iter().map(|fault| &fault.kind).collect();
    let kinds = kinds.into_iter().map(|kind| entry(palette.swatch(kind), kind));
    let nodes = campaign.nodes.iter().enumerate().map(|(index, name)| {
        let badge = with_text("span", index + 1).class(format!("badge {}", node_class(index + 1)));
        entry(badge, name)
    });
    let outage = [
        entry(outage_swatch(), "a partition took no writes"),
        entry(leaderless_swatch(), "no leader was seen"),
    ];
    element("div")
        .class("legend")
        .with(group("Operations", curves.collect()))
        .with(group("Faults", kinds.collect()))
        .with(group("Leaders", nodes.chain(outage).collect()))
}

fn group(name: &str, entries: Vec<Element>) -> Element {
    element("div").with(with_text("h3", name)).with(element("ul").with_all(entries))
}

fn outage_swatch() -> Element {
    filled_swatch("outage", "url(#outage)")
}

fn leaderless_swatch() -> Element {
    filled_swatch("ground", "url(#leaderless)")
}

fn filled_swatch(class: &str, pattern: &str) -> Element {
    let rect = |class: &str| {
        element("rect")
            .class(class)
            .attribute("width", 22)
            .attribute("height", 13)
            .attribute("rx", 2)
    };
    element("svg")
        .class("swatch")
        .attribute("width", 22)
        .attribute("height", 13)
        .attribute("aria-hidden", "true")
        .with(rect(class))
        .with(rect("over").attribute("fill", pattern))
}

/// Everything as text.
fn details(campaign: &Campaign, facts: &Facts, palette: &Palette) -> Element {
    element("section")
        .with(with_text("h2", "In numbers"))
        .with(
            element("div")
                .class("pair")
                .with(tables::planned(campaign, palette))
                .with(tables::what_came(campaign)),
        )
        .with(
            element("div")
                .class("pair")
                .with(tables::counted_else(campaign))
                .with_all(tables::doors(campaign)),
        )
        .with_all(tables::partitions(campaign, facts))
        .with(tables::all_faults(campaign, palette))
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::campaign::{Campaign, Verdict};

    /// A campaign in which nothing was done.
    pub(crate) fn empty() -> Campaign {
        Campaign {
            target: String::new(),
            seed: 0,
            replay: String::new(),
            began: String::new(),
            machine: String::new(),
            faults_ended: 0,
            ended: 0,
            nodes: Vec::new(),
            faults: Vec::new(),
            planned: Vec::new(),
            doors: Vec::new(),
            throughput: Vec::new(),
            step: 0,
            leaderships: Vec::new(),
            outages: Vec::new(),
            came: Vec::new(),
            counted: Vec::new(),
            verdict: Verdict {
                operations: 0,
                objects: 0,
                lost_writes: Vec::new(),
                violation: None,
                too_hard: Vec::new(),
                complaints: Vec::new(),
            },
        }
    }
}
