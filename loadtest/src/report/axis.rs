//! Axes: where a value lies, and which values are written down.

/// How values are spread over an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their order of magnitude.
    Log,
    /// Quantiles from 0 to 1: each nine takes the same room.
    Nines,
}

/// One axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    scale: Scale,
    from: f64,
    to: f64,
    /// Values that are written down, and how.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 up to a round value that has room for the greatest.
    pub fn linear(label: &str, greatest: f64) -> Self {
        let greatest = if greatest > 0.0 { greatest } else { 1.0 };
        let step = round_step(greatest / 4.0);
        let steps = (greatest / step).ceil().max(1.0);
        let ticks = (0..=steps as u32).map(|n| step * f64::from(n));
        Self {
            label: label.to_owned(),
            scale: Scale::Linear,
            from: 0.0,
            to: step * steps,
            ticks: ticks.map(|value| (value, short(value))).collect(),
        }
    }

    /// Seconds from a start to an end.
    pub fn time(seconds: f64) -> Self {
        let steps = [
            1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0,
            14_400.0,
        ];
        let fits = steps.iter().find(|step| seconds / **step <= 12.0);
        let step = *fits.unwrap_or(&14_400.0);
        let ticks = (0..).map(|n| step * f64::from(n));
        let ticks = ticks.take_while(|at| *at <= seconds * 1.000_1);
        Self {
            label: "seconds from the start".to_owned(),
            scale: Scale::Linear,
            from: 0.0,
            to: seconds.max(1.0),
            ticks: ticks.map(|at| (at, short(at))).collect(),
        }
    }

    /// From the order of magnitude of the least to that of the greatest.
    pub fn log(label: &str, least: f64, greatest: f64) -> Self {
        let least = if least > 0.0 { least } else { 0.1 };
        let greatest = greatest.max(least * 1.01);
        // A step of 1, 2 or 5 below and above, so that no curve runs along the edge.
        let from = below(least);
        let to = above(greatest);
        let sparse = to / from > 2_000.0;
        let mut ticks = Vec::new();
        for exponent in from.log10().floor() as i32..=to.log10().ceil() as i32 {
            for factor in [1.0, 2.0, 5.0] {
                let value = factor * 10_f64.powi(exponent);
                let inside = value >= from * 0.999 && value <= to * 1.001;
                if inside && (factor == 1.0 || !sparse) {
                    ticks.push((value, short(value)));
                }
            }
        }
        Self {
            label: label.to_owned(),
            scale: Scale::Log,
            from,
            to,
            ticks,
        }
    }

    /// Quantiles up to so many nines.
    pub fn nines(label: &str, greatest: f64) -> Self {
        let named = [
            (0.0, "0 %"),
            (0.5, "50 %"),
            (0.9, "90 %"),
            (0.99, "99 %"),
            (0.999, "99.9 %"),
            (0.9999, "99.99 %"),
            (0.99999, "99.999 %"),
        ];
        let to = greatest.clamp(0.9, 0.999_999);
        let ticks = named.iter().filter(|(at, _)| *at <= to * 1.000_001);
        Self {
            label: label.to_owned(),
            scale: Scale::Nines,
            from: 0.0,
            to,
            ticks: ticks.map(|(at, name)| (*at, (*name).to_owned())).collect(),
        }
    }

    /// Where a value lies: 0 at the beginning, 1 at the end. What lies outside is put at its edge.
    pub fn place(&self, value: f64) -> f64 {
        let at = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).log10(),
            Scale::Nines => -(1.0 - value.min(0.999_999_9)).log10(),
        };
        let (from, to) = (at(self.from), at(self.to));
        ((at(value) - from) / (to - from)).clamp(0.0, 1.0)
    }
}

/// The next of 1, 2, 5 × a power of ten.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let fits = steps.into_iter().find(|step| *step >= least * 0.999_999);
    fits.unwrap_or(10.0 * power)
}

fn above(value: f64) -> f64 {
    round_step(value)
}

fn below(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [5.0, 2.0, 1.0].map(|factor| factor * power);
    let fits = steps.into_iter().find(|step| *step <= value * 1.000_001);
    fits.unwrap_or(power)
}

/// As short as it can be: `0.05`, `12`, `1.5k`, `2M`.
pub fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn linear_axes_begin_at_nothing_and_end_with_a_round_value() {
        let axis = Axis::linear("calls", 1_830.0);
        assert_eq!(names(&axis), ["0", "500", "1000", "1500", "2000"]);
        assert_eq!((axis.place(0.0), axis.place(1_000.0)), (0.0, 0.5));
        assert_eq!(names(&Axis::linear("calls", 0.0)).first(), Some(&"0"));
    }

    #[test]
    fn log_axes_have_a_tick_for_1_2_and_5_or_for_each_power() {
        let axis = Axis::log("ms", 0.3, 18.0);
        assert_eq!(names(&axis), ["0.2", "0.5", "1", "2", "5", "10", "20"]);
        let wide = Axis::log("ms", 0.01, 900.0);
        assert_eq!(names(&wide), ["0.01", "0.1", "1", "10", "100", "1000"]);
        assert!(axis.place(0.2).abs() < 1e-9 && (axis.place(20.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn each_nine_takes_the_same_room() {
        let axis = Axis::nines("quantile", 0.999);
        assert!((axis.place(0.9) - 1.0 / 3.0).abs() < 1e-6);
        assert!((axis.place(0.99) - 2.0 / 3.0).abs() < 1e-6);
        assert_eq!(names(&axis), ["0 %", "50 %", "90 %", "99 %", "99.9 %"]);
    }

    #[test]
    fn time_has_few_ticks() {
        assert_eq!(names(&Axis::time(60.0)).len(), 13);
        assert_eq!(
            names(&Axis::time(65.0)),
            ["0", "10", "20", "30", "40", "50", "60"]
        );
    }

    #[test]
    fn values_are_written_short() {
        let shown = [0.05, 12.0, 1_500.0, 15_000.0, 2_000_000.0].map(short);
        assert_eq!(shown, ["0.05", "12", "1500", "15k", "2M"]);
    }
}
