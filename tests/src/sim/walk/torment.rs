//! What clients ask for during a walk.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;

use super::plan::{NODES_COUNT_MAX, Plan};
use crate::sim::client::{Client, Told};
use scatterhoard_check::history::Action;

/// Keys that they ask for: few, so that they meet.
pub(super) const KEYS: [&str; 5] = ["apple", "pear", "plum", "{fig}1", "{fig}2"];

/// Keys that are set with a deadline, too.
const MORTAL_KEYS: [&str; 2] = ["mayfly", "moth"];

/// A key that is only counted up, and one that is only added to: nothing hides what was lost or done twice.
pub(super) const COUNTED: &str = "count";
pub(super) const ADDED_TO: &str = "log";

/// Requests that go in one pipeline.
const PIPELINE_COUNT: usize = 3;

/// How long those who only look on wait for an answer.
const GLANCE_PATIENCE: Duration = Duration::from_millis(400);

/// Keys that nobody reads: they may be evicted.
const FILLERS_COUNT: u32 = 400;
const FILLER_BYTES: usize = 4 << 10;

/// How long keys with a deadline live, in nanoseconds.
const TTL_NS: std::ops::Range<u64> = 1_000_000_000..8_000_000_000;

/// Whether clients go on asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Asking,
    /// They wait until they may ask again.
    Resting,
    Over,
}

/// What clients know of the walk.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) mood: Rc<Cell<Mood>>,
    /// Requests under way.
    pub(super) busy: Rc<Cell<usize>>,
    /// What was pushed to all clients.
    pub(super) pushes_count: Rc<Cell<u64>>,
    /// The key that a write was acknowledged for last.
    latest: Rc<RefCell<Bytes>>,
    pub(super) mortal: bool,
    pub(super) crowded: bool,
}

impl Shared {
    pub(super) fn of(plan: &Plan) -> Self {
        Self {
            mood: Rc::new(Cell::new(Mood::Asking)),
            busy: Rc::default(),
            pushes_count: Rc::default(),
            latest: Rc::new(RefCell::new(Bytes::from_static(ADDED_TO.as_bytes()))),
            mortal: plan.mortal,
            crowded: plan.crowded,
        }
    }
}

/// Asks until it is over.
pub(super) async fn torment(mut client: Client, mut rng: StdRng, shared: Shared) {
    let mut count = 0_u32;
    loop {
        match shared.mood.get() {
            Mood::Over => {
                shared.pushes_count.set(shared.pushes_count.get() + client.pushes_count());
                return;
            }
            Mood::Resting => {}
            Mood::Asking => {
                count += 1;
                shared.busy.set(shared.busy.get() + 1);
                client.prefer(rng.random_range(0..NODES_COUNT_MAX));
                ask(&mut client, &mut rng, &shared, count).await;
                shared.busy.set(shared.busy.get() - 1);
            }
        }
        let pause = Duration::from_millis(rng.random_range(5..150));
        tokio::time::sleep(pause).await;
    }
}

/// Reads what was written last until it is over, from one node and through thick and thin: whoever answers
/// though another already leads is caught only by those who ask it in that moment.
pub(super) async fn look_on(mut client: Client, mut rng: StdRng, shared: Shared) {
    while shared.mood.get() != Mood::Over {
        if shared.mood.get() == Mood::Asking {
            let key = shared.latest.borrow().clone();
            client.glance(Action::get(key), GLANCE_PATIENCE).await;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(10..60))).await;
    }
}

async fn ask(client: &mut Client, rng: &mut StdRng, shared: &Shared, count: u32) {
    if shared.crowded && rng.random_bool(0.5) {
        let key = format!("filler-{}", rng.random_range(0..FILLERS_COUNT));
        let value = Bytes::from(vec![b'.'; FILLER_BYTES]);
        let _told = client.ask_unseen(Action::set_for(key, value, 1_000_000_000_000)).await;
        return;
    }
    if rng.random_range(0..12) == 0 {
        let word = |at| format!("{}.{count}.{at},", client.number());
        let actions = (0..PIPELINE_COUNT).map(|at| Action::append(ADDED_TO, word(at))).collect();
        let _told: Vec<Told> = client.pipeline(actions).await;
        return;
    }
    if client.takes_any_key() && rng.random_range(0..12) == 0 {
        // Whatever it is: reads behind writes, of keys that several nodes lead.
        let actions = (0..PIPELINE_COUNT).map(|_| action(rng, shared.mortal, count)).collect();
        let _told: Vec<Told> = client.pipeline(actions).await;
        return;
    }
    if client.takes_any_key() && rng.random_range(0..8) == 0 {
        let value = format!("{}.{count}.s", client.number());
        let keys = ["apple", "pear", "plum"];
        client
            .scatter(match rng.random() {
                true => Action::set_many(keys.map(|key| (key, value.clone()))),
                false => Action::get_many(keys),
            })
            .await;
        return;
    }
    let action = action(rng, shared.mortal, count);
    let key = (!action.is_read()).then(|| action.keys()[0].clone());
    let told = client.ask(action).await;
    if let Some(key) = key
        && told.is_acked()
    {
        shared.latest.replace(key);
    }
}

fn action(rng: &mut StdRng, mortal: bool, count: u32) -> Action {
    // Values differ, so that a read tells which write it saw.
    let value = format!("{}-{count}", rng.random::<u16>());
    if mortal && rng.random_range(0..3) == 0 {
        let key = MORTAL_KEYS[rng.random_range(0..MORTAL_KEYS.len())];
        return match rng.random_range(0..8) {
            0..3 => Action::set_for(key, value, rng.random_range(TTL_NS) / 1_000_000 * 1_000_000),
            3 => Action::set_if_absent(key, value),
            4 => Action::set(key, value),
            _ => Action::get(key),
        };
    }
    let key = KEYS[rng.random_range(0..KEYS.len())];
    match rng.random_range(0..24) {
        0..7 => Action::get(key),
        7..11 => Action::set(key, value),
        11 => Action::swap(key, value),
        12 => Action::append(key, value),
        13 => Action::set_if_absent(key, value),
        14 => Action::delete(key),
        15 => Action::get_many(["{fig}1", "{fig}2"]),
        16 => Action::set_many([("{fig}1", value.clone()), ("{fig}2", value)]),
        17..19 => Action::incr(COUNTED, 1),
        19..21 => Action::append(ADDED_TO, format!("{}.{count}.x,", rng.random::<u16>())),
        21 => Action::get(COUNTED),
        _ => Action::get(ADDED_TO),
    }
}

/// What one client put into the same pipeline comes in its order, wherever all of it was done.
///
/// # Errors
/// What came before what.
pub(super) fn in_order(log: &str) -> Result<(), String> {
    let words: Vec<&str> = log.split(',').filter(|word| !word.is_empty()).collect();
    for (at, word) in words.iter().enumerate() {
        let Some((pipeline, number)) = word.rsplit_once('.') else { continue };
        let Ok(number) = number.parse::<usize>() else { continue };
        let earlier = words[at..].iter().find_map(|later| {
            let (other, place) = later.rsplit_once('.')?;
            let place = place.parse::<usize>().ok()?;
            (other == pipeline && place < number).then_some(later)
        });
        if let Some(earlier) = earlier {
            return Err(format!("{word} was appended before {earlier}"));
        }
    }
    Ok(())
}
