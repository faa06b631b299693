//! Keys that were called something else before: an old one is refused with the name that it has now, so that no setting is
//! silently without effect.

/// Old keys, with the new ones.
const RENAMED: [(&str, &str); 8] = [
    ("cluster.beat_ms", "cluster.heartbeat_ms"),
    ("crawl.ahead_max", "crawl.in_flight_max"),
    ("crawl.ahead_per_host", "crawl.in_flight_per_host"),
    ("fetch.listing_max_bytes", "fetch.feed_max_bytes"),
    ("mine.listing_entries_max", "mine.feed_entries_max"),
    ("mine.listing_images_max", "mine.feed_images_max"),
    ("store.sweep_after_ms", "store.partial_files_keep_ms"),
    ("store.sweep_every_ms", "store.partial_files_check_every_ms"),
];

/// What a key is called now, if it was called this before.
pub(crate) fn new_name(key: &str) -> Option<&'static str> {
    RENAMED.iter().find(|(old, _)| *old == key).map(|(_, new)| *new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::leaves_of;

    #[test]
    fn what_is_named_is_a_key_and_what_it_was_called_is_none() {
        let keys = leaves_of(&crate::Settings::default());
        for (old, new) in RENAMED {
            assert!(keys.contains_key(new), "{new} is a key");
            assert!(!keys.contains_key(old), "{old} is one no more");
        }
    }
}
