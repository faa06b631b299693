//! The window of work that is in flight, and how much of it each tenant may have.
//!
//! A tenant alone may have all of it. Where there are several, each may have a multiple of what is free: the dynamic threshold of
//! shared-memory switches (Choudhury and Hahne, 1998), which leaves something free for whoever comes next. And each may have a
//! little even where nothing is free, so that a tenant whose work hangs in all of the window holds up no other. Promise: the
//! window is exceeded by an eighth at most.

use std::collections::HashMap;

use faceflow_core::record::TenantNumber;

/// A tenant among others may have so many times what is free.
const MULTIPLE: usize = 8;
/// It may have this part of the window in any case.
const GUARANTEED: usize = 64;
/// By this part the window may be exceeded for that.
const BEYOND: usize = 8;

/// What is in flight, by tenant.
#[derive(Default)]
pub(super) struct Window {
    /// How much may be in flight.
    pub max: usize,
    total: usize,
    tenants: HashMap<TenantNumber, Share>,
}

#[derive(Default)]
struct Share {
    /// Jobs that are served.
    jobs: usize,
    in_flight: usize,
}

impl Window {
    /// What is in flight.
    pub fn in_flight(&self) -> usize {
        self.total
    }

    /// A job of this tenant is served (`true`), or is not any more.
    pub fn serve(&mut self, tenant: TenantNumber, serve: bool) {
        let share = self.tenants.entry(tenant).or_default();
        share.jobs = if serve { share.jobs + 1 } else { share.jobs - 1 };
        self.forget(tenant);
    }

    /// Whether a job of this tenant is served.
    pub fn serves(&self, tenant: TenantNumber) -> bool {
        self.tenants.get(&tenant).is_some_and(|share| share.jobs > 0)
    }

    /// Something of a tenant is in flight from here on.
    pub fn enter(&mut self, tenant: TenantNumber, count: usize) {
        // Whoever has nothing there has no share either: its last job may have been removed meanwhile.
        if count == 0 {
            return;
        }
        self.total += count;
        self.tenants.entry(tenant).or_default().in_flight += count;
    }

    /// Something of a tenant has come to an end.
    pub fn leave(&mut self, tenant: TenantNumber) {
        self.total -= 1;
        self.tenants.get_mut(&tenant).expect("what is in flight is a tenant's").in_flight -= 1;
        self.forget(tenant);
    }

    fn forget(&mut self, tenant: TenantNumber) {
        if self.tenants.get(&tenant).is_some_and(|share| share.jobs + share.in_flight == 0) {
            self.tenants.remove(&tenant);
        }
    }

    /// How much more of a tenant may be in flight when so much is on its way there already: of all, and of this tenant.
    pub fn room(&self, tenant: TenantNumber, (all, own): (usize, usize)) -> usize {
        let total = self.total + all;
        let free = self.max.saturating_sub(total);
        if self.tenants.len() <= 1 {
            return free;
        }
        let held = self.tenants.get(&tenant).map_or(0, |share| share.in_flight) + own;
        let threshold = (free * MULTIPLE).saturating_sub(held).min(free);
        let guaranteed = (self.max / GUARANTEED).max(1).saturating_sub(held);
        let beyond = self.max + (self.max / BEYOND).max(1);
        threshold.max(guaranteed.min(beyond.saturating_sub(total)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TenantNumber = TenantNumber(1);
    const B: TenantNumber = TenantNumber(2);

    fn fill(window: &mut Window, tenant: TenantNumber) -> usize {
        let before = window.in_flight();
        while window.room(tenant, (0, 0)) > 0 {
            window.enter(tenant, 1);
        }
        window.in_flight() - before
    }

    #[test]
    fn a_tenant_alone_has_all_of_it() {
        let mut window = Window { max: 800, ..Window::default() };
        window.serve(A, true);
        assert_eq!(fill(&mut window, A), 800);
        assert_eq!(window.room(A, (0, 0)), 0);
    }

    #[test]
    fn a_tenant_among_others_leaves_something_free() {
        let mut window = Window { max: 900, ..Window::default() };
        window.serve(A, true);
        window.serve(B, true);
        assert_eq!(fill(&mut window, A), 800, "eight times what is free");
        assert_eq!(window.room(B, (0, 0)), 100);
        assert_eq!(window.room(B, (90, 90)), 0, "what was asked for counts");
        let of_b = fill(&mut window, B);
        assert!((80..100).contains(&of_b), "{of_b}");
        // As work comes to its end and both take turns, the one that has less catches up.
        for _ in 0..2_000 {
            let greater = if window.tenants[&A].in_flight > window.tenants[&B].in_flight { A } else { B };
            window.leave(greater);
            [A, B].into_iter().filter(|it| window.room(*it, (0, 0)) > 0).collect::<Vec<_>>().into_iter().for_each(
                |it| {
                    window.enter(it, 1);
                },
            );
        }
        let [of_a, of_b] = [A, B].map(|tenant| window.tenants[&tenant].in_flight);
        assert!(of_a.abs_diff(of_b) <= 2, "{of_a} and {of_b}");
    }

    #[test]
    fn who_comes_when_it_is_full_has_a_little_all_the_same_and_it_is_hardly_exceeded() {
        let mut window = Window { max: 640, ..Window::default() };
        window.serve(A, true);
        assert_eq!(fill(&mut window, A), 640);
        for n in 2..100 {
            window.serve(TenantNumber(n), true);
            let count = fill(&mut window, TenantNumber(n));
            assert!(count == 10 || window.in_flight() == 720, "{n}: {count}");
        }
        assert_eq!(window.in_flight(), 720);
        let mut tiny = Window { max: 1, ..Window::default() };
        [A, B].into_iter().for_each(|tenant| tiny.serve(tenant, true));
        assert_eq!((fill(&mut tiny, A), fill(&mut tiny, B), fill(&mut tiny, A)), (1, 1, 0));
    }

    #[test]
    fn who_has_nothing_is_no_other() {
        let mut window = Window { max: 8, ..Window::default() };
        [A, B].into_iter().for_each(|tenant| window.serve(tenant, true));
        window.enter(B, 1);
        window.serve(B, false);
        assert!(!window.serves(B) && window.serves(A));
        assert_eq!(fill(&mut window, A), 7, "something of the other is in flight");
        window.leave(B);
        assert_eq!((fill(&mut window, A), window.tenants.len()), (1, 1));
    }
}
