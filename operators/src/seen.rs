//! `seen`: lets every image URL through once.
//!
//! Exchanged by URL, so each worker remembers its own share: 16 bytes of key per URL. Promise: an image that was ever let
//! through, in this run or an earlier one of the same state, is not let through again.

use std::collections::HashSet;

use faceflow_core::Flow;
use faceflow_core::record::{Image, Key};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

/// Drops what was seen before.
pub trait Seen<'s> {
    /// Lets through images whose key is not in `known` (this worker's share) and was not let through before.
    fn seen(self, known: HashSet<Key>) -> Flow<'s, Image>;
}

impl<'s> Seen<'s> for Flow<'s, Image> {
    fn seen(self, mut known: HashSet<Key>) -> Flow<'s, Image> {
        let by_url = Exchange::new(|image: &Image| image.key().route());
        self.unary(by_url, "seen", move |_, _| {
            move |input, output| {
                input.for_each_time(|time, data| {
                    let fresh = data.flat_map(|batch| batch.drain(..)).filter(|image| known.insert(image.key()));
                    output.session(&time).give_iterator(fresh);
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident memory of this process, in bytes.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("is readable");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("has the line");
        1_024 * line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("has a number")
    }

    #[test]
    #[ignore = "measures: cargo test --release -p faceflow-operators measure -- --ignored --nocapture"]
    #[allow(clippy::disallowed_methods, reason = "a measurement is about the machine's own time")]
    fn measure_ten_million_known_urls() {
        const KNOWN: u128 = 10_000_000;
        let key = |n: u128| Key(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let before = resident();
        let mut known: HashSet<Key> = (0..KNOWN).map(key).collect();
        println!("{} bytes a URL", (resident() - before) / KNOWN as u64);
        let began = std::time::Instant::now();
        let fresh = (KNOWN / 2..KNOWN + KNOWN / 2).filter(|n| known.insert(key(*n))).count();
        println!("{:.0} URLs a second, half of them known", KNOWN as f64 / began.elapsed().as_secs_f64());
        assert_eq!(fresh as u128, KNOWN / 2);
    }
}
