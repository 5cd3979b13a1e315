//! The current state of a channel, page by page.

use std::{fmt, str::FromStr};

use super::{
    Feeds, SubscribeError, Update, UpdateKind, hub::rules_change, subscription::state_number,
};
use crate::{log::Position, shard::NotReadable};

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// See [`SubscribeError`].
    #[error(transparent)]
    NoChannel(#[from] SubscribeError),
    /// The token is none, or another instance gave it.
    #[error("is not of this instance; begin again without it")]
    NotOurs,
}

/// Where the next page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    /// The instance that gave it: parts are a private matter of an instance.
    instance: u64,
    part: usize,
    since: Position,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}.{}", self.instance, self.part, self.since)
    }
}

impl FromStr for Token {
    type Err = PageError;

    fn from_str(text: &str) -> Result<Self, PageError> {
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(PageError::NotOurs);
        let token = Self {
            instance: u64::from_str_radix(next()?, 16).map_err(|_| PageError::NotOurs)?,
            part: next()?.parse().map_err(|_| PageError::NotOurs)?,
            since: next()?.parse().map_err(|_| PageError::NotOurs)?,
        };
        match parts.next() {
            None => Ok(token),
            Some(_) => Err(PageError::NotOurs),
        }
    }
}

/// Numbers of a page, those of one part of the SKUs more or less.
const PAGE_NUMBERS: usize = 4_096;

impl Feeds {
    /// A page of a channel's state, and the token of the next one. The last page has the position after
    /// which changes go on.
    ///
    /// # Errors
    /// See [`PageError`].
    pub async fn state_page(
        &self,
        channel: &str,
        token: &str,
    ) -> Result<(Update, Option<String>), PageError> {
        let feed = self.feed(channel)?;
        let view = self.instance().view();
        let mut token = match token {
            "" => Token {
                instance: self.instance().id(),
                part: 0,
                since: feed.lock().position,
            },
            token => token.parse()?,
        };
        if token.instance != self.instance().id() || token.part > view.parts() {
            return Err(PageError::NotOurs);
        }
        let mut numbers = Vec::new();
        while token.part < view.parts() && numbers.len() < PAGE_NUMBERS {
            let begun = numbers.len();
            let read = view.published_part(channel, token.part, |sku, units| {
                numbers.push(state_number(sku.into(), units));
            });
            match read {
                Ok(()) => token.part += 1,
                Err(NotReadable::NoChannel) => {
                    return Err(SubscribeError::NoChannel(channel.to_owned()).into());
                }
                Err(NotReadable::RulesChange) => {
                    numbers.truncate(begun);
                    rules_change().await;
                }
            }
        }
        let is_last = token.part >= view.parts();
        if is_last {
            // What was read is no later than what changes will be told of next.
            self.published_up_to(view.begun()).await;
        }
        let position = if is_last { token.since } else { 0 };
        let update = Update::new(
            UpdateKind::State,
            (&feed.channel, &feed.log),
            [0, position, token.since],
            numbers,
        );
        Ok((update, (!is_last).then(|| token.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_nothing_else_is() {
        let token = Token {
            instance: 0xfe,
            part: 7,
            since: 9,
        };
        assert_eq!(token.to_string().parse(), Ok(token));
        for wrong in ["", "fe", "fe.7", "fe.7.9.1", "fe.x.9", "x.7.9", "fe.-1.9"] {
            assert_eq!(wrong.parse::<Token>(), Err(PageError::NotOurs), "{wrong}");
        }
    }
}
