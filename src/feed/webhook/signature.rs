//! Signatures of requests, by the Standard Webhooks specification
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>):
//! HMAC-SHA256 over `id.timestamp.body`, in base64, with `v1,` before it.

use std::fmt::Write;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::hmac;

/// What a request is signed with. Several of them, while one takes the place of another: a receiver
/// takes a request if any of its signatures is right.
///
/// Its text never says what they are.
#[derive(Clone)]
pub struct Secrets(Vec<hmac::Key>);

/// Prefix of a secret in text.
const PREFIX: &str = "whsec_";
/// Bytes that a secret may have.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Secrets at once.
const COUNT_MAX: usize = 4;

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Reads secrets, with white space between them: `whsec_` and, in base64, 24 to 64 bytes.
    ///
    /// # Errors
    /// What is wrong, without saying what is there.
    pub fn parse(text: &str) -> Result<Self, String> {
        let key = |word: &str| {
            let word = word.strip_prefix(PREFIX);
            let word = word.ok_or(format!("it does not begin with `{PREFIX}`"))?;
            let bytes = BASE64_STANDARD.decode(word);
            let bytes = bytes.map_err(|_| format!("what follows `{PREFIX}` is not base64"))?;
            if !BYTES.contains(&bytes.len()) {
                let (min, max) = (BYTES.start(), BYTES.end());
                return Err(format!("it has {} bytes; {min} to {max}", bytes.len()));
            }
            Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        };
        let keys = text.split_whitespace().map(key);
        let keys = keys.collect::<Result<Vec<_>, String>>()?;
        match keys.len() {
            0 => Err("there is none".into()),
            1..=COUNT_MAX => Ok(Self(keys)),
            n => Err(format!("there are {n}; at most {COUNT_MAX}")),
        }
    }

    /// The value of `webhook-signature`: one for each secret, with spaces between them. `timestamp` is
    /// that of the attempt, in seconds since 1970.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut signatures = String::new();
        for key in &self.0 {
            let mut context = hmac::Context::with_key(key);
            context.update(format!("{id}.{timestamp}.").as_bytes());
            context.update(body);
            let between = if signatures.is_empty() { "" } else { " " };
            let signature = BASE64_STANDARD.encode(context.sign());
            write!(signatures, "{between}v1,{signature}").expect("text takes text");
        }
        signatures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn it_signs_as_the_reference_does() {
        let secrets = Secrets::parse(SECRET).expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(secrets.sign(ID, 1_614_265_330, body), SIGNATURE);
    }

    #[test]
    fn each_secret_signs() {
        let other = format!("whsec_{}", BASE64_STANDARD.encode([7; 32]));
        let both = Secrets::parse(&format!("{SECRET}\n{other}\n")).expect("two secrets");
        let body = br#"{"test": 2432232314}"#;
        let signed = both.sign(ID, 1_614_265_330, body);
        let (first, second) = signed.split_once(' ').expect("two signatures");
        assert_eq!(first, SIGNATURE);
        assert_ne!(second, SIGNATURE);
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_repeated() {
        for (text, why) in [
            (" \n", "there is none"),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "begin with `whsec_`"),
            ("whsec_MfKQ9r8!KYqrTwjUPD8ILPZIo2LaLaSw", "not base64"),
            ("whsec_MfKQ9r8GKYqrTwjU", "it has 12 bytes; 24 to 64"),
            (&[SECRET; 5].join(" "), "there are 5; at most 4"),
        ] {
            let error = Secrets::parse(text).expect_err(text);
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("MfKQ"), "{error}");
        }
        assert_eq!(format!("{:?}", Secrets::parse(SECRET)), "Ok(Secrets(1))");
    }
}
