//! The picture of a campaign, or of a part of it: everything over one axis of time.

use super::axis::{LEFT, Scale, Span, WIDTH};
use super::facts::Facts;
use super::markup::{Element, element, with_text};
use super::palette::Palette;
use super::words::{counted, duration, moment};
use super::{curves, lanes};
use crate::campaign::Campaign;

/// Room on the right of the plots, for half a label.
const RIGHT: f64 = 22.0;

/// A picture that grows downwards.
pub(super) struct Picture<'a> {
    pub(super) campaign: &'a Campaign,
    pub(super) palette: &'a Palette,
    pub(super) scale: Scale,
    /// Where the next part begins.
    pub(super) y: f64,
    /// What there is, in the order of drawing.
    pub(super) parts: Vec<Element>,
}

/// Draws what happened within `span`.
pub(super) fn draw(campaign: &Campaign, facts: &Facts, palette: &Palette, span: Span) -> Element {
    let mut picture =
        Picture { campaign, palette, scale: Scale { span }, y: 16.0, parts: Vec::new() };
    let columns = curves::columns(campaign, span);
    picture.axis();
    curves::throughput(&mut picture, &columns);
    curves::failures(&mut picture, &columns);
    curves::latency(&mut picture, &columns);
    lanes::faults(&mut picture);
    lanes::leaderships(&mut picture, facts);
    picture.axis();
    picture.end_of_faults();

    let (width, height) = (LEFT + WIDTH + RIGHT, picture.y);
    element("svg")
        .class("timeline")
        .attribute("xmlns", "http://www.w3.org/2000/svg")
        .attribute("viewBox", format!("0 0 {width} {height:.0}"))
        .attribute("role", "img")
        .attribute("aria-label", description(campaign, facts, span))
        .attribute("data-from", span.from)
        .attribute("data-until", span.until)
        .attribute("data-left", LEFT)
        .attribute("data-width", WIDTH)
        .attribute("data-columns", curves::readings(&columns))
        .with_all(picture.parts)
}

/// What the picture shows, for who does not see it. The tables say the same in full.
fn description(campaign: &Campaign, facts: &Facts, span: Span) -> String {
    let faults = campaign
        .faults
        .iter()
        .filter(|fault| span.meets(fault.from, fault.until.unwrap_or(fault.from)));
    let outages = campaign.outages.iter().filter(|outage| span.meets(outage.from, outage.until));
    format!(
        "Timeline of {} from {} to {}: throughput, latency, {} on {}, leadership of {}, {}. The tables \
         below give the same as text.",
        campaign.target,
        moment(span.from),
        moment(span.until),
        counted(faults.count() as u64, "fault", "faults"),
        counted(campaign.nodes.len() as u64, "node", "nodes"),
        counted(facts.partitions.len() as u64, "partition", "partitions"),
        counted(outages.count() as u64, "outage", "outages"),
    )
}

impl Picture<'_> {
    /// Adds a part.
    pub(super) fn add(&mut self, part: Element) {
        self.parts.push(part);
    }

    /// Adds a heading over what follows, with a remark.
    pub(super) fn heading(&mut self, title: &str, remark: &str) {
        self.y += 26.0;
        let title = with_text("tspan", title).class("heading");
        let remark = with_text("tspan", remark).class("remark").attribute("dx", 8);
        self.add(element("text").place("x", 0.0).place("y", self.y).with(title).with(remark));
        self.y += 14.0;
    }

    /// Adds a label on the left of what lies between `self.y` and `self.y + height`.
    pub(super) fn label(&mut self, text: &str, height: f64) {
        let label = with_text("text", super::words::shortened(text, 16))
            .class("label")
            .place("x", LEFT - 8.0)
            .place("y", self.y + height / 2.0)
            .with(with_text("title", text));
        self.add(label);
    }

    /// Adds the background of a part, with the lines of the axis.
    pub(super) fn ground(&mut self, height: f64) {
        let rect = element("rect").class("ground").place("x", LEFT).place("y", self.y);
        self.add(rect.place("width", WIDTH).place("height", height));
        let lines: String = self.scale.ticks().iter().fold(String::new(), |path, &tick| {
            format!("{path}M{:.1},{:.1}v{height:.1}", self.scale.x(tick), self.y)
        });
        self.add(element("path").class("grid").attribute("d", lines));
    }

    fn axis(&mut self) {
        self.y += 14.0;
        let labels = self.scale.ticks().into_iter().map(|tick| {
            with_text("text", moment(tick))
                .class("tick")
                .place("x", self.scale.x(tick))
                .place("y", self.y)
        });
        let axis = element("g").with_all(labels);
        self.add(axis);
        self.y += 6.0;
    }

    /// A line through everything where the last fault was mended.
    fn end_of_faults(&mut self) {
        let ended = self.campaign.faults_ended;
        if !self.scale.span.contains(ended) || ended >= self.campaign.ended {
            return;
        }
        let x = self.scale.x(ended);
        let said = format!("everything was mended for good at {}", moment(ended));
        let line = element("path")
            .class("mended")
            .attribute("d", format!("M{x:.1},20V{:.1}", self.y - 18.0));
        self.add(line.with(with_text("title", said)));
        let right = LEFT + WIDTH - x;
        let (anchor, x) = if right > 60.0 { ("start", x + 4.0) } else { ("end", x - 4.0) };
        let remark =
            with_text("text", "all mended").class("remark halo").place("x", x).place("y", 46.0);
        self.add(remark.attribute("text-anchor", anchor));
    }
}

/// Parts of a long campaign to look at more closely; none if one picture shows it all.
pub(super) fn chapters(campaign: &Campaign) -> Vec<Span> {
    /// What one picture shows well, in milliseconds.
    const WELL: u64 = 300_000;
    /// More pictures than this nobody looks at, and the file would grow large.
    const CHAPTERS_MAX: u64 = 24;
    let whole = Span::of(campaign);
    let length = whole.until - whole.from;
    if length <= WELL + WELL / 2 {
        return Vec::new();
    }
    // Whole minutes, so that pages begin where people would begin them.
    let each = WELL.max(length.div_ceil(CHAPTERS_MAX).div_ceil(60_000).saturating_mul(60_000));
    // What is left over and short belongs to the one before.
    let count = (length.saturating_add(each * 3 / 4) / each).max(1);
    let end = |i| if i + 1 == count { whole.until } else { (i + 1) * each };
    (0..count).map(|i| Span { from: i * each, until: end(i) }).collect()
}

/// What to call a chapter, with what happened in it.
pub(super) fn chapter_title(campaign: &Campaign, span: Span) -> String {
    let faults = campaign
        .faults
        .iter()
        .filter(|fault| span.meets(fault.from, fault.until.unwrap_or(fault.from)));
    let longest = campaign
        .outages
        .iter()
        .filter(|outage| span.meets(outage.from, outage.until))
        .map(super::facts::length)
        .max();
    let outage = match longest {
        None => "no outage".to_owned(),
        Some(ms) => format!("longest outage {}", duration(ms)),
    };
    format!(
        "{} – {}: {}, {outage}",
        moment(span.from),
        moment(span.until),
        counted(faults.count() as u64, "fault", "faults"),
    )
}
