//! One life of the process: the outside of the pipeline as a seed scripts it, with a step at which it is killed.
//!
//! Every touch of the outside is a step before and a step after, and the world changes only between the two. From the step of
//! the kill on nothing is ever answered, so nothing changes any more: that is what SIGKILL leaves behind.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use faceflow::core::blocking::blocking;
use faceflow::core::detector::{Answer, Detection, Detector, EngineInfo, Inferred, PictureView, Shape, View};
use faceflow::core::executor::Executor;
use faceflow::core::record::{ContentId, queue_of};
use faceflow::core::sink::{Listed, Listing, Sink, Store};
use faceflow::core::{Class, Fault, Future, HostFaultKind, Time};
use faceflow::web::{Response, Want, Web};
use url::Url;

use crate::pool::{by_pixels, pool};
use crate::script::{HostMood, Mood, Place, World, host_of, lock};
use crate::support::markers;

/// How a life ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Death {
    /// The step at which it is killed; 0 for a natural end.
    pub step: u64,
    /// Whether it is not killed then, but its ledger fails from then on.
    pub ledger_fails: bool,
    /// The moment at which a life without end is killed.
    pub moment: Option<Time>,
}

/// A life of the process.
pub struct Life {
    pub world: Arc<World>,
    pub executor: Executor,
    death: Death,
    steps: AtomicU64,
    dead: AtomicBool,
    /// Hosts that have said until when they want to be left alone.
    told: Mutex<HashMap<String, Time>>,
    /// Everything that happened, in order.
    history: Mutex<DefaultHasher>,
    began: Time,
    /// Promises that were broken. (A job that panics is a fault like any other, so an assertion there would be lost.)
    wrong: Mutex<Vec<String>>,
}

impl Life {
    /// A life in `world` that begins now.
    pub fn new(world: Arc<World>, executor: &Executor, death: Death) -> Self {
        Self {
            world,
            executor: executor.clone(),
            death,
            steps: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            told: Mutex::default(),
            history: Mutex::default(),
            began: executor.clock.now(),
            wrong: Mutex::default(),
        }
    }

    /// Notes a promise that was broken.
    pub fn object(&self, what: String) {
        lock(&self.wrong).push(what);
    }

    /// When it began.
    pub fn began(&self) -> Time {
        self.began
    }

    /// Every promise that was broken.
    pub fn wrong(&self) -> Vec<String> {
        lock(&self.wrong).clone()
    }

    /// How many steps it took, whether it was killed, and a digest of its history.
    pub fn end(&self) -> (u64, bool, u64) {
        (self.steps.load(Relaxed), self.dead.load(Relaxed), lock(&self.history).finish())
    }

    /// A moment at which the process may die. It never comes back from it then.
    pub async fn step(&self, what: &str) {
        (what, self.executor.clock.now()).hash(&mut *lock(&self.history));
        if self.steps.fetch_add(1, Relaxed) + 1 == self.death.step && !self.death.ledger_fails {
            self.die();
        }
        if self.dead.load(Relaxed) {
            std::future::pending().await
        }
    }

    /// From here on nothing is answered any more.
    pub fn die(&self) {
        self.dead.store(true, Relaxed);
        self.executor.shutdown.stop();
        self.executor.wake_driver();
    }

    pub fn ledger_is_down(&self) -> bool {
        self.death.ledger_fails && self.steps.load(Relaxed) >= self.death.step
    }

    pub async fn pause(&self, what: &str, times: usize) {
        tokio::time::sleep(Duration::from_millis(self.world.latency_ms(what, times))).await;
    }

    /// What the host of a URL does with a request now, if it fails as a whole; `None` if it answers. Of one that wants to be left
    /// alone the process remembers that: it is the gate that refuses.
    fn ask_host(&self, url: &str) -> Option<Fault> {
        let (now, host, queue) = (self.executor.clock.now(), host_of(url), queue_of(&Url::parse(url).expect("a URL")));
        let rests = || Fault::transient(Class::Busy, "http_429", "scripted");
        if let Some(until) = lock(&self.told).get(host).filter(|until| now < **until) {
            return Some(rests().after(until - now).of_host(queue, HostFaultKind::Resting));
        }
        if let Some((until, written)) = lock(&self.world.rests).get(host)
            && (written + 1..*until).contains(&now)
        {
            self.object(format!(
                "{url} was asked for at {now}, and at {written} it was known that {host} rests to {until}"
            ));
        }
        match self.world.host(url) {
            HostMood::Gone => {}
            HostMood::Down(until) if now < until => {}
            HostMood::Rests(until) if now < until => {
                lock(&self.told).insert(host.to_owned(), until);
                return Some(rests().after(until - now).of_host(queue, HostFaultKind::Busy));
            }
            _ => return None,
        }
        Some(Fault::transient(Class::Connect, "connect", "scripted").of_host(queue, HostFaultKind::Unreachable))
    }

    /// Asks for a URL whose host fails.
    fn ask_in_vain(&self, url: &str, was_asked: bool) -> usize {
        lock(&self.world.dues).remove(url);
        let mut asked = lock(&self.world.asked_in_vain);
        let asked = asked.entry(url.to_owned()).or_default();
        *asked += usize::from(was_asked);
        *asked
    }

    /// Asks for a URL; whether that try fails.
    fn ask(&self, url: &str) -> (usize, bool) {
        let now = self.executor.clock.now();
        if let Some(due) = lock(&self.world.dues).remove(url)
            && now != due.max(self.began)
            // While a host fails, others wait for the one that finds out how it is.
            && (self.world.host(url) == HostMood::Well || now < due)
        {
            self.object(format!("{url} was due at {due} and asked for at {now}"));
        }
        let mut asked = lock(&self.world.asked);
        let asked = asked.entry(url.to_owned()).or_default();
        let failures = asked.iter().filter(|(_, failed)| *failed).count() as u32;
        let fails = self.world.web(url).fails(failures);
        asked.push((now, fails));
        (asked.len(), fails)
    }

    /// Whether a store operation fails this time.
    fn store_fails(&self, operation: &str) -> Result<(), Fault> {
        let mut failures = lock(&self.world.store_failures);
        let failures = failures.entry(operation.to_owned()).or_default();
        if !self.world.store(operation).fails(*failures) {
            return Ok(());
        }
        *failures += 1;
        Err(Fault::transient(Class::Store, "store", "scripted"))
    }
}

/// The web of the world.
pub struct ScriptedWeb(pub Arc<Life>);

impl Web for ScriptedWeb {
    fn get(&self, url: &Url, _: Want) -> Future<Result<Response, Fault>> {
        let (life, url) = (Arc::clone(&self.0), url.clone());
        Box::pin(async move {
            life.step(&format!("ask {url}")).await;
            if let Some(fault) = life.ask_host(url.as_str()) {
                let was_asked = fault.host.is_none_or(|host| host.kind != HostFaultKind::Resting);
                let times = life.ask_in_vain(url.as_str(), was_asked);
                life.pause(url.as_str(), times).await;
                life.step(&format!("no answer {url}")).await;
                return Err(fault);
            }
            let (times, fails) = life.ask(url.as_str());
            life.pause(url.as_str(), times).await;
            life.step(&format!("answer {url}")).await;
            if fails && life.world.web(url.as_str()) == Mood::Missing {
                return Err(Fault::permanent(Class::Refused, "http_404", "scripted"));
            }
            if fails {
                return Err(Fault::transient(Class::Busy, "http_503", "scripted"));
            }
            let (kind, body) = match life.world.places.get(url.as_str()) {
                Some(Place::Page(page)) => ("text/html", Bytes::from(life.world.html(page))),
                Some(Place::Picture(picture)) => ("image/jpeg", pool()[*picture].bytes.clone()),
                None => return Err(Fault::permanent(Class::Refused, "http_404", "not there")),
            };
            let headers = vec![("content-type".to_owned(), kind.to_owned())];
            Ok(Response { final_url: url, status: 200, headers, body })
        })
    }
}

/// The object store of the world.
pub struct ScriptedStore(pub Arc<Life>);

impl Store for ScriptedStore {
    fn put(&self, key: String, body: Bytes) -> Future<Result<(), Fault>> {
        let life = Arc::clone(&self.0);
        Box::pin(async move {
            let what = format!("put {key}");
            life.step(&what).await;
            life.pause(&what, 0).await;
            life.store_fails(&what)?;
            let before = lock(&life.world.objects).insert(key, body.clone());
            assert!(before.is_none_or(|before| before == body), "{what}: a key is never written with other bytes");
            life.step(&what).await;
            Ok(())
        })
    }

    fn get(&self, key: String) -> Future<Result<Bytes, Fault>> {
        let life = Arc::clone(&self.0);
        Box::pin(async move {
            let what = format!("get {key}");
            life.step(&what).await;
            life.pause(&what, 0).await;
            life.store_fails(&what)?;
            let body = lock(&life.world.objects).get(&key).cloned();
            body.ok_or_else(|| Fault::transient(Class::Store, "store_missing", key))
        })
    }

    fn list(&self, folder: String) -> Listing {
        let folder = if folder.is_empty() { folder } else { folder + "/" };
        let objects = lock(&self.0.world.objects);
        let listed = objects.iter().filter(|(key, _)| key.starts_with(&folder));
        let listed = listed.map(|(key, body)| Ok(Listed { key: key.clone(), bytes: body.len() as u64 }));
        Box::pin(futures::stream::iter(listed.collect::<Vec<_>>()))
    }

    fn delete(&self, key: String) -> Future<Result<(), Fault>> {
        let life = Arc::clone(&self.0);
        Box::pin(async move {
            let what = format!("delete {key}");
            life.step(&what).await;
            life.store_fails(&what)?;
            lock(&life.world.objects).remove(&key);
            life.step(&what).await;
            Ok(())
        })
    }
}

/// The engine of the world: it sees markers.
pub struct ScriptedEngine(pub Arc<Life>);

impl Detector for ScriptedEngine {
    fn info(&self) -> EngineInfo {
        EngineInfo { engine: "scripted".into(), model: "none".into(), model_sha256: String::new() }
    }

    fn plan(&self, width: u32, height: u32) -> Vec<View> {
        let shape = Shape { width: width.next_multiple_of(48), height: height.next_multiple_of(48) };
        vec![View::full((width, height), shape, 1.0)]
    }

    fn batch_max(&self) -> usize {
        3
    }

    fn infer(self: Arc<Self>, views: Vec<PictureView>) -> Future<Inferred> {
        Box::pin(blocking(move || self.look(&views)))
    }
}

impl ScriptedEngine {
    fn look(&self, views: &[PictureView]) -> Inferred {
        let life = &self.0;
        let names: Vec<usize> = views.iter().map(|view| by_pixels(&view.picture.rgb)).collect();
        let mut failures = lock(&life.world.engine_failures);
        for name in &names {
            (name, life.executor.clock.now()).hash(&mut *lock(&life.history));
            let failures = failures.entry(*name).or_default();
            if life.world.engine(*name).fails(*failures) {
                // It counts as a try of this picture only when no other may be to blame.
                *failures += u32::from(views.len() == 1);
                return Err(Fault::transient(Class::Engine, "engine_error", "scripted"));
            }
        }
        let mut answer = |(view, name): (&PictureView, &usize)| {
            let looks = failures.entry(*name).or_default();
            if matches!(life.world.engine(*name), Mood::Degraded(times) if *looks < times) {
                // It sees nothing, and says that it could not look as it should.
                *looks += 1;
                return Ok(Answer { scale: 0.5, degraded: true, ..Answer::full(self.info(), vec![]) });
            }
            Ok(Answer { engine: self.info(), ..markers(&view.picture) })
        };
        Ok(views.iter().zip(&names).map(&mut answer).collect())
    }
}

/// A sink of the world, which keeps what was written once it is flushed.
pub struct ScriptedSink {
    pub life: Arc<Life>,
    pub written: Vec<ContentId>,
}

impl Sink for ScriptedSink {
    fn write(&mut self, _: Time, batch: &[Detection]) -> Result<(), Fault> {
        self.written.extend(batch.iter().map(Detection::picture));
        Ok(())
    }

    fn flush(&mut self, _: Time) -> Result<(), Fault> {
        if !self.life.dead.load(Relaxed) {
            lock(&self.life.world.told).extend(self.written.drain(..).map(|id| id.to_string()));
        }
        Ok(())
    }
}
