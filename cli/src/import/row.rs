//! What a row can say, how it is read from text, and the identity that follows from it.
//! Invariant: the id of a row depends on its moment, its fields and its place among equal rows,
//! and on nothing else, so that a file can be imported again after it grew.

use std::str::FromStr;

use prompt_engine::{Label, Slug, Status, Timestamp, TokenCounts, TokenUsage, Zone, parse_moment};
use sha2::{Digest, Sha256};

macro_rules! fields {
    ($($variant:ident $name:literal),* $(,)?) => {
        /// What a column or a fixed value can stand for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Field { $($variant),* }

        impl Field {
            const ALL: &[Self] = &[$(Self::$variant),*];

            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

fields! {
    CreatedAt "created_at", Prompt "prompt", Version "version", Provider "provider",
    Model "model", ResponseModel "response_model", Environment "environment",
    Session "session", User "user", InputTokens "input_tokens", OutputTokens "output_tokens",
    CacheReadTokens "cache_read_tokens", CacheWriteTokens "cache_write_tokens",
    CacheWrite1hTokens "cache_write_1h_tokens", ReasoningTokens "reasoning_tokens",
    AudioInputTokens "audio_input_tokens", AudioOutputTokens "audio_output_tokens",
    ServiceTier "service_tier", LatencyMs "latency_ms",
    TimeToFirstTokenMs "time_to_first_token_ms", ResponseContent "response_content",
    Status "status",
}

impl Field {
    /// Fields without which nothing can be imported.
    pub(super) const REQUIRED: [Self; 4] =
        [Self::CreatedAt, Self::Prompt, Self::Provider, Self::Model];
    /// Counts that are part of the input or the output.
    pub(super) const TOKEN_PARTS: [Self; 6] = [
        Self::CacheReadTokens,
        Self::CacheWriteTokens,
        Self::CacheWrite1hTokens,
        Self::ReasoningTokens,
        Self::AudioInputTokens,
        Self::AudioOutputTokens,
    ];
}

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|field| field.name() == text).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|field| field.name()).collect();
            format!("there is no field {text:?}; there are {}", all.join(", "))
        })
    }
}

/// One call of the past, as far as its file tells.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) at: Option<Timestamp>,
    pub(super) prompt: Option<Slug>,
    pub(super) version: Option<u32>,
    pub(super) provider: Option<Label>,
    pub(super) model: Option<Label>,
    pub(super) response_model: Option<Label>,
    pub(super) environment: Option<Label>,
    pub(super) session: Option<Label>,
    pub(super) user: Option<Label>,
    pub(super) input: Option<u64>,
    pub(super) output: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    cache_write_1h: Option<u64>,
    reasoning: Option<u64>,
    audio_input: Option<u64>,
    audio_output: Option<u64>,
    pub(super) service_tier: Option<Label>,
    pub(super) latency_ms: Option<u64>,
    pub(super) time_to_first_token_ms: Option<u64>,
    pub(super) response_content: Option<String>,
    pub(super) status: Option<Status>,
}

impl Row {
    /// Sets `field` to what `text` says.
    pub(super) fn put(&mut self, field: Field, text: &str, zone: Zone) -> Result<(), String> {
        let label = || Label::new(text).map(Some).map_err(|error| error.to_string());
        match field {
            Field::CreatedAt => self.at = Some(moment(text, zone)?),
            Field::Prompt => self.prompt = Some(Slug::new(text).map_err(|e| e.to_string())?),
            Field::Version => {
                let number = whole(text)?;
                let number = u32::try_from(number).ok().filter(|number| *number > 0);
                self.version = Some(number.ok_or_else(|| format!("{text:?} is no version"))?);
            }
            Field::Provider => self.provider = label()?,
            Field::Model => self.model = label()?,
            Field::ResponseModel => self.response_model = label()?,
            Field::Environment => self.environment = label()?,
            Field::Session => self.session = label()?,
            Field::User => self.user = label()?,
            Field::InputTokens => self.input = Some(tokens(text)?),
            Field::OutputTokens => self.output = Some(tokens(text)?),
            Field::CacheReadTokens => self.cache_read = Some(tokens(text)?),
            Field::CacheWriteTokens => self.cache_write = Some(tokens(text)?),
            Field::CacheWrite1hTokens => self.cache_write_1h = Some(tokens(text)?),
            Field::ReasoningTokens => self.reasoning = Some(tokens(text)?),
            Field::AudioInputTokens => self.audio_input = Some(tokens(text)?),
            Field::AudioOutputTokens => self.audio_output = Some(tokens(text)?),
            Field::ServiceTier => self.service_tier = label()?,
            Field::LatencyMs => self.latency_ms = Some(millis(text)?),
            Field::TimeToFirstTokenMs => self.time_to_first_token_ms = Some(millis(text)?),
            Field::ResponseContent => self.response_content = Some(text.to_owned()),
            Field::Status => {
                let status =
                    text.parse().map_err(|error: prompt_engine::Error| error.to_string())?;
                if status == Status::Pending {
                    return Err("a call of the past is not pending".to_owned());
                }
                self.status = Some(status);
            }
        }
        Ok(())
    }

    /// The tokens, checked; `None` where the row names none.
    pub(super) fn tokens(&self) -> Result<Option<TokenUsage>, String> {
        let (Some(input), Some(output)) = (self.input, self.output) else { return Ok(None) };
        let counts = TokenCounts {
            input,
            output,
            cache_read: self.cache_read.unwrap_or(0),
            cache_write: self.cache_write.unwrap_or(0),
            cache_write_1h: self.cache_write_1h.unwrap_or(0),
            reasoning: self.reasoning.unwrap_or(0),
            audio_input: self.audio_input.unwrap_or(0),
            audio_output: self.audio_output.unwrap_or(0),
        };
        counts.check().map(Some).map_err(|error| error.to_string())
    }

    /// The SHA-256 of all fields that the row has. It reads the same values from any file.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let text = |label: &Option<Label>| label.as_deref().map(str::to_owned);
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        for field in Field::ALL {
            let value = match field {
                Field::CreatedAt => self.at.map(|at| at.as_micros().to_string()),
                Field::Prompt => self.prompt.as_deref().map(str::to_owned),
                Field::Version => self.version.map(|version| version.to_string()),
                Field::Provider => text(&self.provider),
                Field::Model => text(&self.model),
                Field::ResponseModel => text(&self.response_model),
                Field::Environment => text(&self.environment),
                Field::Session => text(&self.session),
                Field::User => text(&self.user),
                Field::InputTokens => number(self.input),
                Field::OutputTokens => number(self.output),
                Field::CacheReadTokens => number(self.cache_read),
                Field::CacheWriteTokens => number(self.cache_write),
                Field::CacheWrite1hTokens => number(self.cache_write_1h),
                Field::ReasoningTokens => number(self.reasoning),
                Field::AudioInputTokens => number(self.audio_input),
                Field::AudioOutputTokens => number(self.audio_output),
                Field::ServiceTier => text(&self.service_tier),
                Field::LatencyMs => number(self.latency_ms),
                Field::TimeToFirstTokenMs => number(self.time_to_first_token_ms),
                Field::ResponseContent => self.response_content.clone(),
                Field::Status => self.status.map(|status| status.to_string()),
            };
            if let Some(value) = value {
                // With its length before it no value can be read as the start of the next.
                hash.update(format!("{}:{}:", field.name(), value.len()));
                hash.update(value);
            }
        }
        hash.finalize().into()
    }
}

/// The ids of the usage and the execution of the row that has `digest`, the `ordinal`th such row:
/// in the shape of a UUIDv7, its moment in milliseconds and then bits of a hash.
pub(super) fn ids(at: Timestamp, digest: &[u8; 32], ordinal: u32) -> ([u8; 16], [u8; 16]) {
    let mut hash = Sha256::new();
    hash.update(digest);
    hash.update(ordinal.to_be_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let millis = at.as_micros().div_euclid(1_000).to_be_bytes();
    let id = |bits: &[u8]| {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&millis[2..]);
        id[6..].copy_from_slice(bits);
        id[6] = 0x70 | (id[6] & 0x0f);
        id[8] = 0x80 | (id[8] & 0x3f);
        id
    };
    (id(&hash[..10]), id(&hash[10..20]))
}

fn moment(text: &str, zone: Zone) -> Result<Timestamp, String> {
    let text = text.trim();
    let at = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Ten digits are Unix seconds (2001 to 2286), thirteen are milliseconds of the same years.
        let scale = match text.len() {
            10 => 1_000_000,
            13 => 1_000,
            _ => return Err(format!("{text} is no time: neither Unix seconds nor milliseconds")),
        };
        let count: i64 = text.parse().map_err(|_| format!("{text} is no time"))?;
        Timestamp::from_micros(count * scale)
    } else {
        parse_moment(text, zone)
    };
    let at = at.map_err(|error| error.to_string())?;
    if at.as_micros() < 0 {
        return Err(format!("{text} is before 1970"));
    }
    Ok(at)
}

fn whole(text: &str) -> Result<u64, String> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| format!("{text} is too large"));
    }
    if text.strip_prefix('-').is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("{text} is negative"));
    }
    Err(format!("{text:?} is no whole number"))
}

fn tokens(text: &str) -> Result<u64, String> {
    match whole(text)? {
        count if count > TokenCounts::MAX => {
            Err(format!("{count} tokens are more than {}", TokenCounts::MAX))
        }
        count => Ok(count),
    }
}

/// Milliseconds, at most a year of them; decimals, as many clocks write them, are cut.
fn millis(text: &str) -> Result<u64, String> {
    const YEAR: u64 = 366 * 24 * 3_600 * 1_000;
    let text = text.trim();
    let (number, decimals) = text.split_once('.').unwrap_or((text, "0"));
    if decimals.is_empty() || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} is no number of milliseconds"));
    }
    match whole(number)? {
        count if count > YEAR => Err(format!("{text} milliseconds are more than a year")),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_documented_form() {
        let expected: Timestamp = "2023-11-16T18:17:03.979960Z".parse().unwrap();
        for text in [
            "2023-11-16 18:17:03.9799600",
            "2023-11-16T18:17:03.979960Z",
            "2023-11-16T19:17:03.97996+01:00",
        ] {
            assert_eq!(moment(text, Zone::UTC).unwrap(), expected, "{text}");
        }
        let berlin = moment("2023-11-16 19:17:03.97996", "Europe/Berlin".parse().unwrap());
        assert_eq!(berlin.unwrap(), expected);
        let second: Timestamp = "2023-11-16T18:17:03Z".parse().unwrap();
        assert_eq!(moment("1700158623", Zone::UTC).unwrap(), second);
        assert_eq!(moment("1700158623000", Zone::UTC).unwrap(), second);
        for text in ["20231116", "2023-02-30 10:00:00", "yesterday", "1969-12-31T00:00:00Z", ""] {
            assert!(moment(text, Zone::UTC).is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_is_a_uuidv7_of_the_moment_and_of_nothing_that_changes() {
        let row = |at: &str, output: &str| {
            let mut row = Row::default();
            row.put(Field::CreatedAt, at, Zone::UTC).unwrap();
            row.put(Field::OutputTokens, output, Zone::UTC).unwrap();
            row
        };
        let first = row("2023-11-16 18:17:03.9799600", "2");
        let same = row("2023-11-16T18:17:03.97996Z", "2");
        let other = row("2023-11-16T18:17:03.97996Z", "3");
        assert_eq!(first.digest(), same.digest());
        assert_ne!(first.digest(), other.digest());
        let at = first.at.unwrap();
        let (usage, execution) = ids(at, &first.digest(), 0);
        assert_ne!(usage, execution);
        assert_ne!(usage, ids(at, &first.digest(), 1).0);
        for id in [usage, execution] {
            let text = prompt_engine::UsageId::from_bytes(id).to_string();
            // 2023-11-16T18:17:03.979Z in milliseconds, version 7.
            assert!(text.starts_with("018bd959-d0eb-7"), "{text}");
            assert!(matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{text}");
        }
    }
}
