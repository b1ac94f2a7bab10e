// SPDX-License-Identifier: Apache-2.0
//! Which patterns match which names, for all of both at once.
//!
//! Patterns are a tree by their parts, and a name is a walk in it, at several
//! nodes at a time where `*` and `**` allow several ways. Such a set of nodes is
//! a state; where a part leads from a state is found once. Names come sorted, so
//! most of a walk is that of the name before. 100,000 names of experts and the
//! 30 patterns of a family take 6 ms, and one pattern after the other 100 ms.
#![forbid(unsafe_code)]

use super::pattern::{NamePattern, Part};
use crate::base::numbering::Numbering;
use crate::base::{memory, sort};
use crate::error::{Error, ErrorKind, Result};

/// Steps that one matching may take: a family's plan takes three for each name,
/// and a hostile one with many stars is stopped after a second.
const MOST_STEPS: u64 = 1 << 27;

#[derive(Default)]
struct Node {
    /// Children for parts with `*`.
    stars: Vec<StarEdge>,
    /// The child for `**`, where one is as soon as one is here.
    rest: Option<u32>,
    /// Whether one stays here for any part: this is a `**`.
    stays: bool,
    /// The patterns that end here.
    ends: Vec<usize>,
}

struct StarEdge {
    before: Box<[u8]>,
    after: Box<[u8]>,
    child: u32,
}

/// The tree, and the states that names have led to.
pub(super) struct Matching {
    nodes: Vec<Node>,
    /// Parts without `*`.
    texts: Numbering,
    /// A node and a part, or a node and a text with `*`: where they lead.
    edges: Numbering,
    children: Vec<u32>,
    /// States by their nodes: where one is after the parts so far.
    states: Numbering,
    /// The set of patterns that end at each state, once it is known.
    set_of_state: Vec<Option<u32>>,
    /// A state and the text of a part: the state that comes after.
    steps: Numbering,
    after: Vec<u32>,
    /// Distinct sets of patterns, by number; the first is empty.
    set_keys: Numbering,
    pub(super) sets: Vec<Vec<usize>>,
    spent: u64,
    /// Room for one key after the other.
    key: Vec<u8>,
    /// Where the parts of the last name end, but for the last, and the states after them.
    pub(super) dots: Vec<usize>,
    trail: Vec<u32>,
    start: u32,
}

impl Matching {
    /// The tree of these patterns.
    pub(super) fn new<'p>(patterns: impl Iterator<Item = &'p NamePattern>) -> Result<Self> {
        let mut this = Self {
            nodes: vec![Node::default()],
            texts: Numbering::default(),
            edges: Numbering::default(),
            children: Vec::new(),
            states: Numbering::default(),
            set_of_state: Vec::new(),
            steps: Numbering::default(),
            after: Vec::new(),
            set_keys: Numbering::default(),
            sets: Vec::new(),
            spent: 0,
            key: Vec::new(),
            dots: Vec::new(),
            trail: Vec::new(),
            start: 0,
        };
        for (number, pattern) in patterns.enumerate() {
            let mut at = 0;
            for part in pattern.parts() {
                at = this.child(at, part)?;
            }
            if let Some(node) = this.nodes.get_mut(at as usize) {
                node.ends.push(number);
            }
        }
        let mut first = Vec::new();
        this.enter(0, &mut first)?;
        this.start = this.state(&first)?;
        this.set_keys.number(&[])?;
        this.sets.push(Vec::new());
        Ok(this)
    }

    /// The child of a node for a part of a pattern, made if it is not there.
    fn child(&mut self, at: u32, part: &Part) -> Result<u32> {
        let new = u32::try_from(self.nodes.len()).map_err(|_| too_many())?;
        let child = match part {
            Part::Rest => *self.nodes.get_mut(at as usize).map(|node| node.rest.get_or_insert(new)).ok_or_else(lost)?,
            Part::Text(text) => {
                let text = self.texts.number(text.as_bytes())?;
                self.edge(pair(at, u32::try_from(text).map_err(|_| too_many())?).as_slice(), new)?
            }
            Part::Star { before, after } => {
                let key = [pair(at, u32::MAX).as_slice(), before.as_bytes(), b"*", after.as_bytes()].concat();
                let child = self.edge(&key, new)?;
                if child == new {
                    let node = self.nodes.get_mut(at as usize).ok_or_else(lost)?;
                    node.stars.push(StarEdge {
                        before: before.as_bytes().into(),
                        after: after.as_bytes().into(),
                        child,
                    });
                }
                child
            }
        };
        if child == new {
            self.nodes.push(Node { stays: *part == Part::Rest, ..Node::default() });
        }
        Ok(child)
    }

    fn edge(&mut self, key: &[u8], new: u32) -> Result<u32> {
        let number = self.edges.number(key)?;
        if number == self.children.len() {
            self.children.push(new);
        }
        self.children.get(number).copied().ok_or_else(lost)
    }

    /// The number of the set of the patterns that match a name.
    pub(super) fn set_of(&mut self, name: &[u8], before: &[u8]) -> Result<u32> {
        let same = sort::common(name, before);
        // A part counts where both names go on with a dot after it.
        while self.dots.last().is_some_and(|dot| *dot >= same) {
            self.dots.pop();
        }
        self.trail.truncate(self.dots.len());
        let mut at = self.dots.last().map_or(0, |dot| dot.saturating_add(1));
        let mut state = self.trail.last().copied().unwrap_or(self.start);
        loop {
            let rest = name.get(at..).unwrap_or_default();
            let length = rest.iter().position(|byte| *byte == b'.');
            state = self.step(state, rest.get(..length.unwrap_or(rest.len())).unwrap_or_default())?;
            let Some(length) = length else { break };
            let dot = at.saturating_add(length);
            memory::reserve(&mut self.dots, 1, "parts of names")?;
            memory::reserve(&mut self.trail, 1, "parts of names")?;
            self.dots.push(dot);
            self.trail.push(state);
            at = dot.saturating_add(1);
        }
        match self.set_of_state.get(state as usize).copied().flatten() {
            Some(set) => Ok(set),
            None => self.new_set(state),
        }
    }

    /// The state after a part.
    fn step(&mut self, state: u32, part: &[u8]) -> Result<u32> {
        self.key.clear();
        memory::reserve(&mut self.key, part.len().saturating_add(4), "matching of names")?;
        self.key.extend_from_slice(&state.to_le_bytes());
        self.key.extend_from_slice(part);
        let step = self.steps.number(&self.key)?;
        match self.after.get(step) {
            Some(after) => Ok(*after),
            None => {
                let after = self.new_step(state, part)?;
                memory::reserve(&mut self.after, 1, "matching of names")?;
                self.after.push(after);
                Ok(after)
            }
        }
    }

    #[cold]
    fn new_step(&mut self, state: u32, part: &[u8]) -> Result<u32> {
        let text = self.texts.find(part).and_then(|text| u32::try_from(text).ok());
        let mut nodes = Vec::new();
        for at in 0.. {
            let Some(node) = nth(self.states.key(state as usize), at) else { break };
            self.spend(self.nodes.get(node as usize).map_or(0, |node| node.stars.len()))?;
            let Some(found) = self.nodes.get(node as usize) else { continue };
            memory::reserve(&mut nodes, found.stars.len().saturating_mul(2).saturating_add(4), "matching of names")?;
            if found.stays {
                nodes.push(node);
            }
            if let Some(edge) = text.and_then(|text| self.edges.find(&pair(node, text))) {
                self.enter(self.children.get(edge).copied().unwrap_or(0), &mut nodes)?;
            }
            for StarEdge { before, after, child } in &found.stars {
                if part.strip_prefix(&**before).is_some_and(|rest| rest.ends_with(after)) {
                    self.enter(*child, &mut nodes)?;
                }
            }
        }
        self.state(&nodes)
    }

    /// One is at a node, and at its `**` too.
    fn enter(&self, at: u32, nodes: &mut Vec<u32>) -> Result<()> {
        nodes.push(at);
        nodes.extend(self.nodes.get(at as usize).ok_or_else(lost)?.rest);
        Ok(())
    }

    /// The state of these nodes.
    fn state(&mut self, nodes: &[u32]) -> Result<u32> {
        // What is kept of a state is paid for as 8 steps a node.
        self.spend(nodes.len().saturating_mul(8))?;
        let mut key = memory::vec_with_capacity(nodes.len().saturating_mul(4), "matching of names")?;
        nodes.iter().for_each(|node| key.extend_from_slice(&node.to_le_bytes()));
        let number = self.states.number(&key)?;
        if number == self.set_of_state.len() {
            memory::reserve(&mut self.set_of_state, 1, "matching of names")?;
            self.set_of_state.push(None);
        }
        u32::try_from(number).map_err(|_| too_many())
    }

    /// The set of the patterns that end at a state.
    fn new_set(&mut self, state: u32) -> Result<u32> {
        let mut set: Vec<usize> = Vec::new();
        for at in 0.. {
            let Some(node) = nth(self.states.key(state as usize), at) else { break };
            let count = self.nodes.get(node as usize).map_or(0, |node| node.ends.len());
            self.spend(count)?;
            memory::reserve(&mut set, count, "sets of patterns")?;
            set.extend(self.nodes.get(node as usize).into_iter().flat_map(|node| &node.ends));
        }
        set.sort_unstable();
        let key: Vec<u8> = set.iter().flat_map(|pattern| pattern.to_le_bytes()).collect();
        let number = self.set_keys.number(&key)?;
        if number == self.sets.len() {
            self.sets.push(set);
        }
        let number = u32::try_from(number).map_err(|_| too_many())?;
        if let Some(set) = self.set_of_state.get_mut(state as usize) {
            *set = Some(number);
        }
        Ok(number)
    }

    fn spend(&mut self, steps: usize) -> Result<()> {
        self.spent = self.spent.saturating_add(1).saturating_add(steps as u64);
        match self.spent > MOST_STEPS {
            true => Err(too_many()),
            false => Ok(()),
        }
    }
}

fn pair(first: u32, second: u32) -> [u8; 8] {
    (u64::from(first) << 32 | u64::from(second)).to_le_bytes()
}

/// A number of a list that is written as bytes.
fn nth(list: &[u8], at: usize) -> Option<u32> {
    let start = at.checked_mul(4)?;
    Some(u32::from_le_bytes(list.get(start..start.checked_add(4)?)?.try_into().ok()?))
}

fn too_many() -> Error {
    let text = format!("matching the plan's patterns takes more than {MOST_STEPS} steps");
    Error::new(ErrorKind::Unsupported, text)
}

fn lost() -> Error {
    Error::new(ErrorKind::Internal, "a tree of patterns without its node")
}
