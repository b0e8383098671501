//! Takes the secrets of a request out of what a server echoes.
//! Invariant: what a server says reaches no error before it came through here.

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// What is shorter is a placeholder, or the beginning of any ordinary word.
const LEAST: usize = 4;

/// The secrets that one request carried, also as JSON and as URLs may write them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Redactor(Vec<SecretString>);

impl Redactor {
    pub(crate) fn new(secrets: impl IntoIterator<Item = SecretString>) -> Self {
        let long = secrets.into_iter().filter(|secret| secret.expose_secret().len() >= LEAST);
        let mut secrets: Vec<_> = long.flat_map(forms).collect();
        // One that holds another goes first, or its rest would stay.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose_secret().len()));
        Self(secrets)
    }

    pub(crate) fn text(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| {
            text.replace(secret.expose_secret(), "[redacted]")
        })
    }

    /// The same of a text that was cut: a part of a secret at its end goes, too.
    pub(crate) fn start(&self, start: &str) -> String {
        let mut text = self.text(start);
        let cut = |secret: &SecretString| {
            let secret = secret.expose_secret();
            let ends = secret.char_indices().map(|(end, _)| end).rev();
            ends.filter(|end| *end >= LEAST).find(|end| text.ends_with(&secret[..*end]))
        };
        if let Some(part) = self.0.iter().filter_map(cut).max() {
            text.truncate(text.len() - part);
        }
        text
    }

    pub(crate) fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(name, item)| (self.text(name), self.value(item))).collect()
            }
            other => other.clone(),
        }
    }
}

/// `secret` as it is, and as a server may write it that escapes what it echoes.
fn forms(secret: SecretString) -> Vec<SecretString> {
    let plain = secret.expose_secret();
    let in_json = plain.replace('/', "\\/");
    let in_url: String = url::form_urlencoded::byte_serialize(plain.as_bytes()).collect();
    let others = [in_json, in_url].into_iter().filter(|form| form != plain);
    let others: Vec<SecretString> = others.map(SecretString::from).collect();
    others.into_iter().chain([secret]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_in_the_forms_that_servers_write() {
        let redactor = Redactor::new(["k/0+nt3r".into()]);
        for echo in ["k/0+nt3r", "k\\/0+nt3r", "k%2F0%2Bnt3r"] {
            assert_eq!(redactor.text(&format!("<{echo}>")), "<[redacted]>");
        }
    }

    #[test]
    fn a_part_of_a_secret_at_a_cut_goes_with_it() {
        let redactor = Redactor::new(["sk-h0nt3r".into()]);
        assert_eq!(redactor.start("the key sk-h0n"), "the key ");
        assert_eq!(redactor.start("the key sk-h0nt3r"), "the key [redacted]");
        assert_eq!(redactor.start("nothing of it"), "nothing of it");
        assert_eq!(redactor.start("it ends as many words"), "it ends as many words");
    }
}
