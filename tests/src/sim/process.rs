//! A process of a simulated machine: a runtime of its own, with a monotonic clock of its own that the
//! simulation moves.
//!
//! A process that is held does nothing while its clock goes on, as one that got `SIGSTOP`: on its machine
//! others still take what arrives. One that comes to a point where it is to be held stops right there.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use scatterhoard_node::{Config, Environment, Node};
use scatterhoard_replication::probe::Point;
use tokio::runtime::{Builder, RngSeed, Runtime, UnhandledPanic};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::info;

use super::node::Life;

/// A clock that is further behind than this does not catch up step by step: it jumps.
const CATCH_UP_MAX: Duration = Duration::from_millis(50);

thread_local! {
    /// The machine whose process runs now; 0 if none does.
    static RUNNING: Cell<usize> = const { Cell::new(0) };
    static ARMED: RefCell<BTreeMap<usize, Arc<Trap>>> = const { RefCell::new(BTreeMap::new()) };
}

/// A machine's process is to be held when it comes to a point.
#[derive(Debug)]
struct Trap {
    point: Point,
    /// Rings when it has come there.
    sprung: Notify,
    /// Lets it go on.
    held: Mutex<Option<oneshot::Sender<()>>>,
}

/// The machine whose process runs now, if one does.
pub(super) fn running() -> Option<usize> {
    Some(RUNNING.get()).filter(|&machine| machine != 0)
}

/// What is to be done at a point: nothing, or to wait until the process may go on.
pub(super) fn stop(at: Point) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
    let trap = ARMED.with_borrow(|armed| armed.get(&running()?).cloned())?;
    if trap.point != at || trap.held.lock().is_some() {
        return None;
    }
    let (go_on, wait) = oneshot::channel();
    *trap.held.lock() = Some(go_on);
    trap.sprung.notify_one();
    Some(Box::pin(async move {
        let _told_or_dead = wait.await;
    }))
}

/// What is said to a process, and what it says.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    pub(super) leave: Arc<Notify>,
    pub(super) life: Arc<Mutex<Life>>,
}

/// A process, and what it ends with.
pub(super) struct Process<T> {
    machine: usize,
    runtime: Runtime,
    main: JoinHandle<T>,
    /// What its clock should show.
    now: Instant,
    /// How fast its clock runs: 1.0 is right.
    pace: f64,
    /// Whether it does nothing while its clock goes on.
    held: bool,
    /// Of so many steps it gets one.
    share: u32,
    steps_count: u32,
}

impl Process<Life> {
    /// A node.
    pub(super) fn node(
        machine: usize,
        config: Config,
        environment: Environment,
        lines: Lines,
        pace: f64,
    ) -> Self {
        let seed = environment.seed;
        Self::start(machine, seed, pace, live(config, environment, lines))
    }
}

impl<T: Send + 'static> Process<T> {
    /// Begins with `main`, which is what it does. `machine` is 0 if it is nobody's node.
    pub(super) fn start(
        machine: usize,
        seed: u64,
        pace: f64,
        main: impl Future<Output = T> + Send + 'static,
    ) -> Self {
        let seed = RngSeed::from_bytes(&seed.to_le_bytes());
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(seed)
            .unhandled_panic(UnhandledPanic::ShutdownRuntime)
            .build()
            .expect("a runtime without input and output can always be built");
        // A runtime's timers count milliseconds from its beginning.
        let now = runtime.block_on(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Instant::now()
        });
        let main = runtime.spawn(main);
        Self { machine, runtime, main, now, pace, held: false, share: 1, steps_count: 0 }
    }

    /// Lets so much time go by. Answers with how the process has ended, if it has.
    pub(super) fn step(&mut self, tick: Duration) -> Option<T> {
        self.now += tick.mul_f64(self.pace);
        self.steps_count = self.steps_count.wrapping_add(1);
        if self.held || !self.steps_count.is_multiple_of(self.share) {
            return None;
        }
        RUNNING.set(self.machine);
        let trap = ARMED.with_borrow(|armed| armed.get(&self.machine).cloned());
        let now = self.now;
        let sprung = self.runtime.block_on(async {
            let behind = now.saturating_duration_since(Instant::now());
            if behind > CATCH_UP_MAX {
                tokio::time::advance(behind).await;
            }
            match &trap {
                Some(trap) => tokio::select! {
                    biased;
                    () = trap.sprung.notified() => Some(trap.point),
                    () = tokio::time::sleep_until(now) => None,
                },
                None => {
                    tokio::time::sleep_until(now).await;
                    None
                }
            }
        });
        RUNNING.set(0);
        if let Some(point) = sprung {
            info!(machine = self.machine, ?point, "held at a point");
            self.held = true;
        }
        let main = &mut self.main;
        main.is_finished().then(|| match self.runtime.block_on(main) {
            Ok(ended) => ended,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        })
    }

    /// Holds it from now on.
    pub(super) fn hold(&mut self) {
        self.held = true;
    }

    /// Lets it go on; its clock then jumps to where it should be.
    pub(super) fn release(&mut self) {
        disarm(self.machine);
        self.held = false;
    }

    /// From now on it gets one of so many steps, as on a machine that is busy with something else.
    pub(super) fn starve(&mut self, share: u32) {
        self.share = share;
    }

    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// From now on its clock runs at this pace.
    pub(super) fn set_pace(&mut self, pace: f64) {
        self.pace = pace;
    }
}

impl<T> Drop for Process<T> {
    fn drop(&mut self) {
        disarm(self.machine);
    }
}

/// When the machine's process next comes to this point, it is held there.
pub(super) fn arm(machine: usize, point: Point) {
    let trap = Trap { point, sprung: Notify::new(), held: Mutex::new(None) };
    ARMED.with_borrow_mut(|armed| armed.insert(machine, Arc::new(trap)));
}

/// Whether a process is held at the point that is armed for its machine; `None` if none is.
pub(super) fn has_sprung(machine: usize) -> Option<bool> {
    ARMED.with_borrow(|armed| armed.get(&machine).map(|trap| trap.held.lock().is_some()))
}

/// A process that is held at a point goes on; one that has not come there does not stop any more.
pub(super) fn disarm(machine: usize) {
    if let Some(trap) = ARMED.with_borrow_mut(|armed| armed.remove(&machine))
        && let Some(go_on) = trap.held.lock().take()
    {
        let _it_may_be_dead = go_on.send(());
    }
}

/// What the process does: what the binary does, without its command line.
async fn live(config: Config, environment: Environment, lines: Lines) -> Life {
    let patience: Duration = config.leave_timeout;
    let node = match Node::start(config, environment).await {
        Ok(node) => node,
        Err(error) => return Life::Refused(error.to_string()),
    };
    info!(node = %node.id(), "a member");
    *lines.life.lock() = Life::Member;
    let asked = async {
        tokio::select! {
            biased;
            () = lines.leave.notified() => {}
            () = node.asked_to_leave() => {}
        }
    };
    let ended = tokio::select! {
        biased;
        () = node.stopped() => Life::Dismissed,
        () = asked => {
            node.leave(patience).await;
            Life::Left
        }
    };
    node.shutdown().await;
    ended
}
