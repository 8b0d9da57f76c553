//! Throughput and latency over time.
//!
//! Where there are more steps than columns, a column stands for several, and shows the least and the most
//! of them beside the mean: a step in which nothing was answered never vanishes in its neighbours.

use std::fmt::Write as _;

use super::axis::{LEFT, Span, WIDTH};
use super::markup::{Element, element, with_text};
use super::timeline::Picture;
use super::words::{count, latency as latency_words, shortened};
use crate::campaign::{Campaign, Step};

/// More columns than this cannot be told apart.
const COLUMNS_MAX: usize = 500;

/// One or several steps that are drawn as one.
#[derive(Clone, Debug)]
pub(super) struct Column {
    from: u64,
    until: u64,
    steps_count: u64,
    /// Of all steps.
    total: Step,
    /// Of the steps, the least and the most that were done in one.
    done_min: u64,
    done_max: u64,
    refused_max: u64,
    in_doubt_max: u64,
    /// The least, over the steps with an answer; 0 without one. (The most is in `total`.)
    median_us_min: u64,
    p99_us_min: u64,
}

/// The steps within `span`, in at most [`COLUMNS_MAX`] columns.
pub(super) fn columns(campaign: &Campaign, span: Span) -> Vec<Column> {
    let step = campaign.step.max(1);
    let first = (span.from / step).min(campaign.throughput.len() as u64) as usize;
    let last = span.until.div_ceil(step).min(campaign.throughput.len() as u64) as usize;
    let steps = &campaign.throughput[first..last];
    let each = steps.len().div_ceil(COLUMNS_MAX).max(1);
    let column =
        |(i, steps)| Column::of(((first + i * each) as u64).saturating_mul(step), step, steps);
    steps.chunks(each).enumerate().map(column).collect()
}

impl Column {
    fn of(from: u64, step: u64, steps: &[Step]) -> Self {
        let least = |number: fn(&Step) -> u64| steps.iter().map(number).min().unwrap_or(0);
        let most = |number: fn(&Step) -> u64| steps.iter().map(number).max().unwrap_or(0);
        let sum = |number: fn(&Step) -> u64| steps.iter().map(number).fold(0, u64::saturating_add);
        let answered = |number: fn(&Step) -> u64| {
            steps.iter().map(number).filter(|&us| us > 0).min().unwrap_or(0)
        };
        let steps_count = steps.len() as u64;
        Self {
            from,
            until: from.saturating_add(steps_count.saturating_mul(step)),
            steps_count,
            total: Step {
                done: sum(|step| step.done),
                refused: sum(|step| step.refused),
                in_doubt: sum(|step| step.in_doubt),
                median_us: most(|step| step.median_us),
                p99_us: most(|step| step.p99_us),
            },
            done_min: least(|step| step.done),
            done_max: most(|step| step.done),
            refused_max: most(|step| step.refused),
            in_doubt_max: most(|step| step.in_doubt),
            median_us_min: answered(|step| step.median_us),
            p99_us_min: answered(|step| step.p99_us),
        }
    }

    /// Answered as done, in the mean of its steps.
    fn done(&self) -> f64 {
        self.total.done as f64 / self.steps_count.max(1) as f64
    }

    /// Answered as done or as not done, in the mean of its steps.
    fn answered(&self) -> f64 {
        self.done() + self.total.refused as f64 / self.steps_count.max(1) as f64
    }

    /// What was asked and came to an end, in the mean of its steps.
    fn all(&self) -> f64 {
        self.answered() + self.total.in_doubt as f64 / self.steps_count.max(1) as f64
    }
}

/// A class, and from where to where in operations a step it reaches.
type Layer = (&'static str, fn(&Column) -> f64, fn(&Column) -> f64);
/// A name, a class and a number of operations.
type Row = (&'static str, &'static str, fn(&Column) -> u64);
/// A class, and the least and the most of a time to an answer.
type Curve = (&'static str, fn(&Column) -> [u64; 2]);

/// What the pointer's readout shows: begin, length, done, refused, in doubt, median, 99th percentile.
pub(super) fn readings(columns: &[Column]) -> String {
    columns.iter().fold(String::new(), |mut text, column| {
        let Step { done, refused, in_doubt, median_us, p99_us } = column.total;
        let length = column.until - column.from;
        write!(text, "{},{length},{done},{refused},{in_doubt},{median_us},{p99_us};", column.from)
            .expect("a string takes all that is written to it");
        text
    })
}

/// Done, refused and in doubt, one on the other, in operations a second.
pub(super) fn throughput(picture: &mut Picture<'_>, columns: &[Column]) {
    const HEIGHT: f64 = 150.0;
    let step_seconds = picture.campaign.step.max(1) as f64 / 1000.0;
    let most = |columns: &[Column]| {
        let per_step = columns.iter().map(|column| column.all().max(column.done_max as f64));
        per_step.fold(0.0, f64::max) / step_seconds
    };
    // What is read at the end as fast as that goes would make all else look small.
    let mended = columns.partition_point(|column| column.until <= picture.campaign.faults_ended);
    let top = round_up(most(if mended > 0 { &columns[..mended] } else { columns }));
    let mut remark = match columns.first().map_or(1, |column| column.steps_count) {
        0 | 1 => "operations a second".to_owned(),
        each => format!(
            "operations a second; {each} steps a column: full to the slowest of them, pale to their mean, a line at \
             the fastest"
        ),
    };
    if most(columns) > top {
        let most = count(most(columns) as u64);
        remark.push_str(&format!("; once all is mended up to {most}, beyond the scale"));
    }
    picture.heading("Throughput", &remark);
    picture.ground(HEIGHT);
    let (ceiling, bottom) = (picture.y, picture.y + HEIGHT);
    let y = |per_step: f64| (bottom - HEIGHT * (per_step / step_seconds / top)).max(ceiling);
    for part in 1..=2 {
        let value = top * f64::from(part) / 2.0;
        gridline(picture, bottom - HEIGHT * f64::from(part) / 2.0, &count(value as u64));
    }
    // From below: each stands on the one before, but for what was done in the slowest step.
    let layers: [Layer; 4] = [
        ("done pale", |_| 0.0, Column::done),
        ("done", |_| 0.0, |column| column.done_min as f64),
        ("refused", Column::done, Column::answered),
        ("in-doubt", Column::answered, Column::all),
    ];
    for (class, low, high) in layers {
        let path = area(picture, columns, |column| (y(low(column)), y(high(column))));
        picture.add(element("path").class(class).attribute("d", path));
    }
    if columns.iter().any(|column| column.steps_count > 1) {
        let path = line(picture, columns, |column| Some(y(column.done_max as f64)));
        picture.add(element("path").class("done-max").attribute("d", path));
    }
    picture.y = bottom;
    silences(picture, columns);
}

/// Marks on the ground line for steps in which nothing was done.
fn silences(picture: &mut Picture<'_>, columns: &[Column]) {
    const HEIGHT: f64 = 4.0;
    let path =
        columns.iter().filter(|column| column.done_min == 0).fold(String::new(), |path, column| {
            let (x, width) = extent(picture, column);
            format!("{path}M{x:.1},{:.1}h{width:.1}v{HEIGHT}h-{width:.1}z", picture.y)
        });
    let said = with_text("title", "a step in which no operation was done");
    picture.add(element("path").class("silence").attribute("d", path).with(said));
    picture.y += HEIGHT;
}

/// What was refused and what stayed in doubt, each in a row of its own and on a logarithmic scale: a few
/// among thousands matter.
pub(super) fn failures(picture: &mut Picture<'_>, columns: &[Column]) {
    const HEIGHT: f64 = 24.0;
    let rows: [Row; 2] = [
        ("refused", "refused", |column| column.refused_max),
        ("in doubt", "in-doubt", |column| column.in_doubt_max),
    ];
    for (name, class, number) in rows {
        picture.y += 6.0;
        picture.ground(HEIGHT);
        let most = columns.iter().map(number).max().unwrap_or(0);
        picture.label(name, HEIGHT / 2.0 + 2.0);
        let at_most = with_text("text", format!("at most {} a step", shortened(&count(most), 9)));
        let at_most = at_most.class("label small").place("x", LEFT - 8.0);
        picture.add(at_most.place("y", picture.y + HEIGHT * 0.75));
        let bottom = picture.y + HEIGHT;
        let height = |number: u64| match number {
            0 => 0.0,
            // One is seen, too.
            _ => HEIGHT * (0.2 + 0.8 * logarithm(number) / logarithm(most).max(1.0)),
        };
        let path = area(picture, columns, |column| (bottom, bottom - height(number(column))));
        let said =
            with_text("title", format!("{name}: at most {} in a step; logarithmic", count(most)));
        picture.add(element("path").class(class).attribute("d", path).with(said));
        picture.y = bottom;
    }
}

/// The median and the 99th percentile of the time to an answer, on a logarithmic scale.
pub(super) fn latency(picture: &mut Picture<'_>, columns: &[Column]) {
    const HEIGHT: f64 = 110.0;
    picture.heading(
        "Latency",
        "time to an answer: median (solid) and 99th percentile (dashed); logarithmic",
    );
    picture.ground(HEIGHT);
    let lowest = columns.iter().map(|column| column.median_us_min).filter(|&us| us > 0).min();
    let highest =
        columns.iter().map(|column| column.total.p99_us.max(column.total.median_us)).max();
    let bottom = picture.y + HEIGHT;
    let (Some(lowest), Some(highest)) = (lowest, highest) else {
        picture.y = bottom;
        return;
    };
    let low = logarithm(lowest).floor();
    let high = (logarithm(highest) + 0.001).ceil().max(low + 1.0);
    let y =
        |us: u64| bottom - HEIGHT * ((logarithm(us.max(1)) - low) / (high - low)).clamp(0.0, 1.0);
    for decade in (low as u32 + 1)..=(high as u32) {
        let us = 10_u64.saturating_pow(decade);
        gridline(picture, y(us), &latency_words(us));
    }
    let seen = |us: u64| (us > 0).then(|| y(us));
    let curves: [Curve; 2] = [
        ("p99", |column| [column.p99_us_min, column.total.p99_us]),
        ("median", |column| [column.median_us_min, column.total.median_us]),
    ];
    for (class, range) in curves {
        if columns.iter().any(|column| column.steps_count > 1) {
            let path = area(picture, columns, |column| {
                let [least, most] = range(column);
                (y(least), y(most))
            });
            picture.add(element("path").class(format!("{class} band")).attribute("d", path));
        }
        let path = line(picture, columns, |column| seen(range(column)[1]));
        picture.add(element("path").class(format!("{class} curve")).attribute("d", path));
    }
    picture.y = bottom;
}

fn gridline(picture: &mut Picture<'_>, y: f64, label: &str) {
    let path = format!("M{LEFT},{y:.1}h{WIDTH}");
    picture.add(element("path").class("grid").attribute("d", path));
    let text = with_text("text", label).class("label").place("x", LEFT - 8.0).place("y", y);
    picture.add(text);
}

/// A column's place and width.
fn extent(picture: &Picture<'_>, column: &Column) -> (f64, f64) {
    let (from, until) = (picture.scale.x(column.from), picture.scale.x(column.until));
    (from, (until - from).max(0.5))
}

/// Filled between two heights, in steps; nothing where they are one.
fn area(
    picture: &Picture<'_>,
    columns: &[Column],
    heights: impl Fn(&Column) -> (f64, f64),
) -> String {
    let mut path = String::new();
    for column in columns {
        let (low, high) = heights(column);
        if (low - high).abs() < 0.05 {
            continue;
        }
        let (x, width) = extent(picture, column);
        write!(path, "M{x:.1},{low:.1}V{high:.1}h{width:.1}V{low:.1}z")
            .expect("a string takes all that is written to it");
    }
    path
}

/// Along the middles of columns, with gaps where there is nothing.
fn line(
    picture: &Picture<'_>,
    columns: &[Column],
    height: impl Fn(&Column) -> Option<f64>,
) -> String {
    let mut path = String::new();
    let mut drawing = false;
    for column in columns {
        let (x, width) = extent(picture, column);
        let Some(y) = height(column) else {
            drawing = false;
            continue;
        };
        let begin = if drawing { 'L' } else { 'M' };
        // A column without neighbours is seen by its width.
        write!(path, "{begin}{:.1},{y:.1}h{:.1}", x + width * 0.25, width * 0.5)
            .expect("a string takes all that is written to it");
        drawing = true;
    }
    path
}

/// To base ten, of at least one.
fn logarithm(number: u64) -> f64 {
    (number.max(1) as f64).log10()
}

/// The next number that is round, and whose half is nearly so.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1.0).log10().floor());
    [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|&round| round >= value)
        .unwrap_or(10.0 * power)
}

/// How the rows of failures and the curves are read.
pub(super) fn legend() -> Vec<(Element, &'static str)> {
    let swatch = |class: &str| {
        let rect = element("rect")
            .class(class)
            .attribute("width", 22)
            .attribute("height", 13)
            .attribute("rx", 2);
        element("svg")
            .class("swatch")
            .attribute("width", 22)
            .attribute("height", 13)
            .attribute("aria-hidden", "true")
            .with(rect)
    };
    vec![
        (swatch("done"), "done"),
        (swatch("refused"), "refused: not done, safe to send again"),
        (swatch("in-doubt"), "in doubt"),
        (swatch("silence"), "a step in which nothing was done"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_step_among_many_is_still_the_least_of_its_column() {
        let step = |done| Step { done, median_us: 100, p99_us: 900, ..Step::default() };
        let mut campaign = super::super::tests::empty();
        campaign.step = 100;
        campaign.throughput = vec![step(1000); 36_000];
        campaign.throughput[12_345] = Step::default();
        campaign.ended = 3_600_000;
        let columns = columns(&campaign, Span::of(&campaign));
        assert_eq!(columns.len(), COLUMNS_MAX);
        let silent: Vec<_> = columns.iter().filter(|column| column.done_min == 0).collect();
        assert_eq!(silent.len(), 1);
        assert!(silent[0].from <= 1_234_500 && 1_234_500 < silent[0].until);
        assert_eq!(silent[0].median_us_min, 100, "a step without an answer has no latency");
        assert_eq!(columns.iter().map(|column| column.total.done).sum::<u64>(), 35_999_000);
    }

    #[test]
    fn scales_end_at_round_numbers() {
        for (value, round) in
            [(0.0, 1.0), (1.0, 1.0), (950.0, 1000.0), (1001.0, 1500.0), (41.0, 50.0)]
        {
            assert_eq!(round_up(value), round, "{value}");
        }
    }
}
