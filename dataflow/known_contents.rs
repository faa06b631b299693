//! The pictures that the ledger knew when the process started, divided among its workers.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use faceflow_core::ledger::{KnownPicture, Ledger, LedgerError};
use faceflow_core::record::ContentId;

/// Which part of a cluster's workers is in this process.
#[derive(Clone, Copy, Debug)]
pub struct WorkerShare {
    /// Which process, from 0.
    pub process: usize,
    /// Processes in all.
    pub processes: usize,
    /// Workers in each.
    pub workers: usize,
}

impl Default for WorkerShare {
    /// All workers are here, however many.
    fn default() -> Self {
        Self { process: 0, processes: 1, workers: 1 }
    }
}

impl WorkerShare {
    /// Whether what has this route belongs to a worker of this process.
    fn has(self, route: u64) -> bool {
        let worker = route % (self.processes * self.workers) as u64;
        worker / self.workers as u64 == self.process as u64
    }
}

/// The pictures that the ledger knew when the process started. Each worker takes its share.
#[derive(Default)]
pub struct KnownContents {
    contents: Mutex<Vec<ContentId>>,
    pictures: Mutex<Vec<KnownPicture>>,
}

impl KnownContents {
    /// What the workers of this process need to know of what `ledger` holds.
    pub fn load(ledger: &dyn Ledger, mine: WorkerShare) -> Result<Self, LedgerError> {
        let (mut contents, mut pictures) = (Vec::new(), Vec::new());
        ledger.known_pictures(&mut |picture| {
            contents.extend(Some(picture.content.id).filter(|id| mine.has(id.route())));
            // Near-duplicates are grouped on the first worker.
            pictures.extend(Some(picture).filter(|_| mine.process == 0));
        })?;
        Ok(Self { contents: Mutex::new(contents), pictures: Mutex::new(pictures) })
    }

    /// The known contents that route to worker `index` of `peers`.
    pub fn contents_of(&self, index: usize, peers: usize) -> HashSet<ContentId> {
        share(&self.contents, |id| id.route() % peers as u64 == index as u64)
    }

    /// The known pictures, on the worker that groups near-duplicates.
    pub fn pictures_of(&self, index: usize) -> Vec<KnownPicture> {
        share(&self.pictures, |_| index == 0)
    }
}

/// Takes what is a worker's out of what no other has taken.
fn share<T, C: FromIterator<T>>(left: &Mutex<Vec<T>>, mut mine: impl FnMut(&T) -> bool) -> C {
    let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
    let share = left.extract_if(.., |one| mine(one)).collect();
    left.shrink_to_fit();
    share
}
