//! A scripted world for one seed: sites, pictures, an engine and an object store that fail as the seed says.
//!
//! What a thing does depends on the seed and its name alone, and how a failure counts does not depend on who was killed when:
//! every failure that ends is shorter than the retries last. Promise: the end of an undisturbed run is the end of every run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use faceflow::core::Time;
use faceflow::core::testing::EPOCH;
use url::Url;

use crate::plan::Plan;
use crate::pool::{POOL, pool};

/// A number that depends on these things alone.
pub fn dice(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// How something behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It fails so many times first.
    Fails(u32),
    /// It fails for ever: an address by being busy, an engine by an error.
    Violation,
    /// An address says for ever that there is nothing.
    Missing,
    /// An engine gives weaker answers so many times first.
    Degraded(u32),
}

impl Mood {
    /// The mood of a thing: most work, some fail once or twice, and `broken` of a hundred fail for ever.
    fn of(thing: impl Hash, broken: u64) -> Self {
        match dice(thing) % 100 {
            n if n < broken => Self::Violation,
            n if n < broken + 12 => Self::Fails(1),
            n if n < broken + 18 => Self::Fails(2),
            _ => Self::Fails(0),
        }
    }

    /// Whether the next try fails after `failures` of them.
    pub fn fails(self, failures: u32) -> bool {
        match self {
            Self::Fails(times) => failures < times,
            Self::Violation | Self::Missing => true,
            Self::Degraded(_) => false,
        }
    }
}

/// How a host behaves as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostMood {
    /// As its addresses do.
    Well,
    /// It takes no connections before this time.
    Down(Time),
    /// It takes no connections.
    Gone,
    /// It wants to be left alone until this time, and says so.
    Rests(Time),
}

/// What a page says.
#[derive(Clone, Debug, Default)]
pub struct PageTruth {
    /// Where its links lead.
    pub links: Vec<String>,
    /// Its images, each with its candidates, the best first.
    pub shown: Vec<Vec<String>>,
    /// An image that it shows once the world has grown.
    pub later: Option<String>,
}

/// What an address leads to.
#[derive(Clone, Debug)]
pub enum Place {
    Page(PageTruth),
    /// A picture of the pool, or bytes that say they are one.
    Picture(usize),
}

/// The world of one seed, over all lives of the process in it.
pub struct World {
    pub seed: u64,
    pub plan: Plan,
    pub starts: Vec<Url>,
    pub places: BTreeMap<String, Place>,
    /// The page or image of which the database refuses that it is settled.
    pub refused: Option<String>,
    /// Whether pages show more than they did at first.
    pub grown: AtomicBool,
    /// Whether what was broken has been mended.
    pub mended: AtomicBool,
    /// Other candidates of images that came to their turn before it was mended.
    pub tried: Mutex<BTreeSet<String>>,
    /// When each address was asked for, and whether that try failed.
    pub asked: Mutex<BTreeMap<String, Vec<(Time, bool)>>>,
    /// How often each address was asked for while its host failed.
    pub asked_in_vain: Mutex<HashMap<String, usize>>,
    /// Failures and weaker answers of the engine, by picture of the pool.
    pub engine_failures: Mutex<HashMap<usize, u32>>,
    /// The object store.
    pub objects: Mutex<BTreeMap<String, Bytes>>,
    /// Pictures whose detections a sink was told of.
    pub told: Mutex<BTreeSet<String>>,
    /// Failures of the object store, by operation and key.
    pub store_failures: Mutex<HashMap<String, u32>>,
    /// By address: when its retry, or the next look at it, is due. It is asked for then, exactly, or as soon as the ledger has it or
    /// a life begins.
    pub dues: Mutex<HashMap<String, Time>>,
    /// By host: that it is to be left alone until a time, and when that was written.
    pub rests: Mutex<HashMap<String, (Time, Time)>>,
    /// By page that was read: whether the world had grown by then, and after how long it is looked at again.
    pub intervals: Mutex<HashMap<String, (bool, u64)>>,
}

/// The host of an address.
pub fn host_of(url: &str) -> &str {
    url.split('/').nth(2).unwrap_or_default()
}

/// Everyone who locks these maps has this moment for himself.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("not poisoned")
}

impl World {
    /// The world of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut world = Self {
            seed,
            plan: Plan::of(seed),
            starts: vec![],
            places: BTreeMap::new(),
            refused: None,
            grown: AtomicBool::new(false),
            mended: AtomicBool::new(false),
            tried: Mutex::default(),
            asked: Mutex::default(),
            asked_in_vain: Mutex::default(),
            engine_failures: Mutex::default(),
            objects: Mutex::default(),
            told: Mutex::default(),
            store_failures: Mutex::default(),
            dues: Mutex::default(),
            rests: Mutex::default(),
            intervals: Mutex::default(),
        };
        for site in 0..1 + dice((seed, "sites")) % 3 {
            world.add_site(site);
        }
        let place = dice((seed, "refused")) as usize % world.places.len();
        world.refused = world.places.keys().nth(place).filter(|_| world.plan.refused).cloned();
        world
    }

    /// Whether the database refuses that this is settled.
    pub fn refuses(&self, url: &str) -> bool {
        !self.is_mended() && self.refused.as_deref() == Some(url)
    }

    fn is_mended(&self) -> bool {
        self.mended.load(Relaxed)
    }

    fn add_site(&mut self, site: u64) {
        let (seed, base) = (self.seed, format!("http://s{site}.example"));
        self.starts.push(Url::parse(&format!("{base}/")).expect("a URL"));
        let (pages, images) = (1 + dice((seed, site, "pages")) % 7, 1 + dice((seed, site, "images")) % 9);
        for image in 0..images {
            let picture = dice((seed, site, image)) as usize % POOL;
            self.places.insert(format!("{base}/i{image}"), Place::Picture(picture));
        }
        for page in 0..pages {
            let path = if page == 0 { String::new() } else { format!("p{page}") };
            let mut truth = PageTruth::default();
            for link in 0..dice((seed, site, page, "links")) % 5 {
                // One of them may lead nowhere.
                truth.links.push(format!("{base}/p{}", dice((seed, site, page, link)) % pages.max(2)));
            }
            for shown in 0..dice((seed, site, page, "shown")) % 5 {
                // Some images are on another site, some are not there at all, some have smaller versions.
                let dice = dice((seed, site, page, shown, "image"));
                let (at, image) = (dice >> 8 & 1, dice >> 16 & 7);
                let host = if at == 0 { base.clone() } else { "http://s0.example".to_owned() };
                let candidates = [1, 1, 2, 3][dice as usize % 4];
                let candidates = (0..candidates).map(|n| format!("{host}/i{}", image ^ n)).collect::<Vec<_>>();
                // A page that shows an image twice shows it once.
                if truth.shown.iter().all(|others| others[0] != candidates[0]) {
                    truth.shown.push(candidates);
                }
            }
            // What a link to the page itself means, the miner decides, and has tests for.
            truth.links.retain(|link| *link != format!("{base}/{path}"));
            unique(&mut truth.links);
            if self.plan.recrawl && dice((seed, site, page, "grows")).is_multiple_of(2) {
                let later = format!("{base}/later{page}");
                self.places.insert(later.clone(), Place::Picture(dice((seed, &later)) as usize % POOL));
                truth.later = Some(later);
            }
            self.places.insert(format!("{base}/{path}"), Place::Page(truth));
        }
    }

    /// What a page says now.
    pub fn html(&self, page: &PageTruth) -> String {
        let mut html: String = page.links.iter().map(|link| format!("<a href={link}>")).collect();
        for candidates in &page.shown {
            html += &match &candidates[..] {
                [only] => format!("<img src={only}>"),
                several => {
                    let sizes = several.iter().enumerate().map(|(n, url)| format!("{url} {}x", several.len() - n));
                    format!("<img srcset='{}'>", sizes.collect::<Vec<_>>().join(", "))
                }
            };
        }
        html + &page.later.iter().filter(|_| self.is_grown()).map(|url| format!("<img src={url}>")).collect::<String>()
    }

    pub fn is_grown(&self) -> bool {
        self.grown.load(Relaxed)
    }

    /// How the host of an address behaves now.
    pub fn host(&self, url: &str) -> HostMood {
        let host = host_of(url);
        match dice((self.seed, "host", host)) % 10 {
            _ if !self.plan.outages => HostMood::Well,
            // Shorter than a host is patient.
            0..=2 => HostMood::Down(EPOCH + 1_000 + dice((self.seed, "down", host)) % 19_000),
            3 if self.mended.load(Relaxed) => HostMood::Well,
            3 => HostMood::Gone,
            4..=6 => HostMood::Rests(EPOCH + 1_000 + dice((self.seed, "rests", host)) % 200_000),
            _ => HostMood::Well,
        }
    }

    /// How an address behaves.
    pub fn web(&self, url: &str) -> Mood {
        let mood = Mood::of((self.seed, "web", url), 6);
        match mood {
            Mood::Violation if dice((self.seed, url)).is_multiple_of(2) => Mood::Missing,
            Mood::Violation if self.mended.load(Relaxed) => Mood::Fails(0),
            // Where a budget binds and pages fail for a while, what is cut depends on when they recover.
            Mood::Fails(_) if self.plan.budget.is_some() && matches!(self.places.get(url), Some(Place::Page(_))) => {
                Mood::Fails(0)
            }
            mood => mood,
        }
    }

    /// How the engine behaves with a picture of the pool.
    pub fn engine(&self, picture: usize) -> Mood {
        match Mood::of((self.seed, "engine", picture), 6) {
            Mood::Violation if self.mended.load(Relaxed) => Mood::Fails(0),
            Mood::Fails(0) => match dice((self.seed, "degraded", picture)) % 12 {
                0 => Mood::Degraded(1),
                1 => Mood::Degraded(u32::MAX),
                _ => Mood::Fails(0),
            },
            mood => mood,
        }
    }

    /// How the store behaves with a key. It always comes to its senses: its objects are shared by many.
    pub fn store(&self, operation: &str) -> Mood {
        if dice((self.seed, "store", operation)).is_multiple_of(12) { Mood::Fails(1) } else { Mood::Fails(0) }
    }

    /// How long something takes, in milliseconds of virtual time; now and then, long.
    pub fn latency_ms(&self, what: &str, times: usize) -> u64 {
        let dice = dice((self.seed, "latency", what, times));
        if dice.is_multiple_of(16) { 500 + (dice >> 8) % 4_000 } else { (dice >> 8) % 30 }
    }

    /// The bytes that an address leads to, if it is a picture.
    pub fn picture(&self, url: &str) -> Option<&'static Bytes> {
        match self.places.get(url) {
            Some(Place::Picture(picture)) => Some(&pool()[*picture].bytes),
            _ => None,
        }
    }
}

/// Without what was there before.
fn unique(links: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    links.retain(|link| seen.insert(link.clone()));
}
