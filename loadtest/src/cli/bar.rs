//! How far it is: a bar on a terminal, and a line for each part of the work elsewhere.

use std::{
    io::IsTerminal,
    sync::{Arc, atomic::Ordering},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

use super::REDRAW;
use crate::{drive::World, scenario::Scenario, words::number};

/// On stderr. It goes away when it is dropped.
pub(super) struct Bar {
    bar: ProgressBar,
    redraws: JoinHandle<()>,
}

impl Bar {
    /// Of something that is counted.
    pub(super) fn show(what: &str, count: u64, at: impl Fn() -> u64 + Send + 'static) -> Self {
        say(&format!("{what}: {}", number(count)));
        let bar = ProgressBar::with_draw_target(Some(count), ProgressDrawTarget::stderr());
        bar.set_style(style(
            "{msg} {wide_bar} {human_pos} of {human_len}, {eta} left",
        ));
        bar.set_message(what.to_owned());
        Self::redraw(bar, move |bar| bar.set_position(at()))
    }

    /// Of a run, by its time.
    pub(super) fn show_time(scenario: &Scenario, world: Arc<World>) -> Self {
        let seconds = scenario.seconds();
        say(&format!("running {} for {seconds} s", scenario.name));
        let bar = ProgressBar::with_draw_target(Some(seconds), ProgressDrawTarget::stderr());
        bar.set_style(style("{pos} of {len} s {wide_bar} {msg}"));
        Self::redraw(bar, move |bar| {
            bar.set_position(world.now().as_secs().min(seconds));
            let ended = number(world.ended.load(Ordering::Relaxed));
            bar.set_message(format!("{ended} calls answered"));
        })
    }

    /// Of something that takes its time.
    pub(super) fn spin(what: &str) -> Self {
        say(what);
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style("{spinner} {msg}"));
        bar.set_message(what.to_owned());
        Self::redraw(bar, |bar| bar.tick())
    }

    /// Another part of the work.
    pub(super) fn now(&self, what: String) {
        say(&what);
        self.bar.set_message(what);
    }

    /// A line that stays.
    pub(super) fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    fn redraw(bar: ProgressBar, draw: impl Fn(&ProgressBar) + Send + 'static) -> Self {
        let drawn = bar.clone();
        let redraws = tokio::spawn(async move {
            loop {
                draw(&drawn);
                tokio::time::sleep(REDRAW).await;
            }
        });
        Self { bar, redraws }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.redraws.abort();
        self.bar.finish_and_clear();
    }
}

/// Where no bar is drawn, a log says what it is at.
fn say(what: &str) {
    if !std::io::stderr().is_terminal() {
        eprintln!("{what}");
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
