//! What the picture shows, and what it cannot show, as text.

use std::cmp::Reverse;

use super::facts::{Facts, Ruling, is_untested, length};
use super::markup::{Element, element, with_text};
use super::palette::Palette;
use super::words::{count, counted, duration, moment};
use crate::campaign::{Campaign, Outage};

/// Rows that are shown at once; the others are folded.
const ROWS_OPEN: usize = 16;
/// The same, of texts.
const TEXTS_OPEN: usize = 8;

/// A table in a box that scrolls where the page is narrower.
fn table(caption: &str, columns: &[&str], rows: Vec<Element>) -> Element {
    let head = columns.iter().map(|column| with_text("th", column).attribute("scope", "col"));
    let table = element("table")
        .with(with_text("caption", caption))
        .with(element("thead").with(element("tr").with_all(head)))
        .with(element("tbody").with_all(rows));
    element("div")
        .class("scroll")
        .attribute("tabindex", 0)
        .attribute("role", "region")
        .attribute("aria-label", caption)
        .with(table)
}

fn row(cells: impl IntoIterator<Item = Element>) -> Element {
    element("tr").with_all(cells)
}

fn number(value: u64) -> Element {
    with_text("td", count(value)).class("number")
}

fn cell(text: impl std::fmt::Display) -> Element {
    with_text("td", text)
}

fn folded(summary: String, content: Element) -> Element {
    element("details").with(with_text("summary", summary)).with(content)
}

/// All that is wrong, word for word. Nothing if nothing is.
pub(super) fn findings(campaign: &Campaign, facts: &Facts) -> Option<Element> {
    if facts.ruling == Ruling::Kept {
        return None;
    }
    let verdict = &campaign.verdict;
    let mut section = element("section").class("findings").with(with_text("h2", "What was found"));
    if facts.ruling == Ruling::Nothing {
        let text = "No operation was recorded. A campaign without operations proves nothing.";
        section = section.with(with_text("p", text));
    }
    if !facts.untested.is_empty() {
        let kinds = facts.untested.join(", ");
        let text = format!(
            "Not tested, though planned: {kinds}. A campaign that left out what it was to do proves less than it says, and fails."
        );
        section = section.with(with_text("p", text).class("loud"));
    }
    if let Some(violation) = &verdict.violation {
        section = section
            .with(with_text("h3", "The history is not linearizable"))
            .with(with_text("pre", violation));
    }
    let lists = [
        ("Lost after they were acknowledged", &verdict.lost_writes),
        ("Complaints", &verdict.complaints),
        ("Too hard to judge", &verdict.too_hard),
    ];
    for (title, texts) in lists.into_iter().filter(|(_, texts)| !texts.is_empty()) {
        section = section.with(with_text("h3", format!("{title}: {}", count(texts.len() as u64))));
        section = section.with_all(list(texts));
    }
    Some(section)
}

/// Word for word, and most of a long list folded.
fn list(texts: &[String]) -> Vec<Element> {
    let items = |texts: &[String]| {
        element("ul").class("verbatim").with_all(texts.iter().map(|text| with_text("li", text)))
    };
    let (open, rest) = texts.split_at(texts.len().min(TEXTS_OPEN));
    let mut lists = vec![items(open)];
    if !rest.is_empty() {
        lists.push(folded(format!("{} more", count(rest.len() as u64)), items(rest)));
    }
    lists
}

/// Which kinds of faults were planned, and which of them happened.
pub(super) fn planned(campaign: &Campaign, palette: &Palette) -> Element {
    let planned = campaign.planned.iter().map(|planned| {
        let (class, mark, said) = match (&planned.unable, planned.happened) {
            (Some(reason), 0) => ("unable", "–", format!("left out: {reason}")),
            (Some(reason), _) => ("tested", "✓", format!("tested, though: {reason}")),
            (None, _) if is_untested(planned) => ("untested", "✗", "NOT TESTED".to_owned()),
            (None, _) => ("tested", "✓", "tested".to_owned()),
        };
        (planned.kind.as_str(), Some(planned.happened), class, mark, said)
    });
    let also = campaign.faults.iter().map(|fault| fault.kind.as_str());
    let mut unplanned: Vec<_> =
        also.filter(|kind| campaign.planned.iter().all(|planned| planned.kind != *kind)).collect();
    unplanned.sort_unstable();
    unplanned.dedup();
    let unplanned =
        unplanned.into_iter().map(|kind| (kind, None, "tested", "✓", "not planned".to_owned()));
    let rows = planned.chain(unplanned).map(|(kind, happened, class, mark, said)| {
        let seen = campaign.faults.iter().filter(|fault| fault.kind == kind);
        let lasted = seen
            .clone()
            .filter_map(|fault| fault.until.map(|until| until.saturating_sub(fault.from)));
        let lasted = lasted.fold(0, u64::saturating_add);
        let name =
            element("th").attribute("scope", "row").with(palette.swatch(kind)).text(" ").text(kind);
        row([
            name,
            number(happened.unwrap_or(seen.count() as u64)),
            with_text("td", if lasted == 0 { "–".to_owned() } else { duration(lasted) })
                .class("number"),
            element("td")
                .class(class)
                .with(with_text("span", mark).class("mark"))
                .text(" ")
                .text(said),
        ])
    });
    let columns = ["kind", "happened", "lasted, in all", "result"];
    table("Faults, planned and happened", &columns, rows.collect())
}

/// How long each partition took no writes, the worst first.
pub(super) fn partitions(campaign: &Campaign, facts: &Facts) -> Vec<Element> {
    let mut partitions: Vec<_> = facts.partitions.iter().collect();
    partitions.sort_by_key(|(_, partition)| Reverse(partition.longest.as_ref().map(length)));
    let most = facts.longest_ms().max(1);
    let mut rows: Vec<_> = partitions
        .into_iter()
        .map(|(id, partition)| {
            let when =
                |outage: &Outage| format!("{} – {}", moment(outage.from), moment(outage.until));
            let longest = partition.longest.as_ref().map_or(0, length);
            let bar = element("span")
                .class("bar")
                .attribute("aria-hidden", "true")
                .attribute("style", format!("width:{:.1}%", 100.0 * longest as f64 / most as f64));
            row([
                with_text("th", id).attribute("scope", "row"),
                with_text("td", if longest == 0 { "none".to_owned() } else { duration(longest) })
                    .class("number"),
                element("td").class("bars").with(bar),
                cell(partition.longest.as_ref().map_or_else(String::new, when)),
                number(partition.outages),
                with_text("td", share(partition.out, campaign.ended)).class("number"),
                number(partition.changes),
            ])
        })
        .collect();
    let columns =
        ["partition", "longest", "", "when", "outages", "took writes", "changes of leader"];
    let rest = rows.split_off(rows.len().min(ROWS_OPEN));
    let mut tables = vec![table("Unavailability of each partition", &columns, rows)];
    if !rest.is_empty() {
        let summary = format!(
            "{} more, with shorter outages or none",
            counted(rest.len() as u64, "partition", "partitions")
        );
        tables
            .push(folded(summary, table("Unavailability of the other partitions", &columns, rest)));
    }
    tables
}

/// The share of time that is left when `out` of it is gone: `99.87 %`. Never `100 %` when some is.
pub(super) fn share(out: u64, ended: u64) -> String {
    let share = 100.0 * (1.0 - (out as f64 / ended.max(1) as f64).min(1.0));
    if out > 0 && share > 99.99 { "99.99 %".to_owned() } else { format!("{share:.2} %") }
}

/// What came of the faults, and how often.
pub(super) fn what_came(campaign: &Campaign) -> Element {
    counts("What came of it", &campaign.came)
}

/// What else was counted.
pub(super) fn counted_else(campaign: &Campaign) -> Element {
    counts("What else was counted", &campaign.counted)
}

fn counts(caption: &str, counts: &[(String, u64)]) -> Element {
    let rows = counts.iter().map(|(what, times)| {
        row([with_text("th", what).attribute("scope", "row"), number(*times)])
    });
    table(caption, &["what", "how often"], rows.collect())
}

/// What came of what was asked at each door. Nothing if no door is known.
pub(super) fn doors(campaign: &Campaign) -> Option<Element> {
    let rows = campaign.doors.iter().map(|door| {
        row([
            with_text("th", &door.name).attribute("scope", "row"),
            number(door.asked),
            number(door.done),
            with_text(
                "td",
                match door.asked {
                    0 => "–".to_owned(),
                    asked => share(asked.saturating_sub(door.done), asked),
                },
            )
            .class("number"),
        ])
    });
    let columns = ["door", "operations asked for", "done", "share"];
    let known = !campaign.doors.is_empty();
    known.then(|| table("What clients asked for, and where", &columns, rows.collect()))
}

/// Every fault, in the order of its beginning.
pub(super) fn all_faults(campaign: &Campaign, palette: &Palette) -> Element {
    let rows = campaign.faults.iter().map(|fault| {
        let lasted = fault.until.map(|until| duration(until.saturating_sub(fault.from)));
        let nodes: Vec<_> = fault.nodes.iter().map(usize::to_string).collect();
        row([
            with_text("td", moment(fault.from)).class("number"),
            with_text("td", lasted.unwrap_or_else(|| "at once".to_owned())).class("number"),
            element("td").with(palette.swatch(&fault.kind)).text(" ").text(&fault.kind),
            cell(nodes.join(", ")),
            cell(&fault.detail),
        ])
    });
    let columns = ["at", "lasted", "kind", "nodes", "what was done"];
    folded(
        format!(
            "All {}, in the order of time",
            counted(campaign.faults.len() as u64, "fault", "faults")
        ),
        table("All faults", &columns, rows.collect()),
    )
}
