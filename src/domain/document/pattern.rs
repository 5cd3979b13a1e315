//! Patterns for location names, matched character by character.
//!
//! They are our own because what they match decides the state of every replica: it must neither
//! change with a library's version nor, as matchers made for file paths do, treat `/` or a letter
//! with an accent in a special way.

use crate::limits;

/// A pattern for location names.
///
/// `*` stands for any characters or none, `?` for exactly one, `[abc]` and `[a-z]` for one of
/// those listed, `[!abc]` for one not listed. Everything else stands for itself; `[*]` is a star.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    tokens: Box<[Token]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    One(char),
    AnyOne,
    AnyRun,
    Class {
        negated: bool,
        ranges: Box<[(char, char)]>,
    },
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Token::One(own) => *own == c,
            Token::AnyOne => true,
            Token::AnyRun => false,
            Token::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

impl Pattern {
    /// Whether `text` is meant as a pattern, right or wrong, and not as a name.
    ///
    /// Braces count: other tools know `{a,b}`, and to take it for a name would silently match
    /// nothing.
    pub fn is_meant(text: &str) -> bool {
        text.contains(['*', '?', '[', ']', '{', '}'])
    }

    /// Reads a pattern of 1 to [`limits::RULES_PATTERN_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// What is wrong with it, to be read after the pattern itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > limits::RULES_PATTERN_BYTES_MAX {
            return Err(format!(
                "has {} bytes; a pattern has at most {}",
                text.len(),
                limits::RULES_PATTERN_BYTES_MAX
            ));
        }
        let mut tokens = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let token = match c {
                '*' => Token::AnyRun,
                '?' => Token::AnyOne,
                '[' => class(&mut rest)?,
                ']' => return Err("has a `]` without a `[` before it".to_owned()),
                '{' | '}' => {
                    return Err(format!("has a `{c}`; write one entry for each alternative"));
                }
                c => Token::One(c),
            };
            // Two stars say no more than one, and one keeps matching fast.
            if !(token == Token::AnyRun && tokens.last() == Some(&Token::AnyRun)) {
                tokens.push(token);
            }
        }
        Ok(Self {
            tokens: tokens.into(),
        })
    }

    /// Whether the whole of `name` matches.
    ///
    /// Never slower than the length of the pattern times that of the name.
    pub fn matches(&self, name: &str) -> bool {
        let mut at = 0;
        let mut rest = name.chars();
        // Where to go on if the match fails: behind the latest star, which then takes one
        // character more. An earlier star need never be tried again.
        let mut retry = None;
        loop {
            if self.tokens.get(at) == Some(&Token::AnyRun) {
                at += 1;
                retry = Some((at, rest.clone()));
                continue;
            }
            let mut ahead = rest.clone();
            match (self.tokens.get(at), ahead.next()) {
                (None, None) => return true,
                (Some(token), Some(c)) if token.takes(c) => {
                    at += 1;
                    rest = ahead;
                }
                _ => {
                    let Some((behind_star, taken)) = &mut retry else {
                        return false;
                    };
                    if taken.next().is_none() {
                        return false;
                    }
                    at = *behind_star;
                    rest = taken.clone();
                }
            }
        }
    }
}

/// Reads a class, from behind its `[` to behind its `]`.
fn class(rest: &mut std::str::Chars<'_>) -> Result<Token, String> {
    let unclosed = || "has a `[` without a `]` after it".to_owned();
    let mut body = rest.clone();
    let negated = body.next() == Some('!');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        let low = rest.next().ok_or_else(unclosed)?;
        if low == ']' {
            break;
        }
        let mut ahead = rest.clone();
        let high = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(high)) if high != ']' => {
                *rest = ahead;
                high
            }
            _ => low,
        };
        if high < low {
            return Err(format!("has the range `{low}-{high}`, which is backwards"));
        }
        ranges.push((low, high));
    }
    if ranges.is_empty() {
        return Err("has `[]` or `[!]`, with no characters in it".to_owned());
    }
    Ok(Token::Class {
        negated,
        ranges: ranges.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_whole_names() {
        // Pattern, names that match, names that do not.
        let table: &[(&str, &[&str], &[&str])] = &[
            (
                "store-*",
                &["store-", "store-001", "store-a/b"],
                &["store", "my-store-1", "STORE-1"],
            ),
            ("*", &["", "x", "dc-east"], &[]),
            ("**-x", &["-x", "a-x"], &["x"]),
            ("dc-?", &["dc-1", "dc-é"], &["dc-", "dc-12"]),
            ("dc-[0-4]", &["dc-0", "dc-4"], &["dc-5", "dc-"]),
            ("dc-[!0-4x]", &["dc-5", "dc-y"], &["dc-0", "dc-x", "dc-"]),
            ("[*]a", &["*a"], &["aa"]),
            ("a[b-]", &["ab", "a-"], &["ac"]),
            (
                "*-a-*-b",
                &["x-a-y-b", "-a-a-b-b"],
                &["x-a-b", "x-a-y-bb-c"],
            ),
        ];
        for (pattern, yes, no) in table {
            let compiled = Pattern::parse(pattern).unwrap();
            for name in *yes {
                assert!(compiled.matches(name), "{pattern} should match {name:?}");
            }
            for name in *no {
                assert!(
                    !compiled.matches(name),
                    "{pattern} should not match {name:?}"
                );
            }
        }
    }

    #[test]
    fn wrong_patterns_say_why() {
        let table = [
            ("a[bc", "has a `[` without a `]` after it"),
            ("a]", "has a `]` without a `[` before it"),
            ("a[]", "has `[]` or `[!]`, with no characters in it"),
            ("a[!]", "has `[]` or `[!]`, with no characters in it"),
            ("[9-0]", "has the range `9-0`, which is backwards"),
            ("{a,b}", "has a `{`; write one entry for each alternative"),
        ];
        for (pattern, why) in table {
            assert_eq!(Pattern::parse(pattern).unwrap_err(), why, "{pattern}");
        }
        let long = "*a".repeat(65);
        assert_eq!(
            Pattern::parse(&long).unwrap_err(),
            "has 130 bytes; a pattern has at most 128"
        );
    }

    /// The obvious definition: try every length for every star.
    fn matches_slowly(tokens: &[Token], name: &[char]) -> bool {
        match tokens.split_first() {
            None => name.is_empty(),
            Some((Token::AnyRun, others)) => {
                (0..=name.len()).any(|n| matches_slowly(others, &name[n..]))
            }
            Some((token, others)) => name
                .split_first()
                .is_some_and(|(c, later)| token.takes(*c) && matches_slowly(others, later)),
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_its_definition(
            pattern in "([ab*?é]|\\[a-b\\]|\\[!a\\]){0,8}",
            name in "[abcé]{0,8}",
        ) {
            let compiled = Pattern::parse(&pattern).unwrap();
            let chars: Vec<char> = name.chars().collect();
            prop_assert_eq!(
                compiled.matches(&name),
                matches_slowly(&compiled.tokens, &chars)
            );
        }

        #[test]
        fn no_text_makes_parsing_panic(text in ".{0,40}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                pattern.matches("store-001");
            }
        }
    }
}
