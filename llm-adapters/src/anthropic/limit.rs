//! The most output tokens that a model can make.
//! Source: "Max output" on the page of each model under
//! <https://platform.claude.com/docs/en/about-claude/models/overview>, November 2026.

/// Of a model that is not known, by its name at least.
const UNKNOWN: u32 = 64_000;

/// The most output tokens of `model`, whose name may be a router's or a cloud's.
pub(super) fn max_output(model: &str) -> u32 {
    let Some((_, name)) = model.split_once("claude-") else { return UNKNOWN };
    let words = || name.split(|c: char| !c.is_ascii_alphanumeric());
    let is = |family: &str| words().any(|word| word == family);
    if is("fable") || is("mythos") {
        return 128_000;
    }
    // Longer numbers are dates.
    let mut numbers = words().filter(|word| word.len() <= 2).filter_map(|word| word.parse().ok());
    let Some(major) = numbers.next() else { return UNKNOWN };
    let version: (u32, u32) = (major, numbers.next().unwrap_or(0));
    match version {
        (..=2, _) | (3, ..=4) => 4_096,
        (3, 5..=6) => 8_192,
        (4, ..=4) if is("opus") => 32_000,
        (3, _) | (4, ..=5) => 64_000,
        _ => 128_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_the_limit_of_its_page() {
        for (limit, models) in [
            (4_096, &["claude-3-opus-20240229", "claude-3-haiku-20240307", "claude-2.1"][..]),
            (8_192, &["claude-3-5-sonnet-20241022", "claude-3-5-haiku-latest", "claude-3.5-haiku"]),
            (32_000, &["claude-opus-4-20250514", "claude-opus-4-0", "claude-opus-4-1-20250805"]),
            (
                64_000,
                &[
                    "claude-3-7-sonnet-latest",
                    "claude-sonnet-4-20250514",
                    "anthropic/claude-4.5-sonnet",
                    "claude-haiku-4-5-20251001",
                    "us.anthropic.claude-opus-4-5-20251101-v1:0",
                    "claude-next",
                    "glm-4.6",
                    "",
                ],
            ),
            (
                128_000,
                &[
                    "claude-opus-4-6",
                    "claude-sonnet-4-6",
                    "claude-opus-4-8",
                    "claude-opus-5",
                    "claude-sonnet-5-5",
                    "claude-haiku-5-5-v1",
                    "claude-fable-5-1",
                    "claude-mythos-preview",
                ],
            ),
        ] {
            for model in models {
                assert_eq!(max_output(model), limit, "{model}");
            }
        }
    }
}
