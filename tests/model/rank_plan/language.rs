// SPDX-License-Identifier: Apache-2.0
//! The language of rank plans written down once more, in the plainest way: every
//! dimension is a list of indices, every check is made for each rank one after
//! the other, and nothing is remembered.

use serde_json::Value;

use super::checkpoint::Listed;

/// The name of an error.
pub(crate) type Fails<T> = Result<T, &'static str>;

/// A question: what a plan is made with, and sizes of axes.
pub(crate) struct Question {
    pub(crate) tensors: Vec<Listed>,
    pub(crate) plans: Vec<Value>,
    pub(crate) config: Value,
    pub(crate) strict: bool,
    pub(crate) axes: Vec<(&'static str, u64)>,
}

/// Pieces of a dimension, start, stop, zeros and skip; `None`: all of it.
pub(crate) type Pieces = Option<Vec<[u64; 4]>>;

/// A tensor's number and the pieces of its dimensions.
pub(crate) type Part = (usize, Vec<Pieces>);

/// What a stored dimension shows.
#[derive(Clone, Copy)]
struct Shows {
    dim: u64,
    by: u64,
    is_block: bool,
}

struct Stored {
    logical: String,
    shows: Vec<Option<Shows>>,
}

/// The texts of a pattern's stars in a name that it matches, and of its `**` at the end.
fn stars(pattern: &[&str], name: &[&str]) -> Option<(Vec<String>, Option<Vec<String>>)> {
    let Some((first, more)) = pattern.split_first() else { return name.is_empty().then_some((Vec::new(), None)) };
    if *first == "**" {
        return (0..=name.len()).find_map(|taken| {
            let (texts, _) = stars(more, &name[taken..])?;
            Some((texts, Some(name[..taken].iter().map(|part| (*part).to_owned()).collect())))
        });
    }
    let (part, rest) = name.split_first()?;
    let (mut texts, all) = stars(more, rest)?;
    match first.split_once('*') {
        None => (first == part).then_some((texts, all)),
        Some((before, after)) => {
            let text = part.strip_prefix(before)?.strip_suffix(after)?;
            texts.insert(0, text.to_owned());
            Some((texts, all))
        }
    }
}

fn parts(text: &str) -> Vec<&str> {
    text.split('.').collect()
}

fn matched(pattern: &str, name: &str) -> Option<(Vec<String>, Option<Vec<String>>)> {
    stars(&parts(pattern), &parts(name))
}

impl Question {
    fn list(&self, field: &str) -> Vec<&Value> {
        self.plans.iter().filter_map(|plan| plan.get(field)?.as_array()).flatten().collect()
    }

    fn size_of(&self, axis: &str) -> u64 {
        self.axes.iter().find(|(name, _)| *name == axis).map_or(1, |(_, size)| *size)
    }

    fn symbol(&self, name: &str, within: &mut Vec<String>) -> Fails<u64> {
        let mut found = &self.config;
        for part in parts(name) {
            found = found.get(part).unwrap_or(&Value::Null);
        }
        match found {
            Value::Null => {}
            Value::Bool(value) => return Ok((*value).into()),
            other => return other.as_u64().ok_or("EXPRESSION"),
        }
        let defined = self.plans.iter().find_map(|plan| plan.get("symbols")?.get(name)).ok_or("SYMBOL")?;
        if within.iter().any(|other| other == name) {
            return Err("SYMBOL");
        }
        within.push(name.to_owned());
        let value = self.value_within(defined, within);
        within.pop();
        value
    }

    fn value_within(&self, expression: &Value, within: &mut Vec<String>) -> Fails<u64> {
        if let Some(number) = expression.as_u64() {
            return Ok(number);
        }
        let text = expression.as_str().unwrap();
        let (mut value, mut rest, mut divides) = (1_u64, text, false);
        loop {
            let end = rest.find(['*', '/']);
            let factor = rest[..end.unwrap_or(rest.len())].trim();
            let number = match factor.strip_prefix('$') {
                Some(axis) => self.size_of(axis),
                None if factor.as_bytes()[0].is_ascii_digit() => factor.parse().unwrap(),
                None => self.symbol(factor, within)?,
            };
            value = match divides {
                true if number == 0 || value % number != 0 => return Err("EXPRESSION"),
                true => value / number,
                false => value.checked_mul(number).filter(|value| *value < 1 << 63).ok_or("EXPRESSION")?,
            };
            let Some(end) = end else { return Ok(value) };
            divides = rest.as_bytes()[end] == b'/';
            rest = &rest[end + 1..];
        }
    }

    fn value(&self, of: &Value, field: &str, otherwise: u64) -> Fails<u64> {
        of.get(field).map_or(Ok(otherwise), |expression| self.value_within(expression, &mut Vec::new()))
    }

    fn at_least_one(&self, of: &Value, field: &str) -> Fails<u64> {
        match self.value(of, field, 1)? {
            0 => Err("EXPRESSION"),
            value => Ok(value),
        }
    }

    fn stored(&self) -> Fails<Vec<Stored>> {
        let mut all = Vec::new();
        for tensor in &self.tensors {
            let entries = self.list("stored");
            let mut found = entries
                .iter()
                .filter_map(|entry| Some((*entry, matched(entry["match"].as_str().unwrap(), &tensor.name)?)));
            let Some((entry, (texts, all_of_rest))) = found.next() else {
                let shows = (0..tensor.shape.len() as u64).map(|dim| Some(Shows { dim, by: 1, is_block: false }));
                all.push(Stored { logical: tensor.name.clone(), shows: shows.collect() });
                continue;
            };
            let mut texts = texts.into_iter();
            let logical =
                parts(entry["as"].as_str().unwrap()).into_iter().flat_map(|part| match part.split_once('*') {
                    _ if part == "**" => all_of_rest.clone().unwrap(),
                    Some((before, after)) => vec![format!("{before}{}{after}", texts.next().unwrap())],
                    None => vec![part.to_owned()],
                });
            let logical = logical.collect::<Vec<_>>().join(".");
            let dims = entry["dims"].as_array().unwrap();
            if dims.len() > tensor.shape.len() {
                return Err("STORED");
            }
            let mut shows = Vec::new();
            for dim in dims {
                shows.push(match dim.get("dim").and_then(Value::as_u64) {
                    None => None,
                    Some(shown) => {
                        let is_block = dim.get("block").is_some();
                        let by = self.at_least_one(dim, if is_block { "block" } else { "pack" })?;
                        Some(Shows { dim: shown, by, is_block })
                    }
                });
            }
            shows.resize_with(tensor.shape.len(), || None);
            all.push(Stored { logical, shows });
        }
        Ok(all)
    }

    /// The size of a logical dimension as the first tensors up to this one tell it.
    fn told(&self, stored: &[Stored], upto: usize, logical: &str, dim: u64) -> Option<u64> {
        let mut sizes = stored.iter().zip(&self.tensors).take(upto).filter(|(one, _)| one.logical == logical).flat_map(
            |(one, tensor)| {
                one.shows.iter().zip(&tensor.shape).filter_map(|(shows, size)| Some((shows.as_ref()?, size)))
            },
        );
        sizes.find(|(shows, _)| shows.dim == dim && !shows.is_block).map(|(shows, size)| shows.by * size)
    }

    fn check_sizes(&self, stored: &[Stored]) -> Fails<()> {
        for pass in [false, true] {
            for (at, (one, tensor)) in stored.iter().zip(&self.tensors).enumerate() {
                for (shows, size) in one.shows.iter().zip(&tensor.shape) {
                    let Some(shows) = shows.as_ref().filter(|shows| shows.is_block == pass) else { continue };
                    let upto = if pass { stored.len() } else { at };
                    let agrees = match self.told(stored, upto, &one.logical, shows.dim) {
                        None => true,
                        Some(told) if pass => told.div_ceil(shows.by) == *size,
                        Some(told) => told == size * shows.by,
                    };
                    if !agrees {
                        return Err("STORED");
                    }
                }
            }
        }
        Ok(())
    }

    /// The number by which a rule matches a name, 0 where it goes by none.
    fn matches(&self, rule: &Value, name: &str) -> Fails<Option<u64>> {
        let is_off = rule.get("unless").is_some_and(|axis| self.size_of(axis.as_str().unwrap()) > 1);
        let patterns = match &rule["match"] {
            Value::Array(list) => list.iter().map(|one| one.as_str().unwrap()).collect(),
            one => vec![one.as_str().unwrap()],
        };
        for pattern in patterns {
            let Some((texts, _)) = matched(pattern, name) else { continue };
            let Some(star) = rule.get("pick").filter(|_| !is_off) else { return Ok(Some(0)) };
            let text = &texts[star.as_u64().unwrap() as usize - 1];
            let number = text.parse().ok().filter(|number: &u64| number.to_string() == *text && text.len() <= 18);
            if let Some(number) = number {
                if number < self.value(rule, "of", u64::MAX)? {
                    return Ok(Some(number));
                }
            }
        }
        Ok(None)
    }

    /// Whether a rule before this one on its axis takes a tensor.
    fn is_taken(&self, rules: &[&Value], rule: &Value, name: &str, stored: &[Stored]) -> bool {
        let mut before = rules.iter().take_while(|other| !std::ptr::eq(**other, rule));
        before.any(|other| {
            let matches = other["axis"] == rule["axis"] && self.is_considered(other, stored);
            matches && self.matches(other, name) != Ok(None)
        })
    }

    fn is_considered(&self, rule: &Value, stored: &[Stored]) -> bool {
        let absent = rule.get("absent").and_then(Value::as_str);
        absent.is_none_or(|pattern| stored.iter().all(|one| matched(pattern, &one.logical).is_none()))
    }

    /// A rank's units, one by one.
    fn units(split: Option<&Value>, r: u64, n: u64, all: u64) -> Fails<Vec<u64>> {
        let every = || 0..all;
        let run = |from: u64, to: u64| (from.min(all)..to.min(all)).collect::<Vec<_>>();
        Ok(match split.and_then(Value::as_str) {
            None if split.is_none() => return Self::units(Some(&"even".into()), r, n, all),
            Some("even") if all % n != 0 => return Err("INDIVISIBLE"),
            Some("even") => run(r * all / n, (r + 1) * all / n),
            Some("replicate") if all % n == 0 => run(r * all / n, (r + 1) * all / n),
            Some("replicate") if all == 0 || n % all != 0 => return Err("INDIVISIBLE"),
            Some("replicate") => vec![r * all / n],
            Some("ceil") => run(r * all.div_ceil(n), (r + 1) * all.div_ceil(n)),
            Some("balanced") => {
                let start = |r: u64| r * (all / n) + r.min(all % n);
                run(start(r), start(r + 1))
            }
            Some("robin") => every().filter(|unit| unit % n == r).collect(),
            Some(other) => panic!("{other}"),
            None => {
                let numbers =
                    |list: &Value| list.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect::<Vec<_>>();
                let split = split.unwrap();
                if let Some(counts) = split.get("counts").map(numbers) {
                    if counts.len() as u64 != n || counts.iter().sum::<u64>() != all {
                        return Err("SPLIT");
                    }
                    let before: u64 = counts[..r as usize].iter().sum();
                    return Ok(run(before, before + counts[r as usize]));
                }
                let lists: Vec<_> = split["lists"].as_array().unwrap().iter().map(numbers).collect();
                let is_twice = |list: &Vec<u64>| list.iter().enumerate().any(|(i, unit)| list[..i].contains(unit));
                if lists.len() as u64 != n
                    || lists.iter().flatten().any(|unit| *unit >= all)
                    || lists.iter().any(is_twice)
                    || every().any(|unit| lists.iter().all(|list| !list.contains(&unit)))
                {
                    return Err("SPLIT");
                }
                lists[r as usize].clone()
            }
        })
    }

    /// What a rank takes of a segment that begins at an offset; `None` is a zero.
    fn take(&self, of: &Value, size: u64, offset: u64, r: u64, n: u64) -> Fails<Vec<Option<u64>>> {
        if of.get("split").and_then(Value::as_str) == Some("whole") {
            return Ok((offset..offset + size).map(Some).collect());
        }
        let pad = self.at_least_one(of, "pad")?;
        let padded = size.div_ceil(pad) * pad;
        let unit = match of.get("heads") {
            None => self.value(of, "unit", 1)?,
            Some(_) => match self.value(of, "heads", 1)? {
                heads if heads == 0 || size % heads != 0 => return Err("UNIT"),
                heads => (size / heads).max(1),
            },
        };
        if unit == 0 || padded % unit != 0 {
            return Err("UNIT");
        }
        let units = Self::units(of.get("split"), r, n, padded / unit)?;
        let elements = units.iter().flat_map(|at| at * unit..(at + 1) * unit);
        Ok(elements.map(|at| (at < size).then_some(offset + at)).collect())
    }

    /// What a rank takes of a dimension.
    fn cut(&self, rule: &Value, size: u64, r: u64, n: u64) -> Fails<Vec<Option<u64>>> {
        let segments: Vec<(&Value, u64)> = match rule.get("segments") {
            Some(Value::Array(list)) => {
                let sizes = list.iter().map(|segment| Ok((segment, self.value(segment, "size", 0)?)));
                let sizes = sizes.collect::<Fails<Vec<_>>>()?;
                let repeat = self.at_least_one(rule, "repeat")?;
                if sizes.iter().map(|(_, size)| size).sum::<u64>() * repeat != size {
                    return Err("SEGMENTS");
                }
                (0..repeat).flat_map(|_| sizes.clone()).collect()
            }
            number => {
                let count = number.map_or(1, |number| number.as_u64().unwrap()) * self.at_least_one(rule, "repeat")?;
                if size % count != 0 {
                    return Err("SEGMENTS");
                }
                vec![(rule, size / count); count as usize]
            }
        };
        let (mut taken, mut offset) = (Vec::new(), 0);
        for (segment, size) in segments {
            taken.extend(self.take(segment, size, offset, r, n)?);
            offset += size;
        }
        Ok(taken)
    }

    /// The parts of a rank, or the first error of any.
    pub(crate) fn answer(&self, ranks: &[u64]) -> Fails<Vec<Part>> {
        let rules = self.list("rules");
        let axis_of = |rule: &Value| rule["axis"].as_str().unwrap().to_owned();
        let mut axes: Vec<String> = Vec::new();
        for rule in &rules {
            if !axes.contains(&axis_of(rule)) {
                axes.push(axis_of(rule));
            }
        }
        if self.axes.iter().any(|(name, size)| *size > 1 && !axes.iter().any(|axis| axis == name)) {
            return Err("AXIS");
        }
        let stored = self.stored()?;
        self.check_sizes(&stored)?;
        for rule in rules.iter().filter(|rule| self.is_considered(rule, &stored)) {
            let mut is_used = false;
            for one in &stored {
                is_used |= match self.matches(rule, &one.logical) {
                    Ok(number) => number.is_some(),
                    // What it may be is asked only where the rule would be the first on its axis.
                    Err(error) if !self.is_taken(&rules, rule, &one.logical, &stored) => return Err(error),
                    Err(_) => true,
                };
            }
            if !is_used && rule.get("optional") != Some(&Value::Bool(true)) {
                return Err("RULE_UNUSED");
            }
        }
        let mut parts = Vec::new();
        for number in 0..stored.len() {
            if let Some(pieces) = self.tensor(number, &stored, &rules, &axes, ranks)? {
                parts.push((number, pieces));
            }
        }
        Ok(parts)
    }

    fn tensor(
        &self,
        number: usize,
        stored: &[Stored],
        rules: &[&Value],
        axes: &[String],
        ranks: &[u64],
    ) -> Fails<Option<Vec<Pieces>>> {
        let (one, tensor) = (&stored[number], &self.tensors[number]);
        let mut chosen = Vec::new();
        for axis in axes {
            let mut found = None;
            for rule in rules.iter().filter(|rule| rule["axis"] == **axis && self.is_considered(rule, stored)) {
                if found.is_none() {
                    found = self.matches(rule, &one.logical)?.map(|by| (*rule, by));
                }
            }
            chosen.push(found);
        }
        let is_off = |rule: &Value| rule.get("unless").is_some_and(|axis| self.size_of(axis.as_str().unwrap()) > 1);
        let is_nowhere = |rule: &Value| !is_off(rule) && rule.get("on") == Some(&Value::Array(Vec::new()));
        if chosen.iter().flatten().any(|(rule, _)| is_nowhere(rule)) {
            return Ok(None);
        }
        let strict = self.list("strict");
        let mut is_here = true;
        let mut cuts: Vec<(u64, u64, Vec<Vec<Option<u64>>>)> = Vec::new();
        for (axis, chosen) in axes.iter().zip(chosen) {
            let (r, n) = match self.axes.iter().position(|(name, _)| name == axis) {
                Some(at) => (ranks[at], self.axes[at].1),
                None => (0, 1),
            };
            let Some((rule, by)) = chosen else {
                if self.strict || strict.iter().any(|name| *name == axis) {
                    return Err("UNMATCHED");
                }
                continue;
            };
            if is_off(rule) {
                continue;
            }
            if let Some(on) = rule.get("on").and_then(Value::as_array) {
                let on: Vec<i64> = on.iter().map(|rank| rank.as_i64().unwrap()).collect();
                let n = n as i64;
                if on.iter().any(|rank| *rank >= n || *rank < -n) {
                    return Err("AXIS");
                }
                is_here &= on.iter().any(|rank| rank.rem_euclid(n) == r as i64);
            }
            if rule.get("pick").is_some() {
                let mut units = 0;
                for other in stored {
                    units = units.max(self.matches(rule, &other.logical)?.map_or(0, |number| number + 1));
                }
                units = self.value(rule, "of", units)?;
                for r in 0..n {
                    Self::units(rule.get("split"), r, n, units)?;
                }
                is_here &= Self::units(rule.get("split"), r, n, units)?.contains(&by);
            }
            if let Some(dim) = rule.get("cut").and_then(Value::as_u64) {
                let size = self.told(stored, stored.len(), &one.logical, dim).ok_or("DIMENSION")?;
                if cuts.iter().any(|(other, ..)| *other == dim) {
                    return Err("CUT_TWICE");
                }
                let all = (0..n).map(|r| self.cut(rule, size, r, n)).collect::<Fails<Vec<_>>>()?;
                cuts.push((dim, r, all));
            }
        }
        let mut pieces = Vec::new();
        for (at, shows) in one.shows.iter().enumerate() {
            let cut = shows.as_ref().and_then(|shows| Some((shows, cuts.iter().find(|(dim, ..)| *dim == shows.dim)?)));
            let Some((shows, (_, r, all))) = cut else {
                pieces.push(None);
                continue;
            };
            let row = tensor.bits() * tensor.shape[at + 1..].iter().product::<u64>();
            let shown = all.iter().map(|indices| shown(&logical_pieces(indices), *shows)).collect::<Fails<Vec<_>>>()?;
            let odd = |value: u64| value * row % 8 != 0;
            if shown.iter().flatten().any(|[start, stop, zeros, _]| odd(*start) || odd(*stop) || odd(*zeros))
                || odd(tensor.shape[at])
            {
                return Err("SUB_BYTE");
            }
            let mine = shown[*r as usize].clone();
            let taken: Vec<u64> = mine.iter().flat_map(|piece| piece[0]..piece[1]).collect();
            let is_plain = mine.iter().all(|piece| piece[2] == 0 && piece[3] == 0);
            let is_all = is_plain && taken.iter().copied().eq(0..tensor.shape[at]);
            pieces.push((!is_all).then_some(mine));
        }
        Ok(is_here.then_some(pieces))
    }
}

/// Pieces of a list of indices, by walking along it.
fn logical_pieces(indices: &[Option<u64>]) -> Vec<[u64; 3]> {
    let mut pieces: Vec<[u64; 3]> = Vec::new();
    for index in indices {
        match (index, pieces.last_mut()) {
            (None, Some(last)) => last[2] += 1,
            (None, None) => pieces.push([0, 0, 1]),
            (Some(index), Some(last)) if last[2] == 0 && last[1] == *index => last[1] += 1,
            (Some(index), _) => pieces.push([*index, index + 1, 0]),
        }
    }
    pieces
}

/// Logical pieces as those of a stored dimension.
fn shown(pieces: &[[u64; 3]], shows: Shows) -> Fails<Vec<[u64; 4]>> {
    let by = shows.by;
    let one = |[start, stop, zeros]: &[u64; 3]| match shows.is_block {
        false if start % by != 0 || stop % by != 0 || zeros % by != 0 => Err("PACKED"),
        false => Ok([start / by, stop / by, zeros / by, 0]),
        true if start == stop => Ok([0, 0, zeros.div_ceil(by), 0]),
        true => {
            let zeros = (stop + zeros).div_ceil(by) - stop.div_ceil(by);
            Ok([start / by, stop.div_ceil(by), zeros, start % by])
        }
    };
    pieces.iter().map(one).collect()
}
