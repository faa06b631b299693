//! Random facts, legal and illegal, in a small world: whatever is told, everything adds up, and what is refused leaves no trace.

use faceflow_core::record::QueueId;

use super::*;
use crate::Selection;

both![everything_adds_up_after_any_facts,];

/// SplitMix64, so that one printed seed reproduces a failure.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }

    fn path(&mut self, kind: &str, sides: usize) -> String {
        format!("/{kind}{}", self.roll(sides))
    }

    fn page(&mut self) -> Page {
        let path = self.path("p", 4);
        Page { attempts: self.roll(3) as u32, ..page(&path, self.roll(3) as u32) }
    }

    fn image(&mut self) -> Image {
        let path = self.path("i", 9);
        let alternates: Vec<String> = (0..self.roll(4)).map(|_| self.path("i", 9)).collect();
        image_with(&path, &alternates.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn picture(&mut self) -> String {
        self.path("c", 4)
    }

    fn work(&mut self) -> Work {
        match self.roll(5) {
            0 => Work::Page(self.page()),
            1 => Work::Frame(frame(&self.picture())),
            _ => Work::Image(self.image()),
        }
    }

    fn fact(&mut self) -> Fact {
        match self.roll(12) {
            0 => admitted(vec![self.page()]),
            1..=3 => {
                let (pages, images) = (self.roll(2), self.roll(4));
                let pages = (0..pages).map(|_| self.page()).collect();
                let images = (0..images).map(|_| self.image()).collect();
                read(self.page(), pages, images)
            }
            4 => retry(self.work(), 1 + self.roll(9) as u64),
            5 => rejected(self.work()),
            6 => dead(self.work()),
            7 | 8 => kept(self.image(), &self.picture()),
            9 | 10 => delivered(&self.picture(), self.roll(3)),
            _ => ruled(&self.picture(), &self.picture(), self.roll(5) as u32),
        }
    }
}

fn lane_of(work: &Work) -> QueueId {
    match work {
        Work::Page(page) => queue_at(&page.url),
        Work::Image(image) => queue_at(&image.url),
        Work::Frame(_) => pictures_queue(),
    }
}

fn everything(rig: &Rig) -> Vec<Value> {
    rig.pages().into_iter().chain(rig.images()).collect()
}

fn everything_adds_up_after_any_facts() {
    let (mut told, mut refused) = (0, 0);
    for seed in 0..25 {
        let (rig, mut dice) = (Rig::new(), Dice(seed));
        for step in 0..80 {
            let before = everything(&rig);
            if dice.roll(20) == 0 {
                let selection = Selection { dead: true, waiting: dice.roll(2) == 0, urls: vec![] };
                wait(rig.ledger().redrive(selection)).expect("drives");
                rig.check_rows();
                continue;
            }
            let fact = dice.fact();
            match rig.try_tell(fact.clone()) {
                Ok(opened) => {
                    let owed = owed(rig.ledger());
                    let is_owed = |opened: &QueueUpdate| {
                        owed.iter().any(|(due, work)| (*due, lane_of(work)) == (opened.due, opened.queue))
                    };
                    assert!(opened.iter().all(is_owed), "seed {seed} step {step}: {opened:?} of {owed:?}");
                    told += 1;
                }
                Err(LedgerError::Illegal { .. }) => {
                    assert_eq!(everything(&rig), before, "seed {seed} step {step}: {fact:?}");
                    refused += 1;
                }
                Err(error) => panic!("seed {seed} step {step}: {error} after {fact:?}"),
            }
            rig.check_rows();
        }
        never_behind_a_failure(&rig, seed);
        rig.check();
    }
    assert!(told > 600 && refused > 200, "{told} told, {refused} refused: the dice no longer cover both");
}

/// No alternate waits behind an image that was rejected or is dead.
fn never_behind_a_failure(rig: &Rig, seed: u64) {
    let behind = rig.reader().read(|tx| {
        let sql = "SELECT count(*) FROM entries a JOIN entries e ON e.id = a.primary_entry
            WHERE a.state = 'alternate' AND e.state IN ('alternate', 'rejected', 'dead')";
        tx.one(sql, &[], |row| row.get::<i64>(0))
    });
    assert_eq!(behind, Ok(Some(0)), "seed {seed}");
}
