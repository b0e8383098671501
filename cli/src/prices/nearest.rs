//! The known names most like one that is not known.

use std::collections::BTreeSet;

use prompt_engine::CostConfig;

/// How many names are offered in place of one.
const OFFERED: usize = 3;
/// How alike a name must be to be offered, from 0 to 1.
const ALIKE: f64 = 0.55;

/// The names of `prices` most like `model`, best first, as `provider/model`.
pub(super) fn nearest<'a>(
    model: &str,
    prices: impl IntoIterator<Item = &'a CostConfig>,
) -> Vec<String> {
    let model = model.to_lowercase();
    let names: BTreeSet<(&str, &str)> =
        prices.into_iter().map(|price| (&*price.provider, &*price.model)).collect();
    let mut alike: Vec<(f64, (&str, &str))> = names
        .into_iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(&model, &name.1.to_lowercase()), name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    alike.into_iter().take(OFFERED).map(|(_, (of, name))| format!("{of}/{name}")).collect()
}

#[cfg(test)]
mod tests {
    use prompt_engine::Label;

    use super::*;

    #[test]
    fn the_nearest_names_come_best_first() {
        let known = [
            ("openai", "gpt-4o"),
            ("openai", "gpt-4o-mini"),
            ("aws", "nova-pro"),
            ("azure", "GPT-4o"),
        ];
        let label = |text| Label::new(text).unwrap();
        let prices = known.map(|(of, name)| CostConfig::new(label(of), label(name)));
        assert_eq!(nearest("gpt4o", &prices), ["azure/GPT-4o", "openai/gpt-4o"]);
        assert!(nearest("something-else", &prices).is_empty());
    }
}
