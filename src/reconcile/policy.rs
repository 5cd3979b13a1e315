//! What is to be done about a variance. Pure.

use crate::limits::QUANTITY_MAX;

/// What is to be done about variances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Report them.
    #[default]
    Report,
    /// Correct those within a tolerance, and hold the others for approval.
    Correct(Tolerance),
}

/// Which variances may be corrected without anybody looking: all given limits have to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tolerance {
    /// Up to so many units.
    pub units: Option<i64>,
    /// Up to this share of what the books held, in percent.
    pub percent: Option<u32>,
}

/// What is to be done about one variance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Report it.
    Report,
    /// Correct it now.
    Correct,
    /// Hold its correction for approval.
    Hold,
}

impl Tolerance {
    /// Whether a difference of `stated` from what the books held is within it. Nothing is, if it
    /// gives no limit at all.
    pub fn covers(self, stated: i64, book: i64) -> bool {
        let size = u128::from(stated.abs_diff(book));
        let within_units = |units: i64| size <= u128::from(units.max(0).unsigned_abs());
        let within_percent =
            |percent: u32| size * 100 <= u128::from(book.unsigned_abs()) * u128::from(percent);
        (self.units.is_some() || self.percent.is_some())
            && self.units.is_none_or(within_units)
            && self.percent.is_none_or(within_percent)
    }
}

impl Policy {
    /// What is to be done about a variance.
    pub fn plan(self, stated: i64, book: i64) -> Plan {
        match self {
            Policy::Report => Plan::Report,
            Policy::Correct(tolerance)
                if is_one_movement(stated, book) && tolerance.covers(stated, book) =>
            {
                Plan::Correct
            }
            Policy::Correct(_) => Plan::Hold,
        }
    }
}

/// Whether one movement can correct it.
pub(super) fn is_one_movement(stated: i64, book: i64) -> bool {
    (1..=QUANTITY_MAX.unsigned_abs()).contains(&stated.abs_diff(book))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn correct(units: Option<i64>, percent: Option<u32>) -> Policy {
        Policy::Correct(Tolerance { units, percent })
    }

    #[test]
    fn what_is_within_every_limit_is_corrected_and_the_rest_held() {
        for (units, percent, stated, book, plan) in [
            (Some(5), None, 105, 100, Plan::Correct),
            (Some(5), None, 95, 100, Plan::Correct),
            (Some(5), None, 106, 100, Plan::Hold),
            (Some(0), None, 101, 100, Plan::Hold),
            (None, None, 101, 100, Plan::Hold),
            (None, Some(5), 105, 100, Plan::Correct),
            (None, Some(5), 94, 100, Plan::Hold),
            // Of nothing, no share is anything.
            (None, Some(100), 1, 0, Plan::Hold),
            (None, Some(10), -11, -10, Plan::Correct),
            (Some(5), Some(1), 105, 100, Plan::Hold),
            (Some(5), Some(50), 106, 100, Plan::Hold),
            (Some(5), Some(5), 105, 100, Plan::Correct),
            (Some(i64::MAX), None, QUANTITY_MAX, 0, Plan::Correct),
            (Some(i64::MAX), None, QUANTITY_MAX + 1, 0, Plan::Hold),
            (Some(i64::MAX), None, i64::MIN, i64::MAX, Plan::Hold),
        ] {
            let told = (units, percent, stated, book);
            assert_eq!(correct(units, percent).plan(stated, book), plan, "{told:?}");
        }
        assert_eq!(Policy::Report.plan(101, 100), Plan::Report);
    }

    proptest! {
        #[test]
        fn a_wider_tolerance_never_holds_what_a_narrower_one_corrects(
            stated in -1_000..1_000i64,
            book in -1_000..1_000i64,
            units in prop::option::of(0..50i64),
            percent in prop::option::of(0..50u32),
        ) {
            let wider = correct(units.map(|own| own + 1), percent.map(|own| own + 1));
            if correct(units, percent).plan(stated, book) == Plan::Correct {
                prop_assert_eq!(wider.plan(stated, book), Plan::Correct);
            }
        }
    }
}
