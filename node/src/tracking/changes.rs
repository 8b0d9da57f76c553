//! Which keys a write has changed, by what it answered.
//!
//! Who deletes is told of values only. There may have been something else: that the source has none, which copies are
//! kept of as well, or a load, whose end others wait for. So a delete counts in any case; and so does a fill.

use scatterhoard_command::keys_of_write;
use scatterhoard_store::{OpError, Reply, SetAnswer, When, Write};

/// The keys that are, or may be, other than before. As Redis: what was not done for a condition changed
/// nothing; what was done and left everything as it was counts.
pub(crate) fn changed_keys<'a>(
    write: &Write<'a>,
    reply: &Reply<'_>,
) -> impl Iterator<Item = &'a [u8]> {
    let changed = has_changed(write, reply);
    // What is copied stays as it is.
    let kept = usize::from(matches!(write, Write::Copy { .. }));
    keys_of_write(write).skip(kept).filter(move |_| changed)
}

fn has_changed(write: &Write<'_>, reply: &Reply<'_>) -> bool {
    if let Reply::Error(error) = reply {
        // All others say that nothing was done.
        return *error == OpError::AnswerLost;
    }
    let was = *reply != Reply::Nil;
    match write {
        Write::Set { answer: SetAnswer::Done | SetAnswer::Version, .. }
        | Write::SetWith { answer: SetAnswer::Done | SetAnswer::Version, .. } => was,
        Write::Set { answer: SetAnswer::Count, .. }
        | Write::SetWith { answer: SetAnswer::Count, .. }
        // It changes no value, but whoever waits for the load is to hear that it is over.
        | Write::Release { .. }
        | Write::SetManyIfAbsent { .. }
        | Write::Expire { .. }
        | Write::Persist { .. }
        | Write::Copy { .. }
        | Write::Rename { only_if_absent: true, .. } => *reply != Reply::Int(0),
        Write::Set { answer: SetAnswer::Before, when, .. }
        | Write::SetWith { answer: SetAnswer::Before, when, .. } => match when {
            When::Always => true,
            When::Absent => !was,
            When::Present => was,
            When::Equal(value) => matches!(reply, Reply::Bulk(before) if before == value),
        },
        Write::GetExpire { .. } => was,
        Write::SetRange { value, .. } => !value.is_empty(),
        // Who only loads leaves what there is.
        Write::Lease { .. } => false,
        Write::AddToFilter { .. } => *reply != Reply::Bool(false),
        Write::SetMany { .. }
        // One that is refused for its tags ends the load.
        | Write::Fill { .. }
        | Write::Delete { .. }
        | Write::GetDelete { .. }
        | Write::Evict { .. }
        | Write::Add { .. }
        | Write::AddFloat { .. }
        | Write::Append { .. }
        | Write::ReserveFilter { .. }
        | Write::Rename { only_if_absent: false, .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use scatterhoard_store::{Expiry, FilterForm};

    use super::*;

    #[track_caller]
    fn check(write: &Write<'_>, reply: &Reply<'_>, keys: &[&str]) {
        let changed: Vec<_> = changed_keys(write, reply).map(String::from_utf8_lossy).collect();
        assert_eq!(changed, keys, "{write:?} that answered {reply:?}");
    }

    fn set(when: When<'static>, answer: SetAnswer) -> Write<'static> {
        Write::Set { key: b"k", value: b"v", expiry: Expiry::Clear, when, answer }
    }

    #[test]
    fn what_was_not_done_changes_nothing() {
        let value = Reply::Bulk(Cow::Borrowed(b"old"));
        check(&set(When::Absent, SetAnswer::Done), &Reply::Nil, &[]);
        check(&set(When::Absent, SetAnswer::Done), &Reply::Ok, &["k"]);
        check(&set(When::Absent, SetAnswer::Count), &Reply::Int(0), &[]);
        check(&set(When::Absent, SetAnswer::Before), &value, &[]);
        check(&set(When::Absent, SetAnswer::Before), &Reply::Nil, &["k"]);
        check(&set(When::Present, SetAnswer::Before), &Reply::Nil, &[]);
        check(&set(When::Always, SetAnswer::Before), &Reply::Nil, &["k"]);
        check(&Write::Add { key: b"k", delta: 1 }, &Reply::Error(OpError::Overflow), &[]);
        let expire = Write::GetExpire { key: b"k", expiry: Expiry::Clear };
        check(&expire, &Reply::Nil, &[]);
    }

    #[test]
    fn what_may_have_been_done_counts() {
        let lost = Reply::Error(OpError::AnswerLost);
        check(&set(When::Absent, SetAnswer::Done), &lost, &["k"]);
        check(&Write::Delete { keys: vec![b"a", b"b"] }, &Reply::Int(0), &["a", "b"]);
        check(&Write::GetDelete { key: b"k" }, &Reply::Nil, &["k"]);
    }

    #[test]
    fn what_a_filter_had_already_does_not_change_it() {
        let add = |form| Write::AddToFilter { key: b"f", items: vec![b"a"], form };
        check(&add(FilterForm::One), &Reply::Bool(false), &[]);
        check(&add(FilterForm::One), &Reply::Bool(true), &["f"]);
        // Whether there is anything new among them is not looked up.
        check(&add(FilterForm::Many), &Reply::Tuple(vec![Reply::Bool(false)]), &["f"]);
    }

    #[test]
    fn a_copy_changes_its_target_and_a_rename_both() {
        let copy = Write::Copy { from: b"a", to: b"b", replace: false };
        check(&copy, &Reply::Int(1), &["b"]);
        let rename = Write::Rename { from: b"a", to: b"b", only_if_absent: false };
        check(&rename, &Reply::Ok, &["a", "b"]);
    }
}
