//! What was done to each node, and who led each partition, as lanes over time.

use std::collections::BTreeMap;

use super::axis::{LEFT, Scale, WIDTH};
use super::facts::{Facts, length};
use super::markup::{Element, element, with_text};
use super::palette::node_class;
use super::timeline::Picture;
use super::words::{counted, duration, moment};
use crate::campaign::{Fault, Leadership, Outage};

/// How high one row of faults is.
const ROW: f64 = 15.0;
/// No bar is narrower: what happened is seen, however short it was.
const BAR_MIN: f64 = 4.0;
/// How wide the sign is for what was done at once.
const POINT: f64 = 10.0;
/// Up to so many faults in a lane, each is given room for its name; more would make it too high.
const NAMED_MAX: usize = 40;
/// Rows in one lane. Faults that find no room in them are drawn over others, and the lane says so.
const ROWS_MAX: usize = 8;

/// One lane for each node, and one for what was done to none or to all.
pub(super) fn faults(picture: &mut Picture<'_>) {
    picture.heading("Faults", "what was done to each node, and for how long; a point: at once");
    let campaign = picture.campaign;
    for number in 1..=campaign.nodes.len() {
        let lane = campaign.faults.iter().filter(|fault| fault.nodes.contains(&number));
        lane_of_faults(picture, &format!("{number} {}", campaign.nodes[number - 1]), lane);
    }
    let known = 1..=campaign.nodes.len();
    let mut elsewhere = campaign
        .faults
        .iter()
        .filter(|fault| {
            fault.nodes.is_empty() || fault.nodes.iter().any(|node| !known.contains(node))
        })
        .peekable();
    if elsewhere.peek().is_some() {
        lane_of_faults(picture, "cluster", elsewhere);
    }
}

/// One fault in its lane.
struct Bar<'a> {
    fault: &'a Fault,
    x: f64,
    width: f64,
    name: Name,
}

/// Where the name of a fault's kind is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Inside,
    Behind,
    Nowhere,
}

impl<'a> Bar<'a> {
    fn of(fault: &'a Fault, scale: Scale, are_few: bool) -> Self {
        let from = scale.x(fault.from);
        let needs = text_width(&fault.kind);
        let (x, width, name) = match fault.until {
            Some(until) => (from, (scale.x(until) - from).max(BAR_MIN), Name::Inside),
            None => (from - POINT / 2.0, POINT, Name::Behind),
        };
        let name = match name {
            Name::Inside if needs <= width => Name::Inside,
            _ if are_few && x + width + needs < LEFT + WIDTH => Name::Behind,
            Name::Inside | Name::Behind | Name::Nowhere => Name::Nowhere,
        };
        Self { fault, x, width, name }
    }

    /// Where the next may begin in the same row.
    fn end(&self) -> f64 {
        let name = match self.name {
            Name::Behind => text_width(&self.fault.kind),
            Name::Inside | Name::Nowhere => 0.0,
        };
        self.x + self.width + name + 1.0
    }

    fn draw(&self, picture: &Picture<'_>, y: f64) -> Element {
        const HEIGHT: f64 = ROW - 2.0;
        let Self { fault, x, width, name } = *self;
        let shape = |class: &str| match fault.until {
            Some(_) => element("rect")
                .class(class)
                .place("x", x)
                .place("y", y)
                .place("width", width)
                .place("height", HEIGHT)
                .attribute("rx", 2),
            None => {
                let (middle, half) = (x + POINT / 2.0, POINT / 2.0);
                let down = HEIGHT / 2.0;
                let path =
                    format!("M{middle:.1},{y:.1}l{half},{down}l-{half},{down}l-{half},-{down}z");
                element("path").class(class).attribute("d", path)
            }
        };
        let mut group = element("g")
            .with(with_text("title", said(fault)))
            .with(shape(&format!("fault {}", picture.palette.class(&fault.kind))))
            .with(shape("over").attribute("fill", picture.palette.pattern(&fault.kind)));
        let text = |x| {
            let text = with_text("text", &fault.kind).class("inside halo");
            text.place("x", x).place("y", y + HEIGHT / 2.0)
        };
        match name {
            Name::Inside => group = group.with(text(x + 4.0)),
            Name::Behind => group = group.with(text(x + width + 3.0)),
            Name::Nowhere => {}
        }
        group
    }
}

/// All that is to be said of a fault.
fn said(fault: &Fault) -> String {
    let lasted = match fault.until {
        Some(until) => {
            format!(" – {} ({})", moment(until), duration(until.saturating_sub(fault.from)))
        }
        None => String::new(),
    };
    format!("{}: {}\n{}{lasted}", fault.kind, fault.detail, moment(fault.from))
}

/// How much room a text of ten pixels needs, roughly, with some space around it.
fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * 5.8 + 8.0
}

fn lane_of_faults<'a>(
    picture: &mut Picture<'_>,
    name: &str,
    faults: impl Iterator<Item = &'a Fault>,
) {
    let scale = picture.scale;
    let seen = |fault: &&Fault| scale.span.meets(fault.from, fault.until.unwrap_or(fault.from));
    let faults: Vec<_> = faults.filter(seen).collect();
    let are_few = faults.len() <= NAMED_MAX;
    // The right ends of each row.
    let mut rows: Vec<f64> = Vec::new();
    let mut bars = Vec::new();
    let mut covered = 0;
    for fault in faults {
        let bar = Bar::of(fault, scale, are_few);
        let free = rows.iter().position(|&end| end <= bar.x);
        let row = free.unwrap_or_else(|| rows.len().min(ROWS_MAX - 1));
        if row == rows.len() {
            rows.push(0.0);
        } else if free.is_none() {
            covered += 1;
        }
        rows[row] = rows[row].max(bar.end());
        bars.push((row, bar));
    }
    let height = ROW * rows.len().max(1) as f64 + 3.0;
    picture.y += 2.0;
    picture.ground(height);
    picture.label(name, height);
    for (row, bar) in bars {
        let bar = bar.draw(picture, picture.y + 1.5 + ROW * row as f64);
        picture.add(bar);
    }
    picture.y += height;
    if covered > 0 {
        picture.y += 10.0;
        let covered = counted(covered, "fault", "faults");
        let said = format!("{covered} drawn over others; the list of all faults has them");
        let remark = with_text("text", said).class("remark").place("x", LEFT);
        let remark = remark.place("y", picture.y - 1.0);
        picture.add(remark);
    }
}

/// One lane for each partition: its leader's colour and number, and its outages over it.
pub(super) fn leaderships(picture: &mut Picture<'_>, facts: &Facts) {
    if facts.partitions.is_empty() {
        return;
    }
    picture.heading("Partitions", "who led each, by colour and number; when it took no writes");
    let mut led: BTreeMap<u16, Vec<&Leadership>> = BTreeMap::new();
    for leadership in &picture.campaign.leaderships {
        led.entry(leadership.partition).or_default().push(leadership);
    }
    let mut out: BTreeMap<u16, Vec<&Outage>> = BTreeMap::new();
    for outage in &picture.campaign.outages {
        out.entry(outage.partition).or_default().push(outage);
    }
    let height = if facts.partitions.len() > 16 { 11.0 } else { 17.0 };
    // Drawn last: nothing covers it.
    let mut longest = None;
    for &partition in facts.partitions.keys() {
        picture.y += 1.5;
        picture.label(&format!("{partition}"), height);
        let ground = lane(picture.y, height);
        picture.add(ground("ground"));
        picture.add(ground("over").attribute("fill", "url(#leaderless)"));
        for leadership in led.remove(&partition).into_iter().flatten() {
            draw_leadership(picture, leadership, height);
        }
        for outage in out.remove(&partition).into_iter().flatten() {
            if picture.scale.span.meets(outage.from, outage.until) {
                let drawn = draw_outage(picture, outage, height);
                picture.add(drawn);
                if facts.longest.as_ref() == Some(outage) {
                    longest = Some(callout(picture, outage, height));
                }
            }
        }
        picture.y += height;
    }
    picture.parts.extend(longest);
}

/// A rectangle over the whole width, of a class.
fn lane(y: f64, height: f64) -> impl Fn(&'static str) -> Element {
    move |class| {
        let rect = element("rect").class(class).place("x", LEFT).place("y", y);
        rect.place("width", WIDTH).place("height", height)
    }
}

fn draw_leadership(picture: &mut Picture<'_>, led: &Leadership, height: f64) {
    if !picture.scale.span.meets(led.from, led.until) {
        return;
    }
    let x = picture.scale.x(led.from);
    let width = (picture.scale.x(led.until) - x).max(1.0);
    let name = led.node.checked_sub(1).and_then(|index| picture.campaign.nodes.get(index));
    let said = format!(
        "partition {} led by {} {} in term {}\n{} – {}",
        led.partition,
        led.node,
        name.map_or("", String::as_str),
        led.term,
        moment(led.from),
        moment(led.until),
    );
    let rect = element("rect").class(format!("led {}", node_class(led.node))).place("x", x);
    let rect = rect.place("y", picture.y).place("width", width).place("height", height);
    let mut group = element("g").with(with_text("title", said)).with(rect);
    if width >= 14.0 {
        let text = with_text("text", led.node).class(if height > 12.0 {
            "inside"
        } else {
            "inside small"
        });
        group = group.with(text.place("x", x + 4.0).place("y", picture.y + height / 2.0));
    }
    picture.add(group);
}

fn draw_outage(picture: &Picture<'_>, outage: &Outage, height: f64) -> Element {
    let (x, width) = extent(picture, outage);
    let words = duration(length(outage));
    let said = format!(
        "partition {} took no writes for {words}\n{} – {}",
        outage.partition,
        moment(outage.from),
        moment(outage.until),
    );
    let rect = |class| {
        let rect = element("rect").class(class).place("x", x).place("y", picture.y);
        rect.place("width", width).place("height", height)
    };
    let mut group = element("g").with(with_text("title", said)).with(rect("outage"));
    if width >= 5.0 {
        group = group.with(rect("over").attribute("fill", "url(#outage)"));
    }
    if text_width(&words) <= width {
        let class = if height > 12.0 { "on-outage" } else { "on-outage small" };
        let text = with_text("text", words).class(class).place("x", x + 4.0);
        group = group.with(text.place("y", picture.y + height / 2.0));
    }
    group
}

/// Says beside the longest outage that it is that.
fn callout(picture: &Picture<'_>, outage: &Outage, height: f64) -> Element {
    let (x, width) = extent(picture, outage);
    let words = format!("longest: {}", duration(length(outage)));
    let behind = x + width + text_width(&words) < LEFT + WIDTH;
    let (anchor, at) = if behind { ("start", x + width + 4.0) } else { ("end", x - 4.0) };
    let text = with_text("text", words).class("longest").attribute("text-anchor", anchor);
    let frame =
        element("rect").class("longest-frame").place("x", x - 1.5).place("width", width + 3.0);
    let frame = frame.place("y", picture.y - 1.5).place("height", height + 3.0);
    let text = text.place("x", at).place("y", picture.y + height / 2.0);
    element("g").with(frame).with(text)
}

/// An outage's place and width: never so narrow that it is overlooked.
fn extent(picture: &Picture<'_>, outage: &Outage) -> (f64, f64) {
    let x = picture.scale.x(outage.from);
    (x, (picture.scale.x(outage.until) - x).max(2.5))
}
