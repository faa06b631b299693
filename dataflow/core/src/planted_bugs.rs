//! Bugs that a test plants, to see that the simulation finds them.
//!
//! Promise: without the feature `testing` they are not there; with it, none is planted but the one that [`VARIABLE`] names.

use crate::fact::Fact;
use crate::record::Disposition;

/// The variable that names the bug.
pub const VARIABLE: &str = "FACEFLOW_PLANT";

/// What one fact of a group brought is taken for what the next one brings.
pub const GROUP_LEAK: &str = "group_leak";
/// The last image of each page is dropped.
pub const LAST_IMAGE: &str = "last_image";
/// After a restart nothing that is settled is looked at again.
pub const AGAIN_LOST: &str = "again_lost";

/// Work is dispatched whatever is known of its host.
pub const HOSTS_IGNORED: &str = "hosts_ignored";

/// Every bug.
pub const BUGS: [&str; 4] = [GROUP_LEAK, LAST_IMAGE, AGAIN_LOST, HOSTS_IGNORED];

/// Whether this bug is planted.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub fn planted(_: &'static str) -> bool {
    false
}

/// Whether this bug is planted.
#[cfg(feature = "testing")]
pub fn planted(bug: &'static str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    debug_assert!(BUGS.contains(&bug), "{bug} is not listed");
    CHOSEN.get_or_init(|| std::env::var(VARIABLE).ok()).as_deref() == Some(bug)
}

/// What a group of facts becomes with [`GROUP_LEAK`]: the site of one discovery, and the fault of one failure, are taken over by
/// the next fact of that kind.
pub fn leak<'f>(group: impl Iterator<Item = &'f mut Fact>) {
    if !planted(GROUP_LEAK) {
        return;
    }
    let (mut site, mut last_fault) = (None, None);
    for fact in group {
        match fact {
            Fact::Discovered(found) => {
                let own = found.pages.iter().map(|page| &page.site).chain(found.images.iter().map(|image| &image.site));
                let own = own.last().cloned();
                if let Some(site) = site.as_ref() {
                    found.pages.iter_mut().for_each(|page| page.site.clone_from(site));
                    found.images.iter_mut().for_each(|image| image.site.clone_from(site));
                }
                site = own.or(site);
            }
            Fact::Failed(
                Disposition::Retry { fault, .. }
                | Disposition::Rejected { fault, .. }
                | Disposition::Dead { fault, .. }
                | Disposition::DegradedAccepted { fault, .. },
            ) => {
                if let Some(last) = last_fault.replace(fault.clone()) {
                    *fault = last;
                }
            }
            _ => {}
        }
    }
}
