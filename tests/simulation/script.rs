//! A scripted world for one seed: sites, pictures, an engine and an object store that fail as the seed says.
//!
//! What a thing does depends on the seed and its name alone, and how a failure counts does not depend on who was killed when:
//! every failure that ends is shorter than the retries last. Promise: the end of an undisturbed run is the end of every run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, OnceLock};

use bytes::Bytes;
use faceflow::core::Time;
use url::Url;

use crate::world::{MARKER, jpeg, mark, picture, png, shrink};

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
    /// It fails for ever.
    Violation,
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
            Self::Violation => true,
        }
    }
}

/// What an address leads to.
#[derive(Clone, Debug)]
pub enum Place {
    /// A page.
    Page(String),
    /// A picture, or bytes that say they are one.
    Picture(Bytes),
}

/// The world of one seed, over all lives of the process in it.
pub struct World {
    pub seed: u64,
    pub starts: Vec<Url>,
    pub places: BTreeMap<String, Place>,
    /// When each address was asked for, and whether that try failed.
    pub asked: Mutex<BTreeMap<String, Vec<(Time, bool)>>>,
    /// Failures of the engine, by picture.
    pub engine_failures: Mutex<HashMap<u64, u32>>,
    /// The object store.
    pub objects: Mutex<BTreeMap<String, Bytes>>,
    /// Pictures whose detections a sink was told of.
    pub told: Mutex<BTreeSet<String>>,
    /// Failures of the object store, by operation and key.
    pub store_failures: Mutex<HashMap<String, u32>>,
    /// By address: when its retry is due. It is asked for then, exactly, or as soon as the ledger has it or a life begins.
    pub dues: Mutex<HashMap<String, u64>>,
}

/// Everyone who locks these maps is on one thread.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("not poisoned")
}

impl World {
    /// The world of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut world = Self {
            seed,
            starts: vec![],
            places: BTreeMap::new(),
            asked: Mutex::default(),
            engine_failures: Mutex::default(),
            objects: Mutex::default(),
            told: Mutex::default(),
            store_failures: Mutex::default(),
            dues: Mutex::default(),
        };
        for site in 0..1 + dice((seed, "sites")) % 3 {
            world.add_site(site);
        }
        world
    }

    fn add_site(&mut self, site: u64) {
        let (seed, base) = (self.seed, format!("http://s{site}.example"));
        self.starts.push(Url::parse(&format!("{base}/")).expect("a URL"));
        let (pages, images) = (1 + dice((seed, site, "pages")) % 7, 1 + dice((seed, site, "images")) % 9);
        for image in 0..images {
            let bytes = pool()[dice((seed, site, image)) as usize % pool().len()].clone();
            self.places.insert(format!("{base}/i{image}"), Place::Picture(bytes));
        }
        for page in 0..pages {
            let path = if page == 0 { String::new() } else { format!("p{page}") };
            let mut html = String::new();
            for link in 0..dice((seed, site, page, "links")) % 5 {
                html += &format!("<a href=/p{}>", dice((seed, site, page, link)) % pages.max(2));
            }
            for shown in 0..dice((seed, site, page, "shown")) % 5 {
                // Some images are on another site, some are not there at all, some have a smaller version.
                let dice = dice((seed, site, page, shown, "image"));
                let (at, image) = (dice >> 8 & 1, dice >> 16 & 7);
                let host = if at == 0 { base.clone() } else { "http://s0.example".to_owned() };
                html += &match dice % 4 {
                    0 => format!("<img src=/a srcset='{host}/i{image} 2x, {host}/i{} 1x'>", image ^ 1),
                    _ => format!("<img src={host}/i{image}>"),
                };
            }
            self.places.insert(format!("{base}/{path}"), Place::Page(html));
        }
    }

    /// How an address behaves.
    pub fn web(&self, url: &str) -> Mood {
        Mood::of((self.seed, "web", url), 6)
    }

    /// How the engine behaves with a picture.
    pub fn engine(&self, picture: u64) -> Mood {
        Mood::of((self.seed, "engine", picture), 6)
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
}

/// Pictures that sites choose from: some are copies, some near-duplicates, one says nothing, one is no picture.
fn pool() -> &'static [Bytes] {
    static POOL: OnceLock<Vec<Bytes>> = OnceLock::new();
    POOL.get_or_init(|| {
        let mut pool = Vec::new();
        for seed in 0..5 {
            let mut whole = picture(seed, 96, 72);
            mark(&mut whole, [10, 10, 30, 28]);
            pool.push(jpeg(&whole, 92));
            pool.push(jpeg(&whole, 70));
            pool.push(png(&shrink(&whole, 72, 54)));
        }
        pool.push(png(&image::RgbImage::from_pixel(64, 64, image::Rgb(MARKER))));
        pool.push(b"no picture".to_vec());
        pool.into_iter().map(Bytes::from).collect()
    })
}
