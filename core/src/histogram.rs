//! Histograms of durations over fixed logarithmic buckets, the same on every platform and in every store.
//! Invariant: a bucket depends on integers alone; histograms add without loss.

/// `STEPS[i]` is the smallest 64-bit mantissa (top bit set) at or above `2^63 * 2^(i/64)`.
const STEPS: [u64; 64] = [
    0x8000000000000000,
    0x8164d1f3bc030774,
    0x82cd8698ac2ba1d8,
    0x843a28c3acde4047,
    0x85aac367cc487b15,
    0x871f61969e8d1011,
    0x88980e8092da8528,
    0x8a14d575496efd9b,
    0x8b95c1e3ea8bd6e7,
    0x8d1adf5b7e5ba9e6,
    0x8ea4398b45cd53c1,
    0x9031dc431466b1dd,
    0x91c3d373ab11c337,
    0x935a2b2f13e6e92c,
    0x94f4efa8fef70962,
    0x96942d3720185a01,
    0x9837f0518db8a970,
    0x99e0459320b7fa65,
    0x9b8d39b9d54e5539,
    0x9d3ed9a72cffb751,
    0x9ef5326091a111ae,
    0xa0b0510fb9714fc3,
    0xa27043030c496819,
    0xa43515ae09e6809f,
    0xa5fed6a9b15138eb,
    0xa7cd93b4e965356a,
    0xa9a15ab4ea7c0ef9,
    0xab7a39b5a93ed338,
    0xad583eea42a14ac7,
    0xaf3b78ad690a4375,
    0xb123f581d2ac2590,
    0xb311c412a911248a,
    0xb504f333f9de6485,
    0xb6fd91e328d17792,
    0xb8fbaf4762fb9eea,
    0xbaff5ab2133e45fc,
    0xbd08a39f580c36bf,
    0xbf1799b67a731083,
    0xc12c4cca66709457,
    0xc346ccda24976408,
    0xc5672a115506dade,
    0xc78d74c8abb9b15d,
    0xc9b9bd866e2f27a3,
    0xcbec14fef2727c5d,
    0xce248c151f8480e4,
    0xd06333daef2b2595,
    0xd2a81d91f12ae45b,
    0xd4f35aabcfedfa20,
    0xd744fccad69d6af5,
    0xd99d15c278afd7b6,
    0xdbfbb797daf23756,
    0xde60f4825e0e9124,
    0xe0ccdeec2a94e112,
    0xe33f8972be8a5a52,
    0xe5b906e77c8348a9,
    0xe8396a503c4bdc69,
    0xeac0c6e7dd24392f,
    0xed4f301ed9942b85,
    0xefe4b99bdcdaf5cc,
    0xf281773c59ffb13a,
    0xf5257d152486cc2d,
    0xf7d0df730ad13bb9,
    0xfa83b2db722a033b,
    0xfd3e0c0cf486c175,
];

/// The bucket of `value`: 0 has bucket 0, every power of two above has 64 buckets.
///
/// # Example: one bucket spans about 1.1 %
/// ```
/// use prompt_engine_core::histogram::bucket_of;
/// assert_eq!(bucket_of(0), 0);
/// assert_eq!(bucket_of(1), 1);
/// assert_eq!(bucket_of(2), 65);
/// assert_eq!(bucket_of(u64::MAX), 64 * 64);
/// ```
pub fn bucket_of(value: u64) -> u16 {
    if value == 0 {
        return 0;
    }
    let zeros = value.leading_zeros();
    let mantissa = value << zeros;
    let step = STEPS.partition_point(|bound| *bound <= mantissa) - 1;
    let power = 63 - zeros as usize;
    u16::try_from(1 + power * 64 + step).unwrap_or(u16::MAX)
}

/// The smallest integer in `bucket` or, where a narrow bucket holds none, in the first one above that does.
pub(crate) fn lower_bound(bucket: u16) -> u64 {
    if bucket == 0 {
        return 0;
    }
    let (power, step) = ((bucket - 1) / 64, usize::from((bucket - 1) % 64));
    if power > 63 {
        return u64::MAX;
    }
    let shift = 63 - u32::from(power);
    let bound = STEPS[step];
    (bound >> shift) + u64::from(bound & ((1_u64 << shift) - 1) != 0)
}

/// The value that stands for `bucket`: the geometric middle of the integers that fall into it,
/// so that a bucket of one integer is exact and any other within 0.6 %.
pub fn representative(bucket: u16) -> f64 {
    let first = lower_bound(bucket);
    let last = lower_bound(bucket.saturating_add(1)).saturating_sub(1).max(first);
    #[allow(clippy::cast_precision_loss, reason = "far within the 0.6 % of a bucket")]
    let middle = (first as f64).sqrt() * (last as f64).sqrt();
    if first == last { middle.round() } else { middle }
}

/// How often each bucket was hit, and the exact sum and count of the values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: Buckets,
    count: u64,
    sum: u128,
}

impl Histogram {
    /// A histogram of these buckets, of `count` values whose sum is `sum`.
    pub(crate) fn from_parts(buckets: Buckets, count: u64, sum: u128) -> Self {
        Self { buckets, count, sum }
    }

    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.buckets.add(bucket_of(value), 1);
        self.count += 1;
        self.sum += u128::from(value);
    }

    /// Counts one value without its bucket: there are no percentiles then.
    pub(crate) fn record_sum(&mut self, value: u64) {
        self.count += 1;
        self.sum += u128::from(value);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.buckets.merge(&other.buckets);
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Takes all of `other` away, which was added before.
    pub(crate) fn take(&mut self, other: &Self) {
        self.buckets.take(&other.buckets);
        self.count = self.count.saturating_sub(other.count);
        self.sum = self.sum.saturating_sub(other.sum);
    }

    /// Keeps the count and the sum alone: there are no percentiles any more.
    pub fn forget_buckets(&mut self) {
        self.buckets = Buckets::default();
    }

    /// The buckets that were hit.
    pub(crate) fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The exact sum of the values.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// The mean of the values; `None` when there are none.
    pub fn average(&self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss, reason = "a mean is shown, never added up")]
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    /// The highest bucket that, with those above it, has `values` hits; 0 where there are not so many.
    pub(crate) fn bucket_of_the_highest(&self, values: u64) -> u16 {
        let mut above = self.count;
        let reached = self.buckets.iter().take_while(|(_, times)| {
            let enough = above >= values;
            above = above.saturating_sub(*times);
            enough
        });
        reached.last().map_or(0, |(bucket, _)| bucket)
    }

    /// Whether a value lies in `bucket` or above.
    pub(crate) fn reaches(&self, bucket: u16) -> bool {
        self.buckets.iter().last().is_some_and(|(last, _)| last >= bucket)
    }

    /// The value at `percent` (0 to 100) by nearest rank; `None` when there are none, or none of
    /// their buckets is known.
    ///
    /// # Example: nearest rank
    /// ```
    /// use prompt_engine_core::histogram::Histogram;
    /// let mut histogram = Histogram::default();
    /// (1..=10).for_each(|ms| histogram.record(ms));
    /// assert_eq!(histogram.percentile(50), Some(5.0));
    /// assert_eq!(histogram.percentile(99), Some(10.0));
    /// ```
    pub fn percentile(&self, percent: u8) -> Option<f64> {
        let rank = (u128::from(self.count) * u128::from(percent)).div_ceil(100).max(1);
        let mut seen = 0_u128;
        self.buckets.iter().find_map(|(bucket, count)| {
            seen += u128::from(count);
            (seen >= rank).then(|| representative(bucket))
        })
    }
}

/// How often each bucket was hit: the counts from the first to the last bucket that was, in a row,
/// since durations lie close together and adding one must be cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Buckets {
    first: u16,
    counts: Vec<u64>,
}

impl Buckets {
    /// The last bucket that a value can have.
    pub(crate) const LAST: u16 = 64 * 64;

    /// Counts `times` hits, at least one, of `bucket`.
    pub(crate) fn add(&mut self, bucket: u16, times: u64) {
        if self.counts.is_empty() {
            self.first = bucket;
        }
        if bucket < self.first {
            let missing = usize::from(self.first - bucket);
            self.counts.splice(..0, std::iter::repeat_n(0, missing));
            self.first = bucket;
        }
        let place = usize::from(bucket - self.first);
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] = self.counts[place].saturating_add(times);
    }

    /// Adds all of `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        other.iter().for_each(|(bucket, times)| self.add(bucket, times));
    }

    /// Takes all of `other` away.
    fn take(&mut self, other: &Self) {
        for (bucket, times) in other.iter() {
            let place = bucket.checked_sub(self.first).map(usize::from);
            if let Some(hits) = place.and_then(|place| self.counts.get_mut(place)) {
                *hits = hits.saturating_sub(times);
            }
        }
        // The first and the last bucket may be others now.
        let mut left = Self::default();
        left.merge(self);
        *self = left;
    }

    /// The buckets that were hit, in order, and how often.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, u64)> + Clone + '_ {
        let hit = |(bucket, times): (u16, &u64)| (*times > 0).then_some((bucket, *times));
        (self.first..).zip(&self.counts).filter_map(hit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_six_tenths_of_a_percent_of_its_representative() {
        let mut random = fastrand::Rng::with_seed(7);
        let values =
            (0..100_000_u64).chain((0..100_000).map(|_| random.u64(..) >> random.u32(0..50)));
        for value in values {
            let shown = representative(bucket_of(value));
            let error = (shown - value as f64).abs();
            assert!(error <= 0.006 * value as f64, "{value} shown as {shown}");
        }
    }

    #[test]
    fn buckets_never_fall_as_values_rise() {
        let mut last = 0;
        for value in 0..1_000_000_u64 {
            let bucket = bucket_of(value);
            assert!(bucket >= last, "{value}");
            assert!(lower_bound(bucket) <= value && value < lower_bound(bucket + 1), "{value}");
            last = bucket;
        }
    }
}
