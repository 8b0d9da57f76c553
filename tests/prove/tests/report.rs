//! Reports are well-formed, show what they were given, and hide nothing, whatever the campaign was.

#[path = "../examples/report/sample.rs"]
mod sample;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use roxmltree::{Document, Node};
use sample::Shape;
use scatterhoard_prove::campaign::{
    Campaign, Door, Fault, Leadership, Outage, Planned, Step, Verdict,
};
use scatterhoard_prove::report;

const HOUR: Shape = Shape { minutes: 60, nodes_count: 9, partitions_count: 64, loses: false };
const FAILED: Shape = Shape { loses: true, ..Shape::SHORT };

#[test]
fn a_kept_promise_is_told_first() {
    let campaign = sample::campaign(Shape::SHORT, 7);
    let page = report::html(&campaign);
    let report = read(&page);
    assert_eq!(report.said("h1"), "✓Nothing was lost.");
    let tiles = report.said("dl");
    assert!(tiles.contains("acknowledged writes lost0"), "{tiles}");
    assert!(report.said("header").contains("scripts/chaos --minutes 2 --seed 7"));
    assert!(!report.all().contains("What was found"));
}

#[test]
fn what_went_wrong_is_told_word_for_word() {
    let campaign = sample::campaign(FAILED, 8);
    let page = report::html(&campaign);
    let report = read(&page);
    assert_eq!(report.said("h1"), "✗37 acknowledged writes were lost.");
    let all = report.all();
    let verdict = &campaign.verdict;
    for text in verdict.lost_writes.iter().chain(&verdict.violation).chain(&verdict.complaints) {
        assert!(all.contains(text), "{text}");
    }
}

#[test]
fn what_was_not_tested_is_loud_and_fails_the_campaign() {
    let mut campaign = sample::campaign(Shape::SHORT, 7);
    campaign.planned.push(Planned { kind: "memory".to_owned(), happened: 0, unable: None });
    let page = report::html(&campaign);
    let report = read(&page);
    assert_eq!(report.said("h1"), "?Not all was tested.");
    assert!(report.said("header").contains("failed"));
    let all = report.all();
    assert!(all.contains("Not tested, though planned: memory"));
    assert_eq!(all.matches("NOT TESTED").count(), 1);
    assert!(all.contains("left out: nodes keep nothing on disk"));
}

#[test]
fn a_campaign_without_operations_proves_nothing() {
    let page = report::html(&sample::empty());
    let report = read(&page);
    assert_eq!(report.said("h1"), "?Nothing was proved.");
    assert!(report.all().contains("the cluster did not come up"));
}

#[test]
fn an_hour_on_nine_nodes_shows_every_fault_and_every_outage() {
    let campaign = sample::campaign(HOUR, 9);
    let page = report::html(&campaign);
    let report = read(&page);
    let timelines = report.classed("timeline");
    assert_eq!(timelines.len(), 13, "all of it, and twelve times five minutes");
    let drawn =
        |class: &str| timelines[0].descendants().filter(|node| has_class(*node, class)).count();
    let struck: usize = campaign.faults.iter().map(|fault| fault.nodes.len()).sum();
    assert_eq!(drawn("fault"), struck);
    assert_eq!(drawn("outage"), campaign.outages.len());
    assert_eq!(drawn("led"), campaign.leaderships.len());
    let narrowest = timelines[0]
        .descendants()
        .filter(|node| has_class(*node, "outage"))
        .filter_map(|node| node.attribute("width")?.parse::<f64>().ok())
        .fold(f64::INFINITY, f64::min);
    assert!(narrowest >= 2.5, "an outage of {narrowest} pixels is overlooked");
}

#[test]
fn a_comparison_says_who_lost_what() {
    let both = [sample::campaign(Shape::SHORT, 7), sample::campaign(FAILED, 8)];
    let page = report::compare(&both);
    let report = read(&page);
    assert!(report.said("header").contains(
        "scatterhoard 0.1.0 lost no acknowledged write; Redis Cluster 7.0.15 lost 37 acknowledged writes."
    ));
    assert_eq!(report.classed("timeline").len(), 2);
    let untils: Vec<_> =
        report.classed("timeline").iter().map(|svg| svg.attribute("data-until")).collect();
    assert_eq!(untils[0], untils[1], "both are on one axis");
    let table = report::markdown(&both);
    assert!(table.contains("| acknowledged writes lost | 0 | 37 |\n"), "{table}");
}

proptest! {
    // Each draws and reads a whole page.
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_campaign_gives_a_file_that_is_well_formed_and_needs_no_other(campaign in campaign()) {
        let page = report::html(&campaign);
        let report = read(&page);
        for element in report.document.descendants().filter(Node::is_element) {
            prop_assert!(ELEMENTS.contains(&element.tag_name().name()), "{element:?}");
            for attribute in element.attributes() {
                let name = attribute.name();
                prop_assert!(!name.starts_with("on") && !["href", "src", "srcset"].contains(&name));
            }
        }
        for element in ["script", "style", "title"] {
            let inside = |node: &Node<'_, '_>| node.ancestors().any(|above| above.has_tag_name("svg"));
            let found = report.document.descendants().filter(|node| node.has_tag_name(element) && !inside(node));
            prop_assert_eq!(found.count(), 1, "{}", element);
        }
        prop_assert!(report.all().contains(&shown(&campaign.replay)));
        for text in &campaign.verdict.lost_writes {
            prop_assert!(report.all().contains(&shown(text)));
        }
        for number in report.document.descendants().flat_map(|node| node.attributes()) {
            prop_assert!(!number.value().contains("NaN") && !number.value().contains("inf,"));
        }
    }

    #[test]
    fn any_campaigns_compare(campaigns in vec(campaign(), 0..4)) {
        read(&report::compare(&campaigns));
        let table = report::markdown(&campaigns);
        for line in table.lines() {
            let ends = line.replace("\\\\", "").replace("\\|", "").matches('|').count();
            prop_assert_eq!(ends, campaigns.len() + 2, "{}", line);
        }
    }
}

/// All that reports are made of.
const ELEMENTS: [&str; 41] = [
    "html", "head", "meta", "title", "style", "body", "main", "header", "section", "script", "svg",
    "defs", "pattern", "path", "rect", "g", "text", "tspan", "p", "h1", "h2", "h3", "span", "code",
    "pre", "dl", "dt", "dd", "div", "ul", "li", "table", "caption", "thead", "tbody", "tr", "th",
    "td", "details", "summary", "br",
];

struct Report<'a> {
    document: Document<'a>,
}

/// A report, parsed as XML: HTML is laxer.
fn read(page: &str) -> Report<'_> {
    let body = page.strip_prefix("<!DOCTYPE html>\n").expect("an HTML file says that it is one");
    Report { document: Document::parse(body).unwrap_or_else(|error| panic!("{error}\n{page}")) }
}

impl Report<'_> {
    /// The text of the first element of this name.
    fn said(&self, name: &str) -> String {
        let first = self.document.descendants().find(|node| node.has_tag_name(name));
        text_of(first.unwrap_or_else(|| panic!("no {name}")))
    }

    fn all(&self) -> String {
        text_of(self.document.root())
    }

    fn classed(&self, class: &str) -> Vec<Node<'_, '_>> {
        self.document.descendants().filter(|node| has_class(*node, class)).collect()
    }
}

fn has_class(node: Node<'_, '_>, class: &str) -> bool {
    node.attribute("class").is_some_and(|classes| classes.split(' ').any(|each| each == class))
}

fn text_of(node: Node<'_, '_>) -> String {
    node.descendants().filter(Node::is_text).filter_map(|text| text.text()).collect()
}

/// What is to be seen of a text: what cannot be seen in it is spelled out.
fn shown(text: &str) -> String {
    let seen = |char: char| !char.is_control() || char == '\n' || char == '\t';
    let unseen = |char: char| {
        matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fdd0}'..='\u{fdef}')
            || u32::from(char) & 0xfffe == 0xfffe
    };
    text.chars()
        .map(|char| {
            if seen(char) && !unseen(char) {
                char.to_string()
            } else {
                char.escape_unicode().to_string()
            }
        })
        .collect()
}

/// Texts as they come, and as an enemy would write them.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z -]{0,12}",
        Just("</script><script>alert(1)</script>".to_owned()),
        Just("\"><img src=x onerror='alert(1)'>".to_owned()),
        Just("a | b\\| c\n<!-- & ]]> \u{0}\u{1b}[31m\u{202e}\u{ffff}".to_owned()),
        Just("url(javascript:alert(1))".to_owned()),
    ]
}

/// Moments as they come, and as they never should.
fn moment() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..200_000_u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0_u64), 0..5000_u64, any::<u64>()]
}

prop_compose! {
    fn fault()(
        kind in text(),
        from in moment(),
        until in option::of(moment()),
        nodes in vec(0..6_usize, 0..4),
        detail in text(),
    ) -> Fault {
        Fault { kind, from, until, nodes, detail }
    }
}

prop_compose! {
    fn planned()(
        kind in text(),
        happened in number(),
        unable in option::of(text()),
    ) -> Planned {
        Planned { kind, happened, unable }
    }
}

prop_compose! {
    fn step()(
        [done, refused, in_doubt, median_us, p99_us] in [number(), number(), number(), number(), number()],
    ) -> Step {
        Step { done, refused, in_doubt, median_us, p99_us }
    }
}

prop_compose! {
    fn leadership()(
        partition in 0..12_u16,
        node in 0..7_usize,
        term in any::<u64>(),
        [from, until] in [moment(), moment()],
    ) -> Leadership {
        Leadership { partition, node, term, from, until }
    }
}

prop_compose! {
    fn outage()(partition in 0..12_u16, [from, until] in [moment(), moment()]) -> Outage {
        Outage { partition, from, until }
    }
}

prop_compose! {
    fn verdict()(
        [operations, objects] in [number(), number()],
        lost_writes in vec(text(), 0..40),
        violation in option::of(text()),
        [too_hard, complaints] in [vec(text(), 0..3), vec(text(), 0..3)],
    ) -> Verdict {
        Verdict { operations, objects, lost_writes, violation, too_hard, complaints }
    }
}

fn counts() -> impl Strategy<Value = Vec<(String, u64)>> {
    vec((text(), any::<u64>()), 0..4)
}

prop_compose! {
    fn door()(name in text(), [asked, done] in [any::<u64>(), any::<u64>()]) -> Door {
        Door { name, asked, done }
    }
}

prop_compose! {
    fn campaign()(
        [target, replay, began, machine] in [text(), text(), text(), text()],
        nodes in vec(text(), 0..5),
        [came, counted] in [counts(), counts()],
        [seed, step] in [number(), number()],
        [faults_ended, ended] in [moment(), moment()],
        faults in vec(fault(), 0..60),
        planned in vec(planned(), 0..20),
        doors in vec(door(), 0..3),
        throughput in vec(step(), 0..900),
        leaderships in vec(leadership(), 0..40),
        outages in vec(outage(), 0..40),
        verdict in verdict(),
    ) -> Campaign {
        Campaign {
            target, seed, replay, began, machine, faults_ended, ended, nodes, faults, planned, doors, throughput,
            step, leaderships, outages, came, counted, verdict,
        }
    }
}
