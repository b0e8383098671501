//! Cells: what the records of a stretch of time that share a lead (a prompt, or a model) add up to, one
//! series for each combination of the other dimensions. A cell is two values, so that the histograms
//! are read only where percentiles are asked for: see `docs/cubes.md`.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::bytes::{Reader, Writer};
use crate::error::{Error, Result};
use crate::id::PromptId;
use crate::label::Label;
use crate::time::BucketWidth;

use super::Cube;
use super::names::Names;
use super::reader;
use super::sums::{Sums, add_columns, add_durations, write_columns, write_durations};

/// The form of the values.
const VERSION: u8 = 1;

/// Where a cell is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellKey {
    /// The cube.
    pub cube: Cube,
    /// How long its stretch of time is: quarters, hours and days of UTC.
    pub width: BucketWidth,
    /// When that starts, in microseconds since 1970.
    pub start: i64,
    /// What all its series share: the 16 bytes of a prompt, or a provider, a NUL and a model;
    /// nothing in [`Cube::Totals`].
    pub lead: Vec<u8>,
}

/// The two values of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellValues {
    /// The series, and what each adds up to.
    pub sums: Vec<u8>,
    /// Their histograms.
    pub durations: Vec<u8>,
}

/// The dimensions that tell the series of a cell apart, as numbers of [`Names`]; 0 where the cube or
/// the lead has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Series {
    pub(super) version: u32,
    pub(super) environment: u32,
    pub(super) provider: u32,
    pub(super) model: u32,
}

/// The dimensions that a lead names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Lead {
    pub(super) prompt: u32,
    pub(super) provider: u32,
    pub(super) model: u32,
}

/// The bytes of a lead.
pub(super) fn lead_bytes(cube: Cube, lead: Lead, names: &Names) -> Vec<u8> {
    match cube {
        Cube::Totals => Vec::new(),
        Cube::Prompts | Cube::Calls => names.prompt_of(lead.prompt).to_bytes().to_vec(),
        Cube::Models => model_lead(names.label_of(lead.provider), names.label_of(lead.model)),
    }
}

/// The lead of a provider and a model.
pub(super) fn model_lead(provider: &Label, model: &Label) -> Vec<u8> {
    [provider.as_bytes(), &[0], model.as_bytes()].concat()
}

pub(super) fn read_lead(cube: Cube, bytes: &[u8], names: &mut Names) -> Result<Lead> {
    match cube {
        Cube::Totals => Ok(Lead::default()),
        Cube::Prompts | Cube::Calls => {
            let id = bytes.try_into().map_err(|_| Error::corrupt("a cell's lead is no prompt"))?;
            Ok(Lead { prompt: names.prompt(PromptId::from_bytes(id)), ..Lead::default() })
        }
        Cube::Models => {
            let text = std::str::from_utf8(bytes).ok().and_then(|text| text.split_once('\0'));
            let (provider, model) =
                text.ok_or_else(|| Error::corrupt("a cell's lead is no model"))?;
            let (provider, model) = (names.label(provider)?, names.label(model)?);
            Ok(Lead { provider, model, ..Lead::default() })
        }
    }
}

/// The values of a cell of these series.
pub(super) fn write(cube: Cube, series: &[Series], sums: &[Sums], names: &Names) -> CellValues {
    let mut labels: Vec<u32> = Vec::new();
    let mut places: HashMap<u32, u64, RandomState> = HashMap::default();
    let mut dimensions = Writer::default();
    {
        let mut label = |number: u32, to: &mut Writer| {
            let next = labels.len() as u64;
            let place = *places.entry(number).or_insert(next);
            if place == next {
                labels.push(number);
            }
            to.number(place);
        };
        for series in series {
            label(series.environment, &mut dimensions);
            if matches!(cube, Cube::Prompts | Cube::Calls) {
                dimensions.number(series.version.into());
            }
            if cube == Cube::Calls {
                label(series.provider, &mut dimensions);
                label(series.model, &mut dimensions);
            }
        }
    }
    let mut value = Writer::new(VERSION);
    value.number(labels.len() as u64);
    labels.iter().for_each(|label| value.text(names.label_of(*label)));
    value.number(series.len() as u64);
    value.append(&dimensions);
    write_columns(sums, &mut value);
    let mut durations = Writer::new(VERSION);
    write_durations(sums, &mut durations);
    CellValues { sums: value.finish(), durations: durations.finish() }
}

/// The series of a cell, and what each adds up to.
pub(super) fn read(
    cube: Cube,
    values: &CellValues,
    names: &mut Names,
) -> Result<(Vec<Series>, Vec<Sums>)> {
    let (mut series, mut sums) = (Vec::new(), Vec::new());
    add(cube, &values.sums, Some(&values.durations), names, &mut sums, |of, sums| {
        series.push(of);
        sums.push(Sums::default());
        Some(sums.len() - 1)
    })?;
    Ok((series, sums))
}

/// Adds a cell: `target` says for each of its series to which of `sums` it is added, if to any.
/// Answers how many series it has.
pub(super) fn add(
    cube: Cube,
    value: &[u8],
    durations: Option<&[u8]>,
    names: &mut Names,
    sums: &mut Vec<Sums>,
    mut target: impl FnMut(Series, &mut Vec<Sums>) -> Option<usize>,
) -> Result<u64> {
    let mut value = reader(value, VERSION)?;
    let labels: Vec<u32> =
        (0..value.count()?).map(|_| names.label(value.text()?)).collect::<Result<_>>()?;
    let label = |value: &mut Reader<'_>| {
        let place = usize::try_from(value.number()?).ok();
        place
            .and_then(|place| labels.get(place).copied())
            .ok_or_else(|| Error::corrupt("a cell names a text that is not there"))
    };
    let count = value.count()?;
    let mut targets = Vec::with_capacity(count);
    for _ in 0..count {
        let mut series = Series { environment: label(&mut value)?, ..Series::default() };
        if matches!(cube, Cube::Prompts | Cube::Calls) {
            series.version = value.small()?;
        }
        if cube == Cube::Calls {
            (series.provider, series.model) = (label(&mut value)?, label(&mut value)?);
        }
        targets.push(target(series, sums));
    }
    add_columns(&mut value, &targets, sums)?;
    value.finish()?;
    if let Some(durations) = durations {
        let mut durations = reader(durations, VERSION)?;
        add_durations(&mut durations, &targets, sums)?;
        durations.finish()?;
    }
    Ok(count as u64)
}
