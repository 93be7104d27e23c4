//! The simulated runtime: openraft's, with *hosts* around its tasks.
//!
//! A task belongs to the host in which it was spawned, and so does what it spawns, openraft's own tasks included. Switching a host off drops
//! its tasks where they stand, as a power cut does; pausing one stops them between two polls, as SIGSTOP does, while time goes on. A task
//! that is ready is now and then sent to the end of the queue, by chance that follows from the seed: the executor alone is FIFO, and would
//! show one order of things.
//!
//! Files take time here, too: what blocks runs in place, and [`owe`] says how long it would have taken; [`crate::blocking`] returns then.
//!
//! The *trace* is one number over every step of every task, its host and its moment, and over whatever else is told to [`trace`]: two runs
//! with one trace did the same.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use openraft_rt::{AsyncRuntime, Instant as _, OptionalSend};
use openraft_rt_sim::{SimInstant, SimRuntime};

/// One ready task in so many is made to wait for the others first.
const YIELD_ONE_IN: u64 = 8;

thread_local! {
    static HOST: RefCell<Option<Arc<Host>>> = const { RefCell::new(None) };
    static OWED: Cell<Option<Duration>> = const { Cell::new(None) };
    static CHANCE: Cell<u64> = const { Cell::new(0) };
    static TRACE: Cell<u64> = const { Cell::new(0xCBF2_9CE4_8422_2325) };
    static TASKS: Cell<u64> = const { Cell::new(0) };
    static STEPS: Cell<u64> = const { Cell::new(0) };
    static LAST_US: Cell<u64> = const { Cell::new(0) };
}

/// Whether a host runs its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    Paused,
    Off,
}

/// One life of a machine or a client: from its start to the end of its process.
#[derive(Debug)]
pub struct Host {
    id: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    power: Power,
    /// How to reach each task that lives.
    tasks: BTreeMap<u64, Waker>,
}

impl Host {
    /// A host that is on. The id is for the trace.
    pub fn new(id: u64) -> Arc<Host> {
        let state = State {
            power: Power::On,
            tasks: BTreeMap::new(),
        };
        Arc::new(Host {
            id,
            state: Mutex::new(state),
        })
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The host of the task that runs now.
    pub fn current() -> Option<Arc<Host>> {
        HOST.with_borrow(Clone::clone)
    }

    /// Starts a task on this host. Its end is told to nobody when the host is switched off first.
    pub fn spawn<F>(self: &Arc<Self>, future: F) -> crate::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let before = HOST.replace(Some(self.clone()));
        let task = crate::spawn(future);
        HOST.set(before);
        task
    }

    /// Ends everything that runs here, for good.
    pub fn switch_off(&self) {
        self.set(Power::Off);
    }

    /// Stops everything that runs here; time goes on.
    pub fn pause(&self) {
        self.set(Power::Paused);
    }

    /// Goes on after a pause.
    pub fn resume(&self) {
        self.set(Power::On);
    }

    /// Not switched off.
    pub fn is_alive(&self) -> bool {
        self.state().power != Power::Off
    }

    /// Neither switched off nor paused.
    pub fn runs(&self) -> bool {
        self.state().power == Power::On
    }

    fn set(&self, power: Power) {
        let mut state = self.state();
        if state.power == Power::Off {
            return;
        }
        state.power = power;
        let wakers: Vec<Waker> = state.tasks.values().cloned().collect();
        drop(state);
        if power != Power::Paused {
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a task that belongs to no host: the world around them.
pub fn spawn_outside<F>(future: F) -> crate::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let before = HOST.replace(None);
    let task = crate::spawn(future);
    HOST.set(before);
    task
}

/// A task within its host.
struct Hosted<F> {
    /// `None` once the host is off, or the task done.
    future: Option<Pin<Box<F>>>,
    host: Option<Arc<Host>>,
    id: u64,
    /// It was sent to the end of the queue, and its turn has come.
    waited: bool,
}

impl<F: Future> Hosted<F> {
    fn within<T>(&mut self, work: impl FnOnce(&mut Option<Pin<Box<F>>>) -> T) -> T {
        let before = HOST.replace(self.host.clone());
        let done = work(&mut self.future);
        HOST.set(before);
        done
    }

    fn end(&mut self) {
        self.within(|future| drop(future.take()));
        if let Some(host) = &self.host {
            host.state().tasks.remove(&self.id);
        }
    }
}

impl<F: Future> Future for Hosted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        if let Some(host) = &this.host {
            let mut state = host.state();
            match state.power {
                Power::Off => {
                    drop(state);
                    this.end();
                    return Poll::Pending;
                }
                power => {
                    state.tasks.insert(this.id, context.waker().clone());
                    if power == Power::Paused {
                        return Poll::Pending;
                    }
                }
            }
        }
        if !this.waited && below(YIELD_ONE_IN) == 0 {
            this.waited = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.waited = false;
        let host = this.host.as_ref().map_or(0, |host| host.id);
        trace(&[SimInstant::now().elapsed_since_start().as_nanos() as u64, host, this.id]);
        STEPS.set(STEPS.get() + 1);
        LAST_US.set(SimInstant::now().elapsed_since_start().as_micros() as u64);
        let polled = this.within(|future| match future {
            Some(future) => future.as_mut().poll(context),
            None => Poll::Pending,
        });
        let alive = this.host.as_ref().is_none_or(|host| host.is_alive());
        if polled.is_ready() || !alive {
            this.end();
        }
        // What a host did in the step that ended it was never done.
        if alive { polled } else { Poll::Pending }
    }
}

/// openraft's simulated runtime, with every task in its host.
#[derive(Debug)]
pub struct HostedRuntime(SimRuntime);

impl HostedRuntime {
    /// A runtime whose chance follows from `seed`.
    pub fn with_seed(seed: u64) -> Self {
        CHANCE.set(seed);
        HostedRuntime(SimRuntime::with_seed(seed))
    }

    /// Runs everything until `future` is done.
    pub fn run<F: Future>(&mut self, future: F) -> F::Output {
        self.0.block_on(future)
    }
}

impl AsyncRuntime for HostedRuntime {
    type JoinError = <SimRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <SimRuntime as AsyncRuntime>::Sleep;
    type Instant = <SimRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <SimRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <SimRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <SimRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <SimRuntime as AsyncRuntime>::Mpsc;
    type Watch = <SimRuntime as AsyncRuntime>::Watch;
    type Oneshot = <SimRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let id = TASKS.get() + 1;
        TASKS.set(id);
        SimRuntime::spawn(Hosted {
            future: Some(Box::pin(future)),
            host: Host::current(),
            id,
            waited: false,
        })
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        SimRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        SimRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        SimRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        SimRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        SimRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SimRuntime::thread_rng()
    }

    fn new(_threads: usize) -> Self {
        HostedRuntime::with_seed(0)
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, std::io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        async move { Ok(in_place(work).await) }
    }
}

/// Runs blocking work now, and returns when the time is over that it says it took. A host that ended in it never returns.
pub(crate) async fn in_place<T>(work: impl FnOnce() -> T) -> T {
    let (done, owed) = {
        let before = OWED.replace(Some(Duration::ZERO));
        let done = work();
        (done, OWED.replace(before).unwrap_or_default())
    };
    if Host::current().is_some_and(|host| !host.is_alive()) {
        std::future::pending::<()>().await;
    }
    if owed > Duration::ZERO {
        HostedRuntime::sleep(owed).await;
    }
    done
}

/// The moment at which the blocking work under way stands, once it has taken `more`; where nothing can wait, the present one.
pub fn owe(more: Duration) -> SimInstant {
    let owed = OWED.get().map(|owed| owed + more);
    OWED.set(owed);
    SimInstant::now() + owed.unwrap_or_default()
}

/// Takes something that happened into the trace.
pub fn trace(what: &[u64]) {
    let mut hash = TRACE.get();
    for word in what {
        hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
    }
    TRACE.set(hash);
}

/// The trace so far, and the steps of tasks in it.
pub fn traced() -> (u64, u64) {
    (TRACE.get(), STEPS.get())
}

/// Microseconds of simulated time until now; outside of a runtime, until its last task was polled.
pub fn ran_us() -> u64 {
    SimInstant::try_now().map_or(LAST_US.get(), |now| now.elapsed_since_start().as_micros() as u64)
}

/// The same in milliseconds.
pub fn ran_ms() -> u64 {
    ran_us() / 1000
}

/// Splitmix64 over the seed: whether a task waits must not take from the numbers that the product draws.
fn below(bound: u64) -> u64 {
    let state = CHANCE.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    CHANCE.set(state);
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) % bound
}
