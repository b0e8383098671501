//! Which column of a file holds which field of a row, and what is the same for all rows.

use prompt_engine::{Slug, Zone};

use super::row::{Field, Row};

/// Which column holds which field, and the row that has only the fixed values.
#[derive(Debug)]
pub(super) struct Plan {
    mapped: Vec<(Field, String)>,
    fixed: Row,
    zone: Zone,
}

impl Plan {
    /// A plan from the pairs of `--map` (`field=column`) and `--set` (`field=value`).
    ///
    /// # Errors
    /// One sentence for an unknown field, one given twice, a bad value, and what is missing.
    pub(super) fn new(map: &[String], set: &[String], zone: Zone) -> Result<Self, String> {
        let mut given: Vec<Field> = Vec::new();
        let mut once = |field: Field| {
            if given.contains(&field) {
                return Err(format!("the field {} is given twice", field.name()));
            }
            given.push(field);
            Ok(())
        };
        let mut mapped = Vec::new();
        for (name, column) in pairs("--map", map)? {
            let field = name.parse().map_err(|why| format!("--map: {why}"))?;
            once(field)?;
            mapped.push((field, column));
        }
        let mut fixed = Row::default();
        for (name, value) in pairs("--set", set)? {
            let field = name.parse().map_err(|why| format!("--set: {why}"))?;
            once(field)?;
            fixed.put(field, &value, zone).map_err(|why| format!("--set {name}: {why}"))?;
        }
        for field in Field::REQUIRED {
            if !given.contains(&field) {
                let name = field.name();
                return Err(format!(
                    "{name} is missing: name its column with --map {name}=COLUMN or its value with --set {name}=VALUE"
                ));
            }
        }
        let counts = [Field::InputTokens, Field::OutputTokens];
        let parts = Field::TOKEN_PARTS;
        let has_counts = counts.map(|field| given.contains(&field));
        let has_part = parts.iter().any(|field| given.contains(field));
        if has_counts != [false, false] && has_counts != [true, true] || has_part && !has_counts[0]
        {
            return Err("token counts need both input_tokens and output_tokens".to_owned());
        }
        Ok(Self { mapped, fixed, zone })
    }

    /// The columns to read, in the order in which [`Plan::row`] takes their cells.
    pub(super) fn columns(&self) -> Vec<String> {
        self.mapped.iter().map(|(_, column)| column.clone()).collect()
    }

    /// The prompt, where all rows have the same.
    pub(super) fn fixed_prompt(&self) -> Option<&Slug> {
        self.fixed.prompt.as_ref()
    }

    /// The row that has these cells.
    ///
    /// # Errors
    /// The index of the cell at fault, where one is, and what is wrong.
    pub(super) fn row(&self, cells: &[Option<String>]) -> Result<Row, (Option<usize>, String)> {
        let mut row = self.fixed.clone();
        for (index, ((field, _), cell)) in self.mapped.iter().zip(cells).enumerate() {
            match cell {
                Some(text) => {
                    row.put(*field, text, self.zone).map_err(|why| (Some(index), why))?;
                }
                None if Field::REQUIRED.contains(field) => {
                    return Err((
                        Some(index),
                        format!("it is empty, and {} is needed", field.name()),
                    ));
                }
                None => {}
            }
        }
        let column_of = |wanted| self.mapped.iter().position(|(field, _)| *field == wanted);
        match (row.input, row.output) {
            (Some(_), None) => Err((column_of(Field::OutputTokens), "it is empty".to_owned())),
            (None, Some(_)) => Err((column_of(Field::InputTokens), "it is empty".to_owned())),
            _ => Ok(()),
        }?;
        let first_part = Field::TOKEN_PARTS.into_iter().find_map(column_of);
        row.tokens().map_err(|why| (first_part, why))?;
        Ok(row)
    }
}

/// Splits `a=b,c=d`. A piece without `=` belongs to the value before it, comma and all.
fn pairs(option: &str, given: &[String]) -> Result<Vec<(String, String)>, String> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for text in given {
        let mut has_first = false;
        for piece in text.split(',') {
            match piece.split_once('=') {
                Some((name, value)) => pairs.push((name.trim().to_owned(), value.to_owned())),
                None if has_first => {
                    if let Some((_, value)) = pairs.last_mut() {
                        value.push(',');
                        value.push_str(piece);
                    }
                }
                None => {
                    return Err(format!("{option} takes FIELD=… pairs, and {piece:?} is none"));
                }
            }
            has_first = true;
        }
    }
    match pairs.iter().find(|(_, value)| value.is_empty()) {
        Some((name, _)) => Err(format!("{option} {name}= has nothing behind the equals sign")),
        None => Ok(pairs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(map: &str, set: &str) -> Result<Plan, String> {
        Plan::new(&[map.to_owned()], &[set.to_owned()], Zone::UTC)
    }

    fn row(cells: [&str; 3]) -> Result<Row, (Option<usize>, String)> {
        let plan = plan(
            "created_at=t,input_tokens=i,output_tokens=o",
            "prompt=p,provider=openai,model=gpt-4o",
        );
        plan.unwrap().row(&cells.map(|cell| Some(cell.to_owned()).filter(|cell| !cell.is_empty())))
    }

    #[test]
    fn what_a_plan_lacks_is_named() {
        let full = "prompt=p,provider=openai,model=m";
        for (map, set, named) in [
            ("created_at=t", "prompt=p,provider=openai", "model is missing"),
            ("created_at=t,colour=c", full, "no field \"colour\""),
            ("created_at=t,model=m", full, "model is given twice"),
            ("created_at=t,input_tokens=i", full, "both input_tokens and output_tokens"),
            ("created_at=t,cache_read_tokens=c", full, "both input_tokens and output_tokens"),
            ("created_at=", full, "created_at= has nothing"),
            ("created_at", full, "\"created_at\" is none"),
            ("created_at=t", "prompt=A b,provider=openai,model=m", "--set prompt:"),
        ] {
            let why = plan(map, set).unwrap_err();
            assert!(why.contains(named), "{map} {set}: {why}");
        }
    }

    #[test]
    fn a_value_may_hold_a_comma_and_an_equals_sign() {
        let given = ["a=b,c,d=e=f".to_owned()];
        let pairs = pairs("--set", &given).unwrap();
        assert_eq!(pairs, [("a".to_owned(), "b,c".to_owned()), ("d".to_owned(), "e=f".to_owned())]);
    }

    #[test]
    fn counts_that_cannot_be_are_refused_with_their_cell() {
        let at = "2023-11-16 18:17:03";
        assert_eq!(row([at, "10", "2"]).unwrap().tokens().unwrap().unwrap().total(), 12);
        assert!(row([at, "", ""]).unwrap().tokens().unwrap().is_none());
        for (cells, place, named) in [
            ([at, "-1", "2"], 1, "negative"),
            ([at, "1", "1000000000001"], 2, "more than"),
            ([at, "99999999999999999999", "2"], 1, "too large"),
            ([at, "1.5", "2"], 1, "no whole number"),
            ([at, "1", ""], 2, "empty"),
            (["", "1", "1"], 0, "created_at is needed"),
        ] {
            let (column, why) = row(cells).unwrap_err();
            assert_eq!(column, Some(place), "{why}");
            assert!(why.contains(named), "{why}");
        }
    }
}
