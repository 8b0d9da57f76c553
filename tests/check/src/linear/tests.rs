use proptest::prelude::*;

use super::{Rules, Verdict, brute, check, check_by, state};
use crate::history::{Action, Answer, Operation, Outcome, Recorder};

/// A history as one writes it by hand.
#[derive(Default)]
struct Story {
    history: Vec<Operation>,
}

impl Story {
    fn done(self, window: (u64, u64), action: Action, answer: Answer) -> Self {
        self.push(window.0, action, Outcome::Done { answer, at: window.1 })
    }

    fn refused(self, window: (u64, u64), action: Action) -> Self {
        self.push(window.0, action, Outcome::Refused { at: window.1 })
    }

    fn doubtful(self, invoked: u64, action: Action) -> Self {
        self.push(invoked, action, Outcome::Unknown)
    }

    fn set(self, window: (u64, u64), value: &'static str) -> Self {
        self.done(window, Action::set("k", value), Answer::Done)
    }

    fn reads(self, window: (u64, u64), value: &'static str) -> Self {
        self.done(window, Action::get("k"), Answer::value(value))
    }

    fn reads_nothing(self, window: (u64, u64)) -> Self {
        self.done(window, Action::get("k"), Answer::nil())
    }

    fn push(mut self, invoked: u64, action: Action, outcome: Outcome) -> Self {
        let client = u32::try_from(self.history.len()).unwrap();
        self.history.push(Operation { client, action, invoked, outcome });
        self
    }

    #[track_caller]
    fn holds(self) {
        let verdict = check(&self.history);
        assert!(verdict.is_linearizable(), "{verdict}");
        assert!(brute::is_linearizable(&Rules::default(), &self.history));
    }

    /// There is no order, and the answer at this position is the first that shows it.
    #[track_caller]
    fn breaks_at(self, culprit: usize) -> String {
        assert!(!brute::is_linearizable(&Rules::default(), &self.history));
        match check(&self.history) {
            Verdict::Violation(violation) => {
                assert_eq!(violation.culprit, culprit, "{}", violation.explanation);
                violation.explanation
            }
            verdict => panic!("{verdict}"),
        }
    }
}

fn story() -> Story {
    Story::default()
}

#[test]
fn an_empty_history_is_good() {
    story().holds();
}

#[test]
fn overlapping_operations_may_come_in_any_order() {
    story().set((0, 6), "a").set((5, 15), "b").reads((7, 8), "b").reads((12, 20), "a").breaks_at(3);
    story().set((0, 14), "a").set((5, 15), "b").reads((6, 7), "b").reads((12, 20), "a").holds();
    story().set((0, 10), "a").reads_nothing((1, 2)).reads((3, 4), "a").holds();
    story().set((0, 10), "a").reads((3, 4), "a").reads_nothing((2, 5)).holds();
}

#[test]
fn moments_that_touch_overlap() {
    story().set((0, 5), "a").reads_nothing((5, 6)).holds();
    story().set((0, 5), "a").reads_nothing((6, 7)).breaks_at(1);
}

#[test]
fn a_doubtful_write_may_appear_later_or_never() {
    story().set((0, 1), "a").doubtful(2, Action::set("k", "b")).reads((3, 4), "a").holds();
    let late = || story().doubtful(0, Action::set("k", "b")).set((1, 2), "a").reads((3, 4), "a");
    late().reads((5, 6), "b").holds();
    late().reads((5, 6), "b").reads((7, 8), "a").breaks_at(4);
}

#[test]
fn a_doubtful_write_does_not_appear_before_it_was_sent() {
    story().reads((0, 1), "a").doubtful(2, Action::set("k", "a")).breaks_at(0);
}

#[test]
fn a_stale_read_is_found() {
    let text = story().set((0, 1), "old").set((2, 3), "new").reads((4, 5), "old").breaks_at(2);
    assert!(text.contains("operation 2 fits no order"), "{text}");
    assert!(text.contains("old was set by operation 0"), "{text}");
    assert!(text.contains('├'), "{text}");
}

#[test]
fn a_read_does_not_go_back() {
    story().set((0, 1), "a").set((2, 20), "b").reads((3, 4), "b").reads((5, 6), "a").breaks_at(3);
}

#[test]
fn a_lost_acknowledged_write_is_found() {
    story().set((0, 1), "a").reads_nothing((2, 3)).breaks_at(1);
}

#[test]
fn a_refused_write_never_appears() {
    let refused = || story().set((0, 1), "a").refused((2, 3), Action::set("k", "b"));
    refused().reads((4, 5), "a").holds();
    let text = refused().reads((4, 5), "b").breaks_at(2);
    assert!(text.contains("REFUSED"), "{text}");
}

#[test]
fn what_was_refused_changed_nothing() {
    let start = |action| story().set((0, 1), "7").refused((2, 3), action);
    start(Action::incr("k", 1)).reads((4, 5), "7").holds();
    start(Action::incr("k", 1)).reads((4, 5), "8").breaks_at(2);
    start(Action::delete("k")).reads((4, 5), "7").holds();
    start(Action::delete("k")).reads_nothing((4, 5)).breaks_at(2);
    start(Action::append("k", "8")).reads((4, 5), "78").breaks_at(2);
    start(Action::swap("k", "8")).reads((4, 5), "8").breaks_at(2);
}

#[test]
fn what_is_in_doubt_happens_at_most_once() {
    let deleted = || story().set((0, 1), "a").doubtful(2, Action::delete("k"));
    deleted().reads((3, 4), "a").reads_nothing((5, 6)).holds();
    let again = || deleted().reads_nothing((3, 4)).set((5, 6), "b");
    again().reads((7, 8), "b").holds();
    again().reads_nothing((7, 8)).breaks_at(4);
    let appended = || story().doubtful(0, Action::append("k", "a"));
    appended().reads((1, 2), "a").holds();
    appended().reads((1, 2), "a").reads((3, 4), "aa").breaks_at(2);
    let swapped = || story().set((0, 1), "a").doubtful(2, Action::swap("k", "b"));
    swapped().set((3, 4), "c").reads((5, 6), "b").holds();
    swapped().reads((3, 4), "b").set((5, 6), "c").reads((7, 8), "b").breaks_at(4);
}

#[test]
fn a_value_out_of_thin_air_is_found() {
    let text = story().set((0, 1), "a").reads((2, 3), "z").breaks_at(1);
    assert!(text.contains("z was set by no operation"), "{text}");
}

#[test]
fn an_increment_is_applied_once() {
    let incr = |at, after| story().done(at, Action::incr("k", 1), Answer::Number(after));
    incr((0, 1), 1).done((2, 3), Action::incr("k", 1), Answer::Number(3)).breaks_at(1);
    incr((0, 1), 1).done((2, 3), Action::incr("k", 1), Answer::Number(1)).breaks_at(1);
    incr((0, 9), 2).done((2, 3), Action::incr("k", 1), Answer::Number(1)).holds();
    let doubt = || incr((0, 1), 1).doubtful(2, Action::incr("k", 1)).reads((3, 4), "1");
    doubt().reads((5, 6), "2").holds();
    doubt().reads((5, 6), "3").breaks_at(3);
}

#[test]
fn an_increment_of_text_fails() {
    let failed =
        |value| story().set((0, 1), value).done((2, 3), Action::incr("k", 1), Answer::Failed);
    failed("text").holds();
    failed("9223372036854775807").holds();
    failed("7").breaks_at(1);
}

#[test]
fn one_of_two_claims_wins() {
    let claim = |value| Action::set_if_absent("k", value);
    let (yes, no) = (Answer::Bool(true), Answer::Bool(false));
    let first = || story().done((0, 9), claim("a"), yes.clone());
    first().done((1, 8), claim("b"), no.clone()).holds();
    first().done((1, 8), claim("b"), yes.clone()).breaks_at(0);
    story().done((0, 9), claim("a"), no).breaks_at(0);
    first().done((10, 11), Action::set_if_present("k", "b"), yes).reads((12, 13), "b").holds();
}

#[test]
fn one_of_two_swaps_from_one_value_wins() {
    let cas = |value| Action::compare_and_set("k", "a", value);
    let start = || story().set((0, 1), "a").done((2, 9), cas("b"), Answer::Bool(true));
    start().done((3, 8), cas("c"), Answer::Bool(false)).reads((10, 11), "b").holds();
    start().done((3, 8), cas("c"), Answer::Bool(true)).breaks_at(1);
}

#[test]
fn what_was_deleted_is_gone() {
    let deleted = || story().set((0, 1), "a").done((2, 3), Action::delete("k"), Answer::Bool(true));
    deleted().reads_nothing((4, 5)).holds();
    deleted().reads((4, 5), "a").breaks_at(2);
    deleted().done((4, 5), Action::get_delete("k"), Answer::value("a")).breaks_at(2);
}

#[test]
fn appends_and_swaps_tell_what_was_there() {
    let append = |value| Action::append("k", value);
    story()
        .done((0, 1), append("ab"), Answer::Number(2))
        .doubtful(2, append("cd"))
        .done((3, 4), append("ef"), Answer::Number(6))
        .done((5, 6), Action::swap("k", "x"), Answer::value("abcdef"))
        .reads((7, 8), "x")
        .holds();
    story()
        .done((0, 1), append("ab"), Answer::Number(2))
        .done((2, 3), append("cd"), Answer::Number(4))
        .reads((4, 5), "cdab")
        .breaks_at(2);
}

#[test]
fn a_key_lives_until_its_deadline() {
    let lease = || story().done((10, 20), Action::set_for("k", "a", 100), Answer::Done);
    lease().reads((100, 105), "a").reads_nothing((110, 111)).holds();
    lease().reads_nothing((90, 110)).holds();
    lease().reads_nothing((90, 109)).breaks_at(1);
    lease().reads_nothing((111, 112)).reads((113, 114), "a").breaks_at(2);
    lease().reads((200, 201), "a").holds();
    lease().set((30, 31), "b").reads_nothing((200, 201)).breaks_at(2);
}

#[test]
fn a_deadline_belongs_to_the_write_that_gave_it() {
    let lease = || story().done((10, 20), Action::set_for("k", "1", 100), Answer::Done);
    // Kept by what changes the value, cleared by what sets it.
    let counted = || lease().done((30, 31), Action::incr("k", 1), Answer::Number(2));
    counted().reads_nothing((110, 111)).holds();
    counted().reads_nothing((108, 109)).breaks_at(2);
    let added = || lease().done((30, 31), Action::append("k", "2"), Answer::Number(2));
    added().reads_nothing((110, 111)).holds();
    added().reads_nothing((108, 109)).breaks_at(2);
    let swapped = || lease().done((30, 31), Action::swap("k", "2"), Answer::value("1"));
    swapped().reads_nothing((500, 501)).breaks_at(2);
    let longer = || lease().done((30, 31), Action::set_for("k", "2", 200), Answer::Done);
    longer().reads_nothing((200, 229)).breaks_at(2);
    longer().reads_nothing((200, 230)).holds();
}

#[test]
fn what_has_expired_does_not_come_back() {
    let lease = || story().done((10, 20), Action::set_for("k", "1", 100), Answer::Done);
    let claim = Action::set_if_absent("k", "2");
    lease().done((90, 105), claim.clone(), Answer::Bool(true)).breaks_at(1);
    let claimed = || lease().done((111, 115), claim.clone(), Answer::Bool(true));
    claimed().reads((116, 117), "2").holds();
    claimed().reads((116, 117), "1").breaks_at(2);
    lease()
        .done((111, 112), Action::incr("k", 1), Answer::Number(1))
        .reads((113, 114), "1")
        .holds();
    lease()
        .done((111, 112), Action::incr("k", 1), Answer::Number(1))
        .reads((113, 114), "2")
        .breaks_at(2);
}

#[test]
fn a_doubtful_write_with_a_deadline_may_have_come_and_gone() {
    let maybe = || story().set((0, 1), "a").doubtful(10, Action::set_for("k", "b", 100));
    maybe().reads((11, 12), "a").holds();
    maybe().reads((11, 12), "b").reads_nothing((110, 111)).holds();
    maybe().reads_nothing((110, 111)).holds();
    maybe().reads_nothing((108, 109)).breaks_at(2);
    maybe().reads_nothing((110, 111)).reads((112, 113), "a").breaks_at(3);
}

#[test]
fn lateness_and_earliness_are_judged_by_the_rules() {
    let lease = || story().done((10, 20), Action::set_for("k", "a", 100), Answer::Done);
    let rules = Rules { expiry_early: 5, expiry_late: Some(7), ..Rules::default() };
    let judge = |story: Story| check_by(&rules, &story.history).is_linearizable();
    assert!(judge(lease().reads_nothing((104, 105))));
    assert!(!judge(lease().reads_nothing((103, 104))));
    assert!(judge(lease().reads((127, 130), "a")));
    assert!(!judge(lease().reads((128, 130), "a")));
}

#[test]
fn a_write_of_several_keys_is_one() {
    let pairs = |value| Action::set_many([("{t}a", value), ("{t}b", value)]);
    let both = |a, b| Answer::Values(vec![a, b]);
    let get = || Action::get_many(["{t}a", "{t}b"]);
    let (one, two) = (Some("1".into()), Some("2".into()));
    let start =
        || story().done((0, 1), pairs("1"), Answer::Done).done((2, 9), pairs("2"), Answer::Done);
    start().done((3, 4), get(), both(one.clone(), one.clone())).holds();
    start().done((3, 4), get(), both(two.clone(), two)).holds();
    start().done((3, 4), get(), both(one, Some("2".into()))).breaks_at(2);
}

#[test]
fn half_a_write_of_several_keys_is_found_by_reads_of_one() {
    let pairs = |value| Action::set_many([("{t}a", value), ("{t}b", value)]);
    let read = |story: Story, at, key, value| {
        story.done((at, at + 1), Action::get(key), Answer::value(value))
    };
    let start =
        || story().done((0, 1), pairs("1"), Answer::Done).done((2, 19), pairs("2"), Answer::Done);
    read(read(start(), 3, "{t}a", "1"), 5, "{t}b", "2").holds();
    read(read(start(), 3, "{t}a", "2"), 5, "{t}b", "1").breaks_at(3);
}

#[test]
fn a_doubtful_write_of_several_keys_appears_whole_or_not_at_all() {
    let pairs = |value| Action::set_many([("{t}a", value), ("{t}b", value)]);
    let values =
        |a: &'static str, b: &'static str| Answer::Values(vec![Some(a.into()), Some(b.into())]);
    let get = || Action::get_many(["{t}a", "{t}b"]);
    let start = || story().done((0, 1), pairs("1"), Answer::Done).doubtful(2, pairs("2"));
    start().done((3, 4), get(), values("1", "1")).done((5, 6), get(), values("2", "2")).holds();
    start().done((3, 4), get(), values("1", "2")).breaks_at(2);
    start()
        .done((3, 4), get(), values("2", "2"))
        .done((5, 6), get(), values("1", "1"))
        .breaks_at(3);
}

#[test]
fn a_refused_write_of_several_keys_leaves_no_part_behind() {
    let pairs = |value| Action::set_many([("{t}a", value), ("{t}b", value)]);
    let start = || story().done((0, 1), pairs("1"), Answer::Done).refused((2, 3), pairs("2"));
    let read = |value| start().done((4, 5), Action::get("{t}b"), Answer::value(value));
    read("1").holds();
    read("2").breaks_at(2);
}

#[test]
fn keys_that_nothing_joins_are_judged_apart() {
    let other = Action::set("other", "x");
    let history = story().set((0, 1), "a").done((0, 1), other, Answer::Done).history;
    assert!(matches!(check(&history), Verdict::Linearizable { operations: 2, objects: 2 }));
}

#[test]
fn an_answer_of_another_kind_is_found() {
    story().done((0, 1), Action::set("k", "a"), Answer::Number(1)).breaks_at(0);
}

#[test]
fn what_is_too_hard_is_said_to_be() {
    let history = story().set((0, 1), "a").set((0, 1), "b").reads((2, 3), "a").history;
    let rules = Rules { work_max: 1, ..Rules::default() };
    assert!(matches!(check_by(&rules, &history), Verdict::TooHard { .. }));
}

#[test]
fn a_recorded_operation_is_in_doubt_until_it_is_settled() {
    let recorder = Recorder::new();
    let set = recorder.begin(1, Action::set("k", "a"), 0);
    drop(recorder.begin(2, Action::set("k", "b"), 1));
    recorder.begin(3, Action::get("k"), 2).refused(3);
    set.done(Answer::Done, 4);
    let outcomes: Vec<Outcome> = recorder.history().into_iter().map(|op| op.outcome).collect();
    let done = Outcome::Done { answer: Answer::Done, at: 4 };
    assert_eq!(outcomes, [done, Outcome::Unknown, Outcome::Refused { at: 3 }]);
}

/// What a made-up history is made of.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    action: Action,
    /// How long before and after its moment it was under way.
    before: u64,
    after: u64,
    /// From 0 to 99: what became of it.
    luck: u8,
}

/// Runs the plans one after the other at moments 10 apart, then hides the order in overlapping windows.
pub(super) fn run(plans: &[Plan], keys: &[&'static str], doubt: u8) -> Vec<Operation> {
    let mut state: state::State = vec![None; keys.len()];
    let mut history = Vec::new();
    for (index, plan) in (0u32..).zip(plans) {
        let moment = 1000 + u64::from(index) * 10;
        let slots: Vec<usize> = plan
            .action
            .keys()
            .iter()
            .map(|key| keys.iter().position(|known| known.as_bytes() == key.as_ref()).unwrap())
            .collect();
        let (answer, next) = state::apply(&state, &plan.action, &slots, index);
        let at = moment + plan.after;
        let (outcome, takes_effect) = match plan.luck {
            luck if luck < doubt => (Outcome::Unknown, luck % 2 == 0),
            luck if luck < doubt + 5 => (Outcome::Refused { at }, false),
            _ => (Outcome::Done { answer, at }, true),
        };
        if takes_effect && let Some(next) = next {
            state = next;
        }
        let (client, invoked) = (index % 16, moment - plan.before);
        history.push(Operation { client, action: plan.action.clone(), invoked, outcome });
    }
    history
}

pub(super) const KEYS: [&str; 2] = ["a", "b"];

fn a_key() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just("a"), 1 => Just("b")]
}

/// Few values, so that some are set twice; some are numbers, so that they can be counted up.
pub(super) fn a_value() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["1", "2", "x", "y"])
}

fn an_action(ttl: bool) -> impl Strategy<Value = Action> {
    let one = (0..14u8, a_key(), a_value(), a_value(), 1..60u64);
    one.prop_map(move |(kind, key, value, other, time)| match kind {
        0..=3 => Action::get(key),
        4 => Action::set(key, value),
        5 if ttl => Action::set_for(key, value, time),
        5 => Action::set(key, value),
        6 => Action::set_if_absent(key, value),
        7 => Action::set_if_present(key, value),
        8 => Action::compare_and_set(key, other, value),
        9 => Action::swap(key, value),
        10 if time < 30 => Action::incr(key, i64::try_from(time % 3).unwrap()),
        10 => Action::append(key, value),
        11 => Action::delete(key),
        12 => Action::get_delete(key),
        _ if time < 30 => Action::set_many([("a", value), ("b", other)]),
        _ => Action::get_many(KEYS),
    })
}

pub(super) fn plans(
    actions: impl Strategy<Value = Action>,
    count: usize,
) -> impl Strategy<Value = Vec<Plan>> {
    let plan = (actions, 0..40u64, 0..40u64, 0..100u8);
    let plan = plan.prop_map(|(action, before, after, luck)| Plan { action, before, after, luck });
    prop::collection::vec(plan, 1..=count)
}

/// Small histories of one kind each, so that also the special cases for kinds are met often.
pub(super) fn some_plans(count: usize) -> impl Strategy<Value = Vec<Plan>> {
    let plain = (0..5u8, a_value()).prop_map(|(kind, value)| match kind {
        0 | 1 => Action::get("a"),
        2 => Action::swap("a", value),
        _ => Action::set("a", value),
    });
    let counter = (0..3u8, 1..3i64).prop_map(|(kind, by)| match kind {
        0 => Action::get("a"),
        _ => Action::incr("a", by),
    });
    let list = (0..3u8, a_value()).prop_map(|(kind, value)| match kind {
        0 => Action::get("a"),
        _ => Action::append("a", value),
    });
    let register = an_action(true).prop_filter("only compared values", |action| {
        !matches!(action, Action::Incr { .. } | Action::Append { .. })
    });
    prop_oneof![
        plans(an_action(true), count),
        plans(register, count),
        plans(plain, count),
        plans(counter, count),
        plans(list, count),
    ]
}

/// Gives one answer the kind of value that some other could have had.
pub(super) fn mutate(history: &mut [Operation], which: usize, value: &str, number: i64) {
    let which = which % history.len();
    let Outcome::Done { answer, .. } = &mut history[which].outcome else { return };
    match answer {
        Answer::Done => {}
        Answer::Bool(yes) => *yes = !*yes,
        Answer::Value(told) => {
            *told = if number == 0 { None } else { Some(value.to_owned().into()) };
        }
        Answer::Values(told) => {
            told[0] = if number == 0 { None } else { Some(value.to_owned().into()) };
        }
        Answer::Number(told) => *told = number,
        Answer::Failed => *answer = Answer::Number(number),
    }
}

fn agree(rules: &Rules, history: &[Operation]) -> Result<(), TestCaseError> {
    let verdict = check_by(rules, history);
    let expected = brute::is_linearizable(rules, history);
    prop_assert_eq!(verdict.is_linearizable(), expected, "{}\n{:#?}", verdict, history);
    if let Verdict::Violation(violation) = verdict {
        // Up to the culprit there is no order; without it and what was answered later there is one.
        let Some(now) = history[violation.culprit].completed() else { panic!("not answered") };
        prop_assert!(!brute::is_linearizable(rules, &prefix(history, now + 1)));
        prop_assert!(brute::is_linearizable(rules, &prefix(history, now)));
    }
    Ok(())
}

/// What was known of the history just before `now`. All objects are cut at the same time.
fn prefix(history: &[Operation], now: u64) -> Vec<Operation> {
    let mut prefix = history.to_vec();
    for operation in &mut prefix {
        if operation.completed().is_some_and(|at| at >= now)
            && !matches!(operation.outcome, Outcome::Refused { .. })
        {
            operation.outcome = Outcome::Unknown;
        }
    }
    prefix.retain(|operation| operation.invoked < now);
    prefix
}

/// Joins all keys into one object, so that a culprit is the first of the whole history.
pub(super) fn join(mut history: Vec<Operation>) -> Vec<Operation> {
    let action = Action::get_many(KEYS);
    let answer = Answer::Values(vec![None, None]);
    history.push(Operation {
        client: 99,
        action,
        invoked: 0,
        outcome: Outcome::Done { answer, at: 0 },
    });
    history
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn what_ran_in_some_order_is_good(plans in some_plans(60)) {
        // Deadlines are left out: the run does not let time pass.
        let plans: Vec<Plan> = plans
            .into_iter()
            .filter(|plan| !matches!(plan.action, Action::Set { ttl: Some(_), .. }))
            .collect();
        let verdict = check(&run(&plans, &KEYS, 15));
        prop_assert!(verdict.is_linearizable(), "{}", verdict);
    }

    #[test]
    fn the_search_agrees_with_trying_all(
        plans in some_plans(7),
        which in 0..7usize,
        value in a_value(),
        number in 0..6i64,
        late in prop::option::of(0..20u64),
        early in 0..10u64,
    ) {
        let rules = Rules { expiry_early: early, expiry_late: late, ..Rules::default() };
        let mut history = join(run(&plans, &KEYS, 25));
        agree(&rules, &history)?;
        mutate(&mut history, which, value, number);
        agree(&rules, &history)?;
    }
}

/// A history of 100,000 operations of 32 clients on 200 keys, a tenth of them on one; 1 % is in doubt, and
/// takes effect or not.
fn long_history() -> Vec<Operation> {
    let mut seed = 7u64;
    let mut chance = |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    };
    let mut names: Vec<&'static str> = Vec::new();
    for key in 0..200 {
        names.push(Box::leak(format!("key{key}").into_boxed_str()));
    }
    let mut plans = Vec::new();
    for index in 0..100_000 {
        let key = if chance(10) == 0 { 0 } else { chance(200) };
        let name = names[usize::try_from(key).unwrap()];
        let value = format!("v{index}");
        let action = match (key % 4, chance(10)) {
            (1, 0..5) => Action::incr(name, 1),
            (2, 0..2) => Action::set_if_absent(name, value),
            (2, 2..4) => Action::delete(name),
            (0 | 2, 4) => Action::swap(name, value),
            (3, 0..2) => Action::append(name, value),
            (0, 0..4) | (2, 5) => Action::set(name, value),
            (_, _) => Action::get(name),
        };
        let luck = if chance(100) == 0 { u8::try_from(chance(2)).unwrap() } else { 99 };
        plans.push(Plan { action, before: chance(160), after: chance(160), luck });
    }
    run(&plans, &names, 2)
}

#[test]
fn a_long_history_is_good_until_one_answer_is_changed() {
    let mut history = long_history();
    let verdict = check(&history);
    assert!(matches!(verdict, Verdict::Linearizable { objects: 200, .. }), "{verdict}");

    let stale = history
        .iter()
        .rposition(|operation| {
            let key = operation.action.keys()[0].as_ref();
            key == b"key0"
                && matches!(&operation.outcome, Outcome::Done { answer: Answer::Value(_), .. })
        })
        .unwrap();
    let first = history
        .iter()
        .find_map(|operation| match (&operation.action, &operation.outcome) {
            (Action::Set { key, value, .. }, Outcome::Done { .. }) if key == "key0" => {
                Some(value.clone())
            }
            _ => None,
        })
        .unwrap();
    let at = history[stale].completed().unwrap();
    history[stale].outcome = Outcome::Done { answer: Answer::Value(Some(first)), at };
    let verdict = check(&history);
    assert!(
        matches!(&verdict, Verdict::Violation(violation) if violation.culprit == stale),
        "{verdict}"
    );
}

/// 3,000 operations on one key, each under way for up to twice `width`, one in `calm` in doubt. They start
/// 10 apart, so that `width / 10` overlap on average.
fn hot_history(width: u64, calm: u64, of: impl Fn(u64, u64) -> Action) -> Vec<Operation> {
    let mut seed = 11u64;
    let mut chance = |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    };
    let plans: Vec<Plan> = (0..3_000)
        .map(|index| {
            let action = of(index, chance(10));
            let luck = if chance(calm) == 0 { u8::try_from(chance(2)).unwrap() } else { 99 };
            Plan { action, before: chance(width), after: chance(width), luck }
        })
        .collect();
    run(&plans, &["k"], 2)
}

#[test]
fn a_hot_key_with_hundreds_in_doubt_is_judged() {
    let kinds: [fn(u64, u64) -> Action; 3] = [
        |index, kind| match kind {
            0..5 => Action::set("k", format!("v{index}")),
            _ => Action::get("k"),
        },
        |_, kind| match kind {
            0..5 => Action::incr("k", 1),
            _ => Action::get("k"),
        },
        |index, kind| match kind {
            0..2 => Action::set_if_absent("k", format!("v{index}")),
            2..4 => Action::set("k", format!("v{index}")),
            4 => Action::swap("k", format!("v{index}")),
            5 => Action::delete("k"),
            _ => Action::get("k"),
        },
    ];
    let shapes = [(160, 10), (40, 10), (80, 10)];
    for (kind, (of, (width, calm))) in kinds.into_iter().zip(shapes).enumerate() {
        let mut history = hot_history(width, calm, of);
        let verdict = check(&history);
        assert!(verdict.is_linearizable(), "kind {kind}: {verdict}");

        // A value from the first half is read again near the end.
        let read = |operation: &Operation| match (&operation.action, &operation.outcome) {
            (Action::Get { .. }, Outcome::Done { answer, .. }) if *answer != Answer::nil() => {
                Some(answer.clone())
            }
            _ => None,
        };
        let old = history[1_200..].iter().find_map(read).unwrap();
        let stale = history.iter().rposition(|operation| read(operation).is_some()).unwrap();
        let at = history[stale].completed().unwrap();
        history[stale].outcome = Outcome::Done { answer: old, at };
        let verdict = check(&history);
        let found = matches!(&verdict, Verdict::Violation(violation) if history[violation.culprit].completed() == Some(at));
        assert!(found, "kind {kind}: {verdict}");
    }
}
