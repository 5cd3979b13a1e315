//! What a receiver takes: so many requests, and so many numbers, in any window of time.
//!
//! Both are kept by the generic cell rate algorithm: a burst of `b`, then one more each
//! `t = window / (quota − b)`. A window of time, wherever it begins, sees the burst and what is added
//! within it: `b + ⌊window / t⌋ = b + (quota − b) = quota`, and never more, even if it is counted
//! with both its ends. So the burst is paid for by the steady rate, and both are wanted: with a
//! tenth of the quota as the burst, nine tenths flow evenly, and what falls to zero waits for `t`.
//! To send the whole quota at once and then rest would be as many, but a sell-out would wait for
//! the rest of a window.
//!
//! A request needs room for itself and for its first number, which may be there at different
//! times. The number's room is taken first and may be held, so that it counts for an earlier time
//! than it is sent at: one number less is given out then.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    NotUntil, Quota as Rate, RateLimiter,
    clock::{Clock, Reference},
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};

/// What a receiver takes in any window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests; none: any number.
    pub requests: Option<NonZeroU32>,
    /// Numbers; none: any number.
    pub items: Option<NonZeroU32>,
    /// The window.
    pub window: Duration,
}

type Limiter<C> = RateLimiter<NotKeyed, InMemoryState, C, StateInformationMiddleware>;

/// See the module.
#[derive(Debug)]
pub struct Quota<C: Clock> {
    clock: C,
    requests: Option<Limiter<C>>,
    items: Option<Limiter<C>>,
    /// Numbers of one request.
    items_max: usize,
    /// Room for the next request's first number is held.
    held: bool,
}

impl<C: Clock + Clone> Quota<C> {
    /// With all of it there.
    pub fn new(limits: &Limits, clock: &C) -> Self {
        let (requests, items, items_max) = match (limits.requests, limits.items) {
            // One number in a window is one request with one number.
            (_, Some(NonZeroU32::MIN)) => (Some(NonZeroU32::MIN), None, 1),
            // One number may be held.
            (Some(requests), Some(items)) => {
                let items = NonZeroU32::new(items.get() - 1);
                (Some(requests), items, usize::MAX)
            }
            (requests, items) => (requests, items, usize::MAX),
        };
        let limiter = |quota| {
            let rate = rate(quota, limits.window);
            RateLimiter::direct_with_clock(rate, clock.clone()).with_middleware()
        };
        Self {
            clock: clock.clone(),
            requests: requests.map(limiter),
            items: items.map(limiter),
            items_max,
            held: false,
        }
    }

    /// Takes room for a request with as many numbers as may be sent now: at least 1, and at most
    /// `wanted`.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub fn take(&mut self, wanted: usize) -> Result<usize, Duration> {
        let wait = |not: NotUntil<C::Instant>| {
            let until = not.earliest_possible();
            Duration::from(until.duration_since(self.clock.now()))
        };
        if let Some(items) = &self.items
            && !self.held
        {
            items.check().map_err(wait)?;
            self.held = true;
        }
        if let Some(requests) = &self.requests {
            requests.check().map_err(wait)?;
        }
        self.held = false;
        Ok(1 + self.more(wanted.min(self.items_max).saturating_sub(1)))
    }

    /// Takes room for more numbers, at most so many.
    fn more(&self, wanted: usize) -> usize {
        let Some(items) = self.items.as_ref().filter(|_| wanted > 0) else {
            return wanted;
        };
        // How many there is room for is told only when one is taken.
        let Ok(left) = items.check() else {
            return 0;
        };
        let left = left.remaining_burst_capacity() as usize;
        let rest = NonZeroU32::new(left.min(wanted - 1) as u32);
        let taken = rest.filter(|rest| matches!(items.check_n(*rest), Ok(Ok(_))));
        1 + taken.map_or(0, NonZeroU32::get) as usize
    }
}

/// A tenth at once, the rest evenly.
fn rate(quota: NonZeroU32, window: Duration) -> Rate {
    let burst = NonZeroU32::new(quota.get() / 10).unwrap_or(NonZeroU32::MIN);
    // The second of a quota of one comes when the window is over.
    let steady = (quota.get() - burst.get()).max(1);
    // Rounded up, so that not even a nanosecond lets one more in.
    let every = window / steady + Duration::from_nanos(1);
    let rate = Rate::with_period(every).expect("it is longer than nothing");
    rate.allow_burst(burst)
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn limits(requests: u32, items: u32) -> Limits {
        Limits {
            requests: NonZeroU32::new(requests),
            items: NonZeroU32::new(items),
            window: WINDOW,
        }
    }

    /// Sends what is wanted as soon as that is allowed; pauses of so many ms come before. Gives when
    /// each request was sent, and how many numbers it had.
    fn send(limits: &Limits, wanted: &[(u64, usize)]) -> Vec<(Duration, usize)> {
        let clock = FakeRelativeClock::default();
        let mut quota = Quota::new(limits, &clock);
        let mut now = Duration::ZERO;
        let mut sent = Vec::new();
        let go_on = |now: &mut Duration, by: Duration| {
            clock.advance(by);
            *now += by;
        };
        for (pause_ms, wanted) in wanted {
            go_on(&mut now, Duration::from_millis(*pause_ms));
            let items = loop {
                match quota.take(*wanted) {
                    Ok(items) => break items,
                    Err(wait) => {
                        assert!(!wait.is_zero(), "it would ask for ever");
                        go_on(&mut now, wait);
                    }
                }
            };
            assert!((1..=*wanted).contains(&items));
            sent.push((now, items));
        }
        sent
    }

    /// The most requests, and numbers, in any window, counted with both its ends.
    fn most(sent: &[(Duration, usize)]) -> (usize, usize) {
        let windows = (0..sent.len()).map(|at| {
            let end = sent[at].0 + WINDOW;
            let window = sent[at..].iter().take_while(|(when, _)| *when <= end);
            window.fold((0, 0), |sum, (_, items)| (sum.0 + 1, sum.1 + items))
        });
        windows.fold((0, 0), |most, sum| (most.0.max(sum.0), most.1.max(sum.1)))
    }

    fn of(quota: u32) -> usize {
        if quota == 0 {
            usize::MAX
        } else {
            quota as usize
        }
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_the_quota(
            requests in prop_oneof![Just(0), 1..4u32, 1..200u32],
            items in prop_oneof![Just(0), 1..4u32, 1..3_000u32],
            wanted in prop::collection::vec(
                (prop_oneof![4 => Just(0), 1 => 0..90_000u64], 1..100usize), 1..300),
        ) {
            let sent = send(&limits(requests, items), &wanted);
            let (most_requests, most_items) = most(&sent);
            prop_assert!(most_requests <= of(requests), "{most_requests} requests");
            prop_assert!(most_items <= of(items), "{most_items} numbers");
        }
    }

    #[test]
    fn most_of_the_quota_is_used_and_evenly() {
        for (requests, items) in [(60, 0), (60, 600), (0, 600), (600, 60), (10, 1_000)] {
            let sent = send(&limits(requests, items), &[(0, 100); 2_000]);
            let span = (sent[sent.len() - 1].0.as_secs_f64() / WINDOW.as_secs_f64()).max(1.0);
            let numbers: usize = sent.iter().map(|(_, items)| items).sum();
            let used = (sent.len() as f64 / span / f64::from(requests))
                .max(numbers as f64 / span / f64::from(items));
            assert!(used > 0.85, "{requests} requests, {items} numbers: {used}");
            let pauses = sent.windows(2).map(|two| two[1].0 - two[0].0);
            let longest = pauses.max().expect("several");
            // Of a quota of 10 in a minute, 9 are steady.
            assert!(longest <= WINDOW / 8, "{longest:?}");
        }
    }

    #[test]
    fn without_a_quota_all_is_taken_at_once() {
        let sent = send(&limits(0, 0), &[(0, 1_000); 10]);
        assert_eq!(sent, vec![(Duration::ZERO, 1_000); 10]);
    }
}
