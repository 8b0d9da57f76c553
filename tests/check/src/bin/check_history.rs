//! Judges a recorded history: `check_history FILE [--early TICKS] [--late TICKS]`.
//!
//! Prints counts, outages, lost writes and the verdict. Exits with 0 if the history is linearizable and no
//! write was lost, with 1 if not, with 2 if that could not be told.

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use scatterhoard_check::history::{self, Operation};
use scatterhoard_check::linear::{self, Rules, Verdict};

fn main() -> ExitCode {
    match read(std::env::args().skip(1)) {
        Ok((rules, history)) => judge(&rules, &history),
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

fn read(mut words: impl Iterator<Item = String>) -> Result<(Rules, Vec<Operation>), String> {
    let mut rules = Rules::default();
    let mut path = None;
    while let Some(word) = words.next() {
        let mut ticks = || {
            let ticks = words.next().and_then(|ticks| ticks.parse::<u64>().ok());
            ticks.ok_or_else(|| format!("{word} takes a number"))
        };
        match word.as_str() {
            "--early" => rules.expiry_early = ticks()?,
            "--late" => rules.expiry_late = Some(ticks()?),
            _ => path = Some(word),
        }
    }
    let path = path.ok_or("usage: check_history FILE [--early TICKS] [--late TICKS]")?;
    let file = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
    let history = history::read_lines(BufReader::new(file));
    Ok((rules, history.map_err(|error| format!("{path}: {error}"))?))
}

fn judge(rules: &Rules, history: &[Operation]) -> ExitCode {
    let summary = history::summarize(history);
    println!("{} done, {} refused, {} in doubt", summary.done, summary.refused, summary.unknown);
    if let Some(outage) = history::longest_outages(history, |_| ()).get(&()) {
        println!("longest time without an answer: {} from {}", outage.length(), outage.start);
    }
    let writes = history::lost_writes(history);
    println!("{} single writes read back, {} never read", writes.checked, writes.unread);
    for lost in &writes.lost {
        let (key, written) = (lost.key.escape_ascii(), lost.written.escape_ascii());
        match &lost.read {
            Some(read) => println!("LOST {key}: {written} was acknowledged, {read:?} was read"),
            None => println!("LOST {key}: {written} was acknowledged, nothing was read"),
        }
    }
    let verdict = linear::check_by(rules, history);
    println!("{verdict}");
    match verdict {
        Verdict::Linearizable { .. } if writes.lost.is_empty() => ExitCode::SUCCESS,
        Verdict::Linearizable { .. } | Verdict::Violation(_) => ExitCode::from(1),
        Verdict::TooHard { .. } => ExitCode::from(2),
    }
}
