//! Settings of webhooks: a TOML document, read whole before anything is opened.
//!
//! ```toml
//! [webhook.market]
//! channel = "marketplace"                     # of the channel rules
//! url = "https://market.example/availability"
//! secret_file = "/run/secrets/market"         # or secret_env = "MARKET_SECRET": `whsec_…`
//! requests_per_window = 60                    # the receiver's quota, if it has one
//! items_per_window = 3_000
//! window_seconds = 60
//! ```
//!
//! Every key is in [`KEYS`], every error names its line and key. A secret stands in no document,
//! and in no message.

use std::{num::NonZeroU32, ops::Range, path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue, Uri};
use toml::de::DeValue;

use super::{quota::Limits, signature::Secrets};
use crate::{
    domain::document::{self, DocumentError, Grammar, Reader, Twice, Value, Warning, hint, join},
    limits::{CHANNEL_BYTES_MAX, WEBHOOK_BATCH_ITEMS_MAX, WEBHOOK_NAME_BYTES_MAX, WEBHOOKS_MAX},
};

/// One webhook.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name, under which its progress is kept in the log.
    pub name: String,
    /// The channel whose numbers it gets. It waits for one that the rules do not have.
    pub channel: String,
    /// Where they are sent.
    pub url: Uri,
    /// What they are signed with.
    pub secrets: Secrets,
    /// Further headers of each request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Numbers of one request, at most.
    pub batch_items: usize,
    /// How long the first number waits for others to come with it.
    pub batch_delay: Duration,
    /// What the receiver takes; none: anything.
    pub quota: Option<Limits>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Attempts after which a number that is refused is given up.
    pub attempts_max: u32,
    /// Bounds of the waits between attempts that failed.
    pub retry: Range<Duration>,
}

/// The keys of a webhook, and what they take.
pub const KEYS: [&str; 14] = [
    "channel",
    "url",
    "secret_file",
    "secret_env",
    "headers",
    "batch_items",
    "batch_delay_ms",
    "requests_per_window",
    "items_per_window",
    "window_seconds",
    "timeout_ms",
    "attempts_max",
    "retry_ms_min",
    "retry_ms_max",
];

/// Headers that are the sender's own.
const OWN_HEADERS: [&str; 8] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

const GRAMMAR: Grammar = Grammar {
    name: "webhooks",
    section: "webhook",
    has_groups: false,
    section_max: WEBHOOKS_MAX,
    twice: |path| match path {
        ["webhook", webhook] => Some(Twice::just(format!("the webhook `{webhook}`"))),
        _ => None,
    },
};

/// Where secrets come from.
pub trait Outside {
    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn file(&self, path: &std::path::Path) -> Result<String, String>;

    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
}

/// Reads a document, and the secrets that it names.
///
/// # Errors
/// Every error that can be found.
pub fn read(
    text: &str,
    outside: &dyn Outside,
) -> Result<(Vec<Settings>, Vec<Warning>), DocumentError> {
    let (read, warnings) = document::read(text, &GRAMMAR, |toml, key, value| {
        WebhookReader { toml, outside }.webhook(key.span(), key.get_ref(), value)
    })?;
    Ok((read.entries, warnings))
}

struct WebhookReader<'r, 't> {
    toml: &'r mut Reader<'t>,
    outside: &'r dyn Outside,
}

impl WebhookReader<'_, '_> {
    fn webhook(&mut self, span: Range<usize>, name: &str, value: &Value<'_>) -> Option<Settings> {
        let path = join("webhook", name);
        self.toml
            .name(span.clone(), &path, name, WEBHOOK_NAME_BYTES_MAX);
        let table = self.toml.table(&path, value)?;
        let (mut channel, mut url, mut secrets) = (None, None, Vec::new());
        let mut headers = Vec::new();
        let (mut requests, mut items, mut window) = (None, None, None);
        let (mut batch_items, mut batch_delay_ms) = (100, 20);
        let (mut timeout_ms, mut attempts_max) = (10_000, 3);
        let (mut retry_ms_min, mut retry_ms_max) = (100, 30_000);
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = join(&path, name);
            let mut set = |to: &mut u32, min: u32, max: usize| {
                if let Some(number) = self.integer(&path, value, min, max) {
                    *to = number;
                }
            };
            match name {
                "batch_items" => set(&mut batch_items, 1, WEBHOOK_BATCH_ITEMS_MAX),
                "batch_delay_ms" => set(&mut batch_delay_ms, 0, 60_000),
                "timeout_ms" => set(&mut timeout_ms, 100, 120_000),
                "attempts_max" => set(&mut attempts_max, 1, 1_000),
                "retry_ms_min" => set(&mut retry_ms_min, 1, 60_000),
                "retry_ms_max" => set(&mut retry_ms_max, 1, 3_600_000),
                "requests_per_window" => requests = self.integer(&path, value, 1, 1_000_000),
                "items_per_window" => items = self.integer(&path, value, 1, 100_000_000),
                "window_seconds" => window = self.integer(&path, value, 1, 86_400),
                "channel" => channel = self.channel(&path, value),
                "url" => url = self.url(&path, value),
                "secret_file" | "secret_env" => {
                    let secret = self.secret(&path, name == "secret_file", value);
                    secrets.push((value.span(), secret));
                }
                "headers" => headers = self.headers(&path, value),
                _ => {
                    let message = format!("unknown key{}", hint(name, KEYS));
                    self.toml.error(key.span(), &path, message);
                }
            }
        }
        for (key, advice) in [
            (
                "channel",
                "name the channel of the rules whose numbers it gets",
            ),
            ("url", "say where they are sent"),
        ] {
            if !table.contains_key(key) {
                let message = format!("has no `{key}`; {advice}");
                self.toml.absence(span.clone(), &path, message);
            }
        }
        match &secrets[..] {
            [] => {
                let message = "has no `secret_file` or `secret_env`; receivers tell by a secret \
                               whom a request is from";
                self.toml.absence(span.clone(), &path, message);
            }
            [_] => {}
            [.., (span, _)] => {
                let message = "has `secret_file` and `secret_env`; only one is wanted";
                self.toml.error(span.clone(), &path, message);
            }
        }
        if retry_ms_min > retry_ms_max {
            let message = format!(
                "`retry_ms_min` ({retry_ms_min}) is larger than `retry_ms_max` ({retry_ms_max})"
            );
            self.toml.error(span.clone(), &path, message);
        }
        let has = |key: &str| table.contains_key(key);
        let limited = has("requests_per_window") || has("items_per_window");
        if limited != has("window_seconds") {
            let message = match limited {
                true => "has a quota without `window_seconds`; say in which time it holds",
                false => {
                    "has `window_seconds` without a quota; set `requests_per_window`, \
                          `items_per_window` or both"
                }
            };
            self.toml.error(span, &path, message);
        }
        let limits = |window: u32| Limits {
            requests: requests.and_then(NonZeroU32::new),
            items: items.and_then(NonZeroU32::new),
            window: Duration::from_secs(window.into()),
        };
        let ms = |ms: u32| Duration::from_millis(ms.into());
        Some(Settings {
            name: name.to_owned(),
            channel: channel?,
            url: url?,
            secrets: secrets.pop()?.1?,
            headers,
            batch_items: batch_items as usize,
            batch_delay: ms(batch_delay_ms),
            quota: window.map(limits),
            timeout: ms(timeout_ms),
            attempts_max,
            retry: ms(retry_ms_min)..ms(retry_ms_max),
        })
    }

    fn channel(&mut self, path: &str, value: &Value<'_>) -> Option<String> {
        let text = self.text(path, value)?;
        self.toml.name(value.span(), path, text, CHANNEL_BYTES_MAX);
        Some(text.to_owned())
    }

    fn url(&mut self, path: &str, value: &Value<'_>) -> Option<Uri> {
        let text = self.text(path, value)?;
        let wrong = match text.parse::<Uri>() {
            Err(error) => error.to_string(),
            Ok(url) => match (url.scheme_str(), url.authority()) {
                (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
                    "has a name or a password in it; use `headers`, or the signature".into()
                }
                (Some("http" | "https"), Some(_)) => return Some(url),
                _ => "is no address that begins with http:// or https://".into(),
            },
        };
        self.toml.error(value.span(), path, wrong);
        None
    }

    fn secret(&mut self, path: &str, is_file: bool, value: &Value<'_>) -> Option<Secrets> {
        let named = self.text(path, value)?;
        let found = if is_file {
            let file = PathBuf::from(named);
            let read = self.outside.file(&file);
            read.map_err(|error| format!("the file {named:?} cannot be read: {error}"))
        } else {
            let variable = self.outside.variable(named);
            variable.ok_or_else(|| format!("the environment has no {named:?}"))
        };
        let parse = |text: String| {
            let secrets = Secrets::parse(&text);
            secrets.map_err(|why| format!("what {named:?} holds is no secret: {why}"))
        };
        match found.and_then(parse) {
            Ok(secrets) => Some(secrets),
            Err(message) => {
                self.toml.error(value.span(), path, message);
                None
            }
        }
    }

    fn headers(&mut self, path: &str, value: &Value<'_>) -> Vec<(HeaderName, HeaderValue)> {
        let Some(table) = self.toml.table(path, value) else {
            return Vec::new();
        };
        let mut headers = Vec::new();
        for (key, value) in table {
            let path = join(path, key.get_ref());
            let Ok(name) = key.get_ref().parse::<HeaderName>() else {
                self.toml.error(key.span(), &path, "is no name of a header");
                continue;
            };
            if OWN_HEADERS.contains(&name.as_str()) {
                self.toml.error(key.span(), &path, "is set by the sender");
                continue;
            }
            let Some(text) = self.text(&path, value) else {
                continue;
            };
            match HeaderValue::from_str(text) {
                Ok(mut value) => {
                    // It may well be a token.
                    value.set_sensitive(true);
                    headers.push((name, value));
                }
                Err(_) => self
                    .toml
                    .error(value.span(), &path, "is no value of a header"),
            }
        }
        headers
    }

    fn text<'v>(&mut self, path: &str, value: &'v Value<'_>) -> Option<&'v str> {
        let DeValue::String(text) = value.get_ref() else {
            self.toml.wrong_type(path, value, "a text");
            return None;
        };
        Some(text.as_ref())
    }

    /// A whole number in a range.
    fn integer(&mut self, path: &str, value: &Value<'_>, min: u32, max: usize) -> Option<u32> {
        let DeValue::Integer(written) = value.get_ref() else {
            self.toml.wrong_type(path, value, "a whole number");
            return None;
        };
        let number = u32::from_str_radix(written.as_str(), written.radix()).ok();
        let number = number.filter(|number| (min..=max as u32).contains(number));
        if number.is_none() {
            let message = format!("{written} is out of range; {min} to {max}");
            self.toml.error(value.span(), path, message);
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    struct Known;

    impl Outside for Known {
        fn file(&self, path: &std::path::Path) -> Result<String, String> {
            match path.to_str() {
                Some("/run/secret") => Ok(format!("{SECRET}\n")),
                Some("/run/wrong") => Ok("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()),
                _ => Err("no such file".into()),
            }
        }

        fn variable(&self, name: &str) -> Option<String> {
            (name == "SECRET").then(|| SECRET.into())
        }
    }

    #[test]
    fn the_example_is_sound_and_has_every_key() {
        let example = include_str!("../../../examples/webhooks.toml");
        let text = example.replace("/run/secrets/market", "/run/secret");
        let [market] = &settings(&text)[..] else {
            panic!("one webhook");
        };
        assert_eq!((&*market.name, &*market.channel), ("market", "marketplace"));
        assert!(market.quota.is_some() && market.headers.len() == 1);
        let keys = KEYS.iter().filter(|key| !example.contains(**key));
        assert_eq!(keys.count(), 0);
    }

    fn settings(text: &str) -> Vec<Settings> {
        match read(text, &Known) {
            Ok((settings, _)) => settings,
            Err(error) => panic!("{error}\nin\n{text}"),
        }
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let text = "[webhook.b]\nchannel = \"web\"\nurl = \"https://b.example/in?x=1\"\n\
                    secret_env = \"SECRET\"\n\
                    [webhook.a]\nchannel = \"app\"\nurl = \"http://127.0.0.1:8080\"\n\
                    secret_file = \"/run/secret\"\nbatch_items = 0x10\nbatch_delay_ms = 0\n\
                    requests_per_window = 60\nwindow_seconds = 1\nattempts_max = 1\n\
                    headers = { authorization = \"Bearer token\" }\n";
        let [b, a] = &settings(text)[..] else {
            panic!("two webhooks");
        };
        assert_eq!((b.name.as_str(), b.channel.as_str()), ("b", "web"));
        assert_eq!(b.url, "https://b.example/in?x=1");
        assert_eq!((b.batch_items, b.attempts_max), (100, 3));
        assert_eq!(b.batch_delay, Duration::from_millis(20));
        assert_eq!(b.timeout, Duration::from_secs(10));
        assert_eq!(b.quota, None);
        assert_eq!((a.batch_items, a.attempts_max), (16, 1));
        let quota = Limits {
            requests: NonZeroU32::new(60),
            items: None,
            window: Duration::from_secs(1),
        };
        assert_eq!(a.quota, Some(quota));
        assert_eq!(a.headers[0].0, "authorization");
        let shown = format!("{a:?}");
        assert!(
            !shown.contains("MfKQ") && !shown.contains("token"),
            "{shown}"
        );
        assert_eq!(settings("").len(), 0);
    }

    #[test]
    fn every_error_names_its_line_and_key() {
        let whole = "[webhook.w]\nchannel = \"web\"\nurl = \"http://w\"\nsecret_env = \"SECRET\"\n";
        for (text, wanted) in [
            (
                "[webhok.w]",
                "line 1, column 2: webhok: unknown key (did you mean `webhook`?)",
            ),
            (
                "[groups]",
                "line 1, column 2: groups: unknown key; known is `webhook` alone",
            ),
            (
                "[webhook]\nw = 3",
                "line 2, column 5: webhook.w: is a whole number; it must be a table",
            ),
            (
                "[webhook.w]",
                "webhook.w: has no `channel`; name the channel",
            ),
            ("[webhook.w]", "webhook.w: has no `url`; say where"),
            (
                "[webhook.w]",
                "webhook.w: has no `secret_file` or `secret_env`; receivers tell",
            ),
            (
                &format!("{whole}batch_itmes = 3"),
                "line 5, column 1: webhook.w.batch_itmes: unknown key (did you mean `batch_items`?)",
            ),
            (
                &format!("{whole}batch_items = 0"),
                "line 5, column 15: webhook.w.batch_items: 0 is out of range; 1 to 1000",
            ),
            (
                &format!("{whole}batch_items = 1001"),
                "is out of range; 1 to 1000",
            ),
            (
                &format!("{whole}timeout_ms = \"5\""),
                "webhook.w.timeout_ms: is a text; it must be a whole number",
            ),
            (
                &format!("{whole}secret_file = \"/run/secret\""),
                "has `secret_file` and `secret_env`; only one",
            ),
            (
                &format!("{whole}items_per_window = 5"),
                "line 1, column 10: webhook.w: has a quota without `window_seconds`",
            ),
            (
                &format!("{whole}window_seconds = 5"),
                "has `window_seconds` without a quota",
            ),
            (
                &format!("{whole}retry_ms_min = 40_000"),
                "is larger than `retry_ms_max` (30000)",
            ),
            (
                &format!("{whole}headers = {{ Host = \"x\" }}"),
                "webhook.w.headers.Host: is set by the sender",
            ),
            (
                &format!("{whole}headers = {{ \"a b\" = \"x\" }}"),
                "is no name of a header",
            ),
            (
                &format!("{whole}headers = {{ a = \"\\n\" }}"),
                "is no value of a header",
            ),
            (
                &format!("{whole}url = \"http://x\""),
                "line 5, column 1: webhook.w.url: ",
            ),
            (
                &whole.replace("http://w", "ftp://w"),
                "line 3, column 7: webhook.w.url: is no address that begins",
            ),
            (
                &whole.replace("http://w", "http://me:pass@w"),
                "has a name or a password in it",
            ),
            (
                &whole.replace("http://w", "not an address"),
                "webhook.w.url: ",
            ),
            (
                &whole.replace("SECRET", "SECRTE"),
                "line 4, column 14: webhook.w.secret_env: the environment has no \"SECRTE\"",
            ),
            (
                &whole.replace("secret_env = \"SECRET\"", "secret_file = \"/nowhere\""),
                "line 4, column 15: webhook.w.secret_file: the file \"/nowhere\" cannot be read: no such file",
            ),
            (
                &whole.replace("secret_env = \"SECRET\"", "secret_file = \"/run/wrong\""),
                "what \"/run/wrong\" holds is no secret: it does not begin with `whsec_`",
            ),
            (&whole.replace("webhook.w", "webhook.\"\""), "the name"),
            ("[webhook.w]\nchannel = ", "line 2"),
        ] {
            let error = read(text, &Known).expect_err(text).to_string();
            assert!(
                error.contains(wanted),
                "{wanted:?} is missing in {error}\nof {text}"
            );
            assert!(!error.contains("MfKQ"), "{error}");
        }
    }
}
