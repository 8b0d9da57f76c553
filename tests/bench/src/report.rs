//! The report: medians, ratios, Markdown for people and JSON for programs.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::contestant::Kind;
use crate::outcome::Outcome;

/// Everything that was measured, and on what.
#[derive(Debug, Serialize)]
pub struct Report {
    /// When it began.
    pub date: String,
    /// Which state of the sources ours was built from.
    pub revision: String,
    /// What it ran on.
    pub machine: Machine,
    /// What the contestants call themselves.
    pub versions: Vec<String>,
    /// Ten times less load than usual.
    pub quick: bool,
    /// Speed.
    pub sections: Vec<Section>,
    /// Memory.
    pub memory: Vec<MemoryRow>,
}

/// A machine, as far as figures depend on it.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// The model of its CPUs.
    pub cpu: String,
    /// How many there are for us.
    pub cpus_count: usize,
    /// Its kernel.
    pub kernel: String,
    /// One, five and fifteen minutes, before we began.
    pub load_average: String,
}

/// Cases that are compared with each other.
#[derive(Debug, Serialize)]
pub struct Section {
    title: String,
    note: String,
    /// In order of cases; within a case, ours first.
    pub rows: Vec<Row>,
}

/// One contestant in one case.
#[derive(Debug, Serialize)]
pub struct Row {
    case: String,
    server: &'static str,
    median: Measured,
    turns: Vec<Measured>,
}

/// What one turn is measured by.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    requests_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    server_cpu_seconds_per_million: f64,
    generator_cpu_seconds_per_million: f64,
    misses_per_request: f64,
}

/// One contestant's memory with one size of values.
#[derive(Debug, Serialize)]
pub struct MemoryRow {
    value_bytes: usize,
    entries: u64,
    server: &'static str,
    bytes_per_entry: f64,
    turns: Vec<f64>,
}

impl Report {
    /// Writes `STEM.md` and `STEM.json`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, stem: &Path) -> anyhow::Result<()> {
        if let Some(folder) = stem.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(stem.with_extension("md"), self.markdown())?;
        fs::write(stem.with_extension("json"), serde_json::to_string_pretty(self)?)?;
        Ok(())
    }

    /// For people: also readable as it stands.
    #[must_use]
    pub fn markdown(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "# Side by side, {}\n\nRevision {}. {} × {}, Linux {}, load average before: {}. {}.\n\
             Keys of 16 bytes, values of 100 unless said. Medians of three turns, taken in turns{}.\n\
             CPU s/M: CPU seconds of all server processes per million operations. Ours ÷ it: above 1 is \
             better for operations per second, below 1 for everything else.\n",
            self.date,
            self.revision,
            machine.cpus_count,
            machine.cpu,
            machine.kernel,
            machine.load_average,
            self.versions.join("; "),
            if self.quick { "; **a quick run: ten times less load, rough figures**" } else { "" },
        );
        for section in &self.sections {
            text.push_str(&section.markdown());
        }
        if !self.memory.is_empty() {
            text.push_str(&memory_markdown(&self.memory));
        }
        text
    }
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = read("/proc/loadavg");
        Self {
            cpu: model.map_or("CPU of unknown model", |(_, model)| model).to_owned(),
            cpus_count: thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
        }
    }
}

impl Section {
    /// Without rows.
    #[must_use]
    pub fn new(title: &str, note: String) -> Self {
        Self { title: title.to_owned(), note, rows: Vec::new() }
    }

    fn markdown(&self) -> String {
        let mut table = vec![
            [
                "case",
                "server",
                "ops/s",
                "p50 µs",
                "p99 µs",
                "CPU s/M",
                "generator CPU s/M",
                "ours ÷ it: ops/s",
                "p50",
                "p99",
                "CPU",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        for row in &self.rows {
            let (its, ours) = (&row.median, ours_in(&self.rows, row));
            let mut cells = vec![
                row.case.clone(),
                row.server.to_owned(),
                thousands(its.requests_per_second),
                thousands(its.p50_us),
                thousands(its.p99_us),
                format!("{:.2}", its.server_cpu_seconds_per_million),
                format!("{:.2}", its.generator_cpu_seconds_per_million),
            ];
            let figures: [fn(&Measured) -> f64; 4] = [
                |measured| measured.requests_per_second,
                |measured| measured.p50_us,
                |measured| measured.p99_us,
                |measured| measured.server_cpu_seconds_per_million,
            ];
            cells.extend(figures.map(|figure| ratio(ours.map(figure), figure(its))));
            table.push(cells);
        }
        let mut text = format!("\n## {}\n\n{}\n\n{}", self.title, self.note, aligned(&table));
        for row in self.rows.iter().filter(|row| row.median.misses_per_request > 0.0) {
            let percent = row.median.misses_per_request * 100.0;
            text.push_str(&format!(
                "\n{}, {}: {percent:.1} % of reads found nothing.\n",
                row.case, row.server
            ));
        }
        text
    }
}

impl Row {
    /// With the median of each figure over all turns.
    #[must_use]
    pub fn new(case: String, kind: Kind, turns: Vec<Measured>) -> Self {
        let of = |figure: fn(&Measured) -> f64| median(turns.iter().map(figure).collect());
        let median = Measured {
            requests_per_second: of(|turn| turn.requests_per_second),
            p50_us: of(|turn| turn.p50_us),
            p99_us: of(|turn| turn.p99_us),
            server_cpu_seconds_per_million: of(|turn| turn.server_cpu_seconds_per_million),
            generator_cpu_seconds_per_million: of(|turn| turn.generator_cpu_seconds_per_million),
            misses_per_request: of(|turn| turn.misses_per_request),
        };
        Self { case, server: kind.name(), median, turns }
    }
}

impl Measured {
    /// What the generator saw, and what all servers used meanwhile.
    #[must_use]
    pub fn of(outcome: &Outcome, server_cpu: Duration) -> Self {
        let requests = outcome.requests as f64;
        Self {
            requests_per_second: outcome.requests_per_second,
            p50_us: outcome.p50_us,
            p99_us: outcome.p99_us,
            server_cpu_seconds_per_million: server_cpu.as_secs_f64() / requests * 1e6,
            generator_cpu_seconds_per_million: outcome.generator_cpu_seconds / requests * 1e6,
            misses_per_request: outcome.misses as f64 / requests,
        }
    }
}

impl MemoryRow {
    /// With the median over all turns.
    #[must_use]
    pub fn new(value_bytes: usize, entries: u64, kind: Kind, turns: Vec<f64>) -> Self {
        let bytes_per_entry = median(turns.clone());
        Self { value_bytes, entries, server: kind.name(), bytes_per_entry, turns }
    }
}

fn memory_markdown(rows: &[MemoryRow]) -> String {
    let mut table =
        vec![["values", "server", "bytes per entry", "ours ÷ it"].map(str::to_owned).to_vec()];
    for row in rows {
        let ours = rows.iter().find(|ours| {
            ours.server == Kind::Scatterhoard.name()
                && ours.value_bytes == row.value_bytes
                && row.server != ours.server
        });
        table.push(vec![
            format!("{} B", row.value_bytes),
            row.server.to_owned(),
            format!("{:.0}", row.bytes_per_entry),
            ratio(ours.map(|ours| ours.bytes_per_entry), row.bytes_per_entry),
        ]);
    }
    let entries = rows.first().map_or(0.0, |row| row.entries as f64);
    let entries = thousands(entries);
    format!(
        "\n## Memory\n\nGrowth of resident memory over {entries} entries of one node, keys of 16 bytes included.\n\n{}",
        aligned(&table)
    )
}

/// Ours in the same case, unless `row` is ours.
fn ours_in<'a>(rows: &'a [Row], row: &Row) -> Option<&'a Measured> {
    let name = Kind::Scatterhoard.name();
    let ours = rows.iter().find(|ours| ours.server == name && ours.case == row.case);
    ours.filter(|_| row.server != name).map(|ours| &ours.median)
}

fn ratio(ours: Option<f64>, its: f64) -> String {
    match ours {
        Some(ours) if its > 0.0 => format!("{:.2}", ours / its),
        Some(_) | None => String::new(),
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A whole number, its digits in groups of three.
fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A Markdown table whose columns also line up in a terminal: the first two to the left, figures to the
/// right. The first row is the head.
fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = table.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in table.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            text.push_str(&match column {
                0 | 1 => format!("| {cell:<width$} "),
                _ => format!("| {cell:>width$} "),
            });
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                text.push_str(&match column {
                    0 | 1 => format!("|{:-<1$}", "", width + 2),
                    _ => format!("|{:->1$}:", "", width + 1),
                });
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(requests_per_second: f64, cpu: f64) -> Measured {
        Measured {
            requests_per_second,
            p50_us: 100.0,
            p99_us: 200.0,
            server_cpu_seconds_per_million: cpu,
            generator_cpu_seconds_per_million: 0.5,
            misses_per_request: 0.0,
        }
    }

    #[test]
    fn a_peer_is_shown_with_the_ratio_of_medians() {
        let mut section = Section::new("Speed", "Note.".into());
        let ours = vec![turn(9e9, 1.0), turn(3000.0, 1.0), turn(1.0, 1.0)];
        section.rows.push(Row::new("GET".into(), Kind::Scatterhoard, ours));
        section.rows.push(Row::new("GET".into(), Kind::Redis, vec![turn(1500.0, 4.0)]));
        let text = section.markdown();
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| GET")).collect();
        assert!(rows[0].contains("| scatterhoard | 3,000 |"), "{text}");
        let cells: Vec<_> = rows[1].split('|').map(str::trim).collect();
        assert_eq!(cells[8..12], ["2.00", "1.00", "1.00", "0.25"], "{text}");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0.4, 999.0, 1000.0, 1_234_567.0].map(thousands),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
