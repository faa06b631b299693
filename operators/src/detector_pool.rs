//! The detector with its limits: how many batches are looked at at once, how long one may take, and what follows when it fails.
//!
//! A failing batch is halved until the view that fails it is alone. Promise: every view has its answer or its fault, and a
//! permit is free again only when the call that held it has really ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use faceflow_core::detector::{Answer, Detector, Inferred, PictureView, infer};
use faceflow_core::shutdown::Shutdown;
use faceflow_core::{Class, Fault, Future};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The engine as the operator uses it. Clones share it.
#[derive(Clone)]
pub struct DetectorPool {
    /// The engine.
    pub detector: Arc<dyn Detector>,
    /// Batches looked at at once in this process.
    pub permits: Arc<DetectorPermits>,
    /// How long one batch may take, in milliseconds.
    pub timeout_ms: u64,
    /// How long an incomplete batch waits for company, in milliseconds.
    pub linger_ms: u64,
    /// Is failed when the engine hangs.
    pub shutdown: Shutdown,
}

/// One answer for each view of a batch.
pub type Answers = Vec<Result<Answer, Fault>>;

impl DetectorPool {
    /// Looks at a batch, and at its halves when it fails as a whole, until a failing view is alone. Calls that outlive their
    /// deadline end on `runtime`.
    pub fn look(self, mut batch: Vec<PictureView>, runtime: Handle) -> Future<Answers> {
        Box::pin(async move {
            if batch.is_empty() {
                return vec![];
            }
            match self.attempt(batch.clone(), &runtime).await {
                Ok(answers) => answers,
                Err(fault) if batch.len() == 1 => vec![Err(fault)],
                Err(fault) => {
                    tracing::warn!(%fault, views = batch.len(), "a batch failed; looking at its halves");
                    let second = batch.split_off(batch.len() / 2);
                    let mut answers = self.clone().look(batch, runtime.clone()).await;
                    answers.extend(self.look(second, runtime).await);
                    answers
                }
            }
        })
    }

    /// One call of the engine, within its deadline.
    async fn attempt(&self, batch: Vec<PictureView>, runtime: &Handle) -> Inferred {
        let deadline = Duration::from_millis(self.timeout_ms);
        let Some(mut permit) = self.permits.take(deadline).await else {
            self.shutdown.fail(format!(
                "the engine hangs: each of its {} calls has been running for more than {} ms (detect.timeout_ms); run the \
                 same command again to go on",
                self.permits.count, self.timeout_ms
            ));
            return std::future::pending().await;
        };
        let count = batch.len();
        let mut call = Box::pin(infer(Arc::clone(&self.detector), batch));
        if let Ok(answers) = tokio::time::timeout(deadline, &mut call).await {
            return answers;
        }
        permit.set_overdue();
        runtime.spawn(async move {
            let late = call.await;
            drop(permit);
            tracing::warn!(views = count, failed = late.is_err(), "the engine has ended a call that was given up");
        });
        let detail = format!("no answer for {count} views within {} ms (detect.timeout_ms)", self.timeout_ms);
        Err(Fault::transient(Class::Timeout, "engine_timeout", detail))
    }
}

/// Calls of the engine that may run at once, and how many of them have outlived their deadline.
#[derive(Debug)]
pub struct DetectorPermits {
    free: Arc<Semaphore>,
    count: usize,
    overdue: AtomicUsize,
}

impl DetectorPermits {
    /// `count` permits, all free.
    pub fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), count, overdue: AtomicUsize::new(0) }
    }

    /// Waits for a permit. `None` if for all of `patience` every permit was held by a call past its deadline.
    async fn take(self: &Arc<Self>, patience: Duration) -> Option<DetectorPermit> {
        loop {
            match tokio::time::timeout(patience, Arc::clone(&self.free).acquire_owned()).await {
                Ok(permit) => {
                    let _permit = permit.expect("the semaphore is never closed");
                    return Some(DetectorPermit { _permit, overdue: false, of: Arc::clone(self) });
                }
                Err(_) if self.overdue.load(Relaxed) >= self.count => return None,
                Err(_) => {}
            }
        }
    }
}

/// One call of the engine, until it has really ended.
struct DetectorPermit {
    _permit: OwnedSemaphorePermit,
    overdue: bool,
    of: Arc<DetectorPermits>,
}

impl DetectorPermit {
    /// The call has outlived its deadline.
    fn set_overdue(&mut self) {
        self.overdue = true;
        self.of.overdue.fetch_add(1, Relaxed);
    }
}

impl Drop for DetectorPermit {
    fn drop(&mut self) {
        self.of.overdue.fetch_sub(usize::from(self.overdue), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    use faceflow_core::blocking::blocking;
    use faceflow_core::detector::{EngineInfo, PixelBuffer, View};

    use super::*;

    /// Answers only when the test is over.
    struct Stuck(Mutex<Receiver<()>>);

    impl Detector for Stuck {
        fn info(&self) -> EngineInfo {
            EngineInfo { engine: "stuck".into(), model: "none".into(), model_sha256: String::new() }
        }

        fn plan(&self, width: u32, height: u32) -> Vec<View> {
            vec![View::as_is(width, height)]
        }

        fn batch_max(&self) -> usize {
            1
        }

        fn infer(self: Arc<Self>, _: Vec<PictureView>) -> Future<Inferred> {
            Box::pin(blocking(move || {
                let gone = self.0.lock().expect("not poisoned").recv();
                Err(Fault::transient(Class::Engine, "late", format!("{gone:?}")))
            }))
        }
    }

    #[tokio::test]
    async fn an_engine_that_hangs_is_a_timeout_keeps_its_permit_and_fails_the_process_when_it_has_them_all() {
        let (over, wait) = channel();
        let (permits, shutdown) = (Arc::new(DetectorPermits::new(1)), Shutdown::default());
        let pool = DetectorPool {
            detector: Arc::new(Stuck(Mutex::new(wait))),
            permits: Arc::clone(&permits),
            timeout_ms: 30,
            linger_ms: 0,
            shutdown: shutdown.clone(),
        };
        let picture = PixelBuffer { width: 1, height: 1, rgb: vec![0; 3].into() };
        let batch = || vec![PictureView { picture: picture.clone(), view: View::as_is(1, 1) }];
        let answers = pool.clone().look(batch(), Handle::current()).await;
        let reasons: Vec<_> = answers.into_iter().map(|answer| answer.expect_err("no answer").reason).collect();
        assert_eq!((reasons, permits.free.available_permits()), (vec!["engine_timeout".to_owned()], 0));
        assert_eq!(shutdown.failure(), None, "one timeout is a loss to retry");

        let next = pool.look(batch(), Handle::current());
        assert!(tokio::time::timeout(Duration::from_millis(300), next).await.is_err(), "nothing is told a lie");
        assert!(shutdown.failure().is_some_and(|why| why.contains("the engine hangs")), "{:?}", shutdown.failure());
        drop(over);
        let back = permits.take(Duration::from_secs(60)).await;
        assert!(back.is_some(), "the engine returned and gave its permit back");
        assert_eq!(permits.overdue.load(Relaxed), 0);
    }
}
