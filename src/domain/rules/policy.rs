//! The terms of a channel for one SKU, and the formulas of availability.
//!
//! Everything is in whole units and exact: no product is formed that could overflow.

/// A channel's terms for one SKU, overrides applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Units withheld at each location, 0 to 10^9.
    pub buffer: i64,
    /// Percent of `good` withheld at each location, 0 to 100.
    pub buffer_percent: u8,
    /// Percent of the sum that the channel may sell, 0 to 100.
    pub share_percent: u8,
    /// Below this many units the channel sells nothing; 0 to 10^15.
    pub minimum: i64,
    /// At most this many units, 0 to 10^15; `None`: no limit.
    pub maximum: Option<i64>,
    /// The channel sells nothing.
    pub paused: bool,
    /// A smaller change is not published, unless it crosses zero; 0 to 10^15 units.
    pub publish_step: i64,
    /// The same in percent of the number published before, 0 to 100.
    pub publish_step_percent: u8,
    /// Which list of excluded locations applies, see [`super::Membership`].
    pub(super) exclude_list: u32,
}

impl Policy {
    /// Units withheld at a location: `max(buffer, ⌈good × buffer_percent / 100⌉)`, `good` taken
    /// as at least 0.
    #[inline]
    pub fn withheld(&self, good: i64) -> i64 {
        self.buffer
            .max(percent_rounded_up(good.max(0), self.buffer_percent))
    }

    /// Whether a channel that was told `published` is to be told `ats`: at zero crossings, or else
    /// if they differ by `max(1, publish_step, ⌈published × publish_step_percent / 100⌉)` or more.
    /// Both are at least 0.
    #[inline]
    pub fn is_worth_publishing(&self, published: i64, ats: i64) -> bool {
        if published == ats || published == 0 || ats == 0 {
            return published != ats;
        }
        let percent = percent_rounded_up(published, self.publish_step_percent);
        let step = self.publish_step.max(percent);
        published.abs_diff(ats) >= step.unsigned_abs()
    }

    /// What a location contributes: `max(0, free - withheld)`.
    #[inline]
    pub fn cell_available(&self, free: i64, good: i64) -> i64 {
        free.saturating_sub(self.withheld(good)).max(0)
    }

    /// Units that the channel may sell, from the sum over its locations (at least 0):
    /// `⌊sum × share_percent / 100⌋`; 0 if paused or below `minimum`; at most `maximum`.
    #[inline]
    pub fn ats(&self, sum: i64) -> i64 {
        let shared = self.share(sum);
        if self.paused || shared < self.minimum {
            return 0;
        }
        shared.min(self.maximum.unwrap_or(i64::MAX))
    }

    /// What cut `sum`, in the order applied, one sentence each; each says `X becomes Y`, so that
    /// the first X is `sum` and the last Y is [`Policy::ats`]. Empty if nothing cut it.
    pub fn steps(&self, sum: i64) -> Vec<String> {
        if self.paused {
            return vec![format!("Paused: {sum} becomes 0.")];
        }
        let mut steps = Vec::new();
        let shared = self.share(sum);
        if shared != sum {
            steps.push(format!(
                "Share of {} %, rounded down: {sum} becomes {shared}.",
                self.share_percent
            ));
        }
        if shared > 0 && shared < self.minimum {
            steps.push(format!(
                "Below the minimum of {}: {shared} becomes 0.",
                self.minimum
            ));
            return steps;
        }
        if let Some(maximum) = self.maximum.filter(|maximum| shared > *maximum) {
            steps.push(format!(
                "At most the maximum of {maximum}: {shared} becomes {maximum}."
            ));
        }
        steps
    }

    #[inline]
    fn share(&self, sum: i64) -> i64 {
        let sum = sum.max(0);
        let percent = i64::from(self.share_percent);
        sum / 100 * percent + sum % 100 * percent / 100
    }
}

/// `⌈units × percent / 100⌉`; exact without a wider type: at most 100 % of `units`, and 99 × 100.
#[inline]
fn percent_rounded_up(units: i64, percent: u8) -> i64 {
    let percent = i64::from(percent);
    units / 100 * percent + (units % 100 * percent + 99) / 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open() -> Policy {
        Policy {
            buffer: 0,
            buffer_percent: 0,
            share_percent: 100,
            minimum: 0,
            maximum: None,
            paused: false,
            publish_step: 0,
            publish_step_percent: 0,
            exclude_list: 0,
        }
    }

    #[test]
    fn small_changes_are_not_published_but_at_zero() {
        // step, percent | published, ats | worth it
        let table = [
            (0, 0, 10, 10, false),
            (0, 0, 10, 11, true),
            (5, 0, 10, 14, false),
            (5, 0, 10, 15, true),
            (5, 0, 10, 5, true),
            (5, 0, 1, 0, true),
            (5, 0, 0, 1, true),
            (5, 0, 0, 0, false),
            (0, 10, 100, 91, false),
            (0, 10, 100, 90, true),
            (0, 10, 101, 91, false), // 10 % of 101 is rounded up to 11
            (0, 10, 101, 90, true),
            (3, 10, 100, 95, false), // the larger one counts
            (30, 10, 100, 80, false),
            (0, 100, 7, 13, false),
            (0, 100, 7, 14, true),
            (0, 0, i64::MAX, i64::MAX - 1, true),
            (0, 100, i64::MAX, 1, false),
        ];
        for (publish_step, publish_step_percent, published, ats, worth_it) in table {
            let policy = Policy {
                publish_step,
                publish_step_percent,
                ..open()
            };
            let told = policy.is_worth_publishing(published, ats);
            assert_eq!(
                told, worth_it,
                "{publish_step} {publish_step_percent} {published} {ats}"
            );
        }
    }

    #[test]
    fn a_location_keeps_its_buffer() {
        // buffer, percent | good, reserved | withheld, available
        let table = [
            (0, 0, 10, 0, 0, 10),
            (0, 0, 10, 3, 0, 7),
            (2, 0, 10, 3, 2, 5),
            (2, 10, 10, 3, 2, 5),   // 10 % of 10 is 1: the buffer is larger
            (2, 10, 21, 0, 3, 18),  // 10 % of 21 is rounded up to 3
            (0, 100, 21, 0, 21, 0), // all is withheld
            (5, 0, 3, 0, 5, 0),     // less on the shelf than the buffer
            (0, 10, -4, 0, 0, 0),   // the books are below zero
            (0, 0, 3, 8, 0, 0),     // oversold
        ];
        for (buffer, percent, good, reserved, withheld, available) in table {
            let policy = Policy {
                buffer,
                buffer_percent: percent,
                ..open()
            };
            let row = format!("buffer {buffer}, {percent} %, good {good}, reserved {reserved}");
            assert_eq!(policy.withheld(good), withheld, "withheld: {row}");
            assert_eq!(
                policy.cell_available(good - reserved, good),
                available,
                "available: {row}"
            );
        }
    }

    #[test]
    fn a_channel_cuts_the_sum() {
        // share, minimum, maximum, paused | sum | ats | steps
        type Row = (
            u8,
            i64,
            Option<i64>,
            bool,
            i64,
            i64,
            &'static [&'static str],
        );
        let table: [Row; 9] = [
            (100, 0, None, false, 121, 121, &[]),
            (
                80,
                0,
                None,
                false,
                121,
                96,
                &["Share of 80 %, rounded down: 121 becomes 96."],
            ),
            (
                0,
                0,
                None,
                false,
                121,
                0,
                &["Share of 0 %, rounded down: 121 becomes 0."],
            ),
            (100, 5, None, false, 5, 5, &[]),
            (
                100,
                5,
                None,
                false,
                4,
                0,
                &["Below the minimum of 5: 4 becomes 0."],
            ),
            (100, 5, None, false, 0, 0, &[]),
            (
                100,
                0,
                Some(50),
                false,
                60,
                50,
                &["At most the maximum of 50: 60 becomes 50."],
            ),
            (100, 0, None, true, 9, 0, &["Paused: 9 becomes 0."]),
            (
                50,
                10,
                Some(20),
                false,
                99,
                20,
                &[
                    "Share of 50 %, rounded down: 99 becomes 49.",
                    "At most the maximum of 20: 49 becomes 20.",
                ],
            ),
        ];
        for (share_percent, minimum, maximum, paused, sum, ats, steps) in table {
            let policy = Policy {
                share_percent,
                minimum,
                maximum,
                paused,
                ..open()
            };
            assert_eq!(policy.ats(sum), ats, "{policy:?} of {sum}");
            assert_eq!(policy.steps(sum), steps, "{policy:?} of {sum}");
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let policy = Policy {
            buffer_percent: 100,
            ..open()
        };
        assert_eq!(policy.withheld(i64::MAX), i64::MAX);
        assert_eq!(policy.cell_available(i64::MIN, i64::MAX), 0);
        assert_eq!(policy.ats(i64::MAX), i64::MAX);
    }

    fn any_units() -> impl Strategy<Value = i64> {
        prop_oneof![0..200i64, 0..=1_000_000_000_000_000i64]
    }

    fn any_policy() -> impl Strategy<Value = Policy> {
        (
            (0..=20i64, 0..=100u8, 0..=100u8),
            (
                any_units(),
                prop::option::of(any_units()),
                prop::bool::weighted(0.1),
            ),
        )
            .prop_map(
                |((buffer, buffer_percent, share_percent), (minimum, maximum, paused))| Policy {
                    buffer,
                    buffer_percent,
                    share_percent,
                    minimum: minimum.min(maximum.unwrap_or(i64::MAX)),
                    maximum,
                    paused,
                    publish_step: 0,
                    publish_step_percent: 0,
                    exclude_list: 0,
                },
            )
    }

    proptest! {
        #[test]
        fn formulas_agree_with_their_definition(
            policy in any_policy(),
            free in prop_oneof![-50..200i64, any::<i64>()],
            good in prop_oneof![-50..200i64, any::<i64>()],
            sum in prop_oneof![0..200i64, 0..=i64::MAX],
        ) {
            // The formulas as they are written in the design, in a type that cannot overflow.
            let good_or_0 = i128::from(good.max(0));
            let mut by_percent = good_or_0 * i128::from(policy.buffer_percent) / 100;
            if by_percent * 100 < good_or_0 * i128::from(policy.buffer_percent) {
                by_percent += 1;
            }
            let withheld = by_percent.max(i128::from(policy.buffer));
            prop_assert_eq!(i128::from(policy.withheld(good)), withheld);
            prop_assert_eq!(
                i128::from(policy.cell_available(free, good)),
                (i128::from(free) - withheld).max(0)
            );

            let mut ats = i128::from(sum) * i128::from(policy.share_percent) / 100;
            if policy.paused || ats < i128::from(policy.minimum) {
                ats = 0;
            }
            if let Some(maximum) = policy.maximum {
                ats = ats.min(i128::from(maximum));
            }
            prop_assert_eq!(i128::from(policy.ats(sum)), ats);
        }

        #[test]
        fn steps_lead_from_the_sum_to_the_answer(
            policy in any_policy(),
            sum in prop_oneof![0..200i64, 0..=i64::MAX],
        ) {
            let mut units = sum;
            for step in policy.steps(sum) {
                let (before, after) = step.trim_end_matches('.').split_once(" becomes ").unwrap();
                let from: i64 = before.rsplit(' ').next().unwrap().parse().unwrap();
                prop_assert_eq!(from, units, "{}", step);
                units = after.parse().unwrap();
            }
            prop_assert_eq!(units, policy.ats(sum));
        }
    }
}
