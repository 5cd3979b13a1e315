//! Values of settings, and which ones a key takes.

use std::{fmt, net::SocketAddr, path::PathBuf};

use super::Key;
use crate::log::jetstream::without_credentials;

/// Which values a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text, not empty.
    Text,
    /// Text; empty means not set.
    OptionalText,
    /// A path, not empty.
    Path,
    /// A path; empty means not set.
    OptionalPath,
    /// An IP address and a port.
    Address,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
        /// What it counts.
        unit: &'static str,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// A value of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text, path, address or choice.
    Text(String),
    /// A whole number.
    Integer(u64),
    /// A truth value.
    Bool(bool),
}

impl Kind {
    /// Reads a value as it stands in an environment variable or flag.
    ///
    /// # Errors
    /// Why it cannot be, and what would be right.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let value = match self {
            Kind::Integer { .. } => match text.trim().replace('_', "").parse::<i128>() {
                Ok(number) => return self.check_integer(number),
                Err(_) => return Err(format!("is {text:?}; it takes {self}")),
            },
            Kind::Bool => match text.trim() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                _ => return Err(format!("is {text:?}; it takes {self}")),
            },
            _ => Value::Text(text.to_owned()),
        };
        self.check(value)
    }

    /// Checks a number against the range.
    ///
    /// # Errors
    /// If it is out of range, or the key takes no numbers.
    pub fn check_integer(&self, number: i128) -> Result<Value, String> {
        let Kind::Integer { min, max, .. } = *self else {
            return Err(format!("is the number {number}; it takes {self}"));
        };
        match u64::try_from(number) {
            Ok(number) if (min..=max).contains(&number) => Ok(Value::Integer(number)),
            _ => Err(format!("is {number}; it takes {self}")),
        }
    }

    /// Checks a text or truth value.
    ///
    /// # Errors
    /// If it is none of those that the key takes.
    pub fn check(&self, value: Value) -> Result<Value, String> {
        let fits = match (self, &value) {
            (Kind::OptionalText | Kind::OptionalPath, Value::Text(_)) => true,
            (Kind::Text | Kind::Path, Value::Text(text)) => !text.trim().is_empty(),
            (Kind::Address, Value::Text(text)) => text.parse::<SocketAddr>().is_ok(),
            (Kind::Choice(words), Value::Text(text)) => words.contains(&text.as_str()),
            (Kind::Bool, Value::Bool(_)) => true,
            (Kind::Integer { .. }, Value::Integer(number)) => {
                return self.check_integer(i128::from(*number));
            }
            _ => false,
        };
        if fits {
            Ok(value)
        } else {
            Err(format!("is {value}; it takes {self}"))
        }
    }
}

/// Says which values the kind takes.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Text => f.write_str("text"),
            Kind::OptionalText => f.write_str("text; empty: not set"),
            Kind::Path => f.write_str("a path"),
            Kind::OptionalPath => f.write_str("a path; empty: not set"),
            Kind::Address => f.write_str("an IP address and port, as 127.0.0.1:7420"),
            Kind::Bool => f.write_str("true or false"),
            Kind::Integer { min, max, unit } => {
                write!(f, "a whole number from {min} to {max} ({unit})")
            }
            Kind::Choice(words) => {
                for (n, word) in words.iter().enumerate() {
                    let before = match n {
                        0 => "",
                        _ if n + 1 == words.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{before}\"{word}\"")?;
                }
                Ok(())
            }
        }
    }
}

impl Value {
    /// The text; empty for what is none.
    pub fn as_text(&self) -> &str {
        match self {
            Value::Text(text) => text,
            _ => "",
        }
    }

    fn as_integer(&self) -> u64 {
        match self {
            Value::Integer(number) => *number,
            _ => 0,
        }
    }

    /// The value as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Text(text) => text.as_str().into(),
            Value::Integer(number) => (*number).into(),
            Value::Bool(truth) => (*truth).into(),
        }
    }

    /// The same without the user and password that a URL may hold, to be shown.
    pub fn redacted(&self) -> Value {
        let Value::Text(text) = self else {
            return self.clone();
        };
        Value::Text(without_credentials(text))
    }
}

/// As TOML.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => toml::Value::String(text.clone()).fmt(f),
            Value::Integer(number) => {
                // Grouped by three, as TOML allows: 200_000_000 is easier to check than nine digits.
                let digits = number.to_string();
                for (n, digit) in digits.chars().enumerate() {
                    if n > 0 && (digits.len() - n).is_multiple_of(3) {
                        f.write_str("_")?;
                    }
                    write!(f, "{digit}")?;
                }
                Ok(())
            }
            Value::Bool(truth) => truth.fmt(f),
        }
    }
}

impl Key {
    /// Its default.
    pub fn default_value(&self) -> Value {
        self.kind
            .parse(self.default)
            .expect("a test parses the default of every key")
    }
}

/// What a setting is in [`super::Config`]. The value has been checked against the key's kind.
pub(super) trait FromValue {
    fn from_value(value: &Value) -> Self;
}

impl FromValue for String {
    fn from_value(value: &Value) -> Self {
        value.as_text().to_owned()
    }
}

impl FromValue for Option<String> {
    fn from_value(value: &Value) -> Self {
        let text = value.as_text().trim();
        (!text.is_empty()).then(|| text.to_owned())
    }
}

impl FromValue for PathBuf {
    fn from_value(value: &Value) -> Self {
        PathBuf::from(value.as_text())
    }
}

impl FromValue for Option<PathBuf> {
    fn from_value(value: &Value) -> Self {
        Option::<String>::from_value(value).map(PathBuf::from)
    }
}

impl FromValue for SocketAddr {
    fn from_value(value: &Value) -> Self {
        value.as_text().parse().expect("the kind has checked it")
    }
}

impl FromValue for u64 {
    fn from_value(value: &Value) -> Self {
        value.as_integer()
    }
}

impl FromValue for u32 {
    fn from_value(value: &Value) -> Self {
        u32::try_from(value.as_integer()).expect("the key's range fits")
    }
}

impl FromValue for usize {
    fn from_value(value: &Value) -> Self {
        usize::try_from(value.as_integer()).expect("the key's range fits")
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Self {
        matches!(value, Value::Bool(true))
    }
}
