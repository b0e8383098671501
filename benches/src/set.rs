//! The set of calls that all benches take: 90 days in the order of time; 50 prompts of 3 versions, 12 models
//! of 3 providers, 3 environments, log-normal latencies, 3 % failures. The dimensions are independent and
//! skewed.
//! Invariant: what a call is follows from the seed and its number alone, so that any part of a set can
//! be made again, and counted, without a store.

use std::time::Duration;

use prompt_engine_core::{
    CostConfigId, ErrorCategory, Label, Prompt, PromptId, PromptStatus, PromptVersion, Status,
    TimeRange, Timestamp,
};

/// 2025-01-01T00:00:00Z in microseconds.
const FROM_MICROS: i64 = 1_735_689_600_000_000;
const DAY_MICROS: i64 = 24 * 3_600 * 1_000_000;
const PROVIDERS: [&str; 3] = ["openai", "anthropic", "google"];
const ENVIRONMENTS: [&str; 3] = ["production", "staging", "development"];
/// Versions that each prompt has.
const VERSIONS: usize = 3;
/// A session is one of so many …
const SESSIONS_AT_ONCE: u64 = 100;
/// … among so many calls.
const SESSION_CALLS: u64 = 2_000;
const USERS: u64 = 20_000;
/// What a failure that is no timeout is, the most frequent first, with its HTTP status.
const FAILURES: [(ErrorCategory, Option<u16>); 5] = [
    (ErrorCategory::RateLimit, Some(429)),
    (ErrorCategory::Overloaded, Some(529)),
    (ErrorCategory::Server, Some(500)),
    (ErrorCategory::Network, None),
    (ErrorCategory::ContextLength, Some(400)),
];

/// What is drawn for a call: each has numbers of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Facts = 0,
    Ids = 1,
    Texts = 2,
    Users = 3,
}

/// A call in numbers: what it counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact {
    /// When it was rendered, in microseconds.
    pub rendered_at: i64,
    /// When it was sent.
    pub sent_at: i64,
    /// The place of its prompt in [`Set::prompts`].
    pub prompt: usize,
    /// The number of its version.
    pub version: u32,
    /// The place of its environment in [`Set::environments`].
    pub environment: usize,
    /// The place of its model in [`Set::models`].
    pub model: usize,
    /// The number of its session.
    pub session: u64,
    /// The number of its user.
    pub user: u64,
    /// How it ended: success, error or timeout.
    pub status: Status,
    /// Why it failed.
    pub category: Option<ErrorCategory>,
    /// The HTTP status of the answer.
    pub http_status: Option<u16>,
    /// Input tokens; 0 where it failed, and none are known.
    pub input: u64,
    /// Output tokens, likewise.
    pub output: u64,
    /// Its cost; 0 where it failed, and none is known.
    pub cost_pico: u64,
    /// How long it took.
    pub latency_ms: u64,
}

/// A set: so many calls of a seed over so many days.
#[derive(Debug, Clone)]
pub struct Set {
    seed: u64,
    calls: u64,
    days: u32,
    step: i64,
    prompts: Vec<PromptId>,
    models: Vec<(Label, Label)>,
    environments: Vec<Label>,
    config: CostConfigId,
}

impl Set {
    /// The most days that a set may have.
    pub const MOST_DAYS: u32 = 3_650;

    /// The set of `seed`: `calls` calls spread over `days` days. Calls beyond them go on in the same way.
    ///
    /// # Panics
    /// If a name of the set is no label, which would be a mistake in this file.
    pub fn new(seed: u64, calls: u64, days: u32) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let label = |text: &str| Label::new(text).expect("the names here are labels");
        let span = i64::from(days) * DAY_MICROS;
        Self {
            seed,
            calls,
            days,
            step: (span / i64::try_from(calls.max(1)).unwrap_or(i64::MAX)).max(1),
            prompts: (0..50).map(|_| PromptId::from_bytes(id(&mut rng, FROM_MICROS))).collect(),
            models: (0..12)
                .map(|n| {
                    (label(PROVIDERS[n % 3]), label(&format!("{}-model-{n}", PROVIDERS[n % 3])))
                })
                .collect(),
            environments: ENVIRONMENTS.map(label).to_vec(),
            config: CostConfigId::from_bytes(id(&mut rng, FROM_MICROS)),
        }
    }

    /// How many calls there are.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Over how many days.
    pub fn days(&self) -> u32 {
        self.days
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The prompts.
    pub fn prompts(&self) -> &[PromptId] {
        &self.prompts
    }

    /// The providers and models.
    pub fn models(&self) -> &[(Label, Label)] {
        &self.models
    }

    /// The environments.
    pub fn environments(&self) -> &[Label] {
        &self.environments
    }

    /// The price that all calls name.
    pub(crate) fn config(&self) -> CostConfigId {
        self.config
    }

    /// The slug of the prompt at a place.
    pub fn slug(prompt: usize) -> String {
        format!("prompt-{prompt:02}")
    }

    /// The session of a number.
    pub fn session(number: u64) -> Label {
        Label::lossy(&format!("session-{number}"))
    }

    /// The days of the set.
    pub fn range(&self) -> TimeRange {
        let to = FROM_MICROS + i64::from(self.days) * DAY_MICROS;
        TimeRange { from: Some(moment(FROM_MICROS)), to: Some(moment(to)) }
    }

    /// The prompts as a store keeps them, `note` the description of the first.
    pub fn stored_prompts(&self, note: &str) -> Vec<(Prompt, Vec<PromptVersion>)> {
        let at = moment(FROM_MICROS);
        let prompt = |(place, id): (usize, &PromptId)| {
            let versions: Vec<PromptVersion> = (1..=3)
                .map(|number| PromptVersion {
                    prompt_id: *id,
                    number,
                    content: format!("Prompt {place}, version {number}: {{{{name}}}}"),
                    system_message: None,
                    model: None,
                    temperature: None,
                    max_tokens: None,
                    metadata: serde_json::json!({}),
                    change_description: None,
                    author: None,
                    created_at: at,
                })
                .collect();
            let prompt = Prompt {
                id: *id,
                slug: Self::slug(place).parse().expect("the names here are slugs"),
                name: format!("Prompt {place}"),
                description: (place == 0).then(|| note.to_owned()),
                status: PromptStatus::Active,
                parameters: Vec::new(),
                active_version: Some(3),
                latest_version: 3,
                revision: 1,
                created_at: at,
                updated_at: at,
            };
            (prompt, versions)
        };
        self.prompts.iter().enumerate().map(prompt).collect()
    }

    /// The numbers of a stream of a call.
    pub(crate) fn random(&self, call: u64, stream: Stream) -> fastrand::Rng {
        fastrand::Rng::with_seed(mixed(self.seed, call, stream))
    }

    /// The ids of the usage and of the execution of a call.
    pub fn ids(&self, call: u64, fact: &Fact) -> ([u8; 16], [u8; 16]) {
        let mut rng = self.random(call, Stream::Ids);
        (id(&mut rng, fact.rendered_at), id(&mut rng, fact.sent_at))
    }

    /// The call of a number in numbers.
    pub fn fact(&self, call: u64) -> Fact {
        let mut rng = self.random(call, Stream::Facts);
        let number = i64::try_from(call).unwrap_or(i64::MAX);
        let start = FROM_MICROS.saturating_add(number.saturating_mul(self.step));
        let rendered_at = start + rng.i64(0..self.step);
        // A few milliseconds from the render to the request.
        let sent_at = rendered_at + rng.i64(200..Self::MOST_DELAY_MICROS);
        let prompt = skewed(&mut rng, self.prompts.len());
        let version = u32::try_from(skewed(&mut rng, VERSIONS)).unwrap_or(0);
        let model = skewed(&mut rng, self.models.len());
        let environment = skewed(&mut rng, self.environments.len());
        let session = call / SESSION_CALLS * SESSIONS_AT_ONCE + rng.u64(..SESSIONS_AT_ONCE);
        // A session is of one user.
        let user = mixed(self.seed, session, Stream::Users) % USERS;
        let latency_ms = latency_ms(&mut rng);
        let (status, category, http_status) = outcome(&mut rng);
        let (mut input, mut output) = (rng.u64(300..600), rng.u64(200..500));
        if status != Status::Success {
            (input, output) = (0, 0);
        }
        // Prices differ from model to model: a sum over the wrong ones is seen.
        let rate = 250_000 * (1 + u64::try_from(model).unwrap_or(0));
        Fact {
            rendered_at,
            sent_at,
            prompt,
            version: 3 - version,
            environment,
            model,
            session,
            user,
            status,
            category,
            http_status,
            input,
            output,
            cost_pico: rate * (input + 4 * output),
            latency_ms,
        }
    }

    /// The longest time from a render to its request, in microseconds.
    pub(crate) const MOST_DELAY_MICROS: i64 = 5_000;

    /// The first call that was rendered at `micros` or later; at most the number of calls.
    pub fn first_from(&self, micros: i64) -> u64 {
        let near = micros.saturating_sub(FROM_MICROS).div_euclid(self.step);
        let mut call = u64::try_from(near).unwrap_or(0);
        while call < self.calls && self.fact(call).rendered_at < micros {
            call += 1;
        }
        call.min(self.calls)
    }
}

/// The moment of `micros`.
///
/// # Panics
/// Beyond the year 9999, where no set is.
pub(crate) fn moment(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).expect("a moment of the days of a set")
}

/// A number that shows nothing of what it is made of (SplitMix64).
fn mixed(seed: u64, call: u64, stream: Stream) -> u64 {
    let place = call.wrapping_mul(4).wrapping_add(stream as u64).wrapping_add(1);
    let mut z = seed.wrapping_mul(0xd134_2543_de82_ef95);
    z = z.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Skewed: the lesser of two draws, so that the first is drawn most often.
fn skewed(rng: &mut fastrand::Rng, below: usize) -> usize {
    rng.usize(..below).min(rng.usize(..below))
}

/// Log-normal around 900 ms.
fn latency_ms(rng: &mut fastrand::Rng) -> u64 {
    let (u, v) = (1.0 - rng.f64(), rng.f64());
    let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    let seconds = 0.9 * (0.7 * normal).exp();
    let latency = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(60));
    u64::try_from(latency.as_millis()).unwrap_or(60_000)
}

/// 3 % fail, a fifth of them by timeout.
fn outcome(rng: &mut fastrand::Rng) -> (Status, Option<ErrorCategory>, Option<u16>) {
    match rng.u32(..1_000) {
        0..6 => (Status::Timeout, Some(ErrorCategory::Timeout), None),
        6..30 => {
            let (category, http_status) = FAILURES[skewed(rng, FAILURES.len())];
            (Status::Error, Some(category), http_status)
        }
        _ => (Status::Success, None, Some(200)),
    }
}

/// The bytes of a UUIDv7 of the moment `micros`.
fn id(rng: &mut fastrand::Rng, micros: i64) -> [u8; 16] {
    let mut bytes = rng.u128(..).to_be_bytes();
    bytes[..6].copy_from_slice(&(micros / 1_000).to_be_bytes()[2..]);
    bytes[6] = 0x70 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_found_by_its_moment() {
        let set = Set::new(3, 10_000, 90);
        let mut last = i64::MIN;
        for call in 0..10_000 {
            let fact = set.fact(call);
            assert!(fact.rendered_at > last, "calls are in the order of time");
            assert_eq!(set.first_from(fact.rendered_at), call);
            assert_eq!(set.first_from(last + 1), call);
            last = fact.rendered_at;
        }
        assert_eq!(set.first_from(last + 1), 10_000);
        assert!(set.range().contains(moment(last)));
    }

    #[test]
    fn a_set_is_what_it_says() {
        let set = Set::new(3, 100_000, 90);
        let facts: Vec<Fact> = (0..set.calls()).map(|call| set.fact(call)).collect();
        let failed = facts.iter().filter(|fact| fact.status != Status::Success).count();
        assert!((2_700..3_300).contains(&failed), "{failed} of 100,000 failed");
        let mut latencies: Vec<u64> = facts.iter().map(|fact| fact.latency_ms).collect();
        latencies.sort_unstable();
        assert!((880..920).contains(&latencies[50_000]), "{} ms", latencies[50_000]);
        let of_first = facts.iter().filter(|fact| fact.prompt == 0).count();
        let of_last = facts.iter().filter(|fact| fact.prompt == 49).count();
        assert!(of_first > 3_500 && (1..100).contains(&of_last), "{of_first} and {of_last}");
        assert_ne!(set.fact(5), Set::new(4, 100_000, 90).fact(5), "another seed, another set");
    }
}
