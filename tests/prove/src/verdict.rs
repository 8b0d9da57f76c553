//! What a campaign comes to. Pure.

use std::ops::Range;
use std::time::Duration;

use scatterhoard_check::history::{Operation, lost_writes};
use scatterhoard_check::linear::{self, Rules};

use crate::campaign::{Door, Planned, Verdict};
use crate::order;

/// How much before its deadline a key may be gone. A partition's time may run ahead of the clients' by as
/// much as a node's wall clock may be wrong before it may not lead (250 ms), and once more for the one
/// before it.
const EXPIRY_EARLY: Duration = Duration::from_millis(500);

/// How long after its deadline a key may still be there: the same, backwards, and what an answer takes.
const EXPIRY_LATE: Duration = Duration::from_secs(2);

/// Fewer acknowledged operations than this say nothing.
pub const DONE_MIN: usize = 100;

/// Of what was asked at a door at least one in so many operations has to be done: of a cluster that loses a
/// node now and then far more is. Fewer say that the door does not work.
const DONE_AT_DOOR_MIN: u64 = 3;

/// By which rules histories with times in nanoseconds are judged.
#[must_use]
pub fn rules() -> Rules {
    Rules {
        expiry_early: nanoseconds(EXPIRY_EARLY),
        expiry_late: Some(nanoseconds(EXPIRY_LATE)),
        ..Rules::default()
    }
}

/// Judges a history, and what else was found wrong. A kind of fault that was planned and did not happen is
/// a complaint, for it was not tested; so is a door at which little was done. What clients put into one pipeline
/// has to come in its order.
#[must_use]
pub fn judge(
    history: &[Operation],
    planned: &[Planned],
    doors: &[Door],
    mut complaints: Vec<String>,
) -> Verdict {
    for Planned { kind, .. } in
        planned.iter().filter(|planned| planned.happened == 0 && planned.unable.is_none())
    {
        complaints.push(format!("not tested: {kind} was planned and never happened"));
    }
    complaints.extend(doors.iter().filter_map(untested));
    complaints.extend(order::broken(history));
    let done = history.iter().filter(|it| is_done(it)).count();
    if done < DONE_MIN {
        complaints.push(format!("not tested: only {done} operations were answered"));
    }
    let writes = lost_writes(history);
    let lost_writes = writes.lost.iter().map(|lost| {
        let read = match &lost.read {
            Some(read) => format!("{:?} was read", read.escape_ascii().to_string()),
            None => "nothing was there".to_owned(),
        };
        let (key, written) = (lost.key.escape_ascii(), lost.written.escape_ascii());
        format!("{key}: \"{written}\" was acknowledged, {read}")
    });
    let mut verdict = Verdict {
        operations: history.len() as u64,
        objects: 0,
        lost_writes: lost_writes.collect(),
        violation: None,
        too_hard: Vec::new(),
        complaints,
    };
    match linear::check_by(&rules(), history) {
        linear::Verdict::Linearizable { objects, .. } => verdict.objects = objects as u64,
        linear::Verdict::Violation(violation) => verdict.violation = Some(violation.explanation),
        linear::Verdict::TooHard { object, operations } => {
            verdict.too_hard.push(format!("{object} ({operations} operations)"));
        }
    }
    verdict
}

/// What was asked at the door of this name, by these clients, and done.
#[must_use]
pub fn door(name: &str, clients: &Range<u32>, history: &[Operation]) -> Door {
    let asked = || history.iter().filter(|it| clients.contains(&it.client));
    let done = asked().filter(|it| is_done(it)).count() as u64;
    Door { name: name.to_owned(), asked: asked().count() as u64, done }
}

/// Why what was done at a door says too little.
fn untested(Door { name, asked, done }: &Door) -> Option<String> {
    match asked {
        0 => Some(format!("not tested: nothing was asked at the {name}")),
        _ if done * DONE_AT_DOOR_MIN >= *asked => None,
        _ => Some(format!(
            "not tested: the {name} did only {done} of {asked} operations that they were asked for"
        )),
    }
}

const fn is_done(operation: &Operation) -> bool {
    matches!(operation.outcome, scatterhoard_check::history::Outcome::Done { .. })
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("some seconds")
}

#[cfg(test)]
mod tests {
    use scatterhoard_check::history::{Action, Answer, Outcome};

    use super::*;

    fn done(at: u64, action: Action, answer: Answer) -> Operation {
        let outcome = Outcome::Done { answer, at: at + 1 };
        Operation { client: 0, action, invoked: at, outcome }
    }

    /// Two hundred keys, each written once and read back.
    fn fine() -> Vec<Operation> {
        let write = |i: u64| done(i * 10, Action::set(format!("k{i}"), "v"), Answer::Done);
        let read = |i: u64| done(9000 + i, Action::get(format!("k{i}")), Answer::value("v"));
        (0..200).map(write).chain((0..200).map(read)).collect()
    }

    fn happened(happened: u64) -> [Planned; 1] {
        [Planned { kind: "cut".to_owned(), happened, unable: None }]
    }

    fn judged(history: &[Operation]) -> Verdict {
        judge(history, &happened(1), &[], Vec::new())
    }

    #[test]
    fn a_history_without_a_flaw_is_good() {
        let verdict = judged(&fine());
        assert!(verdict.is_good(), "{verdict:?}");
        assert_eq!((verdict.operations, verdict.objects), (400, 200));
    }

    #[test]
    fn a_write_that_is_gone_is_lost() {
        let mut history = fine();
        history[300] = done(9100, Action::get("k100"), Answer::nil());
        let verdict = judged(&history);
        assert_eq!(verdict.lost_writes, ["k100: \"v\" was acknowledged, nothing was there"]);
        assert!(verdict.violation.is_some() && !verdict.is_good());
    }

    #[test]
    fn a_stale_read_is_a_violation_even_if_nothing_is_lost() {
        let mut history = fine();
        history.push(done(20_000, Action::set("k0", "new"), Answer::Done));
        history.push(done(20_010, Action::get("k0"), Answer::value("v")));
        history.push(done(20_020, Action::get("k0"), Answer::value("new")));
        let verdict = judged(&history);
        assert!(verdict.lost_writes.is_empty());
        assert!(verdict.violation.is_some_and(|why| why.contains("k0")));
    }

    #[test]
    fn a_key_may_not_expire_long_before_its_deadline() {
        let second = 1_000_000_000;
        let gone_after = |after: u64| {
            let mut history = fine();
            history.push(done(second, Action::set_for("lease", "v", 10 * second), Answer::Done));
            history.push(done(second + after, Action::get("lease"), Answer::nil()));
            judged(&history).is_good()
        };
        assert!(!gone_after(9 * second));
        assert!(gone_after(9 * second + 600_000_000));
    }

    #[test]
    fn a_planned_fault_that_never_happened_fails_the_campaign() {
        let verdict = judge(&fine(), &happened(0), &[], Vec::new());
        assert_eq!(verdict.complaints, ["not tested: cut was planned and never happened"]);
        let unable = Planned { unable: Some("no network".to_owned()), ..happened(0)[0].clone() };
        assert!(judge(&fine(), &[unable], &[], Vec::new()).is_good());
    }

    #[test]
    fn a_campaign_in_which_nothing_was_done_fails() {
        assert!(!judged(&[]).is_good());
    }

    #[test]
    fn a_pipeline_that_came_out_of_order_is_a_complaint() {
        let append = |at, place, length| {
            let append = Action::append("order:0", order::word(1, 7, place));
            Operation { invoked: 9000, ..done(at, append, Answer::Number(length)) }
        };
        // Both were under way at the same time: either may come first, but for the pipeline.
        let mut history = fine();
        history.extend([append(9010, 1, 6), append(9010, 0, 12)]);
        history.push(done(9020, Action::get("order:0"), Answer::value("1.7.1,1.7.0,")));
        let verdict = judged(&history);
        assert_eq!(verdict.violation, None);
        assert_eq!(verdict.complaints, ["out of order: in order:0 1.7.1 comes before 1.7.0"]);
    }

    #[test]
    fn a_door_that_answers_too_little_was_not_tested() {
        let complaints = |asked, done| {
            let door = Door { name: "any-key ports".to_owned(), asked, done };
            judge(&fine(), &happened(1), &[door], Vec::new()).complaints
        };
        assert!(complaints(300, 100).is_empty());
        assert_eq!(
            complaints(300, 99),
            [
                "not tested: the any-key ports did only 99 of 300 operations that they were asked for"
            ]
        );
        assert_eq!(complaints(0, 0), ["not tested: nothing was asked at the any-key ports"]);
    }

    #[test]
    fn a_door_is_known_by_its_clients() {
        let by = |client, outcome| Operation { client, outcome, ..fine()[0].clone() };
        let answered = Outcome::Done { answer: Answer::Done, at: 1 };
        let history = [
            by(5, answered.clone()),
            by(6, answered),
            by(7, Outcome::Unknown),
            by(7, Outcome::Refused { at: 1 }),
            by(8, Outcome::Unknown),
        ];
        let found = door("any-key ports", &(6..8), &history);
        assert_eq!(found, Door { name: "any-key ports".to_owned(), asked: 3, done: 1 });
    }
}
